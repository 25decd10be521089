//! `evenkeel drill` on a project like the demo: clean where nothing is wrong, and never where somebody cheats.
//!
//! A drill that can't fail proves nothing. So each case is played with somebody between clients and balancer who repeats,
//! drops, tears, or gives turns away, and must say so.

use std::{
    process::{Command, Output, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use keel_testkit::{Binary, Demo, Project, Saboteur, Vice, free_port, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

type Done = anyhow::Result<()>;

/// How long a drill may take before a test gives it up.
const DRILL_DEADLINE: Duration = Duration::from_secs(600);

const DEMO: Demo<'static> =
    Demo { program: env!("CARGO_BIN_EXE_evenkeel"), publishes: "8080:80", environment: "", command: None };

/// Plays a short drill and gives what it said and its results.
fn drill(project: &Project, arguments: &[&str]) -> anyhow::Result<(Output, Value)> {
    let load =
        ["drill", "--short", "--requests", "320", "--rate", "300", "--connections", "32", "--out", "proof"];
    let output = alone(project, &[&load, arguments].concat())?;
    Ok((output, results(project)))
}

/// Runs a command, one at a time: drills put load on the machine, and what is too slow for them counts as lost.
fn alone(project: &Project, arguments: &[&str]) -> anyhow::Result<Output> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    project.output_within(arguments, DRILL_DEADLINE)
}

/// What a drill of the project wrote.
fn results(project: &Project) -> Value {
    let results = std::fs::read(project.folder().join("proof/results.json")).unwrap_or_default();
    serde_json::from_slice(&results).unwrap_or_default()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Plays cases with somebody in between, and expects each to find this.
fn finds(vice: Vice, cases: &[&str], expect: &str) -> Done {
    let project = DEMO.project()?;
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
    let cases = [
        "kill-one",
        "kill-data-plane",
        "kill-evenkeel",
        "command-in-restart",
        "foreign-process",
        "frozen",
        "close-random",
        "cut-everywhere",
    ];
    finds(Vice::RepeatsPosts, &cases, "a POST received more than once")
}

#[test]
fn finds_posts_that_are_refused_under_cover_of_what_is_allowed() -> Done {
    finds(
        Vice::AnswersPosts(502),
        &[
            "kill-one",
            "kill-all",
            "kill-evenkeel",
            "command-in-restart",
            "foreign-process",
            "close-random",
            "close-idle",
        ],
        "a POST lost: 502",
    )?;
    finds(Vice::AnswersPosts(502), &["overload"], "POSTs were refused much more than GETs")?;
    finds(Vice::AnswersPosts(502), &["cut-everywhere"], "a request never came to a peer")?;
    finds(Vice::AnswersPosts(504), &["never-answers"], "a POST lost: 504")
}

#[test]
fn finds_requests_that_are_dropped() -> Done {
    let cases = ["rolling-restart", "slow-start", "slow-listen", "unread-terminal"];
    finds(Vice::Drops(25), &cases, "lost: closed without a response")
}

#[test]
fn finds_answers_that_no_instance_gave() -> Done {
    let cases = ["slow-listen", "foreign-process", "unread-terminal"];
    finds(Vice::AnswersPosts(200), &cases, "answered, though no instance received it")
}

#[test]
fn finds_shares_that_are_off() -> Done {
    finds(Vice::SkipsTurns, &["even", "stop-one", "add-one"], "shares are off")?;
    finds(Vice::SkipsTurns, &["even"], "instances didn't answer in turn")
}

#[test]
fn finds_bodies_that_are_torn() -> Done {
    finds(
        Vice::Tears(12),
        &["scale", "reload"],
        "complete to the client, and not what the instance announced",
    )
}

#[test]
fn finds_nothing_where_nothing_is_wrong() -> Done {
    let project = DEMO.project()?;
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
    assert!(cases.len() >= 21 && cases.iter().all(|case| case["skipped"].is_null()), "{}", said(&output));
    let left = std::fs::read_dir(project.folder().join(".cache/evenkeel"))?.flatten();
    let left: Vec<_> = left.filter(|one| one.file_name().to_string_lossy().starts_with("drill")).collect();
    assert!(left.is_empty(), "nothing is left behind: {left:?}");
    Ok(())
}

#[test]
fn plays_beside_a_project_that_publishes_ports_without_an_nginx_conf() -> Done {
    let app = keel_testkit::demo_app(std::path::Path::new(DEMO.program))?;
    let compose = format!(
        "services:\n  web:\n    image: none\n    x-process: {{command: {app}}}\n    ports: [\"{}:5000\"]\n    \
         deploy: {{replicas: 3}}\n",
        free_port()?
    );
    let project = Project::new(Binary::new(DEMO.program), &[("docker-compose.yml", &compose)])?;
    project.run(&["up", "-d"])?;
    let (output, results) = drill(&project, &["--case", "even", "--seed", "1"])?;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(results["cases"][0]["steps"][0]["received"]["web-1"], 4, "{results}");
    Ok(())
}

/// Whether a process lives on whose command line this word, or text within a word, stands.
fn lives(mark: &str) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut lines = processes.filter_map(|one| std::fs::read(one.path().join("cmdline")).ok());
    lines.any(|line| line.windows(mark.len()).any(|window| window == mark.as_bytes()))
}

#[test]
fn leaves_nothing_running_even_when_it_is_killed() -> Done {
    let project = DEMO.project()?;
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
    let name = format!("{}-drill-{}", project.name(), drill.id());
    wait_until("nothing of it runs", || !lives(&name))?;
    wait_until("its folder is gone", || ledgers().next().is_none())
}

#[test]
fn leaves_no_balancer_running_when_it_is_killed() -> Done {
    let project = DEMO.project()?;
    let temporary = project.folder().join("tmp");
    std::fs::create_dir(&temporary)?;
    let mut command = project.command(&["drill", "--case", "cut-everywhere"]);
    command.env("TMPDIR", &temporary).stdout(Stdio::null()).stderr(Stdio::null());
    let mut drill = command.spawn()?;
    let mark = format!("{}/evenkeel-drill", temporary.display());
    let folders = || std::fs::read_dir(&temporary).into_iter().flatten().flatten();
    wait_until("the balancer runs", || folders().any(|folder| folder.path().join("pid").exists()))?;
    assert!(lives(&mark));
    drill.kill()?;
    drill.wait()?;
    wait_until("nothing of it runs", || !lives(&mark))?;
    wait_until("its folder is gone", || folders().next().is_none())
}

#[test]
fn ends_with_what_it_has_when_the_user_wants_it() -> Done {
    // One case is over, and the second waits for instances that never listen.
    let app = keel_testkit::demo_app(std::path::Path::new(DEMO.program))?;
    let command = "sh -c 'test -e FOLDER/answers && exec FOLDER/app; exec sleep 600'";
    let project = Demo { command: Some(command), ..DEMO }.project()?;
    // Beside the files: instances have a /tmp of their own, and the app may have been built below it.
    std::fs::copy(app, project.folder().join("app"))?;
    project.write("answers", "")?;
    let mut command = project.command(&["drill", "--short", "--requests", "60", "--out", "proof"]);
    command.args(["--case", "even", "--case", "stop-one"]);
    let said = std::fs::File::create(project.folder().join("said"))?;
    let mut drill = command.stdout(said.try_clone()?).stderr(said).spawn()?;
    let said = || std::fs::read_to_string(project.folder().join("said")).unwrap_or_default();
    wait_until("the first case is played", || said().contains("under load"))?;
    std::fs::remove_file(project.folder().join("answers"))?;
    let name = format!("{}-drill-{}-1", project.name(), drill.id());
    wait_until("the second system is being started", || lives(&name))?;
    let pid = i32::try_from(drill.id()).ok().and_then(Pid::from_raw);
    kill_process(anyhow::Context::context(pid, "a process id")?, Signal::INT)?;
    let mut status = None;
    wait_until("it ends", || {
        status = drill.try_wait().ok().flatten();
        status.is_some()
    })?;
    assert_eq!(status.and_then(|status| status.code()), Some(1), "{}", said());
    let results = results(&project);
    assert_eq!(results["cases"].as_array().map(Vec::len), Some(1), "{}", said());
    assert_eq!(results["ended_early"], "stop-one: ended before all cases were played", "{}", said());
    assert!(!lives(&format!("{}-drill-{}", project.name(), drill.id())), "nothing of it runs");
    Ok(())
}

/// An app that keeps no ledger and prints two lines of each request, one when it comes and one when it is answered.
const TALKATIVE: &str = r#"
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # Head and body leave in one piece: a kill between them would cut the response, whoever balances.
    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        print("begins", self.path, flush=True)
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")
    do_POST = do_GET
    def log_request(self, code="-", size="-"):
        print(self.requestline, code, flush=True)
http.server.ThreadingHTTPServer(("", 5000), Handler).serve_forever()
"#;

#[test]
fn reads_what_an_app_prints_whose_lines_are_double() -> Done {
    if let Err(error) = Command::new("python3").arg("--version").output() {
        keel_testkit::not_run(format_args!("python3 can't be run: {error}"));
        return Ok(());
    }
    let project = Demo { command: Some("python3 FOLDER/app.py"), ..DEMO }.project()?;
    project.write("app.py", TALKATIVE)?;
    let (output, results) = drill(&project, &["--case", "even", "--case", "kill-one"])?;
    assert!(output.status.success(), "{}", said(&output));
    let even = &results["cases"][0];
    assert_eq!(even["source"], "output", "{}", said(&output));
    assert_eq!((&even["steps"][0]["received"]["app1"], &even["count"]["doubled"]), (&4.into(), &0.into()));
    Ok(())
}

#[test]
fn says_where_nothing_shows_what_was_received() -> Done {
    if let Err(error) = Command::new("python3").arg("--version").output() {
        keel_testkit::not_run(format_args!("python3 can't be run: {error}"));
        return Ok(());
    }
    let silent = TALKATIVE.replace("print(", "(lambda *a, **k: None)(");
    let project = Demo { command: Some("python3 FOLDER/app.py"), ..DEMO }.project()?;
    project.write("app.py", &silent)?;
    let (output, results) = drill(&project, &["--case", "even"])?;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(results["cases"][0]["source"], "none", "{}", said(&output));
    assert!(said(&output).contains("not counted: received twice, and shares"), "{}", said(&output));
    Ok(())
}

#[test]
fn plays_the_same_with_nginx_in_the_seat() -> Done {
    let nginx = ["/usr/sbin/nginx", "nginx"].into_iter().find(|path| {
        Command::new(path).arg("-v").stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    });
    let Some(nginx) = nginx else {
        keel_testkit::not_run("nginx (package nginx-light) isn't installed");
        return Ok(());
    };
    let project = DEMO.project()?;
    let arguments = ["--proxy", "nginx", "--nginx", nginx, "--case", "even", "--case", "kill-data-plane"];
    let (output, results) = drill(&project, &arguments)?;
    let read = |name: &str| std::fs::read_to_string(project.folder().join("proof").join(name));
    for (folder, manner) in [("nginx-as-is", "files as they are"), ("nginx-expert", "as an expert runs it")] {
        let one: Value = serde_json::from_str(&read(&format!("{folder}/results.json"))?)?;
        let proxy = one["proxy"].as_str().unwrap_or_default();
        assert!(proxy.starts_with("nginx 1.") && proxy.ends_with(manner), "{proxy}");
        let cases = one["cases"].as_array().map_or(0, Vec::len);
        assert_eq!((cases, &one["cases"][0]["findings"]), (2, &serde_json::json!([])), "{}", said(&output));
        let configuration = one["files"]["even/nginx.conf"].as_str().unwrap_or_default();
        assert_eq!(configuration.contains("zone app 64k"), manner.contains("expert"), "{configuration}");
    }
    assert!(results["proxy"].as_str().is_some_and(|proxy| proxy.starts_with("Evenkeel")), "{results}");
    let side_by_side = read("compare.md")?;
    assert!(side_by_side.contains("kill-data-plane") && side_by_side.contains("as an expert runs it"));
    Ok(())
}

#[test]
fn agrees_with_another_load_generator() -> Done {
    if let Err(error) = Command::new("wrk").arg("--version").output() {
        keel_testkit::not_run(format_args!("wrk (package wrk) can't be run: {error}"));
        return Ok(());
    }
    let project = DEMO.project()?;
    let reconcile = |rest: &[&str]| {
        let arguments =
            [&["drill", "--rate", "300", "--connections", "32", "--out", "proof", "--reconcile"], rest];
        alone(&project, &arguments.concat())
    };
    let output = reconcile(&[])?;
    assert!(output.status.success(), "{}", said(&output));
    let written = std::fs::read_to_string(project.folder().join("proof/reconciled.md"))?;
    assert!(written.contains("Both agree with the instances"), "{written}");
    // And not with somebody in between who keeps responses to himself.
    let listen = ([127, 0, 0, 1], free_port()?).into();
    let saboteur = Saboteur::start(listen, Vice::Drops(100))?;
    let (listen, via) = (listen.to_string(), saboteur.address().to_string());
    let output = reconcile(&["--listen", &listen, "--via", &via])?;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("They do not agree."), "{}", said(&output));
    Ok(())
}

#[test]
fn says_what_cannot_be_tried() -> Done {
    let project = DEMO.project()?;
    let (output, _) = drill(&project, &["--case", "no-such"])?;
    assert!(said(&output).contains("there is no case `no-such`"), "{}", said(&output));
    let output = project.output(&["drill", "--list"])?;
    assert!(said(&output).contains("kill-one"), "{}", said(&output));
    let output = project.output(&["drill", "--reconcile", "--case", "even"])?;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    Ok(())
}
