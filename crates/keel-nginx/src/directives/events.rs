//! ngx_event_core_module: connections.

use keel_diag::Span;

use crate::{
    ast::Directive,
    reader::{Frame, Reader},
    registry::{Arity, Contexts, Row, Setter},
    value,
};

/// What `events` sets.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// Whether the block is there at all.
    pub(crate) present: bool,
    pub(crate) worker_connections: Option<Connections>,
}

/// What `worker_connections` says, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connections {
    pub(crate) count: u32,
    pub(crate) span: Span,
}

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "events",
        syntax: "{ ... }",
        contexts: Contexts::MAIN,
        arity: Arity::NONE,
        default: None,
        doc: "Holds the directives about connections. It must be there, if only empty.",
        set: Setter::Block(|reader, directive, block| {
            if reader.frame.events.present {
                return reader.duplicate(directive);
            }
            let frame = Frame::new(Contexts::EVENTS, Some(directive.span()));
            let read = reader.inside(frame, block);
            reader.frame.events = Settings { present: true, ..read.events };
        }),
    },
    Row {
        name: "worker_connections",
        syntax: "number",
        contexts: Contexts::EVENTS,
        arity: Arity::ONE,
        default: Some("512"),
        doc: "How many connections one worker holds at most, those to peers counted too. When all are in use, those that have \
              idled longest are closed; where none idles, the client that has waited longest within a head; else a new one is \
              refused. There must be more than listeners.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.events.worker_connections, worker_connections);
        }),
    },
];

fn worker_connections(reader: &mut Reader<'_>, directive: &Directive) -> Option<Connections> {
    let word = directive.args.first()?;
    let count = value::number(&word.text).map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    if count.is_none() {
        let nginx = format!("invalid number \"{}\"", word.text);
        reader.invalid(directive, word, nginx, "a number");
    }
    Some(Connections { count: count?, span: word.span })
}
