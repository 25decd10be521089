//! What tests of commands share: the demo app as a service that serves.

use std::{path::PathBuf, process::Command, sync::OnceLock};

use keel_testkit::{Binary, Project};

/// Builds the demo app and gives its path.
pub(crate) fn app() -> &'static str {
    static APP: OnceLock<String> = OnceLock::new();
    APP.get_or_init(|| {
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "evenkeel-demo-app"])
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the demo app builds");
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_evenkeel"));
        binary.with_file_name("evenkeel-demo-app").to_string_lossy().into_owned()
    })
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
