//! The Compose file that the drill lays over the project's own: other ports, the ledger, and peers of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use keel_model::Run;

use super::{Ground, ROLE, Setup};
use crate::{
    Error,
    peer::{self, Script},
    subject::Subject,
};

/// What becomes of the project's builds: the first system of a drill does them for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Builds {
    Done,
    LeftOut,
}

/// What makes the additional Compose file.
pub(super) struct Override<'a> {
    pub(super) subject: &'a Subject,
    pub(super) ground: &'a Ground,
    pub(super) setup: &'a Setup,
    pub(super) ledger: &'a Path,
    pub(super) folder: &'a Path,
    pub(super) conf: &'a Path,
    pub(super) peer_port: Option<u16>,
}

impl Override<'_> {
    /// Writes the file.
    pub(super) fn text(
        &self,
        listeners: &BTreeMap<u16, SocketAddr>,
        builds: Builds,
    ) -> Result<String, Error> {
        let seat = self.subject.seat();
        let peer_image =
            match (&self.setup.peers, self.subject.services.iter().any(|one| one.image.is_some())) {
                (Some(_), true) => Some(PeerImage::of(self.ground)?),
                _ => None,
            };
        let mut services: BTreeMap<&str, String> = BTreeMap::new();
        let has_seat = self.subject.joined.seat.is_some();
        let published: Vec<String> = listeners
            .iter()
            .map(|(listen, address)| (if has_seat { *listen } else { address.port() }, address))
            .map(|(listen, address)| quoted(&format!("{address}:{listen}")))
            .collect();
        let mut lines = format!("    ports: !override [{}]\n", published.join(", "));
        if !has_seat {
            lines.push_str("    image: nginx\n");
        }
        // Writing to a String can't fail.
        _ = writeln!(
            lines,
            "    volumes: [{}]",
            quoted(&format!("{}:/etc/nginx/nginx.conf:ro", self.conf.display()))
        );
        services.insert(seat, lines);
        for name in &self.subject.publishing {
            services.entry(name).or_default().push_str("    ports: !reset []\n");
        }
        for service in &self.subject.services {
            let lines = services.entry(&service.name).or_default();
            let port = self.peer_port.unwrap_or(service.port);
            if let Some(port) = self.peer_port {
                _ = writeln!(lines, "    expose: !override [{}]", quoted(&port.to_string()));
            }
            _ = writeln!(lines, "    environment: {{LEDGER: {}}}", quoted(&self.ledger.to_string_lossy()));
            if let Some(image) = &service.image {
                lines.push_str(&self.container(port, image, peer_image.as_ref())?);
                continue;
            }
            match &self.setup.peers {
                Some(script) => {
                    let command = self.peer_command(script, port)?;
                    _ = writeln!(lines, "    x-process: !override {{command: {}}}", quoted(&command));
                    lines.push_str(&self.healthcheck(script, port));
                }
                None if builds == Builds::LeftOut => lines.push_str("    x-process: {build: !reset null}\n"),
                None => {}
            }
        }
        for service in &self.subject.joined.services {
            let driver = match service.run {
                Run::Container(_) => "docker",
                Run::Process(_) => "process",
                Run::External(_) => continue,
            };
            _ = writeln!(services.entry(&service.name.0).or_default(), "    x-driver: {driver}");
        }
        let services: String =
            services.iter().map(|(name, lines)| format!("  {}:\n{lines}", quoted(name))).collect();
        Ok(format!("# Written by `evenkeel drill` on top of the project's own files.\nservices:\n{services}"))
    }

    /// Writes what is different in a container: the ledger is mounted, images are shared by all systems of a drill and with
    /// the project itself, and peers are in an image of their own.
    fn container(&self, port: u16, image: &str, peers: Option<&PeerImage>) -> Result<String, Error> {
        let folder = self.folder.to_string_lossy();
        let mut lines = format!("    volumes: [{}]\n", quoted(&format!("{folder}:{folder}")));
        let (Some(script), Some(peers)) = (&self.setup.peers, peers) else {
            _ = writeln!(lines, "    image: {}", quoted(image));
            return Ok(lines);
        };
        let words = self.peer_words(script, port)?;
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        _ = writeln!(
            lines,
            "    image: {}\n    build: !override {{context: {}, dockerfile_inline: \"FROM scratch\\nCOPY . /\\n\"}}\n    \
             entrypoint: !override [{}]\n    command: !reset null\n    working_dir: /\n    user: !reset null",
            quoted(&peers.name),
            quoted(&peers.context.to_string_lossy()),
            words.join(", ")
        );
        lines.push_str(&self.healthcheck(script, port));
        Ok(lines)
    }

    /// Writes how it is known that a peer is ready: when it says so, where it listens before; else when it listens.
    fn healthcheck(&self, script: &Script, port: u16) -> String {
        if !script.says_when_ready() {
            return "    healthcheck: !override {disable: true}\n".to_owned();
        }
        let words =
            [&*self.ground.program.to_string_lossy(), peer::READY_COMMAND, &port.to_string()].map(quoted);
        let words = words.join(", ");
        format!(
            "    healthcheck: !override {{test: [CMD, {words}], interval: 1s, timeout: 10s, retries: 3, start_period: 1m}}\n"
        )
    }

    fn peer_command(&self, script: &Script, port: u16) -> Result<String, Error> {
        let words = self.peer_words(script, port)?;
        shlex::try_join(words.iter().map(String::as_str))
            .map_err(|_| Error::Project("this program's path can't be written in a Compose file".to_owned()))
    }

    fn peer_words(&self, script: &Script, port: u16) -> Result<[String; 3], Error> {
        let order = peer::Order {
            script: script.clone(),
            port,
            ledger: self.ledger.to_owned(),
            role: self.folder.join(ROLE),
        };
        let order =
            serde_json::to_string(&order).map_err(|error| Error::io("a peer's order", error.into()))?;
        Ok([self.ground.program.to_string_lossy().into_owned(), peer::COMMAND.to_owned(), order])
    }
}

/// An image with nothing but this program, and the libraries that it has loaded, where they are on this host.
#[derive(Debug)]
struct PeerImage {
    name: String,
    context: PathBuf,
}

impl PeerImage {
    /// Puts its content together, once for a drill. Its name differs from one build of the program to the next.
    fn of(ground: &Ground) -> Result<Self, Error> {
        let io = |source| Error::io("the image for peers can't be put together", source);
        let program = ground.program.canonicalize().map_err(io)?;
        let changed = std::fs::metadata(&program).and_then(|meta| meta.modified()).map_err(io)?;
        let changed = changed.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        let context = ground.work.join("peer-image");
        let image = Self { name: format!("evenkeel-drill-peer:{changed}"), context };
        if image.context.exists() {
            return Ok(image);
        }
        image.put(&program, &ground.program).map_err(io)?;
        let maps = std::fs::read_to_string("/proc/self/maps").map_err(io)?;
        let loaded: BTreeSet<&Path> =
            maps.lines().filter_map(|line| line.split_ascii_whitespace().nth(5)).map(Path::new).collect();
        for library in loaded.into_iter().filter(|path| path.to_string_lossy().contains(".so")) {
            image.put(library, library).map_err(io)?;
            let name = library.file_name().unwrap_or_default().to_string_lossy();
            // The loader is asked for under a path that is a link here.
            if name.starts_with("ld-") {
                for folder in ["/lib64", "/lib"] {
                    image.put(library, &Path::new(folder).join(&*name)).map_err(io)?;
                }
            }
        }
        Ok(image)
    }

    fn put(&self, file: &Path, place: &Path) -> std::io::Result<()> {
        let place = self.context.join(place.strip_prefix("/").unwrap_or(place));
        std::fs::create_dir_all(place.parent().unwrap_or(&self.context))?;
        std::fs::copy(file, place).map(drop)
    }
}

/// Quotes a text for YAML; a dollar sign begins a variable in Compose files.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text.replace('$', "$$")).to_string()
}
