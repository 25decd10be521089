//! ngx_http_fastcgi_module. What every module has that asks peers is in `http_upstream_scope.rs`, what every module has that
//! asks gateways in `http_gateway.rs`.

use keel_model::Pattern;

use crate::{
    arguments::{buffers, flag, msec, number32, size, temp_path},
    ast::Directive,
    directives::{
        http_gateway::{self, Gateway, gateway_rows},
        http_upstream_scope::{buffering_rows, gateway_causes, ignored_fields, lower_name, peer_rows},
    },
    pattern,
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
};

/// The groups of `fastcgi_split_path_info`: the script's name and what follows it.
const SPLIT_GROUPS: usize = 2;

fn split_path_info(reader: &mut Reader<'_>, directive: &Directive) -> Option<Pattern> {
    let word = directive.args.first()?;
    let pattern = reader.pattern(&word.text, word.span, false)?;
    let groups = pattern::translate(&word.text, false).map_or(SPLIT_GROUPS, |translated| translated.groups);
    if groups != SPLIT_GROUPS {
        let nginx = format!("pattern \"{}\" must have 2 captures", word.text);
        reader.invalid(directive, word, nginx, "an expression with two groups");
        return None;
    }
    Some(pattern)
}

/// The directives.
pub(crate) const ROWS: &[Row] = gateway_rows!(
    "fastcgi",
    fastcgi,
    Gateway::FastCgi,
    "Where requests go, in FastCGI: an upstream, a Compose service with its port, an address or `unix:path`. With variables it \
     is looked up for each request. A response that breaks off before the application has ended it is an error, also where \
     nginx takes it for whole; parameters may be longer than 64k.",
    Row {
        name: "fastcgi_index",
        syntax: "name",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: None,
        doc: "What `$fastcgi_script_name` has behind a name that ends in `/`.",
        set: Setter::Simple(|reader, directive| {
            reader.once(
                directive,
                |frame| &mut frame.scope.fastcgi.index,
                |_, directive| Some(directive.arg(0).to_owned()),
            )
        }),
    },
    Row {
        name: "fastcgi_split_path_info",
        syntax: "regex",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: None,
        doc: "An expression with two groups, which are `$fastcgi_script_name` and `$fastcgi_path_info`.",
        set: Setter::Simple(|reader, directive| {
            let pattern = split_path_info(reader, directive);
            reader.frame.scope.fastcgi.split_path_info = pattern.map(Some);
        }),
    },
    Row {
        name: "fastcgi_keep_conn",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether applications are asked to keep their connections open. `keepalive` of the upstream needs it.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.fastcgi.keep_conn, flag)
        }),
    },
    Row {
        name: "fastcgi_catch_stderr",
        syntax: "text",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: None,
        doc: "A text that makes a response invalid where the application complains in it before its head has come: \
              `fastcgi_next_upstream invalid_header` then asks another peer.",
        set: Setter::Simple(|reader, directive| {
            let text = directive.arg(0).to_owned();
            reader.frame.scope.fastcgi.catch_stderr.get_or_insert_default().push(text);
        }),
    },
);

/// The directives of every module that asks peers.
pub(crate) const PEER_ROWS: &[Row] =
    peer_rows!("fastcgi", fastcgi, gateway_causes, "`Status` and `X-Accel-...`");

/// The directives of every module that keeps bodies.
pub(crate) const BUFFERING_ROWS: &[Row] = buffering_rows!("fastcgi", fastcgi);
