//! ngx_http_rewrite_module: of it, `return`.

use keel_model::Return;

use crate::{
    ast::Directive,
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
    value,
};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "return",
    syntax: "code [text] | code URL | URL",
    contexts: Contexts::SERVER_LOCATION_IF,
    arity: Arity::Take(1, 2),
    default: None,
    doc: "Answers at once with this status and text, or redirects with 301, 302, 303, 307 or 308. 444 closes the \
          connection without an answer.",
    set: Setter::Simple(|reader, directive| {
        let answer = answer(reader, directive);
        // The first one answers, so a second is never reached.
        let first = &mut reader.frame.rewrite.answer.0;
        *first = first.take().or(answer.map(Some));
    }),
}];

fn answer(reader: &mut Reader<'_>, directive: &Directive) -> Option<Return> {
    let (code, text) = directive.args.split_first()?;
    let status = value::number(&code.text).and_then(|status| u16::try_from(status).ok());
    match (status, text.first()) {
        (Some(status), text) if status <= 999 => {
            let text = match text {
                Some(word) => Some(reader.template(word)?),
                None => None,
            };
            Some(Return { status, text })
        }
        (None, None)
            if ["http://", "https://", "$scheme"].iter().any(|start| code.text.starts_with(start)) =>
        {
            Some(Return { status: 302, text: Some(reader.template(code)?) })
        }
        _ => {
            let nginx = format!("invalid return code \"{}\"", code.text);
            reader.invalid(directive, code, nginx, "a status up to 999, or a URL with its scheme");
            None
        }
    }
}
