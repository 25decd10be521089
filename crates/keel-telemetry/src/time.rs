//! The time as logs write it, worked out once a second.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::{Timestamp, tz::TimeZone};

/// The time of a log line. Keeps the texts of the second asked for last, so each thread has one of its own.
#[derive(Clone, Debug)]
pub struct TimeText {
    zone: TimeZone,
    second: Option<i64>,
    local: String,
    iso8601: String,
    error_log: String,
    syslog: String,
}

impl TimeText {
    /// Makes one for the system's time zone.
    pub fn new() -> Self {
        Self::in_zone(TimeZone::system())
    }

    fn in_zone(zone: TimeZone) -> Self {
        Self {
            zone,
            second: None,
            local: String::new(),
            iso8601: String::new(),
            error_log: String::new(),
            syslog: String::new(),
        }
    }

    /// `$time_local`: `28/Sep/1970:12:00:00 +0600`.
    pub fn local(&mut self, now: SystemTime) -> &str {
        self.update(now);
        &self.local
    }

    /// `$time_iso8601`: `1970-09-28T12:00:00+06:00`.
    pub fn iso8601(&mut self, now: SystemTime) -> &str {
        self.update(now);
        &self.iso8601
    }

    /// The time of an error log's line: `1970/09/28 12:00:00`.
    pub fn error_log(&mut self, now: SystemTime) -> &str {
        self.update(now);
        &self.error_log
    }

    /// The time of a syslog message (RFC 3164 §4.1.2): `Sep 28 12:00:00`.
    pub fn syslog(&mut self, now: SystemTime) -> &str {
        self.update(now);
        &self.syslog
    }

    fn update(&mut self, now: SystemTime) {
        let second = match now.duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
        };
        if self.second == Some(second) {
            return;
        }
        self.second = Some(second);
        let time = Timestamp::from_second(second).unwrap_or_default().to_zoned(self.zone.clone());
        self.local = time.strftime("%d/%b/%Y:%H:%M:%S %z").to_string();
        self.iso8601 = time.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        self.error_log = time.strftime("%Y/%m/%d %H:%M:%S").to_string();
        self.syslog = time.strftime("%b %e %H:%M:%S").to_string();
    }
}

impl Default for TimeText {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::tz::Offset;

    use super::*;

    #[test]
    fn writes_the_time_as_nginx() {
        let check = |offset, expect: [&str; 3]| {
            let mut text = TimeText::in_zone(TimeZone::fixed(Offset::constant(offset)));
            for millis in [0, 999] {
                let now = UNIX_EPOCH + Duration::from_millis(23_371_200_000 + millis);
                assert_eq!(
                    [
                        text.local(now).to_owned(),
                        text.iso8601(now).to_owned(),
                        text.error_log(now).to_owned()
                    ],
                    expect
                );
            }
        };
        check(6, ["28/Sep/1970:18:00:00 +0600", "1970-09-28T18:00:00+06:00", "1970/09/28 18:00:00"]);
        check(0, ["28/Sep/1970:12:00:00 +0000", "1970-09-28T12:00:00+00:00", "1970/09/28 12:00:00"]);
        check(-3, ["28/Sep/1970:09:00:00 -0300", "1970-09-28T09:00:00-03:00", "1970/09/28 09:00:00"]);
    }

    #[test]
    fn follows_the_time() {
        let mut text = TimeText::in_zone(TimeZone::UTC);
        assert_eq!(text.error_log(UNIX_EPOCH), "1970/01/01 00:00:00");
        assert_eq!(text.error_log(UNIX_EPOCH + Duration::from_secs(61)), "1970/01/01 00:01:01");
        assert_eq!(text.syslog(UNIX_EPOCH), "Jan  1 00:00:00");
    }
}
