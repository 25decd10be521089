//! `evenkeel up --driver docker`: what a user sees with local processes, with containers. Not run, by name, where no
//! engine answers.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    net::{IpAddr, SocketAddr},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use keel_testkit::{Binary, Engine, EngineWay, Ledger, Load, Outcome, Project, Report, free_port, get};
use rustix::process::{Pid, Signal, kill_process};

type Done = anyhow::Result<()>;

/// Engines take their time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(20);

const PROGRAM: &str = env!("CARGO_BIN_EXE_evenkeel");

const NGINX_CONF: &str = "\
events {}
http {
    access_log off;
    proxy_read_timeout 2s;
    upstream app { server app:5000; }
    server { listen 80; location / { proxy_pass http://app; } }
}
";

fn binary() -> Binary {
    Binary::new(PROGRAM)
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> Done {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        ensure!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn signal(pid: u32, signal: Signal) -> Done {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    Ok(kill_process(pid.context("is a process")?, signal)?)
}

/// A project with containers. Its fields are dropped in this order: the images can go when no container is left.
struct Scene {
    project: Project,
    left: Left,
    engine: Engine,
    address: SocketAddr,
}

/// What a project leaves in the engine on purpose: the arguments that remove it.
struct Left(Vec<Vec<String>>);

impl Left {
    fn note(&mut self, command: &[&str]) {
        self.0.push(command.iter().map(|word| (*word).to_owned()).collect());
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        for command in &self.0 {
            // What never came to be can't be removed.
            drop(Command::new("docker").args(command).output());
        }
    }
}

impl Scene {
    /// Writes a project. `@IMAGE@` stands for the demo app's image, and `@PORT@` for a free port of this host.
    fn new(engine: Engine, compose: &str, services: &[&str]) -> anyhow::Result<Self> {
        let app = keel_testkit::demo_app(Path::new(PROGRAM))?;
        let files = [
            (app.as_str(), "/app"),
            ("/usr/bin/test", "/test"),
            ("/usr/bin/sleep", "/sleep"),
            ("/bin/bash", "/bin/bash"),
        ];
        let files = files.map(|(file, place)| (Path::new(file), place));
        let image = engine.image("app", &files, "EXPOSE 5000\nCMD [\"/app\"]")?;
        let port = free_port()?;
        let compose = compose.replace("@IMAGE@", &image).replace("@PORT@", &port.to_string());
        let files = [("docker-compose.yml", compose.as_str()), ("ledger", ""), ("nginx.conf", NGINX_CONF)];
        // One that lies there is read, whether a service has the seat or not.
        let count = if compose.contains("nginx.conf") { files.len() } else { files.len() - 1 };
        let project = Project::new(binary(), &files[..count])?;
        let mut left = Left(Vec::new());
        for service in services {
            left.note(&["rmi", "-f", &format!("{}_{service}", project.name())]);
        }
        Ok(Self { project, left, engine, address: ([127, 0, 0, 1], port).into() })
    }

    /// Three services and a dormant fourth behind the seat, as in the demo.
    fn demo(engine: Engine) -> anyhow::Result<Self> {
        Self::demo_with(engine, &[])
    }

    /// The same, with these variables for the supervisor.
    fn demo_with(engine: Engine, variables: &[(&str, &str)]) -> anyhow::Result<Self> {
        let service = |name: &str, rest: &str| {
            format!(
                "  {name}:\n    build: {{context: ., dockerfile_inline: \"FROM @IMAGE@\"}}\n    \
                 environment: {{NAME: {name}, LEDGER: /ledger}}\n    volumes: [\"./ledger:/ledger\"]\n    \
                 restart: always\n    networks: {{default: {{aliases: [app]}}}}\n{rest}"
            )
        };
        let names = ["app1", "app2", "app3"];
        let services: String = names.iter().map(|name| service(name, "")).collect();
        let dormant = service("app4", "    profiles: [more]\n");
        let seat = "  nginx:\n    image: nginx:latest\n    ports: [\"127.0.0.1:@PORT@:80\"]\n    \
                    volumes: [\"./nginx.conf:/etc/nginx/nginx.conf:ro\"]\n";
        let compose = format!("version: \"3.8\"\nservices:\n{services}{dormant}{seat}");
        let scene = Self::new(engine, &compose, &["app1", "app2", "app3", "app4"])?;
        let mut up = scene.project.command(&["up", "-d", "--driver", "docker"]);
        let output = up.envs(variables.iter().copied()).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(scene)
    }

    /// The answers to so many requests, sorted and counted.
    fn shares(&self, requests: usize) -> anyhow::Result<Vec<(String, usize)>> {
        let mut shares = BTreeMap::<String, usize>::new();
        for _ in 0..requests {
            let text = get(self.address, "/")?.text();
            let name =
                text.trim().strip_prefix("Hello from ").with_context(|| format!("answered {text:?}"))?;
            *shares.entry(name.to_owned()).or_default() += 1;
        }
        Ok(shares.into_iter().collect())
    }

    /// Checks that just these answer, each so often.
    #[track_caller]
    fn expect(&self, names: &[&str], each: usize) -> Done {
        let expect: Vec<_> = names.iter().map(|name| ((*name).to_owned(), each)).collect();
        assert_eq!(self.shares(names.len() * each)?, expect);
        Ok(())
    }

    /// Waits until just these answer, in equal shares.
    fn wait_for(&self, names: &[&str]) -> Done {
        let expect: Vec<_> = names.iter().map(|name| ((*name).to_owned(), 2)).collect();
        eventually(&format!("{names:?} answer"), || {
            self.shares(names.len() * 2).is_ok_and(|shares| shares == expect)
        })
    }

    /// The container of an instance by its service, the only one.
    fn container(&self, service: &str) -> String {
        format!("{}_{service}_1", self.project.name())
    }

    /// The containers of the project in any state.
    fn containers(&self) -> anyhow::Result<Vec<String>> {
        let label = format!("label=com.docker.compose.project={}", self.project.name());
        let list = self.engine.docker(&["ps", "-a", "--filter", &label, "--format", "{{.Names}}"])?;
        let mut names: Vec<String> = list.lines().map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    /// Waits until there are just the containers of these services, by the names they should have.
    fn only_these_are_left(&self, services: &[&str]) -> Done {
        let names: Vec<String> = services.iter().map(|service| self.container(service)).collect();
        eventually("only these are left", || self.containers().is_ok_and(|found| found == names))
    }

    /// The processes in a service's container whose command line has these words.
    fn running(&self, service: &str, words: &str) -> Vec<i32> {
        let list = self.engine.docker(&["top", &self.container(service), "-eo", "pid,args"]);
        let list = list.unwrap_or_default();
        let found = list.lines().filter(|line| line.contains(words));
        found.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
    }

    fn networks(&self) -> anyhow::Result<String> {
        let name = format!("name={}_", self.project.name());
        self.engine.docker(&["network", "ls", "--filter", &name, "--format", "{{.Name}}"])
    }

    fn kill_supervisor(&self) -> Done {
        signal(self.project.supervisor()?, Signal::KILL)
    }

    fn instances(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        let list: serde_json::Value = serde_json::from_str(&self.project.run(&["ps", "--format", "json"])?)?;
        Ok(list.as_array().cloned().unwrap_or_default())
    }

    fn all_ready(&self) -> bool {
        self.instances().is_ok_and(|all| all.iter().all(|one| one["state"] == "ready"))
    }

    /// Requests without pause while something happens.
    fn under_load(&self, what: impl FnOnce() -> Done) -> anyhow::Result<Report> {
        let load = Load::start(self.address, 8);
        load.wait_for(100)?;
        what()?;
        load.wait_for(100)?;
        Ok(load.stop())
    }
}

/// Describes failures, a few of them in full.
fn few<'a>(failures: impl IntoIterator<Item = &'a Outcome>) -> String {
    let failures: Vec<_> = failures.into_iter().collect();
    let shown: Vec<_> = failures.iter().take(4).map(|one| (&one.id, one.is_post, &one.result)).collect();
    if failures.is_empty() { String::new() } else { format!("{} failed: {shown:?}", failures.len()) }
}

#[test]
fn the_demo_is_even_whoever_comes_and_goes() -> Done {
    let Some(engine) = Engine::for_test()? else { return Ok(()) };
    let scene = Scene::demo(engine)?;
    let run = |arguments: &[&str]| scene.project.run(arguments);
    scene.expect(&["app1", "app2", "app3"], 4)?;
    run(&["stop", "app2"])?;
    scene.expect(&["app1", "app3"], 6)?;
    run(&["start", "app2", "app4"])?;
    scene.expect(&["app1", "app2", "app3", "app4"], 3)?;
    // Names and labels are Compose's.
    let names = ["app1", "app2", "app3", "app4"].map(|service| scene.container(service));
    eventually("only these are left", || scene.containers().is_ok_and(|found| found == names))?;
    let format = "{{index .Config.Labels \"com.docker.compose.service\"}} \
                  {{index .Config.Labels \"com.docker.compose.container-number\"}} \
                  {{index .Config.Labels \"com.docker.compose.oneoff\"}} {{.HostConfig.RestartPolicy.Name}}";
    let labels = scene.engine.docker(&["inspect", "--format", format, &names[2]])?;
    assert_eq!(labels, "app3 1 False no");
    assert_eq!(scene.networks()?, format!("{}_default", scene.project.name()));
    // What they print, and commands in them and beside them.
    eventually("its output is kept", || {
        run(&["logs", "app3"]).is_ok_and(|logs| logs.contains("app3 listens on"))
    })?;
    for command in [
        &["exec", "-T", "-e", "PORT=odd", "app3", "/app"][..],
        &["run", "--rm", "-T", "-e", "PORT=odd", "app3"],
    ] {
        let output = scene.project.output(command)?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("PORT is `odd`, which is no port"), "{command:?}: {said}");
        assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
    }
    run(&["exec", "-T", "app3", "/test", "-e", "/ledger"])?;
    eventually("the one-off is removed", || scene.containers().is_ok_and(|found| found == names))?;
    run(&["down"])?;
    assert!(get(scene.address, "/").is_err());
    assert_eq!(scene.containers()?, Vec::<String>::new());
    assert_eq!(scene.networks()?, "");
    Ok(())
}

#[test]
fn scaling_to_ten_and_back_loses_nothing() -> Done {
    let Some(engine) = Engine::for_test()? else { return Ok(()) };
    // One published port, any number of instances.
    let compose = "services:\n  web:\n    build: {context: ., dockerfile_inline: \"FROM @IMAGE@\"}\n    \
                   ports: [\"127.0.0.1:@PORT@:5000\"]\n";
    let scene = Scene::new(engine, compose, &["web"])?;
    scene.project.run(&["up", "-d", "--driver", "docker"])?;
    for count in [10, 4, 1] {
        let report = scene.under_load(|| scene.project.run(&["scale", &format!("web={count}")]).map(drop))?;
        assert_eq!(few(report.failed()), "", "scaled to {count}");
        let shares: Vec<usize> = scene.shares(count * 2)?.into_iter().map(|(_, share)| share).collect();
        assert_eq!(shares, vec![2; count]);
    }
    Ok(())
}

#[test]
fn commands_under_load_lose_nothing() -> Done {
    let Some(engine) = Engine::for_test()? else { return Ok(()) };
    let scene = Scene::demo(engine)?;
    let load = Load::start(scene.address, 16);
    load.wait_for(200)?;
    let commands: [&[&str]; 7] = [
        &["stop", "app2"],
        &["start", "app2"],
        &["start", "app4"],
        &["restart", "app1", "app3"],
        &["stop", "app4"],
        &["up", "-d", "--driver", "docker", "--force-recreate"],
        &["reload"],
    ];
    for command in commands {
        scene.project.run(command)?;
        load.wait_for(200)?;
    }
    assert_eq!(few(load.stop().failed()), "");
    assert_eq!(Ledger::new(scene.project.folder().join("ledger")).doubled()?, []);
    Ok(())
}

#[test]
fn a_killed_or_paused_container_costs_no_get() -> Done {
    let Some(engine) = Engine::for_test()? else { return Ok(()) };
    let scene = Scene::demo(engine)?;
    let gets = |report: &Report| few(report.failed().into_iter().filter(|outcome| !outcome.is_post));
    let restarts = |name: &str| {
        let all = scene.instances().unwrap_or_default();
        all.iter().find(|one| one["name"] == name).and_then(|one| one["restarts"].as_u64())
    };
    let state = |name: &str| {
        let all = scene.instances().unwrap_or_default();
        let found = all.iter().find(|one| one["name"] == name)?;
        found["state"].as_str().map(str::to_owned)
    };
    let report = scene.under_load(|| {
        scene.engine.docker(&["kill", &scene.container("app1")])?;
        eventually("another takes its place", || restarts("app1") == Some(1) && scene.all_ready())
    })?;
    assert_eq!(gets(&report), "");
    scene.expect(&["app1", "app2", "app3"], 4)?;
    let report = scene.under_load(|| {
        scene.engine.docker(&["pause", &scene.container("app2")])?;
        eventually("it is out of the pool", || state("app2").as_deref() == Some("unhealthy"))
    })?;
    // What was sent to it was tried again elsewhere once its time was up.
    assert_eq!(gets(&report), "");
    scene.expect(&["app1", "app3"], 4)?;
    scene.engine.docker(&["unpause", &scene.container("app2")])?;
    scene.wait_for(&["app1", "app2", "app3"])?;
    // `evenkeel kill` says that it shall stay dead.
    let report = scene.under_load(|| scene.project.run(&["kill", "app3"]).map(drop))?;
    assert_eq!(gets(&report), "");
    scene.expect(&["app1", "app2"], 4)?;
    Ok(())
}

/// As Compose has it, nobody puts it back but who took it out. Until then it is out of the pool.
#[test]
fn a_container_cut_off_from_its_network_costs_no_get() -> Done {
    let Some(engine) = Engine::for_test()? else {
        return Ok(());
    };
    let scene = Scene::demo(engine)?;
    let network = scene.networks()?;
    let container = scene.container("app2");
    let address = || scene.engine.address(&container);
    let before = address()?;
    let report = scene.under_load(|| {
        scene.engine.docker(&["network", "disconnect", &network, &container])?;
        eventually("it is out of the pool", || !scene.all_ready())
    })?;
    assert_eq!(few(report.failed().into_iter().filter(|outcome| !outcome.is_post)), "");
    scene.expect(&["app1", "app3"], 6)?;
    let shown = scene.project.run(&["ps"])?;
    assert!(shown.contains("it is in none of its networks"), "{shown}");
    // What joins meanwhile gets its address, so that it comes back under another one.
    scene.project.run(&["start", "app4"])?;
    scene.expect(&["app1", "app3", "app4"], 4)?;
    let report = scene.under_load(|| {
        scene.engine.docker(&["network", "connect", &network, &container])?;
        eventually("it is back", || scene.all_ready())
    })?;
    assert_eq!(few(report.failed()), "", "when it came back from {before} at {:?}", address());
    scene.expect(&["app1", "app2", "app3", "app4"], 3)
}

/// The demo, whose supervisor reaches the engine by a way that can be cut; or says that a test isn't run.
fn scene_behind_a_way() -> anyhow::Result<Option<(Scene, EngineWay)>> {
    let Some(engine) = Engine::for_test()? else { return Ok(None) };
    if !Path::new("/var/run/docker.sock").exists() {
        keel_testkit::not_run("the engine has no socket on this machine");
        return Ok(None);
    }
    let way = EngineWay::start()?;
    let scene = Scene::demo_with(engine, &[("DOCKER_HOST", &format!("tcp://127.0.0.1:{}", way.port()))])?;
    Ok(Some((scene, way)))
}

#[test]
fn the_instances_known_last_stay_while_the_engine_is_silent() -> Done {
    let Some((scene, way)) = scene_behind_a_way()? else { return Ok(()) };
    scene.engine.docker(&["pause", &scene.container("app3")])?;
    eventually("one is out of the pool", || !scene.all_ready())?;
    way.cut();
    scene.expect(&["app1", "app2"], 2)?;
    scene.engine.docker(&["unpause", &scene.container("app3")])?;
    // What happens meanwhile isn't known, and costs no request that may go to another one.
    let report = scene.under_load(|| scene.engine.docker(&["kill", &scene.container("app2")]).map(drop))?;
    assert_eq!(few(report.failed().into_iter().filter(|outcome| !outcome.is_post)), "");
    let ready = |name: &str| {
        let all = scene.instances().unwrap_or_default();
        all.iter().any(|one| one["name"] == name && one["state"] == "ready")
    };
    assert!(ready("app2") && !ready("app3"), "nothing is known of it");
    way.mend();
    eventually("it is known, and another took its place", || {
        let all = scene.instances().unwrap_or_default();
        let found = all.iter().find(|one| one["name"] == "app2");
        found.is_some_and(|one| one["restarts"] == 1 && one["state"] == "ready")
    })?;
    eventually("who was paused is back", || scene.all_ready())?;
    scene.expect(&["app1", "app2", "app3"], 4)
}

#[test]
fn what_is_to_start_while_the_engine_is_silent_starts_when_it_answers() -> Done {
    let Some((scene, way)) = scene_behind_a_way()? else { return Ok(()) };
    scene.project.run(&["stop", "app2"])?;
    way.cut();
    // The command doesn't wait for ever, and says why.
    let output = scene.project.output(&["restart", "app2"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("app2: its container can't be made"), "{said}");
    scene.expect(&["app1", "app3"], 2)?;
    way.mend();
    scene.wait_for(&["app1", "app2", "app3"])?;
    scene.only_these_are_left(&["app1", "app2", "app3"])
}

#[test]
fn the_engines_healthcheck_counts() -> Done {
    let Some(engine) = Engine::for_test()? else { return Ok(()) };
    let compose = "services:\n  web:\n    build: {context: ., dockerfile_inline: \"FROM @IMAGE@\"}\n    \
                   ports: [\"127.0.0.1:@PORT@:5000\"]\n    deploy: {replicas: 2}\n    volumes: [\"./flags:/flags\"]\n    \
                   healthcheck: {test: [CMD, /test, -e, /flags/well], interval: 1s, retries: 2}\n";
    let scene = Scene::new(engine, compose, &["web"])?;
    let flag = scene.project.folder().join("flags/well");
    std::fs::create_dir(flag.parent().expect("is in a folder"))?;
    std::fs::write(&flag, "")?;
    scene.project.run(&["up", "-d", "--driver", "docker"])?;
    assert_eq!(scene.shares(4)?.len(), 2);
    let health = |wanted: &str| {
        let all = scene.instances().unwrap_or_default();
        !all.is_empty() && all.iter().all(|one| one["state"] == wanted)
    };
    std::fs::remove_file(&flag)?;
    eventually("both are out of the pool", || health("unhealthy"))?;
    std::fs::write(&flag, "")?;
    eventually("both are back", || health("ready"))?;
    assert_eq!(scene.shares(4)?.len(), 2);
    Ok(())
}

#[test]
fn a_command_in_a_container_is_signalled_and_a_healthcheck_that_hangs_is_ended() -> Done {
    let Some(engine) = Engine::for_test()? else { return Ok(()) };
    if !rustix::process::geteuid().is_root() {
        keel_testkit::not_run("only root may signal the processes of containers");
        return Ok(());
    }
    // The engine's own checks begin after an hour: all that are seen are Evenkeel's.
    let compose = "services:\n  web:\n    build: {context: ., dockerfile_inline: \"FROM @IMAGE@\"}\n    \
                   ports: [\"127.0.0.1:@PORT@:5000\"]\n    \
                   healthcheck: {test: [CMD, /sleep, '600'], interval: 1h, timeout: 1s}\n";
    let scene = Scene::new(engine, compose, &["web"])?;
    let mut up = scene.project.command(&["up", "-d", "--driver", "docker"]).spawn()?;
    let sleeping = |seconds: &str| scene.running("web", &format!("/sleep {seconds}"));
    eventually("it is asked", || !sleeping("600").is_empty())?;
    let first = sleeping("600");
    eventually("that is ended", || !sleeping("600").iter().any(|pid| first.contains(pid)))?;
    // A signal to a command reaches that one.
    let mut command = scene.project.command(&["exec", "-T", "-e", "PORT=5001", "web", "/app"]);
    let mut exec = command.stdout(Stdio::piped()).spawn()?;
    let mut said = String::new();
    BufReader::new(exec.stdout.take().context("is a pipe")?).read_line(&mut said)?;
    assert!(said.contains("listens on"), "{said}");
    signal(exec.id(), Signal::TERM)?;
    eventually("it ends", || exec.try_wait().is_ok_and(|ended| ended.is_some()))?;
    assert_eq!(scene.running("web", "/app").len(), 1);
    scene.project.run(&["down"])?;
    up.wait()?;
    Ok(())
}

#[test]
fn a_container_that_ignores_a_signal_to_end_comes_back() -> Done {
    let Some(engine) = Engine::for_test()? else {
        return Ok(());
    };
    let compose = "services:\n  web:\n    build: {context: ., dockerfile_inline: \"FROM @IMAGE@\"}\n    \
                   ports: [\"127.0.0.1:@PORT@:5000\"]\n    deploy: {replicas: 2}\n    \
                   stop_signal: SIGWINCH\n    stop_grace_period: 3s\n";
    let scene = Scene::new(engine, compose, &["web"])?;
    scene.project.run(&["up", "-d", "--driver", "docker"])?;
    assert_eq!(scene.shares(4)?.len(), 2);
    let unhealthy = || {
        let all = scene.instances().unwrap_or_default();
        all.iter().filter(|one| one["state"] == "unhealthy").count()
    };
    scene.engine.docker(&["kill", "-s", "WINCH", &scene.container("web")])?;
    eventually("it is out of the pool", || unhealthy() == 1)?;
    eventually("it is back", || unhealthy() == 0)?;
    assert_eq!(scene.shares(4)?.len(), 2);
    assert!(scene.instances()?.iter().all(|one| one["restarts"] == 0), "nothing was started anew");
    Ok(())
}

#[test]
fn drivers_mix_and_find_each_other_by_name() -> Done {
    let Some(engine) = Engine::for_test()? else { return Ok(()) };
    let port = free_port()?;
    let compose = format!(
        "x-driver: auto\nservices:\n  web:\n    image: none\n    x-process: {{command: {}}}\n    \
         environment: {{NAME: web}}\n    ports: [\"127.0.0.1:@PORT@:5000\"]\n    depends_on: [db]\n  \
         db:\n    image: @IMAGE@\n    environment: {{NAME: db, PORT: '5432'}}\n    \
         ports: [\"127.0.0.1:{port}:5432\"]\n    volumes: [\"data:/data\", /own]\nvolumes: {{data: {{}}}}\n",
        keel_testkit::demo_app(Path::new(PROGRAM))?
    );
    let mut scene = Scene::new(engine, &compose, &[])?;
    scene.project.run(&["up", "-d"])?;
    scene.expect(&["web"], 2)?;
    assert_eq!(scene.containers()?, [scene.container("db")]);
    let said = |at: SocketAddr| -> anyhow::Result<String> { Ok(get(at, "/")?.text().trim().to_owned()) };
    // The local process finds the container by its name, and so does who asks this host for the published port.
    let hosts = scene.project.run(&["exec", "-T", "web", "getent", "ahostsv4", "db"])?;
    let found: IpAddr = hosts.split_whitespace().next().context("db has an address")?.parse()?;
    assert_eq!(said((found, 5432).into())?, "Hello from db");
    assert_eq!(said(([127, 0, 0, 1], port).into())?, "Hello from db");
    // The container is told that the process's name is this host, which passes connections on.
    let inspect =
        |format: &str| scene.engine.docker(&["inspect", "--format", format, &scene.container("db")]);
    let gateway = inspect("{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}")?;
    let names = inspect("{{json .HostConfig.ExtraHosts}}")?;
    assert!(names.contains(&format!("\"web:{gateway}\"")), "{names} should name {gateway}");
    assert_eq!(said((gateway.parse::<IpAddr>()?, 5000).into())?, "Hello from web");
    // Both do so from where they are.
    for (from, whom) in [("db", "web/5000"), ("web", "db/5432")] {
        let script = format!(
            "exec 3<>/dev/tcp/{whom}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; while read -r line <&3; do echo $line; done"
        );
        let answer = scene.project.run(&["exec", "-T", from, "/bin/bash", "-c", &script])?;
        let (name, _) = whom.split_once('/').context("has a port")?;
        assert!(answer.contains(&format!("Hello from {name}")), "{from} asked {whom}: {answer}");
    }
    // What it keeps it keeps.
    let volumes = || inspect("{{range .Mounts}}{{.Name}}:{{.Destination}} {{end}}");
    let before = volumes()?;
    scene.project.run(&["restart", "db"])?;
    let after = volumes()?;
    let sorted = |text: &str| {
        let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        words.sort();
        words
    };
    for volume in sorted(&before) {
        let name = volume.split(':').next().unwrap_or_default().to_owned();
        scene.left.note(&["volume", "rm", "-f", &name]);
    }
    assert_eq!(sorted(&before), sorted(&after));
    assert_eq!(sorted(&before).len(), 2);
    Ok(())
}

#[test]
fn what_a_killed_supervisor_leaves_is_ended() -> Done {
    let Some(engine) = Engine::for_test()? else { return Ok(()) };
    let scene = Scene::demo(engine)?;
    scene.kill_supervisor()?;
    assert_eq!(scene.containers()?.len(), 3, "containers don't die with it");
    eventually("the next one takes its place", || {
        scene.project.run(&["up", "-d", "--driver", "docker"]).is_ok()
    })?;
    scene.expect(&["app1", "app2", "app3"], 2)?;
    assert_eq!(scene.containers()?.len(), 3);
    scene.kill_supervisor()?;
    eventually("nobody is left to ask", || get(scene.address, "/").is_err())?;
    scene.project.run(&["down"])?;
    assert_eq!(scene.containers()?, Vec::<String>::new());
    assert_eq!(scene.networks()?, "");
    Ok(())
}

#[test]
#[cfg(feature = "drill")]
fn a_drill_plays_its_cases_on_containers() -> Done {
    let Some(engine) = Engine::for_test()? else { return Ok(()) };
    if !rustix::process::geteuid().is_root() {
        keel_testkit::not_run("only root may kill the processes of containers");
        return Ok(());
    }
    let scene = Scene::demo(engine)?;
    scene.project.run(&["down"])?;
    let out = scene.project.folder().join("out");
    let out = out.to_string_lossy();
    let cases = ["--case", "stop-one", "--case", "kill-one", "--case", "frozen"];
    let arguments = [&["drill", "--driver", "docker", "--short", "--out", &out][..], &cases].concat();
    let output = scene.project.command(&arguments).output()?;
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    let results = std::fs::read_to_string(scene.project.folder().join("out/results.json"))?;
    let results: serde_json::Value = serde_json::from_str(&results)?;
    assert_eq!(results["driver"], "docker");
    let played = results["cases"].as_array().map_or(&[][..], Vec::as_slice);
    assert_eq!(played.len(), 3, "{said}");
    for case in played {
        let number = |of: &str, name: &str| case[of][name].as_u64().unwrap_or(u64::MAX);
        let wrong = ["lost", "doubled", "torn"].map(|name| number("count", name));
        assert_eq!(wrong, [0, 0, 0], "{said}");
        // On a machine that hasn't the time to send, a peer may be left out for a while: then shares prove nothing.
        let kept_up = number("load", "late") * 100 < number("count", "sent");
        assert!(case["findings"] == serde_json::json!([]) || !kept_up, "{said}");
    }
    let left =
        scene.engine.docker(&["ps", "-aq", "--filter", &format!("name={}-drill", scene.project.name())])?;
    assert_eq!(left, "");
    Ok(())
}

/// Three ways to run one project: this is the third. The base image comes from no registry here.
#[test]
fn a_flask_project_as_people_have_it() -> Done {
    const BASE: &str = "python:3.11-slim";
    let Some(engine) = Engine::for_test()? else { return Ok(()) };
    if engine.docker(&["image", "inspect", BASE]).is_err() {
        keel_testkit::not_run(format_args!("the engine has no {BASE}"));
        return Ok(());
    }
    let service = |name: &str| {
        format!(
            "  {name}:\n    build: ./app\n    environment:\n      - NAME={name}\n    networks:\n      default:\n        \
             aliases: [app]\n"
        )
    };
    let compose = format!(
        "version: \"3.8\"\nservices:\n{}{}{}  nginx:\n    image: nginx:latest\n    \
         ports:\n      - \"127.0.0.1:@PORT@:80\"\n    volumes:\n      - ./nginx.conf:/etc/nginx/nginx.conf:ro\n    \
         depends_on: [app1, app2, app3]\n",
        service("app1"),
        service("app2"),
        service("app3")
    );
    let scene = Scene::new(engine, &compose, &["app1", "app2", "app3"])?;
    scene.project.write(
        "app/main.py",
        "import os\nfrom flask import Flask\n\napp = Flask(__name__)\n\n@app.route(\"/\")\ndef hello():\n    \
         return f\"Hello from {os.environ['NAME']}\\n\"\n\nif __name__ == \"__main__\":\n    \
         app.run(host=\"0.0.0.0\", port=5000)\n",
    )?;
    scene.project.write(
        "app/Dockerfile",
        "FROM python:3.11-slim\nWORKDIR /app\nRUN pip install flask\nCOPY main.py .\nEXPOSE 5000\n\
         CMD [\"python\", \"main.py\"]\n",
    )?;
    // Built beforehand, with no limit of time; the engine keeps what it built.
    let context = scene.project.folder().join("app");
    let image = format!("{}_app1", scene.project.name());
    scene.engine.docker(&["build", "-q", "-t", &image, &context.to_string_lossy()])?;
    scene.project.run(&["up", "-d", "--driver", "docker"])?;
    scene.expect(&["app1", "app2", "app3"], 4)?;
    scene.project.run(&["stop", "app2"])?;
    scene.expect(&["app1", "app3"], 6)
}

#[test]
fn what_cannot_be_had_is_named_with_a_remedy() -> Done {
    let Some(engine) = Engine::for_test()? else { return Ok(()) };
    let says = |project: &Project, arguments: &[&str], texts: &[&str]| -> Done {
        let output = project.output(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{said}");
        for text in texts {
            assert!(said.contains(text), "{text:?} is missing in:\n{said}");
        }
        Ok(())
    };
    let compose = "services:\n  web:\n    build: {context: ., dockerfile_inline: \"FROM @IMAGE@\"}\n    \
                   ports: [\"127.0.0.1:@PORT@:5000\"]\n  db:\n    image: 127.0.0.1:1/nobody/has:this\n";
    let scene = Scene::new(engine, compose, &["web"])?;
    // One service that can't run keeps none of the others from running.
    says(
        &scene.project,
        &["up", "-d", "--driver", "docker"],
        &["db: the image", "can't be pulled", "docker login"],
    )?;
    assert_eq!(scene.shares(1)?.len(), 1);
    let broken = Project::new(
        binary(),
        &[(
            "compose.yaml",
            "services:\n  web:\n    build: {context: ., dockerfile_inline: \"FROM scratch\\nCOPY nothing /\"}\n    \
         ports: [\"127.0.0.1:1:5000\"]\n",
        )],
    )?;
    says(&broken, &["up", "-d", "--driver", "docker"], &["building web failed", "COPY failed", "nothing"])?;
    Ok(())
}

#[test]
fn without_an_engine_it_says_where_it_looked() -> Done {
    let project = Project::new(
        binary(),
        &[(
            "compose.yaml",
            "x-driver: dokcer\nservices:\n  web:\n    image: none\n    ports: [\"127.0.0.1:1:5000\"]\n",
        )],
    )?;
    let said = |output: std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let text = said(project.output(&["up", "-d"])?);
    assert!(text.contains("`dokcer` is not a driver") && text.contains("did you mean `docker`?"), "{text}");
    project.write(
        "compose.yaml",
        &format!("services:\n  web:\n    image: none\n    ports: [\"127.0.0.1:{}:5000\"]\n", free_port()?),
    )?;
    let mut command = project.command(&["up", "-d", "--driver", "docker"]);
    let text = said(command.env("DOCKER_HOST", "unix:///nowhere/docker.sock").output()?);
    let expect = ["no container engine answers at unix:///nowhere/docker.sock", "--driver process"];
    assert!(expect.iter().all(|part| text.contains(part)), "{text}");
    Ok(())
}
