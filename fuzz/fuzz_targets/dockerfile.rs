//! The Dockerfile reader.

#![no_main]

use keel_compose::{BuildInputs, Dockerfile};
use keel_diag::Sources;
use keel_fuzz::check_diagnostics;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut sources = Sources::default();
    let source = sources.add("Dockerfile", text);
    let arguments = [("VERSION".to_owned(), "3".to_owned())].into();
    let inputs = BuildInputs { args: &arguments, target: None, path: "/bin" };
    let (file, diagnostics) = Dockerfile::parse(sources.text(source), source, &inputs);
    check_diagnostics(&diagnostics, &sources);
    let _ = file.pip_installs().count();
    let inputs = BuildInputs { target: Some("build"), ..inputs };
    let (_, diagnostics) = Dockerfile::parse(sources.text(source), source, &inputs);
    check_diagnostics(&diagnostics, &sources);
});
