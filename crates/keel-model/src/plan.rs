//! What the data plane is told to do, whole.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    AccessLog, CharsetMap, DefinedVariable, FileTree, Listener, Location, LogDestination, LogLevel, Scope,
    Secret, Syslog, Upstream, VirtualServer,
};

/// One configuration of the data plane, complete and checked. Indices (`ServerId`, `VariableId`) point into it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Counts configurations from 1; the data plane reports it back.
    pub generation: u64,
    /// Settings of the process, of which only logs may change at a reload.
    pub process: ProcessSettings,
    /// All listening sockets.
    pub listeners: Vec<Listener>,
    /// All virtual servers.
    pub servers: Vec<VirtualServer>,
    /// All upstreams, those made for literal `proxy_pass` addresses included.
    pub upstreams: Vec<Upstream>,
    /// All variables that the configuration defines.
    pub variables: Vec<DefinedVariable>,
    /// How text in one charset is written in another.
    pub charset_maps: Vec<CharsetMap>,
    /// The files of the containers in whose place servers are; each has a name of its own.
    pub trees: Vec<FileTree>,
    /// What keys of session tickets are made of, the same for as long as the supervisor lives.
    pub ticket_seed: Secret,
}

impl Plan {
    /// Gives every scope: of each server, then of its locations and of `limit_except` and `if` in them, outer before inner.
    pub fn scopes(&self) -> Vec<&Scope> {
        fn walk<'a>(locations: &'a [Location], scopes: &mut Vec<&'a Scope>) {
            for location in locations {
                scopes.push(&location.scope);
                scopes.extend(location.scope.core.limit_except.as_deref().map(|except| &except.scope));
                scopes.extend(location.rewrite.scopes());
                walk(&location.locations, scopes);
            }
        }
        let mut scopes = Vec::new();
        for server in &self.servers {
            scopes.push(&server.scope);
            walk(&server.locations, &mut scopes);
        }
        scopes
    }

    /// Changes every scope: of each server, of its locations, and of `limit_except` and `if` in them.
    pub fn for_each_scope(&mut self, change: &mut dyn FnMut(&mut Scope)) {
        fn walk(locations: &mut [Location], change: &mut dyn FnMut(&mut Scope)) {
            for location in locations {
                change(&mut location.scope);
                if let Some(except) = &mut location.scope.core.limit_except {
                    change(&mut except.scope);
                }
                for scope in location.rewrite.scopes_mut() {
                    change(scope);
                }
                walk(&mut location.locations, change);
            }
        }
        for server in &mut self.servers {
            change(&mut server.scope);
            walk(&mut server.locations, change);
        }
    }

    /// Changes every syslog server that a log goes to.
    pub fn for_each_syslog(&mut self, mut change: impl FnMut(&mut Syslog)) {
        fn walk(locations: &mut [Location], change: &mut dyn FnMut(&mut Syslog)) {
            for location in locations {
                in_scope(&mut location.scope, change);
                for scope in location.rewrite.scopes_mut() {
                    in_scope(scope, change);
                }
                walk(&mut location.locations, change);
            }
        }
        fn in_scope(scope: &mut Scope, change: &mut dyn FnMut(&mut Syslog)) {
            in_errors(&mut scope.core.error_logs, change);
            for log in &mut scope.log.logs {
                if let LogDestination::Syslog(syslog) = &mut log.destination {
                    change(syslog);
                }
            }
        }
        fn in_errors(logs: &mut [ErrorLog], change: &mut dyn FnMut(&mut Syslog)) {
            for log in logs {
                if let ErrorDestination::Syslog(syslog) = &mut log.destination {
                    change(syslog);
                }
            }
        }
        in_errors(&mut self.process.error_logs, &mut change);
        for server in &mut self.servers {
            in_scope(&mut server.scope, &mut change);
            walk(&mut server.locations, &mut change);
        }
    }

    /// Gives the folders of this host that the trees' files are in, each once.
    pub fn tree_folders(&self) -> Vec<PathBuf> {
        let places = self.trees.iter().flat_map(|tree| &tree.layers).filter_map(|layer| layer.place.as_ref());
        let mut folders: Vec<PathBuf> = places.map(|place| place.folder.clone()).collect();
        folders.sort();
        folders.dedup();
        folders
    }

    /// Gives the paths of all log files that don't depend on a request, each once.
    pub fn log_paths(&self) -> Vec<PathBuf> {
        let scopes = self.scopes();
        let errors = self.process.error_logs.iter();
        let errors = errors.chain(scopes.iter().flat_map(|scope| &scope.core.error_logs));
        let errors = errors.filter_map(|log| log.fixed_path().map(PathBuf::from));
        let access = scopes.iter().flat_map(|scope| &scope.log.logs).filter_map(AccessLog::fixed_path);
        let mut paths: Vec<PathBuf> = errors.chain(access).collect();
        paths.sort();
        paths.dedup();
        paths
    }
}

impl AccessLog {
    /// Gives the file it is written to, unless that depends on the request.
    pub fn fixed_path(&self) -> Option<PathBuf> {
        match &self.destination {
            LogDestination::File(path) => path.as_literal().map(PathBuf::from),
            LogDestination::Stdout | LogDestination::Stderr | LogDestination::Syslog(_) => None,
        }
    }
}

/// Settings of the data-plane process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSettings {
    /// Worker threads, at least 1 (`worker_processes`).
    pub workers: u32,
    /// Connections that one worker holds at most, both sides counted (`worker_connections`). Default 512.
    pub worker_connections: u32,
    /// User and group to become, when started by root (`user`).
    pub user: Option<User>,
    /// Where the data plane logs (`error_log`). Empty means standard error.
    pub error_logs: Vec<ErrorLog>,
    /// How long tunnels and clients may go on after a shutdown began (`worker_shutdown_timeout`); `None` for ever.
    pub shutdown_timeout: Option<std::time::Duration>,
    /// Limit of open files to set (`worker_rlimit_nofile`).
    pub open_files_max: Option<u64>,
}

impl Default for ProcessSettings {
    fn default() -> Self {
        Self {
            workers: 1,
            worker_connections: 512,
            user: None,
            error_logs: Vec::new(),
            shutdown_timeout: None,
            open_files_max: None,
        }
    }
}

/// A user and group by number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// One destination of the error log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorLog {
    /// Where to.
    pub destination: ErrorDestination,
    /// The least severe level written.
    pub level: LogLevel,
}

/// Where an error log goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorDestination {
    /// Standard error.
    Stderr,
    /// A file; a relative path has been made absolute with the prefix.
    File(PathBuf),
    /// A syslog server.
    Syslog(Syslog),
}

impl ErrorLog {
    /// The file it is written to, if it is one.
    pub fn fixed_path(&self) -> Option<&Path> {
        match &self.destination {
            ErrorDestination::File(path) => Some(path),
            ErrorDestination::Stderr | ErrorDestination::Syslog(_) => None,
        }
    }
}
