//! ngx_http_rewrite_module: `set`, `rewrite`, `return`, `break`; `if` is in `http_if.rs`.
//!
//! The directives of a block become its steps in the file's order ([`Step`]); lowering settles what holds inside `if`.

use keel_diag::{Diagnostic, Span};
use keel_model::{AfterRewrite, OwnArgs, Part, Return, RewriteRule, RewriteStep, Template, Test, Variable};

use crate::{
    arguments::flag,
    ast::{Directive, Word},
    reader::{Frame, Reader},
    registry::{Arity, Contexts, Row, Setter},
    value,
};

/// One step of a block as read.
#[derive(Debug)]
pub(crate) enum Step {
    /// One that is done.
    Done(RewriteStep),
    /// An `if`, whose block inherits what is around it.
    If {
        /// What is tested.
        test: Test,
        /// Which outcome leads into the block.
        wants: bool,
        /// The block, closed.
        inside: Box<Frame>,
    },
}

/// `http`, `server`, `location` and every `if`.
const EVERYWHERE: Contexts = Contexts::HTTP_ALL.or(Contexts::IF);

/// The directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "set",
        syntax: "$variable value",
        contexts: Contexts::SERVER_LOCATION_IF,
        arity: Arity::TWO,
        default: None,
        doc: "Gives a variable a value: one of its own name, which is empty before, one of a `map`, `geo` or \
              `split_clients`, or `$args`.",
        set: Setter::Simple(set),
    },
    Row {
        name: "rewrite",
        syntax: "regex replacement [last | break | redirect | permanent]",
        contexts: Contexts::SERVER_LOCATION_IF,
        arity: Arity::Take(2, 3),
        default: None,
        doc: "Replaces a URI that matches. The query is appended unless the replacement ends in `?`. `last` looks for the \
              location anew, ten times at most, `break` stays in it; `redirect` and `permanent` send the client there \
              with 302 and 301, and so does a replacement that begins with `http://`, `https://` or `$scheme`.",
        set: Setter::Simple(rewrite),
    },
    Row {
        name: "return",
        syntax: "code [text] | code URL | URL",
        contexts: Contexts::SERVER_LOCATION_IF,
        arity: Arity::Take(1, 2),
        default: None,
        doc: "Answers at once with this status and text, or redirects with 301, 302, 303, 307 or 308. 444 closes the \
              connection without an answer.",
        set: Setter::Simple(|reader, directive| {
            let answer = answer(reader, directive);
            reader.frame.steps.extend(answer.map(|answer| Step::Done(RewriteStep::Return(answer))));
        }),
    },
    Row {
        name: "break",
        syntax: "",
        contexts: Contexts::SERVER_LOCATION_IF,
        arity: Arity::NONE,
        default: None,
        doc: "Ends rewriting in this server or location.",
        set: Setter::Simple(|reader, _| reader.frame.steps.push(Step::Done(RewriteStep::Break))),
    },
    Row {
        name: "rewrite_log",
        syntax: "on | off",
        contexts: EVERYWHERE,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether `rewrite` and the expressions of `if` are logged to the error log, as `notice`.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.rewrite.log, flag)
        }),
    },
    Row {
        name: "uninitialized_variable_warn",
        syntax: "on | off",
        contexts: EVERYWHERE,
        arity: Arity::ONE,
        default: Some("on"),
        doc: "Whether the use of a variable that no `set` has been reached for is logged, as `warn`.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.rewrite.uninitialized_variable_warn, flag)
        }),
    },
];

fn set(reader: &mut Reader<'_>, directive: &Directive) {
    let [name, value] = directive.args.as_slice() else { return };
    let variable = reader.settable(directive, name);
    if let Some(Variable::Defined(id)) = variable {
        reader.http.names.note_set(id);
    }
    let (Some(variable), Some(value)) = (variable, reader.template(value)) else { return };
    if let Variable::Defined(id) = variable {
        reader.http.names.set.push((id, value.clone()));
    }
    reader.frame.steps.push(Step::Done(RewriteStep::Set { variable, value }));
}

/// Says whether a text begins a URL that clients are redirected to.
fn is_url(text: &str) -> bool {
    ["http://", "https://", "$scheme"].iter().any(|start| text.starts_with(start))
}

fn answer(reader: &mut Reader<'_>, directive: &Directive) -> Option<Return> {
    let (code, text) = directive.args.split_first()?;
    let status = value::number(&code.text).and_then(|status| u16::try_from(status).ok());
    let (status, text) = match (status, text.first()) {
        (Some(status), text) if status <= 999 => (status, text),
        (None, None) if is_url(&code.text) => (302, Some(code)),
        _ => {
            let nginx = format!("invalid return code \"{}\"", code.text);
            reader.invalid(directive, code, nginx, "a status up to 999, or a URL with its scheme");
            return None;
        }
    };
    let Some(word) = text else { return Some(Return { status, text: None }) };
    let text = reader.template(word)?;
    if matches!(status, 301 | 302 | 303 | 307 | 308) {
        warn_decoded(reader, &text, word);
    }
    Some(Return { status, text: Some(text) })
}

fn rewrite(reader: &mut Reader<'_>, directive: &Directive) {
    let [pattern, replacement, flag @ ..] = directive.args.as_slice() else { return };
    if replacement.text.is_empty() {
        let message = "`rewrite` needs something to put in the URI's place";
        return reader.error("nginx::invalid-value", message, replacement.span, "empty replacement");
    }
    let compiled = reader.pattern(&pattern.text, pattern.span, false);
    let Some(then) = after(reader, directive, &replacement.text, flag.first()) else { return };
    let (text, own_args) = match replacement.text.strip_suffix('?') {
        Some(text) => (text, OwnArgs::Drop),
        None => (replacement.text.as_str(), OwnArgs::Append),
    };
    // The URL of a redirect is one text; a URI and its query go separate ways.
    let (text, args) = match (then, text.split_once('?')) {
        (AfterRewrite::Next | AfterRewrite::Last | AfterRewrite::Break, Some((uri, args))) => {
            (uri, Some(args))
        }
        _ => (text, None),
    };
    let uri = reader.template_text(text, replacement);
    let args = args.map(|args| reader.template_text(args, replacement));
    let (Some(compiled), Some(uri), Ok(args)) =
        (compiled, uri, args.map_or(Ok(None), |args| args.ok_or(()).map(Some)))
    else {
        return;
    };
    if matches!(then, AfterRewrite::Redirect(_)) {
        warn_decoded(reader, &uri, replacement);
    }
    let rule = RewriteRule {
        pattern: compiled,
        written: pattern.text.clone(),
        replacement: uri,
        args,
        own_args,
        then,
    };
    reader.frame.steps.push(Step::Done(RewriteStep::Rewrite(rule)));
}

/// Gives what follows a match: what the flag says, and without one what the replacement is.
fn after(
    reader: &mut Reader<'_>,
    directive: &Directive,
    replacement: &str,
    flag: Option<&Word>,
) -> Option<AfterRewrite> {
    let url = is_url(replacement);
    match flag.map(|flag| (flag.text.as_str(), flag)) {
        None | Some(("last" | "break", _)) if url => Some(AfterRewrite::Redirect(302)),
        None => Some(AfterRewrite::Next),
        Some(("last", _)) => Some(AfterRewrite::Last),
        Some(("break", _)) => Some(AfterRewrite::Break),
        Some(("redirect", _)) => Some(AfterRewrite::Redirect(302)),
        Some(("permanent", _)) => Some(AfterRewrite::Redirect(301)),
        Some((_, word)) => {
            reader.invalid_parameter(directive, word, &["last", "break", "redirect", "permanent"]);
            None
        }
    }
}

/// Warns of the decoded path in a URL that clients are sent to: an escaped line end in it would end the field.
fn warn_decoded(reader: &mut Reader<'_>, url: &Template, word: &Word) {
    if url.parts.contains(&Part::Variable(Variable::Uri)) {
        let span: Span = word.span;
        reader.diagnostics.push(
            Diagnostic::warning("nginx::decoded-uri", "the decoded path in a redirect")
                .at(span, "`$uri` holds what the client had escaped, line ends and `?` too")
                .help("redirect to `$request_uri`, which is as the client sent it, query included"),
        );
    }
}
