//! ngx_http_index_module: what a request for a directory gets.

use crate::{
    ast::Directive,
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "index",
    syntax: "file ...",
    contexts: Contexts::HTTP_ALL,
    arity: Arity::AtLeast(1),
    default: Some("index.html"),
    doc: "The files looked for, in order, when a URI ends in `/`. The last may be an absolute path.",
    set: Setter::Simple(index),
}];

fn index(reader: &mut Reader<'_>, directive: &Directive) {
    let mut names = Vec::new();
    for word in &directive.args {
        if word.text.is_empty() {
            let nginx = "index \"\" in \"index\" directive is invalid".to_owned();
            reader.invalid(directive, word, nginx, "a file's name");
            continue;
        }
        names.extend(reader.template(word));
    }
    reader.frame.scope.index.names.get_or_insert_default().extend(names);
}
