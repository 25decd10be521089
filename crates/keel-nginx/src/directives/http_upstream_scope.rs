//! Directives of every module that asks peers, in any protocol: one list, for each module with its own
//! prefix (`proxy_read_timeout`, `fastcgi_read_timeout`).
//!
//! `peer_rows!` holds for all of them, `buffering_rows!` for those that can keep bodies (all but gRPC and memcached).

use keel_diag::{Diagnostic, Span};
use keel_model::{ByteSize, Layer, LocalBind, NextUpstreamCause, UpstreamScope};

use crate::{arguments::keywords, ast::Directive, reader::Reader};

/// Makes the rows towards peers for a prefix; `$module` is the module's group in the scope and its slot in the frame, `$causes`
/// reads what makes a request go to another peer, `$hidden` names the fields that are hidden in any case.
macro_rules! peer_rows {
    ($prefix:literal, $module:ident, $causes:ident, $hidden:literal) => {
        &[
            Row {
                name: concat!($prefix, "_connect_timeout"),
                syntax: "time",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::ONE,
                default: Some("60s"),
                doc: "How long connecting to a peer may take.",
                set: Setter::Simple(|reader, directive| {
                    reader.once(directive, |frame| &mut frame.scope.$module.upstream.connect_timeout, msec)
                }),
            },
            Row {
                name: concat!($prefix, "_send_timeout"),
                syntax: "time",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::ONE,
                default: Some("60s"),
                doc: "How long may pass between two writes to a peer.",
                set: Setter::Simple(|reader, directive| {
                    reader.once(directive, |frame| &mut frame.scope.$module.upstream.send_timeout, msec)
                }),
            },
            Row {
                name: concat!($prefix, "_read_timeout"),
                syntax: "time",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::ONE,
                default: Some("60s"),
                doc: "How long may pass between two reads from a peer; then 504.",
                set: Setter::Simple(|reader, directive| {
                    reader.once(directive, |frame| &mut frame.scope.$module.upstream.read_timeout, msec)
                }),
            },
            Row {
                name: concat!($prefix, "_bind"),
                syntax: "address [transparent] | off",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::Take(1, 2),
                default: None,
                doc: "The address from which peers are reached, with a port or without; where a variable gives nothing, and \
                      with `off`, the system chooses. `transparent` allows an address that isn't this host's, such as the \
                      client's, where the data plane has the right to that (root, or CAP_NET_RAW), and needs routes that \
                      bring the answers back.",
                set: Setter::Simple(|reader, directive| {
                    reader.once(
                        directive,
                        |frame| &mut frame.scope.$module.upstream.bind,
                        $crate::directives::http_upstream_scope::local_bind,
                    )
                }),
            },
            Row {
                name: concat!($prefix, "_socket_keepalive"),
                syntax: "on | off",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::ONE,
                default: Some("off"),
                doc: "Whether TCP keepalive is on towards peers.",
                set: Setter::Simple(|reader, directive| {
                    reader.once(directive, |frame| &mut frame.scope.$module.upstream.socket_keepalive, flag)
                }),
            },
            Row {
                name: concat!($prefix, "_socket_rcvbuf"),
                syntax: "size",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::ONE,
                default: Some("0"),
                doc: "How much that has come the system keeps for a connection to a peer; 0 leaves it to the system.",
                set: Setter::Simple(|reader, directive| {
                    reader.once(directive, |frame| &mut frame.scope.$module.upstream.socket_rcvbuf, size)
                }),
            },
            Row {
                name: concat!($prefix, "_socket_sndbuf"),
                syntax: "size",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::ONE,
                default: Some("0"),
                doc: "How much that leaves the system keeps for a connection to a peer; 0 leaves it to the system.",
                set: Setter::Simple(|reader, directive| {
                    reader.once(directive, |frame| &mut frame.scope.$module.upstream.socket_sndbuf, size)
                }),
            },
            Row {
                name: concat!($prefix, "_next_upstream"),
                syntax: "error | timeout | invalid_header | http_500 | http_502 | http_503 | http_504 | http_403 | http_404 | http_429 | non_idempotent | off ...",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::AtLeast(1),
                default: Some("error timeout"),
                doc: "What makes a request go to another peer. Requests that are not idempotent and have been sent do so only with `non_idempotent`.",
                set: Setter::Simple(|reader, directive| {
                    let causes = $causes(reader, directive);
                    reader.frame.scope.$module.upstream.next_upstream.0.get_or_insert_default().extend(causes);
                }),
            },
            Row {
                name: concat!($prefix, "_next_upstream_tries"),
                syntax: "number",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::ONE,
                default: Some("0"),
                doc: "How many peers are tried, the first counted; 0 for as many as there are.",
                set: Setter::Simple(|reader, directive| {
                    reader.once(directive, |frame| &mut frame.scope.$module.upstream.next_upstream_tries, number32)
                }),
            },
            Row {
                name: concat!($prefix, "_next_upstream_timeout"),
                syntax: "time",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::ONE,
                default: Some("0"),
                doc: "How long after the first attempt another may begin; 0 for no limit.",
                set: Setter::Simple(|reader, directive| {
                    reader.once(directive, |frame| &mut frame.scope.$module.upstream.next_upstream_timeout, msec)
                }),
            },
            Row {
                name: concat!($prefix, "_buffer_size"),
                syntax: "size",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::ONE,
                default: Some("4k"),
                doc: "How long the head of a peer's response may be.",
                set: Setter::Simple(|reader, directive| {
                    reader.once(directive, |frame| &mut frame.scope.$module.upstream.buffer_size, size)
                }),
            },
            Row {
                name: concat!($prefix, "_hide_header"),
                syntax: "field",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::ONE,
                default: None,
                doc: concat!("A field of responses that clients don't get, besides ", $hidden, "."),
                set: Setter::Simple(|reader, directive| {
                    reader.frame.scope.$module.upstream.hide_headers.hide.get_or_insert_default().push(lower_name(directive))
                }),
            },
            Row {
                name: concat!($prefix, "_pass_header"),
                syntax: "field",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::ONE,
                default: None,
                doc: "A field of responses that clients get although it is hidden otherwise.",
                set: Setter::Simple(|reader, directive| {
                    reader.frame.scope.$module.upstream.hide_headers.pass.get_or_insert_default().push(lower_name(directive))
                }),
            },
            Row {
                name: concat!($prefix, "_ignore_headers"),
                syntax: "field ...",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::AtLeast(1),
                default: None,
                doc: "Fields of responses that have no effect on the proxy: `X-Accel-Redirect`, `X-Accel-Buffering` and the like.",
                set: Setter::Simple(|reader, directive| {
                    let names = ignored_fields(reader, directive);
                    reader.frame.scope.$module.upstream.ignore_headers.get_or_insert_default().extend(names);
                }),
            },
            Row {
                name: concat!($prefix, "_intercept_errors"),
                syntax: "on | off",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::ONE,
                default: Some("off"),
                doc: "Whether `error_page` acts on the errors of peers.",
                set: Setter::Simple(|reader, directive| {
                    reader.once(directive, |frame| &mut frame.scope.$module.upstream.intercept_errors, flag)
                }),
            },
        ]
    };
}

/// Makes the rows of what is kept of bodies, as [`peer_rows`].
macro_rules! buffering_rows {
    ($prefix:literal, $module:ident) => {
        &[
            Row {
                name: concat!($prefix, "_limit_rate"),
                syntax: "rate",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::ONE,
                default: Some("0"),
                doc: "How many bytes of a buffered response are read in a second; 0 for as many as come. Variables are allowed.",
                set: Setter::Simple(|reader, directive| {
                    reader.once(
                        directive,
                        |frame| &mut frame.scope.$module.upstream.limit_rate,
                        $crate::arguments::size_value,
                    )
                }),
            },
            Row {
                name: concat!($prefix, "_pass_request_headers"),
                syntax: "on | off",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::ONE,
                default: Some("on"),
                doc: "Whether the client's fields go to the peer.",
                set: Setter::Simple(|reader, directive| {
                    reader.once(directive, |frame| &mut frame.scope.$module.upstream.pass_request_headers, flag)
                }),
            },
            Row {
                name: concat!($prefix, "_pass_request_body"),
                syntax: "on | off",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::ONE,
                default: Some("on"),
                doc: "Whether the client's body goes to the peer.",
                set: Setter::Simple(|reader, directive| {
                    reader.once(directive, |frame| &mut frame.scope.$module.upstream.pass_request_body, flag)
                }),
            },
            Row {
                name: concat!($prefix, "_request_buffering"),
                syntax: "on | off",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::ONE,
                default: Some("on"),
                doc: "Whether a request's body is read whole before a peer is asked. Without it a request that began can't go to another peer.",
                set: Setter::Simple(|reader, directive| {
                    reader.once(directive, |frame| &mut frame.scope.$module.upstream.request_buffering, flag)
                }),
            },
            Row {
                name: concat!($prefix, "_buffering"),
                syntax: "on | off",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::ONE,
                default: Some("on"),
                doc: "Whether a peer's response is read as fast as it comes rather than as fast as the client takes it.",
                set: Setter::Simple(|reader, directive| {
                    reader.once(directive, |frame| &mut frame.scope.$module.upstream.buffering, flag)
                }),
            },
            Row {
                name: concat!($prefix, "_buffers"),
                syntax: "number size",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::TWO,
                default: Some("8 4k"),
                doc: "How much of a peer's response is kept in memory.",
                set: Setter::Simple(|reader, directive| {
                    reader.once(directive, |frame| &mut frame.scope.$module.upstream.buffers, buffers)
                }),
            },
            Row {
                name: concat!($prefix, "_busy_buffers_size"),
                syntax: "size",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::ONE,
                default: Some("8k"),
                doc: concat!("Read and checked against `", $prefix, "_buffers`, without effect: what has come goes to the client as fast as it takes it."),
                set: Setter::Simple(|reader, directive| {
                    reader.once(directive, |frame| &mut frame.$module.sizes.busy_buffers, size)
                }),
            },
            Row {
                name: concat!($prefix, "_max_temp_file_size"),
                syntax: "size",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::ONE,
                default: Some("1024m"),
                doc: "How much of a response may go to a file when memory is full; 0 for none.",
                set: Setter::Simple(|reader, directive| {
                    reader.once(directive, |frame| &mut frame.scope.$module.upstream.max_temp_file_size, size)
                }),
            },
            Row {
                name: concat!($prefix, "_temp_file_write_size"),
                syntax: "size",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::ONE,
                default: Some("8k"),
                doc: concat!("Read and checked against `", $prefix, "_buffers`, without effect: what memory doesn't hold goes to the file as it comes."),
                set: Setter::Simple(|reader, directive| {
                    reader.once(directive, |frame| &mut frame.$module.sizes.temp_file_write, size)
                }),
            },
            Row {
                name: concat!($prefix, "_temp_path"),
                syntax: "path [level1 [level2 [level3]]]",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::Take(1, 4),
                default: Some(concat!($prefix, "_temp")),
                doc: "The folder of those files. Levels are not needed and ignored.",
                set: Setter::Simple(|reader, directive| {
                    reader.once(directive, |frame| &mut frame.scope.$module.upstream.temp_path, temp_path)
                }),
            },
            Row {
                name: concat!($prefix, "_ignore_client_abort"),
                syntax: "on | off",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::ONE,
                default: Some("off"),
                doc: "Whether a request goes on when its client has gone.",
                set: Setter::Simple(|reader, directive| {
                    reader.once(directive, |frame| &mut frame.scope.$module.upstream.ignore_client_abort, flag)
                }),
            },
            Row {
                name: concat!($prefix, "_force_ranges"),
                syntax: "on | off",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::ONE,
                default: Some("off"),
                doc: "Answers `Range` requests from whole responses of peers, also of peers that don't send `Accept-Ranges`. One \
                      range is given at most. Without it ranges are the peer's own business.",
                set: Setter::Simple(|reader, directive| {
                    reader.once(directive, |frame| &mut frame.scope.$module.upstream.force_ranges, flag)
                }),
            },
        ]
    };
}
pub(crate) use {buffering_rows, peer_rows};

const CAUSES: [(&str, NextUpstreamCause); 13] = [
    ("error", NextUpstreamCause::Error),
    ("timeout", NextUpstreamCause::Timeout),
    ("invalid_header", NextUpstreamCause::InvalidHeader),
    ("non_idempotent", NextUpstreamCause::NonIdempotent),
    ("http_500", NextUpstreamCause::Status(500)),
    ("http_502", NextUpstreamCause::Status(502)),
    ("http_503", NextUpstreamCause::Status(503)),
    ("http_504", NextUpstreamCause::Status(504)),
    ("http_403", NextUpstreamCause::Status(403)),
    ("http_404", NextUpstreamCause::Status(404)),
    ("http_429", NextUpstreamCause::Status(429)),
    // Only caches can be updating.
    ("updating", NextUpstreamCause::Off),
    ("off", NextUpstreamCause::Off),
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

/// Reads `…_next_upstream`.
pub(crate) fn causes(reader: &mut Reader<'_>, directive: &Directive) -> Vec<NextUpstreamCause> {
    keywords(reader, directive, &CAUSES)
}

/// Reads `…_next_upstream` of a gateway's module, which has no errors of gateways beyond it.
pub(crate) fn gateway_causes(reader: &mut Reader<'_>, directive: &Directive) -> Vec<NextUpstreamCause> {
    let is_beyond = |cause| matches!(cause, NextUpstreamCause::Status(502 | 504));
    let choices: Vec<_> = CAUSES.into_iter().filter(|(_, cause)| !is_beyond(*cause)).collect();
    keywords(reader, directive, &choices)
}

/// Reads `…_ignore_headers`, in lower case.
pub(crate) fn ignored_fields(reader: &mut Reader<'_>, directive: &Directive) -> Vec<String> {
    let choices = IGNORABLE_HEADERS.map(|name| (name, name));
    keywords(reader, directive, &choices).into_iter().map(str::to_ascii_lowercase).collect()
}

/// Reads a field's name, in lower case.
pub(crate) fn lower_name(directive: &Directive) -> String {
    directive.arg(0).to_ascii_lowercase()
}

/// Sizes that only have to fit the others: nothing acts on them here.
#[derive(Clone, Debug, Default)]
pub(crate) struct FittingSizes {
    /// `…_busy_buffers_size`.
    pub(crate) busy_buffers: Option<ByteSize>,
    /// `…_temp_file_write_size`.
    pub(crate) temp_file_write: Option<ByteSize>,
}

impl FittingSizes {
    /// Takes over what isn't set here.
    pub(crate) fn inherit(&mut self, outer: &Self) {
        self.busy_buffers.inherit(&outer.busy_buffers);
        self.temp_file_write.inherit(&outer.temp_file_write);
    }

    /// Reports sizes that don't fit each other at `place`, once in a file, in nginx's words.
    pub(crate) fn check(&self, reader: &mut Reader<'_>, scope: &UpstreamScope, prefix: &str, place: Span) {
        let Some(nginx) = self.misfit(scope, prefix) else { return };
        let known = |found: &Diagnostic| found.nginx_text.as_deref() == Some(&nginx);
        if !reader.diagnostics.iter().any(known) {
            reader.error("nginx::buffer-sizes", nginx.replace('"', "`"), place, nginx);
        }
    }

    fn misfit(&self, scope: &UpstreamScope, prefix: &str) -> Option<String> {
        let (buffers, largest) = (scope.buffers, scope.buffer_size.max(scope.buffers.size));
        let twice = ByteSize(largest.0.saturating_mul(2));
        let busy = self.busy_buffers.unwrap_or(twice);
        let temp_file_write = self.temp_file_write.unwrap_or(twice);
        let all_but_one = u64::from(buffers.count.saturating_sub(1)).saturating_mul(buffers.size.0);
        let largest_buffer = format!(
            "the maximum of the value of \"{prefix}_buffer_size\" and one of the \"{prefix}_buffers\""
        );
        if buffers.count < 2 {
            Some(format!("there must be at least 2 \"{prefix}_buffers\""))
        } else if busy < largest {
            Some(format!("\"{prefix}_busy_buffers_size\" must be equal to or greater than {largest_buffer}"))
        } else if busy.0 > all_but_one {
            Some(format!(
                "\"{prefix}_busy_buffers_size\" must be less than the size of all \"{prefix}_buffers\" minus one buffer"
            ))
        } else if temp_file_write < largest {
            Some(format!(
                "\"{prefix}_temp_file_write_size\" must be equal to or greater than {largest_buffer}"
            ))
        } else if scope.max_temp_file_size.0 != 0 && scope.max_temp_file_size < largest {
            Some(format!(
                "\"{prefix}_max_temp_file_size\" must be equal to zero to disable temporary files usage or must be \
                 equal to or greater than {largest_buffer}"
            ))
        } else {
            None
        }
    }
}

/// Reads `proxy_bind` and its like.
pub(crate) fn local_bind(reader: &mut Reader<'_>, directive: &Directive) -> Option<Option<LocalBind>> {
    crate::known::checks::bind(reader, directive);
    let address = directive.args.first()?;
    if address.text == "off" && directive.args.len() == 1 {
        return Some(None);
    }
    let transparent = directive.args.len() > 1;
    Some(Some(LocalBind { address: reader.template(address)?, transparent }))
}
