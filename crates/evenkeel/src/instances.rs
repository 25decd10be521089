//! `start`, `stop`, `restart`, `kill`, `scale`, `reload`, `down`: one word to the supervisor each.

use std::process::ExitCode;

use keel_admin::{
    ClientError,
    api::{InstanceRequest, ProjectInfo},
};

use crate::{
    control::ControlArgs,
    project::{Hinted, ProjectArgs, block_on, end_leftovers, show_message},
};

/// Names of services or instances.
#[derive(Debug, clap::Args)]
pub(crate) struct NamesArgs {
    /// Services or instances; all where none is given
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// How long what ends may take.
#[derive(Clone, Copy, Debug, clap::Args)]
struct EndingArgs {
    /// Seconds an instance gets from its stop signal on before it is killed; else its `stop_grace_period`. 0 also skips
    /// the drain
    #[arg(short = 't', long = "timeout", value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Seconds that requests in flight get before the stop signal, tunnels included [default: 30]
    #[arg(long, value_name = "SECONDS")]
    drain: Option<u64>,
}

impl EndingArgs {
    fn request(self, names: Vec<String>) -> InstanceRequest {
        let (timeout_s, drain_timeout_s) = (self.timeout, self.drain);
        InstanceRequest { names, timeout_s, drain_timeout_s, ..InstanceRequest::default() }
    }
}

/// Names, and how long what ends may take.
#[derive(Debug, clap::Args)]
pub(crate) struct DrainArgs {
    /// Services or instances; all where none is given
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    ending: EndingArgs,
}

/// `kill`.
#[derive(Debug, clap::Args)]
pub(crate) struct KillArgs {
    /// Services or instances
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Signal, by name or number
    #[arg(short = 's', long, value_name = "SIGNAL", default_value = "SIGKILL")]
    signal: String,
}

/// `scale`.
#[derive(Debug, clap::Args)]
pub(crate) struct ScaleArgs {
    /// Service and how many instances it should have
    #[arg(value_name = "SERVICE=COUNT", required = true, value_parser = parse_scale)]
    pub(crate) scale: Vec<(String, u32)>,
}

/// `down`.
#[derive(Debug, clap::Args)]
pub(crate) struct DownArgs {
    #[command(flatten)]
    ending: EndingArgs,
}

/// `reload`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReloadArgs {
    #[command(flatten)]
    control: ControlArgs,
}

/// Reads `app=3`.
pub(crate) fn parse_scale(text: &str) -> Result<(String, u32), String> {
    let (service, count) = text.split_once('=').ok_or("write it as SERVICE=COUNT, for example app=3")?;
    let count = count.parse().map_err(|_| format!("`{count}` is not a number of instances"))?;
    Ok((service.to_owned(), count))
}

pub(crate) fn start(project: &ProjectArgs, args: NamesArgs) -> anyhow::Result<ExitCode> {
    command(project, "/v1/start", &InstanceRequest { names: args.names, ..InstanceRequest::default() })
}

pub(crate) fn stop(project: &ProjectArgs, args: DrainArgs) -> anyhow::Result<ExitCode> {
    command(project, "/v1/stop", &args.request())
}

pub(crate) fn restart(project: &ProjectArgs, args: DrainArgs) -> anyhow::Result<ExitCode> {
    command(project, "/v1/restart", &args.request())
}

pub(crate) fn kill(project: &ProjectArgs, args: KillArgs) -> anyhow::Result<ExitCode> {
    let signal = signal_number(&args.signal)?;
    let request = InstanceRequest { names: args.names, signal: Some(signal), ..InstanceRequest::default() };
    command(project, "/v1/kill", &request)
}

pub(crate) fn scale(project: &ProjectArgs, args: ScaleArgs) -> anyhow::Result<ExitCode> {
    command(project, "/v1/scale", &InstanceRequest { scale: args.scale, ..InstanceRequest::default() })
}

pub(crate) fn reload(project: &ProjectArgs, args: &ReloadArgs) -> anyhow::Result<ExitCode> {
    let client = args.control.client(project)?;
    let request = InstanceRequest::default();
    let outcome = block_on(async { Ok(client.command("/v1/reload", &request, show_message).await?) });
    outcome.map_err(|error| args.control.explain(error))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn down(project: &ProjectArgs, args: &DownArgs) -> anyhow::Result<ExitCode> {
    let request = args.ending.request(Vec::new());
    let client = match project.client() {
        // Containers outlive a supervisor that was killed, and so may processes if its guardian was, too.
        #[cfg(feature = "up")]
        Err(error) if matches!(error.downcast_ref(), Some(ClientError::NotRunning)) => {
            return match block_on(end_leftovers(project))? {
                true => Ok(ExitCode::SUCCESS),
                false => Err(error),
            };
        }
        client => client?,
    };
    block_on(async {
        match client.command("/v1/down", &request, show_message).await {
            // The supervisor is gone: its last word may have been lost on the way.
            Err(ClientError::Broken(_)) if client.get::<ProjectInfo>("/v1/project").await.is_err() => {}
            // Containers outlive a supervisor that was killed.
            #[cfg(feature = "up")]
            Err(ClientError::NotRunning) if end_leftovers(project).await? => {}
            outcome => outcome?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

impl DrainArgs {
    fn request(self) -> InstanceRequest {
        self.ending.request(self.names)
    }
}

fn command(project: &ProjectArgs, path: &str, request: &InstanceRequest) -> anyhow::Result<ExitCode> {
    let client = project.client()?;
    block_on(async {
        client.command(path, request, show_message).await?;
        Ok(ExitCode::SUCCESS)
    })
}

fn signal_number(text: &str) -> anyhow::Result<i32> {
    keel_model::signal_number(text).ok_or_else(|| {
        let hint =
            "HUP, INT, QUIT, KILL, USR1, USR2, TERM or another name that `kill -l` lists, or its number";
        Hinted::new(format!("`{text}` is no signal"), hint).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_of_instances() {
        assert_eq!(parse_scale("app=3").unwrap(), ("app".to_owned(), 3));
        for text in ["app", "app=", "app=-1", "app=x"] {
            assert!(parse_scale(text).is_err(), "{text}");
        }
    }
}
