//! How fast a response is sent: `limit_rate`, `limit_rate_after`.
//!
//! As in nginx a second's worth may be sent at once when a second has begun; each write is followed by as long a pause as what
//! it sent is worth.

use std::{
    io,
    os::fd::BorrowedFd,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use super::{
    Client,
    stream::{ClientStream, Stir},
};
use crate::{
    io::{clock::Clock, timer::Timer},
    job::Job,
};

/// The pace of one response.
pub(crate) struct Pace {
    /// Bytes a second.
    rate: u64,
    /// Bytes that are sent before.
    after: u64,
    began: Instant,
    sent: u64,
    /// Until when nothing is sent.
    held_until: Option<Instant>,
    timer: Timer,
    /// Whether the client has said more in the meantime, so that nobody sees any more whether it goes.
    has_more: bool,
}

impl Pace {
    fn new(rate: u64, after: u64, began: Instant) -> Self {
        Self { rate, after, began, sent: 0, held_until: None, timer: Timer::default(), has_more: false }
    }

    /// How many bytes may be sent now; an error is how long to wait for the next.
    fn allowed(&self, now: Instant) -> Result<usize, Duration> {
        let seconds = now.saturating_duration_since(self.began).as_secs() + 1;
        let whole = self.rate.saturating_mul(seconds).saturating_add(self.after);
        match whole.checked_sub(self.sent) {
            Some(left @ 1..) => Ok(usize::try_from(left).unwrap_or(usize::MAX)),
            _ => Err(self.worth(self.sent.saturating_sub(whole)) + Duration::from_millis(1)),
        }
    }

    /// How long it takes to send so many bytes.
    fn worth(&self, bytes: u64) -> Duration {
        Duration::from_millis(bytes.saturating_mul(1000) / self.rate.max(1))
    }

    /// Notes what has been sent, and pauses as long as that is worth.
    fn note(&mut self, bytes: u64, now: Instant) {
        let before = self.sent.saturating_sub(self.after);
        self.sent = self.sent.saturating_add(bytes);
        let pause = self.worth(self.sent.saturating_sub(self.after) - before);
        if !pause.is_zero() {
            self.held_until = Some(now + pause);
        }
    }

    /// Is ready with how many bytes may be sent.
    fn poll(&mut self, clock: &Rc<Clock>, cx: &mut Context<'_>) -> Poll<usize> {
        loop {
            if let Some(until) = self.held_until {
                self.timer.set_at(Some(until));
                ready!(self.timer.poll_expired(clock, cx));
                self.held_until = None;
            }
            let now = clock.now();
            match self.allowed(now) {
                Ok(bytes) => return Poll::Ready(bytes),
                Err(wait) => self.held_until = Some(now + wait),
            }
        }
    }
}

/// Is ready with how many bytes may be sent; an error is a client that has gone, or has ended its side: as in nginx it isn't
/// waited for.
fn poll_pace(
    pace: &mut Pace,
    stream: &mut ClientStream,
    clock: &Rc<Clock>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if let Poll::Ready(bytes) = pace.poll(clock, cx) {
        return Poll::Ready(Ok(bytes));
    }
    if !pace.has_more {
        match stream.poll_stir(cx) {
            Poll::Pending => {}
            Poll::Ready(Stir::More) => pace.has_more = true,
            Poll::Ready(Stir::Ended | Stir::Gone) => {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
        }
    }
    Poll::Pending
}

/// Gives a response its pace, or lets it have none.
pub(crate) fn set_pace(job: &mut Job<'_>) {
    let lookup = job.lookup();
    let core = &job.place().scope.core;
    let rate = job.ex.sent.limit_rate().unwrap_or_else(|| lookup.size(&core.limit_rate));
    let after = if rate > 0 { lookup.size(&core.limit_rate_after) } else { 0 };
    let began = job.ex.received.started.unwrap_or_else(|| job.worker.clock.now());
    job.client.pace = (rate > 0).then(|| Box::new(Pace::new(rate, after, began)));
}

impl Client {
    /// Sends what can be sent now of what waits, as far as the pace allows; gives how many bytes those were.
    #[inline]
    pub(crate) fn poll_send(&mut self, clock: &Rc<Clock>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match &mut self.pace {
            None => self.stream.poll_send(cx, usize::MAX),
            Some(pace) => {
                let bytes = ready!(poll_pace(pace, &mut self.stream, clock, cx))?;
                let sent = ready!(self.stream.poll_send(cx, bytes))?;
                pace.note(sent as u64, clock.now());
                Poll::Ready(Ok(sent))
            }
        }
    }

    /// Sends from a file, as far as the pace allows.
    pub(crate) fn poll_send_file(
        &mut self,
        clock: &Rc<Clock>,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        offset: &mut u64,
        length_max: usize,
    ) -> Poll<io::Result<usize>> {
        match &mut self.pace {
            None => self.stream.poll_send_file(cx, file, offset, length_max),
            Some(pace) => {
                let bytes = ready!(poll_pace(pace, &mut self.stream, clock, cx))?;
                let sent = ready!(self.stream.poll_send_file(cx, file, offset, length_max.min(bytes)))?;
                pace.note(sent as u64, clock.now());
                Poll::Ready(Ok(sent))
            }
        }
    }

    /// Whether it is the pace that keeps something from being sent, and not the client.
    pub(crate) fn is_held_back(&self) -> bool {
        self.pace.as_ref().is_some_and(|pace| pace.held_until.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_s_worth_is_sent_in_each_second() {
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        let mut pace = Pace::new(1000, 200, began);
        assert_eq!(pace.allowed(at(0)), Ok(1200));
        pace.note(150, at(0));
        assert_eq!(pace.held_until, None, "what comes before the limit is free");
        pace.note(1050, at(0));
        assert_eq!(pace.held_until, Some(at(1000)));
        assert_eq!(pace.allowed(at(500)), Err(Duration::from_millis(1)));
        assert_eq!(pace.allowed(at(1000)), Ok(1000));
        pace.note(3000, at(1000));
        assert_eq!(pace.held_until, Some(at(4000)));
        assert_eq!(pace.allowed(at(1500)), Err(Duration::from_millis(2001)));
    }
}
