//! Containers behind a balancer that follows them: through the engine's DNS from a container of its own, and through
//! the engine's events from the host. Not run, by name, where no engine answers.

use std::path::Path;

use keel_testkit::{Binary, Engine, EngineWay, Fleet, Front, Running, free_port, wait_until};

type Outcome = anyhow::Result<()>;

const BINARY: &str = env!("CARGO_BIN_EXE_evenkeel");
/// How many clients send all the time.
const CONNECTIONS: usize = 4;

/// The balancer in a container: it knows nothing but the name `app`, as the file for nginx has it.
fn scene_in_a_container(engine: Engine) -> anyhow::Result<(Fleet, Front)> {
    let fleet = Fleet::start(engine, Path::new(BINARY))?;
    let upstream = format!("upstream app {{ server {}:5000; }}", fleet.alias());
    let configuration = format!(
        "events {{}}\n\
         http {{ access_log off; {upstream}\n\
         server {{ listen 80; location / {{ proxy_pass http://app; }} }} }}\n"
    );
    let address = fleet.balancer(Path::new(BINARY), &configuration, &["-e", "EVENKEEL_RESOLVER=system"])?;
    Ok((fleet, Front::new((address, 80))))
}

/// The balancer on the host, following the engine's events; the engine is where `host` says.
fn scene_on_the_host(engine: Engine, host: Option<&str>) -> anyhow::Result<(Fleet, Front, Running)> {
    let fleet = Fleet::start(engine, Path::new(BINARY))?;
    let port = free_port()?;
    let upstream = format!("upstream app {{ zone app 64k; server {}:5000 resolve; }}", fleet.alias());
    let configuration = format!(
        "events {{}}\n\
         http {{ access_log off; proxy_read_timeout 1s; resolver docker; {upstream}\n\
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://app; }} }} }}\n"
    );
    let binary = Binary::new(BINARY);
    let binary = host.map_or(binary.clone(), |host| binary.with("DOCKER_HOST", host));
    let balancer = binary.serve(&configuration)?;
    Ok((fleet, Front::new(([127, 0, 0, 1], port)), balancer))
}

#[test]
fn dns_is_followed_from_a_container() -> Outcome {
    let Some(engine) = Engine::for_test()? else { return Ok(()) };
    let (fleet, front) = scene_in_a_container(engine)?;
    front.wait_for(&["app1", "app2", "app3"])?;
    let report = front.under_load(CONNECTIONS, || {
        fleet.docker("stop", "app2")?;
        fleet.add("app4")
    })?;
    report.no_get_was_lost()?;
    front.wait_for(&["app1", "app3", "app4"])?;
    front.under_load(CONNECTIONS, || fleet.docker("kill", "app1"))?.no_get_was_lost()?;
    front.wait_for(&["app3", "app4"])?;
    fleet.docker("start", "app2")?;
    front.wait_for(&["app2", "app3", "app4"])?;
    // Its healthcheck says so, its stop signal drains it, and nobody in the container has any right.
    let balancer = fleet.container("balancer");
    fleet.engine().docker(&["exec", &balancer, "/evenkeel", "healthcheck"])?;
    fleet.docker("stop", "balancer")?;
    let state = fleet.engine().docker(&["inspect", "--format", "{{.State.ExitCode}}", &balancer])?;
    assert_eq!(state, "0");
    Ok(())
}

#[test]
fn the_engines_events_are_followed() -> Outcome {
    let Some(engine) = Engine::for_test()? else { return Ok(()) };
    let (fleet, front, _balancer) = scene_on_the_host(engine, None)?;
    front.wait_for(&["app1", "app2", "app3"])?;
    // A stop is known at its signal, which the engine tells of once it is sent: a POST may come in between.
    front.under_load(CONNECTIONS, || fleet.docker("stop", "app2"))?.no_get_was_lost()?;
    front.wait_for(&["app1", "app3"])?;
    fleet.add("app4")?;
    front.wait_for(&["app1", "app3", "app4"])?;
    front.under_load(CONNECTIONS, || fleet.docker("kill", "app1"))?.no_get_was_lost()?;
    front.wait_for(&["app3", "app4"])?;
    fleet.docker("start", "app1")?;
    front.wait_for(&["app1", "app3", "app4"])?;
    fleet.docker("pause", "app1")?;
    front.wait_for(&["app3", "app4"])?;
    fleet.docker("unpause", "app1")?;
    front.wait_for(&["app1", "app3", "app4"])?;
    fleet.disconnect("app1")?;
    front.wait_for(&["app3", "app4"])
}

/// As with `docker kill -s TERM` and a process 1 that has no handler. WINCH is a signal that nobody minds.
#[test]
fn a_container_that_ignores_its_stop_signal_returns() -> Outcome {
    let Some(engine) = Engine::for_test()? else {
        return Ok(());
    };
    let (fleet, front, _balancer) = scene_on_the_host(engine, None)?;
    let engine = fleet.engine();
    let image = engine.docker(&["inspect", "--format", "{{.Config.Image}}", &fleet.container("app1")])?;
    let alias = fleet.alias();
    let options = ["--network-alias", &alias, "-e", "NAME=app4", "--stop-signal=WINCH", "--stop-timeout=3"];
    engine.run("app4", &options, &image)?;
    front.wait_for(&["app1", "app2", "app3", "app4"])?;
    engine.docker(&["kill", "-s", "WINCH", &fleet.container("app4")])?;
    front.wait_for(&["app1", "app2", "app3"])?;
    front.wait_for(&["app1", "app2", "app3", "app4"])
}

#[test]
fn the_last_known_pool_stays_while_the_engine_is_silent() -> Outcome {
    let Some(engine) = Engine::for_test()? else { return Ok(()) };
    if !Path::new("/var/run/docker.sock").exists() {
        keel_testkit::not_run("the engine has no socket on this machine");
        return Ok(());
    }
    let way = EngineWay::start()?;
    let host = format!("tcp://127.0.0.1:{}", way.port());
    let (fleet, front, balancer) = scene_on_the_host(engine, Some(&host))?;
    front.wait_for(&["app1", "app2", "app3"])?;
    way.cut();
    wait_until("the log says so", || balancer.error_log().contains("the container engine can't be asked"))?;
    front.wait_for(&["app1", "app2", "app3"])?;
    // What happens meanwhile isn't known, and costs no request that may go to another one.
    front.under_load(CONNECTIONS, || fleet.docker("stop", "app2"))?.no_get_was_lost()?;
    way.mend();
    front.wait_for(&["app1", "app3"])
}
