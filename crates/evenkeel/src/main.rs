//! Evenkeel runs a service's instances and balances requests over them without losing one.
//!
//! This file only finds out which command is meant; each command is one file.

#![forbid(unsafe_code)]

mod color;
mod config;
mod control;
mod data_plane;
mod detach;
mod doctor;
#[cfg(feature = "drill")]
mod drill;
mod exec;
mod explain;
mod export;
mod healthcheck;
mod instances;
mod linger;
mod list;
mod log;
mod logs;
mod output;
mod peers;
mod project;
mod ps;
mod serve;
mod terminal;
#[cfg(feature = "up")]
mod up;

use std::{ffi::OsString, path::Path, process::ExitCode};

use clap::{Parser, Subcommand};

use project::ProjectArgs;

/// What a connection needs lives for as long as it does, and comes in a few sizes: this keeps them at hand.
#[global_allocator]
static ALLOCATOR: keel_sys::allocator::Mimalloc = keel_sys::allocator::Mimalloc;

/// Runs a service's instances and balances requests over them without losing one
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    project: ProjectArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the project of this folder, or apply what has changed in its files
    #[cfg(feature = "up")]
    Up(up::Args),
    /// Stop everything: listeners first, then instances
    Down(instances::DownArgs),
    /// List the instances
    Ps(ps::Args),
    /// Show what instances write
    Logs(logs::Args),
    /// Start instances that are stopped, or services that no profile enables
    Start(instances::NamesArgs),
    /// Take instances out of the pool, let their requests finish, then stop them
    Stop(instances::DrainArgs),
    /// Replace instances one by one: the new one first
    Restart(instances::DrainArgs),
    /// Send a signal to instances, without draining
    Kill(instances::KillArgs),
    /// Set how many instances a service has
    Scale(instances::ScaleArgs),
    /// Run a command in an instance
    Exec(exec::ExecArgs),
    /// Run a command in a new instance of a service
    Run(exec::RunArgs),
    /// Read the files again and apply what has changed
    Reload(instances::ReloadArgs),
    /// List the peers of each upstream, with what the balancer knows of them
    Peers(peers::Args),
    /// Print the joined, resolved plan
    Config(config::Args),
    /// Write the project as manifests for a cluster
    Export(export::Args),
    /// Play failure cases on a copy of the project under load, and say what was lost
    #[cfg(feature = "drill")]
    Drill(Box<drill::Args>),
    /// Generate load for the drill that started this process
    #[cfg(feature = "drill")]
    #[command(name = keel_drill::LOAD_COMMAND, hide = true)]
    DrillLoad,
    /// End the system of the drill that started this process, once that is gone
    #[cfg(feature = "drill")]
    #[command(name = keel_drill::guard::COMMAND, hide = true)]
    DrillGuard(drill::OrderArgs),
    /// Be an instance for the drill whose system started this process
    #[cfg(feature = "drill")]
    #[command(name = keel_drill::peer::COMMAND, hide = true)]
    DrillPeer(drill::OrderArgs),
    /// Ask an instance of a drill's system whether it is ready
    #[cfg(feature = "drill")]
    #[command(name = keel_drill::peer::READY_COMMAND, hide = true)]
    DrillReady(drill::PortArgs),
    /// Say what this machine lets local processes have
    Doctor,
    /// Say what a directive of nginx.conf does
    Explain(explain::Args),
    /// Balance as an nginx.conf says, with nginx's options and signals
    Serve(serve::Args),
    /// Say whether the balancer of this container serves
    Healthcheck(healthcheck::Args),
    /// Wait, as what a container runs before it is told to end
    Linger(linger::Args),
    /// Serve connections for the supervisor that started this process
    #[command(hide = true)]
    DataPlane,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let program = arguments.first().map(Path::new).and_then(Path::file_name);
    if program.is_some_and(|name| name == "nginx") && arguments.get(1).is_none_or(|word| word != "data-plane")
    {
        return serve::run(serve::Args::parse_from(arguments), serve::Style::Nginx);
    }
    let Cli { command, project } = Cli::parse_from(arguments);
    let project = &project;
    if !matches!(command, Command::Serve(_) | Command::DataPlane) {
        log::to_stderr();
    }
    let outcome = match command {
        #[cfg(feature = "up")]
        Command::Up(args) => up::run(project, &args),
        Command::Down(args) => instances::down(project, &args),
        Command::Ps(args) => ps::run(project, &args),
        Command::Logs(args) => logs::run(project, &args),
        Command::Start(args) => instances::start(project, args),
        Command::Stop(args) => instances::stop(project, args),
        Command::Restart(args) => instances::restart(project, args),
        Command::Kill(args) => instances::kill(project, args),
        Command::Scale(args) => instances::scale(project, args),
        Command::Exec(args) => exec::exec(project, args),
        Command::Run(args) => exec::run(project, args),
        Command::Reload(args) => instances::reload(project, &args),
        Command::Peers(args) => peers::run(project, &args),
        Command::Config(args) => config::run(project, &args),
        Command::Doctor => doctor::run(),
        #[cfg(feature = "drill")]
        Command::Drill(args) => drill::run(project, &args),
        #[cfg(feature = "drill")]
        Command::DrillLoad => drill::load(),
        #[cfg(feature = "drill")]
        Command::DrillGuard(args) => drill::guard(&args),
        #[cfg(feature = "drill")]
        Command::DrillPeer(args) => drill::peer(&args),
        #[cfg(feature = "drill")]
        Command::DrillReady(args) => drill::ready(&args),
        Command::Export(args) => export::run(project, &args),
        Command::Explain(args) => explain::run(&args),
        Command::Serve(args) => return serve::run(args, serve::Style::Evenkeel),
        Command::Healthcheck(args) => return healthcheck::run(&args),
        Command::Linger(args) => return linger::run(&args),
        Command::DataPlane => return data_plane::run(),
    };
    let code = outcome.unwrap_or_else(|error| project::fail(&error));
    terminal::finish();
    code
}
