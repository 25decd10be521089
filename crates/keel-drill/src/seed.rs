//! Numbers that look random and are the same for the same seed: SplitMix64 (Steele, Lea, Flood 2014,
//! doi:10.1145/2714064.2660195).

/// A stream of numbers. Streams of different purposes are split off, so that one doesn't disturb another.
#[derive(Clone, Debug)]
pub(crate) struct Seed(u64);

impl Seed {
    /// Starts the stream of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The stream of one purpose.
    #[must_use]
    pub(crate) fn split(&self, purpose: &str) -> Self {
        // FNV-1a, stirred once by the stream itself.
        let hash = purpose.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut stream = Self(self.0 ^ hash);
        Self(stream.next())
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 where `end` is 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // The high half of a product: even enough for what is far below 2^64.
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// A number from 0 up to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Takes one of several; `None` where there is none.
    pub(crate) fn choose<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(usize::try_from(self.below(from.len() as u64)).unwrap_or(0))
    }

    /// Puts a list into an order of its own.
    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            let other = usize::try_from(self.below(last as u64 + 1)).unwrap_or(0);
            list.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_published_stream() {
        // The reference implementation's first numbers for seed 1234567.
        let mut seed = Seed::new(1_234_567);
        assert_eq!([seed.next(), seed.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn splits_are_streams_of_their_own_and_stay_in_bounds() {
        let seed = Seed::new(7);
        assert_ne!(seed.split("a").next(), seed.split("b").next());
        assert_eq!(seed.split("a").next(), seed.split("a").next());
        let mut stream = seed.split("c");
        assert!((0..1000).all(|_| stream.below(3) < 3));
        assert_eq!(stream.below(0), 0);
        assert!((0..1000).all(|_| (0.0..1.0).contains(&stream.unit())));
        let mut list: Vec<u32> = (0..20).collect();
        stream.shuffle(&mut list);
        assert_ne!(list, (0..20).collect::<Vec<_>>());
        list.sort_unstable();
        assert_eq!(list, (0..20).collect::<Vec<_>>());
    }
}
