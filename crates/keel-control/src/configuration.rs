//! One nginx.conf, read and made ready to serve without a Compose file.

use std::path::{Path, PathBuf};

use keel_diag::{Diagnostic, Severity, Sources};
use keel_model::{ErrorLog, LogLevel, Plan, Resolver, User};
use keel_nginx::{HostFiles, Loaded, MainSettings, Options};
use keel_sys::user::user_by_name;

use crate::{
    discovery::Names,
    peers::{Binding, Pools},
    resolve::{Known, bind},
};

/// Where a configuration is and what the command line adds.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where nginx.conf is, and the directives of `-g`.
    pub nginx: Options,
    /// The log for what is said before, and in absence of, an `error_log` directive (`-e`); `None` for standard error.
    pub error_log: Option<PathBuf>,
    /// Follows the names of upstreams that have no resolver of their own.
    pub resolver: Option<Resolver>,
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
            diagnostics.extend(settle_user(&mut plan, &configuration.main, MissingUser::IsAnError));
            if plan.process.error_logs.is_empty() {
                plan.process.error_logs =
                    vec![ErrorLog { path: self.error_log.clone(), level: LogLevel::Error }];
            }
            Ready { main: configuration.main, plan, bindings }
        });
        let failed = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
        Configuration { sources, diagnostics, dump, ready: ready.filter(|_| !failed) }
    }

    /// Gives the path of the configuration file, absolute if the prefix is.
    pub fn conf_path(&self) -> PathBuf {
        self.nginx.prefix.join(&self.nginx.conf_path)
    }
}

/// Fills in the peers of every upstream that a binding names.
pub(crate) fn fill_peers(plan: &mut Plan, bindings: &[Binding], pools: &Pools, names: &Names) {
    for upstream in &mut plan.upstreams {
        if let Some(binding) = bindings.iter().find(|binding| binding.upstream == upstream.name) {
            upstream.peers = binding.peer_set(pools, names);
        }
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
pub(crate) fn create_temp_folders(plan: &Plan) -> std::io::Result<()> {
    let mut folders: Vec<&Path> = plan
        .scopes()
        .into_iter()
        .flat_map(|scope| [scope.core.client_body_temp_path.as_path(), scope.proxy.temp_path.as_path()])
        .collect();
    folders.sort();
    folders.dedup();
    for folder in folders {
        std::fs::create_dir_all(folder)?;
        if let Some(user) = &plan.process.user {
            std::os::unix::fs::chown(folder, Some(user.uid), Some(user.gid))?;
        }
    }
    Ok(())
}
