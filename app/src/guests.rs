//! The clients that are connected: which of them are between two requests, and when the last one is gone.

use std::{
    collections::HashMap,
    io::{self, BufRead},
    net::{Shutdown, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// All that are connected.
#[derive(Clone, Default)]
pub(crate) struct Guests {
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

/// A client that is connected.
pub(crate) struct Guest {
    number: u64,
    stream: TcpStream,
    guests: Guests,
}

impl Guests {
    /// Notes a client.
    pub(crate) fn admit(&self, stream: TcpStream) -> io::Result<Guest> {
        let mut state = self.lock();
        state.next += 1;
        state.present += 1;
        Ok(Guest { number: state.next, stream, guests: self.clone() })
    }

    /// Lets idle clients go and waits for the others.
    pub(crate) fn stop(&self) {
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
