//! `evenkeel up` and its commands, as a user gives them, with real instances.

use std::{net::SocketAddr, path::Path};

use keel_testkit::{Binary, Ledger, Load, Outcome, Project, free_port, get, wait_until};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

type Done = anyhow::Result<()>;

fn binary() -> Binary {
    Binary::new(env!("CARGO_BIN_EXE_evenkeel"))
}

/// Three services and a dormant fourth behind the seat, as in the demo.
struct Demo {
    project: Project,
    address: SocketAddr,
}

impl Demo {
    fn up() -> anyhow::Result<Self> {
        let port = free_port()?;
        let demo = keel_testkit::Demo {
            program: env!("CARGO_BIN_EXE_evenkeel"),
            publishes: &format!("127.0.0.1:{port}:80"),
            environment: "LEDGER: FOLDER/ledger",
            command: None,
        };
        let project = demo.project()?;
        project.run(&["up", "-d"])?;
        Ok(Self { project, address: ([127, 0, 0, 1], port).into() })
    }

    /// The answers to so many requests, sorted and counted.
    fn shares(&self, requests: usize) -> anyhow::Result<Vec<(String, usize)>> {
        let mut shares = std::collections::BTreeMap::<String, usize>::new();
        for _ in 0..requests {
            *shares.entry(get(self.address, "/")?.text().trim().to_owned()).or_default() += 1;
        }
        Ok(shares.into_iter().collect())
    }

    fn ledger(&self) -> Ledger {
        Ledger::new(self.project.folder().join("ledger"))
    }

    fn all_ready(&self) -> bool {
        self.project.run(&["ps"]).is_ok_and(|list| {
            list.lines().filter(|line| line.starts_with("app")).all(|line| line.contains(" ready "))
        })
    }

    fn pid_of(&self, instance: &str) -> anyhow::Result<Pid> {
        let list: serde_json::Value = serde_json::from_str(&self.project.run(&["ps", "--format", "json"])?)?;
        let found = list.as_array().into_iter().flatten().find(|one| one["name"] == instance);
        let pid =
            found.and_then(|one| one["pid"].as_i64()).and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        anyhow::Context::context(pid, "the instance has a process")
    }
}

/// Describes failures, a few of them in full.
fn few<'a>(failures: impl IntoIterator<Item = &'a Outcome>) -> String {
    let failures: Vec<_> = failures.into_iter().collect();
    let shown: Vec<_> = failures.iter().take(4).map(|one| (&one.id, one.is_post, &one.result)).collect();
    if failures.is_empty() { String::new() } else { format!("{} failed: {shown:?}", failures.len()) }
}

fn share(name: &str, count: usize) -> (String, usize) {
    (format!("Hello from {name}"), count)
}

#[test]
fn the_demo_is_even_whoever_comes_and_goes() -> Done {
    let demo = Demo::up()?;
    let in_turn: Vec<String> =
        (0..12).map(|_| Ok(get(demo.address, "/")?.text())).collect::<anyhow::Result<_>>()?;
    // Who is first depends on who was ready first; from then on they take turns.
    let three: Vec<&str> = in_turn.iter().take(3).map(String::as_str).collect();
    assert_eq!(in_turn, three.repeat(4));
    assert_eq!(demo.shares(12)?, [share("app1", 4), share("app2", 4), share("app3", 4)]);
    demo.project.run(&["stop", "app2"])?;
    assert_eq!(demo.shares(12)?, [share("app1", 6), share("app3", 6)]);
    demo.project.run(&["start", "app2", "app4"])?;
    assert_eq!(demo.shares(12)?, [share("app1", 3), share("app2", 3), share("app3", 3), share("app4", 3)]);
    demo.project.run(&["scale", "app1=3"])?;
    assert_eq!(demo.shares(12)?, [share("app1", 6), share("app2", 2), share("app3", 2), share("app4", 2)]);
    let list = demo.project.run(&["ps"])?;
    assert!(["app1-1", "app1-2", "app1-3"].iter().all(|name| list.contains(name)), "{list}");
    assert!(demo.project.run(&["logs", "app3"])?.contains("app3 listens on"));
    assert_eq!(demo.project.run(&["exec", "-T", "app3", "sh", "-c", "echo $NAME; exit 0"])?, "app3\n");
    demo.project.run(&["down"])?;
    assert!(get(demo.address, "/").is_err());
    Ok(())
}

#[test]
fn no_command_loses_or_doubles_a_request_under_load() -> Done {
    let demo = Demo::up()?;
    let load = Load::start(demo.address, 64);
    load.wait_for(500)?;
    let commands: &[&[&str]] = &[
        &["stop", "app2"],
        &["start", "app2", "app4"],
        &["scale", "app1=3"],
        &["restart", "app3"],
        &["reload"],
        &["scale", "app1=1"],
        &["stop", "app4"],
        &["restart"],
        &["up", "-d"],
    ];
    for command in commands {
        demo.project.run(command)?;
        load.wait_for(500)?;
    }
    for _ in 0..100 {
        demo.project.run(&["reload"])?;
    }
    let report = load.stop();
    assert_eq!(few(report.failed()), "");
    assert_eq!(demo.ledger().doubled()?, []);
    Ok(())
}

#[test]
fn a_killed_instance_costs_no_get_and_doubles_no_post() -> Done {
    let demo = Demo::up()?;
    let load = Load::start(demo.address, 32);
    for round in 0..9 {
        load.wait_for(300)?;
        let name = ["app1", "app2", "app3"][round % 3];
        let killed = demo.pid_of(name)?;
        kill_process(killed, Signal::KILL)?;
        wait_until("another takes its place", || {
            demo.pid_of(name).is_ok_and(|pid| pid != killed) && demo.all_ready()
        })?;
    }
    load.wait_for(300)?;
    let report = load.stop();
    let (posts, gets): (Vec<&Outcome>, Vec<_>) =
        report.failed().into_iter().partition(|outcome| outcome.is_post);
    assert_eq!(few(gets), "");
    assert_eq!(few(posts.into_iter().filter(|outcome| outcome.result != Ok(502))), "");
    let doubled = demo.ledger().doubled()?;
    let posts: Vec<_> =
        report.outcomes.iter().filter(|outcome| outcome.is_post).map(|outcome| &outcome.id).collect();
    assert_eq!(
        doubled.iter().filter(|(id, _)| posts.contains(&id)).collect::<Vec<_>>(),
        Vec::<&(String, u32)>::new()
    );
    Ok(())
}

#[test]
fn all_killed_at_once_requests_wait_and_go_on() -> Done {
    let demo = Demo::up()?;
    for name in ["app1", "app2", "app3"] {
        kill_process(demo.pid_of(name)?, Signal::KILL)?;
    }
    for _ in 0..6 {
        assert_eq!(get(demo.address, "/")?.status, 200);
    }
    Ok(())
}

#[test]
fn a_killed_supervisor_leaves_no_orphan() -> Done {
    let demo = Demo::up()?;
    let instances = [demo.pid_of("app1")?, demo.pid_of("app2")?, demo.pid_of("app3")?];
    let supervisor = i32::try_from(demo.project.supervisor()?).ok().and_then(Pid::from_raw);
    kill_process(supervisor.expect("is a process"), Signal::KILL)?;
    wait_until("every instance is gone", || instances.iter().all(|pid| test_kill_process(*pid).is_err()))?;
    wait_until("nobody listens", || get(demo.address, "/").is_err())?;
    // And the next one starts as if nothing had been.
    demo.project.run(&["up", "-d"])?;
    assert_eq!(demo.shares(6)?, [share("app1", 2), share("app2", 2), share("app3", 2)]);
    Ok(())
}

#[test]
fn the_data_plane_gives_up_what_it_does_not_need_and_files_are_nobody_elses() -> Done {
    use std::os::unix::fs::PermissionsExt;
    let demo = Demo::up()?;
    assert_eq!(get(demo.address, "/")?.status, 200);
    let supervisor = demo.project.supervisor()?;
    let processes = std::fs::read_dir("/proc")?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let data_plane = pids.find(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        status.lines().any(|line| line == format!("PPid:\t{supervisor}")) && line.ends_with(b"data-plane\0")
    });
    let data_plane = anyhow::Context::context(data_plane, "it runs")?;
    let status = std::fs::read_to_string(format!("/proc/{data_plane}/status"))?;
    assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
    if status.contains("Seccomp:\t0") {
        keel_testkit::not_run("the filter of the data plane: this kernel has none");
    } else {
        assert!(status.contains("Seccomp:\t2\n"), "{status}");
    }
    let limits = std::fs::read_to_string(format!("/proc/{data_plane}/limits"))?;
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap_or_default();
    assert_eq!(cores.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    // Not to be looked at by others of this user; root may look at everything.
    match std::fs::read(format!("/proc/{data_plane}/environ")) {
        Ok(environment) => {
            let mut names = environment.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
            assert!(names.all(|entry| entry.starts_with(b"TZ")), "{environment:?}");
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
    }
    let state = demo.project.state_folder()?;
    let mode = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.permissions().mode() & 0o777);
    assert_eq!(mode(&state)? & 0o066, 0);
    assert_eq!(mode(&state.join("logs"))?, 0o700);
    assert_eq!(mode(&state.join("run"))?, 0o700);
    for entry in std::fs::read_dir(&state)?.chain(std::fs::read_dir(state.join("logs"))?).flatten() {
        if entry.path().extension().is_some_and(|ending| ending == "log") {
            assert_eq!(mode(&entry.path())?, 0o600, "{}", entry.path().display());
        }
    }
    Ok(())
}

#[test]
fn a_service_with_replicas_needs_no_nginx_conf() -> Done {
    let port = free_port()?;
    let app = keel_testkit::demo_app(Path::new(env!("CARGO_BIN_EXE_evenkeel")))?;
    // The same number on both sides: instances and listener share the port.
    let compose = format!(
        "services:\n  web:\n    image: none\n    x-process: {{command: {app}}}\n    \
         environment: {{PORT: {port}}}\n    deploy: {{replicas: 3}}\n    ports: [\"{port}:{port}\"]\n"
    );
    let project = Project::new(binary(), &[("compose.yaml", &compose)])?;
    project.run(&["up", "-d"])?;
    for _ in 0..12 {
        assert_eq!(get(([127, 0, 0, 1], port), "/")?.status, 200);
    }
    let list: serde_json::Value = serde_json::from_str(&project.run(&["ps", "--format", "json"])?)?;
    let requests: Vec<_> =
        list.as_array().into_iter().flatten().map(|one| one["requests"].as_u64()).collect();
    assert_eq!(requests, [Some(4); 3]);
    Ok(())
}

/// A service that is built of the file `version`, which must say that it is good.
fn built_project(app: &str, port: u16) -> anyhow::Result<Project> {
    // Named as an argument, the program is seen although it may lie in the machine's /tmp.
    let script = "grep -q good version && exec $$0";
    let compose = format!(
        "services:\n  web:\n    build: .\n    x-process: {{command: [sh, -c, {script:?}, {app:?}]}}\n    \
         restart: \"no\"\n    deploy: {{replicas: 2}}\n    ports: [\"127.0.0.1:{port}:5000\"]\n"
    );
    let files = [
        ("compose.yaml", compose.as_str()),
        ("Dockerfile", "FROM scratch\nCOPY version /\n"),
        ("version", "good 1"),
        ("README.md", "1"),
    ];
    let project = Project::new(binary(), &files)?;
    project.run(&["up", "-d"])?;
    Ok(project)
}

#[test]
fn a_build_of_a_changed_source_replaces_and_keeps_what_runs_where_the_new_one_fails() -> Done {
    let port = free_port()?;
    let app = keel_testkit::demo_app(Path::new(env!("CARGO_BIN_EXE_evenkeel")))?;
    let project = built_project(&app, port)?;
    let pids = || -> anyhow::Result<Vec<i64>> {
        let list: serde_json::Value = serde_json::from_str(&project.run(&["ps", "--format", "json"])?)?;
        Ok(list.as_array().into_iter().flatten().filter_map(|one| one["pid"].as_i64()).collect())
    };
    let first = pids()?;
    assert_eq!(first.len(), 2);
    let write = |name: &str, text: &str| std::fs::write(project.folder().join(name), text);
    project.run(&["up", "-d", "--build"])?;
    assert_eq!(pids()?, first, "nothing has changed");
    write("README.md", "2")?;
    project.run(&["up", "-d", "--build"])?;
    assert_eq!(pids()?, first, "the Dockerfile doesn't use it");
    write("version", "good 2")?;
    project.run(&["up", "-d"])?;
    assert_eq!(pids()?, first, "no build was asked for");
    project.run(&["up", "-d", "--build"])?;
    let second = pids()?;
    assert!(second.len() == 2 && first.iter().all(|pid| !second.contains(pid)), "{first:?} {second:?}");
    write("version", "bad")?;
    let output = project.output(&["up", "-d", "--build"])?;
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(pids()?, second);
    assert_eq!(get(([127, 0, 0, 1], port), "/")?.status, 200);
    Ok(())
}

#[test]
fn one_service_that_cannot_run_keeps_no_other_from_running() -> Done {
    let port = free_port()?;
    let app = keel_testkit::demo_app(Path::new(env!("CARGO_BIN_EXE_evenkeel")))?;
    let compose = format!(
        "services:\n  web:\n    image: none\n    x-process: {{command: {app}}}\n    ports: [\"127.0.0.1:{port}:5000\"]\n  \
         sick:\n    image: none\n    x-process: {{command: {app}}}\n    \
         healthcheck: {{test: [CMD, \"false\"], interval: 100ms, retries: 2}}\n"
    );
    let project = Project::new(binary(), &[("compose.yaml", &compose)])?;
    let output = project.output(&["up", "-d"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("sick: its healthcheck never passed"), "{said}");
    assert_eq!(get(([127, 0, 0, 1], port), "/")?.status, 200);
    let output = project.output(&["stop", "wbe"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.matches("did you mean `web`?").count(), 1, "{said}");
    Ok(())
}

#[test]
fn bad_input_is_named_with_place_and_remedy() -> Done {
    let check = |files: &[(&str, &str)], expect: &[&str]| -> Done {
        let project = Project::new(binary(), files)?;
        let output = project.output(&["up", "-d"])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{said}");
        for text in expect {
            assert!(said.contains(text), "{text:?} is missing in:\n{said}");
        }
        Ok(())
    };
    check(&[], &["docker-compose.yml"])?;
    check(&[("compose.yaml", "services:\n  web: [1\n")], &["compose.yaml:"])?;
    check(
        &[("compose.yaml", "services:\n  web:\n    command: sleep 9\n    prots: [\"1:2\"]\n")],
        &["compose.yaml:4", "did you mean `ports`?"],
    )?;
    let seat = "services:\n  app1:\n    image: none\n    x-process: {command: sleep 9}\n  nginx:\n    image: nginx\n    ports: [\"1:80\"]\n    \
                volumes: [\"./nginx.conf:/etc/nginx/nginx.conf\"]\n";
    let conf = keel_testkit::DEMO_NGINX_CONF.replace("app:5000", "ap1:5000");
    check(
        &[("compose.yaml", seat), ("nginx.conf", &conf)],
        &["nginx.conf:4", "host not found in upstream `ap1:5000`", "did you mean the service `app1`?"],
    )?;
    check(
        &[(
            "compose.yaml",
            "services:\n  web:\n    build: {dockerfile_inline: FROM scratch}\n    command: no-such-program\n    ports: [\"8080:80\"]\n",
        )],
        &["compose.yaml:4", "`no-such-program` is not found on this host", "x-process"],
    )?;
    Ok(())
}

#[test]
fn the_files_are_read_once() -> Done {
    use rustix::fs::inotify;
    let port = free_port()?;
    let demo = keel_testkit::Demo {
        program: env!("CARGO_BIN_EXE_evenkeel"),
        publishes: &format!("127.0.0.1:{port}:80"),
        environment: "LEDGER: FOLDER/ledger",
        command: None,
    };
    let project = demo.project()?;
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    for name in ["docker-compose.yml", "nginx.conf"] {
        // Two of a kind in a row would count as one: each opening is told from the next by the closing in between.
        let flags = inotify::WatchFlags::OPEN | inotify::WatchFlags::CLOSE_NOWRITE;
        inotify::add_watch(&watch, project.folder().join(name), flags)?;
    }
    let opened = || {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&watch, &mut buffer);
        let mut counts = [0, 0];
        while let Ok(event) = events.next() {
            if event.events().contains(inotify::ReadFlags::OPEN) {
                counts[usize::from(event.wd() != 1)] += 1;
            }
        }
        counts
    };
    project.run(&["up", "-d"])?;
    assert_eq!(opened(), [2, 1], "of which one is to find out whether the project runs already");
    project.run(&["up", "-d"])?;
    assert_eq!(opened(), [2, 1], "by the client to find the supervisor, and by the supervisor");
    project.run(&["reload"])?;
    assert_eq!(opened(), [2, 1]);
    Ok(())
}
