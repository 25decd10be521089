//! Hosts cut off from one another: the balancer and its instances are containers with networks of their own, one of
//! which is disconnected, slowed down, silenced, or has no DNS. Clients are on the host. Not run, by name, where no
//! engine answers, or where the way to the fault isn't open.

use std::{
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use keel_testkit::{Engine, Fleet, Front, equal, get, wait_until};

type Outcome = anyhow::Result<()>;

const BINARY: &str = env!("CARGO_BIN_EXE_evenkeel");
const SOCKET: &str = "/var/run/docker.sock";
/// How many clients send all the time.
const CONNECTIONS: usize = 4;
/// By when an instance that can't be reached has to be out of the pool: what a request may take to find out (below), and
/// as much again for every client, on a machine that has other things to do.
const OUT_WITHIN: Duration = Duration::from_secs(15);
/// How long DNS is away, and how often it is looked whether anybody minds.
const DNS_OUTAGE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long an answer takes at least that comes through a slow network.
const SLOW: Duration = Duration::from_millis(50);

const ALL: [&str; 3] = ["app1", "app2", "app3"];

/// Three instances behind a balancer in a container.
struct Scene {
    fleet: Fleet,
    front: Front,
}

impl Scene {
    /// Starts them; `resolver` is the directive's arguments, `options` are for `docker run`.
    fn new(engine: Engine, resolver: &str, options: &[&str]) -> anyhow::Result<Self> {
        let fleet = Fleet::start(engine, Path::new(BINARY))?;
        let server = format!("{}:5000", fleet.alias());
        let configuration = format!(
            "worker_processes 2;\nerror_log stderr info;\nevents {{}}\n\
             http {{\n\
                 access_log off; proxy_connect_timeout 1s; proxy_read_timeout 2s; resolver {resolver};\n\
                 upstream app {{ zone app 64k; server {server} resolve max_fails=1 fail_timeout=4s; }}\n\
                 server {{ listen 80; location / {{ proxy_pass http://app; }} }}\n\
             }}\n"
        );
        let address = fleet.balancer(Path::new(BINARY), &configuration, options)?;
        let scene = Self { fleet, front: Front::new((address, 80)) };
        scene.front.wait_for(&ALL)?;
        Ok(scene)
    }

    /// Names are followed through the engine's DNS.
    fn with_dns(engine: Engine) -> anyhow::Result<Self> {
        Self::new(engine, "127.0.0.11 valid=1s", &[])
    }

    /// Checks that clients who all send at one time are spread exactly: nobody's share differs by more than one.
    fn is_even_under_load(&self, names: &[&str]) -> Outcome {
        let report = self.front.under_load(CONNECTIONS, || Ok(()))?;
        ensure!(report.failed().is_empty(), "lost: {:?}", report.failed().first());
        let shares = report.shares();
        let (least, most) = (shares.values().min(), shares.values().max());
        let is_even = least.zip(most).is_some_and(|(least, most)| most - least <= 1);
        ensure!(is_even && shares.keys().eq(names.iter()), "{shares:?} among {names:?}");
        Ok(())
    }

    /// What the balancer has said.
    fn log(&self) -> anyhow::Result<String> {
        self.fleet.engine().logs(&self.fleet.container("balancer"))
    }

    /// Waits until so many addresses are behind the name, as the balancer says.
    fn wait_for_members(&self, count: usize) -> Outcome {
        let line = format!("{}:5000 is ", self.fleet.alias());
        wait_until(&format!("{count} are behind the name"), || {
            let log = self.log().unwrap_or_default();
            let last = log.rsplit_once(&line).and_then(|(_, rest)| rest.lines().next());
            last.is_some_and(|members| members.split(", ").count() == count)
        })
    }

    /// Takes one instance out of the network and puts it back.
    fn one_is_disconnected_and_comes_back(&self) -> Outcome {
        let mut out_after = Duration::MAX;
        let report = self.front.under_load(CONNECTIONS, || {
            let begun = Instant::now();
            self.fleet.disconnect("app2")?;
            self.wait_for_members(2)?;
            out_after = begun.elapsed();
            Ok(())
        })?;
        report.no_get_was_lost()?;
        ensure!(out_after < OUT_WITHIN, "it was out of the pool after {out_after:?} only");
        self.front.wait_for(&["app1", "app3"])?;
        self.is_even_under_load(&["app1", "app3"])?;
        // It comes back under another address: this one has the old one, as a rule.
        self.fleet.add("app4")?;
        self.wait_for_members(3)?;
        let report = self.front.under_load(CONNECTIONS, || {
            self.fleet.connect("app2")?;
            self.wait_for_members(4)
        })?;
        ensure!(report.failed().is_empty(), "lost when it came back: {:?}", report.failed().first());
        self.front.wait_for(&["app1", "app2", "app3", "app4"])?;
        self.is_even_under_load(&["app1", "app2", "app3", "app4"])
    }
}

#[test]
fn an_instance_cut_off_is_left_out_and_comes_back_by_dns() -> Outcome {
    let Some(engine) = Engine::for_test()? else {
        return Ok(());
    };
    Scene::with_dns(engine)?.one_is_disconnected_and_comes_back()
}

#[test]
fn an_instance_cut_off_is_left_out_and_comes_back_by_events() -> Outcome {
    let Some(engine) = Engine::for_test()? else { return Ok(()) };
    let Ok(socket) = std::fs::metadata(SOCKET) else {
        keel_testkit::not_run(format_args!("the engine has no socket at {SOCKET}"));
        return Ok(());
    };
    let (mount, group) = (format!("{SOCKET}:{SOCKET}"), socket.gid().to_string());
    let scene = Scene::new(engine, "docker", &["-v", &mount, "--group-add", &group])?;
    scene.one_is_disconnected_and_comes_back()
}

/// Nobody says so: its name stays, and what is sent to it vanishes.
#[test]
fn an_instance_that_only_falls_silent_is_left_out_and_comes_back() -> Outcome {
    let Some(engine) = Engine::for_test()? else { return Ok(()) };
    let scene = Scene::with_dns(engine)?;
    let rule = |action: &str| {
        let command = ["iptables", "-w", action, "INPUT", "-p", "tcp", "-j", "DROP"];
        scene.fleet.engine().inside(&scene.fleet.container("app2"), &command)
    };
    if let Err(why) = rule("-I") {
        keel_testkit::not_run(format_args!("an instance can't be silenced here: {why:#}"));
        return Ok(());
    }
    let begun = Instant::now();
    scene.front.under_load(CONNECTIONS, || Ok(()))?.no_get_was_lost()?;
    scene.front.wait_for(&["app1", "app3"])?;
    ensure!(begun.elapsed() < OUT_WITHIN, "it was out of the pool after {:?} only", begun.elapsed());
    let report = scene.front.under_load(CONNECTIONS, || rule("-D"))?;
    report.no_get_was_lost()?;
    scene.front.wait_for(&ALL)?;
    scene.is_even_under_load(&ALL)
}

#[test]
fn a_slow_network_loses_nothing_and_shifts_no_share() -> Outcome {
    let Some(engine) = Engine::for_test()? else { return Ok(()) };
    let scene = Scene::with_dns(engine)?;
    let container = scene.fleet.container("app2");
    let queue = |action: &str, how: &[&str]| {
        let command = [&["tc", "qdisc", action, "dev", "eth0", "root"], how].concat();
        scene.fleet.engine().inside(&container, &command)
    };
    // Not every kernel can delay; one that can't may let so few bytes through that an answer takes its time.
    let delay = ["netem", "delay", "200ms"];
    let trickle = ["tbf", "rate", "32kbit", "burst", "1600", "limit", "100000"];
    if let Err(why) = queue("add", &delay).or_else(|_| queue("add", &trickle)) {
        keel_testkit::not_run(format_args!("a container's network can't be slowed down here: {why:#}"));
        return Ok(());
    }
    let address = scene.fleet.address("app2")?;
    wait_until("its network is slow", || answer_time(address).is_ok_and(|time| time > SLOW))?;
    scene.is_even_under_load(&ALL)?;
    scene.front.wait_for(&ALL)?;
    let report = scene.front.under_load(CONNECTIONS, || queue("del", &[]))?;
    ensure!(report.failed().is_empty(), "lost when it became fast: {:?}", report.failed().first());
    scene.front.wait_for(&ALL)?;
    scene.is_even_under_load(&ALL)
}

#[test]
fn a_dns_outage_of_30_s_leaves_the_last_good_set() -> Outcome {
    let Some(engine) = Engine::for_test()? else { return Ok(()) };
    let scene = Scene::with_dns(engine)?;
    let rule = |action: &str| {
        let command = ["iptables", "-w", action, "OUTPUT", "-d", "127.0.0.11", "-j", "DROP"];
        scene.fleet.engine().inside(&scene.fleet.container("balancer"), &command)
    };
    if let Err(why) = rule("-I") {
        keel_testkit::not_run(format_args!("a container's DNS can't be cut off here: {why:#}"));
        return Ok(());
    }
    let begun = Instant::now();
    while begun.elapsed() < DNS_OUTAGE {
        let round = scene.front.round()?;
        ensure!(round == equal(&ALL), "{round:?} after {:?} without DNS", begun.elapsed());
        thread::sleep(LOOK_EVERY);
    }
    scene.is_even_under_load(&ALL)?;
    // What happens meanwhile isn't known, and costs no request that may go to another one. Who comes comes first, so that
    // it can't have the address of who goes.
    let report = scene.front.under_load(CONNECTIONS, || {
        scene.fleet.add("app4")?;
        scene.fleet.docker("stop", "app3")
    })?;
    report.no_get_was_lost()?;
    ensure!(scene.front.round()?.keys().eq(&["app1", "app2"]), "who nobody told of was found");
    rule("-D")?;
    scene.front.wait_for(&["app1", "app2", "app4"])?;
    scene.is_even_under_load(&["app1", "app2", "app4"])?;
    let log = scene.log()?;
    for said in ["known addresses stay", "is resolved again"] {
        ensure!(log.matches(said).count() == 1, "{said:?} is to be said once: {log}");
    }
    Ok(())
}

/// How long an instance takes to answer someone who asks it directly.
fn answer_time(address: IpAddr) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    get((address, 5000), "/")?;
    Ok(begun.elapsed())
}
