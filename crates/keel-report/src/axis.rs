//! A scale from values to places, with marks at round numbers.

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Axis {
    /// The smallest value shown.
    low: f64,
    /// The largest value shown.
    high: f64,
    /// The place of the smallest.
    from: f64,
    /// The place of the largest.
    to: f64,
    logarithmic: bool,
}

impl Axis {
    /// From 0 to at least `high`.
    pub fn linear(high: f64, from: f64, to: f64) -> Self {
        let high = if high.is_finite() && high > 0.0 { high } else { 1.0 };
        Axis { low: 0.0, high, from, to, logarithmic: false }
    }

    /// From at most `low` to at least `high`, in equal steps for equal factors.
    pub fn logarithmic(low: f64, high: f64, from: f64, to: f64) -> Self {
        let low = if low.is_finite() && low > 1e-9 { low } else { 1e-3 };
        let high = if high.is_finite() && high > low { high } else { low * 10.0 };
        Axis { low, high, from, to, logarithmic: true }
    }

    /// Where a value stands; what is beyond the ends stands at them.
    pub fn place(&self, value: f64) -> f64 {
        let value = if value.is_finite() { value.clamp(self.low, self.high) } else { self.low };
        let part = if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + part * (self.to - self.from)
    }

    /// Round values between the ends, about as many as wanted.
    pub fn ticks(&self, wanted: u32) -> Vec<f64> {
        if self.logarithmic { self.decades() } else { self.steps(wanted) }
    }

    fn steps(&self, wanted: u32) -> Vec<f64> {
        let rough = self.high / f64::from(wanted.max(1));
        let power = 10_f64.powf(rough.log10().floor());
        // About as wide as asked for, and never so wide that 0 stands alone.
        let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        let fits = |step: &&f64| **step <= self.high;
        let step = steps.iter().filter(fits).find(|step| **step >= rough * 0.75);
        let step = *step.or_else(|| steps.iter().rfind(fits)).unwrap_or(&rough);
        (0..=TICKS_MAX)
            .map(|index| f64::from(index) * step)
            .take_while(|tick| *tick <= self.high * 1.001)
            .collect()
    }

    fn decades(&self) -> Vec<f64> {
        let first = self.low.log10().floor();
        (0..=TICKS_MAX)
            .map(|index| 10_f64.powf(first + f64::from(index)))
            .skip_while(|tick| *tick < self.low * 0.999)
            .take_while(|tick| *tick <= self.high * 1.001)
            .collect()
    }
}

/// More marks than this help nobody.
const TICKS_MAX: u32 = 24;

/// A mark's number without decimals that say nothing: `0`, `0.5`, `2,000`, `15k`.
pub fn tick_label(value: f64) -> String {
    if value >= 10_000.0 {
        let text = format!("{:.1}", value / 1_000.0);
        return format!("{}k", text.trim_end_matches('0').trim_end_matches('.'));
    }
    if value >= 1_000.0 {
        let text = format!("{value:.0}");
        let (thousands, rest) = text.split_at(1);
        return format!("{thousands},{rest}");
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stand_at_round_numbers() {
        let check = |high: f64, wanted: u32, expect: &[f64]| {
            let ticks = Axis::linear(high, 0.0, 100.0).ticks(wanted);
            assert_eq!(ticks.len(), expect.len(), "{ticks:?}");
            for (tick, expect) in ticks.iter().zip(expect) {
                assert!((tick - expect).abs() < 1e-9, "{ticks:?}");
            }
        };
        check(10.0, 5, &[0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        check(2_300.0, 3, &[0.0, 1_000.0, 2_000.0]);
        check(0.7, 3, &[0.0, 0.2, 0.4, 0.6]);
        check(49.0, 2, &[0.0, 20.0, 40.0]);
        check(f64::NAN, 2, &[0.0, 0.5, 1.0]);
        let axis = Axis::logarithmic(0.4, 1_200.0, 0.0, 1.0);
        assert_eq!(axis.ticks(3).len(), 4);
        assert!(axis.place(0.4).abs() < 1e-9 && (axis.place(1_200.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn places_stay_within_the_axis() {
        let axis = Axis::linear(10.0, 100.0, 0.0);
        for (value, expect) in [(0.0, 100.0), (5.0, 50.0), (20.0, 0.0), (-3.0, 100.0), (f64::NAN, 100.0)] {
            assert!((axis.place(value) - expect).abs() < 1e-9, "{value}");
        }
    }

    #[test]
    fn labels_are_short() {
        let labels: Vec<_> =
            [0.0, 0.5, 12.0, 2_000.0, 15_000.0, 12_500.0].into_iter().map(tick_label).collect();
        assert_eq!(labels, ["0", "0.5", "12", "2,000", "15k", "12.5k"]);
    }
}
