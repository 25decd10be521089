//! ngx_http_limit_conn_module: how many requests there may be at once.

use keel_model::ConnectionLimit;

use super::{
    http_limit_req::LOG_LEVELS,
    limit_zones::{self, Kind},
};
use crate::{
    arguments::{flag, keyword, status_of_error},
    ast::Directive,
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
    value,
};

/// The most that a limit may be, as in nginx.
const LIMIT_MAX: u64 = 65_535;

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "limit_conn_zone",
        syntax: "key zone=name:size",
        contexts: Contexts::HTTP,
        arity: Arity::TWO,
        default: None,
        doc: "Defines a zone, in which requests that are being answered are counted by their key. Those with an empty key \
              aren't. All workers share the zone, a reload keeps it, and it never takes more memory than its size: beyond it \
              requests are refused.",
        set: Setter::Simple(zone),
    },
    Row {
        name: "limit_conn",
        syntax: "zone number",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::TWO,
        default: None,
        doc: "How many requests of one key may be answered at once; others are refused. With several limits a request must be \
              within all of them. A block with any `limit_conn` inherits none.",
        set: Setter::Simple(limit),
    },
    Row {
        name: "limit_conn_log_level",
        syntax: "info | notice | warn | error",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("error"),
        doc: "How refused requests are logged.",
        set: Setter::Simple(|reader, directive| {
            reader.once(
                directive,
                |frame| &mut frame.scope.limit_conn.log_level,
                |reader, directive| keyword(reader, directive, &LOG_LEVELS),
            );
        }),
    },
    Row {
        name: "limit_conn_status",
        syntax: "code",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("503"),
        doc: "What refused requests are answered with, 400 to 599.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.limit_conn.status, status_of_error);
        }),
    },
    Row {
        name: "limit_conn_dry_run",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Lets limits count and log, and refuse nothing. `$limit_conn_status` says what they would have done.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.limit_conn.dry_run, flag);
        }),
    },
];

fn zone(reader: &mut Reader<'_>, directive: &Directive) {
    let (mut named, mut has_zone) = (None, false);
    for word in directive.args.iter().skip(1) {
        if let Some(text) = word.text.strip_prefix("zone=") {
            has_zone = true;
            named = limit_zones::size(reader, directive, word, text);
        } else {
            let nginx = format!("invalid parameter \"{}\"", word.text);
            reader.invalid(directive, word, nginx, "`zone=name:size`");
        }
    }
    if !has_zone {
        reader.missing_parameter(directive, "zone");
    }
    limit_zones::define(reader, directive, Kind::Connections, named, 0);
}

fn limit(reader: &mut Reader<'_>, directive: &Directive) {
    let [name, number] = directive.args.as_slice() else { return };
    let limits = reader.frame.scope.limit_conn.limits.get_or_insert_default();
    if limits.iter().any(|known| known.zone.name == name.text) {
        return reader.duplicate(directive);
    }
    let found = value::number(&number.text).filter(|number| *number > 0);
    let max = match found.map(|found| (u32::try_from(found), found)) {
        Some((Ok(max), found)) if found <= LIMIT_MAX => max,
        Some(_) => {
            let nginx = "connection limit must be less 65536".to_owned();
            return reader.invalid(directive, number, nginx, "65535 at most");
        }
        None => {
            let nginx = format!("invalid number of connections \"{}\"", number.text);
            return reader.invalid(directive, number, nginx, "a number from 1 to 65535");
        }
    };
    let zone = reader.http.limit_zones.name(Kind::Connections, &name.text, name.span);
    reader.frame.scope.limit_conn.limits.get_or_insert_default().push(ConnectionLimit { zone, max });
}
