//! Exactly even: whatever else happens, between two changes first attempts differ by at most one.

use std::{collections::BTreeMap, sync::Barrier, thread};

use crate::common::*;
use keel_lb::{Outcome, Pick};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    /// So many requests that succeed, one after the other.
    Requests(usize),
    /// A request that is retried on every other peer.
    RetriedEverywhere,
    /// A request to this peer fails and excludes it.
    Failure(usize),
    /// A peer joins or leaves.
    Toggle(usize),
    /// The same set is published again.
    Republish,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1usize..20).prop_map(Step::Requests),
        Just(Step::RetriedEverywhere),
        (0usize..6).prop_map(Step::Failure),
        (0usize..6).prop_map(Step::Toggle),
        Just(Step::Republish),
    ];
    prop::collection::vec(step, 1..30)
}

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Counts since the last change of the available peers.
#[derive(Default)]
struct Since {
    counts: BTreeMap<String, i64>,
}

impl Since {
    fn note(&mut self, pick: &Pick) {
        *self.counts.entry(pick.name().to_owned()).or_default() += 1;
    }

    fn check(&self, available: &[&str]) -> Result<(), TestCaseError> {
        let count = |name: &&str| self.counts.get(*name).copied().unwrap_or(0);
        let counts: Vec<i64> = available.iter().map(count).collect();
        let (least, most) = (counts.iter().min(), counts.iter().max());
        prop_assert!(most.zip(least).is_none_or(|(most, least)| most - least <= 1), "{:?}", self.counts);
        Ok(())
    }
}

proptest! {
    #[test]
    fn first_attempts_stay_even(steps in steps()) {
        let mut present = vec![true, true, true, false, false, false];
        let mut excluded = [false; 6];
        let peers = |present: &[bool]| {
            set(NAMES.iter().zip(present).filter(|(_, here)| **here).map(|(name, _)| peer(name)))
        };
        let rig = Rig::new("round_robin", peers(&present));
        let mut since = Since::default();
        for step in steps {
            match step {
                Step::Requests(count) => for _ in 0..count {
                    let Ok(pick) = rig.first() else { break };
                    since.note(&pick);
                    pick.report(Outcome::Success, rig.now());
                },
                Step::RetriedEverywhere => if let Ok(pick) = rig.first() {
                    since.note(&pick);
                    let mut tried = vec![pick.peer().clone()];
                    while let Ok(pick) = rig.retry(&tried) {
                        tried.push(pick.peer().clone());
                    }
                },
                Step::Failure(which) => for _ in 0..NAMES.len() {
                    let Ok(pick) = rig.first() else { break };
                    since.note(&pick);
                    let alone = present.iter().filter(|here| **here).count() == 1;
                    if pick.name() == NAMES[which] && !alone {
                        since.check(&[])?;
                        pick.report(Outcome::Failure, rig.now());
                        excluded[which] = true;
                        since = Since::default();
                        break;
                    }
                },
                Step::Toggle(which) => {
                    present[which] = !present[which];
                    // Whoever comes back is another incarnation in Evenkeel; here its state has gone, which is the same.
                    excluded[which] = false;
                    rig.group.publish(&peers(&present));
                    since = Since::default();
                }
                Step::Republish => rig.group.publish(&peers(&present)),
            }
            let available: Vec<&str> = (0..6)
                .filter(|&which| present[which] && !excluded[which])
                .map(|which| NAMES[which])
                .collect();
            since.check(&available)?;
        }
    }
}

/// k·n first attempts from many threads at once: k each, retries and short failures of `max_conns` nowhere in sight.
#[test]
fn threads_share_one_rotation() {
    const THREADS: usize = 4;
    const EACH: usize = 30_000;
    let rig = Rig::new("round_robin", named("a b c d e"));
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                barrier.wait();
                for turn in 0..EACH {
                    let pick = rig.first().unwrap();
                    if turn % 7 == 0 {
                        rig.retry(&[pick.peer().clone()]).unwrap();
                    }
                }
            });
        }
    });
    let counts: Vec<u64> = rig.group.status().iter().map(|peer| peer.first_attempts).collect();
    assert_eq!(counts, [(THREADS * EACH / 5) as u64; 5]);
    assert!(rig.group.peers().iter().all(|peer| peer.in_flight() == 0));
}

/// The same for weights: every thread turns the one smooth sequence.
#[test]
fn threads_share_one_smooth_sequence() {
    const THREADS: usize = 4;
    const EACH: usize = 14_000;
    let mut peers = named("a b c");
    peers.peers[0].weight = 5;
    let rig = Rig::new("round_robin", peers);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..EACH).for_each(|_| drop(rig.first().unwrap())));
        }
    });
    let counts: Vec<u64> = rig.group.status().iter().map(|peer| peer.first_attempts).collect();
    assert_eq!(counts, [40_000, 8_000, 8_000]);
}

/// A limit holds to the request, over all threads, and whoever is full is back as soon as it isn't.
#[test]
fn max_conns_holds_over_threads() {
    let limited = |name: &str| keel_model::Peer { max_conns: 2, ..peer(name) };
    let rig = Rig::new("round_robin", set(["a", "b"].map(limited)));
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    if let Ok(pick) = rig.first() {
                        assert!(pick.in_flight() <= 2);
                    }
                }
            });
        }
    });
    let held: Vec<Pick> = (0..4).map(|_| rig.first().unwrap()).collect();
    assert!(rig.first().is_err());
    drop(held);
    assert_eq!(rig.sequence(4).matches('a').count(), 2, "both are back");
}

#[test]
fn ten_thousand_peers_take_turns() {
    let names: Vec<String> = (0..10_000).map(|number| format!("p{number}")).collect();
    let numbered = |(number, name): (u16, &String)| keel_model::Peer {
        key: keel_model::PeerKey {
            address: keel_model::Address::Tcp(([127, 0, 0, 1], number).into()),
            incarnation: 0,
        },
        ..peer(name)
    };
    let mut peers = set((0u16..).zip(&names).map(numbered));
    let rig = Rig::new("round_robin", peers.clone());
    (0..30_000).for_each(|_| drop(rig.first().unwrap()));
    assert!(rig.group.status().iter().all(|peer| peer.first_attempts == 3));
    // Ten weights: a pick looks at ten numbers, not at ten thousand.
    for (number, peer) in (0u32..).zip(&mut peers.peers) {
        peer.weight = 1 + number % 10;
    }
    let rig = Rig::new("round_robin", peers.clone());
    (0..55_000).for_each(|_| drop(rig.first().unwrap()));
    for (status, peer) in rig.group.status().iter().zip(&peers.peers) {
        assert_eq!(status.first_attempts, u64::from(peer.weight), "{}", peer.name);
    }
}

/// Each set is even on its own, whoever joined or left before it and however many threads turn it.
#[test]
fn threads_are_even_in_every_set() {
    const THREADS: u64 = 4;
    let rig = Rig::new("round_robin", named("a b c"));
    let mut random = 7_u64;
    for _ in 0..200 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let here = |bit: &u32| random >> (33 + bit) & 1 == 1 || *bit == 0;
        let present: Vec<&str> = (0..6).filter(here).map(|bit| NAMES[bit as usize]).collect();
        rig.group.publish(&set(present.iter().map(|name| peer(name))));
        let before: Vec<u64> = rig.group.status().iter().map(|peer| peer.first_attempts).collect();
        let each = 1 + (random >> 50) % 40;
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| (0..each).for_each(|_| drop(rig.first().unwrap())));
            }
        });
        let after = rig.group.status();
        let counts: Vec<u64> =
            after.iter().zip(&before).map(|(peer, before)| peer.first_attempts - before).collect();
        assert_eq!(counts.iter().sum::<u64>(), THREADS * each);
        assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{present:?}: {counts:?}");
    }
}

/// Whatever failed, filled up and came back at the same time: in the end everybody serves again, and evenly.
#[test]
fn no_peer_is_forgotten() {
    let limited = |name: &&str| keel_model::Peer { max_conns: 3, ..peer(name) };
    let rig = Rig::new("round_robin", set(NAMES.iter().map(limited)));
    thread::scope(|scope| {
        for thread in 0..4_u32 {
            let rig = &rig;
            scope.spawn(move || {
                for turn in 0..4000 {
                    if let Ok(pick) = rig.first() {
                        let failed = (turn * 7 + thread) % 5 == 0;
                        pick.report(if failed { Outcome::Failure } else { Outcome::Success }, rig.now());
                    }
                    if turn % 50 == 0 {
                        rig.pass(11);
                    }
                }
            });
        }
    });
    rig.pass(11);
    for _ in NAMES {
        rig.first().unwrap().report(Outcome::Success, rig.now());
    }
    assert!(
        rig.group.status().iter().all(|peer| !peer.excluded && peer.in_flight == 0),
        "{:?}",
        rig.group.status()
    );
    let names = rig.sequence(12);
    assert!(NAMES.iter().all(|name| names.matches(name).count() == 2), "{names}");
}
