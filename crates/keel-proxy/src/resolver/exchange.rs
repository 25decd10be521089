//! One question to DNS servers: by UDP, again where nobody answers, by TCP where the answer doesn't fit.

use std::{
    cell::Cell,
    hash::{BuildHasher as _, RandomState},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::{sleep, timeout},
};

use super::message::{FORMAT_ERROR, Kind, Query, REFUSED, Reply};

/// How long a server may take before the next one is asked.
const RESEND_AFTER: Duration = Duration::from_secs(5);

/// The longest response that is taken by UDP. No question says that more would be.
const UDP_BYTES_MAX: usize = 4096;

/// The servers, which take their turns, and what makes questions' numbers hard to guess.
pub(super) struct Servers {
    addresses: Vec<SocketAddr>,
    turn: Cell<usize>,
    numbers: RandomState,
    number: Cell<u64>,
}

impl Servers {
    pub(super) fn new(addresses: Vec<SocketAddr>) -> Self {
        Self { addresses, turn: Cell::new(0), numbers: RandomState::new(), number: Cell::new(0) }
    }

    /// Says which server is asked first for the next name.
    pub(super) fn next_turn(&self) -> usize {
        self.turn.replace(self.turn.get().wrapping_add(1))
    }

    /// Asks until a server answers; `None` where the name can't be asked for. A server's error is an answer, as in nginx,
    /// unless it says that it doesn't understand.
    pub(super) async fn ask(&self, name: &str, kind: Kind, first: usize) -> Option<Reply> {
        let query = Query { id: self.next_id(), name: name.to_owned(), kind };
        let question = query.write()?;
        let mut server = first;
        let mut failed = 0;
        loop {
            let address = *self.addresses.get(server % self.addresses.len().max(1))?;
            match timeout(RESEND_AFTER, exchange(address, &query, &question)).await {
                Ok(Ok(reply)) if reply.code != FORMAT_ERROR && reply.code <= REFUSED => return Some(reply),
                Ok(_) => {
                    failed += 1;
                    if failed % self.addresses.len() == 0 {
                        sleep(RESEND_AFTER).await;
                    }
                }
                Err(_) => failed = 0,
            }
            server = server.wrapping_add(1);
        }
    }

    fn next_id(&self) -> u16 {
        let number = self.number.replace(self.number.get().wrapping_add(1));
        let [low, high, ..] = self.numbers.hash_one(number).to_ne_bytes();
        u16::from_ne_bytes([low, high])
    }
}

/// Asks one server. Messages that answer something else, or are none, don't end it.
async fn exchange(server: SocketAddr, query: &Query, question: &[u8]) -> io::Result<Reply> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A socket of its own for each question: the port is as hard to guess as the number.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; UDP_BYTES_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let Some(reply) = buffer.get(..length).and_then(|message| query.read_reply(message)) else {
            continue;
        };
        return if reply.is_truncated { by_tcp(server, query, question).await } else { Ok(reply) };
    }
}

async fn by_tcp(server: SocketAddr, query: &Query, question: &[u8]) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(question);
    stream.write_all(&framed).await?;
    loop {
        let length = stream.read_u16().await?;
        let mut message = vec![0; length.into()];
        stream.read_exact(&mut message).await?;
        if let Some(reply) = query.read_reply(&message).filter(|reply| !reply.is_truncated) {
            return Ok(reply);
        }
    }
}
