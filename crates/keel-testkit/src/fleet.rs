//! Instances of the demo app, each in a container of its own: hosts that can be cut off from one another.

use std::{net::IpAddr, path::Path};

use anyhow::Context;

use crate::{Engine, demo_app};

/// Containers `app1` to `app3`, and others later, with one alias in the engine's network.
#[derive(Debug)]
pub struct Fleet {
    engine: Engine,
    image: String,
}

impl Fleet {
    /// Starts three. The demo app is found beside the program: `env!("CARGO_BIN_EXE_evenkeel")`.
    ///
    /// # Errors
    /// When the app can't be built, or the engine doesn't run it.
    pub fn start(engine: Engine, program: &Path) -> anyhow::Result<Self> {
        let app = demo_app(program)?;
        let image = engine.image("app", &[(Path::new(&app), "/app")], "CMD [\"/app\"]")?;
        let fleet = Self { engine, image };
        for name in ["app1", "app2", "app3"] {
            fleet.add(name)?;
        }
        Ok(fleet)
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The name that all instances share, and none of another fleet: a balancer on the host sees every network.
    pub fn alias(&self) -> String {
        format!("{}-app", self.engine.name())
    }

    /// The container of an instance.
    pub fn container(&self, name: &str) -> String {
        format!("{}-{name}", self.engine.name())
    }

    /// An instance's address.
    ///
    /// # Errors
    /// When it has none.
    pub fn address(&self, name: &str) -> anyhow::Result<IpAddr> {
        self.engine.address(&self.container(name))
    }

    /// Starts a further instance.
    ///
    /// # Errors
    /// When it doesn't start.
    pub fn add(&self, name: &str) -> anyhow::Result<()> {
        let greeting = format!("NAME={name}");
        self.engine.run(name, &["--network-alias", &self.alias(), "-e", &greeting], &self.image).map(drop)
    }

    /// Runs a command of the engine on an instance: `stop`, `pause`.
    ///
    /// # Errors
    /// When it fails.
    pub fn docker(&self, command: &str, name: &str) -> anyhow::Result<()> {
        self.engine.docker(&[command, &self.container(name)]).map(drop)
    }

    /// Takes an instance out of the network.
    ///
    /// # Errors
    /// When the engine doesn't do it.
    pub fn disconnect(&self, name: &str) -> anyhow::Result<()> {
        let command = ["network", "disconnect", self.engine.name(), &self.container(name)];
        self.engine.docker(&command).map(drop)
    }

    /// Puts an instance back into the network, under its alias; its address may be another one.
    ///
    /// # Errors
    /// When the engine doesn't do it.
    pub fn connect(&self, name: &str) -> anyhow::Result<()> {
        let alias = self.alias();
        let command = ["network", "connect", "--alias", &alias, self.engine.name(), &self.container(name)];
        self.engine.docker(&command).map(drop)
    }

    /// Starts a balancer without any right in the network and gives its address. It runs the program with this
    /// configuration; `options` are for `docker run`.
    ///
    /// # Errors
    /// When it doesn't start.
    pub fn balancer(&self, program: &Path, configuration: &str, options: &[&str]) -> anyhow::Result<IpAddr> {
        let folder = tempfile::TempDir::new()?;
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, configuration).context("can't write the configuration")?;
        let lines = "USER 101:101\nSTOPSIGNAL SIGQUIT\n\
                     CMD [\"/evenkeel\", \"serve\", \"-p\", \"/tmp\", \"-c\", \"/etc/nginx/nginx.conf\", \
                     \"-e\", \"stderr\", \"-g\", \"daemon off;\"]";
        let files: &[(&Path, &str)] = &[(program, "/evenkeel"), (&file, "/etc/nginx/nginx.conf")];
        let image = self.engine.image("balancer", files, lines)?;
        let first = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"];
        self.engine.address(&self.engine.run("balancer", &[&first, options].concat(), &image)?)
    }
}
