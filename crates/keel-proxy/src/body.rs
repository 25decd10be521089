//! A request's body, read whole before a peer is chosen (`proxy_request_buffering on`), so that it can be sent again.

use crate::io::spool::Spool;

/// Where a request's body is.
#[derive(Default)]
pub(crate) enum RequestBodyStore {
    /// There is none, or it hasn't been read.
    #[default]
    None,
    /// In memory.
    Memory(Vec<u8>),
    /// In a temporary file, because it is larger than `client_body_buffer_size`.
    File(Spool),
}

impl RequestBodyStore {
    /// Length in bytes of a body that has been read; `None` where there is none.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            RequestBodyStore::None => None,
            RequestBodyStore::Memory(bytes) => Some(bytes.len() as u64),
            RequestBodyStore::File(spool) => Some(spool.len()),
        }
    }

    /// Makes another one with the same bytes, to be read independently of this one.
    pub(crate) fn share(&self) -> std::io::Result<Self> {
        Ok(match self {
            RequestBodyStore::None => RequestBodyStore::None,
            RequestBodyStore::Memory(bytes) => RequestBodyStore::Memory(bytes.clone()),
            RequestBodyStore::File(spool) => RequestBodyStore::File(spool.share()?),
        })
    }
}
