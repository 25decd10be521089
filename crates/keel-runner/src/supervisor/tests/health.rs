//! Healthchecks, and listening: when an instance is ready, and when it is not any more.

use super::*;

#[test]
fn probes_at_once_then_every_100_ms_then_at_the_interval() {
    let mut app = service("app", 1);
    app.healthcheck = Some(healthcheck());
    let mut bench = Bench::up(vec![app]);
    bench.said.clear();
    bench.event(Event::Started { incarnation: 1 });
    bench.expect(&["probe #1"]);
    bench.event(Event::Listening { incarnation: 1 });
    for _ in 0..3 {
        bench.probed(false);
        bench.wait(MS * 99);
        bench.expect(&[]);
        bench.wait(MS);
        bench.expect(&["probe #1"]);
    }
    bench.probed(true);
    bench.expect(&["pool app [1]", "done 1"]);
    // Three failures in a row make it unhealthy, one success heals.
    for said in [&[][..], &[], &["pool app []"]] {
        bench.wait(Duration::from_secs(30));
        bench.expect(&["probe #1"]);
        bench.probed(false);
        bench.expect(said);
    }
    assert_eq!(bench.states(), [("app".into(), InstanceState::Unhealthy)]);
    bench.wait(Duration::from_secs(30));
    bench.probed(true);
    bench.expect(&["probe #1", "pool app [1]"]);
}

/// As in Docker: while it is young and has not passed, then the ordinary pace of starting.
#[test]
fn start_interval_holds_within_start_period() {
    let mut app = service("app", 1);
    let (start_period, start_interval) = (MS * 600, Some(MS * 250));
    app.healthcheck = Some(Healthcheck { start_period, start_interval, ..healthcheck() });
    let mut bench = Bench::up(vec![app]);
    bench.said.clear();
    bench.event(Event::Started { incarnation: 1 });
    bench.event(Event::Listening { incarnation: 1 });
    bench.expect(&["probe #1"]);
    for _ in 0..3 {
        bench.probed(false);
        bench.wait(MS * 249);
        bench.expect(&[]);
        bench.wait(MS);
        bench.expect(&["probe #1"]);
    }
    // Older than `start_period` by now.
    bench.probed(false);
    bench.wait(MS * 100);
    bench.expect(&["probe #1"]);
    bench.probed(true);
    bench.expect(&["pool app [1]", "done 1"]);
    bench.wait(MS * 29_999);
    bench.expect(&[]);
    bench.wait(MS);
    bench.expect(&["probe #1"]);
}

#[test]
fn once_it_has_passed_start_interval_is_over() {
    let mut app = service("app", 1);
    let (start_period, start_interval) = (Duration::from_secs(600), Some(Duration::from_secs(2)));
    app.healthcheck = Some(Healthcheck { start_period, start_interval, ..healthcheck() });
    let mut bench = Bench::up(vec![app]);
    bench.said.clear();
    bench.event(Event::Started { incarnation: 1 });
    bench.event(Event::Listening { incarnation: 1 });
    bench.probed(true);
    bench.expect(&["probe #1", "pool app [1]", "done 1"]);
    for passed in [false, true] {
        bench.wait(MS * 29_999);
        bench.expect(&[]);
        bench.wait(MS);
        bench.expect(&["probe #1"]);
        bench.probed(passed);
    }
}

#[test]
fn a_healthcheck_that_never_passes_ends_the_wait() {
    let mut app = service("app", 1);
    app.healthcheck = Some(Healthcheck { start_period: Duration::from_secs(5), ..healthcheck() });
    let mut bench = Bench::up(vec![app]);
    bench.event(Event::Started { incarnation: 1 });
    bench.wait(Duration::from_secs(94));
    assert!(!bench.said.iter().any(|said| said.starts_with("failed")));
    bench.wait(Duration::from_secs(1));
    assert!(
        bench.said.contains(&"failed 1: app: its healthcheck never passed".to_owned()),
        "{:?}",
        bench.said
    );
}

#[test]
fn ready_is_who_listens_and_is_well() {
    let mut app = service("app", 1);
    app.healthcheck = Some(healthcheck());
    let mut bench = Bench::up(vec![app.clone()]);
    bench.event(Event::Started { incarnation: 1 });
    bench.said.clear();
    bench.probed(true);
    bench.expect(&[]);
    bench.event(Event::Listening { incarnation: 1 });
    bench.expect(&["pool app [1]", "done 1"]);
    // One whose healthcheck passes and that never listens is told from one that fails.
    let mut bench = Bench::up(vec![app.clone()]);
    bench.event(Event::Started { incarnation: 1 });
    bench.probed(true);
    bench.wait(Duration::from_secs(90));
    assert!(
        bench.said.iter().any(|said| said.contains("it doesn't listen on port 5000")),
        "{:?}",
        bench.said
    );
    // Only its image names the port.
    app.must_listen = false;
    let mut bench = Bench::up(vec![app]);
    bench.event(Event::Started { incarnation: 1 });
    bench.said.clear();
    bench.probed(true);
    bench.expect(&["pool app [1]", "done 1"]);
}

#[test]
fn who_listens_no_more_is_waited_for() {
    for check in [None, Some(healthcheck())] {
        let is_checked = check.is_some();
        let mut app = service("app", 2);
        app.healthcheck = check;
        let mut bench = Bench::up(vec![app]);
        bench.ready(1);
        if is_checked {
            bench.event(Event::Probed { incarnation: 1, number: 1, passed: true });
        }
        bench.said.clear();
        bench.event(Event::Deaf { incarnation: 1 });
        bench.expect(&["pool app [] starting"]);
        bench.event(Event::Moved { incarnation: 1 });
        bench.expect(&[]);
        bench.event(Event::Listening { incarnation: 1 });
        bench.expect(&["pool app [1] starting"]);
        // Where it is may have changed meanwhile, and while it serves.
        bench.event(Event::Moved { incarnation: 1 });
        bench.expect(&["pool app [1] starting"]);
        bench.event(Event::Deaf { incarnation: 1 });
        bench.event(Event::Started { incarnation: 2 });
        bench.said.clear();
        bench.wait(LISTENS_WITHIN);
        let one = bench.machine.views(&SlotId { service: ServiceName("app".into()), ordinal: 1 }).remove(0);
        assert_eq!(one.state, InstanceState::Unhealthy);
        assert_eq!(one.note.as_deref(), Some("it doesn't listen on port 5000 any more"));
    }
}

#[test]
fn what_stays_unhealthy_is_started_anew() {
    let mut app = service("app", 1);
    app.healthcheck = Some(healthcheck());
    let mut bench = Bench::up(vec![app]);
    bench.ready(1);
    bench.probed(true);
    for _ in 0..6 {
        bench.wait(Duration::from_secs(30));
        bench.probed(false);
    }
    bench.said.clear();
    bench.event(Event::Drained { incarnation: 1 });
    bench.exit(1, 0);
    bench.expect(&["signal 15 #1", "pool app [] starting", "start app #2"]);
}
