//! ngx_http_auth_request_module: a subrequest decides whether a request may pass.

use crate::{
    ast::Directive,
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "auth_request",
        syntax: "uri | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Asks this path of the same server, with a GET that has the request's fields and no body, whether the request \
              may pass: a status of 200 to 299 lets it, 401 is answered with the `WWW-Authenticate` that came, and 403 with \
              403. Every other status is answered with 500. `satisfy` says what that means beside `allow` and `deny`.",
        set: Setter::Simple(|reader, directive| {
            reader.once(
                directive,
                |frame| &mut frame.scope.auth_request.path,
                |_, directive| {
                    let path = &directive.args.first()?.text;
                    Some(Some(path.clone()).filter(|path| path != "off"))
                },
            );
        }),
    },
    Row {
        name: "auth_request_set",
        syntax: "$variable value",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::TWO,
        default: None,
        doc: "Gives a variable a value once `auth_request` has been answered. The value may hold variables of that \
              answer, such as `$upstream_http_name` and `$upstream_status`. A block with any `auth_request_set` inherits \
              none.",
        set: Setter::Simple(set),
    },
];

fn set(reader: &mut Reader<'_>, directive: &Directive) {
    let [name, value] = directive.args.as_slice() else { return };
    let variable = reader.settable(directive, name);
    let value = reader.template(value);
    if let (Some(variable), Some(value)) = (variable, value) {
        reader.frame.scope.auth_request.set.get_or_insert_default().push((variable, value));
    }
}
