//! The values of variables, looked up when something reads them.

use std::{io::Write, net::IpAddr, rc::Rc, time::Duration};

use keel_http::{Lines, Name, Version, proxy_header::Addresses};
use keel_model::{LogLevel, Part, ProxyTlv, SizeValue, Template, Variable, VariableId};
use keel_regex::{Captures, TooManySteps};

use crate::{
    answer::Answer,
    browser::Browser,
    client::Client,
    credentials::Credentials,
    exchange::{AttemptRecord, Exchange, Remote},
    filter::Uid,
    phase::{limit_conn, limit_req, realip, stub_status::Connections},
    preface::ProxyHeader,
    secure_link::{self, Link, Scheme},
    send,
    snapshot::{self, CompiledGeo, CompiledMap, HttpProgram, LookedUp, Route, Source},
    ssl_variables,
    transform::GzipRatio,
    worker::{View, Worker},
};

/// How deep maps may refer to each other.
const MAP_DEPTH_MAX: u32 = 16;

/// What variables are looked up in.
#[derive(Clone, Copy)]
pub(crate) struct Lookup<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) client: &'a Client,
    pub(crate) ex: &'a Exchange,
    pub(crate) view: &'a Rc<View>,
    /// The answer that is being made ready, before its head is written.
    pub(crate) answer: Option<&'a Answer>,
    /// The trailers that are being made ready, as far as they are.
    pub(crate) trailers: Option<&'a Lines>,
}

impl<'a> Lookup<'a> {
    /// The cookie that tells clients apart. It stays the same once it has been asked for.
    pub(crate) fn uid(self) -> &'a Uid {
        self.ex.routed.uid.get_or_init(|| Box::new(Uid::of(self)))
    }
}

impl Lookup<'_> {
    /// Appends a template's text.
    pub(crate) fn append_template(&self, template: &Template, out: &mut Vec<u8>) {
        self.template(template, out, 0);
    }

    /// Evaluates a size in bytes; what is none is 0, and logged.
    pub(crate) fn size(&self, size: &SizeValue) -> u64 {
        let template = match size {
            SizeValue::Fixed(size) => return size.0,
            SizeValue::Evaluated(template) => template,
        };
        let text = self.text(template);
        match parse_size(&text) {
            Some(size) => size,
            None if text.is_empty() => 0,
            None => {
                let text = format!("invalid size \"{}\"", String::from_utf8_lossy(&text));
                self.client.log_error(self.worker, self.ex, &text);
                0
            }
        }
    }

    /// Evaluates a template.
    pub(crate) fn text(&self, template: &Template) -> Vec<u8> {
        let mut out = Vec::new();
        self.template(template, &mut out, 0);
        out
    }

    /// Appends a variable's value; false where it has none.
    pub(crate) fn append(&self, variable: &Variable, out: &mut Vec<u8>) -> bool {
        self.variable(variable, out, 0)
    }

    fn template(&self, template: &Template, out: &mut Vec<u8>, depth: u32) {
        for part in &template.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Variable(variable) => {
                    self.variable(variable, out, depth);
                }
            }
        }
    }

    /// Appends a variable's value. Every variable has its line here: one that is forgotten doesn't compile.
    fn variable(&self, variable: &Variable, out: &mut Vec<u8>, depth: u32) -> bool {
        let (ex, client, clock) = (self.ex, self.client, &self.worker.clock);
        match variable {
            // The request.
            Variable::Request => put_some(out, ex.received.head.line.of(&ex.received.input)),
            // Of a client's request that a redirect has made a GET.
            Variable::RequestMethod if ex.routed.as_get && ex.routed.depth == 0 => put_some(out, b"GET"),
            Variable::RequestMethod => put_some(out, ex.received.head.method.of(&ex.received.input)),
            Variable::RequestUri => put_some(out, ex.received.head.target.raw.of(&ex.received.input)),
            Variable::Uri => put(out, Some(&ex.routed.uri)),
            Variable::Args => put_some(out, &ex.routed.args),
            Variable::IsArgs => put(out, Some(if ex.routed.args.is_empty() { b"" } else { b"?" })),
            Variable::Arg(name) => put(out, argument(&ex.routed.args, name.as_bytes())),
            Variable::Scheme => {
                put(out, Some(if client.connection.tls().is_some() { b"https" } else { b"http" }))
            }
            Variable::Https => put(out, Some(if client.connection.tls().is_some() { b"on" } else { b"" })),
            Variable::Ssl(variable) => client
                .connection
                .tls()
                .is_some_and(|facts| ssl_variables::append(*variable, facts, clock.unix(), out)),
            Variable::Host if !ex.received.host.is_empty() => put(out, Some(&ex.received.host)),
            Variable::Host | Variable::ServerName => put(out, Some(ex.server(self.view).name.as_bytes())),
            Variable::ServerProtocol => put_some(out, self.protocol()),
            Variable::Http2 if !ex.is_http2() => false,
            Variable::Http2 if self.client.connection.has_chosen_http2() => put(out, Some(b"h2")),
            Variable::Http2 => put(out, Some(b"h2c")),
            Variable::RemoteUser => put(out, self.credentials().as_ref().map(Credentials::user)),
            Variable::RequestId => self.request_id(out),
            Variable::RequestTime => self.request_time(out),
            Variable::RequestLength => number(out, ex.received.bytes()),
            Variable::RequestBody => self.request_body(out),
            Variable::RequestBodyFile => false,
            Variable::RequestCompletion => put(out, Some(if ex.sent.complete { b"OK" } else { b"" })),
            Variable::RequestFilename => put(out, Some(&crate::phase::files::file_name(*self))),
            Variable::RequestPort => ex.received.host_port.is_some_and(|port| number(out, u64::from(port))),
            Variable::IsRequestPort => {
                put(out, Some(if ex.received.host_port.is_some() { b":" } else { b"" }))
            }
            Variable::DocumentRoot => put(out, Some(&crate::phase::files::root_of(*self))),
            Variable::RealpathRoot => self.realpath_root(out),
            Variable::ContentLength => match (ex.field(Name::ContentLength), ex.received.body.length()) {
                (None, Some(length)) => number(out, length),
                (field, _) => put(out, field),
            },
            Variable::ContentType => self.request_header("content_type", out),
            Variable::Msie => put(out, Some(if self.is_msie() { b"1" } else { b"" })),
            Variable::RequestHeader(name) => self.request_header(name, out),
            Variable::Cookie(name) => self.cookie(name, out),
            // The response.
            Variable::Status => write!(out, "{:03}", ex.status()).is_ok(),
            Variable::BytesSent => number(out, ex.sent.bytes),
            Variable::BodyBytesSent => number(out, ex.sent.body_bytes),
            Variable::UidGot => self.uid().append_got(&ex.place(self.view).scope.userid.name, out),
            Variable::UidSet => self.uid().append_set(&ex.place(self.view).scope.userid.name, out),
            Variable::GzipRatio => ex.sent.gzip_ratio().is_some_and(|ratio| put_ratio(ratio, out)),
            Variable::SentHeader(name) => self.sent_header(name, out),
            Variable::SentTrailer(name) => {
                joined(out, lines(self.trailers.unwrap_or(&ex.sent.trailers).as_bytes()), name)
            }
            // The connection and the process.
            Variable::RemoteAddr => self.remote_addr(out),
            Variable::RemotePort => self.remote_port(out),
            Variable::BinaryRemoteAddr => self.binary_remote_addr(out),
            Variable::RealipRemoteAddr => {
                client.connection.remote.append_address(out);
                true
            }
            Variable::RealipRemotePort => port_of(out, client.connection.remote),
            Variable::ProxyProtocolAddr => self.proxy_header(|both| show(out, both.client.ip())),
            Variable::ProxyProtocolPort => self.proxy_header(|both| number(out, both.client.port().into())),
            Variable::ProxyProtocolServerAddr => self.proxy_header(|both| show(out, both.server.ip())),
            Variable::ProxyProtocolServerPort => {
                self.proxy_header(|both| number(out, both.server.port().into()))
            }
            Variable::ProxyProtocolTlv(tlv) => self.proxy_tlv(*tlv, out),
            Variable::ServerAddr => self.server_addr(out),
            Variable::ServerPort => self.server_port(out),
            Variable::Connection => number(out, client.connection.number),
            Variable::ConnectionRequests => number(out, client.connection.requests),
            Variable::ConnectionTime => {
                seconds(out, clock.now().saturating_duration_since(client.connection.accepted))
            }
            Variable::Msec => seconds(out, clock.unix()),
            Variable::TimeLocal => self.time_local(out),
            Variable::TimeIso8601 => self.time_iso8601(out),
            Variable::Pid => number(out, u64::from(std::process::id())),
            Variable::Pipe => put(out, Some(if client.pipelined { b"p" } else { b"." })),
            Variable::Hostname => put(out, Some(self.worker.hostname.as_bytes())),
            Variable::NginxVersion => put(out, Some(send::NGINX_VERSION.as_bytes())),
            Variable::InvalidReferer => put(out, Some(if self.is_referer_valid() { b"" } else { b"1" })),
            Variable::SecureLink => self.secure_link(out, depth),
            Variable::SecureLinkExpires => self.secure_link_expires(out, depth),
            Variable::LimitReqStatus => put(out, ex.routed.limit_req.map(limit_req::status_text)),
            Variable::LimitConnStatus => put(out, ex.routed.limit_conn.map(limit_conn::status_text)),
            Variable::LimitRate => number(out, ex.sent.limit_rate().unwrap_or(0)),
            Variable::ConnectionsActive => number(out, self.connections().active),
            Variable::ConnectionsReading => number(out, self.connections().reading),
            Variable::ConnectionsWriting => number(out, self.connections().writing),
            Variable::ConnectionsWaiting => number(out, self.connections().waiting),
            Variable::TcpinfoRtt => self.tcp_info(out, |info| micros(info.rtt)),
            Variable::TcpinfoRttvar => self.tcp_info(out, |info| micros(info.rttvar)),
            Variable::TcpinfoSndCwnd => self.tcp_info(out, |info| info.snd_cwnd.into()),
            Variable::TcpinfoRcvSpace => self.tcp_info(out, |info| info.rcv_space.into()),
            // The upstream side.
            Variable::ProxyHost => self.proxy_host(out),
            Variable::ProxyPort => self.proxy_port(out),
            Variable::ProxyAddXForwardedFor => self.add_x_forwarded_for(out),
            Variable::UpstreamAddr => self.attempts(out, |attempt, out| attempt.append_address(out)),
            Variable::FastCgiScriptName => self.script_name(out),
            Variable::FastCgiPathInfo => self.path_info(out),
            Variable::UpstreamInstance => self.attempts(out, upstream_instance),
            Variable::UpstreamStatus => self.attempts(out, upstream_status),
            Variable::UpstreamConnectTime => {
                self.attempts(out, |at, out| optional(out, at.took(at.connected)))
            }
            Variable::UpstreamHeaderTime => self.attempts(out, |at, out| optional(out, at.took(at.headed))),
            Variable::UpstreamResponseTime => self.attempts(out, |at, out| optional(out, at.took(at.ended))),
            Variable::UpstreamResponseLength => self.attempts(out, |at, out| number(out, at.response_bytes)),
            Variable::UpstreamBytesReceived => self.attempts(out, |at, out| number(out, at.received_bytes)),
            Variable::UpstreamBytesSent => self.attempts(out, |at, out| number(out, at.sent_bytes)),
            Variable::UpstreamHeader(name) => self.upstream_header(name, out),
            Variable::UpstreamTrailer(name) => joined(out, lines(&ex.upstream.trailers), name),
            Variable::UpstreamCookie(name) => self.upstream_cookie(name, out),
            // Of the configuration.
            Variable::Defined(id) => self.defined(*id, out, depth),
            Variable::Capture(number) => *number != 0 && ex.routed.captures.append(*number, out),
        }
    }

    /// A variable that the configuration defines: what its slot holds, or else what works it out, once.
    fn defined(&self, id: VariableId, out: &mut Vec<u8>, depth: u32) -> bool {
        let Some(variable) = self.view.snapshot.variables.get(id) else { return false };
        let slots = &self.ex.routed.slots;
        let is_volatile = variable.source.is_volatile();
        if let Some(known) = slots.get(id).filter(|_| !is_volatile) {
            out.extend_from_slice(&known);
            return true;
        }
        let start = out.len();
        match &variable.source {
            Source::Written => return false,
            Source::Builtin(builtin) => return self.variable(builtin, out, depth),
            Source::Set => self.warn_uninitialised(&variable.name),
            _ if depth >= MAP_DEPTH_MAX => return false,
            Source::Map(map) => self.map(map, out, depth),
            Source::Geo(geo) => out.extend_from_slice(self.geo(geo, depth)),
            Source::SplitClients(parts) => {
                let mut key = Vec::new();
                self.template(&parts.key, &mut key, depth + 1);
                out.extend_from_slice(snapshot::split(parts, &key));
            }
        }
        if !is_volatile {
            slots.set(id, out.get(start..).unwrap_or_default());
        }
        true
    }

    fn connections(&self) -> Connections {
        Connections::of(&self.worker.all_counters.totals())
    }

    fn warn_uninitialised(&self, name: &str) {
        if self.ex.place(self.view).scope.rewrite.uninitialized_variable_warn {
            let text = format!("using uninitialized \"{name}\" variable");
            self.client.log(self.worker, self.ex, LogLevel::Warn, &text);
        }
    }

    /// Appends a map's result. Its expressions leave their groups behind, as all others do.
    fn map(&self, map: &CompiledMap, out: &mut Vec<u8>, depth: u32) {
        let mut value = Vec::new();
        self.template(&map.source, &mut value, depth + 1);
        let result = match map.look_up(&value) {
            LookedUp::Found(result) => Ok(result),
            LookedUp::Matched(result, regex) => {
                let taken = self.ex.take_groups(&self.view.snapshot, regex, &value);
                taken.map(|()| result).map_err(|TooManySteps| (map.default(), regex))
            }
            LookedUp::GivenUp(default, regex) => Err((default, regex)),
        };
        let result = result.unwrap_or_else(|(default, regex)| {
            let text = format!("{TooManySteps}: \"{}\" of map", regex.source());
            self.client.log_error(self.worker, self.ex, &text);
            default
        });
        self.template(result, out, depth + 1);
    }

    /// Finds the value of `geo` for the client's address, or for the one that a variable holds.
    fn geo<'g>(&self, geo: &'g CompiledGeo, depth: u32) -> &'g [u8] {
        let own = match &geo.address {
            None => Some(self.client.remote_of(self.ex)),
            Some(variable) => {
                let mut text = Vec::new();
                self.variable(variable, &mut text, depth + 1);
                let address = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
                address.map(|address: IpAddr| Remote::Tcp((address, 0).into()))
            }
        };
        let told = own.filter(|_| !geo.proxies.from.is_empty()).and_then(|own| {
            let fields = self.ex.received.head.fields.all(Name::XForwardedFor);
            let lists = fields.map(|field| field.value.of(&self.ex.received.input));
            realip::forwarded(&geo.proxies, own, lists.collect())
        });
        geo.look_up(match told.or(own) {
            Some(Remote::Tcp(address)) => Some(address.ip()),
            Some(Remote::Unix) | None => None,
        })
    }

    /// Evaluates a template in which captures are those of an expression of its own.
    pub(crate) fn append_with_groups(&self, template: &Template, found: &Captures<'_>, out: &mut Vec<u8>) {
        self.with_groups(template, found, out, 0);
    }

    fn with_groups(&self, template: &Template, found: &Captures<'_>, out: &mut Vec<u8>, depth: u32) {
        for part in &template.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Variable(Variable::Capture(number)) => {
                    let group = found.get(usize::from(*number));
                    out.extend_from_slice(group.unwrap_or_default());
                }
                Part::Variable(variable) => match self.own_group(variable, found) {
                    Some(group) => out.extend_from_slice(group),
                    None => {
                        self.variable(variable, out, depth);
                    }
                },
            }
        }
    }

    /// Gives what an expression of its own has for a variable that only groups give a value.
    fn own_group<'a>(&self, variable: &Variable, found: &Captures<'a>) -> Option<&'a [u8]> {
        let Variable::Defined(id) = variable else { return None };
        let variable =
            self.view.snapshot.variables.get(*id).filter(|variable| variable.source.is_written())?;
        found.name(&variable.name)
    }

    fn protocol(&self) -> &'static [u8] {
        match self.ex.received.head.version {
            _ if self.ex.received.head.method.is_empty() => b"",
            Version::Http10 => b"HTTP/1.0",
            Version::Http11 => b"HTTP/1.1",
            Version::Http2 => b"HTTP/2.0",
        }
    }

    fn sent_header(&self, name: &str, out: &mut Vec<u8>) -> bool {
        match self.answer {
            // Nothing of it asks for itself: what is previewed holds no template with this in it.
            Some(answer) => joined(out, lines(send::preview(*self, answer).as_bytes()).skip(1), name),
            None => joined(out, lines(&self.ex.sent.head).skip(1), name),
        }
    }

    fn request_time(&self, out: &mut Vec<u8>) -> bool {
        let now = self.worker.clock.now();
        seconds(out, now.saturating_duration_since(self.ex.received.started.unwrap_or(now)))
    }

    fn request_body(&self, out: &mut Vec<u8>) -> bool {
        match &self.ex.received.body {
            crate::body::RequestBodyStore::Memory(bytes) => put_some(out, bytes),
            _ => false,
        }
    }

    fn realpath_root(&self, out: &mut Vec<u8>) -> bool {
        let root = crate::phase::files::root_of(*self);
        let files = &self.ex.place(self.view).files;
        let path = std::str::from_utf8(&root).ok().and_then(|path| files.real_path(path.as_ref()).ok());
        put(out, path.as_ref().map(|path| path.as_os_str().as_encoded_bytes()))
    }

    fn is_msie(&self) -> bool {
        let browser = self.ex.field(Name::UserAgent).map(Browser::of);
        matches!(browser, Some(Browser::OldMsie | Browser::Msie))
    }

    fn cookie(&self, name: &str, out: &mut Vec<u8>) -> bool {
        let fields = self
            .ex
            .received
            .head
            .fields
            .all(Name::Cookie)
            .map(|field| field.value.of(&self.ex.received.input));
        put(out, cookie(fields, name.as_bytes()))
    }

    fn upstream_cookie(&self, name: &str, out: &mut Vec<u8>) -> bool {
        let side = &self.ex.upstream;
        if !side.has_head {
            return false;
        }
        let fields = side.head.fields.all(Name::SetCookie).map(|field| field.value.of(&side.input));
        put(out, set_cookie(fields, name.as_bytes()))
    }

    fn remote_addr(&self, out: &mut Vec<u8>) -> bool {
        self.client.remote_of(self.ex).append_address(out);
        true
    }

    fn remote_port(&self, out: &mut Vec<u8>) -> bool {
        port_of(out, self.client.remote_of(self.ex))
    }

    /// Gives a value of the PROXY protocol's header; none where the header tells of nobody.
    fn proxy_header(&self, show: impl FnOnce(&Addresses) -> bool) -> bool {
        self.client.connection.proxy_header().and_then(ProxyHeader::addresses).is_some_and(show)
    }

    fn proxy_tlv(&self, tlv: ProxyTlv, out: &mut Vec<u8>) -> bool {
        let Some(tlvs) = self.client.connection.proxy_header().map(ProxyHeader::tlvs) else {
            return false;
        };
        match tlv {
            ProxyTlv::Kind(kind) => put(out, tlvs.get(kind)),
            ProxyTlv::Ssl(kind) => put(out, tlvs.ssl(kind)),
            ProxyTlv::SslVerify => tlvs.ssl_verify().is_some_and(|result| number(out, result.into())),
        }
    }

    fn binary_remote_addr(&self, out: &mut Vec<u8>) -> bool {
        match self.client.remote_of(self.ex) {
            remote @ Remote::Tcp(_) => put(out, Some(&remote.octets())),
            Remote::Unix => put(out, Some(b"unix:")),
        }
    }

    fn server_addr(&self, out: &mut Vec<u8>) -> bool {
        match self.client.local_address() {
            Some(address) => show(out, address.ip()),
            None => put(out, Some(self.client.connection.listener.to_string().as_bytes())),
        }
    }

    fn proxy_host(&self, out: &mut Vec<u8>) -> bool {
        let Some((route, http)) = self.proxy_pass() else { return false };
        match route {
            Route::Evaluated(template) => {
                put(out, Some(crate::upstream::host_and_port(&self.text(template)).0))
            }
            Route::Upstream(_) => {
                self.append_template(&http.pass.host, out);
                true
            }
        }
    }

    fn proxy_port(&self, out: &mut Vec<u8>) -> bool {
        let Some((route, http)) = self.proxy_pass() else { return false };
        match route {
            Route::Evaluated(template) => {
                put(out, Some(crate::upstream::host_and_port(&self.text(template)).1))
            }
            Route::Upstream(_) => put(out, Some(http.pass.port.as_bytes())),
        }
    }

    fn script_name(&self, out: &mut Vec<u8>) -> bool {
        let uri = &self.ex.routed.uri;
        let Some(script) = &self.ex.place(self.view).script_name else { return put(out, Some(uri)) };
        let Some((name, _)) = script.split(uri) else { return false };
        put(out, Some(name)) && put(out, Some(script.index_of(name)))
    }

    fn path_info(&self, out: &mut Vec<u8>) -> bool {
        let Some(script) = &self.ex.place(self.view).script_name else { return true };
        put(out, script.split(&self.ex.routed.uri).map(|(_, rest)| rest))
    }

    /// The place's `proxy_pass`.
    fn proxy_pass(&self) -> Option<(&Route, &HttpProgram)> {
        let program = self.ex.place(self.view).proxy.as_ref()?;
        Some((&program.route, program.http()?))
    }

    fn add_x_forwarded_for(&self, out: &mut Vec<u8>) -> bool {
        for field in self.ex.received.head.fields.all(Name::XForwardedFor) {
            out.extend_from_slice(field.value.of(&self.ex.received.input));
            out.extend_from_slice(b", ");
        }
        self.remote_addr(out)
    }

    /// `$http_name`: several fields of one name are joined, `Cookie` with `;`.
    fn request_header(&self, name: &str, out: &mut Vec<u8>) -> bool {
        let separator: &[u8] = if name == "cookie" { b"; " } else { b", " };
        let ex = self.ex;
        let fields = ex
            .received
            .head
            .fields
            .iter()
            .map(|field| (field.name.of(&ex.received.input), field.value.of(&ex.received.input)));
        joined_by(out, fields, name, separator)
    }

    fn upstream_header(&self, name: &str, out: &mut Vec<u8>) -> bool {
        let side = &self.ex.upstream;
        if !side.has_head {
            return false;
        }
        let fields = side.head.fields.iter();
        let fields = fields.map(|field| (field.name.of(&side.input), field.value.of(&side.input)));
        joined_by(out, fields, name, b", ")
    }

    fn credentials(&self) -> Option<Credentials> {
        Credentials::parse(self.ex.field(Name::Authorization)?)
    }

    fn is_referer_valid(&self) -> bool {
        let Some(referers) = &self.ex.place(self.view).referers else { return true };
        let field = self
            .ex
            .received
            .head
            .fields
            .iter()
            .find(|field| field.name.of(&self.ex.received.input).eq_ignore_ascii_case(b"referer"));
        let referer = field.map(|field| field.value.of(&self.ex.received.input));
        referers.is_valid(referer).unwrap_or_else(|error| {
            let text = format!("{error}: an expression of valid_referers");
            self.client.log_error(self.worker, self.ex, &text);
            false
        })
    }

    fn secure_link(&self, out: &mut Vec<u8>, depth: u32) -> bool {
        match Scheme::of(&self.ex.place(self.view).scope.secure_link) {
            Some(Scheme::Texts { link, md5 }) if depth < MAP_DEPTH_MAX => {
                let (mut brought, mut secured) = (Vec::new(), Vec::new());
                self.template(link, &mut brought, depth + 1);
                let Some(link) = Link::parse(&brought) else { return false };
                self.template(md5, &mut secured, depth + 1);
                let now = i64::try_from(self.worker.clock.unix().as_secs()).unwrap_or(i64::MAX);
                put(out, link.check(&secured, now))
            }
            Some(Scheme::Word(word)) => put(
                out,
                secure_link::link_of(self.ex.received.head.target.raw.of(&self.ex.received.input), word),
            ),
            _ => false,
        }
    }

    fn secure_link_expires(&self, out: &mut Vec<u8>, depth: u32) -> bool {
        let Some(Scheme::Texts { link, .. }) = Scheme::of(&self.ex.place(self.view).scope.secure_link) else {
            return false;
        };
        let mut brought = Vec::new();
        if depth < MAP_DEPTH_MAX {
            self.template(link, &mut brought, depth + 1);
        }
        let expires = Link::parse(&brought).and_then(|link| link.expires);
        put(out, expires.map(|(written, _)| written))
    }

    fn request_id(&self, out: &mut Vec<u8>) -> bool {
        for at in 0..2 {
            if write!(out, "{:016x}", self.ex.request_id_half(at)).is_err() {
                return false;
            }
        }
        true
    }

    fn server_port(&self, out: &mut Vec<u8>) -> bool {
        let Some(address) = self.client.local_address() else { return put(out, Some(b"")) };
        let listener = self.view.snapshot.listener(&self.client.connection.listener);
        let declared = listener.and_then(|listener| self.view.snapshot.listeners.get(listener));
        number(out, u64::from(declared.map_or(address.port(), |listener| listener.declared_port)))
    }

    fn time_local(&self, out: &mut Vec<u8>) -> bool {
        put(out, Some(self.worker.time_text.borrow_mut().local(self.worker.system_time()).as_bytes()))
    }

    fn time_iso8601(&self, out: &mut Vec<u8>) -> bool {
        put(out, Some(self.worker.time_text.borrow_mut().iso8601(self.worker.system_time()).as_bytes()))
    }

    fn tcp_info(&self, out: &mut Vec<u8>, pick: impl Fn(&keel_sys::tcp::TcpInfo) -> u64) -> bool {
        match self.client.stream.socket().map(keel_sys::tcp::tcp_info) {
            Some(Ok(info)) => number(out, pick(&info)),
            Some(Err(_)) | None => false,
        }
    }

    /// Lists a value of every attempt, as nginx: `, ` between peers, ` : ` where a redirect led to another location.
    fn attempts(&self, out: &mut Vec<u8>, each: impl Fn(&AttemptRecord, &mut Vec<u8>) -> bool) -> bool {
        let attempts = &self.ex.upstream.attempts;
        for (at, attempt) in attempts.iter().enumerate() {
            if at > 0 {
                out.extend_from_slice(if attempt.after_redirect { b" : " } else { b", " });
            }
            if !each(attempt, out) {
                out.push(b'-');
            }
        }
        !attempts.is_empty()
    }
}

fn upstream_instance(attempt: &AttemptRecord, out: &mut Vec<u8>) -> bool {
    put(out, attempt.peer.as_ref().ok().and_then(|peer| peer.instance()).map(str::as_bytes))
}

fn upstream_status(attempt: &AttemptRecord, out: &mut Vec<u8>) -> bool {
    attempt.status != 0 && number(out, u64::from(attempt.status))
}

fn put(out: &mut Vec<u8>, value: Option<&[u8]>) -> bool {
    if let Some(value) = value {
        out.extend_from_slice(value);
    }
    value.is_some()
}

/// Like [`put`] for values that are missing when empty.
fn put_some(out: &mut Vec<u8>, value: &[u8]) -> bool {
    out.extend_from_slice(value);
    !value.is_empty()
}

fn number(out: &mut Vec<u8>, value: u64) -> bool {
    keel_http::encode::decimal(value, out);
    true
}

/// Reads a size as nginx writes it: a number, perhaps with `k` or `m`.
pub(crate) fn parse_size(text: &[u8]) -> Option<u64> {
    let (digits, unit) = match text.split_last()? {
        (b'k' | b'K', digits) => (digits, 1 << 10),
        (b'm' | b'M', digits) => (digits, 1 << 20),
        _ => (text, 1),
    };
    keel_http::connection::content_length(digits)?.checked_mul(unit)
}

/// How many times as long the body was before it was compressed, in hundredths.
fn put_ratio(ratio: GzipRatio, out: &mut Vec<u8>) -> bool {
    let thousandths = ratio.plain_bytes.saturating_mul(1000).checked_div(ratio.packed_bytes);
    let hundredths = thousandths.map(|thousandths| (thousandths + 5) / 10);
    hundredths.is_some_and(|hundredths| write!(out, "{}.{:02}", hundredths / 100, hundredths % 100).is_ok())
}

/// A port that nobody told is empty, as in nginx.
fn port_of(out: &mut Vec<u8>, remote: Remote) -> bool {
    match remote {
        Remote::Tcp(address) if address.port() > 0 => number(out, address.port().into()),
        Remote::Tcp(_) | Remote::Unix => put(out, Some(b"")),
    }
}

fn show(out: &mut Vec<u8>, value: impl std::fmt::Display) -> bool {
    write!(out, "{value}").is_ok()
}

fn seconds(out: &mut Vec<u8>, time: Duration) -> bool {
    write!(out, "{}.{:03}", time.as_secs(), time.subsec_millis()).is_ok()
}

fn optional(out: &mut Vec<u8>, time: Option<Duration>) -> bool {
    time.is_some_and(|time| seconds(out, time))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Gives the value of `name=` in a query; names match without regard to case, as in nginx.
fn argument<'a>(args: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    // `$arg_` names none.
    let mut pairs = args.split(|byte| *byte == b'&').filter(|_| !name.is_empty());
    pairs.find_map(|pair| {
        let (key, value) = pair.split_at_checked(name.len())?;
        if key.eq_ignore_ascii_case(name) { value.strip_prefix(b"=") } else { None }
    })
}

/// Finds a cookie that the client sent.
pub(crate) fn cookie<'a>(fields: impl Iterator<Item = &'a [u8]>, name: &[u8]) -> Option<&'a [u8]> {
    fields.flat_map(|field| field.split(|byte| *byte == b';')).find_map(|pair| named(spaces_off(pair), name))
}

fn set_cookie<'a>(fields: impl Iterator<Item = &'a [u8]>, name: &[u8]) -> Option<&'a [u8]> {
    let mut first = fields.filter_map(|field| field.split(|byte| *byte == b';').next());
    first.find_map(|pair| named(pair, name))
}

/// Value of `name = value`, spaces around the `=` left out and none behind; names match without regard to case.
fn named<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (key, value) = pair.split_at_checked(name.len())?;
    let value = spaces_off(value).strip_prefix(b"=")?;
    key.eq_ignore_ascii_case(name).then(|| spaces_off(value))
}

fn spaces_off(text: &[u8]) -> &[u8] {
    let spaces = text.iter().take_while(|byte| **byte == b' ').count();
    text.get(spaces..).unwrap_or_default()
}

/// Splits written field lines into names and values.
fn lines(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    head.split(|byte| *byte == b'\n').filter_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let (name, value) = line.split_at_checked(colon)?;
        Some((name, value.strip_prefix(b":").unwrap_or(value).trim_ascii()))
    })
}

fn joined<'a>(out: &mut Vec<u8>, fields: impl Iterator<Item = (&'a [u8], &'a [u8])>, name: &str) -> bool {
    joined_by(out, fields, name, b", ")
}

fn joined_by<'a>(
    out: &mut Vec<u8>,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    name: &str,
    separator: &[u8],
) -> bool {
    let mut any = false;
    for (field, value) in fields {
        if is_called(field, name) {
            if any {
                out.extend_from_slice(separator);
            }
            out.extend_from_slice(value);
            any = true;
        }
    }
    any
}

/// Compares a field's name with a variable's, which is in lower case with `_` for `-`.
fn is_called(field: &[u8], variable: &str) -> bool {
    let plain = |byte: &u8| if *byte == b'-' { b'_' } else { byte.to_ascii_lowercase() };
    field.len() == variable.len() && field.iter().map(plain).eq(variable.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_arguments() {
        assert_eq!(argument(b"a=1&bc=2&c=3", b"c"), Some(b"3".as_slice()));
        assert_eq!(argument(b"A=1", b"a"), Some(b"1".as_slice()));
        assert_eq!(argument(b"ab&a", b"a"), None);
        assert_eq!(argument(b"=1", b""), None);
    }

    #[test]
    fn finds_cookies() {
        let fields: [&[u8]; 2] = [b"x=1; y = 2 ;z=3", b"w=4"];
        let find = |name: &[u8]| cookie(fields.iter().copied(), name);
        assert_eq!(find(b"y"), Some(b"2 ".as_slice()));
        assert_eq!(find(b"w"), Some(b"4".as_slice()));
        assert_eq!(find(b"v"), None);
        let find = |field: &'static [u8]| set_cookie(std::iter::once(field), b"a");
        assert_eq!(find(b"A  =  b c ; d"), Some(b"b c ".as_slice()));
        assert_eq!(find(b"a\t=b"), None);
    }

    #[test]
    fn joins_fields_of_one_name() {
        let mut out = Vec::new();
        assert!(joined(&mut out, lines(b"X-A: 1\r\nB: 2\r\nx-a: 3\r\n"), "x_a"));
        assert_eq!(out, b"1, 3");
    }
}
