//! A DNS server that says what a test wants.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

/// What the server says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameAnswer {
    /// It has these IPv4 addresses and no others, for so many seconds.
    Addresses(Vec<Ipv4Addr>, u32),
    /// There is no such name.
    NoSuchName,
    /// The server can't say.
    Failure,
    /// No answer at all.
    Silence,
}

/// A DNS server on a free UDP port of 127.0.0.1. It ends when dropped. Names it wasn't told of don't exist.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    names: Arc<Mutex<BTreeMap<String, NameAnswer>>>,
    questions: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl NameServer {
    /// Starts one.
    ///
    /// # Errors
    /// When there is no port.
    pub fn start() -> std::io::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let server = Self {
            address: socket.local_addr()?,
            names: Arc::default(),
            questions: Arc::default(),
            over: Arc::default(),
        };
        let (names, questions, over) = (server.names.clone(), server.questions.clone(), server.over.clone());
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let Some(question) = buffer.get(..length).and_then(Question::parse) else { continue };
                let names = names.lock().unwrap_or_else(PoisonError::into_inner);
                let answer = names.get(&question.name).unwrap_or(&NameAnswer::NoSuchName);
                if let Some(bytes) = question.respond(answer) {
                    // Who asked may be gone.
                    drop(socket.send_to(&bytes, client));
                }
                questions.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(server)
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many questions it has heard.
    pub fn questions(&self) -> u64 {
        self.questions.load(Ordering::Relaxed)
    }

    /// Says from now on this of a name.
    pub fn say(&self, name: &str, answer: NameAnswer) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), answer);
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes it up.
        if let Ok(socket) = UdpSocket::bind("127.0.0.1:0") {
            drop(socket.send_to(&[], self.address));
        }
    }
}

/// The one question of a message (RFC 1035 §4.1).
struct Question<'a> {
    id: [u8; 2],
    name: String,
    is_ipv4: bool,
    /// The question's bytes, which the answer repeats.
    bytes: &'a [u8],
}

const HEADER_LENGTH: usize = 12;

impl<'a> Question<'a> {
    fn parse(message: &'a [u8]) -> Option<Self> {
        let id = [*message.first()?, *message.get(1)?];
        let mut labels = Vec::new();
        let mut at = HEADER_LENGTH;
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(message.get(at..at + length)?).to_ascii_lowercase());
            at += length;
        }
        let is_ipv4 = message.get(at..at + 2)? == [0, 1];
        Some(Self { id, name: labels.join("."), is_ipv4, bytes: message.get(HEADER_LENGTH..at + 4)? })
    }

    fn respond(&self, answer: &NameAnswer) -> Option<Vec<u8>> {
        let none: &[Ipv4Addr] = &[];
        let (code, addresses, ttl) = match answer {
            NameAnswer::Addresses(addresses, ttl) if self.is_ipv4 => (0, addresses.as_slice(), *ttl),
            NameAnswer::Addresses(_, ttl) => (0, none, *ttl),
            NameAnswer::Failure => (2, none, 0),
            NameAnswer::NoSuchName => (3, none, 0),
            NameAnswer::Silence => return None,
        };
        let count = u8::try_from(addresses.len()).ok()?;
        let mut bytes = self.id.to_vec();
        // A response, recursion desired and available; one question.
        bytes.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
        bytes.extend(self.bytes);
        for address in addresses {
            // The name is the question's; type A, class IN.
            bytes.extend([0xc0, 0x0c, 0, 1, 0, 1]);
            bytes.extend(ttl.to_be_bytes());
            bytes.extend([0, 4]);
            bytes.extend(address.octets());
        }
        Some(bytes)
    }
}
