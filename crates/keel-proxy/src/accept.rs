//! Taking new connections from listening sockets.
//!
//! All workers wait on the same sockets. Each takes a few connections and then lets the others have their turn, unless
//! the socket is about to close: then the queue is emptied first, so that nobody who was let in by the kernel is lost.

use std::{
    io,
    os::fd::OwnedFd,
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use keel_model::Address;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::Notify,
    task::JoinHandle,
};

use crate::{
    downstream::{self, Client},
    exchange::Remote,
    io::socket::Socket,
    worker::Worker,
};

/// Connections taken before other tasks, and other workers, have a turn.
const BATCH_MAX: u32 = 4;

/// How long accepting pauses when the process is out of descriptors, as in nginx.
const PAUSE: Duration = Duration::from_millis(500);

/// A socket that is being listened on.
pub(crate) struct Listening {
    closing: Rc<Notify>,
    task: JoinHandle<()>,
}

impl Listening {
    /// Empties the accept queue and closes the socket, soon.
    pub(crate) fn close(&self) {
        self.closing.notify_one();
    }

    /// Waits until it is closed.
    pub(crate) async fn ended(self) {
        // It ends by itself; a panic in it has been reported already.
        let _ = self.task.await;
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, Remote)>> {
        match self {
            Listener::Tcp(listener) => listener
                .poll_accept(cx)
                .map_ok(|(stream, address)| (Socket::Tcp(stream), Remote::Tcp(address))),
            Listener::Unix(listener) => {
                listener.poll_accept(cx).map_ok(|(stream, _)| (Socket::Unix(stream), Remote::Unix))
            }
        }
    }
}

/// Begins to take connections from a socket.
pub(crate) fn listen(worker: &Rc<Worker>, address: Address, socket: OwnedFd) -> io::Result<Listening> {
    let listener = match address {
        Address::Tcp(_) => {
            let listener = std::net::TcpListener::from(socket);
            listener.set_nonblocking(true)?;
            Listener::Tcp(TcpListener::from_std(listener)?)
        }
        Address::Unix(_) => {
            let listener = std::os::unix::net::UnixListener::from(socket);
            listener.set_nonblocking(true)?;
            Listener::Unix(UnixListener::from_std(listener)?)
        }
    };
    let closing = Rc::new(Notify::new());
    let task = tokio::task::spawn_local(accept_all(worker.clone(), listener, address, closing.clone()));
    Ok(Listening { closing, task })
}

async fn accept_all(worker: Rc<Worker>, listener: Listener, address: Address, closing: Rc<Notify>) {
    let mut closed = pin!(closing.notified());
    let address = Rc::new(address);
    loop {
        let accepted = std::future::poll_fn(|cx| {
            if let Poll::Ready(result) = listener.poll_accept(cx) {
                return Poll::Ready(Some(result));
            }
            closed.as_mut().poll(cx).map(|()| None)
        });
        match accepted.await {
            None => return,
            Some(Ok((socket, remote))) => begin(&worker, socket, remote, &address),
            Some(Err(error)) => {
                if pause_after(&worker, &error) {
                    tokio::time::sleep(PAUSE).await;
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
                Some(Ok((socket, remote))) => begin(&worker, socket, remote, &address),
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

/// Says whether accepting must pause; errors of one connection that is gone already are not worth a word.
fn pause_after(worker: &Worker, error: &io::Error) -> bool {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) {
        return false;
    }
    worker.alert(format_args!("accept4() failed: {error}"));
    true
}

fn begin(worker: &Rc<Worker>, socket: Socket, remote: Remote, address: &Rc<Address>) {
    worker.counters.accepted.add(1);
    let view = worker.view();
    if worker.counters.active.get() >= view.snapshot.connections_max as u64 {
        worker.alert(format_args!("{} worker_connections are not enough", view.snapshot.connections_max));
        return;
    }
    worker.counters.active.add(1);
    let listener = view.snapshot.listener(address).and_then(|at| view.snapshot.listeners.get(at));
    if let Some(listener) = listener {
        socket.keep_alive(listener.keepalive);
    }
    // Most clients' first bytes come a moment after the connection: the runtime's guess that they are here costs a read
    // that finds nothing.
    socket.forget_readiness();
    let client = Client::new(worker, socket, remote, address.clone());
    downstream::spawn(worker, client);
}
