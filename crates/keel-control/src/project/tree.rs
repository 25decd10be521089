//! The paths of a balancer's configuration: its files as a tree that is never left, its logs and bodies on this host.
//!
//! `root`, `alias` and what is named below them are the container's paths, and stay so for `$document_root`. The data plane
//! looks them up in the layers of the container's files. An nginx.conf without a container is taken the same way: the
//! folders that it names are its mounts.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use keel_compose::{Layer, Origin, SeatFiles};
use keel_model::{
    AccessLog, AuthUserFile, ErrorDestination, ErrorLog, FileLayer, FileLayerKind, FileSource, FileTree,
    HostPlace, LogDestination, Part, Plan, Root, Scope, SyslogServer, Template,
};

use super::texts::SeatTexts;

/// Whose paths are placed.
#[derive(Clone, Copy)]
pub(super) struct Placement<'a> {
    /// The service, or what stands for it in the names of files.
    pub(super) seat: &'a str,
    /// Its files, if it would have a container.
    pub(super) files: Option<&'a SeatFiles>,
    /// The project's state folder.
    pub(super) state: &'a Path,
}

impl Placement<'_> {
    /// Puts the paths of a plan where they are on this host, and gives its servers their tree. What the container has for
    /// itself alone, its logs and the folders for bodies, goes below the state folder.
    pub(super) fn apply(&self, plan: &mut Plan, texts: &mut SeatTexts) {
        self.error_logs(&mut plan.process.error_logs);
        if plan.process.error_logs.is_empty() {
            let destination = ErrorDestination::File(self.log("error"));
            plan.process.error_logs = vec![ErrorLog { destination, level: keel_model::LogLevel::Error }];
        }
        let roots = roots(plan);
        for server in &mut plan.servers {
            server.files = FileSource::Tree(self.seat.to_owned());
            self.scope(&mut server.scope);
            self.locations(&mut server.locations);
        }
        let layers = match self.files {
            Some(files) => layers(files, &roots, texts),
            None => roots.iter().filter_map(|root| mounted(root)).collect(),
        };
        plan.trees.push(FileTree { name: self.seat.to_owned(), layers });
    }

    fn locations(&self, locations: &mut [keel_model::Location]) {
        for location in locations {
            self.scope(&mut location.scope);
            location.rewrite.scopes_mut().into_iter().for_each(|scope| self.scope(scope));
            self.locations(&mut location.locations);
        }
    }

    fn scope(&self, scope: &mut Scope) {
        scope.core.client_body_temp_path = self.state.join("spool/client_body");
        for (module, settings) in scope.all_peer_settings() {
            settings.temp_path = self.state.join("spool").join(module);
        }
        self.error_logs(&mut scope.core.error_logs);
        for log in &mut scope.log.logs {
            self.access_log(log);
        }
        if let Some(except) = &mut scope.core.limit_except {
            self.scope(&mut except.scope);
        }
    }

    fn access_log(&self, log: &mut AccessLog) {
        let path = match &mut log.destination {
            LogDestination::File(path) => path.as_literal().and_then(|path| self.mounted(Path::new(path))),
            LogDestination::Syslog(syslog) => match self.reach(&syslog.server) {
                Some(server) => {
                    syslog.server = server;
                    return;
                }
                None => None,
            },
            LogDestination::Stdout | LogDestination::Stderr => None,
        };
        let path = path.unwrap_or_else(|| self.log("access"));
        log.destination = LogDestination::File(Template::literal(path.to_string_lossy()));
    }

    fn error_logs(&self, logs: &mut [ErrorLog]) {
        for log in logs {
            let path = match &mut log.destination {
                ErrorDestination::File(path) => self.mounted(path),
                ErrorDestination::Syslog(syslog) => match self.reach(&syslog.server) {
                    Some(server) => {
                        syslog.server = server;
                        continue;
                    }
                    None => None,
                },
                ErrorDestination::Stderr => None,
            };
            log.destination = ErrorDestination::File(path.unwrap_or_else(|| self.log("error")));
        }
    }

    /// Where a syslog server of the container is on this host; none for a socket that isn't mounted.
    fn reach(&self, server: &SyslogServer) -> Option<SyslogServer> {
        match server {
            SyslogServer::Unix(path) => self.mounted(path).map(SyslogServer::Unix),
            SyslogServer::Udp(_) | SyslogServer::Name { .. } => Some(server.clone()),
        }
    }

    /// The place of a log in a folder that is mounted, without links: it is opened beneath that folder.
    fn mounted(&self, container: &Path) -> Option<PathBuf> {
        let files = self.files?;
        let HostPlace { folder, below } = files.host_place(&files.place(container)?);
        Some(folder.join(below))
    }

    /// Where the log goes that the image sends to the container's output.
    fn log(&self, kind: &str) -> PathBuf {
        self.state.join(format!("{}.{kind}.log", self.seat))
    }
}

/// What is read while requests are served: the folders that `root` and `alias` name, up to their first variable, and files
/// of users.
fn roots(plan: &Plan) -> BTreeSet<PathBuf> {
    let users = plan.scopes().into_iter().filter_map(|scope| scope.auth_basic.user_file.as_ref());
    let users = users.map(AuthUserFile::fixed_part);
    let named = plan.scopes().into_iter().map(|scope| match &scope.core.root {
        Root::Root(template) | Root::Alias(template) => match template.parts.as_slice() {
            [Part::Literal(path)] => PathBuf::from(path),
            [Part::Literal(path), ..] => {
                PathBuf::from(path.rsplit_once('/').map_or("/", |(folder, _)| folder))
            }
            _ => PathBuf::from("/"),
        },
    });
    named.chain(users).collect()
}

/// A folder of this host at its own path. One that holds everything is named by nobody.
fn mounted(root: &Path) -> Option<FileLayer> {
    root.parent()?;
    let folder = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let place = match (folder.is_file(), folder.parent(), folder.file_name()) {
        (true, Some(above), Some(name)) => HostPlace { folder: above.to_owned(), below: name.into() },
        _ => HostPlace { folder, below: PathBuf::new() },
    };
    Some(FileLayer { path: root.to_owned(), kind: FileLayerKind::Mounted, place: Some(place) })
}

/// The layers of a container. Texts that lie where nothing is served from, secrets for example, stay away.
fn layers(files: &SeatFiles, roots: &BTreeSet<PathBuf>, texts: &mut SeatTexts) -> Vec<FileLayer> {
    let is_served = |path: &Path| roots.iter().any(|root| path.starts_with(root));
    let layers = files.entries.iter().filter_map(|entry| {
        let kind = match &entry.layer {
            Layer::Copied(_) | Layer::Removed => FileLayerKind::Copied,
            Layer::Mounted(_) => FileLayerKind::Mounted,
        };
        let place = match entry.layer.origin() {
            None => None,
            Some(Origin::Host(host)) => Some(files.host_place(host)),
            Some(Origin::Text(text)) if is_served(&entry.container) => Some(texts.add(text)),
            Some(Origin::Text(_)) => return None,
        };
        Some(FileLayer { path: entry.container.clone(), kind, place })
    });
    layers.collect()
}
