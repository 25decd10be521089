//! Numbers with nginx's units.
//!
//! Sizes take `k` and `m`, offsets `g` as well; times take `y M w d h m s ms` from large to small, `1h 30m` and `1h30m`
//! alike, and mean seconds without a unit. These functions know no directive; what is wrong is the caller's to say.

use std::time::Duration;

use keel_model::ByteSize;

/// Reads a number without sign or unit.
pub(crate) fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|&number| i64::try_from(number).is_ok())
}

/// Reads a size: a number with `k` or `m` behind it or not.
pub(crate) fn size(text: &str) -> Option<ByteSize> {
    match text.bytes().last() {
        Some(b'g' | b'G') => None,
        _ => offset(text),
    }
}

/// Reads an offset: as a size, and with `g` too.
pub(crate) fn offset(text: &str) -> Option<ByteSize> {
    let (digits, scale) = match text.bytes().last()? {
        b'k' | b'K' => (text.get(..text.len() - 1)?, 1 << 10),
        b'm' | b'M' => (text.get(..text.len() - 1)?, 1 << 20),
        b'g' | b'G' => (text.get(..text.len() - 1)?, 1 << 30),
        _ => (text, 1),
    };
    let bytes = number(digits)?.checked_mul(scale)?;
    i64::try_from(bytes).ok().map(|_| ByteSize(bytes))
}

/// Writes a number of bytes as a size.
pub(crate) fn size_text(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        bytes if bytes.is_multiple_of(1 << 20) => format!("{}m", bytes >> 20),
        bytes if bytes.is_multiple_of(1 << 10) => format!("{}k", bytes >> 10),
        bytes => bytes.to_string(),
    }
}

/// What a time without a unit is counted in, and so which units may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// Whole seconds; years, no milliseconds.
    Seconds,
    /// Milliseconds; no years.
    Milliseconds,
}

/// Reads a time. A number without a unit counts seconds either way.
pub(crate) fn time(text: &str, resolution: Resolution) -> Option<Duration> {
    let mut rest = text.as_bytes();
    let mut previous = usize::MAX;
    let mut total_ms: u64 = 0;
    let mut any = false;
    while !rest.is_empty() {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number_text, after) = rest.split_at(digits);
        let value = match digits {
            0 => 0,
            _ => number(std::str::from_utf8(number_text).ok()?)?,
        };
        any |= digits > 0;
        let (rank, scale_ms, taken) = unit(after, resolution)?;
        if rank >= previous {
            return None;
        }
        previous = rank;
        total_ms = total_ms.checked_add(value.checked_mul(scale_ms)?)?;
        rest = after.get(taken..)?;
        while let [b' ', tail @ ..] = rest {
            rest = tail;
        }
    }
    (any && i64::try_from(total_ms).is_ok()).then(|| Duration::from_millis(total_ms))
}

/// Gives a unit's rank (larger units first), its milliseconds and its length in the text.
fn unit(text: &[u8], resolution: Resolution) -> Option<(usize, u64, usize)> {
    const SECOND: u64 = 1000;
    const DAY: u64 = 24 * 60 * 60 * SECOND;
    let seconds_only = resolution == Resolution::Seconds;
    match text {
        [] => Some((0, SECOND, 0)),
        [b'y', ..] if seconds_only => Some((8, 365 * DAY, 1)),
        [b'm', b's', ..] if !seconds_only => Some((1, 1, 2)),
        [b'm', b's', ..] => None,
        [b'M', ..] => Some((7, 30 * DAY, 1)),
        [b'w', ..] => Some((6, 7 * DAY, 1)),
        [b'd', ..] => Some((5, DAY, 1)),
        [b'h', ..] => Some((4, 60 * 60 * SECOND, 1)),
        [b'm', ..] => Some((3, 60 * SECOND, 1)),
        [b's' | b' ', ..] => Some((2, SECOND, 1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text, expect: Option<u64>| assert_eq!(size(text), expect.map(ByteSize), "for {text:?}");
        check("0", Some(0));
        check("512", Some(512));
        check("8k", Some(8192));
        check("1M", Some(1 << 20));
        check("1g", None);
        check("", None);
        check("k", None);
        check("-1", None);
        check("1kk", None);
        check("99999999999999999999", None);
        check("9999999999999999m", None);
        assert_eq!(offset("1g"), Some(ByteSize(1 << 30)));
    }

    #[test]
    fn times() {
        let check = |text, seconds: Option<u64>, milliseconds: Option<u64>| {
            let got = time(text, Resolution::Seconds);
            assert_eq!(got, seconds.map(Duration::from_millis), "{text:?} in seconds");
            let got = time(text, Resolution::Milliseconds);
            assert_eq!(got, milliseconds.map(Duration::from_millis), "{text:?} in milliseconds");
        };
        check("10", Some(10_000), Some(10_000));
        check("1s", Some(1000), Some(1000));
        check("1h30m", Some(5_400_000), Some(5_400_000));
        check("1h 30m", Some(5_400_000), Some(5_400_000));
        check("1m 5", Some(65_000), Some(65_000));
        check("5ms", None, Some(5));
        check("1s5ms", None, Some(1005));
        check("1y", Some(31_536_000_000), None);
        check("1M", Some(2_592_000_000), Some(2_592_000_000));
        check("30m1h", None, None);
        check("1s1s", None, None);
        check("", None, None);
        check("x", None, None);
        check("99999999999999999999s", None, None);
    }
}
