//! One nginx.conf, read and made ready to serve without a Compose file.

use std::{
    fs::OpenOptions,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use keel_diag::{Diagnostic, Severity, Sources};
use keel_model::{Address, ErrorDestination, ErrorLog, LogLevel, Plan, Resolver, User};
use keel_nginx::{HostFiles, Loaded, MainSettings, Options};
use keel_sys::user::user_by_name;

use crate::{
    located::Names,
    peers::{Binding, Pools, fill_peers},
    resolve::{Known, bind, settle_syslog},
    resolvers::{Surroundings, settle_resolvers},
    sockets::test_bind,
    traffic::{LogReaders, open_log},
};

/// The folder of the prefix where the pid file and the logs lie that the configuration doesn't name.
const DEFAULT_FOLDER: &str = "logs";

/// Where a configuration is and what the command line adds.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where nginx.conf is, and the directives of `-g`.
    pub nginx: Options,
    /// The log for what is said before, and in absence of, an `error_log` directive (`-e`); `None` for standard error.
    pub error_log: Option<PathBuf>,
    /// What becomes of the folder that nginx's default paths lead to when it isn't there.
    pub default_folder: DefaultFolder,
    /// Follows the names of upstreams that have no resolver of their own.
    pub resolver: Option<Resolver>,
}

/// What becomes of the prefix's folder `logs` when something is to be written to it and it isn't there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultFolder {
    /// It is made.
    IsMade,
    /// What lies in it can't be opened, as with nginx, whose installation makes it.
    MustBeThere,
}

/// A file, folder or address that serving needs and that can't be had.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A file that can't be opened.
    #[error("open() \"{}\" failed ({})", path.display(), errno_text(error))]
    Open {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// An address that no socket can have.
    #[error("bind() to {address} failed ({})", errno_text(error))]
    Bind {
        /// Which.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// A folder that can't be made.
    #[error("mkdir() \"{}\" failed ({})", path.display(), errno_text(error))]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

/// Writes an error as nginx does: `2: No such file or directory`.
fn errno_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    match error.raw_os_error() {
        Some(number) => format!("{number}: {text}"),
        None => text.to_owned(),
    }
}

/// What came of reading a configuration. All diagnostics are there, whether it can be used or not.
#[derive(Debug)]
pub struct Configuration {
    /// The texts that the diagnostics point into.
    pub sources: Sources,
    /// Everything that is to be said about them.
    pub diagnostics: Vec<Diagnostic>,
    /// The files in the order they were read, for `-T`.
    pub dump: Vec<(PathBuf, String)>,
    /// What can be served; `None` if there is any error.
    pub ready: Option<Ready>,
}

/// A configuration without errors.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Settings of the master process.
    pub main: MainSettings,
    /// The data plane's plan. Peers of followed names are filled in when they are known.
    pub plan: Plan,
    /// What each upstream's servers stand for.
    pub bindings: Vec<Binding>,
    /// The prefix's folder `logs`, if it is to be made where it is needed.
    default_folder: Option<PathBuf>,
}

impl Ready {
    /// Makes the folder `logs` if something is to be written to it, and those for request and response bodies.
    ///
    /// # Errors
    /// The first that can't be made.
    pub fn create_folders(&self) -> Result<(), FileError> {
        if let Some(path) = self.missing_folder() {
            let made = std::fs::create_dir_all(path);
            made.map_err(|error| FileError::Folder { path: path.to_owned(), error })?;
        }
        create_temp_folders(&self.plan)
    }

    /// Opens what serving opens, as nginx does when it tests a configuration: the pid file and the logs, which are
    /// made where they are missing, and the folders for bodies; and binds its addresses for a moment. What `logs` would hold is left alone while serving
    /// would make that folder first.
    ///
    /// # Errors
    /// The first that can't be had.
    pub fn test_files(&self) -> Result<(), FileError> {
        let missing = self.missing_folder();
        let is_there = |path: &Path| missing.is_none() || path.parent() != missing;
        let pid = self.main.pid.as_path();
        // The first process of a container has no need of the file.
        if is_there(pid) && std::process::id() != 1 {
            let opened = OpenOptions::new().create(true).truncate(false).write(true).open(pid);
            opened.map_err(|error| FileError::Open { path: pid.to_owned(), error })?;
        }
        create_temp_folders(&self.plan)?;
        let logs = self.plan.log_paths().into_iter().chain(self.main.http_logs.clone());
        for path in logs.filter(|path| is_there(path)) {
            open_log(&path, self.plan.process.user.as_ref(), LogReaders::Everybody)
                .map_err(|error| FileError::Open { path, error })?;
        }
        for listener in &self.plan.listeners {
            if let Address::Tcp(address) = listener.address {
                let bound = test_bind(address, &listener.options);
                bound.map_err(|error| FileError::Bind { address, error })?;
            }
        }
        Ok(())
    }

    /// The folder `logs` if something is to be written to it, it isn't there, and serving would make it.
    fn missing_folder(&self) -> Option<&Path> {
        let folder = self.default_folder.as_deref().filter(|folder| !folder.exists())?;
        let logs = self.plan.log_paths();
        let mut paths = logs.iter().chain([&self.main.pid]);
        paths.any(|path| path.parent() == Some(folder)).then_some(folder)
    }
}

impl ServeOptions {
    /// Reads the configuration and resolves its names.
    pub fn read(&self) -> Configuration {
        let mut sources = Sources::default();
        let Loaded { configuration, mut diagnostics, dump } =
            keel_nginx::load(&self.nginx, &HostFiles, &mut sources);
        let ready = configuration.map(|configuration| {
            let known = Known { resolver: self.resolver.clone(), ..Known::default() };
            let (bindings, problems) = bind(&configuration.upstreams, &known);
            diagnostics.extend(problems);
            let mut plan = configuration.plan;
            fill_peers(&mut plan, &bindings, &Pools::new(), &Names::new());
            diagnostics.extend(settle_syslog(&mut plan, &configuration.syslog_names, &known));
            diagnostics.extend(settle_resolvers(&mut plan, &known, Surroundings::AsWritten));
            diagnostics.extend(settle_user(&mut plan, &configuration.main, MissingUser::IsAnError));
            let default_folder = match self.default_folder {
                DefaultFolder::IsMade => Some(self.nginx.prefix.join(DEFAULT_FOLDER)),
                DefaultFolder::MustBeThere => None,
            };
            if plan.process.error_logs.is_empty() {
                // Nobody reads standard error of what has gone to the background.
                let unread = default_folder.as_ref().filter(|_| configuration.main.daemon);
                let path = self.error_log.clone().or_else(|| Some(unread?.join("error.log")));
                let destination = path.map_or(ErrorDestination::Stderr, ErrorDestination::File);
                plan.process.error_logs = vec![ErrorLog { destination, level: LogLevel::Error }];
            }
            Ready { main: configuration.main, plan, bindings, default_folder }
        });
        let failed = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
        Configuration { sources, diagnostics, dump, ready: ready.filter(|_| !failed) }
    }

    /// The path of the configuration file, absolute if the prefix is.
    pub fn conf_path(&self) -> PathBuf {
        self.nginx.prefix.join(&self.nginx.conf_path)
    }
}

/// What a `user` that this host doesn't have means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MissingUser {
    /// As in nginx: the configuration can't be used.
    IsAnError,
    /// The name belongs to a container's image; the data plane runs as `nobody`.
    MeansNobody,
}

/// Decides whom the data plane becomes. Without root nobody can be become, and `user` is ignored as in nginx.
pub(crate) fn settle_user(plan: &mut Plan, main: &MainSettings, missing: MissingUser) -> Option<Diagnostic> {
    plan.process.user = None;
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let (wanted, group) =
        main.user.as_ref().map_or(("nobody", None), |user| (&user.name, user.group.as_deref()));
    let account = user_by_name(wanted).ok().flatten();
    let account = match missing {
        MissingUser::MeansNobody => account.or_else(|| user_by_name("nobody").ok().flatten()),
        MissingUser::IsAnError => account,
    };
    let gid = group.map(|group| keel_sys::user::group_by_name(group).ok().flatten());
    match (account, gid, &main.user) {
        (Some(account), None, _) => plan.process.user = Some(user(&account, account.gid)),
        (Some(account), Some(Some(gid)), _) => plan.process.user = Some(user(&account, gid)),
        (Some(account), Some(None), _) if missing == MissingUser::MeansNobody => {
            plan.process.user = Some(user(&account, account.gid));
        }
        (_, _, Some(setting)) => {
            let message = format!("this host has no user `{wanted}`, or not the group that is named with it");
            return Some(
                Diagnostic::error("nginx::unknown-user", message)
                    .at(setting.span, "the data plane can't become this user")
                    .help("create it, or name one that `getent passwd` shows")
                    .nginx(format!("getpwnam(\"{wanted}\") failed")),
            );
        }
        // No `nobody` on this host and none asked for: stay root, as there is nobody to become.
        (_, _, None) => {
            tracing::warn!("this host has no user `nobody`: the data plane keeps running as root")
        }
    }
    None
}

fn user(account: &keel_sys::user::Account, gid: u32) -> User {
    User { name: account.name.clone(), uid: account.uid, gid }
}

/// Creates the folders that bodies are spooled to, as nginx does at its start.
pub(crate) fn create_temp_folders(plan: &Plan) -> Result<(), FileError> {
    let mut folders: Vec<&Path> = plan
        .scopes()
        .into_iter()
        .flat_map(|scope| {
            let responses = scope.peer_settings().map(|settings| settings.temp_path.as_path());
            let always = [&scope.core.client_body_temp_path, &scope.proxy.upstream.temp_path];
            responses.into_iter().chain(always.map(|path| path.as_path()))
        })
        .collect();
    folders.sort();
    folders.dedup();
    for folder in folders {
        let mut made = std::fs::create_dir_all(folder);
        if let (Ok(()), Some(user)) = (&made, &plan.process.user) {
            made = std::os::unix::fs::chown(folder, Some(user.uid), Some(user.gid));
        }
        made.map_err(|error| FileError::Folder { path: folder.to_owned(), error })?;
    }
    Ok(())
}
