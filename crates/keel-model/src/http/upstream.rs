//! Settings towards peers, the same for every protocol. Every nginx module that asks peers has these settings, with its own
//! prefix in front: `proxy_read_timeout`, `fastcgi_read_timeout`.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Buffers, ByteSize, Layer, SizeValue, Template, settings::settings};

settings! {
    /// Settings towards peers. A module with other defaults says so where it has this group.
    pub struct UpstreamScope, set by UpstreamLayer {
        /// `…_connect_timeout`.
        connect_timeout: Duration = Duration::from_secs(60);
        /// `…_send_timeout` between two writes.
        send_timeout: Duration = Duration::from_secs(60);
        /// `…_read_timeout` between two reads.
        read_timeout: Duration = Duration::from_secs(60);
        /// `…_bind`.
        bind: Option<LocalBind> = None;
        /// `…_socket_keepalive`.
        socket_keepalive: bool = false;
        /// `…_socket_rcvbuf`; 0 leaves it to the system.
        socket_rcvbuf: ByteSize = ByteSize(0);
        /// `…_socket_sndbuf`; 0 leaves it to the system.
        socket_sndbuf: ByteSize = ByteSize(0);
        /// `…_next_upstream`.
        next_upstream: NextUpstream = NextUpstream::default(), as NextUpstreamCauses;
        /// `…_next_upstream_tries`, the first attempt counted; 0 for as many as there are peers.
        next_upstream_tries: u32 = 0;
        /// `…_next_upstream_timeout` since the first attempt; zero for no limit.
        next_upstream_timeout: Duration = Duration::ZERO;
        /// `…_pass_request_headers`.
        pass_request_headers: bool = true;
        /// `…_pass_request_body`.
        pass_request_body: bool = true;
        /// `…_request_buffering`.
        request_buffering: bool = true;
        /// `…_buffering`.
        buffering: bool = true;
        /// `…_buffer_size`: the most a response head may take.
        buffer_size: ByteSize = ByteSize::kib(4);
        /// `…_buffers`.
        buffers: Buffers = Buffers { count: 8, size: ByteSize::kib(4) };
        /// `…_max_temp_file_size`; 0 keeps responses out of files.
        max_temp_file_size: ByteSize = ByteSize::mib(1024);
        /// `…_temp_path`.
        temp_path: PathBuf = PathBuf::from("proxy_temp");
        /// Response fields kept from clients: the module's own list, `…_hide_header`, less `…_pass_header`. Lower case.
        hide_headers: Vec<String> = hidden_fields(), as HiddenHeaders;
        /// Response fields whose effect on the proxy is ignored (`…_ignore_headers`). Lower case.
        ignore_headers: Vec<String> = Vec::new();
        /// `…_intercept_errors`.
        intercept_errors: bool = false;
        /// `…_ignore_client_abort`.
        ignore_client_abort: bool = false;
        /// `…_limit_rate`: how fast a response is read that is buffered, in bytes a second; 0 for no limit.
        limit_rate: SizeValue = SizeValue::ZERO;
        /// `…_force_ranges`.
        force_ranges: bool = false;
    }
}

/// `…_bind`: the address from which peers are reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalBind {
    /// An address, with a port or without; nothing leaves the choice to the system.
    pub address: Template,
    /// Whether it may be another host's (`transparent`).
    pub transparent: bool,
}

/// Fields of a response that `proxy_pass` keeps to itself.
fn hidden_fields() -> Vec<String> {
    let names = [
        "date",
        "server",
        "x-pad",
        "x-accel-expires",
        "x-accel-redirect",
        "x-accel-limit-rate",
        "x-accel-buffering",
        "x-accel-charset",
    ];
    names.map(str::to_owned).to_vec()
}

/// `…_hide_header` and `…_pass_header` in one block; each is inherited whole. Lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HiddenHeaders {
    /// Fields hidden besides those of the default.
    pub hide: Option<Vec<String>>,
    /// Fields that clients get all the same.
    pub pass: Option<Vec<String>>,
}

impl Layer<Vec<String>> for HiddenHeaders {
    fn inherit(&mut self, outer: &Self) {
        self.hide.inherit(&outer.hide);
        self.pass.inherit(&outer.pass);
    }

    fn settle(&self, default: Vec<String>) -> Vec<String> {
        let passed = self.pass.as_deref().unwrap_or_default();
        let own = self.hide.iter().flatten().cloned();
        default.into_iter().chain(own).filter(|name| !passed.contains(name)).collect()
    }
}

/// `…_next_upstream`: what makes a request go to another peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextUpstream {
    /// Failures to connect, send or read. Part of the default.
    pub error: bool,
    /// Time-outs of the same. Part of the default.
    pub timeout: bool,
    /// An empty or malformed response.
    pub invalid_header: bool,
    /// Statuses: 403, 404, 429, 500, 502, 503, 504.
    pub statuses: Vec<u16>,
    /// Also requests that are not idempotent and have been sent.
    pub non_idempotent: bool,
}

impl Default for NextUpstream {
    fn default() -> Self {
        Self {
            error: true,
            timeout: true,
            invalid_header: false,
            statuses: Vec::new(),
            non_idempotent: false,
        }
    }
}

/// One word of `…_next_upstream`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextUpstreamCause {
    /// `error`.
    Error,
    /// `timeout`.
    Timeout,
    /// `invalid_header`.
    InvalidHeader,
    /// `http_502` and the like.
    Status(u16),
    /// `non_idempotent`.
    NonIdempotent,
    /// `off`: nothing does, whatever stands beside it.
    Off,
}

/// `…_next_upstream` in one block: all its words. Inherited whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NextUpstreamCauses(pub Option<Vec<NextUpstreamCause>>);

impl Layer<NextUpstream> for NextUpstreamCauses {
    fn inherit(&mut self, outer: &Self) {
        self.0.inherit(&outer.0);
    }

    fn settle(&self, default: NextUpstream) -> NextUpstream {
        let Some(causes) = &self.0 else { return default };
        let off = causes.contains(&NextUpstreamCause::Off);
        let has = |cause| !off && causes.contains(&cause);
        let statuses = causes.iter().filter_map(|cause| match cause {
            NextUpstreamCause::Status(status) if !off => Some(*status),
            _ => None,
        });
        NextUpstream {
            error: has(NextUpstreamCause::Error),
            timeout: has(NextUpstreamCause::Timeout),
            invalid_header: has(NextUpstreamCause::InvalidHeader),
            statuses: statuses.collect(),
            non_idempotent: has(NextUpstreamCause::NonIdempotent),
        }
    }
}
