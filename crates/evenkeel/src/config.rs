//! `evenkeel config`: the joined, resolved plan.
//!
//! JSON has all of it, for programs. YAML is for people: what has its default value is left out, and durations are written
//! as one would write them.

use std::{io::Write, process::ExitCode};

use keel_diag::Format;
use keel_model::{ClientSettings, ProcessSettings, Scope, SocketOptions};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    project::{ProjectArgs, show_reading},
    serve::FormatName,
    terminal::Stdout,
};

/// `config`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How the plan looks
    #[arg(long, value_enum, default_value = "yaml")]
    format: PlanFormat,
    /// Only check; print nothing but messages
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Print the nginx.conf that Evenkeel writes for published ports
    #[arg(long)]
    written: bool,
    /// How messages about the files look
    #[arg(long, value_enum, default_value = "human")]
    messages: FormatName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum PlanFormat {
    /// YAML, without what has its default value
    Yaml,
    /// JSON, complete
    Json,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Document<'a> {
    project: &'a str,
    folder: &'a std::path::Path,
    files: &'a [std::path::PathBuf],
    #[serde(skip_serializing_if = "Option::is_none")]
    balancer: Option<&'a str>,
    services: &'a [keel_model::Service],
    /// What the servers of each upstream stand for.
    bindings: &'a [keel_control::Binding],
    plan: &'a keel_model::Plan,
}

/// Runs the command.
pub(crate) fn run(project: &ProjectArgs, args: &Args) -> anyhow::Result<ExitCode> {
    let reading = project.read()?;
    show_reading(&reading, Format::from(args.messages));
    let Some(joined) = &reading.joined else { return Ok(ExitCode::from(2)) };
    let mut out = Stdout::lock();
    if args.written {
        write!(out, "{}", joined.written_configuration.as_deref().unwrap_or_default())?;
    } else if !args.quiet {
        let document = Document {
            project: &joined.name,
            folder: &joined.folder,
            files: &joined.files,
            balancer: joined.seat.as_ref().map(|seat| seat.service.as_str()),
            services: &joined.services,
            bindings: &joined.bindings,
            plan: &joined.plan,
        };
        match args.format {
            PlanFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(&document)?)?,
            PlanFormat::Yaml => write!(out, "{}", serde_saphyr::to_string(&readable(&document)?)?)?,
        }
    }
    out.flush()?;
    Ok(if reading.has_errors() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A document as a person wants to read it.
fn readable(document: &Document<'_>) -> anyhow::Result<Value> {
    let defaults = [
        ("scope", serde_json::to_value(Scope::default())?),
        ("client", serde_json::to_value(ClientSettings::default())?),
        ("options", serde_json::to_value(SocketOptions::default())?),
        ("process", serde_json::to_value(ProcessSettings::default())?),
    ];
    Ok(shorten(serde_json::to_value(document)?, &defaults))
}

/// Leaves out what is empty or has its default value, all the way down.
fn shorten(value: Value, defaults: &[(&str, Value)]) -> Value {
    match value {
        Value::Object(map) => {
            if let Some(duration) = duration(&map) {
                return Value::String(duration);
            }
            let mut short = Map::new();
            for (key, value) in map {
                let default = defaults.iter().find(|(name, _)| *name == key).map(|(_, default)| default);
                let value =
                    shorten(default.map_or(value.clone(), |default| without(value, default)), defaults);
                // The table of media types is nobody's question.
                if !is_empty(&value) && key != "types" {
                    short.insert(key, value);
                }
            }
            Value::Object(short)
        }
        Value::Array(values) => {
            Value::Array(values.into_iter().map(|value| shorten(value, defaults)).collect())
        }
        other => other,
    }
}

/// Leaves out of an object what another has with the same value.
fn without(value: Value, default: &Value) -> Value {
    match (value, default) {
        (Value::Object(map), Value::Object(defaults)) => {
            let differs = map.into_iter().filter_map(|(key, value)| match defaults.get(&key) {
                Some(default) if *default == value => None,
                Some(default) => Some((key, without(value, default))),
                None => Some((key, value)),
            });
            Value::Object(differs.collect())
        }
        (value, _) => value,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(values) => values.is_empty(),
        _ => false,
    }
}

/// Writes a duration, which serde makes an object of, as nginx and Compose do.
fn duration(map: &Map<String, Value>) -> Option<String> {
    let (secs, nanos) = (map.get("secs")?.as_u64()?, map.get("nanos")?.as_u64()?);
    (map.len() == 2).then(|| match (secs, nanos / 1_000_000) {
        (secs, 0) => format!("{secs}s"),
        (secs, millis) => format!("{}ms", secs * 1000 + millis),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn leaves_out_what_goes_without_saying() {
        let defaults = [("scope", json!({"a": 1, "b": {"c": 2, "d": 3}}))];
        let value = json!({
            "scope": {"a": 1, "b": {"c": 2, "d": 4}, "e": []},
            "timeout": {"secs": 1, "nanos": 500_000_000},
            "grace": {"secs": 10, "nanos": 0},
            "none": null,
            "types": [["html", "text/html"]],
        });
        let expect = json!({"scope": {"b": {"d": 4}}, "timeout": "1500ms", "grace": "10s"});
        assert_eq!(shorten(value, &defaults), expect);
    }
}
