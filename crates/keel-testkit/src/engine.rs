//! A container engine, where one answers: a network of its own, images without a base, containers that are removed.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, ensure};
use tempfile::TempDir;

/// A network and what was made in it. All of it is removed when dropped.
#[derive(Debug)]
pub struct Engine {
    name: String,
    made: Mutex<Vec<Made>>,
}

#[derive(Debug)]
enum Made {
    Container(String),
    Image(String),
}

impl Engine {
    /// Makes a network in the engine, or gives `None` where no engine answers: the test then says that it isn't run.
    ///
    /// # Errors
    /// When the engine makes no network.
    pub fn find() -> anyhow::Result<Option<Self>> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let version = Command::new("docker")
            .args(["version", "--format", "{{.Server.Version}}"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let answers = version.is_ok_and(|status| status.success());
        if !answers {
            return Ok(None);
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let engine =
            Self { name: format!("keel-test-{}-{number}", std::process::id()), made: Mutex::default() };
        engine.docker(&["network", "create", &engine.name])?;
        Ok(Some(engine))
    }

    /// Finds the engine for a test, and says that the test can't run where there is none.
    ///
    /// # Errors
    /// As [`Engine::find`].
    pub fn for_test() -> anyhow::Result<Option<Self>> {
        let engine = Self::find()?;
        if engine.is_none() {
            crate::not_run("no container engine answers here");
        }
        Ok(engine)
    }

    /// The network's name, with which all names begin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs the engine's command line and gives what it printed.
    ///
    /// # Errors
    /// When it fails; the message has what it said.
    pub fn docker(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new("docker")
            .args(arguments)
            .env("DOCKER_BUILDKIT", "0")
            .stdin(Stdio::null())
            .output()
            .context("can't run docker")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "docker {}: {said}", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Builds an image of nothing but these files, and the libraries that the programs among them load. `lines` are
    /// further lines of its Dockerfile.
    ///
    /// # Errors
    /// When a file can't be read or the engine can't build.
    pub fn image(&self, name: &str, files: &[(&Path, &str)], lines: &str) -> anyhow::Result<String> {
        let context = TempDir::new()?;
        let root = context.path().join("root");
        for (file, place) in files {
            put(file, &root.join(place.trim_start_matches('/')))?;
            for library in libraries(file)? {
                put(&library, &root.join(library.strip_prefix("/")?))?;
            }
        }
        // The engine's cache must not find what another test is about to remove.
        std::fs::create_dir_all(&root)?;
        std::fs::write(root.join(".made-for"), &self.name)?;
        std::fs::write(context.path().join("Dockerfile"), format!("FROM scratch\nCOPY root /\n{lines}\n"))?;
        let tag = format!("{}-{name}", self.name);
        let folder = context.path().to_str().context("the folder's path is text")?;
        self.docker(&["build", "-q", "-t", &tag, folder])?;
        self.note(Made::Image(tag.clone()));
        Ok(tag)
    }

    /// Runs a container of an image in the network and gives its name.
    ///
    /// # Errors
    /// When it doesn't start.
    pub fn run(&self, name: &str, options: &[&str], image: &str) -> anyhow::Result<String> {
        let name = format!("{}-{name}", self.name);
        self.note(Made::Container(name.clone()));
        let first = ["run", "-d", "--name", &name, "--network", &self.name];
        self.docker(&[&first, options, &[image]].concat())?;
        Ok(name)
    }

    /// A container's address in the network.
    ///
    /// # Errors
    /// When it has none.
    pub fn address(&self, container: &str) -> anyhow::Result<std::net::IpAddr> {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let text = self.docker(&["inspect", "--format", format, container])?;
        text.parse().with_context(|| format!("{container} has the address `{text}`"))
    }

    /// What a container has printed.
    ///
    /// # Errors
    /// When there is no such container.
    pub fn logs(&self, container: &str) -> anyhow::Result<String> {
        let output = Command::new("docker").args(["logs", container]).output()?;
        ensure!(output.status.success(), "docker logs {container} failed");
        Ok([output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat())
    }

    /// Runs a program of this host inside a container's network, whose rules and queues it may change.
    ///
    /// # Errors
    /// When it fails, as where the program isn't there or this isn't root; the message has what it said.
    pub fn inside(&self, container: &str, command: &[&str]) -> anyhow::Result<()> {
        let pid = self.docker(&["inspect", "--format", "{{.State.Pid}}", container])?;
        let output = Command::new("nsenter").args(["-n", "-t", &pid, "--"]).args(command).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {}", command.join(" "), said.trim());
        Ok(())
    }

    fn note(&self, made: Made) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(made);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        for made in made.iter().rev() {
            if let Made::Container(name) = made
                && std::thread::panicking()
            {
                let logs = self.logs(name).unwrap_or_default();
                eprintln!("--- {name}\n{logs}");
            }
            // What never came to be can't be removed.
            drop(match made {
                Made::Container(name) => self.docker(&["rm", "-f", "-v", name]),
                Made::Image(tag) => self.docker(&["rmi", "-f", tag]),
            });
        }
        drop(self.docker(&["network", "rm", &self.name]));
    }
}

fn put(file: &Path, place: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(place.parent().context("is in a folder")?)?;
    std::fs::copy(file, place).with_context(|| format!("can't copy {}", file.display()))?;
    Ok(())
}

/// The libraries that a program loads, its loader included; none where it is no program or a static one.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("can't run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let words = text.split_ascii_whitespace().filter(|word| word.starts_with('/'));
    Ok(words.map(PathBuf::from).filter(|path| path.is_file()).collect())
}
