//! The comparison: Evenkeel beside nginx, HAProxy and Envoy on the same work, in one command.
//!
//!     cargo run --profile dist -p keel-bench -- --nginx /path/to/sbin/nginx
//!
//! Three peers answer fixed bodies. Each proxy runs with one worker, keep-alive on both sides and an equivalent
//! configuration; Evenkeel reads nginx's own. In every round each of them gets a few seconds of `wrk` for every kind of
//! work, one after the other in changing order, so that other load on the machine hits all alike. The comparison uses
//! the CPU time that the scheduler charged to all threads of all processes of a proxy, for each request, round by
//! round. The proxy has the last CPU to itself; `wrk` and the peers share the others. All of it happens in a network
//! namespace of its own, where that is allowed: the packet filters of the machine, such as a container engine's, cost every
//! proxy the same, and only hide how the proxies differ.

#![forbid(unsafe_code)]

mod chart;
mod cpus;
mod idle;
mod peers;
mod process;
mod proxy;
mod report;
mod statistics;
mod work;
mod wrk;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use keel_report::{Folder, machine::Machine};

use crate::{
    peers::Peers,
    proxy::{Kind, Proxy, Running},
    report::{ProxyInfo, Record, Sample},
    work::Work,
};

/// Work that is thrown away before the first round.
const WARM_UP_SECONDS: u32 = 1;

/// Compares Evenkeel with nginx, HAProxy and Envoy on the same work.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The Evenkeel to measure [default: the one built beside this program].
    #[arg(long, value_name = "PATH")]
    evenkeel: Option<PathBuf>,
    /// An nginx to compare with; may be given several times [default: nginx in PATH].
    #[arg(long, value_name = "PATH")]
    nginx: Vec<PathBuf>,
    /// The HAProxy to compare with [default: haproxy in PATH, if any].
    #[arg(long, value_name = "PATH")]
    haproxy: Option<PathBuf>,
    /// The Envoy to compare with [default: envoy in PATH, if any].
    #[arg(long, value_name = "PATH")]
    envoy: Option<PathBuf>,
    /// Measures only proxies whose name begins so; may be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Which kinds of work [default: all].
    #[arg(long, value_enum)]
    work: Vec<Work>,
    /// Rounds.
    #[arg(long, default_value_t = 9)]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Connections of `wrk`.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Idle connections for which memory is measured; 0 leaves that out.
    #[arg(long, default_value_t = 10_000)]
    idle: u32,
    /// Stays in the machine's network, with its packet filters.
    #[arg(long)]
    host_network: bool,
    /// Where the raw data is kept.
    #[arg(long, value_name = "FILE", default_value = "bench/results.json")]
    output: PathBuf,
    /// Where the chart is drawn.
    #[arg(long, value_name = "FILE", default_value = "bench/chart.svg")]
    chart: PathBuf,
    /// Also writes the report as Markdown, HTML and PDF into this folder.
    #[arg(long, value_name = "FOLDER")]
    pages: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reports on raw data that was kept, without measuring.
    Report {
        /// The raw data.
        file: PathBuf,
    },
    /// Answers as the peers do (what the comparison starts for itself).
    #[command(hide = true)]
    Peers {
        /// The unix sockets that they listen on, one each.
        sockets: Vec<PathBuf>,
    },
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.command {
        Some(Command::Peers { sockets }) => peers::serve(sockets),
        Some(Command::Report { file }) => {
            let text = fs::read(file).with_context(|| format!("{} can't be read", file.display()))?;
            finish(&serde_json::from_slice(&text)?, arguments)
        }
        None => {
            let record = measure(arguments)?;
            write(&arguments.output, &serde_json::to_vec_pretty(&record)?)?;
            finish(&record, arguments)
        }
    }
}

fn finish(record: &Record, arguments: &Arguments) -> anyhow::Result<()> {
    let document = report::document(record);
    print(&report::text(&document));
    write(&arguments.chart, keel_report::svg(&chart::draw(record)).as_bytes())?;
    let Some(folder) = &arguments.pages else { return Ok(()) };
    let mut pages = Folder::open(folder)?;
    pages.put("comparison.md", keel_report::markdown(&document))?;
    pages.put("comparison.html", keel_report::html(&document))?;
    pages.put("comparison.pdf", keel_report::pdf(&document))?;
    pages.put_pictures(&document)?;
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    fs::write(path, bytes).with_context(|| format!("{} can't be written", path.display()))
}

#[expect(clippy::print_stdout, reason = "the report is this program's output")]
fn print(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "progress goes to the terminal")]
fn progress(text: &str) {
    eprintln!("{text}");
}

/// Finds the proxies that are there.
fn proxies(arguments: &Arguments) -> anyhow::Result<Vec<Proxy>> {
    let mut found = Vec::new();
    let beside = std::env::current_exe()?.with_file_name("evenkeel");
    match arguments.evenkeel.clone().or_else(|| beside.exists().then_some(beside)) {
        Some(path) => found.push(Proxy::new(Kind::Evenkeel, path)?),
        None => progress("evenkeel is not built beside this program; measuring the others"),
    }
    let in_path = |name: &str| {
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .chain(["/usr/sbin".into()])
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
    };
    let mut nginx = arguments.nginx.clone();
    if nginx.is_empty() {
        nginx.extend(in_path("nginx"));
    }
    for path in nginx {
        found.push(Proxy::new(Kind::Nginx, path)?);
    }
    for (kind, given) in [(Kind::Haproxy, &arguments.haproxy), (Kind::Envoy, &arguments.envoy)] {
        match given.clone().or_else(|| in_path(kind.program())) {
            Some(path) => found.push(Proxy::new(kind, path)?),
            None => progress(&format!("{} is not in PATH; left out", kind.program())),
        }
    }
    if !arguments.only.is_empty() {
        found.retain(|proxy| arguments.only.iter().any(|name| proxy.name.starts_with(name)));
    }
    if found.is_empty() {
        bail!("there is no proxy to measure");
    }
    Ok(found)
}

fn measure(arguments: &Arguments) -> anyhow::Result<Record> {
    // First of all: what is started from here on is in that network, and the threads that exist are not.
    let own_network = !arguments.host_network && enter_own_network()?;
    let interrupted = process::Interrupted::watch()?;
    let folder = tempfile::tempdir()?;
    let wrk = wrk::Wrk::new(folder.path(), arguments.connections, arguments.seconds)?;
    let proxies = proxies(arguments)?;
    let work = if arguments.work.is_empty() { Work::ALL.to_vec() } else { arguments.work.clone() };
    let machine = Machine::read();
    let cpus = cpus::Cpus::split()?;
    cpus.use_others()?;
    // Workers that have dropped to another user connect to the peers' sockets in it.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let peers = Peers::start(folder.path())?;
    let start = |proxy: &Proxy| proxy.start(folder.path(), &peers, &cpus);
    let mut record = Record {
        machine,
        own_network,
        connections: arguments.connections,
        proxies: proxies
            .iter()
            .map(|proxy| ProxyInfo { name: proxy.name.clone(), version: proxy.version.clone() })
            .collect(),
        samples: Vec::new(),
        idle: Vec::new(),
    };
    let running: Vec<Running> = proxies.iter().map(start).collect::<anyhow::Result<_>>()?;
    for proxy in &running {
        work.iter().try_for_each(|work| proxy.check(*work))?;
        wrk.run(proxy.url(Work::Body100), Work::Body100, Some(WARM_UP_SECONDS))?;
    }
    for round in 0..arguments.rounds {
        for &work in &work {
            // Another one goes first each time.
            for index in 0..running.len() {
                let proxy = &running[(index + round as usize) % running.len()];
                interrupted.check()?;
                let sample = measure_once(proxy, work, round, &wrk)?;
                progress(&format!("round {} of {}: {sample}", round + 1, arguments.rounds));
                record.samples.push(sample);
            }
        }
    }
    drop(running);
    if arguments.idle > 0 {
        for proxy in &proxies {
            match idle::measure(&start(proxy)?, arguments.idle, &interrupted) {
                Ok(idle) => {
                    progress(&format!("{} idle connections: {idle}", arguments.idle));
                    record.idle.push(idle);
                }
                // What was measured before stays.
                Err(error) => {
                    interrupted.check()?;
                    progress(&format!("{} idle connections: not measured: {error:#}", arguments.idle));
                }
            }
        }
    }
    Ok(record)
}

/// False where it isn't allowed.
fn enter_own_network() -> anyhow::Result<bool> {
    const REMEDY: &str = "no network of its own: --host-network does without";
    match keel_sys::network::enter_own_network() {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            progress("a network of its own needs root: the machine's packet filters count");
            return Ok(false);
        }
        Err(error) => return Err(error).context(REMEDY),
    }
    keel_sys::network::bring_loopback_up().context(REMEDY)?;
    Ok(true)
}

fn measure_once(proxy: &Running, work: Work, round: u32, wrk: &wrk::Wrk) -> anyhow::Result<Sample> {
    let before = proxy.cpu_time()?;
    let result = wrk.run(proxy.url(work), work, None)?;
    let cpu = proxy.cpu_time()?.saturating_sub(before);
    if result.requests == 0 {
        bail!("{} answered nothing ({})", proxy.name(), work.title());
    }
    Ok(Sample { proxy: proxy.name().to_owned(), work, round, cpu_ns: u64::try_from(cpu.as_nanos())?, result })
}
