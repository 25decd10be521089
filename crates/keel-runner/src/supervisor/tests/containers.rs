//! What an engine says of containers, and what others do to them.

use super::*;

#[test]
fn a_container_is_probed_until_it_passes_and_then_the_engine_says() {
    let mut app = container("app", 1, Handover::Overlap);
    app.healthcheck = Some(healthcheck());
    let mut bench = Bench::up(vec![app]);
    bench.event(Event::Started { incarnation: 1 });
    bench.expect(&["pool app [] starting", "start app #1", "probe #1"]);
    bench.probed(false);
    bench.wait(FIRST_CONTAINER_PROBES_EVERY);
    bench.expect(&["probe #1"]);
    bench.probed(true);
    bench.expect(&["pool app [1]", "done 1"]);
    bench.wait(Duration::from_secs(600));
    bench.expect(&[]);
    bench.event(Event::Judged { incarnation: 1, verdict: EngineWord::Ill });
    bench.expect(&["pool app []"]);
    bench.event(Event::Judged { incarnation: 1, verdict: EngineWord::Well });
    bench.expect(&["pool app [1]"]);
    // One that stays ill is asked again, and ended in the end.
    bench.event(Event::Judged { incarnation: 1, verdict: EngineWord::Ill });
    for _ in 0..3 {
        bench.wait(Duration::from_secs(30));
        bench.probed(false);
    }
    bench.expect(&["pool app []", "probe #1", "probe #1", "probe #1", "drain #1"]);
}

/// The engine speaks only when its word changes: once it has called a container unhealthy, a failure after a passing
/// probe of ours is news to nobody but us.
#[test]
fn a_container_that_flaps_is_probed_until_the_engine_calls_it_well() {
    let mut app = container("app", 1, Handover::Overlap);
    app.healthcheck = Some(healthcheck());
    let mut bench = Bench::up(vec![app]);
    bench.event(Event::Started { incarnation: 1 });
    bench.probed(true);
    bench.event(Event::Judged { incarnation: 1, verdict: EngineWord::Ill });
    bench.said.clear();
    bench.wait(Duration::from_secs(30));
    bench.probed(true);
    bench.expect(&["probe #1", "pool app [1]"]);
    for _ in 0..3 {
        bench.wait(Duration::from_secs(30));
        bench.probed(false);
    }
    bench.expect(&["probe #1", "probe #1", "probe #1", "pool app []"]);
    bench.wait(Duration::from_secs(30));
    bench.probed(true);
    bench.expect(&["probe #1", "pool app [1]"]);
    // What it said before is no news, as after a lost connection.
    bench.event(Event::Judged { incarnation: 1, verdict: EngineWord::Ill });
    bench.expect(&[]);
    bench.event(Event::Judged { incarnation: 1, verdict: EngineWord::Well });
    bench.wait(Duration::from_secs(600));
    bench.expect(&[]);
}

/// The engine may have called it unhealthy before a probe of ours passed for the first time.
#[test]
fn a_container_called_unhealthy_before_it_served_is_probed_on() {
    let mut app = container("app", 1, Handover::Overlap);
    app.healthcheck = Some(healthcheck());
    let mut bench = Bench::up(vec![app]);
    bench.event(Event::Started { incarnation: 1 });
    bench.event(Event::Judged { incarnation: 1, verdict: EngineWord::Ill });
    bench.probed(true);
    bench.said.clear();
    bench.wait(Duration::from_secs(30));
    bench.expect(&["probe #1"]);
}

/// That nobody can be asked is no fault of the instance: no restart policy is meant.
#[test]
fn a_start_that_nobody_can_be_asked_for_is_tried_again() {
    let mut app = container("app", 1, Handover::Overlap);
    app.restart.condition = RestartCondition::Never;
    let mut bench = Bench::up(vec![app]);
    bench.said.clear();
    let unasked = |incarnation| Event::StartUnasked { incarnation, why: "no answer".into() };
    bench.event(unasked(1));
    bench.wait(BACK_OFF_FIRST - MS);
    bench.expect(&[]);
    bench.wait(MS);
    bench.event(unasked(2));
    bench.wait(BACK_OFF_FIRST * 2);
    bench.expect(&["start app #2", "start app #3"]);
    // Nobody waits for it any longer, and it isn't called a crash loop.
    bench.event(unasked(3));
    bench.expect(&["pool app []", "failed 1: app: no answer"]);
    assert_eq!(bench.states(), [("app".into(), InstanceState::Starting)]);
    bench.wait(BACK_OFF_FIRST * 4);
    bench.ready(4);
    bench.expect(&["start app #4", "pool app [] starting", "pool app [4]"]);
    // A replacement isn't tried again: the one that it was to replace goes on.
    bench.command(Command::Restart { names: names(&["app"]), ending: Ending::default() });
    bench.event(unasked(5));
    bench.wait(Duration::from_secs(60));
    bench.expect(&["start app #5", "failed 2: app: no answer; the one it was to replace goes on"]);
}

#[test]
fn nobody_waits_for_what_depends_on_a_start_that_nobody_can_be_asked_for() {
    let mut app = container("app", 1, Handover::Overlap);
    app.depends_on = vec![depends_on("db", DependencyCondition::Healthy)];
    let mut bench = Bench::up(vec![app, container("db", 1, Handover::Overlap)]);
    for incarnation in 1..=3 {
        bench.event(Event::StartUnasked { incarnation, why: "no answer".into() });
        bench.wait(BACK_OFF_FIRST * incarnation.try_into().unwrap());
    }
    bench.said.retain(|said| !said.starts_with("start"));
    bench.expect(&[
        "pool db [] starting",
        "pool app [] starting",
        "pool db []",
        "pool app []",
        "failed 1: app: waits for db to be ready; db: no answer",
    ]);
    // It starts all the same once the other one does.
    bench.wait(BACK_OFF_FIRST * 4);
    bench.ready(4);
    bench.said.retain(|said| !said.starts_with("slow"));
    bench.expect(&[
        "start db #4",
        "pool db [] starting",
        "pool app [] starting",
        "pool db [4]",
        "start app #5",
    ]);
}

#[test]
fn a_paused_container_is_out_of_the_pool_until_it_is_resumed() {
    let mut bench = Bench::up(vec![container("app", 1, Handover::Overlap)]);
    bench.ready(1);
    bench.said.clear();
    bench.event(Event::Judged { incarnation: 1, verdict: EngineWord::Paused });
    bench.expect(&["pool app []"]);
    bench.event(Event::Judged { incarnation: 1, verdict: EngineWord::Well });
    bench.wait(Duration::from_secs(600));
    bench.expect(&[]);
    bench.event(Event::Judged { incarnation: 1, verdict: EngineWord::Resumed });
    bench.expect(&["probe #1"]);
    bench.probed(true);
    bench.expect(&["pool app [1]"]);
    bench.event(Event::Judged { incarnation: 1, verdict: EngineWord::Leaving });
    bench.expect(&["pool app []"]);
    bench.exit(1, 143);
    bench.wait(MS);
    bench.expect(&["pool app [] starting", "start app #2"]);
}

/// Its healthcheck runs inside of it, and passes there.
#[test]
fn a_container_that_is_cut_off_is_never_ready_whenever_that_was() {
    let judge = |bench: &mut Bench, verdict| bench.event(Event::Judged { incarnation: 1, verdict });
    let check = |healthcheck: Option<Healthcheck>, phase: &str| {
        let mut app = container("app", 1, Handover::Overlap);
        app.healthcheck = healthcheck;
        let is_checked = app.healthcheck.is_some();
        let mut bench = Bench::up(vec![app]);
        if phase == "spawning" {
            judge(&mut bench, EngineWord::CutOff);
        }
        bench.event(Event::Started { incarnation: 1 });
        match phase {
            "ready" | "leaving" | "paused" | "unhealthy" if is_checked => bench.probed(true),
            "ready" | "leaving" | "paused" => bench.event(Event::Listening { incarnation: 1 }),
            _ => {}
        }
        match phase {
            "leaving" => judge(&mut bench, EngineWord::Leaving),
            "paused" => judge(&mut bench, EngineWord::Paused),
            "unhealthy" if is_checked => judge(&mut bench, EngineWord::Ill),
            "unhealthy" => bench.wait(LISTENS_WITHIN),
            _ => {}
        }
        judge(&mut bench, EngineWord::CutOff);
        bench.probed(true);
        bench.event(Event::Listening { incarnation: 1 });
        judge(&mut bench, EngineWord::Well);
        judge(&mut bench, EngineWord::Resumed);
        bench.wait(Duration::from_secs(20));
        judge(&mut bench, EngineWord::Well);
        assert_ne!(bench.states(), [("app".into(), InstanceState::Ready)], "{phase}");
        bench.said.clear();
        judge(&mut bench, EngineWord::Connected);
        bench.probed(true);
        assert_eq!(bench.said[..2], ["probe #1", "pool app [1]"], "{phase}");
    };
    for phase in ["spawning", "starting", "ready", "unhealthy", "paused", "leaving"] {
        check(None, phase);
        check(Some(healthcheck()), phase);
    }
    // Where nothing can be asked it is enough that it is there.
    let mut worker = container("worker", 1, Handover::Overlap);
    worker.ports.clear();
    let mut bench = Bench::up(vec![worker]);
    bench.event(Event::Started { incarnation: 1 });
    judge(&mut bench, EngineWord::CutOff);
    bench.wait(STEADY_AFTER);
    assert_eq!(bench.states(), [("worker".into(), InstanceState::Unhealthy)]);
    judge(&mut bench, EngineWord::Connected);
    assert_eq!(bench.states(), [("worker".into(), InstanceState::Ready)]);
}

/// It is delivered when it is resumed, and then it is about to end.
#[test]
fn a_container_paused_on_its_way_out_leaves_when_it_is_resumed() {
    let judge = |bench: &mut Bench, verdict| bench.event(Event::Judged { incarnation: 1, verdict });
    for order in [[EngineWord::Leaving, EngineWord::Paused], [EngineWord::Paused, EngineWord::Leaving]] {
        let mut app = container("app", 1, Handover::Overlap);
        app.ports.clear();
        let mut bench = Bench::up(vec![app]);
        bench.event(Event::Started { incarnation: 1 });
        bench.wait(STEADY_AFTER);
        bench.said.clear();
        order.into_iter().for_each(|verdict| judge(&mut bench, verdict));
        bench.wait(Duration::from_secs(600));
        judge(&mut bench, EngineWord::Resumed);
        bench.wait(Duration::from_secs(10) - MS);
        bench.expect(&["pool app []"]);
        bench.wait(MS);
        bench.expect(&["pool app [1]"]);
    }
}

#[test]
fn a_probe_from_before_somebody_paused_a_container_does_not_count() {
    let mut app = container("app", 1, Handover::Overlap);
    app.healthcheck = Some(healthcheck());
    let mut bench = Bench::up(vec![app]);
    bench.event(Event::Started { incarnation: 1 });
    let before = bench.last_probe;
    bench.event(Event::Judged { incarnation: 1, verdict: EngineWord::Paused });
    bench.event(Event::Judged { incarnation: 1, verdict: EngineWord::Resumed });
    bench.expect(&["pool app [] starting", "start app #1", "probe #1", "probe #1"]);
    bench.event(Event::Probed { incarnation: 1, number: before, passed: true });
    bench.expect(&[]);
    bench.probed(true);
    bench.expect(&["pool app [1]", "done 1"]);
}

#[test]
fn a_container_that_ignores_a_signal_is_asked_after_its_grace_period() {
    let mut app = container("app", 1, Handover::Overlap);
    for healthcheck in [None, Some(healthcheck())] {
        app.healthcheck = healthcheck;
        let mut bench = Bench::up(vec![app.clone()]);
        bench.event(Event::Started { incarnation: 1 });
        match app.healthcheck {
            Some(_) => bench.probed(true),
            None => bench.event(Event::Listening { incarnation: 1 }),
        }
        bench.said.clear();
        bench.event(Event::Judged { incarnation: 1, verdict: EngineWord::Leaving });
        bench.wait(Duration::from_secs(10) - MS);
        bench.expect(&["pool app []"]);
        // Another signal counts anew.
        bench.event(Event::Judged { incarnation: 1, verdict: EngineWord::Leaving });
        bench.wait(Duration::from_secs(10) - MS);
        bench.expect(&[]);
        bench.wait(MS);
        bench.probed(false);
        bench.wait(Duration::from_secs(30));
        bench.said.dedup();
        bench.expect(&["probe #1"]);
        bench.probed(true);
        bench.expect(&["pool app [1]"]);
        bench.wait(Duration::from_secs(600));
        bench.expect(&[]);
    }
    // Nothing can be asked about it but whether it is there.
    app.healthcheck = None;
    app.ports.clear();
    let mut bench = Bench::up(vec![app]);
    bench.event(Event::Started { incarnation: 1 });
    bench.wait(STEADY_AFTER);
    bench.event(Event::Judged { incarnation: 1, verdict: EngineWord::Leaving });
    bench.said.clear();
    bench.wait(Duration::from_secs(10));
    bench.expect(&["pool app [1]"]);
}

#[test]
fn where_two_cannot_be_at_once_the_old_one_ends_first() {
    let mut bench = Bench::up(vec![container("db", 1, Handover::OneAtATime)]);
    bench.ready(1);
    bench.said.clear();
    bench.command(Command::Restart { names: names(&["db"]), ending: Ending::default() });
    bench.expect(&["pool db [] starting", "drain #1"]);
    bench.event(Event::Drained { incarnation: 1 });
    bench.expect(&["signal 15 #1"]);
    bench.exit(1, 0);
    bench.expect(&["start db #2"]);
    bench.ready(2);
    bench.expect(&["pool db [2]", "done 2"]);
    // The same when it is stopped and wanted again before it is gone.
    bench.command(Command::Stop { names: names(&["db"]), ending: Ending::drain(Duration::ZERO) });
    bench.command(Command::Start { names: names(&["db"]) });
    bench.said.clear();
    bench.exit(2, 0);
    bench.expect(&["start db #3"]);
    // And one that doesn't come back fails the command.
    bench.ready(3);
    bench.command(Command::Restart { names: names(&["db"]), ending: Ending::drain(Duration::ZERO) });
    bench.exit(3, 0);
    bench.said.clear();
    bench.event(Event::StartFailed { incarnation: 4, why: "no room".into() });
    bench.expect(&["pool db []", "failed 5: db: no room"]);
}
