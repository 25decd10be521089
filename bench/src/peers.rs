//! The peers behind the proxies: a process of its own that answers fixed bodies as cheaply as it can.
//!
//! `GET /1000` gets 1,000 bytes. It understands just enough HTTP for that: a request ends with an empty line and has no
//! body.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::Arc,
};

use anyhow::Context;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
};

use crate::work::Work;

/// How many there are.
const COUNT: usize = 3;
/// The longest request head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The running peers. They end with their standard input.
pub(crate) struct Peers {
    child: Child,
    _stdin: Option<ChildStdin>,
    pub(crate) addresses: Vec<SocketAddr>,
    /// Where the same peers listen on unix sockets.
    pub(crate) sockets: Vec<PathBuf>,
}

impl Peers {
    /// Starts them; their sockets are made in `folder`.
    pub(crate) fn start(folder: &Path) -> anyhow::Result<Self> {
        let sockets: Vec<_> = (1..=COUNT).map(|number| folder.join(format!("peer{number}.sock"))).collect();
        let mut child = Command::new(std::env::current_exe()?)
            .arg("peers")
            .args(&sockets)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the peers can't be started")?;
        let stdin = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().context("the peers say nothing")?).lines();
        let addresses = lines.take(COUNT).map(|line| Ok(line?.parse()?)).collect::<anyhow::Result<_>>();
        Ok(Self { child, _stdin: stdin, addresses: addresses?, sockets })
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Is the peers' process.
pub(crate) fn serve(sockets: &[PathBuf]) -> anyhow::Result<()> {
    std::thread::spawn(|| {
        // Its parent holds the other end; once that is gone there is nothing to do.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let responses: HashMap<String, Vec<u8>> = Work::ALL.map(|work| (work.path(), response(work))).into();
    let responses = Arc::new(responses);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for socket in sockets {
            let listener = UnixListener::bind(socket)?;
            fs::set_permissions(socket, fs::Permissions::from_mode(0o666))?;
            tokio::spawn(accept_unix(listener, responses.clone()));
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
            tokio::spawn(accept(listener, responses.clone()));
        }
        std::future::pending::<anyhow::Result<()>>().await
    })
}

fn response(work: Work) -> Vec<u8> {
    let bytes = work.body_bytes();
    let mut response = format!(
        "HTTP/1.1 200 OK\r\nServer: peer\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: text/plain\r\n\
         Content-Length: {bytes}\r\n\r\n"
    )
    .into_bytes();
    response.resize(response.len() + bytes, b'x');
    response
}

async fn accept(listener: TcpListener, responses: Arc<HashMap<String, Vec<u8>>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // A connection that is gone already says so when it is read.
        let _ = stream.set_nodelay(true);
        tokio::spawn(answer_all(stream, responses.clone()));
    }
}

async fn accept_unix(listener: UnixListener, responses: Arc<HashMap<String, Vec<u8>>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(answer_all(stream, responses.clone()));
    }
}

async fn answer_all(stream: impl AsyncRead + AsyncWrite + Unpin, responses: Arc<HashMap<String, Vec<u8>>>) {
    // A proxy may close whenever it likes.
    let _ = answer(stream, &responses).await;
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    responses: &HashMap<String, Vec<u8>>,
) -> std::io::Result<()> {
    let mut head = Vec::with_capacity(2048);
    while stream.read_buf(&mut head).await? > 0 {
        while let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let path = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
            match str::from_utf8(path).ok().and_then(|path| responses.get(path)) {
                Some(response) => stream.write_all(response).await?,
                None => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await?,
            }
            head.drain(..end + 4);
        }
        if head.len() > HEAD_BYTES_MAX {
            break;
        }
    }
    Ok(())
}
