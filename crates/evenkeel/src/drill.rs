//! `evenkeel drill`: plays failure cases on this project under load and says what was lost.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use keel_admin::api::FileChoice;
use keel_control::project::ProjectOptions;
use keel_drill::{
    CASES, CaseNews, Ended, Options, Stop,
    nginx::{Manner, Nginx},
    report,
    results::Results,
    terminal,
};

use crate::{project::ProjectArgs, terminal::Unhurried};

/// `drill`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Say which cases there are
    #[arg(long)]
    list: bool,
    /// What runs the instances: process, docker or auto, as in `up`
    #[arg(long, value_name = "DRIVER", value_parser = ["process", "docker", "auto"])]
    driver: Option<String>,
    /// Play this case; may be given several times
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Requests of each case, about
    #[arg(long, value_name = "COUNT")]
    requests: Option<u32>,
    /// Client connections at most
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    connections: u32,
    /// Requests each second
    #[arg(long, value_name = "COUNT")]
    rate: Option<f64>,
    /// What the order of events comes from; the same seed plays the same again
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Fewer requests at a lower rate, and samples where a case is exhaustive
    #[arg(long)]
    short: bool,
    /// The path to ask for, instead of the shortest that is balanced
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Folder for results and report
    #[arg(long, value_name = "FOLDER", default_value = "drill")]
    out: PathBuf,
    /// Play everything with this in Evenkeel's place, too, on the same instances, and put all side by side
    #[arg(long, value_enum, value_name = "PROXY")]
    proxy: Option<Proxy>,
    /// The nginx to try
    #[arg(long, value_name = "PATH", default_value = "nginx")]
    nginx: PathBuf,
    /// Play one case with this wrk as the load generator, too, and compare its count with what instances received
    #[arg(long, value_name = "WRK", num_args = 0..=1, default_missing_value = "wrk",
        conflicts_with_all = ["list", "cases", "proxy", "requests"])]
    reconcile: Option<PathBuf>,
    /// Where the system listens
    #[arg(long, value_name = "ADDRESS", hide = true)]
    listen: Option<std::net::SocketAddr>,
    /// Where clients connect instead
    #[arg(long, value_name = "ADDRESS", hide = true)]
    via: Option<std::net::SocketAddr>,
}

/// What a drill may try in Evenkeel's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Proxy {
    /// nginx: with the files as they are, and as an expert runs it
    Nginx,
}

/// What a helper of a drill is told.
#[derive(Debug, clap::Args)]
pub(crate) struct OrderArgs {
    order: String,
}

/// Which peer is asked.
#[derive(Debug, clap::Args)]
pub(crate) struct PortArgs {
    port: u16,
}

/// Runs the command.
pub(crate) fn run(project: &ProjectArgs, args: &Args) -> anyhow::Result<ExitCode> {
    let mut out = Unhurried;
    let outcome = run_telling(project, args, &mut out);
    out.finish();
    outcome
}

fn run_telling(project: &ProjectArgs, args: &Args, out: &mut Unhurried) -> anyhow::Result<ExitCode> {
    if args.list {
        for case in CASES {
            writeln!(out, "{:<20} {}", case.name, case.what)?;
            if !case.allows.is_empty() {
                writeln!(out, "{:<20} allowed: {}", "", case.allows)?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let driver = args.driver.as_deref().map(str::parse).transpose()?;
    let options = args.options(ProjectOptions::from(FileChoice { driver, ..project.choice()? }))?;
    if let Some(wrk) = &args.reconcile {
        let reconciled = keel_drill::reconcile::run(&options, wrk)?;
        std::fs::create_dir_all(&args.out)?;
        let file = args.out.join("reconciled.md");
        std::fs::write(&file, reconciled.markdown())?;
        write!(out, "{}", reconciled.markdown())?;
        writeln!(out, "written to {}", file.display())?;
        return Ok(if reconciled.agrees() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let mut played = vec![play(&options, &args.out, out)?];
    if args.proxy == Some(Proxy::Nginx) {
        for (manner, folder) in [(Manner::AsIs, "nginx-as-is"), (Manner::Expert, "nginx-expert")] {
            let nginx = Some(Nginx { path: args.nginx.clone(), manner });
            played.push(play(&Options { nginx, ..options.clone() }, &args.out.join(folder), out)?);
        }
        let written = report::compare(&played, &args.out)?;
        writeln!(out, "side by side: {} files in {}", written.len(), args.out.display())?;
    }
    let is_clean = played.iter().all(Results::is_clean);
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plays a drill, tells of it as it runs, and writes its report, also where it ended before its last case.
fn play(options: &Options, folder: &Path, out: &mut impl Write) -> anyhow::Result<Results> {
    let shows_progress = io::stderr().is_terminal();
    write!(out, "{}", terminal::head())?;
    let Ended { results, error } = keel_drill::run(options, |told| {
        // Without a terminal there is nobody to tell; the results are kept.
        drop(match told {
            CaseNews::Begins(case) if shows_progress => {
                keel_telemetry::stderr().push(format!("{} ...\r", case.name).as_bytes());
                Ok(())
            }
            CaseNews::Begins(_) => Ok(()),
            CaseNews::Ended(case) => write!(out, "{}", terminal::row(case)),
        });
    })?;
    let written = report::write(&results, folder)?;
    write!(out, "{}", terminal::summary(&results))?;
    writeln!(out, "{} files in {}", written.len(), folder.display())?;
    match error {
        Some(error) => Err(error.into()),
        None => Ok(results),
    }
}

/// Generates load. Only a drill starts it.
pub(crate) fn load() -> anyhow::Result<ExitCode> {
    keel_drill::generator::run()?;
    Ok(ExitCode::SUCCESS)
}

/// Is a peer. Only a drill's system starts it.
pub(crate) fn peer(args: &OrderArgs) -> anyhow::Result<ExitCode> {
    keel_drill::peer::run(&args.order)?;
    Ok(ExitCode::SUCCESS)
}

/// Asks a peer whether it is ready. Only a drill's system starts it.
pub(crate) fn ready(args: &PortArgs) -> anyhow::Result<ExitCode> {
    keel_drill::peer::ask_ready(args.port)?;
    Ok(ExitCode::SUCCESS)
}

/// Is a guard. Only a drill starts it.
pub(crate) fn guard(args: &OrderArgs) -> anyhow::Result<ExitCode> {
    keel_drill::guard::run(&args.order)?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn options(&self, project: ProjectOptions) -> anyhow::Result<Options> {
        let stop = Stop::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // The second one ends at once.
            signal_hook::flag::register_conditional_shutdown(signal, 130, stop.flag())?;
            signal_hook::flag::register(signal, stop.flag())?;
        }
        let (requests, rate) = if self.short { (600, 400.0) } else { (4000, 1000.0) };
        Ok(Options {
            project,
            program: keel_control::own_program(),
            cases: self.cases.clone(),
            requests: self.requests.unwrap_or(requests),
            connections: self.connections.max(1),
            rate: self.rate.filter(|rate| rate.is_finite() && *rate > 0.0).unwrap_or(rate),
            seed: self
                .seed
                .unwrap_or_else(|| u64::from(jiff::Timestamp::now().subsec_nanosecond().unsigned_abs())),
            nginx: None,
            is_short: self.short,
            path: self.path.clone(),
            listen: self.listen,
            via: self.via,
            stop,
        })
    }
}
