//! Circles of imports between a crate's modules: each crate's modules have an order, in which each imports only those
//! below it.
//!
//! Looks at text, not at types: `crate::` and `super::` paths between the modules that stand beside lib.rs or main.rs. A
//! name that lib.rs exports from a module counts as that module. What only tests do doesn't count.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::{Path, PathBuf},
};

/// Modules that still import each other in a circle, and why. No module joins one without a word here.
const KNOTS: &[Knot] = &[
    Knot {
        package: "keel-proxy",
        modules: &[
            "accept",
            "answer",
            "client",
            "downstream",
            "exchange",
            "filter",
            "job",
            "log",
            "phase",
            "send",
            "snapshot",
            "subrequest",
            "transport",
            "upstream",
            "variables",
            "worker",
        ],
        why: "a job holds the worker, the client and the exchange, and each of them knows it; streams are being cut off",
    },
    Knot {
        package: "keel-nginx",
        modules: &[
            "arguments",
            "configuration",
            "directives",
            "include",
            "known",
            "lowering",
            "reader",
            "registry",
            "variables",
        ],
        why: "the registry lists the directives, whose rows are read by means of the registry",
    },
    Knot {
        package: "keel-lb",
        modules: &["group", "peer", "pick", "policy", "registry", "tier"],
        why: "a group holds its policy, which picks among the group's peers",
    },
];

/// Modules that may import each other in a circle.
struct Knot {
    package: &'static str,
    modules: &'static [&'static str],
    why: &'static str,
}

/// Imports of one module by another: from, to, and the files that have them.
type Imports = BTreeMap<String, BTreeMap<String, BTreeSet<PathBuf>>>;

/// Complains of each circle, and of exceptions that no longer are one.
pub(crate) fn check(root: &Path, files: &[PathBuf], complaints: &mut Vec<String>) {
    let mut crates: BTreeMap<PathBuf, Vec<&PathBuf>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|ext| ext == "rs")) {
        let source = file.ancestors().find(|folder| folder.file_name().is_some_and(|name| name == "src"));
        if let Some(source) = source.filter(|_| !file.starts_with("fuzz")) {
            crates.entry(source.to_owned()).or_default().push(file);
        }
    }
    for (source, files) in crates {
        let texts: Vec<(PathBuf, String)> = files
            .into_iter()
            .filter_map(|file| {
                let text = std::fs::read_to_string(root.join(file)).ok()?;
                Some((file.strip_prefix(&source).ok()?.to_owned(), text))
            })
            .collect();
        let package = source.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let knots: Vec<&Knot> = KNOTS.iter().filter(|knot| knot.package == package).collect();
        let circles = circles(&imports(&texts));
        for circle in &circles {
            let is_known =
                |knot: &&Knot| circle.iter().all(|module| knot.modules.contains(&module.name.as_str()));
            if !knots.iter().any(is_known) {
                complaints.push(format!(
                    "{package}: modules import each other in a circle: {}; move what both need into a module below them",
                    shown(circle)
                ));
            }
        }
        for knot in knots {
            let still = circles.iter().flatten().any(|module| knot.modules.contains(&module.name.as_str()));
            if !still {
                complaints.push(format!(
                    "{package} has no circle any more: take the exception ({}) out of xtask/src/modules.rs",
                    knot.why
                ));
            }
        }
    }
}

/// A module of a circle, and a file in which it imports the next one.
#[derive(Debug, PartialEq, Eq)]
struct Link {
    name: String,
    file: PathBuf,
}

fn shown(circle: &[Link]) -> String {
    let links = circle.iter().map(|link| format!("{} ({}) → ", link.name, link.file.display()));
    links.chain(circle.first().map(|first| first.name.clone())).collect()
}

/// Reads which top-level module imports which.
fn imports(texts: &[(PathBuf, String)]) -> Imports {
    let texts: Vec<(Vec<String>, &Path, String)> =
        texts.iter().map(|(path, text)| (module_of(path), path.as_path(), code(text))).collect();
    let mut modules: BTreeSet<&str> =
        texts.iter().filter_map(|(module, ..)| module.first()).map(String::as_str).collect();
    let root: String =
        texts.iter().filter(|(module, ..)| module.is_empty()).map(|(.., text)| text.as_str()).collect();
    for name in for_tests(&root) {
        modules.remove(name);
    }
    let exports = exports(&root);
    let mut imports = Imports::new();
    for (module, path, text) in &texts {
        let Some(from) = module.first().filter(|from| modules.contains(from.as_str())) else { continue };
        if module.last().is_some_and(|last| last == "tests" || last.ends_with("_tests")) {
            continue;
        }
        let up = "super::".repeat(module.len());
        let mut names = names_after(text, "crate::");
        names.extend(names_after(text, &up));
        for name in names {
            let name = exports.get(name).map_or(name, String::as_str);
            if name != from && modules.contains(name) {
                imports
                    .entry(from.clone())
                    .or_default()
                    .entry(name.to_owned())
                    .or_default()
                    .insert(path.to_path_buf());
            }
        }
    }
    imports
}

/// The path of a file's module: `upstream/pool.rs` is `upstream::pool`; empty for the root.
fn module_of(path: &Path) -> Vec<String> {
    let mut parts: Vec<String> =
        path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") || parts == ["lib"] || parts == ["main"] {
        parts.pop();
    }
    parts
}

/// A file's text without comments and tests.
fn code(text: &str) -> String {
    let text = text.split_once("#[cfg(test)]\nmod tests {").map_or(text, |(before, _)| before);
    text.lines().map(|line| line.split_once("//").map_or(line, |(before, _)| before)).fold(
        String::new(),
        |mut code, line| {
            code.push_str(line);
            code.push('\n');
            code
        },
    )
}

/// Modules that are there for tests alone.
fn for_tests(root: &str) -> impl Iterator<Item = &str> {
    root.split("#[cfg(test)]\n")
        .skip(1)
        .filter_map(|after| after.strip_prefix("mod ")?.split_once(';'))
        .map(|(name, _)| name)
}

/// Names that the root exports, by the module that they come from.
fn exports(root: &str) -> BTreeMap<&str, String> {
    let mut exports = BTreeMap::new();
    for import in root.split("use ").skip(1) {
        let Some((import, _)) = import.split_once(';') else { continue };
        let Some((module, names)) = import.split_once("::") else { continue };
        for name in words(names) {
            exports.insert(name, module.trim().to_owned());
        }
    }
    exports
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !is_word(c)).filter(|word| !word.is_empty())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The first names of the paths that follow a prefix: of `crate::{a::B, c}` these are `a` and `c`.
fn names_after<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    let mut names = Vec::new();
    for (at, _) in text.match_indices(prefix) {
        let before = text[..at].chars().next_back();
        // `pub(in crate::a)` is no import, and `super::super::` is found by the longer prefix.
        if before.is_some_and(|c| is_word(c) || c == ':' || c == '$') || text[..at].ends_with("in ") {
            continue;
        }
        let after = &text[at + prefix.len()..];
        match after.strip_prefix('{') {
            Some(list) => names.extend(items(list)),
            None => names.extend(words(after.split(|c| !is_word(c)).next().unwrap_or_default())),
        }
    }
    names
}

/// The first names of a list's items, up to its closing brace.
fn items(list: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let (mut depth, mut begin) = (1, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            names.extend(words(&list[begin..at]).next());
            begin = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// The circles: for each group of modules that reach each other, all of it where it has no shorter way round, else the
/// shortest way from its first module back to it, and each module that is in none of them yet.
fn circles(imports: &Imports) -> Vec<Vec<Link>> {
    let mut circles: Vec<Vec<Link>> = Vec::new();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for start in imports.keys() {
        if seen.contains(start.as_str()) {
            continue;
        }
        let Some(circle) = shortest(imports, start) else { continue };
        seen.extend(
            circle.iter().filter_map(|link| imports.get_key_value(&link.name)).map(|(name, _)| name.as_str()),
        );
        circles.push(circle);
    }
    circles
}

/// The shortest way from a module back to itself.
fn shortest(imports: &Imports, start: &str) -> Option<Vec<Link>> {
    let mut reached: BTreeMap<&str, &str> = BTreeMap::new();
    let mut waiting = VecDeque::from([start]);
    while let Some(from) = waiting.pop_front() {
        for to in imports.get(from).into_iter().flat_map(BTreeMap::keys) {
            if to == start {
                return Some(way(imports, &reached, from, start));
            }
            if !reached.contains_key(to.as_str()) {
                reached.insert(to, from);
                waiting.push_back(to);
            }
        }
    }
    None
}

fn way(imports: &Imports, reached: &BTreeMap<&str, &str>, last: &str, start: &str) -> Vec<Link> {
    let mut names = vec![last];
    while let Some(before) = names.last().and_then(|name| reached.get(name)) {
        names.push(before);
    }
    names.reverse();
    let next = names.iter().skip(1).copied().chain([start]).collect::<Vec<_>>();
    let file = |from: &str, to: &str| imports.get(from)?.get(to)?.first().cloned();
    let links = names
        .iter()
        .zip(next)
        .map(|(from, to)| Link { name: (*from).to_owned(), file: file(from, to).unwrap_or_default() });
    links.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let texts: Vec<_> =
            files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
        circles(&imports(&texts)).iter().map(|circle| shown(circle)).collect()
    }

    #[test]
    fn an_order_is_no_circle() {
        let files = [
            ("lib.rs", "mod a;\nmod b;\nmod c;\npub use c::Both;\n"),
            ("a.rs", "use crate::{b::{B, X}, c};\n"),
            (
                "b.rs",
                "use crate::Both;\n// use crate::a::A;\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n",
            ),
            ("c/mod.rs", "mod d;\n"),
            ("c/d.rs", "use super::Both;\npub(in crate::a) fn f() {}\n"),
        ];
        assert!(found(&files).is_empty(), "{:?}", found(&files));
    }

    #[test]
    fn a_circle_is_told_with_its_files() {
        let files = [
            ("lib.rs", "mod a;\nmod b;\nmod c;\npub use c::Both;\n"),
            ("a.rs", "use crate::b::B;\n"),
            ("b/d.rs", "use crate::Both;\n"),
            ("c.rs", "fn f() { super::a::g() }\n"),
        ];
        assert_eq!(found(&files), ["a (a.rs) → b (b/d.rs) → c (c.rs) → a"]);
    }

    #[test]
    fn each_module_in_a_circle_is_in_one_that_is_told() {
        let files = [
            ("lib.rs", "mod a;\nmod b;\nmod c;\n"),
            ("a.rs", "use crate::b;\n"),
            ("b.rs", "use crate::{a, c};\n"),
            ("c.rs", "use crate::b;\n"),
        ];
        assert_eq!(found(&files), ["a (a.rs) → b (b.rs) → a", "c (c.rs) → b (b.rs) → c"]);
    }
}
