//! A data plane in this process, over the same channel that the supervisor uses, and peers that do as they are told.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that goes wrong")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use keel_model::*;
use keel_sys::Channel;

/// Nothing in a test takes longer than this.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A running data plane with one listener.
pub(crate) struct DataPlane {
    pub(crate) channel: Channel,
    pub(crate) address: SocketAddr,
    pub(crate) listener: TcpListener,
    pub(crate) generation: u64,
}

impl DataPlane {
    /// Starts one; `adjust` completes a plan with one listener and one server without locations.
    pub(crate) fn start(adjust: impl FnOnce(&mut Plan)) -> Self {
        let mut plane = Self::listening();
        plane.load(adjust);
        plane
    }

    /// Starts one whose socket listens and that has no plan yet: whoever connects waits.
    pub(crate) fn listening() -> Self {
        let (ours, theirs) = Channel::pair().unwrap();
        thread::spawn(move || keel_proxy::run(OwnedFd::from(theirs)).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        Self { channel: ours, address, listener, generation: 0 }
    }

    /// Prepares and commits another plan.
    pub(crate) fn load(&mut self, adjust: impl FnOnce(&mut Plan)) {
        self.generation += 1;
        let mut plan = plan(self.address);
        plan.generation = self.generation;
        adjust(&mut plan);
        let sockets = if self.generation == 1 { vec![Address::Tcp(self.address)] } else { Vec::new() };
        let fds = if self.generation == 1 { vec![self.listener.as_fd()] } else { Vec::new() };
        let order = Order::Prepare { plan: Box::new(plan), sockets, logs: Vec::new(), folders: Vec::new() };
        self.channel.send(&order.encode().unwrap(), &fds).unwrap();
        match self.report() {
            Report::Prepared { generation } => assert_eq!(generation, self.generation),
            other => panic!("{other:?}"),
        }
        self.order(&Order::Commit { generation: self.generation });
        loop {
            match self.report() {
                Report::Committed { generation } if generation == self.generation => return,
                Report::Drained { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn order(&self, order: &Order) {
        self.channel.send(&order.encode().unwrap(), &[]).unwrap();
    }

    pub(crate) fn report(&mut self) -> Report {
        let (bytes, _) = self.channel.recv().unwrap().unwrap();
        Report::decode(&bytes).unwrap()
    }

    pub(crate) fn status(&mut self) -> DataPlaneStatus {
        self.order(&Order::Status);
        loop {
            if let Report::Status(status) = self.report() {
                return *status;
            }
        }
    }

    /// Waits until the data plane has ended.
    pub(crate) fn expect_end(&mut self) {
        while let Ok(Some(_)) = self.channel.recv() {}
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }
}

/// What holds by default, without an access log.
pub(crate) fn unlogged() -> Scope {
    Scope { log: LogScope { logs: Vec::new() }, ..Scope::default() }
}

/// A plan with one listener and one server.
pub(crate) fn plan(address: SocketAddr) -> Plan {
    let mut scope = unlogged();
    scope.core.root = Root::Root(Template::literal("/nonexistent"));
    Plan {
        process: ProcessSettings { workers: 1, worker_connections: 10_000, ..ProcessSettings::default() },
        listeners: vec![Listener {
            address: Address::Tcp(address),
            declared_port: address.port(),
            proxy_protocol: false,
            http2: false,
            tls: false,
            options: SocketOptions::default(),
            default_server: ServerId(0),
            servers: vec![ServerId(0)],
            by_local_address: Vec::new(),
        }],
        servers: vec![VirtualServer {
            names: vec![ServerName::Exact("localhost".into())],
            client: ClientSettings::default(),
            ssl: None,
            scope,
            rewrite: Rewrite::default(),
            locations: Vec::new(),
            files: FileSource::Host,
        }],
        ..Plan::default()
    }
}

/// Adds an upstream `u` and a location `/` that passes to it.
pub(crate) fn balance(plan: &mut Plan, peers: &[SocketAddr]) {
    let set = PeerSet {
        peers: peers.iter().map(|peer| Peer::new(Address::Tcp(*peer), peer.to_string())).collect(),
        ..PeerSet::default()
    };
    plan.upstreams.push(Upstream {
        name: UpstreamName("u".into()),
        policy: PolicyConfig::default(),
        keepalive: UpstreamKeepalive::default(),
        zone: None,
        peers: set,
    });
    let location = proxy_location("/", "u");
    plan.servers[0].locations.push(location);
}

/// Makes a location that passes to an upstream, with nginx's defaults.
pub(crate) fn proxy_location(prefix: &str, upstream: &str) -> Location {
    let pass = ProxyPass {
        target: ProxyTarget::Upstream(UpstreamName(upstream.into())),
        host: Template::literal(upstream),
        port: "80".into(),
        uri: None,
    };
    let mut scope = Scope { content: Content::Proxy(pass), ..unlogged() };
    scope.proxy.upstream.temp_path = std::env::temp_dir();
    scope.core.client_body_temp_path = std::env::temp_dir();
    Location {
        matcher: LocationMatcher::Prefix(prefix.into()),
        scope,
        rewrite: Rewrite::default(),
        locations: Vec::new(),
    }
}

/// A client's connection.
pub(crate) struct Client {
    pub(crate) stream: BufReader<TcpStream>,
}

/// A response as it came, its body decoded.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    pub(crate) fn send(&mut self, text: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(text.as_ref()).unwrap();
    }

    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.response(true)
    }

    /// Reads the next response; `has_body` is false after HEAD.
    pub(crate) fn response(&mut self, has_body: bool) -> Response {
        let mut head = String::new();
        loop {
            let mut line = String::new();
            let read = self.stream.read_line(&mut line).unwrap();
            assert!(read > 0, "the connection ended within a head: {head:?}");
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut response = Response { status, head, body: Vec::new() };
        if !has_body || matches!(status, 204 | 304) || (100..200).contains(&status) {
            return response;
        }
        if let Some(length) = response.field("content-length") {
            let mut body = vec![0; length.parse().unwrap()];
            self.stream.read_exact(&mut body).unwrap();
            response.body = body;
        } else if response.field("transfer-encoding") == Some("chunked") {
            loop {
                let mut line = String::new();
                self.stream.read_line(&mut line).unwrap();
                let size = usize::from_str_radix(line.trim(), 16).unwrap();
                let mut chunk = vec![0; size + 2];
                self.stream.read_exact(&mut chunk).unwrap();
                if size == 0 {
                    break;
                }
                response.body.extend_from_slice(&chunk[..size]);
            }
        } else {
            self.stream.read_to_end(&mut response.body).unwrap();
        }
        response
    }

    /// Asserts that the other side closes now.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

/// A request as a peer saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) connection: usize,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// A peer that answers each request by a function of it; `None` closes the connection.
pub(crate) struct ScriptedPeer {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    pub(crate) connections: Arc<AtomicUsize>,
}

impl ScriptedPeer {
    pub(crate) fn start(answer: impl Fn(&Seen) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let connections: Arc<AtomicUsize> = Arc::default();
        let (log, count, answer) = (seen.clone(), connections.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let number = count.fetch_add(1, SeqCst);
                let (log, answer) = (log.clone(), answer.clone());
                thread::spawn(move || {
                    let mut stream = BufReader::new(stream);
                    while let Some(request) = read_request(&mut stream, number) {
                        log.lock().unwrap().push(request.clone());
                        match answer(&request) {
                            Some(bytes) if stream.get_mut().write_all(&bytes).is_ok() => {}
                            _ => return,
                        }
                    }
                });
            }
        });
        Self { address, seen, connections }
    }

    /// Makes one that answers with a fixed text.
    pub(crate) fn saying(text: &'static str) -> Self {
        Self::start(move |_| {
            Some(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()).into_bytes())
        })
    }

    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn read_request(stream: &mut BufReader<TcpStream>, connection: usize) -> Option<Seen> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let mut body = Vec::new();
    if let Some(length) = field("content-length") {
        body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).ok()?;
    } else if field("transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).ok()?;
            let size = usize::from_str_radix(line.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).ok()?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
    Some(Seen { connection, head, body })
}
