//! Each algorithm through a group.

use crate::common::*;
use keel_lb::{Ask, Attempt, Group, Outcome, Pick};
use keel_model::Peer;

#[test]
fn weighted_round_robin_is_nginx_s() {
    let mut peers = named("a b c");
    peers.peers[0].weight = 5;
    assert_eq!(Rig::new("round_robin", peers).sequence(14), "aabacaaaabacaa");
}

#[test]
fn least_conn_takes_the_least_loaded_and_turns_among_ties() {
    let rig = Rig::new("least_conn", named("a b c"));
    assert_eq!(rig.sequence(6), "abcabc");
    let held: Vec<Pick> = (0..4).map(|_| rig.first().unwrap()).collect();
    let names: String = held.iter().map(|pick| pick.name()).collect();
    // As nginx: c got its place as the only least loaded one, which is no turn, so its turn is still to come.
    assert_eq!(names, "abcc");
    assert_eq!(rig.sequence(4), "baba");
    let loads: Vec<u32> = rig.group.peers().iter().map(|peer| peer.in_flight()).collect();
    assert_eq!(loads, [1, 1, 2]);
}

#[test]
fn least_conn_weighs_loads() {
    let mut peers = named("a b");
    peers.peers[0].weight = 3;
    let rig = Rig::new("least_conn", peers);
    let held: Vec<Pick> = (0..8).map(|_| rig.first().unwrap()).collect();
    assert_eq!(held.iter().filter(|pick| pick.name() == "a").count(), 6);
}

fn by_client(group: &Group, rig: &Rig, client_key: &[u8]) -> String {
    let ask = Ask { now: rig.now(), client_key, key: b"", tried: &[], attempt: Attempt::First, random: 0 };
    group.pick(&ask).unwrap().name().to_owned()
}

#[test]
fn ip_hash_keeps_a_network_at_its_peer() {
    let rig = Rig::new("ip_hash", named("a b c"));
    let of = |key: &[u8]| by_client(&rig.group, &rig, key);
    // 127.0.0 hashes to 4040, which is 2 modulo 3.
    assert_eq!(of(&[127, 0, 0, 1]), "c");
    assert_eq!(of(&[127, 0, 0, 200]), "c");
    let distinct: std::collections::BTreeSet<String> = (0..50).map(|net| of(&[10, net, 0, 1])).collect();
    assert_eq!(distinct.len(), 3);
    assert_eq!(of(&[1; 16]), of(&[1; 16]));
    assert_eq!(of(&[]), of(&[0, 0, 0, 9]));
}

#[test]
fn ip_hash_moves_only_clients_of_a_peer_that_is_gone() {
    let down = |name: &str| Peer { down: name == "c", ..peer(name) };
    let rig = Rig::new("ip_hash", set(["a", "b", "c"].map(down)));
    let whole = Rig::new("ip_hash", named("a b c"));
    for net in 0..100 {
        let key = [10, net, 0, 1];
        let (now, before) = (by_client(&rig.group, &rig, &key), by_client(&whole.group, &whole, &key));
        assert!(now == before || before == "c" && now != "c", "{key:?}: {before} to {now}");
    }
}

#[test]
fn ip_hash_falls_back_when_its_peer_fails() {
    let rig = Rig::new("ip_hash", named("a b"));
    let pick = rig.first().unwrap();
    let lost = pick.name().to_owned();
    assert_ne!(rig.retry(&[pick.peer().clone()]).unwrap().name(), lost);
    pick.report(Outcome::Failure, rig.now());
    assert!(!rig.sequence(5).contains(&lost));
}

#[test]
fn random_draws_by_weight() {
    let mut peers = named("a b");
    peers.peers[0].weight = 3;
    let rig = Rig::new("random", peers);
    let draw = |random| {
        let ask =
            Ask { now: rig.now(), client_key: &[], key: b"", tried: &[], attempt: Attempt::First, random };
        rig.group.pick(&ask).unwrap().name().to_owned()
    };
    let of_a = (0..4000).filter(|random| draw(*random) == "a").count();
    assert!((2900..3100).contains(&of_a), "{of_a}");
}

#[test]
fn random_two_takes_the_less_loaded() {
    let rig = Rig::new("random two least_conn", named("a b"));
    let held: Vec<Pick> = (0..10).map(|_| rig.first().unwrap()).collect();
    assert_eq!(held.iter().filter(|pick| pick.name() == "a").count(), 5);
}

fn by_key(rig: &Rig, key: &str) -> String {
    let ask = Ask {
        now: rig.now(),
        client_key: b"",
        key: key.as_bytes(),
        tried: &[],
        attempt: Attempt::First,
        random: 0,
    };
    rig.group.pick(&ask).unwrap().name().to_owned()
}

fn keys() -> impl Iterator<Item = String> {
    (0..1000).map(|number| format!("/page/{number}"))
}

#[test]
fn hash_keeps_a_key_at_its_peer() {
    for policy in ["hash", "hash consistent"] {
        let rig = Rig::new(policy, named("a b c"));
        let again = Rig::new(policy, named("a b c"));
        let mut counts = std::collections::BTreeMap::<String, usize>::new();
        for key in keys() {
            let peer = by_key(&rig, &key);
            assert_eq!((by_key(&rig, &key), by_key(&again, &key)), (peer.clone(), peer.clone()), "{key}");
            *counts.entry(peer).or_default() += 1;
        }
        assert!(counts.len() == 3 && counts.values().all(|count| *count > 200), "{policy}: {counts:?}");
        // Requests without a key take turns.
        assert_eq!(rig.sequence(3), "abc");
    }
}

#[test]
fn consistent_hash_moves_only_keys_of_a_peer_that_is_gone() {
    let (all, fewer) =
        (Rig::new("hash consistent", named("a b c")), Rig::new("hash consistent", named("a c")));
    let down = |name: &str| Peer { down: name == "b", ..peer(name) };
    let down = Rig::new("hash consistent", set(["a", "b", "c"].map(down)));
    for key in keys() {
        let before = by_key(&all, &key);
        for now in [by_key(&fewer, &key), by_key(&down, &key)] {
            assert!(if before == "b" { now != "b" } else { now == before }, "{key}: {before} to {now}");
        }
    }
}
