//! What reading a configuration gives.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf};

use keel_diag::{Diagnostic, Severity, Sources, Span};
use keel_model::{ErrorLog, Peer, Plan, ProcessSettings, Resolver, UpstreamName};

use crate::{
    directives::{core::UserText, events::Connections, syslog::SyslogName},
    files::Files,
    include::{self, Text},
    reader::{Frame, Reader},
};

/// Which configuration to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Where relative paths begin, those of `include` excepted, which begin beside the configuration file (`-p`).
    pub prefix: PathBuf,
    /// The configuration file (`-c`); a relative path begins at the prefix.
    pub conf_path: PathBuf,
    /// Directives from the command line (`-g`), read before the file.
    pub globals: Vec<String>,
}

/// A configuration, if it can be used, and everything that was found wrong.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// `None` if any diagnostic is an error, but for the one that no server can be reached for want of TLS: such a
    /// configuration has no listener, and who has something else to run may go on.
    pub configuration: Option<Configuration>,
    /// In the order they were found.
    pub diagnostics: Vec<Diagnostic>,
    /// The files in the order they were read, each once, for `-T`.
    pub dump: Vec<(PathBuf, String)>,
}

/// A configuration that can be used, once its peers' names are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Settings of the supervisor.
    pub main: MainSettings,
    /// What the data plane does. Its peer sets are empty and its generation is 0.
    pub plan: Plan,
    /// Who is in the upstreams: in the order of [`Plan::upstreams`].
    pub upstreams: Vec<UpstreamSource>,
    /// Names of syslog servers in the plan, to be looked up.
    pub syslog_names: Vec<SyslogName>,
}

/// Settings of the main context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MainSettings {
    /// `daemon`, default on.
    pub daemon: bool,
    /// `master_process`, default on.
    pub master_process: bool,
    /// `pid`, default `logs/nginx.pid`; absolute.
    pub pid: PathBuf,
    /// `lock_file`, default `logs/nginx.lock`; absolute.
    pub lock_file: PathBuf,
    /// `error_log`; empty if there is none.
    pub error_logs: Vec<ErrorLog>,
    /// The logs that `http` itself names, whether a server writes to them or not.
    pub http_logs: Vec<PathBuf>,
    /// `user`.
    pub user: Option<UserText>,
    /// `env`: names, and values where they are set.
    pub env: Vec<(String, Option<String>)>,
    /// `worker_processes`, default 1. [`ProcessSettings::workers`] has it as a number.
    pub worker_processes: WorkerProcesses,
}

/// `worker_processes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerProcesses {
    /// One for each core.
    Auto,
    /// So many, at least 1.
    Count(u32),
}

/// Who is in an upstream, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSource {
    /// Its name.
    pub name: UpstreamName,
    /// The `upstream` line, or the `proxy_pass`.
    pub span: Span,
    /// Its `server` lines.
    pub servers: Vec<ServerEntry>,
    /// What made it.
    pub origin: UpstreamOrigin,
    /// Who is asked for names while requests are served: its own `resolver`, or that of `http`.
    pub resolver: Option<Resolver>,
}

/// What makes an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamOrigin {
    /// An `upstream` block.
    Block,
    /// A `proxy_pass` to an address.
    Address,
    /// A `proxy_pass` with variables, of which the file says that they may come to this. Nobody need know the name.
    Variables,
}

/// A peer, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerEntry {
    /// Where it is.
    pub address: ServerAddress,
    /// The address as written.
    pub text: String,
    /// Its parameters. Where the address is a name, its key's address is unspecified and the resolver's to replace.
    pub peer: Peer,
    /// The `server` line, or the `proxy_pass`.
    pub span: Span,
    /// Whether its name is looked up again and again (`resolve`).
    pub resolve: bool,
    /// What a Service of a cluster calls its port (`service=name`), in place of a number.
    pub port_name: Option<String>,
}

/// Where a peer is, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerAddress {
    /// An address.
    Ip(SocketAddr),
    /// A name to resolve.
    Name {
        /// The name as written.
        host: String,
        /// The port, 80 if none is written.
        port: u16,
    },
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// No server of the configuration can be reached.
pub(crate) const UNREACHABLE: &str = "nginx::unreachable-server";

/// Reads a configuration. Texts go to `sources`, which the diagnostics point into.
pub fn load(options: &Options, files: &dyn Files, sources: &mut Sources) -> Loaded {
    let Text { directives, mut diagnostics, dump } = include::read_all(options, files, sources);
    let conf_path = options.prefix.join(&options.conf_path);
    let conf_folder = conf_path.parent().unwrap_or(&options.prefix);
    let mut reader = Reader::new(&options.prefix, conf_folder, files, sources);
    reader.walk(&directives);
    let readable = diagnostics.iter().all(|found| found.severity != Severity::Error);
    if !reader.frame.events.present && readable {
        let found = Diagnostic::error("nginx::missing-events", "no `events` block")
            .help(format!("add `events {{}}` to {}", conf_path.display()))
            .nginx("no \"events\" section in configuration");
        reader.diagnostics.push(found);
    }
    let connections = reader.frame.events.worker_connections;
    let (main, plan, upstreams) = finish(&mut reader);
    let syslog_names = std::mem::take(&mut reader.http.syslog_names);
    if let Some(connections) = connections {
        check_connections(&mut reader, connections, plan.listeners.len());
    }
    diagnostics.append(&mut reader.diagnostics);
    let mut diagnostics = keel_diag::fold(diagnostics);
    let is_error = |found: &&Diagnostic| found.severity == Severity::Error;
    let usable = diagnostics.iter().filter(is_error).all(|found| found.code == UNREACHABLE);
    if usable && plan.listeners.is_empty() && !diagnostics.iter().any(|found| found.code == UNREACHABLE) {
        let message = format!("{} has no listener: nobody can connect", conf_path.display());
        let found = Diagnostic::warning("nginx::no-listener", message);
        diagnostics.push(found.help("add a `server` block with a `listen` directive inside `http`"));
    }
    let configuration = usable.then_some(Configuration { main, plan, upstreams, syslog_names });
    Loaded { configuration, diagnostics, dump }
}

/// Refuses fewer connections than nginx's workers need: one for each listener and one more.
fn check_connections(reader: &mut Reader<'_>, connections: Connections, listeners: usize) {
    let Connections { count, span } = connections;
    if usize::try_from(count).is_ok_and(|count| count <= listeners) {
        let message = format!("{count} `worker_connections` are not enough for {listeners} listeners");
        let found = Diagnostic::error("nginx::worker-connections", message)
            .at(span, format!("needs to be {} at least", listeners + 1))
            .nginx(format!("{count} worker_connections are not enough for {listeners} listening sockets"));
        reader.diagnostics.push(found);
    }
}

fn finish(reader: &mut Reader<'_>) -> (MainSettings, Plan, Vec<UpstreamSource>) {
    let lowered = std::mem::take(&mut reader.http.lowered);
    let Frame { core, events, .. } =
        std::mem::replace(&mut reader.frame, Frame::new(crate::registry::Contexts::MAIN, None));
    let worker_processes = core.worker_processes.unwrap_or(WorkerProcesses::Count(1));
    let default = ProcessSettings::default();
    let process = ProcessSettings {
        workers: match worker_processes {
            WorkerProcesses::Count(count) => count,
            WorkerProcesses::Auto => {
                let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
                u32::try_from(cores).unwrap_or(u32::MAX)
            }
        },
        worker_connections: events
            .worker_connections
            .map_or(default.worker_connections, |connections| connections.count),
        error_logs: core.error_logs.clone(),
        shutdown_timeout: core.shutdown_timeout,
        open_files_max: core.open_files_max,
        ..default
    };
    let plan = Plan {
        generation: 0,
        process,
        listeners: lowered.listeners,
        servers: lowered.servers,
        upstreams: lowered.upstreams,
        variables: std::mem::take(&mut reader.http.names.defined),
        charset_maps: std::mem::take(&mut reader.http.charset_maps),
        trees: Vec::new(),
        ticket_seed: keel_model::Secret::default(),
    };
    let main = MainSettings {
        daemon: core.daemon.unwrap_or(true),
        master_process: core.master_process.unwrap_or(true),
        pid: core.pid.unwrap_or_else(|| reader.absolute("logs/nginx.pid")),
        lock_file: core.lock_file.unwrap_or_else(|| reader.absolute("logs/nginx.lock")),
        error_logs: core.error_logs,
        http_logs: lowered.outer_logs,
        user: core.user,
        env: core.env,
        worker_processes,
    };
    (main, plan, lowered.sources)
}
