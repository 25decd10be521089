//! `max_fails`, `fail_timeout`, `max_conns`, `backup` and `down`, as nginx has them.

use crate::common::*;
use keel_lb::{NoPeer, Outcome, Pick, Standing};
use keel_model::{Peer, PeerSet};

fn failing(rig: &Rig, name: &str) {
    let pick = (0..10).map(|_| rig.first().unwrap()).find(|pick| pick.name() == name).unwrap();
    assert_eq!(pick.report(Outcome::Failure, rig.now()), Standing::Excluded);
}

#[test]
fn a_failed_peer_is_left_out_until_one_probe_succeeds() {
    let rig = Rig::new("round_robin", named("a b c"));
    failing(&rig, "b");
    assert_eq!(rig.sequence(6), "cacaca");
    rig.pass(10);
    assert_eq!(rig.sequence(2), "ca");
    rig.pass(1);
    let picks: Vec<Pick> = (0..5).map(|_| rig.first().unwrap()).collect();
    let names: String = picks.iter().map(|pick| pick.name()).collect();
    assert_eq!(names.matches('b').count(), 1, "{names}: one live probe at a time");
    let probe = picks.iter().find(|pick| pick.name() == "b").unwrap();
    assert_eq!(probe.report(Outcome::Success, rig.now()), Standing::Recovered);
    drop(picks);
    let names = rig.sequence(6);
    assert!(["a", "b", "c"].iter().all(|name| names.matches(name).count() == 2), "{names}: no turn repaid");
}

#[test]
fn a_probe_that_fails_excludes_again() {
    let rig = Rig::new("round_robin", named("a b"));
    failing(&rig, "a");
    rig.pass(11);
    failing(&rig, "a");
    assert_eq!(rig.sequence(3), "bbb");
}

/// As when a peer dies with all that it was answering.
#[test]
fn requests_that_fail_together_exclude_once() {
    let rig = Rig::new("round_robin", named("a b"));
    let in_flight = |count: usize| -> Vec<Pick> {
        let picks = (0..2 * count).map(|_| rig.first().unwrap());
        picks.filter(|pick| pick.name() == "a").collect()
    };
    let exclusions = |picks: &[Pick]| {
        let reports = picks.iter().map(|pick| pick.report(Outcome::Failure, rig.now()));
        reports.filter(|standing| *standing == Standing::Excluded).count()
    };
    let (early, late) = (in_flight(100), in_flight(100));
    assert_eq!(exclusions(&early), 1);
    assert_eq!(rig.group.status()[0].failures, 100, "each counts");
    rig.pass(11);
    // Due for a probe, and what was sent long ago fails before one is out: the exclusion is prolonged.
    assert_eq!(exclusions(&late), 0);
    assert_eq!(rig.sequence(3), "bbb");
    rig.pass(11);
    assert_eq!(exclusions(&in_flight(2)), 1, "the probe");
}

#[test]
fn the_only_peer_is_never_excluded() {
    let rig = Rig::new("round_robin", named("a"));
    for _ in 0..5 {
        assert_eq!(rig.first().unwrap().report(Outcome::Failure, rig.now()), Standing::Unchanged);
    }
    assert_eq!(rig.sequence(2), "aa");
    assert_eq!(rig.group.status()[0].failures, 5);
}

#[test]
fn failures_are_forgotten_while_a_peer_is_the_only_one() {
    let rig = Rig::new("round_robin", named("a b"));
    failing(&rig, "a");
    rig.group.publish(&named("a"));
    rig.first().unwrap().report(Outcome::Success, rig.now());
    rig.group.publish(&named("a b"));
    assert_eq!(rig.sequence(4).matches('a').count(), 2);
}

#[test]
fn max_fails_0_never_excludes() {
    let never = |name| Peer { max_fails: 0, ..peer(name) };
    let rig = Rig::new("round_robin", set(["a", "b"].map(never)));
    for _ in 0..6 {
        assert_eq!(rig.first().unwrap().report(Outcome::Failure, rig.now()), Standing::Unchanged);
    }
    assert_eq!(rig.sequence(4), "abab");
}

#[test]
fn failures_below_the_limit_don_t_exclude() {
    let thrice = |name| Peer { max_fails: 3, ..peer(name) };
    let rig = Rig::new("round_robin", set(["a", "b"].map(thrice)));
    let standings: Vec<Standing> =
        (0..6).map(|_| rig.first().unwrap().report(Outcome::Failure, rig.now())).collect();
    // Two turns each, and the third of each excludes.
    assert_eq!(standings[..4], [Standing::Unchanged; 4]);
    assert_eq!(standings[4..], [Standing::Excluded; 2]);
}

fn watched(name: &str) -> Peer {
    Peer { is_watched: true, ..peer(name) }
}

/// Gives a pick of a peer by name.
fn pick(rig: &Rig, name: &str) -> Pick {
    (0..10).map(|_| rig.first().unwrap()).find(|pick| pick.name() == name).unwrap()
}

#[test]
fn an_instance_that_breaks_each_request_is_excluded_while_another_is_left() {
    let rig = Rig::new("round_robin", set(["a", "b", "c"].map(watched)));
    let breaks = |name: &str| pick(&rig, name).report_broken(rig.now(), rig.now());
    // One that answers between is well enough.
    for _ in 0..5 {
        assert_eq!([breaks("a"), breaks("a")], [Standing::Unchanged; 2]);
        pick(&rig, "a").report(Outcome::Success, rig.now());
    }
    // What was under way when it broke the first says nothing new.
    let under_way = rig.now();
    rig.pass(1);
    for _ in 0..100 {
        assert_eq!(pick(&rig, "a").report_broken(under_way, rig.now()), Standing::Unchanged);
    }
    assert_eq!([breaks("a"), breaks("a")], [Standing::Unchanged, Standing::Excluded]);
    assert_eq!([breaks("b"), breaks("b"), breaks("b")][2], Standing::Excluded);
    assert_eq!(rig.sequence(3), "ccc");
    // Never all of them, however it fails.
    for _ in 0..10 {
        assert_eq!(breaks("c"), Standing::Unchanged);
        assert_eq!(pick(&rig, "c").report(Outcome::Failure, rig.now()), Standing::Unchanged);
    }
    assert_eq!(rig.sequence(3), "ccc");
    rig.pass(11);
    pick(&rig, "a").report(Outcome::Success, rig.now());
    rig.pass(1);
    assert!(rig.sequence(3).contains('a'), "it is well again");
}

#[test]
fn what_is_excluded_is_let_in_when_the_others_leave() {
    let rig = Rig::new("round_robin", set(["a", "b", "c"].map(watched)));
    for name in ["a", "b"] {
        for _ in 0..3 {
            pick(&rig, name).report_broken(rig.now(), rig.now());
        }
    }
    assert_eq!(rig.sequence(3), "ccc");
    rig.group.publish(&set(["a", "b"].map(watched)));
    assert_eq!(rig.sequence(4), "abab");

    // For peers that Evenkeel doesn't run nginx's rule stays.
    let rig = Rig::new("round_robin", named("a b c"));
    failing(&rig, "a");
    failing(&rig, "b");
    rig.group.publish(&named("a b"));
    assert!(rig.first().is_err());
}

#[test]
fn a_busy_instance_is_no_reason_to_forgive_the_others() {
    let peers = || set([watched("a"), watched("b"), Peer { max_conns: 1, ..watched("c") }]);
    let rig = Rig::new("round_robin", peers());
    for name in ["a", "b"] {
        for _ in 0..3 {
            pick(&rig, name).report_broken(rig.now(), rig.now());
        }
    }
    let held = rig.first().unwrap();
    assert_eq!(held.name(), "c");
    rig.group.publish(&peers());
    assert_eq!(rig.first().unwrap_err(), NoPeer::AllBusy);
}

#[test]
fn time_outs_exclude_an_instance_as_they_exclude_any_peer() {
    let rig = Rig::new("round_robin", set(["a", "b"].map(watched)));
    assert_eq!(pick(&rig, "a").report(Outcome::Failure, rig.now()), Standing::Excluded);
    assert_eq!(rig.sequence(3), "bbb");
}

#[test]
fn says_why_there_is_no_peer() {
    let rig = Rig::new("round_robin", PeerSet { starting: true, managed: true, ..named("") });
    assert_eq!(rig.first().unwrap_err(), NoPeer::Empty { starting: true, managed: true });

    let rig = Rig::new("round_robin", named("a b"));
    let tried = [rig.first().unwrap().peer().clone(), rig.first().unwrap().peer().clone()];
    assert_eq!(rig.retry(&tried).unwrap_err(), NoPeer::AllTried);
    assert_eq!(rig.retry(&tried[..1]).unwrap().name(), "b");
    failing(&rig, "a");
    failing(&rig, "b");
    let until = rig.now() + std::time::Duration::from_secs(10);
    assert_eq!(
        rig.first().unwrap_err(),
        NoPeer::AllExcluded { until: Some(until), starting: false, managed: false }
    );

    let rig = Rig::new("round_robin", set([Peer { down: true, ..peer("a") }]));
    assert_eq!(rig.group.tries(), 0);
    assert_eq!(
        rig.first().unwrap_err(),
        NoPeer::AllExcluded { until: None, starting: false, managed: false }
    );

    let rig = Rig::new("round_robin", set([Peer { max_conns: 1, ..peer("a") }]));
    let pick = rig.first().unwrap();
    assert_eq!(rig.first().unwrap_err(), NoPeer::AllBusy);
    drop(pick);
    assert_eq!(rig.first().unwrap().in_flight(), 1);
}

#[test]
fn a_full_peer_s_turns_are_not_its_neighbour_s() {
    let mut peers = named("a b c d");
    peers.peers[0].max_conns = 1;
    let rig = Rig::new("round_robin", peers);
    let held = rig.first().unwrap();
    assert_eq!(held.name(), "a");
    assert_eq!(rig.sequence(9), "bcdbcdbcd");
    drop(held);
    let names = rig.sequence(8);
    assert!("abcd".chars().all(|name| names.matches(name).count() == 2), "{names}");
}

#[test]
fn backup_peers_serve_only_while_no_other_can() {
    let backup = |name| Peer { backup: true, ..peer(name) };
    let rig = Rig::new("round_robin", set([peer("a"), backup("x"), backup("y")]));
    assert_eq!(rig.sequence(3), "aaa");
    assert_eq!(rig.group.tries(), 3);
    failing(&rig, "a");
    assert_eq!(rig.sequence(4), "xyxy");
    rig.pass(11);
    let probe = rig.first().unwrap();
    assert_eq!(probe.name(), "a");
    assert_eq!(rig.sequence(2), "xy");
    probe.report(Outcome::Success, rig.now());
    assert_eq!(rig.sequence(2), "aa");
    let tried = [rig.first().unwrap().peer().clone()];
    assert!(["x", "y"].contains(&rig.retry(&tried).unwrap().name()));
}

#[test]
fn retries_spread_over_all_others() {
    let rig = Rig::new("round_robin", named("a b c d"));
    let a = rig.first().unwrap().peer().clone();
    let names: String =
        (0..9).map(|_| rig.retry(std::slice::from_ref(&a)).unwrap().name().to_owned()).collect();
    assert!("bcd".chars().all(|name| names.matches(name).count() == 3), "{names}");
    assert_eq!(rig.sequence(4), "bcda", "the rotation stood still");
}

#[test]
fn a_second_retry_goes_on_in_order() {
    let rig = Rig::new("round_robin", named("a b c d"));
    let mut tried = vec![rig.first().unwrap().peer().clone()];
    let mut names = tried[0].name().to_owned();
    while let Ok(pick) = rig.retry(&tried) {
        names += pick.name();
        tried.push(pick.peer().clone());
    }
    assert_eq!(names, "abcd");
}
