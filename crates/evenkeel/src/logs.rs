//! `evenkeel logs`: what instances wrote, and what they write.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use keel_admin::api::Message;

use crate::{
    output::Prefixes,
    project::{ProjectArgs, block_on, escape},
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
        let mut out = io::stdout();
        while let Some(message) = lines.next().await? {
            let Message::Output { instance, line } = message else { continue };
            let line = if args.no_log_prefix { escape(&line) } else { prefixes.line(&instance, &line) };
            if writeln!(out, "{line}").is_err() {
                // Whoever read has enough.
                return Ok(ExitCode::SUCCESS);
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}
