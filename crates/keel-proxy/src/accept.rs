//! Taking new connections from listening sockets.
//!
//! All workers wait on the same sockets. Each takes a few connections and then lets the others have their turn, unless
//! the socket is about to close: then the queue is emptied first, so that nobody who was let in by the kernel is lost.

use std::{
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use keel_model::Address;
use keel_sys::Watched;
use tokio::{sync::Notify, task::JoinHandle};

use crate::{
    client::{Client, ClientConnection, Sink},
    downstream,
    exchange::Remote,
    transport::{self, Socket},
    worker::Worker,
};

/// Connections taken before other tasks, and other workers, have a turn.
const BATCH_MAX: u32 = 4;

/// Connections taken from one socket that closes: as many as the kernel lets wait.
const EMPTIED_MAX: u32 = 1 << 16;

/// How long accepting pauses when the process is out of descriptors, as in nginx.
const PAUSE: Duration = Duration::from_millis(500);

/// A socket that is being listened on.
pub(crate) struct Listening {
    listener: Rc<Listener>,
    closing: Rc<Notify>,
    task: JoinHandle<()>,
}

impl Listening {
    /// Takes every connection that waits, at once and whatever the event loop knows.
    pub(crate) fn empty(&self, worker: &Rc<Worker>) {
        for _ in 0..EMPTIED_MAX {
            match self.listener.accept() {
                Ok((socket, remote)) => begin(worker, socket, remote, &self.listener.address),
                Err(error) if tells_of_one_connection(&error) => continue,
                Err(_) => return,
            }
        }
    }

    /// Accepts no more from now on. To be emptied first; the socket closes with the last one who holds it.
    pub(crate) fn close(&self) {
        self.closing.notify_one();
    }

    /// Waits until nobody else accepts here.
    pub(crate) async fn closed(&mut self) {
        self.close();
        // It ends by itself; a panic in it has been reported already.
        let _ = (&mut self.task).await;
    }
}

struct Listener {
    watched: Watched,
    address: Rc<Address>,
}

impl Listener {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, Remote)>> {
        loop {
            match self.watched.try_read(|_| self.accept()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.watched.poll_read_ready(cx))?;
                }
                accepted => {
                    self.look_for_more();
                    return Poll::Ready(accepted);
                }
            }
        }
    }

    /// Takes a connection if there is one, whatever the event loop knows.
    fn accept(&self) -> io::Result<(Socket, Remote)> {
        let (descriptor, address) = rustix::net::acceptfrom_with(&self.watched, transport::FLAGS)?;
        let address = address.and_then(|address| SocketAddr::try_from(address).ok());
        let remote = address.map_or(Remote::Unix, Remote::Tcp);
        Ok((Socket::accepted(descriptor, &self.address)?, remote))
    }

    fn is_tcp(&self) -> bool {
        matches!(*self.address, Address::Tcp(_))
    }

    /// Asks whether another connection waits: to accept one that isn't there costs several times as much.
    fn look_for_more(&self) {
        if self.is_tcp() && keel_sys::tcp::tcp_info(&self.watched).is_ok_and(|info| info.unacked == 0) {
            self.watched.forget_readable();
        }
    }
}

/// Begins to take connections from a socket.
pub(crate) fn listen(worker: &Rc<Worker>, address: Address, socket: OwnedFd) -> io::Result<Listening> {
    rustix::io::ioctl_fionbio(&socket, true)?;
    let listener = Rc::new(Listener { watched: Watched::reading(socket)?, address: Rc::new(address) });
    let closing = Rc::new(Notify::new());
    let task = tokio::task::spawn_local(accept_all(worker.clone(), listener.clone(), closing.clone()));
    Ok(Listening { listener, closing, task })
}

async fn accept_all(worker: Rc<Worker>, listener: Rc<Listener>, closing: Rc<Notify>) {
    let mut closed = pin!(closing.notified());
    loop {
        let accepted = std::future::poll_fn(|cx| {
            // Whoever closes it has emptied it: what comes now is for another worker, or nobody.
            if closed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            listener.poll_accept(cx).map(Some)
        });
        match accepted.await {
            None => return,
            Some(Ok((socket, remote))) => {
                let is_reserved = worker.is_reserved(socket.number());
                begin(&worker, socket, remote, &listener.address);
                if is_reserved {
                    pause(&worker).await;
                    continue;
                }
            }
            Some(Err(error)) => {
                if pause_after(&worker, &error) {
                    pause(&worker).await;
                }
                continue;
            }
        }
        let mut emptied = false;
        for _ in 1..BATCH_MAX {
            let again = std::future::poll_fn(|cx| match listener.poll_accept(cx) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending => Poll::Ready(None),
            });
            match again.await {
                Some(Ok((socket, remote))) => begin(&worker, socket, remote, &listener.address),
                Some(Err(_)) | None => {
                    emptied = true;
                    break;
                }
            }
        }
        if !emptied {
            tokio::task::yield_now().await;
        }
    }
}

/// Lets descriptors become free: some idle connections close, and accepting goes on when one has, or after a while. Who
/// is connected already is served meanwhile.
async fn pause(worker: &Rc<Worker>) {
    worker.close_idle(format_args!("descriptors"));
    let ended = tokio::time::timeout(PAUSE, worker.waiters.connection_ended()).await;
    drop(ended);
}

/// Says whether it is this process, or this host, that has too many files open.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Says whether accepting must pause; errors of one connection that is gone already are not worth a word.
fn pause_after(worker: &Worker, error: &io::Error) -> bool {
    if tells_of_one_connection(error) {
        return false;
    }
    let reason = crate::phase::files::errno_text(error);
    worker.alert_once(&worker.not_accepting, format_args!("accept4() failed ({reason})"));
    true
}

fn tells_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted)
}

fn begin(worker: &Rc<Worker>, socket: Socket, remote: Remote, address: &Rc<Address>) {
    if is_meant_for_an_instance(&socket, &remote, address) {
        socket.reset_on_close();
        return;
    }
    worker.counters.accepted.add(1);
    let view = worker.view();
    if !worker.make_room() {
        let connections_max = view.snapshot.connections_max;
        worker.alert_once(
            &worker.refusing,
            format_args!("{connections_max} worker_connections are not enough"),
        );
        return;
    }
    // Its listener has just left the configuration, and its queue had been emptied before.
    let Some(listener_at) = view.snapshot.listener(address) else { return };
    worker.counters.active.add(1);
    socket.keep_alive(view.snapshot.listeners[listener_at].keepalive);
    let connection = ClientConnection::new(worker, view, listener_at, remote, address.clone());
    let client = Client::new(worker, connection, Sink::Connection(socket.into()));
    downstream::spawn(worker, Box::new(client));
}

/// Whether who connects meant an instance that doesn't listen just now, and came here because this listener has the port
/// on all addresses. Nobody answers in an instance's stead. Only connections from this machine's loopback cost a look.
fn is_meant_for_an_instance(socket: &Socket, remote: &Remote, address: &Address) -> bool {
    let Address::Tcp(listener) = address else { return false };
    let Remote::Tcp(remote) = remote else { return false };
    listener.ip().is_unspecified()
        && remote.ip().to_canonical().is_loopback()
        && socket.local_address().is_some_and(|local| keel_sys::claim::is_claimed(local.ip()))
}
