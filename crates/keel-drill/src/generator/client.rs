//! The generator's own HTTP/1.1, written against RFC 9112 and shared with nothing: what judges a proxy must not have its
//! mistakes.

use std::{cell::RefCell, io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::Target;
use crate::{
    checksum::Checksum,
    record::{Body, Break, Id, Moment, Outcome, Record},
};

/// The longest head of a response, and the longest line of a chunked body.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The longest body of a response that is kept to be compared.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A request to be sent.
pub(super) struct Request {
    pub(super) id: Id,
    pub(super) is_post: bool,
    pub(super) body: Vec<u8>,
}

/// When a request was to be sent, and when the generator got round to it.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) intended: Moment,
    pub(super) begun: Moment,
}

/// Connections to one address.
pub(super) struct Client {
    target: Target,
    idle: RefCell<Vec<Connection>>,
}

struct Connection {
    stream: TcpStream,
    requests: u32,
}

/// What becomes of a connection after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Keep,
    Close,
}

/// A response, whole.
struct Response {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    can_go_on: bool,
}

impl Client {
    pub(super) fn new(target: Target) -> Self {
        Self { target, idle: RefCell::default() }
    }

    /// Sends a request on a connection that is free, or on a new one, and reads its response.
    pub(super) async fn send(&self, request: Request, times: Times, requests_max: Option<u32>) -> Record {
        let Times { intended, begun } = times;
        let free = Moment::now();
        let mut record = Record {
            id: request.id,
            is_post: request.is_post,
            intended,
            begun,
            free,
            sent: free,
            ended: free,
            is_reused: false,
            body_sum: Checksum::of(&request.body).to_string(),
            instance: None,
            outcome: Outcome::Broken(Break::TimedOut),
        };
        let exchanged =
            tokio::time::timeout(self.target.patience, self.exchange(&request, requests_max, &mut record))
                .await;
        record.ended = Moment::now();
        match exchanged {
            Ok(Ok(response)) => {
                record.instance = response.field("x-instance").map(str::to_owned);
                record.outcome =
                    Outcome::Answered { status: response.status, body: response.check(request.id) };
            }
            Ok(Err(broken)) => record.outcome = Outcome::Broken(broken),
            Err(_) => {}
        }
        record
    }

    async fn exchange(
        &self,
        request: &Request,
        requests_max: Option<u32>,
        record: &mut Record,
    ) -> Result<Response, Break> {
        let (mut connection, is_reused) = match self.take_idle() {
            Some(connection) => (connection, true),
            None => (Connection::open(self.target.address).await.map_err(|_| Break::Connect)?, false),
        };
        record.is_reused = is_reused;
        connection.requests += 1;
        let is_last = requests_max.is_some_and(|max| connection.requests >= max);
        let after = if is_last { After::Close } else { After::Keep };
        record.sent = Moment::now();
        let message = self.message(request, after);
        // A server may answer and close before it has read everything: what it said still counts.
        drop(connection.stream.write_all(&message).await);
        let response = connection.read_response().await?;
        if response.can_go_on && after == After::Keep {
            self.idle.borrow_mut().push(connection);
        }
        Ok(response)
    }

    /// Takes the connection that was used last, if the server hasn't closed it.
    fn take_idle(&self) -> Option<Connection> {
        loop {
            let connection = self.idle.borrow_mut().pop()?;
            // Anything to be read on an idle connection is its end, or is out of turn.
            match connection.stream.try_read(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(connection),
                _ => {}
            }
        }
    }

    fn message(&self, request: &Request, after: After) -> Vec<u8> {
        let Target { host, path, .. } = &self.target;
        let (method, separator) =
            (if request.is_post { "POST" } else { "GET" }, if path.contains('?') { '&' } else { '?' });
        let id = request.id;
        let mut message = format!(
            "{method} {path}{separator}drill={id} HTTP/1.1\r\nHost: {host}\r\nX-Request-Id: {id}\r\n\
             User-Agent: evenkeel-drill\r\nAccept: */*\r\n"
        )
        .into_bytes();
        if request.is_post {
            let length = request.body.len();
            message.extend_from_slice(
                format!("Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n").as_bytes(),
            );
        }
        message.extend_from_slice(match after {
            After::Keep => b"\r\n",
            After::Close => b"Connection: close\r\n\r\n",
        });
        message.extend_from_slice(&request.body);
        message
    }
}

impl Connection {
    async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, requests: 0 })
    }

    /// Reads a final response; interim ones are passed over.
    async fn read_response(&mut self) -> Result<Response, Break> {
        let mut input = Input { stream: &mut self.stream, bytes: Vec::with_capacity(1024), at: 0 };
        loop {
            let head = input.head().await?;
            let (status, fields, is_11) = parse_head(&head).ok_or(Break::Malformed)?;
            if (100..200).contains(&status) {
                continue;
            }
            let mut response = Response { status, fields, body: Vec::new(), can_go_on: is_11 };
            let delimited = response.read_body(&mut input).await?;
            let said = response.field("connection").unwrap_or_default().to_ascii_lowercase();
            response.can_go_on &= delimited && !said.split(',').any(|word| word.trim() == "close");
            // Bytes behind the end were asked for by nobody.
            return if input.left() { Err(Break::Malformed) } else { Ok(response) };
        }
    }
}

impl Response {
    fn field(&self, name: &str) -> Option<&str> {
        let mut named = self.fields.iter().filter(|(field, _)| field == name);
        named.next().map(|(_, value)| value.as_str())
    }

    /// Reads the body (RFC 9112 §6.3); tells whether its end was marked by more than the connection's.
    async fn read_body(&mut self, input: &mut Input<'_>) -> Result<bool, Break> {
        if matches!(self.status, 204 | 304) {
            return Ok(true);
        }
        let coding = self.field("transfer-encoding").map(str::to_ascii_lowercase);
        let lengths: Vec<&str> = self
            .fields
            .iter()
            .filter(|(name, _)| name == "content-length")
            .map(|(_, value)| value.as_str())
            .collect();
        match (coding.as_deref(), lengths.as_slice()) {
            (Some("chunked"), []) => {
                self.body = input.chunks().await?;
                Ok(true)
            }
            (None, [length]) => {
                let digits = length.bytes().all(|byte| byte.is_ascii_digit());
                let length = length.parse().ok().filter(|_| digits).ok_or(Break::Malformed)?;
                self.body = input.exact(length).await?;
                Ok(true)
            }
            (None, []) => {
                self.body = input.rest_of_it().await?;
                Ok(false)
            }
            _ => Err(Break::Malformed),
        }
    }

    /// Compares the body with what the instance announced of it.
    fn check(&self, id: Id) -> Body {
        if self.field("x-request-id").is_some_and(|answered| answered != id.to_string()) {
            return Body::Foreign;
        }
        match self.field("x-body") {
            None => Body::Unannounced,
            Some(announced) if announced == Checksum::of(&self.body).to_string() => Body::Whole,
            Some(_) => Body::Torn,
        }
    }
}

/// What came on a connection and wasn't taken yet.
struct Input<'a> {
    stream: &'a mut TcpStream,
    bytes: Vec<u8>,
    at: usize,
}

impl Input<'_> {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn left(&self) -> bool {
        !self.rest().is_empty()
    }

    /// Waits for more. A reset is as much an end as a FIN.
    async fn more(&mut self) -> Result<(), Break> {
        match self.stream.read_buf(&mut self.bytes).await {
            Ok(0) | Err(_) if self.bytes.is_empty() => Err(Break::BeforeHead),
            Ok(0) | Err(_) => Err(Break::Within),
            Ok(_) => Ok(()),
        }
    }

    async fn head(&mut self) -> Result<Vec<u8>, Break> {
        self.until(b"\r\n\r\n").await
    }

    /// Takes everything up to and with a mark.
    async fn until(&mut self, mark: &[u8]) -> Result<Vec<u8>, Break> {
        loop {
            if let Some(end) = self.rest().windows(mark.len()).position(|window| window == mark) {
                let taken = self.rest().get(..end + mark.len()).unwrap_or_default().to_vec();
                self.at += taken.len();
                return Ok(taken);
            }
            if self.rest().len() > HEAD_BYTES_MAX {
                return Err(Break::Malformed);
            }
            self.more().await?;
        }
    }

    async fn exact(&mut self, length: usize) -> Result<Vec<u8>, Break> {
        if length > BODY_BYTES_MAX {
            return Err(Break::Malformed);
        }
        while self.rest().len() < length {
            self.more().await?;
        }
        let taken = self.rest().get(..length).unwrap_or_default().to_vec();
        self.at += length;
        Ok(taken)
    }

    async fn chunks(&mut self) -> Result<Vec<u8>, Break> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n").await?;
            let text = std::str::from_utf8(&line).map_err(|_| Break::Malformed)?;
            let digits = text.split(';').next().unwrap_or_default().trim();
            let length = usize::from_str_radix(digits, 16).map_err(|_| Break::Malformed)?;
            if length == 0 {
                break;
            }
            body.extend(self.exact(length).await?);
            if body.len() > BODY_BYTES_MAX || self.exact(2).await? != b"\r\n" {
                return Err(Break::Malformed);
            }
        }
        while self.until(b"\r\n").await? != b"\r\n" {}
        Ok(body)
    }

    /// Takes everything to the end of the connection, which must be a FIN.
    async fn rest_of_it(&mut self) -> Result<Vec<u8>, Break> {
        loop {
            match self.stream.read_buf(&mut self.bytes).await {
                Ok(0) => break,
                Ok(_) if self.rest().len() <= BODY_BYTES_MAX => {}
                _ => return Err(Break::Within),
            }
        }
        let taken = self.rest().to_vec();
        self.at = self.bytes.len();
        Ok(taken)
    }
}

type Head = (u16, Vec<(String, String)>, bool);

/// Reads a head strictly; field names come out in lower case.
fn parse_head(bytes: &[u8]) -> Option<Head> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix("\r\n\r\n")?;
    let mut lines = text.split("\r\n");
    let line = lines.next()?;
    let (version, rest) = line.split_once(' ')?;
    let is_11 = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        _ => return None,
    };
    let status = rest.get(..3)?.parse().ok().filter(|status| (100..600).contains(status))?;
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        if name.is_empty() || name.contains([' ', '\t']) || value.contains(['\r', '\n']) {
            return None;
        }
        fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
    }
    Some((status, fields, is_11))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;

    /// What the client makes of these bytes, sent and followed by the connection's end.
    fn check(bytes: &[u8], expect: Result<(u16, Body), Break>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = Target {
                address: listener.local_addr().unwrap(),
                host: "x".into(),
                path: "/".into(),
                patience: Duration::from_secs(20),
            };
            let bytes = bytes.to_vec();
            let server = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert_ne!(stream.read(&mut [0; 4096]).await.unwrap(), 0);
                stream.write_all(&bytes).await.unwrap();
            };
            let client = Client::new(target);
            let request = Request { id: Id { step: 1, number: 2 }, is_post: false, body: Vec::new() };
            let times = Times { intended: Moment::now(), begun: Moment::now() };
            tokio::join!(client.send(request, times, None), server).0.outcome
        });
        let expect = match expect {
            Ok((status, body)) => Outcome::Answered { status, body },
            Err(broken) => Outcome::Broken(broken),
        };
        assert_eq!(outcome, expect, "{}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn knows_a_whole_response_from_any_other() {
        let ok = |rest: &str| format!("HTTP/1.1 200 OK\r\n{rest}").into_bytes();
        let sum = Checksum::of(b"hello");
        check(&ok("Content-Length: 2\r\n\r\nhi"), Ok((200, Body::Unannounced)));
        check(&ok(&format!("X-Body: {sum}\r\nContent-Length: 5\r\n\r\nhello")), Ok((200, Body::Whole)));
        check(&ok(&format!("X-Body: {sum}\r\nContent-Length: 4\r\n\r\nhell")), Ok((200, Body::Torn)));
        check(&ok(&format!("X-Body: {sum}\r\n\r\nhel")), Ok((200, Body::Torn)));
        check(
            &ok(&format!(
                "X-Body: {sum}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
            )),
            Ok((200, Body::Whole)),
        );
        check(&ok("X-Request-Id: d1-3\r\nContent-Length: 0\r\n\r\n"), Ok((200, Body::Foreign)));
        check(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n",
            Ok((502, Body::Unannounced)),
        );
        check(b"", Err(Break::BeforeHead));
        check(b"HTTP/1.1 200", Err(Break::Within));
        check(&ok("Content-Length: 3\r\n\r\nhi"), Err(Break::Within));
        check(&ok("Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"), Err(Break::Within));
        check(&ok("Content-Length: 1\r\n\r\nhi"), Err(Break::Malformed));
        check(&ok("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(Break::Malformed));
        check(b"hello there\r\n\r\n", Err(Break::Malformed));
    }
}
