//! Doors in this host through which containers reach what isn't in the engine.
//!
//! A local process listens on a loopback address, where no container gets. So its name stands for this host in a
//! container's network, and here each of its ports is listened on and passed on, connection by connection. Nobody else
//! gets to these addresses: they are the bridges' own.

use std::{
    collections::{BTreeMap, btree_map},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use keel_model::HostPort;
use keel_sys::sock_diag::SockDiag;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};

use super::lock;

/// Connections through one door at a time; more wait.
const CONNECTIONS_MAX: usize = 1_024;
/// How long one that is to be passed on may take to be accepted there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that wait to be accepted here.
const BACKLOG: i32 = 1_024;

type Behind = Arc<Mutex<BTreeMap<HostPort, Vec<SocketAddr>>>>;

/// All doors.
#[derive(Debug, Default)]
pub(super) struct Doors {
    behind: Behind,
    open: Mutex<BTreeMap<SocketAddr, JoinHandle<()>>>,
}

impl Doors {
    /// Says what is behind each port.
    pub(super) fn lead(&self, behind: BTreeMap<HostPort, Vec<SocketAddr>>) {
        *lock(&self.behind) = behind;
    }

    /// Opens what isn't open yet of these ports, on this host's address in a network.
    pub(super) fn open(&self, gateway: IpAddr, ports: &[HostPort]) {
        let mut open = lock(&self.open);
        for port in ports {
            let address = SocketAddr::new(gateway, port.port);
            if let btree_map::Entry::Vacant(entry) = open.entry(address) {
                match listen(address) {
                    Ok(listener) => {
                        let behind = Arc::clone(&self.behind);
                        entry.insert(tokio::spawn(pass(listener, port.clone(), behind)));
                    }
                    Err(error) => {
                        tracing::warn!("containers don't reach {} on {address}: {error}", port.service);
                    }
                }
            }
        }
    }

    /// Closes all of them.
    pub(super) fn close(&self) {
        std::mem::take(&mut *lock(&self.open)).into_values().for_each(|door| door.abort());
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // A listener of our own on all addresses may have the port: the one with the address goes first.
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn pass(listener: TcpListener, port: HostPort, behind: Behind) {
    let turns = Arc::new(AtomicUsize::new(0));
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((mut inner, _)) = listener.accept().await else {
            // Out of descriptors: it passes.
            tokio::time::sleep(CONNECT_TIMEOUT / 50).await;
            continue;
        };
        let (behind, port, turns) = (Arc::clone(&behind), port.clone(), Arc::clone(&turns));
        tokio::spawn(async move {
            let found = lock(&behind).get(&port).cloned().unwrap_or_default();
            // An address that doesn't answer is skipped; the connection closes when none does.
            if let Some(mut outer) = connect(&found, turns.fetch_add(1, Ordering::Relaxed)).await {
                drop(tokio::io::copy_bidirectional(&mut inner, &mut outer).await);
            }
            drop(permit);
        });
    }
}

async fn connect(found: &[SocketAddr], turn: usize) -> Option<TcpStream> {
    for offset in 0..found.len() {
        let address = found.get((turn + offset) % found.len())?;
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        match connected {
            Ok(Ok(stream)) if is_its_own(*address) => return Some(stream),
            _ => {}
        }
    }
    None
}

/// Whether a connection reached the instance, and not a socket on the wildcard address.
fn is_its_own(address: SocketAddr) -> bool {
    if !keel_sys::claim::is_claimed(address.ip()) {
        return true;
    }
    let taker = SockDiag::open().and_then(|mut diag| diag.taker_of(address));
    taker.is_ok_and(|taker| taker.is_some_and(|taker| taker.address == address))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn passes_connections_in_turn_and_over_who_is_gone() {
        let service = keel_model::ServiceName("app".into());
        let probe = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = HostPort { port: probe.local_addr().unwrap().port(), service };
        drop(probe);
        let doors = Doors::default();
        let mut addresses = Vec::new();
        for name in [b'a', b'b'] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    stream.write_all(&[name]).await.unwrap();
                }
            });
        }
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        addresses.push(gone);
        doors.lead(BTreeMap::from([(port.clone(), addresses)]));
        doors.open([127, 0, 0, 1].into(), std::slice::from_ref(&port));
        let mut heard = Vec::new();
        for _ in 0..6 {
            let mut stream = TcpStream::connect(("127.0.0.1", port.port)).await.unwrap();
            stream.read_to_end(&mut heard).await.unwrap();
        }
        assert_eq!(heard, b"abaaba");
        doors.lead(BTreeMap::new());
        let mut stream = TcpStream::connect(("127.0.0.1", port.port)).await.unwrap();
        assert_eq!(stream.read_to_end(&mut heard).await.unwrap(), 0);
        doors.close();
    }
}
