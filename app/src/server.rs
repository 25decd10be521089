//! Accepts clients, a thread for each, until a signal says to stop; then waits for what is in flight.

use std::{
    collections::HashMap,
    io::{self, BufRead},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::connection::Service;

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

/// Gives the next client, or `None` when it is time to stop.
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

/// Everybody who is connected.
#[derive(Clone, Default)]
struct Guests {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    stopping: AtomicBool,
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Default)]
struct State {
    next: u64,
    /// Connections between two requests, to be closed when it is time to stop.
    idle: HashMap<u64, TcpStream>,
    present: u64,
}

/// One who is connected.
pub(crate) struct Guest {
    number: u64,
    stream: TcpStream,
    guests: Guests,
}

impl Guests {
    fn admit(&self, stream: TcpStream) -> io::Result<Guest> {
        let mut state = self.lock();
        state.next += 1;
        state.present += 1;
        Ok(Guest { number: state.next, stream, guests: self.clone() })
    }

    /// Lets idle clients go and waits for the others.
    fn stop(&self) {
        self.inner.stopping.store(true, SeqCst);
        let mut state = self.lock();
        for stream in state.idle.values() {
            // What a client has already sent can still be read, and is answered. One that is gone needs nothing.
            let _ = stream.shutdown(Shutdown::Read);
        }
        while state.present > 0 {
            state = self.inner.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.guests.inner.stopping.load(SeqCst)
    }

    /// Waits for the first byte of a request. Gives false if none will come.
    pub(crate) fn wait_for_request(&self, input: &mut impl BufRead) -> io::Result<bool> {
        {
            let mut state = self.guests.lock();
            state.idle.insert(self.number, self.stream.try_clone()?);
        }
        if self.is_stopping() {
            // Stopping may have begun before this connection was idle.
            self.stream.shutdown(Shutdown::Read)?;
        }
        let has_request = input.fill_buf().map(|bytes| !bytes.is_empty());
        self.guests.lock().idle.remove(&self.number);
        has_request
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut state = self.guests.lock();
        state.idle.remove(&self.number);
        state.present -= 1;
        self.guests.inner.left.notify_all();
    }
}
