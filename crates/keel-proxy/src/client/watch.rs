//! Watching a client while its response is being made, so that nobody works for one that is gone.

use std::{
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{Client, stream::Stir};

/// How long a client that has ended its side may wait for a response: it may have closed only that half, but most that
/// do so are gone. nginx gives up at once.
const HALF_CLOSED_PATIENCE: Duration = Duration::from_millis(500);

/// Watches a client that has nothing to say while its response is being made.
#[derive(Default)]
pub(crate) struct ClientWatch {
    has_more: bool,
    half_closed: Option<Instant>,
}

impl ClientWatch {
    /// Is ready when the client is gone: its connection broke, or it ended its side and no answer came in time.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>, client: &mut Client, now: Instant) -> Poll<()> {
        if let Some(since) = self.half_closed {
            if now.saturating_duration_since(since) >= HALF_CLOSED_PATIENCE {
                return Poll::Ready(());
            }
            return Poll::Pending;
        }
        if self.has_more {
            return Poll::Pending;
        }
        match client.stream.poll_stir(cx) {
            Poll::Pending => {}
            Poll::Ready(Stir::More) => self.has_more = true,
            Poll::Ready(Stir::Ended) => self.half_closed = Some(now),
            Poll::Ready(Stir::Gone) => return Poll::Ready(()),
        }
        Poll::Pending
    }

    /// Whether the client has ended its side.
    pub(crate) fn is_half_closed(&self) -> bool {
        self.half_closed.is_some()
    }

    /// Gives the moment at which patience ends.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.half_closed.map(|since| since + HALF_CLOSED_PATIENCE)
    }
}
