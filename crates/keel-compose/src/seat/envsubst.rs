//! `envsubst`: `$NAME` and `${NAME}` replaced in a text, and nothing else.

use std::collections::BTreeMap;

/// Which variables are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// Every one; those that aren't set become nothing. This is `envsubst` without an argument.
    All,
    /// Those that are set. This is what nginx's image does with its templates.
    Defined,
    /// Those that a text names, set or not: `envsubst '$HOST $PORT'`.
    Of(String),
}

/// Replaces variables.
pub(super) fn envsubst(text: &str, environment: &BTreeMap<String, String>, names: &Names) -> String {
    let listed: Vec<&str> = match names {
        Names::Of(format) => variables(format).map(|(_, name, _)| name).collect(),
        Names::All | Names::Defined => Vec::new(),
    };
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for (start, name, end) in variables(text) {
        let is_meant = match names {
            Names::All => true,
            Names::Defined => environment.contains_key(name),
            Names::Of(_) => listed.contains(&name),
        };
        if is_meant {
            out.push_str(&text[copied..start]);
            out.push_str(environment.get(name).map_or("", String::as_str));
            copied = end;
        }
    }
    out.push_str(&text[copied..]);
    out
}

/// Whether a variable that would be replaced is one of those that `is_meant` names.
pub(super) fn is_used(text: &str, names: &Names, is_meant: &dyn Fn(&str) -> bool) -> bool {
    let listed: Vec<&str> = match names {
        Names::Of(format) => variables(format).map(|(_, name, _)| name).collect(),
        Names::All | Names::Defined => Vec::new(),
    };
    variables(text).any(|(_, name, _)| match names {
        Names::All => is_meant(name),
        // A name that nothing sets stays as it stands.
        Names::Defined => is_meant(name) && name.bytes().all(|b| !b.is_ascii_lowercase()),
        Names::Of(_) => listed.contains(&name) && is_meant(name),
    })
}

/// The variables of a text: where each begins, its name, and where it ends.
fn variables(text: &str) -> impl Iterator<Item = (usize, &str, usize)> {
    text.match_indices('$').filter_map(|(start, _)| {
        let after = &text[start + 1..];
        let (bare, braces) = match after.strip_prefix('{') {
            Some(bare) => (bare, 1),
            None => (after, 0),
        };
        let length = crate::interpolate::name_length(bare);
        let closed = braces == 0 || bare[length..].starts_with('}');
        (length > 0 && closed).then(|| (start, &bare[..length], start + 1 + length + 2 * braces))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_what_it_is_told_to() {
        let environment = [("PORT", "80"), ("HOST", "app"), ("EMPTY", "")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let text = "listen ${PORT}; to $HOST:$PORT_2 $host ${uri} ${HOST:-x} $EMPTY|";
        let check = |names: Names, expect: &str| assert_eq!(envsubst(text, &environment, &names), expect);
        check(Names::Defined, "listen 80; to app:$PORT_2 $host ${uri} ${HOST:-x} |");
        check(Names::All, "listen 80; to app:   ${HOST:-x} |");
        check(Names::Of("$HOST,${uri}".into()), "listen ${PORT}; to app:$PORT_2 $host  ${HOST:-x} $EMPTY|");
    }
}
