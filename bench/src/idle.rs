//! Memory for each idle connection: many clients that asked once and stay.

use std::{
    fmt,
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    process::Interrupted,
    proxy::{PATIENCE, Running},
    work::Work,
};

/// Clients that come before memory is first looked at, so that pools and caches have their size.
const WARM_UP: u32 = 200;
/// Time for a proxy to give back what it holds for a request.
const SETTLE: Duration = Duration::from_secs(2);

/// What many idle connections cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Idle {
    pub(crate) proxy: String,
    pub(crate) connections: u32,
    /// Proportional set size without the connections and with them.
    pub(crate) pss: [u64; 2],
    /// The same of anonymous memory.
    pub(crate) anonymous: [u64; 2],
}

impl Idle {
    /// Gives bytes of user space for each connection.
    pub(crate) fn bytes_per_connection(&self) -> f64 {
        let [before, after] = self.pss;
        (after as f64 - before as f64) / f64::from(self.connections.max(1))
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:.0} bytes each", self.proxy, self.bytes_per_connection())
    }
}

pub(crate) fn measure(proxy: &Running, connections: u32, interrupted: &Interrupted) -> anyhow::Result<Idle> {
    let ask = || {
        interrupted.check()?;
        ask_once(proxy).with_context(|| proxy.name().to_owned())
    };
    let warm: Vec<TcpStream> = (0..WARM_UP).map(|_| ask()).collect::<anyhow::Result<_>>()?;
    thread::sleep(SETTLE);
    let before = proxy.memory()?;
    let clients: Vec<TcpStream> = (0..connections).map(|_| ask()).collect::<anyhow::Result<_>>()?;
    thread::sleep(SETTLE);
    let after = proxy.memory()?;
    for client in &clients {
        client.set_nonblocking(true)?;
        let closed = matches!((&mut &*client).read(&mut [0]), Ok(0));
        ensure!(!closed, "{} closed an idle connection", proxy.name());
    }
    drop((warm, clients));
    Ok(Idle {
        proxy: proxy.name().to_owned(),
        connections,
        pss: [before.pss, after.pss],
        anonymous: [before.anonymous, after.anonymous],
    })
}

/// Connects, asks, reads the answer, and stays.
fn ask_once(proxy: &Running) -> anyhow::Result<TcpStream> {
    let work = Work::Body100;
    let mut stream = TcpStream::connect(proxy.address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // In one write: in several each would wait for the acknowledgement of the one before.
    stream.write_all(format!("GET {} HTTP/1.1\r\nHost: bench\r\n\r\n", work.path()).as_bytes())?;
    let mut response: Vec<u8> = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer)?;
        ensure!(read > 0, "the connection was closed");
        response.extend(buffer.iter().take(read));
        let head = response.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        if head.is_some_and(|head| response.len() >= head + 4 + work.body_bytes()) {
            return Ok(stream);
        }
    }
}
