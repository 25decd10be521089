//! ngx_http_secure_link_module: links that only their maker can make.

use crate::{
    arguments::text,
    ast::Directive,
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "secure_link",
        syntax: "expression",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: None,
        doc: "What of a request is the digest of its link, in base64 for URLs, and behind a comma until when the link holds, \
              in Unix seconds. `$secure_link` is empty where the digest is wrong, `0` where the link holds no more, and else \
              `1`; `$secure_link_expires` is the second part.",
        set: Setter::Simple(|reader, directive| {
            not_with_secret(reader, directive);
            reader.once(directive, |frame| &mut frame.scope.secure_link.link, Reader::template_arg);
        }),
    },
    Row {
        name: "secure_link_md5",
        syntax: "expression",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: None,
        doc: "What the digest is the MD5 of, with a secret in it.",
        set: Setter::Simple(|reader, directive| {
            not_with_secret(reader, directive);
            reader.once(directive, |frame| &mut frame.scope.secure_link.md5, Reader::template_arg);
        }),
    },
    Row {
        name: "secure_link_secret",
        syntax: "word",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: None,
        doc: "Takes links of the form `/prefix/digest/link`, where the digest is the MD5, in hexadecimal, of the link and this \
              word behind it. `$secure_link` is the link, and empty where the digest is wrong.",
        set: Setter::Simple(secret),
    },
];

fn secret(reader: &mut Reader<'_>, directive: &Directive) {
    reader.once(directive, |frame| &mut frame.scope.secure_link.secret, text);
    let scope = &mut reader.frame.scope.secure_link;
    if matches!((&scope.link, &scope.md5), (Some(Some(_)), _) | (_, Some(Some(_)))) {
        return mixed(reader, directive);
    }
    // What the blocks around say of the others doesn't hold here.
    (scope.link, scope.md5) = (Some(None), Some(None));
}

fn not_with_secret(reader: &mut Reader<'_>, directive: &Directive) {
    let scope = &mut reader.frame.scope.secure_link;
    if scope.secret.is_some() {
        (scope.link, scope.md5) = (None, None);
        mixed(reader, directive);
    }
}

fn mixed(reader: &mut Reader<'_>, directive: &Directive) {
    let message = "`secure_link_secret` goes with neither `secure_link` nor `secure_link_md5`";
    let nginx = "\"secure_link_secret\" cannot be mixed with \"secure_link\" and \"secure_link_md5\"";
    reader.error("nginx::mixed-directives", message, directive.span(), nginx);
}
