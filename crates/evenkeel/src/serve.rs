//! `evenkeel serve`, and the program called as `nginx`: nginx's command line.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{ArgAction, ValueEnum};
use keel_admin::{ControlSocket, ControlSocketError};
use keel_control::{
    Configuration, DefaultFolder, Ready, ServeObserver, ServeOptions, ServeSignal, Serving, chain,
};
use keel_diag::{Color, Diagnostic, Format, Severity, Sources};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::AbortHandle,
};

use crate::{
    control::Plain,
    detach::{self, Side, Word},
    log,
    terminal::{self, Stdout, say},
};

/// Signals that have come and not been acted on; the system joins further ones of a kind.
const SIGNALS_MAX: usize = 16;

/// The version of nginx whose directives, defaults and tests this program follows.
const NGINX_VERSION: &str = "1.31.5";

/// nginx's modules that it has unless it is built without them, each with a directive that stands for it.
const MODULES: &[(&str, &str)] = &[
    ("http_access_module", "allow"),
    ("http_auth_basic_module", "auth_basic"),
    ("http_autoindex_module", "autoindex"),
    ("http_browser_module", "ancient_browser"),
    ("http_charset_module", "charset"),
    ("http_empty_gif_module", "empty_gif"),
    ("http_fastcgi_module", "fastcgi_pass"),
    ("http_geo_module", "geo"),
    ("http_grpc_module", "grpc_pass"),
    ("http_gzip_module", "gzip"),
    ("http_limit_conn_module", "limit_conn"),
    ("http_limit_req_module", "limit_req"),
    ("http_map_module", "map"),
    ("http_memcached_module", "memcached_pass"),
    ("http_mirror_module", "mirror"),
    ("http_proxy_module", "proxy_pass"),
    ("http_referer_module", "valid_referers"),
    ("http_rewrite_module", "return"),
    ("http_scgi_module", "scgi_pass"),
    ("http_split_clients_module", "split_clients"),
    ("http_ssi_module", "ssi"),
    ("http_tunnel_module", "tunnel_pass"),
    ("http_upstream_hash_module", "hash"),
    ("http_upstream_ip_hash_module", "ip_hash"),
    ("http_upstream_keepalive_module", "keepalive"),
    ("http_upstream_least_conn_module", "least_conn"),
    ("http_upstream_least_time_module", "least_time"),
    ("http_upstream_random_module", "random"),
    ("http_upstream_sticky_module", "sticky"),
    ("http_upstream_zone_module", "zone"),
    ("http_userid_module", "userid"),
    ("http_uwsgi_module", "uwsgi_pass"),
];

/// Where files are when the program is called as `nginx` without `-p` and `-c`, as Debian has them.
const NGINX_PREFIX: &str = "/usr/share/nginx/";
const NGINX_CONF: &str = "/etc/nginx/nginx.conf";
const NGINX_ERROR_LOG: &str = "/var/log/nginx/error.log";

/// The words of a `resolver` for names of upstreams that have none: the container's image sets it.
const RESOLVER_VARIABLE: &str = "EVENKEEL_RESOLVER";

/// Which habits to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// `evenkeel serve`: files of this folder, full messages.
    Evenkeel,
    /// Called as `nginx`: its paths, its messages.
    Nginx,
}

#[derive(Debug, clap::Parser)]
#[command(disable_version_flag = true, disable_help_flag = true)]
pub(crate) struct Args {
    /// Show this help
    #[arg(short = 'h', long = "help", short_alias = '?', action = ArgAction::Help)]
    help: Option<bool>,
    /// Show the version and end
    #[arg(short = 'v')]
    version: bool,
    /// Show the version and what it is built with, and end
    #[arg(short = 'V')]
    version_full: bool,
    /// Test the configuration and end
    #[arg(short = 't')]
    test: bool,
    /// Test the configuration, print all its files and end
    #[arg(short = 'T')]
    test_and_dump: bool,
    /// Show errors only while testing
    #[arg(short = 'q')]
    quiet: bool,
    /// Send a signal to a running balancer
    #[arg(short = 's', value_name = "SIGNAL")]
    signal: Option<SignalName>,
    /// The folder that relative paths start from
    #[arg(short = 'p', value_name = "PREFIX")]
    prefix: Option<PathBuf>,
    /// The log for errors before, and in absence of, `error_log`
    #[arg(short = 'e', value_name = "FILE")]
    error_log: Option<PathBuf>,
    /// The configuration file
    #[arg(short = 'c', value_name = "FILE")]
    conf: Option<PathBuf>,
    /// Directives for the main context, besides the file's
    #[arg(short = 'g', value_name = "DIRECTIVES")]
    globals: Vec<String>,
    /// Where the control socket is, by which `evenkeel ps`, `peers` and `reload` reach this balancer; `off` for none
    /// [default: beside the pid file, as `nginx.control`]
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// How messages about the configuration look
    #[arg(long, value_enum)]
    format: Option<FormatName>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SignalName {
    Stop,
    Quit,
    Reopen,
    Reload,
}

/// How messages about a file look.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FormatName {
    /// With the lines of the file
    Human,
    /// One line each, as nginx writes them
    Short,
    /// JSON
    Json,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Human => Format::Human,
            FormatName::Short => Format::Short,
            FormatName::Json => Format::Json,
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: Args, style: Style) -> ExitCode {
    if args.version || args.version_full {
        print_version(args.version_full);
        return ExitCode::SUCCESS;
    }
    let side = detach::side();
    if side == Side::Detached {
        detach::enter();
    }
    let options = match args.options(style) {
        Ok(options) => options,
        Err(text) => {
            say!("nginx: [emerg] {text}");
            return ExitCode::from(2);
        }
    };
    let format = args.format.map_or_else(|| style.format(), Format::from);
    let read = options.read();
    if side == Side::Foreground {
        show(&read.diagnostics, &read.sources, format, args.quiet);
    }
    let testing = args.test || args.test_and_dump;
    if let Some(name) = args.signal.filter(|_| !testing) {
        return send_signal(name, &read);
    }
    let Some(ready) = read.ready else {
        if testing {
            say!("nginx: configuration file {} test failed", options.conf_path().display());
        }
        return ExitCode::from(if style == Style::Nginx { 1 } else { 2 });
    };
    if testing {
        let path = options.conf_path();
        if !args.quiet {
            say!("nginx: the configuration file {} syntax is ok", path.display());
        }
        // A start or reload goes on with it, as nginx does: the other sites serve.
        if read.diagnostics.iter().any(|found| found.code == keel_nginx::EXPIRED) {
            say!("nginx: configuration file {} test failed", path.display());
            return ExitCode::FAILURE;
        }
        if let Err(error) = ready.test_files() {
            say!("nginx: [emerg] {error}");
            say!("nginx: configuration file {} test failed", path.display());
            return ExitCode::FAILURE;
        }
        if !args.quiet {
            say!("nginx: configuration file {} test is successful", path.display());
        }
        return if args.test_and_dump { dump(&read.dump) } else { ExitCode::SUCCESS };
    }
    if ready.main.daemon && side == Side::Foreground {
        return detach::start_detached();
    }
    serve(&options, ready, Control::of(args.control, style), side)
}

impl Style {
    fn format(self) -> Format {
        match self {
            Style::Evenkeel => Format::Human,
            Style::Nginx => Format::Short,
        }
    }
}

impl Args {
    fn options(&self, style: Style) -> Result<ServeOptions, String> {
        let (prefix, conf, error_log) = match style {
            Style::Evenkeel => (std::env::current_dir().unwrap_or_default(), "nginx.conf", None),
            Style::Nginx => (NGINX_PREFIX.into(), NGINX_CONF, Some(NGINX_ERROR_LOG)),
        };
        let prefix = self.prefix.clone().unwrap_or(prefix);
        let prefix = std::path::absolute(&prefix).unwrap_or(prefix);
        let error_log = self.error_log.clone().or_else(|| error_log.map(PathBuf::from));
        let error_log = error_log.filter(|path| path.as_os_str() != "stderr").map(|path| prefix.join(path));
        let conf_path = prefix.join(self.conf.clone().unwrap_or_else(|| conf.into()));
        let nginx = keel_nginx::Options { prefix, conf_path, globals: self.globals.clone() };
        let resolver = std::env::var(RESOLVER_VARIABLE).ok().filter(|text| !text.trim().is_empty());
        let resolver = resolver.map(|text| {
            keel_nginx::parse_resolver(&text).map_err(|error| format!("{error} in {RESOLVER_VARIABLE}"))
        });
        let default_folder = match style {
            Style::Evenkeel => DefaultFolder::IsMade,
            Style::Nginx => DefaultFolder::MustBeThere,
        };
        Ok(ServeOptions { nginx, error_log, default_folder, resolver: resolver.transpose()? })
    }
}

fn print_version(full: bool) {
    say!("nginx version: nginx/{NGINX_VERSION} (evenkeel/{})", env!("CARGO_PKG_VERSION"));
    if full {
        // Programs that set up TLS for nginx look here for what the configuration may say.
        say!("built with OpenSSL 3.0.0 in name: rustls speaks TLS");
        say!("TLS SNI support enabled");
        say!("configure arguments: {}", configure_arguments().join(" "));
    }
}

/// Modules that nginx has only where it is asked for them, each with a directive of its own.
const OPTIONAL_MODULES: [(&str, &str); 11] = [
    ("http_addition_module", "add_before_body"),
    ("http_auth_request_module", "auth_request"),
    ("http_gunzip_module", "gunzip"),
    ("http_gzip_static_module", "gzip_static"),
    ("http_random_index_module", "random_index"),
    ("http_realip_module", "set_real_ip_from"),
    ("http_secure_link_module", "secure_link"),
    ("http_ssl_module", "ssl_certificate"),
    ("http_stub_status_module", "stub_status"),
    ("http_sub_module", "sub_filter"),
    ("http_v2_module", "http2"),
];

/// What `-V` shows as configure arguments, by which nginx's own tests know what to expect: the modules that are not
/// there, by the directives that have an effect.
fn configure_arguments() -> Vec<String> {
    let absent = MODULES.iter().filter(|(_, directive)| !keel_nginx::is_honoured(directive));
    let mut arguments = vec!["--with-threads".to_owned()];
    for (module, directive) in OPTIONAL_MODULES {
        if keel_nginx::is_honoured(directive) {
            arguments.push(format!("--with-{module}"));
        }
    }
    arguments.extend(absent.map(|(module, _)| format!("--without-{module}")));
    if !keel_nginx::is_honoured("proxy_cache") {
        arguments.push("--without-http-cache".to_owned());
    }
    arguments
}

/// Prints what is to be said about a configuration to standard error.
pub(crate) fn show(diagnostics: &[Diagnostic], sources: &Sources, format: Format, only_errors: bool) {
    let shown: Vec<Diagnostic> = diagnostics
        .iter()
        .filter(|diagnostic| !only_errors || diagnostic.severity == Severity::Error)
        .cloned()
        .collect();
    let colored =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let color = if colored { Color::Ansi } else { Color::None };
    terminal::say_text(&keel_diag::render(&shown, sources, format, color));
}

fn dump(files: &[(PathBuf, String)]) -> ExitCode {
    let mut out = Stdout::lock();
    for (path, text) in files {
        if let Err(error) = writeln!(out, "# configuration file {}:\n{text}", path.display()) {
            return crate::project::fail(&error.into());
        }
    }
    ExitCode::SUCCESS
}

fn send_signal(name: SignalName, read: &Configuration) -> ExitCode {
    let Some(ready) = &read.ready else { return ExitCode::FAILURE };
    let path = &ready.main.pid;
    let pid = match std::fs::read_to_string(path) {
        Ok(text) => text.trim().parse().ok().and_then(rustix::process::Pid::from_raw),
        Err(error) => {
            say!("nginx: [error] can't read the pid file {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    };
    let Some(pid) = pid else {
        say!("nginx: [error] invalid PID number in \"{}\"", path.display());
        return ExitCode::FAILURE;
    };
    let signal = match name {
        SignalName::Stop => rustix::process::Signal::TERM,
        SignalName::Quit => rustix::process::Signal::QUIT,
        SignalName::Reopen => rustix::process::Signal::USR1,
        SignalName::Reload => rustix::process::Signal::HUP,
    };
    match rustix::process::kill_process(pid, signal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say!("nginx: [alert] kill({}, {name:?}) failed: {error}", pid.as_raw_nonzero());
            ExitCode::FAILURE
        }
    }
}

/// Which control socket is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Control {
    Off,
    /// Beside the pid file, where one can be had.
    Usual,
    /// There, as long as nobody else is: nginx knows no such socket, and must start where nginx would.
    UsualIfFree,
    At(PathBuf),
}

impl Control {
    fn of(wanted: Option<PathBuf>, style: Style) -> Self {
        match (wanted, style) {
            (Some(path), _) if path.as_os_str() == "off" => Self::Off,
            (Some(path), _) => Self::At(path),
            (None, Style::Evenkeel) => Self::Usual,
            (None, Style::Nginx) => Self::UsualIfFree,
        }
    }

    /// Binds it.
    fn bind(&self, pid_file: &Path) -> Result<Option<ControlSocket>, ControlSocketError> {
        let path = match self {
            Self::Off => return Ok(None),
            Self::At(path) => path.clone(),
            Self::Usual | Self::UsualIfFree => pid_file.with_extension("control"),
        };
        match ControlSocket::bind(&path) {
            Ok(socket) => Ok(Some(socket)),
            Err(error @ ControlSocketError::Live { .. }) if *self != Self::UsualIfFree => Err(error),
            Err(error) if matches!(self, Self::At(_)) => Err(error),
            Err(error) => {
                tracing::info!("no control socket: {}", chain(&error));
                Ok(None)
            }
        }
    }
}

fn serve(options: &ServeOptions, ready: Ready, control: Control, side: Side) -> ExitCode {
    terminal::never_wait();
    let logs = log::to_error_logs();
    // The log may lie in one of them. What can't be made is said once serving begins.
    let folders = ready.create_folders();
    if folders.is_ok() {
        logs.set(&ready.plan.process.error_logs);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async {
            let signals = listen_for_signals()?;
            let socket = control.bind(&ready.main.pid)?;
            let mut observer = Observer { logs, side, socket, serves: None };
            Ok(keel_control::serve(options, ready, signals, &mut observer).await?)
        })
    });
    let code = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = chain(error.as_ref());
            tracing::error!("{text}");
            say!("nginx: [emerg] {text}");
            if let Some(ControlSocketError::Live { .. }) = error.downcast_ref() {
                say!("hint: end that one first, or give this one a socket of its own with --control");
            }
            ExitCode::FAILURE
        }
    };
    terminal::finish();
    code
}

struct Observer {
    logs: log::ErrorLogs,
    side: Side,
    socket: Option<ControlSocket>,
    /// The task that answers at it.
    serves: Option<AbortHandle>,
}

impl Observer {
    /// Answers at the control socket.
    fn answer(&mut self, serving: &Serving) {
        let Some(socket) = &self.socket else { return };
        let served = match socket.listener() {
            Ok(listener) => keel_admin::serve_balancer(listener, serving.clone(), Arc::new(Plain)),
            Err(error) => return tracing::error!("the control socket can't be served: {error}"),
        };
        let task = tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::error!("the control socket failed: {error}");
            }
        });
        self.serves = Some(task.abort_handle());
    }
}

impl ServeObserver for Observer {
    fn started(&mut self, serving: &Serving) {
        self.answer(serving);
        if self.side == Side::Detached
            && let Err(error) = detach::release(Word::Up, None)
        {
            tracing::warn!("can't let go of the terminal: {error}");
        }
    }

    fn ending(&mut self) {
        // Another may begin with the same files while this one finishes what it has.
        self.socket = None;
        if let Some(serves) = self.serves.take() {
            serves.abort();
        }
    }

    fn diagnosed(&mut self, diagnostics: &[Diagnostic], sources: &Sources) {
        show(diagnostics, sources, Format::Short, false);
        for line in keel_diag::render(diagnostics, sources, Format::Short, Color::None).lines() {
            tracing::error!("{}", line.trim_start_matches("nginx: "));
        }
    }

    fn applied(&mut self, ready: &Ready) {
        self.logs.set(&ready.plan.process.error_logs);
    }
}

fn listen_for_signals() -> std::io::Result<mpsc::Receiver<ServeSignal>> {
    let (sender, receiver) = mpsc::channel(SIGNALS_MAX);
    let kinds = [
        (SignalKind::hangup(), ServeSignal::Reload),
        (SignalKind::user_defined1(), ServeSignal::Reopen),
        (SignalKind::quit(), ServeSignal::Quit),
        (SignalKind::terminate(), ServeSignal::Stop),
        (SignalKind::interrupt(), ServeSignal::Stop),
    ];
    for (kind, meaning) in kinds {
        let mut stream = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(
            async move { while stream.recv().await.is_some() && sender.send(meaning).await.is_ok() {} },
        );
    }
    Ok(receiver)
}
