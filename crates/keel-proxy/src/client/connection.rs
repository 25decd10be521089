//! What is known of a client's connection, whatever is spoken on it.

use std::{cell::OnceCell, net::SocketAddr, rc::Rc, time::Instant};

use keel_model::Address;

use crate::{
    exchange::Remote,
    preface::{Preface, ProxyHeader, Security, TlsFacts},
    snapshot::tls,
    transport::Socket,
    worker::{View, Worker},
};

/// A client's connection: both of its ends, and the listener that it came by. Its bytes are the stream's.
#[derive(Clone)]
pub(crate) struct ClientConnection {
    pub(crate) remote: Remote,
    pub(crate) listener: Rc<Address>,
    pub(crate) number: u64,
    /// Requests begun on it.
    pub(crate) requests: u64,
    pub(crate) accepted: Instant,
    /// What it begins with, where the listener asks for anything.
    pub(crate) preface: Option<Box<Preface>>,
    /// The configuration of the last request, as long as its listener is there.
    pub(crate) view: Rc<View>,
    /// Which of its listeners that is.
    pub(crate) listener_at: usize,
    pub(crate) local: OnceCell<Option<SocketAddr>>,
}

impl ClientConnection {
    /// Takes one that a listener of that configuration has just accepted.
    pub(crate) fn new(
        worker: &Worker,
        view: Rc<View>,
        listener_at: usize,
        remote: Remote,
        listener: Rc<Address>,
    ) -> Self {
        let conf = &view.snapshot.listeners[listener_at];
        let preface = (conf.proxy_protocol || conf.tls).then(|| {
            Box::new(Preface {
                proxy_header: conf.proxy_protocol.then_some(ProxyHeader::Awaited),
                tls: if conf.tls { Security::Awaited } else { Security::None },
            })
        });
        Self {
            remote,
            listener,
            number: worker.next_connection(),
            requests: 0,
            accepted: worker.clock.now(),
            preface,
            view,
            listener_at,
            local: OnceCell::new(),
        }
    }

    /// Gives the address that the client connected to.
    pub(super) fn local_address(&self, socket: Option<&Socket>) -> Option<SocketAddr> {
        *self.local.get_or_init(|| socket.and_then(Socket::local_address))
    }

    /// The header of the PROXY protocol.
    pub(crate) fn proxy_header(&self) -> Option<&ProxyHeader> {
        self.preface.as_ref()?.proxy_header.as_ref()
    }

    /// Whether the header of the PROXY protocol has yet to be read.
    pub(crate) fn awaits_proxy_header(&self) -> bool {
        matches!(self.proxy_header(), Some(ProxyHeader::Awaited))
    }

    /// Whether TLS has yet to begin.
    pub(crate) fn awaits_tls(&self) -> bool {
        matches!(self.preface.as_deref(), Some(Preface { tls: Security::Awaited, .. }))
    }

    /// What is known of its TLS, where it speaks that.
    pub(crate) fn tls(&self) -> Option<&TlsFacts> {
        match &self.preface.as_ref()?.tls {
            Security::Tls(facts) => Some(facts),
            Security::None | Security::Awaited | Security::Missing => None,
        }
    }

    /// Whether HTTP/2 is what TLS has agreed on.
    pub(crate) fn has_chosen_http2(&self) -> bool {
        self.tls().is_some_and(|facts| facts.agreed.alpn.as_deref() == Some(tls::HTTP2))
    }

    /// Notes what came of TLS.
    pub(crate) fn secure(&mut self, security: Security) {
        if let Some(preface) = &mut self.preface {
            preface.tls = security;
        }
    }

    /// Takes the current configuration, unless it has no such listener any more.
    pub(crate) fn follow_configuration(&mut self, worker: &Worker) {
        let current = worker.view();
        if Rc::ptr_eq(&current, &self.view) {
            return;
        }
        if let Some(at) = current.snapshot.listener(&self.listener) {
            (self.view, self.listener_at) = (current, at);
        }
    }
}
