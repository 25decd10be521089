//! Fields of the model that nothing reads: a setting that a file may have and that nothing acts on.
//!
//! Looks at text, not at types. A field counts as read where a crate that acts on the model has `.field`, other than to
//! assign it, or takes a value apart by the field's name. Readers of files write the model, so what stands there
//! doesn't count, and neither does what only tests do.

use std::path::{Path, PathBuf};

/// The crate whose fields are looked for.
const MODEL: &str = "crates/keel-model/src";

/// Crates that fill the model.
const WRITERS: [&str; 3] = [MODEL, "crates/keel-nginx/", "crates/keel-compose/"];

/// Fields that nothing has to read, and why.
const EXCUSED: &[(&str, &str)] =
    &[("reuseport", "one socket serves all workers; `evenkeel config` shows what the file asked for")];

/// Complains of each field that nothing reads, and of excuses that no longer hold.
pub(crate) fn check(root: &Path, files: &[PathBuf], complaints: &mut Vec<String>) {
    let texts = |is_wanted: &dyn Fn(&Path) -> bool| {
        let wanted = files.iter().filter(|file| file.extension().is_some_and(|ext| ext == "rs"));
        let wanted = wanted.filter(|file| is_wanted(file));
        let texts = wanted.filter_map(|file| Some((file, std::fs::read_to_string(root.join(file)).ok()?)));
        texts.map(|(file, text)| (file.clone(), without_tests(&text).to_owned())).collect::<Vec<_>>()
    };
    let models = texts(&|file| file.starts_with(MODEL));
    let acts = |file: &Path| {
        let is_source =
            file.components().any(|part| part.as_os_str() == "src") && !file.ends_with("tests.rs");
        file.starts_with("crates") && is_source && !WRITERS.iter().any(|writer| file.starts_with(writer))
    };
    let readers: String = texts(&acts).into_iter().map(|(_, text)| text).collect();
    for (file, text) in &models {
        for field in fields(text) {
            let is_excused = EXCUSED.iter().any(|(excused, _)| *excused == field);
            match (is_read(&readers, field), is_excused) {
                (false, false) => complaints.push(format!(
                    "{}: nothing reads the field `{field}`; take it out, or say why in xtask/src/unread.rs",
                    file.display()
                )),
                (true, true) => complaints
                    .push(format!("`{field}` is read now: take its excuse out of xtask/src/unread.rs")),
                _ => {}
            }
        }
    }
}

fn without_tests(text: &str) -> &str {
    text.split_once("#[cfg(test)]\nmod tests {").map_or(text, |(before, _)| before)
}

/// Finds the fields of what crosses to the data plane: structs that are serialised, and lists of settings.
fn fields(text: &str) -> Vec<&str> {
    let mut fields = Vec::new();
    let mut crosses = false;
    for line in text.lines() {
        if line.starts_with("#[derive(") {
            crosses = line.contains("Serialize");
        } else if line.starts_with("settings! {") {
            crosses = true;
        } else if line.starts_with('}') {
            crosses = false;
        }
        let line = line.trim_start();
        let declared = line.strip_prefix("pub ").unwrap_or(line);
        let is_setting = line.ends_with(';') && line.contains(" = ");
        if let Some((name, _)) = declared.split_once(": ").filter(|_| crosses)
            && (is_setting || line.len() > declared.len())
            && is_name(name)
        {
            fields.push(name);
        }
    }
    fields
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

fn is_read(text: &str, field: &str) -> bool {
    text.match_indices(field).any(|(at, _)| {
        let (before, after) = (text[..at].trim_end(), text[at + field.len()..].trim_start());
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        if text[..at].ends_with(is_word) || text[at + field.len()..].starts_with(is_word) {
            return false;
        }
        let assigned = after.starts_with('=') && !after.starts_with("==") && !after.starts_with("=>");
        let accessed =
            before.ends_with('.') && !before.ends_with("..") && !after.starts_with('(') && !assigned;
        // `Type { field, .. }` and `Type { field: name }`; what makes a value looks alike and counts, too.
        let taken_apart =
            before.ends_with(['{', ',']) && after.starts_with([',', '}', ':']) && !after.starts_with("::");
        accessed || taken_apart
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_fields_of_both_forms() {
        let text = "settings! {\n    pub struct A, set by B {\n        /// Text: it = is;\n        one: u32 = 1;\n    }\n}\n\
                    #[derive(Debug, Serialize)]\npub struct C {\n    pub two: u8,\n}\n\
                    #[derive(Debug)]\npub struct D {\n    pub three: u8,\n}\n";
        assert_eq!(fields(text), ["one", "two"]);
    }

    #[test]
    fn tells_reading_from_writing() {
        for (text, read) in [
            ("if place.scope.etag {", true),
            ("scope\n    .etag;", true),
            ("let Core { etag, .. } = core;", true),
            ("scope.etag = true;", false),
            ("scope.etag == other", true),
            ("set_etag(scope.netag)", false),
            ("let etag = 1;", false),
        ] {
            assert_eq!(is_read(text, "etag"), read, "{text}");
        }
    }
}
