//! `evenkeel ps`: the instances, with what the balancer knows of them.

use std::{io::Write, process::ExitCode};

use keel_admin::{
    Client,
    api::{BalancerInfo, InstanceInfo, ProjectInfo},
};

use crate::{
    control::ControlArgs,
    list::{ListFormat, columns},
    peers,
    project::{ProjectArgs, block_on},
    terminal::{Stdout, escape},
};

/// `ps`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    control: ControlArgs,
    /// How the list looks
    #[arg(long, value_enum, default_value = "table")]
    format: ListFormat,
    /// Names only
    #[arg(short = 'q', long)]
    quiet: bool,
}

/// Runs the command.
pub(crate) fn run(project: &ProjectArgs, args: &Args) -> anyhow::Result<ExitCode> {
    let client = args.control.client(project)?;
    if args.control.is_given() {
        let info = block_on(async { Ok(client.get::<BalancerInfo>("/v1/balancer").await?) });
        let info = info.map_err(|error| args.control.explain(error))?;
        if info.project.is_none() {
            return block_on(async { show_balancer(&client, &info, args).await });
        }
    }
    block_on(async {
        let instances: Vec<InstanceInfo> = client.get("/v1/instances").await?;
        let mut out = Stdout::lock();
        if args.quiet {
            instances.iter().try_for_each(|one| writeln!(out, "{}", one.name))?;
        } else if args.format == ListFormat::Json {
            writeln!(out, "{}", serde_json::to_string_pretty(&instances)?)?;
        } else {
            let info: ProjectInfo = client.get("/v1/project").await?;
            write!(out, "{}", table(&info, &instances))?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Shows a balancer that has peers and no instances.
async fn show_balancer(client: &Client, info: &BalancerInfo, args: &Args) -> anyhow::Result<ExitCode> {
    if args.quiet {
        return Ok(ExitCode::SUCCESS);
    }
    peers::print(client, args.format).await?;
    if args.format == ListFormat::Table {
        let mut out = Stdout::lock();
        let file = info.configuration.as_ref().map(|path| escape(&path.to_string_lossy()));
        writeln!(
            out,
            "\n{} (pid {}) listens on {}",
            file.unwrap_or_default(),
            info.pid,
            info.listeners.join(", ")
        )?;
        if let Some(counts) = &info.counts {
            writeln!(
                out,
                "configuration {}: {} connections open, {} accepted, {} requests",
                counts.generation, counts.active, counts.accepted, counts.requests
            )?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table(info: &ProjectInfo, instances: &[InstanceInfo]) -> String {
    let mut rows = vec![
        ["NAME", "STATE", "FOR", "ADDRESS", "PORTS", "PID", "REQUESTS", "IN FLIGHT", "RESTARTS", "NOTE"]
            .map(str::to_owned),
    ];
    for one in instances {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let note = [one.note.clone(), one.exit.clone(), one.health.clone()];
        let note: Vec<_> = note
            .into_iter()
            .flatten()
            .map(|text| escape(text.trim()))
            .filter(|text| !text.is_empty())
            .collect();
        rows.push([
            escape(&one.name),
            one.state.clone(),
            age(one.since_s),
            or_dash(one.address.clone()),
            or_dash(Some(one.ports.join(", ")).filter(|ports| !ports.is_empty())),
            or_dash(one.pid.map(|pid| pid.to_string())),
            one.requests.to_string(),
            one.in_flight.to_string(),
            one.restarts.to_string(),
            note.join("; "),
        ]);
    }
    let mut text = columns(&rows);
    if !info.listeners.is_empty() {
        text.push_str(&format!("\nlistening on {}\n", info.listeners.join(", ")));
    }
    text
}

/// Writes a duration as `ps` does: its largest unit.
fn age(seconds: u64) -> String {
    match seconds {
        s if s < 60 => format!("{s} s"),
        s if s < 3600 => format!("{} min", s / 60),
        s if s < 48 * 3600 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        for (seconds, expect) in [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (172_800, "2 d")] {
            assert_eq!(age(seconds), expect);
        }
    }
}
