//! A project like the demo: three services with one alias behind a balancer's seat, and a fourth that sleeps.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, ensure};

use crate::{Binary, Project};

/// The demo's nginx.conf, without an access log.
pub const DEMO_NGINX_CONF: &str = "\
events {}
http {
    access_log off;
    upstream app { server app:5000; }
    server { listen 80; location / { proxy_pass http://app; } }
}
";

/// What a project like the demo is made of.
#[derive(Clone, Debug)]
pub struct Demo<'a> {
    /// The program: `env!("CARGO_BIN_EXE_evenkeel")`.
    pub program: &'a str,
    /// What the seat publishes: `127.0.0.1:8080:80`.
    pub publishes: &'a str,
    /// Variables of every service beside `NAME`, as in a YAML mapping: `LEDGER: FOLDER/ledger`.
    pub environment: &'a str,
    /// What runs instead of the demo app.
    pub command: Option<&'a str>,
}

impl Demo<'_> {
    /// Writes the project: `app1` to `app3` with the alias `app`, and `app4` with the profile `more`.
    ///
    /// # Errors
    /// When the demo app can't be built, or a file not be written.
    pub fn project(&self) -> anyhow::Result<Project> {
        let app = match self.command {
            Some(command) => command.to_owned(),
            None => demo_app(Path::new(self.program))?,
        };
        let service = |name: &str, rest: &str| {
            format!(
                "  {name}:\n    image: none\n    x-process: {{command: {app}}}\n    \
                 environment: {{NAME: {name}, {}}}\n    restart: always\n    \
                 networks: {{default: {{aliases: [app]}}}}\n{rest}",
                self.environment
            )
        };
        let services: String = ["app1", "app2", "app3"].map(|name| service(name, "")).concat();
        let dormant = service("app4", "    profiles: [more]\n");
        let seat = format!(
            "  nginx:\n    image: nginx:latest\n    ports: [\"{}\"]\n    \
             volumes: [\"./nginx.conf:/etc/nginx/nginx.conf:ro\"]\n",
            self.publishes
        );
        let compose = format!("services:\n{services}{dormant}{seat}");
        Project::new(
            Binary::new(self.program),
            &[("docker-compose.yml", &compose), ("nginx.conf", DEMO_NGINX_CONF), ("ledger", "")],
        )
    }
}

/// Builds the demo app beside the program, once, and gives its path.
///
/// # Errors
/// When it can't be built.
pub fn demo_app(program: &Path) -> anyhow::Result<String> {
    static APP: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let build = || {
        let build = ["build", "--quiet", "--package", "evenkeel-demo-app"];
        let status = Command::new(env!("CARGO")).args(build).status().context("cargo can't be run")?;
        ensure!(status.success(), "the demo app doesn't build");
        Ok(program.with_file_name("evenkeel-demo-app"))
    };
    let built = APP.get_or_init(|| build().map_err(|error: anyhow::Error| format!("{error:#}")));
    match built {
        Ok(path) => Ok(path.to_string_lossy().into_owned()),
        Err(error) => Err(anyhow::Error::msg(error.clone())),
    }
}
