//! Containers behind a balancer that follows them: through the engine's DNS from a container of its own, and through
//! the engine's events from the host. Not run, by name, where no engine answers.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::ensure;
use keel_testkit::{Binary, Engine, EngineWay, Load, Report, free_port, get, wait_until};

type Outcome = anyhow::Result<()>;

const BINARY: &str = env!("CARGO_BIN_EXE_evenkeel");

/// Gives an engine, or says that a test isn't run.
fn engine(test: &str) -> anyhow::Result<Option<Engine>> {
    let engine = Engine::find()?;
    if engine.is_none() {
        eprintln!("not run: {test}, because no container engine answers here");
    }
    Ok(engine)
}

/// Builds the demo app, which is a package of its own.
fn demo_app() -> anyhow::Result<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo-app");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "-p", "evenkeel-demo-app", "--target-dir"])
        .arg(&target)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .status()?;
    ensure!(status.success(), "the demo app can't be built");
    Ok(target.join("debug/evenkeel-demo-app"))
}

/// Instances of the demo app, all with the alias `app`, behind one balancer.
struct Scene {
    engine: Engine,
    image: String,
    address: SocketAddr,
    /// A balancer on the host.
    balancer: Option<keel_testkit::Running>,
}

impl Scene {
    fn instance(&self, name: &str) -> anyhow::Result<String> {
        instance(&self.engine, &self.image, name)
    }

    fn docker(&self, command: &str, container: &str) -> Outcome {
        self.engine.docker(&[command, container]).map(drop)
    }

    /// Waits until just these answer, and checks that they do so in equal shares.
    fn wait_for(&self, expect: &[&str]) -> Outcome {
        let greetings: Vec<String> = expect.iter().map(|name| format!("Hello from {name}\n")).collect();
        wait_until(&format!("{expect:?} answer"), || {
            let mut answers = Vec::new();
            for _ in 0..expect.len() * 2 {
                match get(self.address, "/") {
                    Ok(response) => answers.push(response.text()),
                    Err(_) => return false,
                }
            }
            answers.sort();
            let mut each = [greetings.clone(), greetings.clone()].concat();
            each.sort();
            answers == each
        })
    }

    /// Requests without pause while something happens.
    fn under_load(&self, what: impl FnOnce() -> Outcome) -> anyhow::Result<Report> {
        let load = Load::start(self.address, 4);
        load.wait_for(50)?;
        what()?;
        load.wait_for(100)?;
        Ok(load.stop())
    }
}

fn instance(engine: &Engine, image: &str, name: &str) -> anyhow::Result<String> {
    engine.run(name, &["--network-alias", &alias(engine), "-e", &format!("NAME={name}")], image)
}

/// The name that all instances of one test share, and none of another: a balancer on the host sees every network.
fn alias(engine: &Engine) -> String {
    format!("{}-app", engine.name())
}

fn app_image(engine: &Engine) -> anyhow::Result<String> {
    engine.image("app", &[(&demo_app()?, "/app")], "CMD [\"/app\"]")
}

/// The balancer in a container: it knows nothing but the name `app`, as the file for nginx has it.
fn scene_in_a_container(engine: Engine) -> anyhow::Result<Scene> {
    let image = app_image(&engine)?;
    for name in ["app1", "app2", "app3"] {
        instance(&engine, &image, name)?;
    }
    let folder = tempfile::TempDir::new()?;
    let configuration = folder.path().join("nginx.conf");
    let upstream = format!("upstream app {{ server {}:5000; }}", alias(&engine));
    std::fs::write(
        &configuration,
        format!(
            "events {{}}\n\
             http {{ access_log off; {upstream}\n\
             server {{ listen 80; location / {{ proxy_pass http://app; }} }} }}\n"
        ),
    )?;
    let files: &[(&Path, &str)] =
        &[(Path::new(BINARY), "/evenkeel"), (&configuration, "/etc/nginx/nginx.conf")];
    let lines = "ENV EVENKEEL_RESOLVER=system\nUSER 101:101\nSTOPSIGNAL SIGQUIT\n\
                 CMD [\"/evenkeel\", \"serve\", \"-p\", \"/tmp\", \"-c\", \"/etc/nginx/nginx.conf\", \
                 \"-e\", \"stderr\", \"-g\", \"daemon off;\"]";
    let balancer = engine.image("balancer", files, lines)?;
    let options = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"];
    let container = engine.run("balancer", &options, &balancer)?;
    let address = SocketAddr::new(engine.address(&container)?, 80);
    Ok(Scene { engine, image, address, balancer: None })
}

/// The balancer on the host, following the engine's events; the engine is where `host` says.
fn scene_on_the_host(engine: Engine, host: Option<&str>) -> anyhow::Result<Scene> {
    let image = app_image(&engine)?;
    for name in ["app1", "app2", "app3"] {
        instance(&engine, &image, name)?;
    }
    let port = free_port()?;
    let upstream = format!("upstream app {{ zone app 64k; server {}:5000 resolve; }}", alias(&engine));
    let configuration = format!(
        "events {{}}\n\
         http {{ access_log off; proxy_read_timeout 1s; resolver docker; {upstream}\n\
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://app; }} }} }}\n"
    );
    let binary = Binary::new(BINARY);
    let binary = host.map_or(binary.clone(), |host| binary.with("DOCKER_HOST", host));
    let balancer = binary.serve(&configuration)?;
    Ok(Scene { engine, image, address: ([127, 0, 0, 1], port).into(), balancer: Some(balancer) })
}

/// What clients saw: every GET answered; POSTs lost at most by those who were killed in the middle of one.
fn no_get_was_lost(report: &Report) -> Outcome {
    let lost: Vec<_> =
        report.outcomes.iter().filter(|one| !one.is_post && one.result != Ok(200)).take(5).collect();
    ensure!(lost.is_empty(), "lost: {lost:?}");
    Ok(())
}

#[test]
fn dns_is_followed_from_a_container() -> Outcome {
    let Some(engine) = engine("dns_is_followed_from_a_container")? else { return Ok(()) };
    let scene = scene_in_a_container(engine)?;
    scene.wait_for(&["app1", "app2", "app3"])?;
    let app2 = format!("{}-app2", scene.engine.name());
    let report = scene.under_load(|| {
        scene.docker("stop", &app2)?;
        scene.instance("app4").map(drop)
    })?;
    no_get_was_lost(&report)?;
    scene.wait_for(&["app1", "app3", "app4"])?;
    let report = scene.under_load(|| scene.docker("kill", &format!("{}-app1", scene.engine.name())))?;
    no_get_was_lost(&report)?;
    scene.wait_for(&["app3", "app4"])?;
    scene.docker("start", &app2)?;
    scene.wait_for(&["app2", "app3", "app4"])?;
    // Its healthcheck says so, its stop signal drains it, and nobody in the container has any right.
    let balancer = format!("{}-balancer", scene.engine.name());
    scene.engine.docker(&["exec", &balancer, "/evenkeel", "healthcheck"])?;
    scene.docker("stop", &balancer)?;
    let state = scene.engine.docker(&["inspect", "--format", "{{.State.ExitCode}}", &balancer])?;
    assert_eq!(state, "0");
    Ok(())
}

#[test]
fn the_engines_events_are_followed() -> Outcome {
    let Some(engine) = engine("the_engines_events_are_followed")? else { return Ok(()) };
    let scene = scene_on_the_host(engine, None)?;
    scene.wait_for(&["app1", "app2", "app3"])?;
    let [app1, app2] = ["app1", "app2"].map(|name| format!("{}-{name}", scene.engine.name()));
    // A stop is known at its signal, which the engine tells of once it is sent: a POST may come in between.
    no_get_was_lost(&scene.under_load(|| scene.docker("stop", &app2))?)?;
    scene.wait_for(&["app1", "app3"])?;
    scene.instance("app4")?;
    scene.wait_for(&["app1", "app3", "app4"])?;
    no_get_was_lost(&scene.under_load(|| scene.docker("kill", &app1))?)?;
    scene.wait_for(&["app3", "app4"])?;
    scene.docker("start", &app1)?;
    scene.wait_for(&["app1", "app3", "app4"])?;
    scene.docker("pause", &app1)?;
    scene.wait_for(&["app3", "app4"])?;
    scene.docker("unpause", &app1)?;
    scene.wait_for(&["app1", "app3", "app4"])?;
    scene.engine.docker(&["network", "disconnect", scene.engine.name(), &app1])?;
    scene.wait_for(&["app3", "app4"])
}

#[test]
fn the_last_known_pool_stays_while_the_engine_is_silent() -> Outcome {
    const NAME: &str = "the_last_known_pool_stays_while_the_engine_is_silent";
    let Some(engine) = engine(NAME)? else { return Ok(()) };
    if !Path::new("/var/run/docker.sock").exists() {
        eprintln!("not run: {NAME}, because the engine has no socket on this machine");
        return Ok(());
    }
    let way = EngineWay::start()?;
    let scene = scene_on_the_host(engine, Some(&format!("tcp://127.0.0.1:{}", way.port())))?;
    scene.wait_for(&["app1", "app2", "app3"])?;
    way.cut();
    let log = || scene.balancer.as_ref().map(keel_testkit::Running::error_log).unwrap_or_default();
    wait_until("the log says so", || log().contains("the container engine can't be asked"))?;
    scene.wait_for(&["app1", "app2", "app3"])?;
    // What happens meanwhile isn't known, and costs no request that may go to another one.
    let app2 = format!("{}-app2", scene.engine.name());
    no_get_was_lost(&scene.under_load(|| scene.docker("stop", &app2))?)?;
    way.mend();
    scene.wait_for(&["app1", "app3"])
}
