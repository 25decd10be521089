//! What a plain scalar becomes where Compose takes a text of it: YAML types it first, and Go prints the result.
//!
//! `0755` is 493 then, `1.50` is 1.5, `1_000` is 1000 and `True` is true (go-yaml, resolve.go; fmt's `%v`). A scalar in
//! quotes, and one in which a variable was replaced, stays what it is.

use std::borrow::Cow;

/// A plain scalar's text as Compose has it in `environment`, `labels` and `args`.
pub(crate) fn printed(text: &str) -> Cow<'_, str> {
    match text {
        "true" | "True" | "TRUE" => return Cow::Borrowed("true"),
        "false" | "False" | "FALSE" => return Cow::Borrowed("false"),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Cow::Borrowed(text);
    }
    let digits = text.replace('_', "");
    integer(&digits).or_else(|| float(&digits)).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// Reads a number as Go's `ParseInt` does with base 0.
fn integer(text: &str) -> Option<String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (lower.get(2..)?, 16),
        [b'0', b'b', ..] => (lower.get(2..)?, 2),
        [b'0', b'o', ..] => (lower.get(2..)?, 8),
        [b'0', _, ..] => (lower.get(1..)?, 8),
        _ => (lower.as_str(), 10),
    };
    if digits.is_empty() || digits.starts_with(['+', '-']) {
        return None;
    }
    let value = u64::from_str_radix(digits, radix).ok()?;
    let fits = sign.is_empty() || value <= 1 << 63;
    fits.then(|| if value == 0 { "0".to_owned() } else { format!("{sign}{value}") })
}

/// Reads a number as go-yaml's pattern for floats has it, and prints it as Go does.
fn float(text: &str) -> Option<String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let is_float = is_number(whole) && is_number(fraction) && is_number(exponent);
    if !is_float || exponent.is_empty() || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let value: f64 = text.parse().ok().filter(|value: &f64| value.is_finite())?;
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    if (-4..6).contains(&exponent) {
        return Some(value.to_string());
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    Some(format!("{mantissa}e{sign}{:02}", exponent.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_yaml_makes_of_it() {
        let check = |text: &str, expect: &str| assert_eq!(printed(text), expect, "{text}");
        for same in
            ["", "a", "5", "-5", "3.14", "yes", "on", "1.2.3", "12:30:45", "2024-01-01", "0x", "1e", "-", "."]
        {
            check(same, same);
        }
        for same in ["127.0.0.1", "10m", "512M", "1,000", "+", "abc_1", "18446744073709551615", "0b2", "5-6"]
        {
            check(same, same);
        }
        check("True", "true");
        check("FALSE", "false");
        check("0755", "493");
        check("022", "18");
        check("08", "8");
        check("0o17", "15");
        check("0x1F", "31");
        check("-0x10", "-16");
        check("0b101", "5");
        check("1_000", "1000");
        check("+7", "7");
        check("-0", "0");
        check("1.50", "1.5");
        check("1.0", "1");
        check("3.10", "3.1");
        check(".5", "0.5");
        check("1e3", "1000");
        check("2.5e7", "2.5e+07");
        check("1.5e-7", "1.5e-07");
    }
}
