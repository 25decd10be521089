//! What tests of commands share: the demo app as a service that serves.

use std::path::Path;

use keel_testkit::{Binary, Project};

/// Builds the demo app and gives its path.
pub(crate) fn app() -> String {
    keel_testkit::demo_app(Path::new(env!("CARGO_BIN_EXE_evenkeel"))).expect("the demo app builds")
}

/// Makes a project with a service `web` that serves on a port, and these services behind it, from line 6 on.
pub(crate) fn project_on(port: u16, services: &str) -> anyhow::Result<Project> {
    let app = app();
    let web = format!(
        "  web:\n    image: none\n    ports: ['127.0.0.1:{port}:5000']\n    \
         x-process: {{command: {app}}}\n"
    );
    let binary = Binary::new(env!("CARGO_BIN_EXE_evenkeel"));
    Project::new(binary, &[("compose.yaml", &format!("services:\n{web}{services}"))])
}
