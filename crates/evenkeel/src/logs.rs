//! `evenkeel logs`: what instances wrote, and what they write.

use std::{io::Write, process::ExitCode};

use keel_admin::{
    Client, ClientError,
    api::{Message, ProjectInfo},
};
use keel_telemetry::left_out_text;

use crate::{
    output::Prefixes,
    project::{ProjectArgs, block_on},
    terminal::Stdout,
};

/// `logs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Services or instances; all where none is given
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Go on with what comes
    #[arg(short = 'f', long)]
    follow: bool,
    /// Lines of each instance, from the end
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all", value_parser = parse_tail)]
    tail: Tail,
    /// Lines without the instance's name
    #[arg(long)]
    no_log_prefix: bool,
}

/// How much of the past is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tail(Option<usize>);

fn parse_tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail(None)),
        number => number
            .parse()
            .map(|lines| Tail(Some(lines)))
            .map_err(|_| "write a number of lines, or all".into()),
    }
}

/// Runs the command.
pub(crate) fn run(project: &ProjectArgs, args: &Args) -> anyhow::Result<ExitCode> {
    let client = project.client()?;
    let tail = args.tail.0.map(|lines| format!("&tail={lines}")).unwrap_or_default();
    let path = format!("/v1/logs?names={}&follow={}{tail}", args.names.join(","), args.follow);
    block_on(async {
        let mut lines = client.follow(&path).await?;
        let mut prefixes = Prefixes::new();
        let mut out = Stdout::lock();
        loop {
            let message = match lines.next().await {
                Ok(Some(message)) => message,
                Ok(None) => break,
                // `down`: there is nothing to follow any more.
                Err(ClientError::Broken(_)) if args.follow && is_gone(&client).await => break,
                Err(error) => return Err(error.into()),
            };
            let line = match message {
                Message::Output { line, .. } if args.no_log_prefix => prefixes.text(&line).into_owned(),
                Message::Output { instance, line } => prefixes.line(&instance, &line),
                Message::LeftOut { lines } => left_out_text(lines),
                _ => continue,
            };
            writeln!(out, "{line}")?;
        }
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    })
}

async fn is_gone(client: &Client) -> bool {
    matches!(
        client.get::<ProjectInfo>("/v1/project").await,
        Err(ClientError::NotRunning | ClientError::Broken(_))
    )
}
