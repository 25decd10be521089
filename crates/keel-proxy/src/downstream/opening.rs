//! What a client's connection begins with, before its first request.

use std::{
    future::poll_fn,
    rc::Rc,
    task::{Poll, ready},
};

use keel_http::proxy_header::Broken;
use keel_model::LogLevel;

use super::{Rest, Resting};
use crate::{client::Client, http2::PREFACE, preface, transport::Peeked, worker::Worker};

/// Room that is made before a read.
const READ_ROOM: usize = 4 << 10;

/// How reading the header ended.
enum Outcome {
    Taken,
    Broken(Broken),
    /// The client has closed the connection within the header.
    Cut,
    TimedOut,
    /// The connection makes room for another.
    MakesRoom,
}

/// Reads the header of the PROXY protocol; what comes behind it is kept for the first request. False when the connection
/// is to close. The time for it is what is left of `client_header_timeout` since the connection was accepted.
pub(super) async fn read(worker: &Rc<Worker>, client: &mut Client, rest: &Rest) -> bool {
    let mut input = worker.buffers.take();
    let outcome = poll_fn(|cx| {
        loop {
            match client.stream.poll_fill(cx, &mut input, READ_ROOM) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Outcome::Cut),
                Poll::Pending => {
                    if rest.must_close() && client.stream.peek() != Peeked::Bytes {
                        return Poll::Ready(Outcome::MakesRoom);
                    }
                    rest.begin(worker, Resting::ReadingHead);
                    ready!(client.timer.poll_expired(&worker.clock, cx));
                    return Poll::Ready(Outcome::TimedOut);
                }
            }
            let preface = client.connection.preface.as_deref_mut();
            let Some(header) = preface.and_then(|preface| preface.proxy_header.as_mut()) else {
                return Poll::Ready(Outcome::Taken);
            };
            match header.take(&mut input) {
                Ok(true) => return Poll::Ready(Outcome::Taken),
                Ok(false) => {}
                Err(error) => return Poll::Ready(Outcome::Broken(error)),
            }
        }
    })
    .await;
    rest.end(worker);
    client.is_last |= rest.was_closing(worker);
    match outcome {
        Outcome::Taken => {
            if input.is_empty() {
                worker.buffers.give(input);
            } else {
                *client.stream.behind() = input;
            }
            return true;
        }
        Outcome::Broken(error) => {
            complain(worker, client, LogLevel::Error, &preface::complaint(error, &input))
        }
        Outcome::Cut if !input.is_empty() => {
            complain(worker, client, LogLevel::Error, &preface::complaint(Broken::Syntax, &input));
        }
        Outcome::TimedOut => complain(worker, client, LogLevel::Info, "client timed out"),
        Outcome::Cut | Outcome::MakesRoom => {}
    }
    worker.buffers.give(input);
    false
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Says what the first bytes of a connection mean; `None` while they may be either.
fn protocol_of(input: &[u8]) -> Option<Protocol> {
    let length = input.len().min(PREFACE.len());
    if input.get(..length) != PREFACE.get(..length) {
        return Some(Protocol::Http1);
    }
    (length == PREFACE.len()).then_some(Protocol::Http2)
}

/// Reads until it is known whether a client speaks HTTP/2 without having been asked; what was read is kept. `None` when the
/// connection is to close.
pub(super) async fn find_protocol(worker: &Rc<Worker>, client: &mut Client, rest: &Rest) -> Option<Protocol> {
    let mut input = std::mem::take(client.stream.behind());
    if input.capacity() == 0 {
        input = worker.buffers.take();
    }
    let protocol = poll_fn(|cx| {
        loop {
            if let Some(protocol) = protocol_of(&input).filter(|_| !input.is_empty()) {
                return Poll::Ready(Some(protocol));
            }
            match client.stream.poll_fill(cx, &mut input, READ_ROOM) {
                Poll::Ready(Ok(1..)) => {}
                // What has come is answered as HTTP/1 would be.
                Poll::Ready(Ok(0) | Err(_)) if input.is_empty() => return Poll::Ready(None),
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Some(Protocol::Http1)),
                Poll::Pending => {
                    if rest.must_close() && client.stream.peek() != Peeked::Bytes {
                        return Poll::Ready(None);
                    }
                    rest.begin(worker, Resting::ReadingHead);
                    ready!(client.timer.poll_expired(&worker.clock, cx));
                    return Poll::Ready(None);
                }
            }
        }
    })
    .await;
    rest.end(worker);
    client.is_last |= rest.was_closing(worker);
    match protocol {
        Some(_) => *client.stream.behind() = input,
        None => worker.buffers.give(input),
    }
    protocol
}

fn complain(worker: &Worker, client: &Client, level: LogLevel, text: &str) {
    client.log_before_request(worker, level, &format!("{text} while reading PROXY protocol"));
}
