//! TLS with a client, before its first request.
//!
//! The first message says which host a client means, and that host's server decides about certificates and versions. A
//! client that speaks plain HTTP instead is heard, and refused by [`super::h1`].

use std::{
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use keel_model::LogLevel;
use rustls::AlertDescription;

use super::{Rest, Resting};
use crate::{
    client::Client,
    preface::{Security, TlsFacts},
    snapshot::tls::{ClientTrust, Http2},
    transport::{Alert, HandshakeFailure, Hello, Offer, Session, Tls, Transport},
    worker::Worker,
};

/// Room that is made before a read.
const READ_ROOM: usize = 4 << 10;

/// The first byte of TLS: a record with a handshake's message (RFC 8446 §5.1).
const HANDSHAKE: u8 = 0x16;

/// The first bit of SSL 2, which nobody speaks any more: it isn't HTTP either.
const SSL2: u8 = 0x80;

/// How beginning to speak TLS ended.
enum Outcome {
    Done(Box<Tls>, Offer, Option<Arc<ClientTrust>>),
    /// What came is no TLS: these bytes.
    Plain(Transport, Vec<u8>),
    Failed(Failure),
}

/// Why there is no TLS.
enum Failure {
    /// The client is gone, or the connection makes room for another.
    Gone,
    TimedOut,
    Handshake(HandshakeFailure),
    /// The server that is meant turns clients away.
    Rejected,
    /// No server has a certificate for it.
    NoCertificate,
}

/// Begins to speak TLS. False when the connection is to close. The time for it is `client_header_timeout`.
pub(super) async fn run(worker: &Rc<Worker>, client: &mut Client, rest: &Rest) -> bool {
    client.connection.follow_configuration(worker);
    let root = client.default_server().root;
    if client.connection.view.snapshot.place(root).scope.core.tcp_nodelay {
        client.no_delay();
    }
    let Some((transport, came)) = client.take_transport() else { return false };
    let outcome = begin(worker, client, rest, transport, came).await;
    rest.end(worker);
    client.is_last |= rest.was_closing(worker);
    match outcome {
        Outcome::Done(tls, offer, trust) => {
            let agreed = tls.agreed();
            let now = i64::try_from(worker.clock.unix().as_secs()).unwrap_or(i64::MAX);
            let untrusted = trust.and_then(|trust| trust.doubt(&agreed.certificates, now));
            let facts = TlsFacts { agreed, offer, untrusted };
            client.connection.secure(Security::Tls(Rc::new(facts)));
            client.resume(Transport::Tls(tls), Vec::new());
            true
        }
        Outcome::Plain(transport, came) => {
            client.connection.secure(Security::Missing);
            client.resume(transport, came);
            true
        }
        Outcome::Failed(failure) => {
            complain(worker, client, failure);
            false
        }
    }
}

async fn begin(
    worker: &Rc<Worker>,
    client: &mut Client,
    rest: &Rest,
    mut transport: Transport,
    mut came: Vec<u8>,
) -> Outcome {
    if came.capacity() == 0 {
        came = worker.buffers.take();
    }
    let mut hello = Hello::new();
    let read = poll_fn(|cx| {
        loop {
            if came.first().is_some_and(|first| *first != HANDSHAKE && first & SSL2 == 0) {
                return Poll::Ready(Ok(None));
            }
            match hello.look(&came) {
                Ok(Some(offer)) => return Poll::Ready(Ok(Some(offer))),
                Ok(None) => {}
                Err((error, alert)) => {
                    tell(&mut transport, &alert);
                    return Poll::Ready(Err(Failure::Handshake(HandshakeFailure::Refused(error))));
                }
            }
            match transport.poll_fill(cx, &mut came, READ_ROOM) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) if came.is_empty() => return Poll::Ready(Err(Failure::Gone)),
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(Failure::Handshake(HandshakeFailure::Closed)));
                }
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(Failure::Handshake(HandshakeFailure::Broken(error))));
                }
                Poll::Pending => {
                    let failure = ready!(poll_patience(worker, client, rest, cx));
                    return Poll::Ready(Err(failure));
                }
            }
        }
    })
    .await;
    let offer = match read {
        Ok(Some(offer)) => offer,
        Ok(None) => return Outcome::Plain(transport, came),
        Err(failure) => {
            worker.buffers.give(came);
            return Outcome::Failed(failure);
        }
    };
    let (session, trust) = match session(client, &offer) {
        Ok(session) => session,
        Err(failure) => {
            if let Failure::Rejected | Failure::NoCertificate = failure {
                tell(&mut transport, &Alert::of(AlertDescription::UnrecognisedName));
            }
            return Outcome::Failed(failure);
        }
    };
    // It is plain until here.
    let Transport::Plain(socket) = transport else { return Outcome::Failed(Failure::Gone) };
    let mut tls = Box::new(Tls::new(socket, session, came));
    let done = poll_fn(|cx| match tls.poll_handshake(cx) {
        Poll::Ready(done) => Poll::Ready(done.map_err(Failure::Handshake)),
        Poll::Pending => Poll::Ready(Err(ready!(poll_patience(worker, client, rest, cx)))),
    })
    .await;
    match done {
        Ok(()) => Outcome::Done(tls, offer, trust),
        Err(failure) => Outcome::Failed(failure),
    }
}

/// Begins a session as the server wants it that the client means.
fn session(client: &Client, offer: &Offer) -> Result<(Session, Option<Arc<ClientTrust>>), Failure> {
    let names = client.names();
    let snapshot = &client.connection.view.snapshot;
    let meant = offer.server_name.as_ref().map(|name| names.find(name.as_bytes()).server);
    let meant = meant.unwrap_or(names.default_server());
    let of = |server: usize| snapshot.servers.get(server).and_then(|server| server.tls.as_ref());
    let (default, wanted) = (of(names.default_server()), of(meant));
    if wanted.is_some_and(|tls| tls.rejects) {
        return Err(Failure::Rejected);
    }
    // A server without a certificate of its own has the default one's.
    let listens =
        snapshot.listeners.get(client.connection.listener_at).is_some_and(|listener| listener.http2);
    let speaks = snapshot.servers.get(meant).is_some_and(|server| server.client.http2);
    let http2 = if listens || speaks { Http2::Offered } else { Http2::Unspoken };
    let mut found = [wanted, default].into_iter().flatten();
    let (tls, config) =
        found.find_map(|tls| Some((tls, tls.config(http2)?))).ok_or(Failure::NoCertificate)?;
    match Session::server(config) {
        Ok(session) => Ok((session, tls.trust.clone())),
        Err(error) => Err(Failure::Handshake(HandshakeFailure::Refused(error))),
    }
}

/// Is ready when nothing more is waited for.
fn poll_patience(worker: &Worker, client: &mut Client, rest: &Rest, cx: &mut Context<'_>) -> Poll<Failure> {
    if rest.must_close() {
        return Poll::Ready(Failure::Gone);
    }
    rest.begin(worker, Resting::ReadingHead);
    client.timer.poll_expired(&worker.clock, cx).map(|_| Failure::TimedOut)
}

/// Tells a client why there is no connection, if the socket takes it.
fn tell(transport: &mut Transport, alert: &Alert) {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    // Who can't be told finds the connection closed.
    let _ = transport.poll_send(&mut cx, &alert.0);
}

fn complain(worker: &Worker, client: &Client, failure: Failure) {
    let (level, text) = match failure {
        Failure::Gone => return,
        Failure::TimedOut => (LogLevel::Info, "client timed out".to_owned()),
        Failure::Handshake(HandshakeFailure::Closed) => {
            (LogLevel::Info, "peer closed connection in SSL handshake".to_owned())
        }
        Failure::Handshake(HandshakeFailure::Broken(error)) => {
            let reason = crate::phase::files::errno_text(&error);
            (LogLevel::Info, format!("SSL_do_handshake() failed ({reason})"))
        }
        Failure::Handshake(HandshakeFailure::Refused(error)) => {
            (LogLevel::Info, format!("SSL_do_handshake() failed (SSL: {error})"))
        }
        Failure::Rejected => {
            (LogLevel::Info, "SSL_do_handshake() failed (SSL: unrecognized name)".to_owned())
        }
        Failure::NoCertificate => (LogLevel::Error, "no certificate for the client".to_owned()),
    };
    client.log_before_request(worker, level, &format!("{text} while SSL handshaking"));
}
