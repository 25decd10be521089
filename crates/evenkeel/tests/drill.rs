//! `evenkeel drill` on a project like the demo: clean where nothing is wrong, and never where somebody cheats.
//!
//! A drill that can't fail proves nothing. So each case is played with somebody between clients and balancer who repeats,
//! drops, tears, or gives turns away, and must say so.

#![expect(clippy::expect_used, reason = "a test ends where it can't go on")]

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

use keel_testkit::{Binary, Project, Saboteur, Vice, free_port, wait_until};
use serde_json::Value;

type Done = anyhow::Result<()>;

const NGINX_CONF: &str = "\
events {}
http {
    access_log off;
    upstream app { server app:5000; }
    server { listen 80; location / { proxy_pass http://app; } }
}
";

/// Builds the demo app and gives its path.
fn app() -> &'static str {
    static APP: OnceLock<String> = OnceLock::new();
    APP.get_or_init(|| {
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "evenkeel-demo-app"])
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the demo app builds");
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_evenkeel"));
        binary.with_file_name("evenkeel-demo-app").to_string_lossy().into_owned()
    })
}

fn project() -> anyhow::Result<Project> {
    let app = app();
    let service = |name: &str, rest: &str| {
        format!(
            "  {name}:\n    image: none\n    x-process: {{command: {app}}}\n    environment: {{NAME: {name}}}\n    \
             restart: always\n    networks: {{default: {{aliases: [app]}}}}\n{rest}"
        )
    };
    let services: String = ["app1", "app2", "app3"].map(|name| service(name, "")).concat();
    let dormant = service("app4", "    profiles: [more]\n");
    let seat = "  nginx:\n    image: nginx:latest\n    ports: [\"8080:80\"]\n    \
                volumes: [\"./nginx.conf:/etc/nginx/nginx.conf:ro\"]\n";
    let compose = format!("services:\n{services}{dormant}{seat}");
    Project::new(
        Binary::new(env!("CARGO_BIN_EXE_evenkeel")),
        &[("docker-compose.yml", &compose), ("nginx.conf", NGINX_CONF)],
    )
}

/// Plays a short drill and gives what it said and its results.
fn drill(project: &Project, arguments: &[&str]) -> anyhow::Result<(Output, Value)> {
    // One at a time: they put load on the machine, and what is too slow for them counts as lost.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let output = project
        .command(&["drill", "--short", "--requests", "320", "--rate", "300", "--connections", "32"])
        .args(["--out", "proof"])
        .args(arguments)
        .output()?;
    let results = std::fs::read(project.folder().join("proof/results.json")).unwrap_or_default();
    let results = serde_json::from_slice(&results).unwrap_or_default();
    Ok((output, results))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Plays cases with somebody in between, and expects each to find this.
fn finds(vice: Vice, cases: &[&str], expect: &str) -> Done {
    let project = project()?;
    let listen = ([127, 0, 0, 1], free_port()?).into();
    let saboteur = Saboteur::start(listen, vice)?;
    let (listen, via) = (listen.to_string(), saboteur.address().to_string());
    let mut arguments = vec!["--listen", &listen, "--via", &via];
    arguments.extend(cases.iter().flat_map(|case| ["--case", case]));
    let (output, results) = drill(&project, &arguments)?;
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let played = results["cases"].as_array().cloned().unwrap_or_default();
    assert_eq!(played.len(), cases.len(), "{said}");
    for case in played {
        let findings = case["findings"].as_array().cloned().unwrap_or_default();
        let found =
            findings.iter().find(|one| one["what"].as_str().is_some_and(|what| what.contains(expect)));
        let ids = found.and_then(|one| one["ids"].as_array()).map_or(0, Vec::len);
        assert!(ids > 0, "{} must find {expect:?} and name requests:\n{said}", case["name"]);
    }
    Ok(())
}

#[test]
fn finds_posts_that_are_repeated() -> Done {
    let cases = ["kill-one", "kill-data-plane", "frozen", "close-random", "cut-everywhere"];
    finds(Vice::RepeatsPosts, &cases, "a POST received more than once")
}

#[test]
fn finds_requests_that_are_dropped() -> Done {
    let cases = ["kill-all", "rolling-restart", "never-answers", "slow-start"];
    finds(Vice::Drops(25), &cases, "lost: closed without a response")
}

#[test]
fn finds_shares_that_are_off() -> Done {
    finds(Vice::SkipsTurns, &["even", "stop-one", "add-one"], "shares are off")
}

#[test]
fn finds_bodies_that_are_torn() -> Done {
    let cases = ["scale", "reload", "close-idle", "overload"];
    finds(Vice::Tears(12), &cases, "complete to the client, and not what the instance announced")
}

#[test]
fn finds_nothing_where_nothing_is_wrong() -> Done {
    let project = project()?;
    let listen = ([127, 0, 0, 1], free_port()?).into();
    // An honest one in between must not be found either.
    let honest = Saboteur::start(listen, Vice::None)?;
    let (listen, via) = (listen.to_string(), honest.address().to_string());
    let arguments =
        ["--listen", &listen, "--via", &via, "--case", "even", "--case", "stop-one", "--seed", "1"];
    let (output, results) = drill(&project, &arguments)?;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(results["cases"][1]["steps"][0]["received"]["app1"], 4, "{results}");
    // And all of it, as a user plays it.
    let (output, results) = drill(&project, &["--seed", "1"])?;
    assert!(output.status.success(), "{}", said(&output));
    let cases = results["cases"].as_array().cloned().unwrap_or_default();
    assert!(cases.len() >= 16 && cases.iter().all(|case| case["skipped"].is_null()), "{}", said(&output));
    let left = std::fs::read_dir(project.folder().join(".cache/evenkeel"))?.flatten();
    let left: Vec<_> = left.filter(|one| one.file_name().to_string_lossy().starts_with("drill")).collect();
    assert!(left.is_empty(), "nothing is left behind: {left:?}");
    Ok(())
}

#[test]
fn leaves_nothing_running_even_when_it_is_killed() -> Done {
    let project = project()?;
    let folder = project.folder().join(".cache/evenkeel");
    let mut command = project.command(&["drill", "--case", "even", "--requests", "100000"]);
    let mut drill = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    // The first thing a system leaves is its ledger; it has requests in it once everything runs.
    let ledgers =
        || std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|one| one.path().join("0/ledger"));
    let runs = || ledgers().any(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains("d2-")));
    wait_until("the drill's load flows", runs)?;
    drill.kill()?;
    drill.wait()?;
    let is_ours = |line: &[u8]| {
        let name = format!("{}-drill-{}", project.name(), drill.id());
        line.windows(name.len()).any(|window| window == name.as_bytes())
    };
    wait_until("nothing of it runs", || {
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        !processes.filter_map(|one| std::fs::read(one.path().join("cmdline")).ok()).any(|line| is_ours(&line))
    })?;
    wait_until("its folder is gone", || ledgers().next().is_none())
}

#[test]
fn says_what_cannot_be_tried() -> Done {
    let project = project()?;
    let (output, _) = drill(&project, &["--case", "no-such"])?;
    assert!(said(&output).contains("there is no case `no-such`"), "{}", said(&output));
    let output = project.command(&["drill", "--list"]).output()?;
    assert!(said(&output).contains("kill-one"), "{}", said(&output));
    Ok(())
}
