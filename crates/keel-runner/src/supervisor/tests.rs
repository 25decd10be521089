//! The machine against a driver that does what the test says.

mod containers;
mod health;

use std::collections::BTreeMap;

use keel_model::{
    Dependency, DependencyCondition, Healthcheck, Port, ProcessSpec, Protocol, RestartPolicy, Stop,
};

use super::*;
use crate::InstanceState;

pub(crate) fn service(name: &str, replicas: u32) -> Service {
    Service {
        name: ServiceName(name.into()),
        replicas,
        instance_name: None,
        numbering: Numbering::Several,
        run: Run::Process(ProcessSpec {
            argv: vec!["app".into()],
            environment: BTreeMap::new(),
            working_dir: "/".into(),
            build: Vec::new(),
            path_map: Vec::new(),
            path_prefix: Vec::new(),
            hostname: None,
            user: None,
        }),
        ports: vec![Port { number: 5000, protocol: Protocol::Tcp }],
        aliases: Vec::new(),
        healthcheck: None,
        must_listen: true,
        restart: RestartPolicy {
            condition: RestartCondition::Always,
            attempts_max: None,
            delay: Duration::ZERO,
            window: Duration::ZERO,
        },
        depends_on: Vec::new(),
        stop: Stop { signal: 15, grace_period: Duration::from_secs(10) },
        digest: "1".into(),
    }
}

/// A service that runs as a container.
pub(crate) fn container(name: &str, replicas: u32, handover: Handover) -> Service {
    let spec = keel_model::ContainerSpec {
        image: "app".into(),
        build: None,
        image_id: None,
        entrypoint: None,
        command: None,
        environment: BTreeMap::new(),
        working_dir: None,
        user: None,
        hostname: None,
        stop_signal: None,
        mounts: Vec::new(),
        networks: Vec::new(),
        labels: BTreeMap::new(),
        healthcheck: keel_model::ContainerHealthcheck::Image,
        extra_hosts: Vec::new(),
        names_on_host: Vec::new(),
        host_ports: Vec::new(),
        published: Vec::new(),
        handover,
        confinement: keel_model::Confinement::default(),
    };
    Service { run: Run::Container(Box::new(spec)), ..service(name, replicas) }
}

fn depends_on(service: &str, condition: DependencyCondition) -> Dependency {
    Dependency { service: ServiceName(service.into()), condition, required: true, restart: false }
}

fn healthcheck() -> Healthcheck {
    Healthcheck {
        argv: vec!["true".into()],
        interval: Duration::from_secs(30),
        timeout: Duration::from_secs(30),
        retries: 3,
        start_period: Duration::ZERO,
        start_interval: None,
    }
}

/// The machine, a clock, and what it asked for in words.
struct Bench {
    machine: Supervisor,
    now: Instant,
    said: Vec<String>,
    last_command: CommandId,
    last_probe: ProbeNumber,
}

impl Bench {
    fn new() -> Self {
        let machine = Supervisor::new(Duration::from_secs(30));
        Self { machine, now: Instant::now(), said: Vec::new(), last_command: 0, last_probe: 0 }
    }

    fn up(services: Vec<Service>) -> Self {
        let mut bench = Self::new();
        bench.apply(services, None);
        bench
    }

    fn apply(&mut self, services: Vec<Service>, only: Option<&[&str]>) {
        let only = only.map(|names| names.iter().map(|name| ServiceName((*name).into())).collect());
        let services = services.into_iter().map(Arc::new).collect();
        self.command(Command::Apply { services, only, recreate: Recreate::Changed });
    }

    fn command(&mut self, command: Command) {
        self.last_command += 1;
        let (id, asked) = (self.last_command, self.last_command - 1);
        self.event(Event::Command { id, asked, command });
    }

    fn event(&mut self, event: Event) {
        let actions = self.machine.handle(self.now, event);
        for action in &actions {
            if let Action::Probe { number, .. } = action {
                self.last_probe = *number;
            }
        }
        let said: Vec<_> = actions.iter().filter_map(|action| self.words(action)).collect();
        self.said.extend(said);
    }

    fn words(&self, action: &Action) -> Option<String> {
        Some(match action {
            Action::Start { incarnation, slot, .. } => {
                format!("start {} #{incarnation}", self.machine.name_of(slot))
            }
            Action::Probe { incarnation, .. } => format!("probe #{incarnation}"),
            Action::Signal { incarnation, signal } => format!("signal {signal} #{incarnation}"),
            Action::KillAll { incarnation } => format!("kill #{incarnation}"),
            Action::Drain { incarnation, .. } => format!("drain #{incarnation}"),
            Action::Publish { service, ready, starting } => {
                format!("pool {service} {ready:?}{}", if *starting { " starting" } else { "" })
            }
            Action::Gone { name } => format!("gone {name}"),
            Action::Slow { slot, .. } => format!("slow {}", self.machine.name_of(slot)),
            Action::WatchExternal { service } => format!("watch {service}"),
            Action::Finished { id, result: Ok(()) } => format!("done {id}"),
            Action::Finished { id, result: Err(error) } => format!("failed {id}: {error}"),
            Action::Status { .. } => return None,
        })
    }

    /// Lets time go by, timer by timer.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.machine.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.event(Event::Tick);
        }
        self.now = end;
    }

    fn ready(&mut self, incarnation: Incarnation) {
        self.event(Event::Started { incarnation });
        self.event(Event::Listening { incarnation });
    }

    /// Has the last probe of the first life come to its end.
    fn probed(&mut self, passed: bool) {
        self.event(Event::Probed { incarnation: 1, number: self.last_probe, passed });
    }

    fn exit(&mut self, incarnation: Incarnation, status: i32) {
        self.event(Event::Exited { incarnation, exit: Exit::Status(status) });
    }

    #[track_caller]
    fn expect(&mut self, said: &[&str]) {
        assert_eq!(std::mem::take(&mut self.said), said);
    }

    fn states(&self) -> Vec<(String, InstanceState)> {
        let views = self.machine.slot_ids().flat_map(|id| self.machine.views(id));
        views.map(|view| (view.name, view.state)).collect()
    }
}

const MS: Duration = Duration::from_millis(1);

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn joins_the_pool_when_it_listens_and_not_before() {
    let mut bench = Bench::up(vec![service("app", 2)]);
    bench.expect(&["pool app [] starting", "start app-1 #1", "start app-2 #2"]);
    bench.event(Event::Started { incarnation: 1 });
    bench.expect(&[]);
    bench.event(Event::Listening { incarnation: 1 });
    bench.expect(&["pool app [1] starting"]);
    bench.ready(2);
    bench.expect(&["pool app [1, 2]", "done 1"]);
}

#[test]
fn stops_after_the_drain_with_a_signal_and_then_by_force() {
    let mut bench = Bench::up(vec![service("app", 1)]);
    bench.ready(1);
    bench.said.clear();
    bench.command(Command::Stop { names: names(&["app"]), ending: Ending::default() });
    bench.expect(&["pool app []", "drain #1"]);
    bench.event(Event::Drained { incarnation: 1 });
    bench.expect(&["signal 15 #1"]);
    bench.wait(MS * 9_999);
    bench.expect(&[]);
    bench.wait(MS);
    bench.expect(&["kill #1"]);
    bench.event(Event::Exited { incarnation: 1, exit: Exit::Signal(9) });
    bench.expect(&["done 2"]);
    assert_eq!(bench.states(), [("app".into(), InstanceState::Exited)]);
}

#[test]
fn a_drain_ends_at_its_timeout() {
    let mut bench = Bench::up(vec![service("app", 1)]);
    bench.ready(1);
    let ending = Ending::drain(Duration::from_secs(2));
    bench.command(Command::Stop { names: names(&["app"]), ending });
    bench.said.clear();
    bench.wait(Duration::from_secs(2));
    bench.expect(&["signal 15 #1"]);
}

#[test]
fn without_ports_there_is_nothing_to_wait_for_or_to_drain() {
    let mut worker = service("worker", 1);
    worker.ports.clear();
    let mut bench = Bench::up(vec![worker]);
    bench.event(Event::Started { incarnation: 1 });
    bench.wait(STEADY_AFTER - MS);
    bench.expect(&["pool worker [] starting", "start worker #1"]);
    bench.wait(MS);
    bench.expect(&["pool worker [1]", "done 1"]);
    bench.command(Command::Stop { names: names(&["worker"]), ending: Ending::default() });
    bench.expect(&["pool worker []", "signal 15 #1"]);
}

#[test]
fn without_ports_what_ends_at_once_was_never_ready() {
    let mut worker = service("worker", 1);
    worker.ports.clear();
    worker.restart.condition = RestartCondition::OnFailure;
    let mut bench = Bench::up(vec![worker.clone()]);
    bench.event(Event::Started { incarnation: 1 });
    bench.exit(1, 0);
    bench.expect(&["pool worker [] starting", "start worker #1", "pool worker []", "done 1"]);
    worker.restart.condition = RestartCondition::Never;
    let mut bench = Bench::up(vec![worker]);
    bench.event(Event::Started { incarnation: 1 });
    bench.wait(STEADY_AFTER - MS);
    bench.exit(1, 3);
    bench.expect(&[
        "pool worker [] starting",
        "start worker #1",
        "pool worker []",
        "failed 1: worker: ended: exit status 3",
    ]);
}

#[test]
fn a_crash_loop_is_one_until_an_instance_has_run_for_long() {
    let mut bench = Bench::up(vec![service("app", 1)]);
    for incarnation in 1..=3 {
        bench.event(Event::Started { incarnation });
        bench.exit(incarnation, 1);
        bench.wait(MS * 100);
    }
    let is_crash_loop = |bench: &Bench| {
        let views = bench.machine.slot_ids().flat_map(|id| bench.machine.views(id));
        views.map(|view| (view.state, view.is_crash_loop)).collect::<Vec<_>>()
    };
    bench.wait(MS * 100);
    // Tried again, it is still one, also while it serves.
    assert_eq!(is_crash_loop(&bench), [(InstanceState::CrashLoop, true)]);
    bench.event(Event::Started { incarnation: 4 });
    assert_eq!(is_crash_loop(&bench), [(InstanceState::CrashLoop, true)]);
    bench.event(Event::Listening { incarnation: 4 });
    assert_eq!(is_crash_loop(&bench), [(InstanceState::Ready, true)]);
    bench.wait(RESTART_WINDOW);
    assert_eq!(is_crash_loop(&bench), [(InstanceState::Ready, false)]);
}

#[test]
fn started_again_while_it_ends_it_has_a_new_life_at_once() {
    let mut bench = Bench::up(vec![service("app", 1)]);
    bench.ready(1);
    bench.command(Command::Stop { names: names(&["app"]), ending: Ending::default() });
    bench.said.clear();
    bench.command(Command::Start { names: names(&["app"]) });
    bench.expect(&["pool app [] starting", "start app #2", "done 2"]);
    bench.event(Event::Drained { incarnation: 1 });
    bench.exit(1, 0);
    bench.ready(2);
    bench.expect(&["signal 15 #1", "pool app [2]", "done 3"]);
}

#[test]
fn backs_off_and_calls_it_a_crash_loop() {
    let mut bench = Bench::up(vec![service("app", 1)]);
    bench.event(Event::Started { incarnation: 1 });
    bench.said.clear();
    bench.exit(1, 1);
    bench.expect(&["start app #2"]);
    bench.event(Event::Started { incarnation: 2 });
    bench.exit(2, 1);
    bench.expect(&[]);
    bench.wait(MS * 100);
    bench.expect(&["start app #3"]);
    bench.event(Event::Started { incarnation: 3 });
    bench.exit(3, 1);
    bench.expect(&[
        "pool app []",
        "failed 1: app: 3 times in a row right after its start, ended: exit status 1",
    ]);
    assert_eq!(bench.states(), [("app".into(), InstanceState::CrashLoop)]);
    for (incarnation, pause_ms) in [(4, 200), (5, 400), (6, 800)] {
        bench.wait(MS * (pause_ms - 1));
        bench.expect(&[]);
        bench.wait(MS);
        bench.expect(&[&format!("start app #{incarnation}")]);
        bench.event(Event::Started { incarnation });
        bench.exit(incarnation, 1);
    }
    // Having run for a while it has a clean record.
    bench.wait(MS * 1_600);
    bench.ready(7);
    bench.wait(Duration::from_secs(10));
    bench.said.clear();
    bench.exit(7, 1);
    bench.expect(&["pool app [] starting", "start app #8"]);
}

#[test]
fn restart_policies() {
    let check = |condition, attempts_max, status, again: bool| {
        let mut app = service("app", 1);
        app.restart.condition = condition;
        app.restart.attempts_max = attempts_max;
        let mut bench = Bench::up(vec![app]);
        bench.ready(1);
        bench.said.clear();
        bench.exit(1, status);
        let started = bench.said.iter().any(|said| said == "start app #2");
        assert_eq!(started, again, "{condition:?} {attempts_max:?} {status}");
    };
    check(RestartCondition::Always, None, 0, true);
    check(RestartCondition::Always, None, 1, true);
    check(RestartCondition::OnFailure, None, 0, false);
    check(RestartCondition::OnFailure, None, 1, true);
    check(RestartCondition::OnFailure, Some(0), 1, false);
    check(RestartCondition::OnFailure, Some(1), 1, true);
    check(RestartCondition::Never, None, 1, false);
}

#[test]
fn what_cannot_be_started_is_not_tried_again() {
    let mut bench = Bench::up(vec![service("app", 1)]);
    bench.said.clear();
    bench.event(Event::StartFailed { incarnation: 1, why: "there is no command `app`".into() });
    bench.expect(&["pool app []", "failed 1: app: there is no command `app`"]);
    bench.wait(Duration::from_secs(60));
    bench.expect(&[]);
}

#[test]
fn waits_for_what_it_depends_on() {
    let mut app = service("app", 1);
    app.depends_on = vec![
        depends_on("db", DependencyCondition::Healthy),
        depends_on("migrate", DependencyCondition::Completed),
    ];
    let mut migrate = service("migrate", 1);
    migrate.ports.clear();
    migrate.restart.condition = RestartCondition::Never;
    migrate.depends_on = vec![depends_on("db", DependencyCondition::Started)];
    let mut bench = Bench::up(vec![app, service("db", 1), migrate]);
    bench.said.retain(|said| said.starts_with("start"));
    bench.expect(&["start db #1"]);
    bench.event(Event::Started { incarnation: 1 });
    bench.expect(&["start migrate #2"]);
    bench.event(Event::Started { incarnation: 2 });
    bench.event(Event::Listening { incarnation: 1 });
    bench.said.clear();
    bench.exit(2, 0);
    bench.expect(&["pool migrate []", "start app #3"]);
    bench.ready(3);
    bench.expect(&["pool app [3]", "done 1"]);
}

#[test]
fn down_ends_dependents_first() {
    let mut app = service("app", 1);
    app.depends_on = vec![depends_on("db", DependencyCondition::Healthy)];
    let mut bench = Bench::up(vec![app, service("db", 1)]);
    bench.ready(1);
    bench.ready(2);
    bench.said.clear();
    bench.command(Command::Down { ending: Ending::drain(Duration::ZERO) });
    bench.expect(&["pool app []", "signal 15 #2"]);
    bench.exit(2, 0);
    bench.expect(&["pool db []", "signal 15 #1", "gone app"]);
    bench.exit(1, 0);
    bench.expect(&["gone db", "done 2"]);
}

#[test]
fn a_dependency_that_failed_is_named() {
    let mut app = service("app", 1);
    app.depends_on = vec![depends_on("migrate", DependencyCondition::Completed)];
    let mut migrate = service("migrate", 1);
    migrate.restart.condition = RestartCondition::Never;
    migrate.ports.clear();
    let mut bench = Bench::up(vec![app, migrate]);
    bench.event(Event::Started { incarnation: 1 });
    bench.said.clear();
    bench.exit(1, 3);
    bench.expect(&[
        "pool migrate []",
        "pool app []",
        "failed 1: app: waits for migrate to complete; migrate: ended: exit status 3",
    ]);
}

#[test]
fn others_services_hold_once_they_accept() {
    let mut db = service("db", 1);
    db.run = Run::External("127.0.0.1:5432".parse().unwrap());
    let mut app = service("app", 1);
    app.depends_on = vec![depends_on("db", DependencyCondition::Healthy)];
    let mut bench = Bench::up(vec![app, db]);
    bench.expect(&["pool app [] starting", "watch db"]);
    bench.event(Event::Accepts { service: ServiceName("db".into()) });
    bench.expect(&["start app #1"]);
}

#[test]
fn restarts_one_at_a_time_with_the_replacement_first() {
    let mut bench = Bench::up(vec![service("app", 2)]);
    bench.ready(1);
    bench.ready(2);
    bench.said.clear();
    bench.command(Command::Restart { names: names(&["app"]), ending: Ending::default() });
    bench.expect(&["start app-1 #3"]);
    bench.ready(3);
    bench.expect(&["pool app [3, 2]", "drain #1"]);
    bench.event(Event::Drained { incarnation: 1 });
    bench.expect(&["signal 15 #1", "start app-2 #4"]);
    bench.exit(1, 0);
    bench.ready(4);
    bench.expect(&["pool app [3, 4]", "drain #2"]);
    bench.event(Event::Drained { incarnation: 2 });
    bench.exit(2, 0);
    bench.expect(&["signal 15 #2", "done 2"]);
}

#[test]
fn a_replacement_that_fails_leaves_the_old_one_and_the_others_alone() {
    let mut bench = Bench::up(vec![service("app", 2)]);
    bench.ready(1);
    bench.ready(2);
    bench.said.clear();
    bench.command(Command::Restart { names: names(&["app"]), ending: Ending::default() });
    bench.event(Event::Started { incarnation: 3 });
    bench.exit(3, 1);
    bench.expect(&[
        "start app-1 #3",
        "failed 2: app-1: its replacement ended: exit status 1; the one it was to replace goes on",
    ]);
    bench.wait(Duration::from_secs(60));
    bench.expect(&[]);
}

#[test]
fn applies_the_difference() {
    let mut bench = Bench::up(vec![service("a", 1), service("b", 1), service("c", 1)]);
    (1..=3).for_each(|incarnation| bench.ready(incarnation));
    bench.said.clear();
    let changed = Service { digest: "2".into(), ..service("b", 1) };
    bench.apply(vec![service("a", 1), changed, service("d", 1)], None);
    bench.expect(&["pool d [] starting", "pool c []", "drain #3", "start d #4", "start b #5"]);
    bench.event(Event::Drained { incarnation: 3 });
    bench.exit(3, 0);
    bench.expect(&["signal 15 #3", "gone c"]);
    bench.ready(4);
    bench.ready(5);
    bench.expect(&["pool d [4]", "pool b [5]", "drain #2"]);
    bench.event(Event::Drained { incarnation: 2 });
    bench.exit(2, 0);
    bench.expect(&["signal 15 #2", "done 2"]);
}

#[test]
fn services_outside_only_are_known_and_started_by_name() {
    let mut bench = Bench::new();
    bench.apply(vec![service("app1", 1), service("app4", 1)], Some(&["app1"]));
    bench.ready(1);
    assert_eq!(bench.states(), [("app1".into(), InstanceState::Ready)]);
    bench.said.clear();
    bench.command(Command::Start { names: names(&["app4"]) });
    bench.ready(2);
    bench.expect(&["pool app4 [] starting", "start app4 #2", "pool app4 [2]", "done 2"]);
}

#[test]
fn scaling_names_and_renames() {
    let mut bench = Bench::up(vec![service("app", 1)]);
    bench.ready(1);
    bench.said.clear();
    bench.command(Command::Scale { service: ServiceName("app".into()), replicas: 3 });
    bench.expect(&["pool app [1] starting", "gone app", "start app-2 #2", "start app-3 #3"]);
    bench.ready(2);
    bench.ready(3);
    bench.said.clear();
    bench.command(Command::Scale { service: ServiceName("app".into()), replicas: 1 });
    bench.expect(&["pool app [1]", "gone app-1", "drain #2", "drain #3"]);
    bench.event(Event::Drained { incarnation: 2 });
    bench.event(Event::Drained { incarnation: 3 });
    bench.exit(2, 0);
    bench.exit(3, 0);
    bench.expect(&["signal 15 #2", "signal 15 #3", "gone app-2", "gone app-3", "done 3"]);
    assert_eq!(bench.states(), [("app".into(), InstanceState::Ready)]);
}

/// Of four of which the third is stopped, three run afterwards, as with Compose.
#[test]
fn scaling_starts_what_was_stopped_by_name() {
    let mut bench = Bench::up(vec![service("app", 4)]);
    for incarnation in 1..=4 {
        bench.ready(incarnation);
    }
    bench.command(Command::Stop { names: names(&["app-3"]), ending: Ending::drain(Duration::ZERO) });
    bench.exit(3, 0);
    bench.command(Command::Scale { service: ServiceName("app".into()), replicas: 3 });
    bench.event(Event::Drained { incarnation: 4 });
    bench.exit(4, 0);
    bench.ready(5);
    let states = bench.states();
    let ready: Vec<&str> = states
        .iter()
        .filter(|(_, state)| *state == InstanceState::Ready)
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!((ready, states.len()), (vec!["app-1", "app-2", "app-3"], 3));
}

#[test]
fn refuses_what_cannot_be() {
    let mut fixed = service("app", 1);
    fixed.instance_name = Some("the-app".into());
    let mut bench = Bench::up(vec![fixed]);
    bench.ready(1);
    bench.said.clear();
    bench.command(Command::Scale { service: ServiceName("app".into()), replicas: 2 });
    bench.command(Command::Stop { names: names(&["ap"]), ending: Ending::default() });
    bench.expect(&[
        "failed 2: service `app` can't have 2 instances: its container_name is `the-app`",
        "failed 3: there is no service or instance `ap`",
    ]);
    assert_eq!(bench.states(), [("the-app".into(), InstanceState::Ready)]);
}

#[test]
fn kill_skips_the_drain_and_what_is_killed_stays_dead() {
    let mut bench = Bench::up(vec![service("app", 1)]);
    bench.ready(1);
    bench.said.clear();
    bench.command(Command::Kill { names: names(&["app"]), signal: 1 });
    bench.expect(&["signal 1 #1", "done 2"]);
    bench.command(Command::Kill { names: names(&["app"]), signal: 9 });
    bench.expect(&["pool app []", "kill #1"]);
    bench.event(Event::Exited { incarnation: 1, exit: Exit::Signal(9) });
    bench.expect(&["done 3"]);
    bench.wait(Duration::from_secs(60));
    bench.expect(&[]);
}

#[test]
fn what_never_listens_ends_the_wait_and_may_still_come() {
    let mut bench = Bench::up(vec![service("app", 1)]);
    bench.event(Event::Started { incarnation: 1 });
    bench.wait(Duration::from_secs(60));
    bench.said.retain(|said| !said.starts_with("slow"));
    bench.expect(&[
        "pool app [] starting",
        "start app #1",
        "pool app []",
        "failed 1: app: it doesn't listen on port 5000 after 60 s",
    ]);
    bench.event(Event::Listening { incarnation: 1 });
    bench.expect(&["pool app [1]"]);
}

#[test]
fn says_that_a_start_is_slow() {
    let mut bench = Bench::up(vec![service("app", 1)]);
    bench.event(Event::Started { incarnation: 1 });
    bench.said.clear();
    bench.wait(Duration::from_secs(6));
    bench.expect(&["slow app", "slow app"]);
    bench.event(Event::Listening { incarnation: 1 });
    bench.said.clear();
    bench.wait(Duration::from_secs(60));
    bench.expect(&[]);
}

/// Processes and containers get the same decisions.
#[test]
fn both_drivers_are_told_the_same() {
    let play = |service: Service| {
        let mut bench = Bench::up(vec![service]);
        (1..=3).for_each(|incarnation| bench.ready(incarnation));
        bench.command(Command::Stop { names: names(&["app-2"]), ending: Ending::default() });
        bench.event(Event::Drained { incarnation: 2 });
        bench.exit(2, 0);
        bench.command(Command::Start { names: names(&["app-2"]) });
        bench.ready(4);
        bench.exit(1, 137);
        bench.wait(MS);
        bench.ready(5);
        bench.command(Command::Restart { names: names(&["app-3"]), ending: Ending::default() });
        bench.ready(6);
        bench.event(Event::Drained { incarnation: 3 });
        bench.exit(3, 0);
        bench.command(Command::Scale { service: ServiceName("app".into()), replicas: 1 });
        bench.event(Event::Drained { incarnation: 4 });
        bench.exit(4, 0);
        bench.event(Event::Drained { incarnation: 6 });
        bench.exit(6, 0);
        bench.said
    };
    let process = play(service("app", 3));
    assert_eq!(process.iter().filter(|said| said.starts_with("done")).count(), 5, "{process:?}");
    assert_eq!(process, play(container("app", 3, Handover::Overlap)));
}

#[test]
fn what_is_stopped_while_another_command_is_built_for_stays_so() {
    let check = |command: fn(&Bench) -> Command| {
        let mut bench = Bench::up(vec![service("app", 2)]);
        bench.ready(1);
        bench.ready(2);
        bench.command(Command::Stop { names: names(&["app-2"]), ending: Ending::drain(Duration::ZERO) });
        bench.exit(2, 0);
        let command = command(&bench);
        bench.last_command += 1;
        // It was given before the stop, which is command 2.
        bench.event(Event::Command { id: 3, asked: 1, command });
        let state = |name: &str| bench.states().into_iter().find(|(one, _)| one == name).unwrap().1;
        assert_eq!(state("app-1"), InstanceState::Ready);
        assert_eq!(state("app-2"), InstanceState::Exited);
    };
    check(|_| Command::Apply {
        services: vec![Arc::new(service("app", 2))],
        only: None,
        recreate: Recreate::Changed,
    });
    check(|_| Command::Start { names: names(&["app"]) });
    check(|_| Command::Scale { service: ServiceName("app".into()), replicas: 3 });
}

#[test]
fn an_instance_that_is_stopped_leaves_the_rolling_restart_and_the_others_are_replaced() {
    let mut bench = Bench::up(vec![service("app", 3)]);
    (1..=3).for_each(|life| bench.ready(life));
    bench.command(Command::Restart { names: names(&["app"]), ending: Ending::drain(Duration::ZERO) });
    bench.said.clear();
    bench.command(Command::Stop { names: names(&["app-1", "app-2"]), ending: Ending::drain(Duration::ZERO) });
    // The one that is being replaced ends with its replacement, and app-3 has its turn.
    bench.expect(&["pool app [3]", "signal 15 #1", "signal 15 #2", "start app-3 #5"]);
    bench.exit(1, 0);
    bench.exit(2, 0);
    bench.event(Event::Started { incarnation: 4 });
    bench.exit(4, 0);
    bench.ready(5);
    bench.exit(3, 0);
    let states: Vec<_> = bench.states().into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, [InstanceState::Exited, InstanceState::Exited, InstanceState::Ready]);
    let end = "failed 2: app-1: it was stopped meanwhile; app-2: it was stopped meanwhile";
    assert!(bench.said.iter().any(|said| said == end), "{:?}", bench.said);
}

#[test]
fn a_restart_of_what_was_stopped_waits_for_its_start() {
    let mut bench = Bench::up(vec![service("app", 1)]);
    bench.ready(1);
    bench.command(Command::Stop { names: names(&["app"]), ending: Ending::drain(Duration::ZERO) });
    bench.exit(1, 0);
    bench.said.clear();
    bench.command(Command::Restart { names: names(&["app"]), ending: Ending::default() });
    bench.expect(&["pool app [] starting", "start app #2"]);
    bench.ready(2);
    bench.expect(&["pool app [2]", "done 3"]);
}

#[test]
fn what_was_replaced_meanwhile_is_not_replaced_again_for_its_change() {
    let mut bench = Bench::up(vec![service("app", 2)]);
    (1..=2).for_each(|life| bench.ready(life));
    bench.command(Command::Restart { names: names(&["app"]), ending: Ending::drain(Duration::ZERO) });
    let mut changed = service("app", 2);
    changed.digest = "2".into();
    bench.apply(vec![changed], None);
    bench.said.clear();
    // The replacement that had begun is of the old form; app-2's is of the new one.
    for (ready, gone) in [(3, 1), (4, 2), (5, 3)] {
        bench.ready(ready);
        bench.exit(gone, 0);
    }
    assert_eq!(bench.said.iter().filter(|said| said.starts_with("start")).count(), 2, "{:?}", bench.said);
    assert!(bench.said.iter().any(|said| said == "done 3"), "{:?}", bench.said);
}

#[test]
fn a_rolling_restart_goes_on_when_the_old_one_was_told_to_end_and_ends_when_it_is_gone() {
    let mut bench = Bench::up(vec![service("app", 2)]);
    (1..=2).for_each(|life| bench.ready(life));
    bench.command(Command::Restart { names: names(&["app"]), ending: Ending::default() });
    bench.said.clear();
    bench.ready(3);
    bench.expect(&["pool app [3, 2]", "drain #1"]);
    bench.event(Event::Drained { incarnation: 1 });
    // It ignores its signal.
    bench.expect(&["signal 15 #1", "start app-2 #4"]);
    bench.ready(4);
    bench.event(Event::Drained { incarnation: 2 });
    bench.exit(2, 0);
    bench.expect(&["pool app [3, 4]", "drain #2", "signal 15 #2"]);
    bench.wait(Duration::from_secs(11));
    bench.expect(&["kill #1"]);
    bench.exit(1, 137);
    bench.expect(&["done 2"]);
}

#[test]
fn a_command_may_say_how_long_it_takes_from_the_signal_to_the_kill() {
    let mut bench = Bench::up(vec![service("app", 1)]);
    bench.ready(1);
    let grace = Some(Duration::from_secs(2));
    bench.command(Command::Stop { names: names(&["app"]), ending: Ending { drain: None, grace } });
    bench.said.clear();
    // The drain isn't shortened by that.
    bench.wait(Duration::from_secs(29));
    bench.expect(&[]);
    bench.event(Event::Drained { incarnation: 1 });
    bench.expect(&["signal 15 #1"]);
    bench.wait(Duration::from_millis(1_900));
    bench.expect(&[]);
    bench.wait(Duration::from_millis(100));
    bench.expect(&["kill #1"]);
}

#[test]
fn a_second_more_impatient_stop_counts() {
    let mut bench = Bench::up(vec![service("app", 1)]);
    bench.ready(1);
    bench.command(Command::Stop { names: names(&["app"]), ending: Ending::drain(Duration::ZERO) });
    bench.said.clear();
    let ending = Ending { drain: None, grace: Some(Duration::from_secs(1)) };
    bench.command(Command::Stop { names: names(&["app"]), ending });
    bench.wait(Duration::from_secs(1));
    bench.expect(&["kill #1"]);
}
