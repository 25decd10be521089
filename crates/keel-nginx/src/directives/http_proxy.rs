//! ngx_http_proxy_module: how requests go to peers and responses come back. `proxy_pass` itself and
//! `proxy_redirect` are in `http_proxy_pass.rs`.

use std::{path::PathBuf, time::Duration};

use keel_diag::{Diagnostic, Span};
use keel_model::{Buffers, ByteSize, NextUpstream, ProxyHttpVersion, ProxyScope, Template, Variable};

use crate::{
    arguments::{buffers, flag, keyword, keywords, msec, number32, size, temp_path},
    ast::Directive,
    directives::http_proxy_pass::{Pass, Redirects},
    lowering::inherit,
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
};

/// What one block sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    /// `proxy_pass`; not inherited.
    pub(crate) pass: Option<Pass>,
    pub(crate) redirects: Redirects,
    set_headers: Vec<(String, Template)>,
    http_version: Option<ProxyHttpVersion>,
    method: Option<Template>,
    set_body: Option<Template>,
    pass_request_headers: Option<bool>,
    pass_request_body: Option<bool>,
    connect_timeout: Option<Duration>,
    send_timeout: Option<Duration>,
    read_timeout: Option<Duration>,
    next_upstream: Option<Vec<Cause>>,
    next_upstream_tries: Option<u32>,
    next_upstream_timeout: Option<Duration>,
    buffering: Option<bool>,
    buffer_size: Option<ByteSize>,
    buffers: Option<Buffers>,
    busy_buffers_size: Option<ByteSize>,
    max_temp_file_size: Option<ByteSize>,
    temp_file_write_size: Option<ByteSize>,
    temp_path: Option<PathBuf>,
    request_buffering: Option<bool>,
    hide_headers: Option<Vec<String>>,
    pass_headers: Option<Vec<String>>,
    ignore_headers: Option<Vec<String>>,
    intercept_errors: Option<bool>,
    ignore_client_abort: Option<bool>,
    socket_keepalive: Option<bool>,
    pass_trailers: Option<bool>,
}

/// One word of `proxy_next_upstream`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Error,
    Timeout,
    InvalidHeader,
    Status(u16),
    NonIdempotent,
    Off,
}

/// Fields of a request that nginx doesn't pass on as they came. Those that belong to one connection only, as `TE` and
/// `Upgrade`, are the data plane's to drop.
const DEFAULT_HEADERS: [&str; 2] = ["Host", "Connection"];

/// Fields of a response that nginx keeps to itself.
const HIDDEN_HEADERS: [&str; 8] = [
    "date",
    "server",
    "x-pad",
    "x-accel-expires",
    "x-accel-redirect",
    "x-accel-limit-rate",
    "x-accel-buffering",
    "x-accel-charset",
];

impl Slot {
    /// Takes over what isn't set here.
    pub(crate) fn inherit(&mut self, outer: &Self) {
        self.redirects.inherit(&outer.redirects);
        if self.set_headers.is_empty() {
            self.set_headers.clone_from(&outer.set_headers);
        }
        inherit!(self, outer;
            http_version, method, set_body, pass_request_headers, pass_request_body, connect_timeout,
            send_timeout, read_timeout, next_upstream, next_upstream_tries, next_upstream_timeout, buffering,
            buffer_size, buffers, busy_buffers_size, max_temp_file_size, temp_file_write_size, temp_path,
            request_buffering, hide_headers, pass_headers, ignore_headers, intercept_errors,
            ignore_client_abort, socket_keepalive, pass_trailers);
    }

    /// Gives the model's form, and reports sizes that don't fit each other at `place`.
    pub(crate) fn lower(&self, reader: &mut Reader<'_>, place: Option<Span>) -> ProxyScope {
        let default = ProxyScope::default();
        let buffer_size = self.buffer_size.unwrap_or(default.buffer_size);
        let buffers = self.buffers.unwrap_or(default.buffers);
        let largest = buffer_size.max(buffers.size);
        let twice = ByteSize(largest.0.saturating_mul(2));
        let scope = ProxyScope {
            http_version: self.http_version.unwrap_or(default.http_version),
            method: self.method.clone(),
            set_headers: self.effective_headers(),
            set_body: self.set_body.clone(),
            pass_request_headers: self.pass_request_headers.unwrap_or(default.pass_request_headers),
            pass_request_body: self.pass_request_body.unwrap_or(default.pass_request_body),
            connect_timeout: self.connect_timeout.unwrap_or(default.connect_timeout),
            send_timeout: self.send_timeout.unwrap_or(default.send_timeout),
            read_timeout: self.read_timeout.unwrap_or(default.read_timeout),
            next_upstream: self.lower_next_upstream(),
            buffering: self.buffering.unwrap_or(default.buffering),
            buffer_size,
            buffers,
            busy_buffers_size: self.busy_buffers_size.unwrap_or(twice),
            max_temp_file_size: self.max_temp_file_size.unwrap_or(default.max_temp_file_size),
            temp_file_write_size: self.temp_file_write_size.unwrap_or(twice),
            temp_path: self.temp_path.clone().unwrap_or_else(|| reader.prefix.join(default.temp_path)),
            request_buffering: self.request_buffering.unwrap_or(default.request_buffering),
            redirects: self.redirects.lower(self.pass.as_ref()),
            hide_headers: self.hidden(),
            ignore_headers: self.ignore_headers.clone().unwrap_or_default(),
            intercept_errors: self.intercept_errors.unwrap_or(default.intercept_errors),
            ignore_client_abort: self.ignore_client_abort.unwrap_or(default.ignore_client_abort),
            socket_keepalive: self.socket_keepalive.unwrap_or(default.socket_keepalive),
            pass_trailers: self.pass_trailers.unwrap_or(default.pass_trailers),
        };
        if let (Some(place), Some(nginx)) = (place, misfit(&scope, largest)) {
            report_misfit(reader, place, nginx);
        }
        scope
    }

    fn effective_headers(&self) -> Vec<(String, Template)> {
        let mut headers = self.set_headers.clone();
        for name in DEFAULT_HEADERS {
            if !headers.iter().any(|(set, _)| set.eq_ignore_ascii_case(name)) {
                let value = match name {
                    "Host" => Template::variable(Variable::ProxyHost),
                    _ => Template::default(),
                };
                headers.push((name.to_owned(), value));
            }
        }
        headers
    }

    fn lower_next_upstream(&self) -> NextUpstream {
        let default = NextUpstream::default();
        let tries = self.next_upstream_tries.unwrap_or(default.tries);
        let timeout_total = self.next_upstream_timeout.unwrap_or(default.timeout_total);
        let Some(causes) = &self.next_upstream else {
            return NextUpstream { tries, timeout_total, ..default };
        };
        let off = causes.contains(&Cause::Off);
        let has = |cause| !off && causes.contains(&cause);
        let statuses = causes.iter().filter_map(|cause| match cause {
            Cause::Status(status) if !off => Some(*status),
            _ => None,
        });
        NextUpstream {
            error: has(Cause::Error),
            timeout: has(Cause::Timeout),
            invalid_header: has(Cause::InvalidHeader),
            statuses: statuses.collect(),
            non_idempotent: has(Cause::NonIdempotent),
            tries,
            timeout_total,
        }
    }

    fn hidden(&self) -> Vec<String> {
        let passed = self.pass_headers.as_deref().unwrap_or_default();
        let own = self.hide_headers.iter().flatten().cloned();
        let mut hidden: Vec<String> = HIDDEN_HEADERS.iter().map(|&name| name.to_owned()).chain(own).collect();
        hidden.retain(|name| !passed.contains(name));
        hidden
    }
}

/// nginx's rules about sizes, and its words.
fn misfit(scope: &ProxyScope, largest: ByteSize) -> Option<&'static str> {
    let all_but_one = u64::from(scope.buffers.count.saturating_sub(1)).saturating_mul(scope.buffers.size.0);
    if scope.buffers.count < 2 {
        Some("there must be at least 2 \"proxy_buffers\"")
    } else if scope.busy_buffers_size < largest {
        Some(
            "\"proxy_busy_buffers_size\" must be equal to or greater than the maximum of the value of \
             \"proxy_buffer_size\" and one of the \"proxy_buffers\"",
        )
    } else if scope.busy_buffers_size.0 > all_but_one {
        Some(
            "\"proxy_busy_buffers_size\" must be less than the size of all \"proxy_buffers\" minus one buffer",
        )
    } else if scope.temp_file_write_size < largest {
        Some(
            "\"proxy_temp_file_write_size\" must be equal to or greater than the maximum of the value of \
             \"proxy_buffer_size\" and one of the \"proxy_buffers\"",
        )
    } else if scope.max_temp_file_size.0 != 0 && scope.max_temp_file_size < largest {
        Some(
            "\"proxy_max_temp_file_size\" must be equal to zero to disable temporary files usage or must be equal to \
             or greater than the maximum of the value of \"proxy_buffer_size\" and one of the \"proxy_buffers\"",
        )
    } else {
        None
    }
}

fn report_misfit(reader: &mut Reader<'_>, place: Span, nginx: &'static str) {
    let known = |found: &Diagnostic| found.nginx_text.as_deref() == Some(nginx);
    if !reader.diagnostics.iter().any(known) {
        reader.error("nginx::buffer-sizes", nginx.replace('"', "`"), place, nginx);
    }
}

const STATUS_CAUSES: [(&str, Cause); 13] = [
    ("error", Cause::Error),
    ("timeout", Cause::Timeout),
    ("invalid_header", Cause::InvalidHeader),
    ("non_idempotent", Cause::NonIdempotent),
    ("http_500", Cause::Status(500)),
    ("http_502", Cause::Status(502)),
    ("http_503", Cause::Status(503)),
    ("http_504", Cause::Status(504)),
    ("http_403", Cause::Status(403)),
    ("http_404", Cause::Status(404)),
    ("http_429", Cause::Status(429)),
    // Only caches can be updating.
    ("updating", Cause::Off),
    ("off", Cause::Off),
];

const IGNORABLE_HEADERS: [&str; 9] = [
    "X-Accel-Redirect",
    "X-Accel-Expires",
    "X-Accel-Limit-Rate",
    "X-Accel-Buffering",
    "X-Accel-Charset",
    "Expires",
    "Cache-Control",
    "Set-Cookie",
    "Vary",
];

fn http_version(reader: &mut Reader<'_>, directive: &Directive) -> Option<ProxyHttpVersion> {
    if directive.arg(0) == "2" {
        reader.diagnostics.push(
            Diagnostic::warning("nginx::unsupported-http2", "HTTP/2 to peers is not there yet")
                .at(directive.span(), "peers are asked in HTTP/1.1"),
        );
        return Some(ProxyHttpVersion::Http11);
    }
    keyword(reader, directive, &[("1.0", ProxyHttpVersion::Http10), ("1.1", ProxyHttpVersion::Http11)])
}

fn set_header(reader: &mut Reader<'_>, directive: &Directive) {
    let [name, value] = directive.args.as_slice() else {
        return;
    };
    if let (Some(name), Some(value)) = (reader.field_name(directive, name), reader.template(value)) {
        reader.frame.scope.proxy.set_headers.push((name, value));
    }
}

fn next_upstream(reader: &mut Reader<'_>, directive: &Directive) {
    let causes = keywords(reader, directive, &STATUS_CAUSES);
    reader.frame.scope.proxy.next_upstream.get_or_insert_default().extend(causes);
}

fn ignore_headers(reader: &mut Reader<'_>, directive: &Directive) {
    let choices = IGNORABLE_HEADERS.map(|name| (name, name));
    let names = keywords(reader, directive, &choices).into_iter().map(str::to_ascii_lowercase);
    reader.frame.scope.proxy.ignore_headers.get_or_insert_default().extend(names);
}

fn lower_name(directive: &Directive) -> String {
    directive.arg(0).to_ascii_lowercase()
}

/// The directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "proxy_set_header",
        syntax: "field value",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::TWO,
        default: Some("Host $proxy_host"),
        doc: "Sets a field of the request to the peer; an empty value leaves it out, with a `*` at the end of the name all fields that begin so. A block with any inherits none. `Connection`, `Upgrade`, `Expect`, `TE` and `Keep-Alive` are left out unless set.",
        set: Setter::Simple(set_header),
    },
    Row {
        name: "proxy_http_version",
        syntax: "1.0 | 1.1",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("1.1"),
        doc: "The version that peers are asked in.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.http_version, http_version)
        }),
    },
    Row {
        name: "proxy_method",
        syntax: "method",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: None,
        doc: "The method that peers are asked with, instead of the client's.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.method, Reader::template_arg)
        }),
    },
    Row {
        name: "proxy_set_body",
        syntax: "value",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: None,
        doc: "The body that peers get, instead of the client's.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.set_body, Reader::template_arg)
        }),
    },
    Row {
        name: "proxy_pass_request_headers",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether the client's fields go to the peer.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.pass_request_headers, flag)
        }),
    },
    Row {
        name: "proxy_pass_request_body",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether the client's body goes to the peer.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.pass_request_body, flag)
        }),
    },
    Row {
        name: "proxy_connect_timeout",
        syntax: "time",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("60s"),
        doc: "How long connecting to a peer may take.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.connect_timeout, msec)
        }),
    },
    Row {
        name: "proxy_send_timeout",
        syntax: "time",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("60s"),
        doc: "How long may pass between two writes to a peer.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.send_timeout, msec)
        }),
    },
    Row {
        name: "proxy_read_timeout",
        syntax: "time",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("60s"),
        doc: "How long may pass between two reads from a peer; then 504.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.read_timeout, msec)
        }),
    },
    Row {
        name: "proxy_next_upstream",
        syntax: "error | timeout | invalid_header | http_500 | http_502 | http_503 | http_504 | http_403 | http_404 | http_429 | non_idempotent | off ...",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::AtLeast(1),
        default: Some("error timeout"),
        doc: "What makes a request go to another peer. Requests that are not idempotent and have been sent do so only with `non_idempotent`.",
        set: Setter::Simple(next_upstream),
    },
    Row {
        name: "proxy_next_upstream_tries",
        syntax: "number",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("0"),
        doc: "How many peers are tried, the first counted; 0 for as many as there are.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.next_upstream_tries, number32)
        }),
    },
    Row {
        name: "proxy_next_upstream_timeout",
        syntax: "time",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("0"),
        doc: "How long after the first attempt another may begin; 0 for no limit.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.next_upstream_timeout, msec)
        }),
    },
    Row {
        name: "proxy_buffering",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether a peer's response is read as fast as it comes rather than as fast as the client takes it.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.buffering, flag)
        }),
    },
    Row {
        name: "proxy_buffer_size",
        syntax: "size",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("4k"),
        doc: "How long the head of a peer's response may be.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.buffer_size, size)
        }),
    },
    Row {
        name: "proxy_buffers",
        syntax: "number size",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::TWO,
        default: Some("8 4k"),
        doc: "How much of a peer's response is kept in memory.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.buffers, buffers)
        }),
    },
    Row {
        name: "proxy_busy_buffers_size",
        syntax: "size",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("8k"),
        doc: "Read and checked against `proxy_buffers`, without effect: what has come goes to the client as fast as it \
              takes it.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.busy_buffers_size, size)
        }),
    },
    Row {
        name: "proxy_max_temp_file_size",
        syntax: "size",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("1024m"),
        doc: "How much of a response may go to a file when memory is full; 0 for none.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.max_temp_file_size, size)
        }),
    },
    Row {
        name: "proxy_temp_file_write_size",
        syntax: "size",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("8k"),
        doc: "Read and checked against `proxy_buffers`, without effect: what memory doesn't hold goes to the file as it \
              comes.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.temp_file_write_size, size)
        }),
    },
    Row {
        name: "proxy_temp_path",
        syntax: "path [level1 [level2 [level3]]]",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::Take(1, 4),
        default: Some("proxy_temp"),
        doc: "The folder of those files. Levels are not needed and ignored.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.temp_path, temp_path)
        }),
    },
    Row {
        name: "proxy_request_buffering",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether a request's body is read whole before a peer is asked. Without it a request that began can't go to another peer.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.request_buffering, flag)
        }),
    },
    Row {
        name: "proxy_hide_header",
        syntax: "field",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: None,
        doc: "A field of responses that clients don't get, besides `Date`, `Server`, `X-Pad` and `X-Accel-...`.",
        set: Setter::Simple(|reader, directive| {
            reader.frame.scope.proxy.hide_headers.get_or_insert_default().push(lower_name(directive))
        }),
    },
    Row {
        name: "proxy_pass_header",
        syntax: "field",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: None,
        doc: "A field of responses that clients get although it is hidden otherwise.",
        set: Setter::Simple(|reader, directive| {
            reader.frame.scope.proxy.pass_headers.get_or_insert_default().push(lower_name(directive))
        }),
    },
    Row {
        name: "proxy_ignore_headers",
        syntax: "field ...",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::AtLeast(1),
        default: None,
        doc: "Fields of responses that have no effect on the proxy: `X-Accel-Redirect`, `X-Accel-Buffering` and the like.",
        set: Setter::Simple(ignore_headers),
    },
    Row {
        name: "proxy_intercept_errors",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether `error_page` acts on the errors of peers.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.intercept_errors, flag)
        }),
    },
    Row {
        name: "proxy_ignore_client_abort",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether a request goes on when its client has gone.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.ignore_client_abort, flag)
        }),
    },
    Row {
        name: "proxy_socket_keepalive",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether TCP keepalive is on towards peers.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.socket_keepalive, flag)
        }),
    },
    Row {
        name: "proxy_pass_trailers",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether trailers of responses are passed on.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.proxy.pass_trailers, flag)
        }),
    },
];
