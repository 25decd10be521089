//! The Dockerfile reader.

#![no_main]

use keel_compose::Dockerfile;
use keel_diag::Sources;
use keel_fuzz::check_diagnostics;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut sources = Sources::default();
    let source = sources.add("Dockerfile", text);
    let arguments = [("VERSION".to_owned(), "3".to_owned())].into();
    let (file, diagnostics) = Dockerfile::parse(sources.text(source), source, &arguments, None);
    check_diagnostics(&diagnostics, &sources);
    let _ = file.pip_installs().count();
    let (_, diagnostics) = Dockerfile::parse(sources.text(source), source, &arguments, Some("build"));
    check_diagnostics(&diagnostics, &sources);
});
