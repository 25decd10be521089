//! Leaving: CLOSED, drained exactly once, and what a registry keeps.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    thread,
};

use crate::common::*;
use keel_lb::{Group, Outcome, Registry};
use keel_model::PeerSet;

#[test]
fn an_idle_peer_is_drained_at_once_a_busy_one_by_its_last_request() {
    let rig = Rig::new("round_robin", named("a b c"));
    let (one, _two) = (rig.first().unwrap(), rig.first().unwrap());
    let version = rig.group.version();
    rig.group.publish(&named("b"));
    assert_ne!(rig.group.version(), version);
    assert!(one.is_closed());
    assert_eq!(*rig.drained.lock().unwrap(), [port(&peer("c"))]);
    assert_eq!(rig.sequence(3), "bbb");
    let kept = one.peer().clone();
    drop(one);
    assert_eq!(*rig.drained.lock().unwrap(), [port(&peer("c")), port(&peer("a"))]);
    assert_eq!(kept.in_flight(), 0);
}

#[test]
fn twelve_requests_are_even_after_each_change() {
    let rig = Rig::new("round_robin", named("a b c"));
    let count = |names: &str, peers: &str| {
        let each = names.len() / peers.len();
        assert!(peers.chars().all(|peer| names.matches(peer).count() == each), "{names}");
    };
    count(&rig.sequence(12), "abc");
    rig.group.publish(&named("a c"));
    count(&rig.sequence(12), "ac");
    rig.group.publish(&named("a b c d"));
    count(&rig.sequence(12), "abcd");
}

/// Publishers and requests race; each peer that left is told of once, and never before its last request has ended.
#[test]
fn drained_is_told_exactly_once_under_race() {
    const ROUNDS: u16 = 2000;
    let told: Arc<Vec<AtomicU32>> = Arc::new((0..=ROUNDS).map(|_| AtomicU32::new(0)).collect());
    let numbered = |number: u16| {
        let mut peer = peer("p");
        peer.key.incarnation = number.into();
        set([peer])
    };
    let noted = told.clone();
    let registry = Registry::new();
    let drained = Arc::new(move |_: &_, key: &keel_model::PeerKey| {
        noted[key.incarnation as usize].fetch_add(1, SeqCst);
    });
    let group = Group::new(&upstream("round_robin", numbered(0)), &registry, drained).unwrap();
    let rig = Rig::new("round_robin", PeerSet::default());
    let (stop, barrier) = (AtomicBool::new(false), Barrier::new(4));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                barrier.wait();
                while !stop.load(SeqCst) {
                    let ask = keel_lb::Ask {
                        now: rig.start,
                        client_key: &[],
                        key: b"",
                        tried: &[],
                        attempt: keel_lb::Attempt::First,
                        random: 0,
                    };
                    let pick = group.pick(&ask).unwrap();
                    let number = pick.key().incarnation as usize;
                    assert_eq!(told[number].load(SeqCst), 0, "a request is in flight to {number}");
                }
            });
        }
        barrier.wait();
        for number in 1..=ROUNDS {
            group.publish(&numbered(number));
        }
        stop.store(true, SeqCst);
    });
    let told: Vec<u32> = told.iter().map(|count| count.load(SeqCst)).collect();
    assert!(told[..ROUNDS.into()].iter().all(|count| *count == 1), "{told:?}");
    assert_eq!(told[usize::from(ROUNDS)], 0, "it is still there");
}

#[test]
fn a_reload_keeps_the_group_its_counts_and_its_turn() {
    let rig = Rig::new("round_robin", named("a b c"));
    assert_eq!(rig.sequence(4), "abca");
    let held = rig.first().unwrap();
    let prepared =
        rig.registry.prepare(&upstream("round_robin", named("a b c")), note(&rig.drained)).unwrap();
    assert!(Arc::ptr_eq(prepared.group(), &rig.group));
    let group = prepared.commit();
    assert_eq!(held.peer().in_flight(), 1);
    assert_eq!(rig.sequence(3), "cab");
    let counts: Vec<u64> = group.status().iter().map(|peer| peer.first_attempts).collect();
    assert_eq!(counts, [3, 3, 2]);
    assert!(rig.drained.lock().unwrap().is_empty());
}

#[test]
fn a_reload_that_is_not_committed_changes_nothing() {
    let rig = Rig::new("round_robin", named("a b"));
    drop(rig.registry.prepare(&upstream("least_conn", named("x")), note(&rig.drained)).unwrap());
    assert_eq!(rig.sequence(4), "abab");
    assert!(rig.registry.prepare(&upstream("fair", named("x")), note(&rig.drained)).is_err());
    assert!(rig.drained.lock().unwrap().is_empty());
}

#[test]
fn failures_survive_a_reload() {
    let rig = Rig::new("round_robin", named("a b"));
    rig.first().unwrap().report(Outcome::Failure, rig.now());
    rig.registry.prepare(&upstream("round_robin", named("a b c")), note(&rig.drained)).unwrap().commit();
    assert_eq!(rig.sequence(4), "bcbc");
    rig.pass(11);
    assert!(rig.sequence(3).contains('a'));
}

#[test]
fn an_upstream_that_is_gone_drains_its_peers() {
    let Rig { registry, group, drained, .. } = Rig::new("round_robin", named("a b"));
    let peers = group.peers();
    drop(group);
    assert!(peers.iter().all(|peer| peer.is_closed()));
    assert_eq!(drained.lock().unwrap().len(), 2);
    let again = Group::new(&upstream("round_robin", named("a b")), &registry, note(&drained)).unwrap();
    assert!(again.peers().iter().all(|peer| !peer.is_closed()));
}

#[test]
fn a_key_that_comes_back_is_drained_only_with_all_its_states() {
    let rig = Rig::new("round_robin", named("a b"));
    let held = rig.first().unwrap();
    rig.group.publish(&named("b"));
    rig.group.publish(&named("a b"));
    drop(held);
    assert!(rig.drained.lock().unwrap().is_empty(), "a is in the set");
    rig.group.publish(&named("b"));
    assert_eq!(*rig.drained.lock().unwrap(), [port(&peer("a"))]);
}

#[test]
fn one_address_twice_is_two_peers() {
    let rig = Rig::new("round_robin", named("a a b"));
    assert_eq!(rig.sequence(6), "aabaab");
    let first = rig.first().unwrap();
    assert_eq!(rig.retry(&[first.peer().clone()]).unwrap().name(), "a");
    rig.group.publish(&named("a b"));
    assert!(rig.drained.lock().unwrap().is_empty(), "a is still in the set");
    drop(first);
    rig.group.publish(&named("b"));
    assert_eq!(*rig.drained.lock().unwrap(), [port(&peer("a"))]);
}
