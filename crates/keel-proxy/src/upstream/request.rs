//! The request as the peer gets it, in the peer's protocol.

mod gateway;
mod http;

use keel_http::{Message, RequestBody};

use super::route::Target;
use crate::{
    body::RequestBodyStore,
    exchange::Method,
    job::Job,
    snapshot::{PeerProgram, Protocol},
};

/// Bodies up to this size are sent with the head, in one write.
const WITH_HEAD_BYTES_MAX: usize = 16 << 10;

/// A request that has been written, as far as it goes with its head.
struct Written {
    message: Message,
    method: Method,
    rest: Rest,
}

/// What of a request is to be sent behind what has been written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Nothing: the body is there, or there is none.
    #[default]
    Nothing,
    /// The client's body, which has been read.
    Body,
}

/// Writes the request to `ex.upstream.request`: the head, and the body behind it where that is small.
pub(super) fn write(
    job: &mut Job<'_>,
    program: &PeerProgram,
    target: &Target,
    streams: bool,
) -> Result<(), u16> {
    let mut buffer = std::mem::take(&mut job.ex.upstream.request).into_bytes();
    if buffer.capacity() == 0 {
        buffer = job.worker.buffers.take();
    }
    let written = match &program.protocol {
        Protocol::Http(http) => http::write(job, program, http, target, streams, buffer)?,
        Protocol::FastCgi(fastcgi) => gateway::write_fastcgi(job, program, fastcgi, streams, buffer)?,
        Protocol::Uwsgi(uwsgi) => gateway::write_uwsgi(job, program, uwsgi, streams, buffer)?,
        Protocol::Scgi(scgi) => gateway::write_scgi(job, program, scgi, streams, buffer)?,
    };
    let side = &mut job.ex.upstream;
    (side.request, side.method, side.rest) = (written.message, written.method, written.rest);
    Ok(())
}

/// Says whether the client's body can follow the head as it comes: what follows must be what the head announces. One that has
/// come already is kept, as it may be sent again, unless it is passed on in the client's own chunks.
pub(super) fn may_stream(job: &Job<'_>, program: &PeerProgram) -> bool {
    let is_chunked = matches!(job.ex.received.head.body, RequestBody::Chunked);
    match &program.protocol {
        Protocol::Http(http) if is_chunked => http::may_stream_chunks(http),
        Protocol::Http(http) => http::may_stream(http) && !job.ex.received.has_all_of_body(),
        Protocol::FastCgi(_) => !job.ex.received.has_all_of_body(),
        // Nothing frames one of unknown length.
        Protocol::Uwsgi(_) | Protocol::Scgi(_) => !is_chunked && !job.ex.received.has_all_of_body(),
    }
}

/// Says what of a body that has been read doesn't go with the head.
fn rest_of(body: &RequestBodyStore) -> Rest {
    match body {
        RequestBodyStore::Memory(bytes) if bytes.len() > WITH_HEAD_BYTES_MAX => Rest::Body,
        RequestBodyStore::File(_) => Rest::Body,
        RequestBodyStore::Memory(_) | RequestBodyStore::None => Rest::Nothing,
    }
}
