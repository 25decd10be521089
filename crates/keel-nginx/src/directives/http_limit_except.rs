//! ngx_http_core_module: `limit_except`.

use keel_model::{LimitExcept, Scope};

use crate::{
    ast::Directive,
    reader::{Frame, Reader},
    registry::{Arity, Contexts, Row, Setter},
};

/// The methods that nginx knows.
#[rustfmt::skip]
const METHODS: [&str; 14] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "MKCOL", "COPY", "MOVE", "OPTIONS", "PROPFIND", "PROPPATCH", "LOCK", "UNLOCK", "PATCH",
];

/// The directive.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "limit_except",
    syntax: "method ... { ... }",
    contexts: Contexts::LOCATION,
    arity: Arity::AtLeast(1),
    default: None,
    doc: "Holds for requests with other methods than these: `allow`, `deny`, `auth_basic`, `proxy_pass`. `GET` allows `HEAD`, \
          too. For those requests the block takes the location's place: it inherits all but `try_files`, `return`, `rewrite`, \
          `set` and `if`.",
    set: Setter::Block(read),
}];

/// A block as read.
#[derive(Debug)]
pub(crate) struct LimitExceptBlock {
    methods: Vec<String>,
    pub(crate) inside: Box<Frame>,
}

impl LimitExceptBlock {
    /// Puts in what holds in the block.
    pub(crate) fn lower(self, scope: Scope) -> Box<LimitExcept> {
        Box::new(LimitExcept { methods: self.methods, scope })
    }
}

fn read(reader: &mut Reader<'_>, directive: &Directive, block: &[Directive]) {
    let methods = methods(reader, directive);
    let mut frame = Frame::new(Contexts::LIMIT_EXCEPT, Some(directive.name.span));
    frame.matcher.clone_from(&reader.frame.matcher);
    let inside = Box::new(reader.inside(frame, block));
    if reader.frame.limit_except.is_some() {
        return reader.duplicate(directive);
    }
    reader.frame.limit_except = Some(LimitExceptBlock { methods, inside });
}

fn methods(reader: &mut Reader<'_>, directive: &Directive) -> Vec<String> {
    let mut methods = Vec::new();
    for word in &directive.args {
        match METHODS.iter().find(|method| method.eq_ignore_ascii_case(&word.text)) {
            Some(method) => methods.push((*method).to_owned()),
            None => {
                let nginx = format!("invalid method \"{}\"", word.text);
                reader.invalid(directive, word, nginx, &format!("one of {}", METHODS.join(", ")));
            }
        }
    }
    methods
}
