//! One request and its response: everything that phases, variables and logs want to know about it.
//!
//! Exchanges are reused: their tables keep their room, their buffers go back to the pool.

use std::{
    cell::{OnceCell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
    time::Instant,
};

use keel_http::{Lines, Message, Name, RequestHead, ResponseHead, Version, body::Decoder};
use keel_lb::PeerState;
use keel_model::VariableId;
use keel_regex::{Regex, TooManySteps};

use crate::{
    body::RequestBodyStore,
    filter::Uid,
    limits::Entered,
    snapshot::{Place, PlaceId, Server, Snapshot},
    transform::GzipRatio,
    upstream::Rest,
    worker::View,
};

/// One request and its response.
#[derive(Default)]
pub(crate) struct Exchange {
    pub(crate) received: Received,
    pub(crate) routed: Routed,
    pub(crate) sent: SentResponse,
    pub(crate) upstream: UpstreamSide,
}

/// What has come of a body and hasn't been used.
struct Ahead {
    payload: bool,
    all: bool,
}

/// The request as it came.
#[derive(Default)]
pub(crate) struct Received {
    pub(crate) head: RequestHead,
    /// The bytes that `head` points into, and what came behind it.
    pub(crate) input: Vec<u8>,
    /// Where the body begins in `input`.
    pub(crate) head_end: usize,
    /// How far `input` has been used.
    pub(crate) consumed: usize,
    /// The client's address as somebody who is believed tells it, if it isn't the connection's own.
    pub(crate) real_ip: Option<Remote>,
    /// `$host`: in lower case, without port.
    pub(crate) host: Vec<u8>,
    pub(crate) host_port: Option<u16>,
    pub(crate) started: Option<Instant>,
    pub(crate) request_id: [u64; 2],
    pub(crate) body: RequestBodyStore,
    /// Bytes of the body read so far, framing included.
    pub(crate) body_bytes_read: u64,
    /// What is left of the body to read.
    pub(crate) body_left: Decoder,
    /// Whether the client has been told to go on, or needn't be (`Expect: 100-continue`).
    pub(crate) expect_settled: bool,
    /// Whether the body can't be had whole any more: a part of it has gone to a peer, or it was refused. Requests to
    /// peers have no body from then on.
    pub(crate) body_is_lost: bool,
}

/// The request as it stands after redirects, and where it goes.
#[derive(Default)]
pub(crate) struct Routed {
    /// The configuration that it began with.
    view: Option<Rc<View>>,
    server: usize,
    pub(crate) place: Option<PlaceId>,
    pub(crate) method: Method,
    /// Whether the request is answered as GET whatever its method (`error_page`, `X-Accel-Redirect`).
    pub(crate) as_get: bool,
    pub(crate) uri: Vec<u8>,
    pub(crate) args: Vec<u8>,
    /// Whether `$request_uri` still says where the request goes.
    pub(crate) raw_uri_valid: bool,
    /// Whether the location stays though the URI has been rewritten: nothing stands for its prefix any more.
    pub(crate) prefix_is_gone: bool,
    /// Whether the URI is appended to an `alias` of a location with a regular expression: `try_files` put it there.
    pub(crate) uri_below_alias: bool,
    pub(crate) internal: bool,
    /// How many requests wait for this one, each for the next: 0 for a client's.
    pub(crate) depth: u32,
    pub(crate) wanted: Wanted,
    /// What `auth_request` was answered.
    pub(crate) authorisation: Option<Authorisation>,
    /// What `limit_req` and `limit_conn` did, once the request has been counted.
    pub(crate) limit_req: Option<LimitReqStatus>,
    pub(crate) limit_conn: Option<LimitConnStatus>,
    /// Where it is counted until it has been answered.
    pub(crate) entered: Vec<Entered>,
    pub(crate) redirects: u32,
    /// Whether this is the page for an error already.
    pub(crate) error_page: bool,
    /// Whether the expression of a server's name took too many steps: the request ends with 500.
    pub(crate) host_unmatched: bool,
    pub(crate) captures: Captures,
    /// Values of variables that the configuration defines.
    pub(crate) slots: Slots,
    /// The cookie that tells clients apart, once somebody has asked for it.
    pub(crate) uid: OnceCell<Box<Uid>>,
}

/// The response: what it is made with, and what has been sent of it.
#[derive(Default)]
pub(crate) struct SentResponse {
    pub(crate) status: u16,
    /// The status that an error page is sent with, whatever its own.
    pub(crate) forced_status: Option<u16>,
    /// Field lines for the next response that the proxy makes.
    pub(crate) carried: Lines,
    /// The type of the next file that is sent, whatever its name says.
    pub(crate) content_type: Option<Vec<u8>>,
    /// `Location` of a redirect that an error page took the place of, unless that has one of its own.
    pub(crate) location: Option<Vec<u8>>,
    /// Whether a response couldn't be written as configured: the one in its place has no fields of the configuration.
    pub(crate) plain_fields: bool,
    /// `Retry-After` of a response that the proxy makes.
    pub(crate) retry_after: Option<&'static [u8]>,
    /// The head as it was sent.
    pub(crate) head: Vec<u8>,
    /// Whether a byte of the response has been sent.
    pub(crate) begun: bool,
    pub(crate) bytes: u64,
    pub(crate) body_bytes: u64,
    pub(crate) trailers: Lines,
    pub(crate) complete: bool,
    pub(crate) keep_alive: bool,
    /// The request's body was not read to its end; the connection closes after it, with patience.
    pub(crate) linger: bool,
    /// What few responses have.
    seldom: Option<Box<Seldom>>,
}

/// What few responses have.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    gzip_ratio: Option<GzipRatio>,
    /// How many bytes a second are sent, if the place doesn't say it; 0 for as many as can be.
    limit_rate: Option<u64>,
    /// The charset of the answer that this one becomes a part of.
    outer_charset: Option<Vec<u8>>,
}

impl SentResponse {
    /// Notes how many bytes a second are sent, whatever the place says.
    pub(crate) fn note_limit_rate(&mut self, rate: u64) {
        self.seldom.get_or_insert_default().limit_rate = Some(rate);
    }

    /// How many bytes a second are sent, if the place doesn't say it.
    pub(crate) fn limit_rate(&self) -> Option<u64> {
        self.seldom.as_ref()?.limit_rate
    }

    /// Notes the charset of the answer that this one becomes a part of.
    pub(crate) fn note_outer_charset(&mut self, charset: Option<Vec<u8>>) {
        if charset.is_some() {
            self.seldom.get_or_insert_default().outer_charset = charset;
        }
    }

    /// The charset of the answer that this one becomes a part of.
    pub(crate) fn outer_charset(&self) -> Option<&[u8]> {
        self.seldom.as_ref()?.outer_charset.as_deref()
    }

    /// Notes what compressing the body came to, where it was.
    pub(crate) fn note_gzip(&mut self, ratio: Option<GzipRatio>) {
        if ratio.is_some() {
            self.seldom.get_or_insert_default().gzip_ratio = ratio;
        }
    }

    /// What compressing the body came to, where it was.
    pub(crate) fn gzip_ratio(&self) -> Option<GzipRatio> {
        self.seldom.as_ref()?.gzip_ratio
    }
}

/// What a request knows of the peers it was sent to.
#[derive(Default)]
pub(crate) struct UpstreamSide {
    pub(crate) attempts: Vec<AttemptRecord>,
    pub(crate) tried: Vec<Arc<PeerState>>,
    pub(crate) head: ResponseHead,
    /// The bytes that `head` points into, and what of the body came with it.
    pub(crate) input: Vec<u8>,
    pub(crate) body_start: usize,
    pub(crate) has_head: bool,
    /// The request as it is sent, as far as its body goes with the head.
    pub(crate) request: Message,
    /// The method of that, whatever the client sent (`proxy_method`): it says whether a body follows the response's head,
    /// and whether it may be sent twice.
    pub(crate) method: Method,
    /// What of the request is to be sent behind that.
    pub(crate) rest: Rest,
    /// The trailers that came.
    pub(crate) trailers: Vec<u8>,
}

/// What `limit_req` did with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitReqStatus {
    Passed,
    Delayed,
    Rejected,
    DelayedDryRun,
    RejectedDryRun,
}

/// What `limit_conn` did with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitConnStatus {
    Passed,
    Rejected,
    RejectedDryRun,
}

/// What of its answer somebody wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wanted {
    #[default]
    Whole,
    /// The head, at once: a body that hasn't come by then is not waited for.
    Head,
    /// Nothing; but the exchange is to end in good order.
    Nothing,
}

/// What the location of `auth_request` answered.
#[derive(Debug)]
pub(crate) struct Authorisation {
    pub(crate) status: u16,
    /// Its lines of `WWW-Authenticate`.
    pub(crate) challenges: Lines,
}

/// One attempt, as `$upstream_*` tell of it.
#[derive(Clone, Debug)]
pub(crate) struct AttemptRecord {
    /// The peer, or the upstream's name where there was none to go to.
    pub(crate) peer: Result<Arc<PeerState>, Box<str>>,
    pub(crate) status: u16,
    pub(crate) began: Instant,
    pub(crate) connected: Option<Instant>,
    pub(crate) headed: Option<Instant>,
    pub(crate) ended: Option<Instant>,
    pub(crate) response_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    /// Whether an internal redirect led to another location before this one.
    pub(crate) after_redirect: bool,
}

impl AttemptRecord {
    /// Gives the time from the attempt's begin to one of its moments.
    pub(crate) fn took(&self, moment: Option<Instant>) -> Option<Duration> {
        Some(moment?.saturating_duration_since(self.began))
    }

    /// Appends the peer's address, as `$upstream_addr`.
    pub(crate) fn append_address(&self, out: &mut Vec<u8>) -> bool {
        use std::io::Write;
        match &self.peer {
            Ok(peer) => write!(out, "{}", peer.key().address).is_ok(),
            Err(name) => {
                out.extend_from_slice(name.as_bytes());
                true
            }
        }
    }
}

/// The request's method, as far as the proxy makes a difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Method {
    #[default]
    Get,
    Head,
    /// Not idempotent for nginx: POST, LOCK and PATCH.
    Unsafe,
    Post,
    Other,
}

impl Method {
    pub(crate) fn of(method: &[u8]) -> Self {
        match method {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"LOCK" | b"PATCH" => Method::Unsafe,
            _ => Method::Other,
        }
    }

    /// Says whether the request may be sent twice (RFC 9110 §9.2.2, with nginx's list).
    pub(crate) fn is_idempotent(self) -> bool {
        !matches!(self, Method::Post | Method::Unsafe)
    }
}

/// Groups of the expression that matched last. Reading a variable may match one (`map`).
#[derive(Default)]
pub(crate) struct Captures(RefCell<Groups>);

#[derive(Default)]
struct Groups {
    subject: Vec<u8>,
    ranges: Vec<Option<(usize, usize)>>,
}

impl Captures {
    /// Keeps the groups of an expression that matches, or of which nobody knows: that is an error.
    fn take<'a>(
        &self,
        regex: &'a Regex,
        subject: &'a [u8],
    ) -> Result<keel_regex::Captures<'a>, TooManySteps> {
        let found = regex.captures(subject)?.ok_or(TooManySteps)?;
        let mut groups = self.0.borrow_mut();
        groups.ranges.clear();
        groups.ranges.extend_from_slice(found.ranges());
        groups.subject.clear();
        groups.subject.extend_from_slice(subject);
        drop(groups);
        Ok(found)
    }

    /// Appends `$1` to `$9`; false where there is none.
    pub(crate) fn append(&self, number: u8, out: &mut Vec<u8>) -> bool {
        let groups = self.0.borrow();
        let range = groups.ranges.get(usize::from(number)).copied().flatten();
        let group = range.and_then(|(start, end)| groups.subject.get(start..end));
        out.extend_from_slice(group.unwrap_or_default());
        group.is_some()
    }

    pub(crate) fn clear(&self) {
        self.0.borrow_mut().ranges.clear();
    }
}

/// The values of variables that the configuration defines, each in its slot once it is known. There are as many slots
/// as the configuration has variables, at most.
#[derive(Default)]
pub(crate) struct Slots(RefCell<Vec<Option<Rc<[u8]>>>>);

impl Slots {
    /// Gives a value, if it is known.
    pub(crate) fn get(&self, id: VariableId) -> Option<Rc<[u8]>> {
        self.0.borrow().get(id.0 as usize).cloned().flatten()
    }

    /// Keeps a value until it is set again or the request ends.
    pub(crate) fn set(&self, id: VariableId, value: &[u8]) {
        let (mut slots, at) = (self.0.borrow_mut(), id.0 as usize);
        if slots.len() <= at {
            slots.resize(at + 1, None);
        }
        if let Some(slot) = slots.get_mut(at) {
            *slot = Some(value.into());
        }
    }

    /// Takes over what was written in another request of the same configuration. What is worked out may differ here.
    fn take_written(&mut self, outer: &Routed) {
        let Some(view) = &outer.view else { return };
        for (id, value) in (0..).map(VariableId).zip(outer.slots.0.borrow().iter()) {
            let is_written =
                view.snapshot.variables.get(id).is_some_and(|variable| variable.source.is_written());
            if let Some(value) = value.as_ref().filter(|_| is_written) {
                self.set(id, value);
            }
        }
    }

    fn clear(&mut self) {
        self.0.get_mut().clear();
    }
}

impl Received {
    /// The bytes of the request that have come, as `$request_length`.
    pub(crate) fn bytes(&self) -> u64 {
        self.head_end as u64 + self.body_bytes_read
    }

    /// Whether payload of the body has come that hasn't been used.
    pub(crate) fn has_body_at_hand(&self) -> bool {
        self.look_ahead().payload
    }

    /// Whether the rest of the body has come: there is nothing to wait for.
    pub(crate) fn has_all_of_body(&self) -> bool {
        self.look_ahead().all
    }

    /// Looks at what has come of the body and hasn't been used.
    fn look_ahead(&self) -> Ahead {
        let mut left = self.body_left.clone();
        let mut rest = self.input.get(self.consumed..).unwrap_or_default();
        let mut payload = false;
        while !left.is_done() {
            let Ok(step) = left.decode(rest) else { break };
            payload |= !step.payload.is_empty();
            if step.consumed == 0 {
                break;
            }
            rest = rest.get(step.consumed..).unwrap_or_default();
        }
        Ahead { payload, all: left.is_done() }
    }

    /// Forgets the request. Bytes that belong to the next one stay at the beginning of `input`.
    fn clear(&mut self) {
        let Self {
            head,
            input,
            head_end,
            consumed,
            real_ip,
            host,
            host_port,
            started,
            request_id,
            body,
            body_bytes_read,
            body_left,
            expect_settled,
            body_is_lost,
        } = self;
        head.clear();
        input.drain(..(*consumed).min(input.len()));
        (*head_end, *consumed) = (0, 0);
        *real_ip = None;
        host.clear();
        *host_port = None;
        *started = None;
        *request_id = [0; 2];
        *body = RequestBodyStore::None;
        *body_bytes_read = 0;
        *body_left = Decoder::Done;
        (*expect_settled, *body_is_lost) = (false, false);
    }
}

impl Routed {
    fn clear(&mut self) {
        let Self {
            view,
            server,
            place,
            method,
            as_get,
            uri,
            args,
            raw_uri_valid,
            prefix_is_gone,
            uri_below_alias,
            internal,
            depth,
            wanted,
            authorisation,
            limit_req,
            limit_conn,
            entered,
            redirects,
            error_page,
            host_unmatched,
            captures,
            slots,
            uid,
        } = self;
        *view = None;
        *server = 0;
        *place = None;
        *method = Method::Get;
        *as_get = false;
        uri.clear();
        args.clear();
        (*raw_uri_valid, *prefix_is_gone, *uri_below_alias, *internal) = (false, false, false, false);
        *depth = 0;
        *wanted = Wanted::Whole;
        *authorisation = None;
        (*limit_req, *limit_conn) = (None, None);
        entered.clear();
        *redirects = 0;
        (*error_page, *host_unmatched) = (false, false);
        captures.clear();
        slots.clear();
        drop(uid.take());
    }
}

impl Routed {
    /// Takes over the variables that were written in another request of the same configuration.
    pub(crate) fn take_written(&mut self, other: &Self) {
        self.slots.take_written(other);
    }
}

impl SentResponse {
    fn clear(&mut self) {
        let Self {
            status,
            forced_status,
            carried,
            content_type,
            location,
            plain_fields,
            retry_after,
            head,
            begun,
            bytes,
            body_bytes,
            trailers,
            complete,
            keep_alive,
            linger,
            seldom,
        } = self;
        *status = 0;
        *forced_status = None;
        carried.clear();
        (*content_type, *location) = (None, None);
        *plain_fields = false;
        *retry_after = None;
        head.clear();
        *begun = false;
        (*bytes, *body_bytes) = (0, 0);
        trailers.clear();
        (*complete, *keep_alive, *linger) = (false, false, false);
        *seldom = None;
    }
}

impl UpstreamSide {
    fn clear(&mut self) {
        let Self { attempts, tried, head, input, body_start, has_head, request, method, rest, trailers } =
            self;
        attempts.clear();
        tried.clear();
        head.clear_at(0);
        input.clear();
        *body_start = 0;
        *has_head = false;
        request.clear();
        *method = Method::Get;
        *rest = Rest::Nothing;
        trailers.clear();
    }
}

impl Exchange {
    /// Makes it ready for a request under this configuration.
    pub(crate) fn begin(&mut self, view: Rc<View>, server: usize) {
        self.routed.server = server;
        self.routed.place = view.snapshot.servers.get(server).map(|server| server.root);
        self.routed.view = Some(view);
    }

    /// Makes it ready for a request to a path within the same server, made by another: a GET with the other's fields and
    /// without its body.
    pub(crate) fn begin_within(&mut self, outer: &Self, path: &[u8], now: Instant) {
        let Self { received, routed, sent, upstream: _ } = self;
        let came = &outer.received;
        received.head.clone_from(&came.head);
        received.input.clear();
        received.input.extend_from_slice(came.input.get(..came.head_end).unwrap_or_default());
        received.head_end = received.input.len();
        received.consumed = received.head_end;
        received.real_ip = came.real_ip;
        received.host.clone_from(&came.host);
        received.host_port = came.host_port;
        received.started = Some(now);
        received.request_id = came.request_id;
        received.expect_settled = true;
        routed.view.clone_from(&outer.routed.view);
        routed.server = outer.routed.server;
        routed.place = None;
        routed.uri.clear();
        routed.uri.extend_from_slice(path);
        routed.internal = true;
        routed.depth = outer.routed.depth + 1;
        routed.as_get = true;
        (routed.limit_req, routed.limit_conn) = (outer.routed.limit_req, outer.routed.limit_conn);
        routed.slots.take_written(&outer.routed);
        sent.keep_alive = outer.sent.keep_alive;
    }

    /// Forgets the request, and keeps the room that it took. Bytes that belong to the next one stay at the beginning of
    /// `received.input`.
    pub(crate) fn reset(&mut self) {
        let Self { received, routed, sent, upstream } = self;
        received.clear();
        routed.clear();
        sent.clear();
        upstream.clear();
    }

    /// Keeps the groups of an expression that matches `subject`: the numbered ones, and the named ones in the slots of
    /// their variables.
    ///
    /// # Errors
    /// When it takes too many steps, so that nobody knows.
    pub(crate) fn take_groups(
        &self,
        snapshot: &Snapshot,
        regex: &Regex,
        subject: &[u8],
    ) -> Result<(), TooManySteps> {
        let found = self.routed.captures.take(regex, subject)?;
        for (name, group) in found.all_named() {
            for slot in snapshot.variables.slots(name) {
                self.routed.slots.set(*slot, group);
            }
        }
        Ok(())
    }

    /// Gives half of `$request_id`.
    pub(crate) fn request_id_half(&self, at: usize) -> u64 {
        self.received.request_id.get(at).copied().unwrap_or(0)
    }

    /// Gives the configuration that the request began with.
    pub(crate) fn view(&self) -> Option<&Rc<View>> {
        self.routed.view.as_ref()
    }

    /// Gives the place that the request is in now.
    pub(crate) fn place<'a>(&self, view: &'a View) -> &'a Place {
        let root = view.snapshot.servers[self.routed.server].root;
        view.snapshot.place(self.routed.place.unwrap_or(root))
    }

    /// Gives the virtual server.
    pub(crate) fn server<'a>(&self, view: &'a View) -> &'a Server {
        &view.snapshot.servers[self.routed.server]
    }

    /// Gives the value of the first request field of a known name.
    pub(crate) fn field(&self, name: Name) -> Option<&[u8]> {
        self.received.head.fields.first(name).map(|field| field.value.of(&self.received.input))
    }

    /// Says whether the response carries no body because of the request.
    pub(crate) fn is_head(&self) -> bool {
        self.routed.method == Method::Head
    }

    /// The response's status; before there is one, the status that an error page is to be sent with, or 0.
    pub(crate) fn status(&self) -> u16 {
        match self.sent.status {
            0 => self.sent.forced_status.unwrap_or(0),
            status => status,
        }
    }

    /// Whether it may be sent twice: the client's request and what was made of it for the peer.
    pub(crate) fn may_repeat(&self) -> bool {
        self.routed.method.is_idempotent() && self.upstream.method.is_idempotent()
    }

    /// Says whether the client speaks HTTP/1.1 or more, and so understands bodies in pieces with trailers behind them.
    pub(crate) fn is_http11(&self) -> bool {
        self.received.head.version != Version::Http10
    }

    /// Says whether the request came on a stream of HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.received.head.version == Version::Http2
    }
}

/// Who is on the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Remote {
    Tcp(SocketAddr),
    Unix,
}

impl Remote {
    /// Says whether the client is on this machine and came by TCP.
    pub(crate) fn is_loopback(&self) -> bool {
        matches!(self, Remote::Tcp(address) if address.ip().to_canonical().is_loopback())
    }

    /// Appends the address without port, as `$remote_addr`.
    pub(crate) fn append_address(&self, out: &mut Vec<u8>) {
        use std::io::Write;
        let written = match self {
            Remote::Tcp(address) => write!(out, "{}", address.ip()),
            Remote::Unix => write!(out, "unix:"),
        };
        debug_assert!(written.is_ok(), "writing to memory doesn't fail");
    }

    /// Gives the address as octets.
    pub(crate) fn octets(&self) -> smallvec::SmallVec<[u8; 16]> {
        match self {
            Remote::Tcp(SocketAddr::V4(address)) => smallvec::SmallVec::from_slice(&address.ip().octets()),
            Remote::Tcp(SocketAddr::V6(address)) => smallvec::SmallVec::from_slice(&address.ip().octets()),
            Remote::Unix => smallvec::SmallVec::new(),
        }
    }
}
