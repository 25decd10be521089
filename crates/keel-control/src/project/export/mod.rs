//! A project for a cluster: both files as what an orchestrator is given, instead of being run here.
//!
//! The seat's nginx.conf is read as for a run here, but stays as it is: names in it are names of the cluster's.

#[cfg(feature = "kubernetes")]
mod kubernetes;
mod swarm;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use keel_compose::{PortMapping, Project, RunPlace, Service, balancer_seats};
use keel_diag::{Diagnostic, Severity, Sources};
use keel_model::Protocol;
use keel_nginx::{Configuration, Files, HostFiles, ServerAddress};

use super::{
    ProjectOptions,
    direct::{DirectPort, direct_configuration},
    joined::Written,
    seat::ImageFiles,
    seats::{self, Balancer},
};

#[cfg(feature = "kubernetes")]
pub use kubernetes::KubernetesOptions;
pub use swarm::SwarmOptions;

/// The folder of nginx's files in Evenkeel's image.
const NGINX_FOLDER: &str = "/etc/nginx";
/// Where Evenkeel's image looks for its configuration.
const NGINX_CONF: &str = "/etc/nginx/nginx.conf";

/// Files to write, and what is to be said.
#[derive(Clone, Debug, Default)]
pub struct Exported {
    /// The texts that the diagnostics point into.
    pub sources: Sources,
    /// What is wrong with the files, and what the cluster can't be told.
    pub diagnostics: Vec<Diagnostic>,
    /// The files, in the order in which they count.
    pub files: Vec<ExportedFile>,
}

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedFile {
    /// Its path below the folder.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
    /// Who may read it.
    pub readers: Readers,
    /// Whether it is one of the objects, or only says which there are.
    pub part: Part,
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Everybody.
    All,
    /// Its owner: it holds a secret.
    Owner,
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It is applied.
    Object,
    /// It names the others.
    Index,
}

impl Exported {
    /// Tells whether the files have errors.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|one| one.severity == Severity::Error)
    }
}

/// A project as it is read for a cluster.
struct Reading {
    project: Project,
    seat: Option<Seat>,
}

/// The balancer's seat, read.
struct Seat {
    /// Its service; `None` where there is none.
    service: Option<String>,
    configuration: Configuration,
    /// The files that nginx.conf consists of, by their paths in the container.
    files: BTreeMap<PathBuf, String>,
    /// The words after `nginx`.
    arguments: Vec<String>,
    /// The published ports of other services that it serves.
    direct: Vec<PortMapping>,
}

impl ProjectOptions {
    /// Reads the files for a cluster; `None` where they have errors that concern the whole.
    fn read_for_cluster(&self, exported: &mut Exported) -> Option<Reading> {
        let options = keel_compose::Options { place: RunPlace::Cluster, ..self.compose.clone() };
        let loaded = keel_compose::load(&options, &mut exported.sources);
        exported.diagnostics = loaded.diagnostics;
        let project = loaded.project.filter(|project| project.sound)?;
        let seat = read_seat(&project, exported);
        Some(Reading { seat: seat?, project })
    }
}

/// Reads the seat's configuration; the outer `None` says that it has errors.
fn read_seat(project: &Project, exported: &mut Exported) -> Option<Option<Seat>> {
    let volumes = BTreeMap::new();
    let services = balancer_seats(project).into_iter().filter(|service| !service.faulty);
    let mut found: Vec<Balancer<'_>> = services
        .map(|service| Balancer::read(&project.name, service, &volumes, &mut exported.sources))
        .collect();
    if let Some(chosen) = seats::choose(project, &found) {
        let mut balancer = found.swap_remove(chosen);
        exported.diagnostics.append(&mut balancer.diagnostics);
        let configuration = balancer.configuration.take()?;
        return Some(Some(seat_of(&balancer, configuration)));
    }
    if project.folder.join("nginx.conf").exists() {
        return loose_seat(project, exported).map(Some);
    }
    Some(direct_seat(project, exported))
}

fn seat_of(balancer: &Balancer<'_>, configuration: Configuration) -> Seat {
    let invocation = &balancer.image.invocation;
    let recorder = Recorder::of(ImageFiles { files: &balancer.image.files });
    let options = keel_nginx::Options {
        prefix: invocation.prefix.clone(),
        conf_path: invocation.conf_path.clone(),
        globals: invocation.globals.clone(),
    };
    // What is wrong with them has been said.
    keel_nginx::load(&options, &recorder, &mut Sources::default());
    let mut arguments = Vec::new();
    if invocation.conf_path != Path::new(NGINX_CONF) {
        arguments.extend(["-c".to_owned(), invocation.conf_path.to_string_lossy().into_owned()]);
    }
    Seat {
        service: Some(balancer.service.name.value.clone()),
        configuration,
        files: without_own(recorder.files.into_inner()),
        arguments: with_globals(arguments, &invocation.globals),
        direct: Vec::new(),
    }
}

/// The container's process is the balancer itself.
fn with_globals(mut arguments: Vec<String>, globals: &[String]) -> Vec<String> {
    for directives in globals {
        arguments.extend(["-g".to_owned(), directives.clone()]);
    }
    if !globals.iter().any(|directives| directives.contains("daemon ")) {
        arguments.extend(["-g".to_owned(), "daemon off;".to_owned()]);
    }
    arguments
}

/// Takes out what Evenkeel's image has anyway. A folder other than the main one is mounted whole and hides the image's, so
/// that it needs all of its files.
fn without_own(mut files: BTreeMap<PathBuf, String>) -> BTreeMap<PathBuf, String> {
    let texts = [keel_nginx::IMAGE_NGINX_CONF, keel_nginx::IMAGE_DEFAULT_CONF];
    let is_own = |text: &String| texts.contains(&text.as_str());
    let given: BTreeSet<PathBuf> = files
        .iter()
        .filter(|(_, text)| !is_own(text))
        .filter_map(|(path, _)| path.parent().map(Path::to_owned))
        .collect();
    files.retain(|path, text| {
        let folder = path.parent().unwrap_or(path);
        !is_own(text) || (folder != Path::new(NGINX_FOLDER) && given.contains(folder))
    });
    files
}

/// Reads an nginx.conf that lies beside the Compose file and that no service mounts.
fn loose_seat(project: &Project, exported: &mut Exported) -> Option<Seat> {
    let recorder = Recorder::of(HostFiles);
    let options = keel_nginx::Options {
        prefix: project.folder.clone(),
        conf_path: project.folder.join("nginx.conf"),
        globals: Vec::new(),
    };
    let loaded = keel_nginx::load(&options, &recorder, &mut exported.sources);
    exported.diagnostics.extend(loaded.diagnostics);
    let mut files = BTreeMap::new();
    for (path, text) in recorder.files.into_inner() {
        match path.strip_prefix(&project.folder) {
            Ok(below) => drop(files.insert(Path::new(NGINX_FOLDER).join(below), text)),
            Err(_) => exported.diagnostics.push(Diagnostic::error(
                "export::outside",
                format!("{} lies outside of the project: it isn't taken along", path.display()),
            )),
        }
    }
    Some(Seat {
        service: None,
        configuration: loaded.configuration?,
        files,
        arguments: with_globals(Vec::new(), &[]),
        direct: Vec::new(),
    })
}

/// Balances published ports where there is no nginx.conf: those of services that are built or have several instances, as
/// on this machine. A single ready-made image, a database as a rule, may speak something else than HTTP.
fn direct_seat(project: &Project, exported: &mut Exported) -> Option<Seat> {
    let is_balanced = |service: &&Service| {
        service.enabled && !service.faulty && (service.build.is_some() || service.replicas() > 1)
    };
    let mut ports = Vec::new();
    let mut direct = Vec::new();
    for service in project.services.values().filter(is_balanced) {
        for mapping in service.ports.iter().filter(|mapping| mapping.protocol == Protocol::Tcp) {
            let Some(range) = mapping.published else { continue };
            ports.push(DirectPort {
                service: service.name.value.clone(),
                target: mapping.target,
                listen: vec![range.first.to_string()],
            });
            direct.push(mapping.clone());
        }
    }
    if ports.is_empty() {
        return None;
    }
    let text = direct_configuration(&ports);
    let options = keel_nginx::Options {
        prefix: NGINX_FOLDER.into(),
        conf_path: NGINX_CONF.into(),
        globals: Vec::new(),
    };
    let loaded = keel_nginx::load(&options, &Written(&text), &mut exported.sources);
    exported.diagnostics.extend(loaded.diagnostics);
    Some(Seat {
        service: None,
        configuration: loaded.configuration?,
        files: [(NGINX_CONF.into(), text)].into(),
        arguments: with_globals(Vec::new(), &[]),
        direct,
    })
}

impl Seat {
    /// The mappings of published ports that it serves.
    fn published<'a>(&'a self, project: &'a Project) -> &'a [PortMapping] {
        let service = self.service.as_ref().and_then(|name| project.services.get(name));
        service.map_or(&self.direct, |service| &service.ports)
    }

    /// The names that requests are passed to, each with its ports.
    fn upstreams(&self) -> BTreeMap<String, BTreeSet<u16>> {
        let mut upstreams = BTreeMap::<String, BTreeSet<u16>>::new();
        for server in self.configuration.upstreams.iter().flat_map(|upstream| &upstream.servers) {
            if let ServerAddress::Name { host, port } = &server.address {
                upstreams.entry(host.clone()).or_default().insert(*port);
            }
        }
        upstreams
    }

    #[cfg(feature = "kubernetes")]
    fn listens(&self) -> BTreeSet<u16> {
        self.configuration.plan.listeners.iter().map(|listener| listener.declared_port).collect()
    }
}

/// Files that note what was read of them.
struct Recorder<F> {
    inner: F,
    files: RefCell<BTreeMap<PathBuf, String>>,
}

impl<F> Recorder<F> {
    fn of(inner: F) -> Self {
        Self { inner, files: RefCell::default() }
    }
}

impl<F: Files> Files for Recorder<F> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let content = self.inner.read(path)?;
        if let Ok(text) = std::str::from_utf8(&content) {
            self.files.borrow_mut().insert(path.to_owned(), text.to_owned());
        }
        Ok(content)
    }

    fn glob(&self, pattern: &Path) -> Vec<PathBuf> {
        self.inner.glob(pattern)
    }

    fn shown(&self, path: &Path) -> PathBuf {
        self.inner.shown(path)
    }
}
