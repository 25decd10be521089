//! A client as a request sees it: its connection, the stream that the request came on, and a deadline.
//!
//! Nothing here knows a phase: requests are served in [`crate::downstream`].

mod body;
mod connection;
mod flush;
mod pace;
mod sink;
mod stream;
mod watch;

use std::{net::SocketAddr, time::Instant};

use keel_http::host;
use keel_model::{KeepaliveDisable, LogLevel};
use keel_telemetry::Entry;

use crate::{
    browser::Browser,
    exchange::{Exchange, Method, Remote},
    io::timer::Timer,
    snapshot::{Server, ServerNames},
    transport::{self, Socket, Transport},
    worker::{View, Worker},
};

#[cfg(test)]
pub(crate) use self::sink::CAPTURE_BYTES_MAX;
pub(crate) use self::{
    body::{body_failed, expect_continue, has_body, read_whole},
    connection::ClientConnection,
    flush::flush,
    pace::{Pace, set_pace},
    sink::{Capture, Part, Sink},
    stream::{ClientStream, Framing, H2, HeadFailure},
    watch::ClientWatch,
};

/// The longest `Host` that is remembered: longer ones are no names (RFC 1035 §2.3.4).
const HOST_KEPT_BYTES_MAX: usize = 255;

/// A client with one stream of it.
pub(crate) struct Client {
    pub(crate) connection: ClientConnection,
    pub(crate) stream: ClientStream,
    /// When waiting for the stream, or for what it is to carry, ends.
    pub(crate) timer: Timer,
    pub(crate) timed_out: bool,
    /// How fast the response is sent, where that is limited.
    pub(crate) pace: Option<Box<Pace>>,
    /// Whether the request came behind another without waiting for its response.
    pub(crate) pipelined: bool,
    pub(crate) no_delay: bool,
    /// `tcp_nodelay` of the last request's place.
    pub(crate) wants_no_delay: bool,
    /// Whether the connection was to make room when its request came: it closes behind the response.
    pub(crate) is_last: bool,
    /// Until when the connection is kept though its worker quits (`keepalive_min_timeout`).
    pub(crate) kept_until: Option<Instant>,
    pub(crate) last_host: LastHost,
}

/// What the last `Host` meant: nearly always the next one is the same.
#[derive(Default)]
pub(crate) struct LastHost {
    value: Vec<u8>,
    name: Vec<u8>,
    port: Option<u16>,
}

impl LastHost {
    /// Does what [`host::normalise`] does.
    fn normalise(&mut self, value: &[u8], out: &mut Vec<u8>) -> Result<Option<u16>, host::InvalidHost> {
        if value.len() > HOST_KEPT_BYTES_MAX {
            return host::normalise(value, out);
        }
        if self.value != value || value.is_empty() {
            self.value.clear();
            self.name.clear();
            self.port = host::normalise(value, &mut self.name)?;
            self.value.extend_from_slice(value);
        }
        out.extend_from_slice(&self.name);
        Ok(self.port)
    }
}

impl Client {
    /// Takes a connection that was just accepted, or whose answers go elsewhere.
    pub(crate) fn new(worker: &Worker, connection: ClientConnection, sink: Sink) -> Self {
        let mut client = Self::resumed(connection, sink, Timer::default());
        let timeout = client.default_server().client.header_timeout;
        client.timer.set(&worker.clock, timeout);
        client
    }

    /// Goes on with a connection.
    pub(crate) fn resumed(connection: ClientConnection, sink: Sink, timer: Timer) -> Self {
        Self {
            connection,
            stream: ClientStream::new(sink),
            timer,
            timed_out: false,
            pace: None,
            pipelined: false,
            no_delay: false,
            wants_no_delay: true,
            is_last: false,
            kept_until: None,
            last_host: LastHost::default(),
        }
    }

    /// Says whether the connection may begin with HTTP/2, on which nothing has been said yet.
    pub(crate) fn may_speak_http2(&self) -> bool {
        // With TLS, ALPN has chosen.
        self.connection.requests == 0 && self.connection.tls().is_none() && {
            let listener = &self.connection.view.snapshot.listeners[self.connection.listener_at];
            listener.http2 || self.default_server().client.http2
        }
    }

    /// Takes the connection out of the stream, with what has come on it.
    pub(crate) fn take_transport(&mut self) -> Option<(Transport, Vec<u8>)> {
        let mut stream = std::mem::replace(&mut self.stream, ClientStream::new(Sink::Discard));
        let input = std::mem::take(stream.behind());
        Some((stream.into_transport()?, input))
    }

    /// Makes the client's side of a request that came on a stream of this connection.
    pub(crate) fn on_stream(&self, stream: H2) -> Self {
        let mut client = Self::resumed(self.connection.clone(), Sink::Discard, Timer::default());
        client.stream = ClientStream::H2(Box::new(stream));
        client
    }

    /// Makes the client's side of a request within this one's server, whose answer goes elsewhere.
    pub(crate) fn within(&self, sink: Sink) -> Self {
        // The other one has no connection that could be asked.
        self.local_address();
        let mut within = Self::resumed(self.connection.clone(), sink, Timer::default());
        within.pipelined = self.pipelined;
        within.wants_no_delay = false;
        within
    }

    /// Goes on with a transport, on which this has been read.
    pub(crate) fn resume(&mut self, transport: Transport, behind: Vec<u8>) {
        self.stream = ClientStream::new(Sink::Connection(transport));
        *self.stream.behind() = behind;
    }

    /// Gives the address that the client connected to.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.connection.local_address(self.stream.socket())
    }

    /// The virtual servers that may be meant.
    pub(crate) fn names(&self) -> &ServerNames {
        let connection = &self.connection;
        let listener = &connection.view.snapshot.listeners[connection.listener_at];
        if listener.by_local_address.is_empty() {
            return &listener.names;
        }
        let local = self.local_address();
        local.and_then(|address| listener.by_local_address.get(&address)).unwrap_or(&listener.names)
    }

    /// Gives the server whose settings hold before a host is known.
    pub(crate) fn default_server(&self) -> &Server {
        &self.connection.view.snapshot.servers[self.names().default_server()]
    }

    /// Does what [`host::normalise`] does.
    pub(crate) fn normalise_host(
        &mut self,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<u16>, host::InvalidHost> {
        self.last_host.normalise(value, out)
    }

    /// Lets closing reset the connection instead of ending it in good order.
    pub(crate) fn reset_on_close(&self) {
        self.stream.socket().into_iter().for_each(Socket::reset_on_close);
    }

    /// Gives the client's address for a request: the connection's own, unless it came from somebody who is believed
    /// about another (`set_real_ip_from`).
    pub(crate) fn remote_of(&self, ex: &Exchange) -> Remote {
        ex.received.real_ip.unwrap_or(self.connection.remote)
    }

    /// Lets small writes leave at once, from the moment on when there will be several. For callers in whose place
    /// `tcp_nodelay` is on.
    pub(crate) fn no_delay(&mut self) {
        if std::mem::replace(&mut self.no_delay, true) {
            return;
        }
        let Some(socket) = self.stream.socket() else { return };
        socket.set_nodelay();
        if self.connection.remote.is_loopback() {
            transport::local_congestion_control(socket);
        }
    }

    /// Lets the response be the connection's last where the place's limits say so.
    pub(crate) fn limit_keep_alive(&self, worker: &Worker, ex: &mut Exchange, view: &View) {
        let core = &ex.place(view).scope.core;
        ex.sent.keep_alive = ex.sent.keep_alive
            && !self.is_last
            && self.connection.requests < core.keepalive_requests
            && !core.keepalive_timeout.is_zero()
            && self
                .connection
                .accepted
                .checked_add(core.keepalive_time)
                .is_none_or(|end| worker.clock.now() < end)
            && !is_disabled(core.keepalive_disable, ex);
    }

    pub(crate) fn log_error(&self, worker: &Worker, ex: &Exchange, text: &str) {
        self.log(worker, ex, LogLevel::Error, text);
    }

    /// Writes an entry about a request to the error log of the place that it is in.
    pub(crate) fn log(&self, worker: &Worker, ex: &Exchange, level: LogLevel, text: &str) {
        let view = ex.view().unwrap_or(&self.connection.view);
        let place = ex.routed.place.map(|place| view.snapshot.place(place));
        let errors = place.and_then(|place| place.error_logs.as_ref()).unwrap_or(&view.snapshot.error_log);
        if !errors.is_enabled(level) {
            return;
        }
        let mut line = Vec::new();
        line.extend_from_slice(text.as_bytes());
        line.extend_from_slice(b", client: ");
        self.remote_of(ex).append_address(&mut line);
        if ex.view().is_some() {
            line.extend_from_slice(b", server: ");
            line.extend_from_slice(ex.server(view).name.as_bytes());
        }
        let request = ex.received.head.line.of(&ex.received.input);
        if !request.is_empty() {
            line.extend_from_slice(b", request: \"");
            line.extend_from_slice(request);
            line.push(b'"');
        }
        if ex.routed.depth > 0 {
            line.extend_from_slice(b", subrequest: \"");
            line.extend_from_slice(&ex.routed.uri);
            line.push(b'"');
        }
        if let Some(attempt) = ex.upstream.attempts.last() {
            let program = place.and_then(|place| place.proxy.as_ref());
            let scheme = program.map_or("http://", |program| program.kind().scheme());
            line.extend_from_slice(b", upstream: \"");
            line.extend_from_slice(scheme.as_bytes());
            attempt.append_address(&mut line);
            // Gateways get no URI.
            if scheme == "http://" {
                line.extend_from_slice(&ex.routed.uri);
            }
            line.push(b'"');
        }
        if let Some(host) = ex.field(keel_http::Name::Host) {
            line.extend_from_slice(b", host: \"");
            line.extend_from_slice(host);
            line.push(b'"');
        }
        errors.write(&self.entry(worker, level, format_args!("{}", String::from_utf8_lossy(&line))));
    }

    /// Writes an entry to the error log of the default server, for when there is no request yet.
    pub(crate) fn log_before_request(&self, worker: &Worker, level: LogLevel, text: &str) {
        let snapshot = &self.connection.view.snapshot;
        let place = snapshot.place(self.default_server().root);
        let errors = place.error_logs.as_ref().unwrap_or(&snapshot.error_log);
        if !errors.is_enabled(level) {
            return;
        }
        let mut client = Vec::new();
        self.connection.remote.append_address(&mut client);
        let client = String::from_utf8_lossy(&client);
        let text = format_args!("{text}, client: {client}, server: {}", self.connection.listener);
        errors.write(&self.entry(worker, level, text));
    }

    fn entry<'a>(&self, worker: &Worker, level: LogLevel, text: std::fmt::Arguments<'a>) -> Entry<'a> {
        let connection = Some(self.connection.number);
        Entry { now: worker.system_time(), level, tid: crate::log::thread_id(), connection, text }
    }
}

/// Says whether the browser's connections are not kept. It is looked at only where that can be.
fn is_disabled(disable: KeepaliveDisable, ex: &Exchange) -> bool {
    let old_msie = disable.msie6 && ex.routed.method == Method::Post;
    if !old_msie && !disable.safari {
        return false;
    }
    match ex.field(keel_http::Name::UserAgent).map(Browser::of) {
        Some(Browser::OldMsie) => old_msie,
        Some(Browser::Safari) => disable.safari,
        _ => false,
    }
}
