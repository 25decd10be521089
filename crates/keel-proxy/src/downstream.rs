//! The client's side: one task per connection, which drives the peer's socket too.

mod body;
mod h1;
mod linger;
mod opening;
mod order;
pub(crate) mod parking;
mod task;

use std::{
    cell::{Cell, OnceCell},
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use keel_http::host;
use keel_model::{Address, KeepaliveDisable, LogLevel};
use keel_telemetry::Entry;

use crate::{
    browser::Browser,
    exchange::{Exchange, Method, Remote},
    io::{
        socket::{self, Peeked, Socket},
        timer::Timer,
    },
    preface::ProxyHeader,
    send::Sink,
    worker::{View, Worker},
};

pub(crate) use body::{BodyFailure, body_failed, expect_continue, has_body, poll_body, read_whole};
#[cfg(test)]
pub(crate) use h1::accept_head;
pub(crate) use task::{Rest, Resting, Tasks, spawn};

/// How long an idle connection is kept after its worker was told to quit.
const QUIT_IDLE: Duration = Duration::from_secs(1);

/// The longest `Host` that is remembered: longer ones are no names (RFC 1035 §2.3.4).
const HOST_KEPT_BYTES_MAX: usize = 255;

/// A client's connection.
pub(crate) struct Client {
    pub(crate) sink: Sink,
    pub(crate) timer: Timer,
    pub(crate) remote: Remote,
    pub(crate) listener: Rc<Address>,
    pub(crate) number: u64,
    /// Requests begun on it.
    pub(crate) requests: u64,
    pub(crate) accepted: Instant,
    pub(crate) timed_out: bool,
    /// Whether the request came behind another without waiting for its response.
    pub(crate) pipelined: bool,
    /// The header of the PROXY protocol, where the listener asks for one.
    pub(crate) proxy_header: Option<Box<ProxyHeader>>,
    local: OnceCell<Option<SocketAddr>>,
    /// What came behind the last request, or behind the header of the PROXY protocol.
    behind: Vec<u8>,
    /// The configuration of the last request, as long as its listener is there.
    view: Rc<View>,
    /// Which of its listeners that is.
    listener_at: usize,
    no_delay: Cell<bool>,
    /// `tcp_nodelay` of the last request's place.
    wants_no_delay: bool,
    /// Whether the connection was to make room when its request came: it closes behind the response.
    is_last: bool,
    /// Until when the connection is kept though its worker quits (`keepalive_min_timeout`).
    kept_until: Option<Instant>,
    last_host: LastHost,
}

/// What the last `Host` meant: nearly always the next one is the same.
#[derive(Default)]
struct LastHost {
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
    /// Takes a connection of that listener of the configuration.
    pub(crate) fn new(
        worker: &Rc<Worker>,
        view: Rc<View>,
        listener_at: usize,
        socket: Socket,
        remote: Remote,
        listener: Rc<Address>,
    ) -> Self {
        Self::with_sink(worker, view, listener_at, Sink::Stream(socket), remote, listener)
    }

    /// Takes a client whose answers go to a sink.
    pub(crate) fn with_sink(
        worker: &Rc<Worker>,
        view: Rc<View>,
        listener_at: usize,
        sink: Sink,
        remote: Remote,
        listener: Rc<Address>,
    ) -> Self {
        let proxy_header = view.snapshot.listeners[listener_at].proxy_protocol;
        let mut client = Self {
            sink,
            timer: Timer::default(),
            remote,
            listener,
            number: worker.next_connection(),
            requests: 0,
            accepted: worker.clock.now(),
            timed_out: false,
            pipelined: false,
            proxy_header: proxy_header.then(|| Box::new(ProxyHeader::Awaited)),
            local: OnceCell::new(),
            behind: Vec::new(),
            view,
            listener_at,
            no_delay: Cell::new(false),
            wants_no_delay: true,
            is_last: false,
            kept_until: None,
            last_host: LastHost::default(),
        };
        let timeout = h1::default_server(&client).client.header_timeout;
        client.timer.set(&worker.clock, timeout);
        client
    }

    /// Makes the client's side of a request within this one's server, whose answer goes elsewhere.
    pub(crate) fn within(&self, sink: Sink) -> Self {
        Self {
            sink,
            timer: Timer::default(),
            remote: self.remote,
            listener: self.listener.clone(),
            number: self.number,
            requests: self.requests,
            accepted: self.accepted,
            timed_out: false,
            pipelined: self.pipelined,
            proxy_header: self.proxy_header.clone(),
            local: OnceCell::from(self.local_address()),
            behind: Vec::new(),
            view: self.view.clone(),
            listener_at: self.listener_at,
            no_delay: Cell::new(true),
            wants_no_delay: false,
            is_last: false,
            kept_until: None,
            last_host: LastHost::default(),
        }
    }

    /// Gives the address that the client connected to.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        *self.local.get_or_init(|| self.sink.socket().and_then(Socket::local_address))
    }

    /// Reads once into the free room of `buffer`, which is made at least `room` bytes; 0 means the end.
    pub(crate) fn poll_fill(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        match self.sink.socket() {
            Some(socket) => socket.poll_fill(cx, buffer, room),
            None => Poll::Ready(Ok(0)),
        }
    }

    /// Is ready when there may be something to read, or the connection is broken.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sink.socket().map_or(Poll::Pending, |socket| socket.poll_read_ready(cx))
    }

    /// Looks at what waits to be read, without taking it.
    pub(crate) fn peek(&self) -> Peeked {
        self.sink.socket().map_or(Peeked::Nothing, Socket::peek)
    }

    /// Waits for the next event although the last one has told of something.
    pub(crate) fn forget_readiness(&self) {
        self.sink.socket().into_iter().for_each(Socket::forget_readiness);
    }

    /// Says that nothing more will be sent.
    pub(crate) fn shutdown_write(&self) {
        self.sink.socket().into_iter().for_each(Socket::shutdown_write);
    }

    /// Lets closing reset the connection instead of ending it in good order.
    pub(crate) fn reset_on_close(&self) {
        self.sink.socket().into_iter().for_each(Socket::reset_on_close);
    }

    /// Gives the client's address for a request: the connection's own, unless it came from somebody who is believed
    /// about another (`set_real_ip_from`).
    pub(crate) fn remote_of(&self, ex: &Exchange) -> Remote {
        ex.received.real_ip.unwrap_or(self.remote)
    }

    /// Lets small writes leave at once, from the moment on when there will be several. For callers in whose place
    /// `tcp_nodelay` is on.
    pub(crate) fn no_delay(&self) {
        if self.no_delay.replace(true) {
            return;
        }
        let Some(socket) = self.sink.socket() else { return };
        socket.set_nodelay();
        if self.remote.is_loopback() {
            socket::local_congestion_control(socket);
        }
    }

    /// Lets the response be the connection's last where the place's limits say so.
    pub(crate) fn limit_keep_alive(&self, worker: &Worker, ex: &mut Exchange, view: &View) {
        let core = &ex.place(view).scope.core;
        ex.sent.keep_alive = ex.sent.keep_alive
            && !self.is_last
            && self.requests < core.keepalive_requests
            && !core.keepalive_timeout.is_zero()
            && self.accepted.checked_add(core.keepalive_time).is_none_or(|end| worker.clock.now() < end)
            && !is_disabled(core.keepalive_disable, ex);
    }

    pub(crate) fn log_error(&self, worker: &Worker, ex: &Exchange, text: &str) {
        self.log(worker, ex, LogLevel::Error, text);
    }

    /// Writes an entry about a request to the error log of the place that it is in.
    pub(crate) fn log(&self, worker: &Worker, ex: &Exchange, level: LogLevel, text: &str) {
        let view = ex.view().unwrap_or(&self.view);
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
        if let Some(attempt) = ex.upstream.attempts.last() {
            line.extend_from_slice(b", upstream: \"http://");
            attempt.append_address(&mut line);
            line.extend_from_slice(&ex.routed.uri);
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
    fn log_before_request(&self, worker: &Worker, level: LogLevel, text: &str) {
        let snapshot = &self.view.snapshot;
        let place = snapshot.place(h1::default_server(self).root);
        let errors = place.error_logs.as_ref().unwrap_or(&snapshot.error_log);
        if !errors.is_enabled(level) {
            return;
        }
        let mut client = Vec::new();
        self.remote.append_address(&mut client);
        let client = String::from_utf8_lossy(&client);
        let text = format_args!("{text}, client: {client}, server: {}", self.listener);
        errors.write(&self.entry(worker, level, text));
    }

    fn entry<'a>(&self, worker: &Worker, level: LogLevel, text: std::fmt::Arguments<'a>) -> Entry<'a> {
        let connection = Some(self.number);
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

/// Why a task is done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    /// It is to close.
    Ended,
    /// It has idled for a while, and may be parked.
    Idle,
}

async fn serve(worker: &Rc<Worker>, client: &mut Client, rest: &Rest) -> Served {
    loop {
        if client.behind.is_empty()
            && let Some(served) = idle(worker, client, rest).await
        {
            return served;
        }
        if matches!(client.proxy_header.as_deref(), Some(ProxyHeader::Awaited)) {
            if !Box::pin(opening::read(worker, client, rest)).await {
                return Served::Ended;
            }
            continue;
        }
        // Boxed, so that an idle connection doesn't carry the room that a request needs.
        if !Box::pin(h1::serve_one(worker, client, rest)).await {
            return Served::Ended;
        }
    }
}

/// Waits for bytes without holding a buffer. `None` when some have come.
async fn idle(worker: &Rc<Worker>, client: &mut Client, rest: &Rest) -> Option<Served> {
    let served = poll_fn(|cx| {
        if let Poll::Ready(ready) = client.poll_read_ready(cx) {
            return Poll::Ready(ready.is_err().then_some(Served::Ended));
        }
        if rest.must_close() {
            return Poll::Ready(unless_begun(worker, client));
        }
        if rest.must_park() && worker.quitting().is_none() {
            return Poll::Ready(Some(Served::Idle));
        }
        let is_kept = client.kept_until.is_some_and(|until| worker.clock.now() < until);
        rest.begin(worker, if is_kept { Resting::Kept } else { Resting::Idle });
        if let Some(since) = worker.quitting() {
            let latest = (since + QUIT_IDLE).max(client.kept_until.unwrap_or(since));
            if client.timer.deadline().is_none_or(|deadline| deadline > latest) {
                client.timer.set_at(Some(latest));
            }
        }
        client.timer.poll_expired(&worker.clock, cx).map(|_| unless_begun(worker, client))
    })
    .await;
    rest.end(worker);
    client.is_last |= rest.was_closing(worker);
    served
}

/// Ends the connection unless a request has come that the event loop hasn't told of yet: that one is answered first.
fn unless_begun(worker: &Worker, client: &mut Client) -> Option<Served> {
    if client.peek() != Peeked::Bytes {
        return Some(Served::Ended);
    }
    let timeout = h1::default_server(client).client.header_timeout;
    client.timer.set(&worker.clock, timeout);
    None
}
