//! Medians and how far to trust them.

/// A median and its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Median {
    pub(crate) median: f64,
    /// An interval that holds the true median with at least 95 % confidence, for any distribution; all there is
    /// for fewer than six values.
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The median of some values, if there are any.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<Median> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = (sorted.len().checked_sub(1)?) as f64 / 2.0;
    let at = |index: usize| sorted.get(index).copied();
    let rank = rank(sorted.len());
    Some(Median {
        median: (at(middle.floor() as usize)? + at(middle.ceil() as usize)?) / 2.0,
        low: at(rank)?,
        high: at(sorted.len() - 1 - rank)?,
    })
}

/// How many values may be left out at either end: with the largest k for which P(Binomial(n, 1/2) < k) ≤ 2.5 %, the
/// k-th value from either end still belongs to the interval.
fn rank(count: usize) -> usize {
    let mut term = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut below = term;
    let mut k = 0;
    while below <= 0.025 && k < count {
        k += 1;
        term *= (count - k + 1) as f64 / k as f64;
        below += term;
    }
    k.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_median_and_its_interval() {
        let check = |count: u32, expect: (f64, f64, f64)| {
            let got = median((1..=count).rev().map(f64::from)).unwrap();
            assert_eq!((got.median, got.low, got.high), expect, "{count}");
        };
        check(1, (1.0, 1.0, 1.0));
        check(4, (2.5, 1.0, 4.0));
        check(9, (5.0, 2.0, 8.0));
        check(15, (8.0, 4.0, 12.0));
        assert_eq!(median([]), None);
    }
}
