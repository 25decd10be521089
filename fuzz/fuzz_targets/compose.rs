//! The Compose reader: any text as compose.yaml, in a folder with nothing else in it.

#![no_main]

use std::sync::LazyLock;

use keel_compose::{Options, load_text};
use keel_diag::Sources;
use keel_fuzz::check_diagnostics;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static FOLDER: LazyLock<Option<TempDir>> = LazyLock::new(|| tempfile::tempdir().ok());

fuzz_target!(|text: &str| {
    let Some(folder) = &*FOLDER else { return };
    let mut sources = Sources::default();
    let options = Options {
        folder: folder.path().to_owned(),
        environment: [("A".to_owned(), "value".to_owned())].into(),
        ..Options::default()
    };
    let loaded = load_text(text, &options, &mut sources);
    check_diagnostics(&loaded.diagnostics, &sources);
    if let Some(project) = &loaded.project {
        for service in project.services.values() {
            let _ = (service.replicas(), service.restart_policy(), service.stop());
            let _ = (service.effective_healthcheck(), service.container_ports(), service.aliases().count());
        }
        let _ = keel_compose::balancer_seats(project);
    }
});
