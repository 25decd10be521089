//! What the modules share that ask gateways: `fastcgi_pass`, `uwsgi_pass`, `scgi_pass` and their parameters.

use keel_diag::{Diagnostic, Span};
use keel_model::{Content, EmptyParam, GatewayParam, ProxyTarget};

use crate::{
    address::{self, WrittenAddress},
    ast::Directive,
    directives::{
        http_proxy_pass::To, http_proxy_upstreams::Literals, http_upstream::refuse_url,
        http_upstream_scope::FittingSizes,
    },
    reader::Reader,
    variables::has_variables,
};

/// What one block says that is worked out when it is closed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Sizes that nothing acts on.
    pub(crate) sizes: FittingSizes,
}

impl Settings {
    /// Takes over what isn't set here.
    pub(crate) fn inherit(&mut self, outer: &Self) {
        self.sizes.inherit(&outer.sizes);
    }
}

/// In which protocol gateways are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gateway {
    FastCgi,
    Uwsgi,
    Scgi,
}

/// A `fastcgi_pass` or its like, as read.
#[derive(Clone, Debug)]
pub(crate) struct GatewayPass {
    gateway: Gateway,
    /// Where to.
    pub(crate) to: To,
    /// The directive.
    pub(crate) span: Span,
}

impl GatewayPass {
    /// Gives the model's form.
    pub(crate) fn lower(&self, literals: &mut Literals) -> Content {
        let target = match &self.to {
            To::Evaluated(template) => ProxyTarget::Evaluated(template.clone()),
            To::Literal(place) => {
                if let WrittenAddress::Tcp { text, port: None, .. } = place
                    && !literals.has(text)
                {
                    literals.diagnostics.push(no_port(text, self.span));
                }
                ProxyTarget::Upstream(literals.upstream(place, self.span))
            }
        };
        match self.gateway {
            Gateway::FastCgi => Content::FastCgi(target),
            Gateway::Uwsgi => Content::Uwsgi(target),
            Gateway::Scgi => Content::Scgi(target),
        }
    }
}

fn no_port(host: &str, span: Span) -> Diagnostic {
    Diagnostic::error("nginx::invalid-address", format!("`{host}` has no port"))
        .at(span, "no upstream has this name, and these protocols have no port of their own")
        .help(format!("write the port, too: `{host}:9000`"))
        .nginx(format!("no port in upstream \"{host}\""))
}

/// Reads `fastcgi_pass` or its like.
pub(crate) fn pass(reader: &mut Reader<'_>, directive: &Directive, gateway: Gateway) {
    if reader.frame.seen.contains_key(&directive.name.text) {
        return reader.duplicate(directive);
    }
    let Some(word) = directive.args.first() else { return };
    let text = word.text.as_str();
    let to = if has_variables(text) {
        reader.template(word).map(To::Evaluated)
    } else {
        let lower = text.to_ascii_lowercase();
        if lower.starts_with("suwsgi://") && gateway == Gateway::Uwsgi {
            return reader.diagnostics.push(
                Diagnostic::error("nginx::unsupported-tls", "TLS to gateways is not there")
                    .at(word.span, "can't be reached")
                    .help("use `uwsgi://` if the peer speaks it too"),
            );
        }
        let scheme = if gateway == Gateway::Uwsgi { "uwsgi://" } else { "" };
        let bare = if lower.starts_with(scheme) { text.get(scheme.len()..).unwrap_or(text) } else { text };
        match address::peer(bare) {
            Ok((place, "")) => Some(To::Literal(place)),
            Ok((place @ WrittenAddress::Tcp { .. }, _)) if gateway == Gateway::Uwsgi => {
                Some(To::Literal(place))
            }
            Ok(_) => {
                refuse_url(reader, word, "invalid host");
                None
            }
            Err(error) => {
                refuse_url(reader, word, error);
                None
            }
        }
    };
    reader.frame.gateway = to.map(|to| GatewayPass { gateway, to, span: directive.span() });
}

/// Reads `fastcgi_param` or its like.
pub(crate) fn param(reader: &mut Reader<'_>, directive: &Directive) -> Option<GatewayParam> {
    let mut args = directive.args.iter();
    let (name, value) = (args.next()?, args.next()?);
    let empty = match args.next() {
        None => EmptyParam::Sent,
        Some(word) if word.text == "if_not_empty" => EmptyParam::LeftOut,
        Some(word) => {
            reader.invalid_parameter(directive, word, &["if_not_empty"]);
            return None;
        }
    };
    Some(GatewayParam { name: name.text.clone(), value: reader.template(value)?, empty })
}

/// Makes the rows of `…_pass` and `…_param` for a prefix; `$module` is the module's group in the scope.
macro_rules! gateway_rows {
    ($prefix:literal, $module:ident, $gateway:expr, $pass:literal $(, $row:expr)* $(,)?) => {
        &[
            Row {
                name: concat!($prefix, "_pass"),
                syntax: "address",
                contexts: Contexts::LOCATION.or(Contexts::LOCATION_IF),
                arity: Arity::ONE,
                default: None,
                doc: $pass,
                set: Setter::Simple(|reader, directive| http_gateway::pass(reader, directive, $gateway)),
            },
            Row {
                name: concat!($prefix, "_param"),
                syntax: "name value [if_not_empty]",
                contexts: Contexts::HTTP_ALL,
                arity: Arity::Take(2, 3),
                default: None,
                doc: "A parameter that the application gets; with `if_not_empty` it is left out where its value is empty. A \
                      block with any inherits none. One whose name begins with `HTTP_` takes the place of the client's field \
                      of that name. `HTTP_HOST` is sent unless set: the name and port that the client asked for.",
                set: Setter::Simple(|reader, directive| {
                    if let Some(param) = http_gateway::param(reader, directive) {
                        reader.frame.scope.$module.params.get_or_insert_default().push(param);
                    }
                }),
            },
            $($row,)*
        ]
    };
}
pub(crate) use gateway_rows;
