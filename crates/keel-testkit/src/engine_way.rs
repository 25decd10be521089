//! A way to the container engine that can be cut, as if the engine were restarted or its socket gone.

use std::{
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Where the engine's socket is, as a rule.
const SOCKET: &str = "/var/run/docker.sock";

/// A way to the engine's socket that can be cut.
#[derive(Debug)]
pub struct EngineWay {
    port: u16,
    cut: Arc<AtomicBool>,
    /// Both ends of everything that goes through.
    open: Arc<Mutex<Vec<(TcpStream, UnixStream)>>>,
}

impl EngineWay {
    /// Opens it.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let way = Self { port: listener.local_addr()?.port(), cut: Arc::default(), open: Arc::default() };
        let (cut, open) = (way.cut.clone(), way.open.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(engine) = UnixStream::connect(SOCKET) else { return };
                if cut.load(Ordering::SeqCst) {
                    continue;
                }
                let both = |client: &TcpStream, engine: &UnixStream| {
                    Some((client.try_clone().ok()?, engine.try_clone().ok()?))
                };
                let Some((mut from, mut to)) = both(&client, &engine) else { return };
                let Some((mut back_to, mut back_from)) = both(&client, &engine) else { return };
                open.lock().unwrap_or_else(PoisonError::into_inner).push((client, engine));
                thread::spawn(move || drop(std::io::copy(&mut from, &mut to)));
                thread::spawn(move || {
                    // The end of the engine's answer has to reach who asked.
                    drop(std::io::copy(&mut back_from, &mut back_to));
                    drop(back_to.shutdown(Shutdown::Both));
                });
            }
        });
        Ok(way)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Breaks everything off, and lets nothing through any more.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        for (client, engine) in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // Closed already is as good.
            drop(client.shutdown(Shutdown::Both));
            drop(engine.shutdown(Shutdown::Both));
        }
    }

    /// Lets through what comes from now on.
    pub fn mend(&self) {
        self.cut.store(false, Ordering::SeqCst);
    }
}
