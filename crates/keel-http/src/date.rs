//! Dates of HTTP (RFC 9110 §5.6.7) and of the access log.
//!
//! Seconds since 1970 in, text out, and back. Only UTC; no clock is read here.

/// A moment split into the parts that dates are written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// The year.
    pub year: i64,
    /// The month, from 1.
    pub month: u32,
    /// The day of the month, from 1.
    pub day: u32,
    /// The hour.
    pub hour: u32,
    /// The minute.
    pub minute: u32,
    /// The second.
    pub second: u32,
    /// The day of the week, Sunday being 0.
    pub weekday: u32,
}

const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Civil {
    /// Splits seconds since 1970 (Hinnant, "chrono-compatible low-level date algorithms").
    pub fn from_seconds(seconds: i64) -> Self {
        let days = seconds.div_euclid(86_400);
        let of_day = seconds.rem_euclid(86_400);
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
        let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let small = |number: i64| u32::try_from(number).unwrap_or(0);
        Self {
            year,
            month: small(month),
            day: small(day),
            hour: small(of_day / 3600),
            minute: small(of_day / 60 % 60),
            second: small(of_day % 60),
            weekday: small((days + 4).rem_euclid(7)),
        }
    }

    /// Seconds since 1970.
    pub fn to_seconds(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let month = i64::from(self.month);
        let month_shifted = if month > 2 { month - 3 } else { month + 9 };
        let day_of_year = (153 * month_shifted + 2) / 5 + i64::from(self.day) - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - 719_468;
        days * 86_400 + i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second)
    }
}

/// Writes `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn http(seconds: i64) -> String {
    let at = Civil::from_seconds(seconds);
    let weekday = WEEKDAYS.get(at.weekday as usize).unwrap_or(&"");
    let month = month_name(at.month);
    format!(
        "{weekday}, {:02} {month} {:04} {:02}:{:02}:{:02} GMT",
        at.day, at.year, at.hour, at.minute, at.second
    )
}

/// Writes `Sun, 06-Nov-94 08:49:37 GMT`, as cookies have it; beyond 2037 with the whole year.
pub fn cookie(seconds: i64) -> String {
    let at = Civil::from_seconds(seconds);
    let weekday = WEEKDAYS.get(at.weekday as usize).unwrap_or(&"");
    let month = month_name(at.month);
    let year = if at.year > 2037 { at.year.to_string() } else { format!("{:02}", at.year.rem_euclid(100)) };
    format!("{weekday}, {:02}-{month}-{year} {:02}:{:02}:{:02} GMT", at.day, at.hour, at.minute, at.second)
}

/// Gives the short name of a month, counted from 1.
pub fn month_name(month: u32) -> &'static str {
    MONTHS.get((month as usize).wrapping_sub(1)).unwrap_or(&"")
}

/// Reads any of the three forms of RFC 9110 §5.6.7; `None` for anything else.
pub fn parse_http(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let words: Vec<&str> = text.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    match *words.as_slice() {
        [_, day, month, year, time, "GMT"] => seconds(year.parse().ok()?, month, day, time),
        // Sunday, 06-Nov-94 08:49:37 GMT
        [_, date, time, "GMT"] => {
            let mut parts = date.split('-');
            let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
            let short: i64 = year.parse().ok()?;
            seconds(if short < 70 { short + 2000 } else { short + 1900 }, month, day, time)
        }
        // Sun Nov  6 08:49:37 1994
        [_, month, day, time, year] => seconds(year.parse().ok()?, month, day, time),
        _ => None,
    }
}

fn seconds(year: i64, month: &str, day: &str, time: &str) -> Option<i64> {
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let mut parts = time.split(':').map(str::parse::<u32>);
    let (hour, minute, second) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    let day = day.parse().ok()?;
    let valid = (1970..=9999).contains(&year) && (1..=31).contains(&day);
    if !valid || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let civil = Civil { year, month: u32::try_from(month).ok()?, day, hour, minute, second, weekday: 0 };
    Some(civil.to_seconds())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_reads_dates() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_102_444_799, "Thu, 31 Dec 2099 23:59:59 GMT"),
        ] {
            assert_eq!(http(seconds), text);
            assert_eq!(parse_http(text.as_bytes()), Some(seconds));
        }
    }

    #[test]
    fn reads_the_old_forms_and_nothing_else() {
        assert_eq!(parse_http(b"Sunday, 06-Nov-94 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(parse_http(b"Sun Nov  6 08:49:37 1994"), Some(784_111_777));
        for text in ["", "now", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 1994 28:49:37 GMT"] {
            assert_eq!(parse_http(text.as_bytes()), None, "{text}");
        }
    }
}
