//! What is known of a client's connection, whatever is spoken on it.

use std::{cell::OnceCell, net::SocketAddr, rc::Rc, time::Instant};

use keel_model::Address;

use crate::{
    exchange::Remote,
    preface::ProxyHeader,
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
    /// The header of the PROXY protocol, where the listener asks for one.
    pub(crate) proxy_header: Option<Box<ProxyHeader>>,
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
        let awaits_header = view.snapshot.listeners[listener_at].proxy_protocol;
        Self {
            remote,
            listener,
            number: worker.next_connection(),
            requests: 0,
            accepted: worker.clock.now(),
            proxy_header: awaits_header.then(|| Box::new(ProxyHeader::Awaited)),
            view,
            listener_at,
            local: OnceCell::new(),
        }
    }

    /// Gives the address that the client connected to.
    pub(super) fn local_address(&self, socket: Option<&Socket>) -> Option<SocketAddr> {
        *self.local.get_or_init(|| socket.and_then(Socket::local_address))
    }

    /// Whether the header of the PROXY protocol has yet to be read.
    pub(crate) fn awaits_proxy_header(&self) -> bool {
        matches!(self.proxy_header.as_deref(), Some(ProxyHeader::Awaited))
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
