//! `evenkeel peers`: the peers of each upstream, with what the balancer knows of them.

use std::{io::Write, process::ExitCode};

use keel_admin::{Client, api::PeerInfo};

use crate::{
    control::ControlArgs,
    list::{ListFormat, columns},
    project::{ProjectArgs, block_on},
    terminal::{Stdout, escape},
};

/// `peers`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    control: ControlArgs,
    /// How the list looks
    #[arg(long, value_enum, default_value = "table")]
    format: ListFormat,
}

/// Runs the command.
pub(crate) fn run(project: &ProjectArgs, args: &Args) -> anyhow::Result<ExitCode> {
    let client = args.control.client(project)?;
    block_on(async {
        print(&client, args.format).await.map_err(|error| args.control.explain(error))?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Prints the list.
pub(crate) async fn print(client: &Client, format: ListFormat) -> anyhow::Result<()> {
    let peers: Vec<PeerInfo> = client.get("/v1/peers").await?;
    let mut out = Stdout::lock();
    match format {
        ListFormat::Table => write!(out, "{}", table(&peers))?,
        ListFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(&peers)?)?,
    }
    Ok(())
}

fn table(peers: &[PeerInfo]) -> String {
    let mut rows = vec![
        ["UPSTREAM", "PEER", "STATE", "WEIGHT", "REQUESTS", "RETRIES", "IN FLIGHT", "FAILURES"]
            .map(str::to_owned),
    ];
    for peer in peers {
        let address = match &peer.instance {
            Some(instance) => format!("{} ({})", peer.address, escape(instance)),
            None => peer.address.clone(),
        };
        let state = if peer.backup { format!("{} (backup)", peer.state) } else { peer.state.clone() };
        rows.push([
            escape(&peer.upstream),
            address,
            state,
            peer.weight.to_string(),
            peer.requests.to_string(),
            peer.retries.to_string(),
            peer.in_flight.to_string(),
            peer.failures.to_string(),
        ]);
    }
    columns(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_a_row() {
        let peer = PeerInfo {
            upstream: "app".into(),
            address: "127.0.0.1:81".into(),
            name: "app1:81".into(),
            instance: None,
            weight: 2,
            backup: true,
            state: "up".into(),
            in_flight: 1,
            requests: 7,
            retries: 0,
            failures: 3,
        };
        let other = PeerInfo { instance: Some("app-1".into()), backup: false, ..peer.clone() };
        assert_eq!(
            table(&[peer, other]),
            "UPSTREAM  PEER                  STATE        WEIGHT  REQUESTS  RETRIES  IN FLIGHT  FAILURES\n\
             app       127.0.0.1:81          up (backup)  2       7         0        1          3\n\
             app       127.0.0.1:81 (app-1)  up           2       7         0        1          3\n"
        );
    }
}
