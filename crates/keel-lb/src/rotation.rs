//! Whose turn it is: exact rotation over the available peers of one tier.
//!
//! Equal weights: one atomic counter, so that any k·n consecutive turns give each of n peers exactly k, whichever
//! threads take them. Unequal weights: nginx's smooth weighted round robin (each turn every peer earns its weight, the
//! richest is chosen and pays the total). Peers of one weight always hold the same credit but for whole payments and so
//! take turns among themselves; hence only one number per distinct weight has to be kept and compared.
//!
//! A rotation belongs to one set of available peers. When the set changes, [`Carry`] takes over where the turn stands
//! and how far each weight is ahead or behind, and nothing about those who join or leave: no turn is owed or repaid.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Places of peers in their roster, ascending.
pub(crate) type Places = [u32];

/// Whose turn it is.
pub(crate) enum Rotation {
    /// All weights are equal.
    Even { weight: u32, turn: Padded<AtomicU64> },
    /// nginx's smooth sequence.
    Smooth(Mutex<Smooth>),
}

/// A value on cache lines of its own, two of them because they are fetched in pairs.
#[repr(align(128))]
#[derive(Default)]
pub(crate) struct Padded<T>(pub(crate) T);

/// What a new rotation takes over from the one before it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Carry {
    /// Whose turn would have been next.
    pub(crate) next: u32,
    /// For each weight, who was next in it and how many turns ahead it was (negative) or behind.
    pub(crate) classes: Vec<CarriedClass>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CarriedClass {
    weight: u32,
    pub(crate) next: u32,
    turns_owed: f64,
}

impl Rotation {
    /// Makes the rotation over `available`, places of peers that weigh `weight_of`.
    pub(crate) fn new(available: &Places, weight_of: impl Fn(u32) -> u32, carry: Option<&Carry>) -> Self {
        let weights = || available.iter().map(|&place| weight_of(place));
        let first = weights().next().unwrap_or(1);
        if weights().all(|weight| weight == first) {
            let start = carry.map_or(0, |carry| start(available, carry.next));
            return Self::Even { weight: first, turn: Padded(AtomicU64::new(start as u64)) };
        }
        Self::Smooth(Mutex::new(Smooth::new(available, weight_of, carry)))
    }

    /// The place whose turn it is, and the turn to the next.
    pub(crate) fn next(&self, available: &Places) -> Option<u32> {
        match self {
            Self::Even { turn, .. } => {
                let peers = u64::try_from(available.len()).ok().filter(|peers| *peers > 0)?;
                let position = turn.0.fetch_add(1, Relaxed) % peers;
                available.get(usize::try_from(position).ok()?).copied()
            }
            Self::Smooth(smooth) => smooth.lock().unwrap_or_else(PoisonError::into_inner).next(),
        }
    }

    /// What the rotation after this one takes over.
    pub(crate) fn carry(&self, available: &Places) -> Option<Carry> {
        match self {
            Self::Even { weight, turn } => {
                let position = turn.0.load(Relaxed) as usize % available.len().max(1);
                let next = *available.get(position)?;
                let class = CarriedClass { weight: *weight, next, turns_owed: 0.0 };
                Some(Carry { next, classes: vec![class] })
            }
            Self::Smooth(smooth) => smooth.lock().unwrap_or_else(PoisonError::into_inner).carry(),
        }
    }
}

/// Where in `available` the rotation starts so that `next` or, if it is gone, who follows it is first.
fn start(available: &Places, next: u32) -> usize {
    available.partition_point(|place| *place < next) % available.len().max(1)
}

/// Smooth weighted round robin, by weight instead of by peer.
pub(crate) struct Smooth {
    total: i128,
    turns: i128,
    classes: Vec<Class>,
}

/// All peers of one weight.
struct Class {
    weight: u32,
    /// Credit at turn 0.
    base: i128,
    /// Turns given to its members.
    picks: u64,
    /// Their places, in the order of their turns.
    members: Vec<u32>,
}

impl Class {
    fn next(&self) -> Option<u32> {
        let members = self.members.len() as u64;
        self.members.get(usize::try_from(self.picks.checked_rem(members)?).ok()?).copied()
    }

    /// nginx's `current_weight` of the member whose turn is next.
    fn credit(&self, turns: i128, total: i128) -> i128 {
        let rounds = i128::from(self.picks) / (self.members.len().max(1) as i128);
        self.base + i128::from(self.weight) * turns - total * rounds
    }

    /// The mean credit of its members, in turns.
    fn turns_owed(&self, turns: i128, total: i128) -> f64 {
        let members = self.members.len().max(1) as i128;
        let sum = (self.base + i128::from(self.weight) * turns) * members - total * i128::from(self.picks);
        sum as f64 / (total * members).max(1) as f64
    }
}

impl Smooth {
    fn new(available: &Places, weight_of: impl Fn(u32) -> u32, carry: Option<&Carry>) -> Self {
        let mut classes: Vec<Class> = Vec::new();
        let mut total = 0;
        for &place in available {
            let weight = weight_of(place);
            total += i128::from(weight);
            match classes.iter_mut().find(|class| class.weight == weight) {
                Some(class) => class.members.push(place),
                None => classes.push(Class { weight, base: 0, picks: 0, members: vec![place] }),
            }
        }
        for old in carry.map_or(&[][..], |carry| &carry.classes) {
            if let Some(class) = classes.iter_mut().find(|class| class.weight == old.weight) {
                class.base = (old.turns_owed * total as f64).round() as i128;
                let start = start(&class.members, old.next);
                class.members.rotate_left(start);
            }
        }
        Self { total, turns: 0, classes }
    }

    fn richest(&self, turns: i128) -> Option<usize> {
        let rank = |class: &Class| (class.credit(turns, self.total), std::cmp::Reverse(class.next()));
        (0..self.classes.len()).max_by_key(|&index| self.classes.get(index).map(rank))
    }

    fn next(&mut self) -> Option<u32> {
        self.turns += 1;
        let richest = self.richest(self.turns)?;
        let class = self.classes.get_mut(richest)?;
        let place = class.next();
        class.picks += 1;
        place
    }

    fn carry(&self) -> Option<Carry> {
        let carried = |class: &Class| {
            Some(CarriedClass {
                weight: class.weight,
                next: class.next()?,
                turns_owed: class.turns_owed(self.turns, self.total),
            })
        };
        let next = self.classes.get(self.richest(self.turns + 1)?)?.next()?;
        Some(Carry { next, classes: self.classes.iter().filter_map(carried).collect() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sequence(weights: &[u32], turns: usize) -> String {
        let available: Vec<u32> = (0..weights.len() as u32).collect();
        let rotation = Rotation::new(&available, |place| weights[place as usize], None);
        (0..turns).map(|_| char::from(b'a' + rotation.next(&available).unwrap() as u8)).collect()
    }

    #[test]
    fn smooth_sequence_is_the_published_one() {
        assert_eq!(sequence(&[5, 1, 1], 14), "aabacaaaabacaa");
        assert_eq!(sequence(&[1, 1, 1], 6), "abcabc");
        assert_eq!(sequence(&[2, 1], 6), "abaaba");
        assert_eq!(sequence(&[1, 2], 6), "babbab");
    }

    /// nginx's own loop, a peer at a time.
    fn reference(weights: &[u32], turns: usize) -> Vec<u32> {
        let mut credit = vec![0i64; weights.len()];
        let total: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
        let mut sequence = Vec::new();
        for _ in 0..turns {
            let mut best = 0;
            for place in 0..weights.len() {
                credit[place] += i64::from(weights[place]);
                if credit[place] > credit[best] {
                    best = place;
                }
            }
            credit[best] -= total;
            sequence.push(best as u32);
        }
        sequence
    }

    proptest! {
        #[test]
        fn smooth_sequence_is_nginx_s(weights in prop::collection::vec(1u32..8, 1..12)) {
            let available: Vec<u32> = (0..weights.len() as u32).collect();
            let rotation = Rotation::new(&available, |place| weights[place as usize], None);
            let turns = 3 * weights.iter().sum::<u32>() as usize;
            let got: Vec<u32> = (0..turns).map(|_| rotation.next(&available).unwrap()).collect();
            prop_assert_eq!(got, reference(&weights, turns));
        }

        /// However often the set changes, a weight gets its share: nothing starts over at each change.
        #[test]
        fn shares_hold_across_changes(every in 1usize..9) {
            let weights = [5, 2, 1];
            let all = [0, 1, 2];
            let mut rotation = Rotation::new(&all, |place| weights[place as usize], None);
            let mut counts = [0i64; 3];
            for turn in 0..800 {
                if turn % every == 0 {
                    let carry = rotation.carry(&all);
                    rotation = Rotation::new(&all, |place| weights[place as usize], carry.as_ref());
                }
                counts[rotation.next(&all).unwrap() as usize] += 1;
            }
            for (count, share) in counts.iter().zip([500, 200, 100]) {
                prop_assert!((count - share).abs() <= 2, "{counts:?}");
            }
        }
    }

    #[test]
    fn the_turn_goes_on_where_it_stood() {
        let check = |before: &[u32], turns: usize, after: &[u32], expect: u32| {
            let rotation = Rotation::new(before, |_| 1, None);
            for _ in 0..turns {
                rotation.next(before);
            }
            let carry = rotation.carry(before);
            assert_eq!(Rotation::new(after, |_| 1, carry.as_ref()).next(after), Some(expect));
        };
        check(&[0, 1, 2], 1, &[0, 1, 2], 1);
        check(&[0, 1, 2], 1, &[0, 2], 2);
        check(&[0, 1, 2], 2, &[0, 1], 0);
        check(&[0, 2], 1, &[0, 1, 2], 2);
    }

    #[test]
    fn nobody_has_no_turn() {
        assert_eq!(Rotation::new(&[], |_| 1, None).next(&[]), None);
    }
}
