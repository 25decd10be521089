//! Accepts clients, a thread for each, until a signal says to stop; then waits for what is in flight.

use std::{
    io,
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    thread,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::{connection::Service, guests::Guests};

/// A client's thread needs little.
const STACK_BYTES: usize = 128 * 1024;

/// How long to wait after a client couldn't be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Becomes readable when the process is to stop.
pub(crate) struct Stop(UnixStream);

impl Stop {
    pub(crate) fn on_signals() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT] {
            signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Self(read))
    }
}

/// Serves until `stop`, then until the last request is answered.
pub(crate) fn serve(listener: &TcpListener, stop: Stop, service: &Service) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let guests = Guests::default();
    thread::scope(|scope| {
        while let Some(stream) = accept(listener, &stop)? {
            let guest = guests.admit(stream)?;
            let thread = thread::Builder::new().stack_size(STACK_BYTES);
            let started = thread.spawn_scoped(scope, move || {
                // A client that breaks off is its own affair.
                let _ = service.answer_all(&guest);
            });
            // Without a thread to be had the client is turned away, the others are served on.
            drop(started);
        }
        guests.stop();
        Ok(())
    })
}

/// The next client, or `None` when it is time to stop.
fn accept(listener: &TcpListener, stop: &Stop) -> io::Result<Option<TcpStream>> {
    loop {
        let mut waited = [PollFd::new(listener, PollFlags::IN), PollFd::new(&stop.0, PollFlags::IN)];
        match poll(&mut waited, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let [_, stopped] = &waited;
        if !stopped.revents().is_empty() {
            return Ok(None);
        }
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(Some(stream));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // Out of descriptors or memory: some will be given back.
            Err(_) => thread::sleep(ACCEPT_PAUSE),
        }
    }
}
