//! ngx_http_charset_module: the charset that responses say they are in. Bodies are not converted.

use keel_diag::Diagnostic;
use keel_model::{CharsetScope, Template};

use crate::{
    arguments::{flag, media_types},
    ast::Directive,
    reader::{Frame, Reader},
    registry::{Arity, Contexts, Row, Setter},
};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "charset",
        syntax: "charset | off",
        contexts: Contexts::HTTP_ALL_IF,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "The charset that `Content-Type` gets, for the types of `charset_types` and where it has none, except in \
              redirects with 301 and 302. Variables are allowed. `X-Accel-Charset` of peers is not obeyed.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.charset.charset, charset);
        }),
    },
    Row {
        name: "source_charset",
        syntax: "charset",
        contexts: Contexts::HTTP_ALL_IF,
        arity: Arity::ONE,
        default: None,
        doc: "The charset that bodies are in. They are not converted: where `charset` is another one, the \
              configuration is refused, or with variables the field stays as it is and the error log says so.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.charset.source, Reader::template_arg);
        }),
    },
    Row {
        name: "override_charset",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL_IF,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether `charset` also holds for responses of peers that name a charset. As bodies are not converted, \
              one that names another charset stays as it is.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.charset.overrides, flag);
        }),
    },
    Row {
        name: "charset_types",
        syntax: "mime-type ...",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::AtLeast(1),
        default: Some(
            "text/html text/xml text/plain text/vnd.wap.wml application/javascript application/rss+xml",
        ),
        doc: "The media types that `charset` is for, besides `text/html`; `*` for all.",
        set: Setter::Simple(|reader, directive| {
            media_types(reader, directive, |frame| &mut frame.scope.charset.types);
        }),
    },
];

fn charset(reader: &mut Reader<'_>, directive: &Directive) -> Option<Option<Template>> {
    if directive.arg(0) == "off" {
        return Some(None);
    }
    reader.template_arg(directive).map(Some)
}

/// Refuses what would need a conversion, once all blocks around `frame` have been laid together.
pub(crate) fn check(reader: &mut Reader<'_>, frame: &Frame, settled: &CharsetScope) {
    let literal = |charset: Option<&Template>| charset?.as_literal().map(str::to_owned);
    let (from, to) = (literal(settled.source.as_ref()), literal(settled.charset.as_ref()));
    let Some((from, to)) = from.zip(to) else { return };
    if from.eq_ignore_ascii_case(&to) {
        return;
    }
    // A block that inherits both says nothing: they are reported where they are set.
    let set = ["source_charset", "charset"].into_iter().find_map(|name| frame.seen.get(name).copied());
    let Some(place) = set else { return };
    reader.diagnostics.push(
        Diagnostic::error(
            "nginx::unsupported-charset",
            "bodies are not converted from one charset to another",
        )
        .at(place, format!("from `{from}` to `{to}`"))
        .help(format!("let instances and files be in `{to}` and remove `source_charset`"))
        .nginx(format!("no \"charset_map\" between the charsets \"{from}\" and \"{to}\"")),
    );
}
