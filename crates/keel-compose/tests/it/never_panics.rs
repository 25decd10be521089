//! Arbitrary bytes in every kind of file: nothing panics, and every place lies within its text.

use std::collections::BTreeMap;

use crate::common::Case;
use keel_compose::{BuildInputs, Dockerfile, Options, load_text};
use keel_diag::{Diagnostic, Sources};
use proptest::prelude::*;

fn check_places(diagnostics: &[Diagnostic], sources: &Sources) {
    for label in diagnostics.iter().flat_map(|diagnostic| &diagnostic.labels) {
        let (start, end) = (label.span.start as usize, label.span.end as usize);
        assert!(sources.text(label.span.source).get(start..end).is_some(), "{label:?}");
    }
}

/// Text made of what Compose files are made of, so that it gets past the first line.
fn pieces(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    let word = prop_oneof![8 => proptest::sample::select(words).prop_map(str::to_owned), 1 => "\\PC{0,4}"];
    proptest::collection::vec(word, 0..60).prop_map(|words| words.concat())
}

const YAML: &[&str] = &[
    "services:",
    "\n",
    "\n  ",
    "\n    ",
    "app:",
    " ",
    "image: a",
    "build: .",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ",",
    ": ",
    "&a ",
    "*a",
    "<<: ",
    "!reset ",
    "!override ",
    "'",
    "\"",
    "|\n",
    "#",
    "$",
    "${",
    "A:-b}",
    "é",
    "ports:",
    "80:80",
    "volumes:",
    "./a:/b",
    "depends_on:",
    "extends: app",
    "environment:",
    "A=1",
    "healthcheck:",
    "test:",
    "---",
    "\t",
    "include: [compose.yaml]",
    "deploy:",
    "replicas: 3",
    "null",
    "links: [app:b]",
];
const DOCKER: &[&str] = &[
    "FROM ",
    "a",
    " AS b",
    "\n",
    "RUN ",
    "pip install ",
    "\\\n",
    "&& ",
    "COPY ",
    "--from=b ",
    "<<EOF",
    "\nEOF\n",
    "ENV ",
    "A=",
    "\"",
    "'",
    "$A",
    "${A:-",
    "}",
    "CMD ",
    "[\"x\"]",
    "HEALTHCHECK ",
    "--interval=1s ",
    "EXPOSE ",
    "80",
    "ARG ",
    "WORKDIR ",
    "/",
    "..",
    " ",
    "# escape=`\n",
    "`",
    "LABEL ",
    "é",
    "SHELL ",
    "ONBUILD ",
    "$PATH",
    "${A#",
    "${A%%",
    "${A//",
    "*",
    "?",
    "STOPSIGNAL ",
    "9",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn compose_files(text in pieces(YAML), env in "(\\PC|\n){0,40}") {
        let case = Case::new(&[("compose.yaml", text.as_str()), (".env", env.as_str()), ("Dockerfile", "FROM a")]);
        let (loaded, sources) = case.load();
        check_places(&loaded.diagnostics, &sources);
    }

    #[test]
    fn bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let case = Case::new(&[]);
        std::fs::create_dir_all(&case.options.folder).unwrap();
        std::fs::write(case.options.folder.join("compose.yaml"), bytes).unwrap();
        let (loaded, sources) = case.load();
        check_places(&loaded.diagnostics, &sources);
    }

    #[test]
    fn texts(text in pieces(YAML)) {
        let mut sources = Sources::default();
        let options = Options { folder: "/nowhere".into(), ..Options::default() };
        let loaded = load_text(&text, &options, &mut sources);
        check_places(&loaded.diagnostics, &sources);
    }

    #[test]
    fn dockerfiles(text in pieces(DOCKER)) {
        let mut sources = Sources::default();
        let id = sources.add("Dockerfile", text.clone());
        let (_, diagnostics) = Dockerfile::parse(&text, id, &BuildInputs { args: &BTreeMap::new(), target: None, path: "/bin" });
        check_places(&diagnostics, &sources);
    }
}
