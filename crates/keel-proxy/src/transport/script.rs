//! For tests: a connection whose other end is a list.

use std::{
    collections::VecDeque,
    io,
    task::{Context, Poll},
};

/// What each read gives, as far as there is room for it; an empty piece is the end, `None` a broken connection. Behind
/// the last is the end.
#[derive(Default)]
pub(crate) struct Script(VecDeque<Option<Vec<u8>>>);

impl Script {
    pub(crate) fn new(reads: &[Option<&str>]) -> Self {
        Self(reads.iter().map(|read| read.map(|text| text.as_bytes().to_vec())).collect())
    }

    pub(super) fn poll_fill(&mut self, buffer: &mut Vec<u8>, room: usize) -> Poll<io::Result<usize>> {
        Poll::Ready(match self.0.pop_front() {
            Some(Some(mut bytes)) => {
                if bytes.len() > room {
                    self.0.push_front(Some(bytes.split_off(room)));
                }
                buffer.extend_from_slice(&bytes);
                Ok(bytes.len())
            }
            Some(None) => Err(io::ErrorKind::ConnectionReset.into()),
            None => Ok(0),
        })
    }

    pub(super) fn poll_read_ready(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.is_empty() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}
