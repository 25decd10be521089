//! `expires`: `Expires` and `Cache-Control`.

use keel_http::{Name, date};
use keel_model::Expires as Setting;

use super::{Filter, Settings, is_plain_status};
use crate::{
    answer::{Answer, Special},
    error::CompileError,
    job::Job,
};

/// 31 December 2037 23:55:55, and ten years in seconds: what nginx means by `max`.
const MAX_AT: i64 = 2_145_916_555;
const MAX_AGE_S: i64 = 315_360_000;

struct Expires {
    setting: Setting,
}

pub(super) fn compile(settings: &Settings<'_>) -> Result<Option<Box<dyn Filter>>, CompileError> {
    Ok(match &settings.scope.headers.expires {
        Setting::Off => None,
        setting => Some(Box::new(Expires { setting: setting.clone() })),
    })
}

impl Filter for Expires {
    fn header(&self, job: &Job<'_>, answer: &mut Answer) -> Result<(), Special> {
        if !is_plain_status(answer.status) {
            return Ok(());
        }
        let setting = match &self.setting {
            Setting::Variable(template) => match parse(&job.lookup_with(answer).text(template)) {
                Some(setting) => setting,
                None => return Ok(()),
            },
            setting => setting.clone(),
        };
        let now = i64::try_from(job.worker.clock.unix().as_secs()).unwrap_or(0);
        let Some(lifetime) = Lifetime::of(&setting, now, answer.modified(job.ex)) else { return Ok(()) };
        let fields = &mut answer.fields;
        fields.dropped = fields.dropped.with(Name::Expires).with(Name::CacheControl);
        fields.added.field("Expires", date::http(lifetime.ends_at).as_bytes());
        match lifetime.age_s {
            Some(age_s) => fields.added.field("Cache-Control", format!("max-age={age_s}").as_bytes()),
            None => fields.added.fixed("Cache-Control: no-cache\r\n"),
        }
        Ok(())
    }
}

/// How long an answer may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lifetime {
    /// The moment in Unix seconds.
    ends_at: i64,
    /// The same from now; `None` where it isn't to be kept.
    age_s: Option<i64>,
}

impl Lifetime {
    fn of(setting: &Setting, now: i64, modified: Option<i64>) -> Option<Self> {
        let ages = |ends_at: i64, age_s: i64, is_negative: bool| Self {
            ends_at,
            age_s: Some(age_s).filter(|age_s| *age_s >= 0 && !is_negative),
        };
        let from_now = |seconds: i64| ages(now.saturating_add(seconds), seconds, seconds < 0);
        Some(match setting {
            Setting::Off | Setting::Variable(_) => return None,
            Setting::Epoch => Self { ends_at: 1, age_s: None },
            Setting::Max => Self { ends_at: MAX_AT, age_s: Some(MAX_AGE_S) },
            Setting::Access(seconds) => from_now(*seconds),
            // As in nginx: no time at all is from now, and so is what has no date.
            Setting::Modified(0) => from_now(0),
            Setting::Modified(seconds) => match modified {
                Some(modified) => {
                    let ends_at = modified.saturating_add(*seconds);
                    ages(ends_at, ends_at.saturating_sub(now), *seconds < 0)
                }
                None => from_now(*seconds),
            },
            Setting::Daily(seconds) => {
                let midnight = now - now.rem_euclid(86_400);
                let today = midnight + i64::from(*seconds);
                let ends_at = if today > now { today } else { today + 86_400 };
                ages(ends_at, ends_at - now, false)
            }
        })
    }
}

/// Reads what a variable of `expires` gives: `epoch`, `max`, `off`, `[modified] TIME` or `@TIME`.
fn parse(text: &[u8]) -> Option<Setting> {
    let text = std::str::from_utf8(text).ok()?.trim();
    match text {
        "epoch" => return Some(Setting::Epoch),
        "max" => return Some(Setting::Max),
        "off" | "" => return None,
        _ => {}
    }
    if let Some(daily) = text.strip_prefix('@') {
        return Some(Setting::Daily(u32::try_from(parse_time(daily)?).ok().filter(|time| *time < 86_400)?));
    }
    let (modified, time) = match text.strip_prefix("modified") {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text),
    };
    let (sign, time) = match time.strip_prefix(['-', '+']) {
        Some(rest) => (if time.starts_with('-') { -1 } else { 1 }, rest),
        None => (1, time),
    };
    let seconds = sign * parse_time(time)?;
    Some(if modified { Setting::Modified(seconds) } else { Setting::Access(seconds) })
}

/// Reads nginx's times with units: `1h30m`, `24h`, `90`.
fn parse_time(text: &str) -> Option<i64> {
    let (mut total, mut number, mut any) = (0i64, None::<i64>, false);
    for letter in text.chars() {
        if let Some(digit) = letter.to_digit(10) {
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit.into())?);
            continue;
        }
        let unit = match letter {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            'M' => 2_592_000,
            'y' => 31_536_000,
            ' ' if number.is_none() => continue,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
        any = true;
    }
    match number {
        Some(number) => total.checked_add(number),
        None => any.then_some(total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times() {
        assert_eq!(parse_time("1h30m"), Some(5400));
        assert_eq!(parse_time("90"), Some(90));
        assert_eq!(parse_time("x"), None);
        assert_eq!(parse(b"-1"), Some(Setting::Access(-1)));
        assert_eq!(parse(b"modified +24h"), Some(Setting::Modified(86_400)));
        assert_eq!(parse(b"@15h30m"), Some(Setting::Daily(55_800)));
        assert_eq!(parse(b"off"), None);
    }

    #[test]
    fn works_out_lifetimes() {
        let check = |setting: Setting, modified: Option<i64>, ends_at: i64, age_s: Option<i64>| {
            assert_eq!(
                Lifetime::of(&setting, 1_000_000, modified),
                Some(Lifetime { ends_at, age_s }),
                "{setting:?} {modified:?}"
            );
        };
        check(Setting::Access(60), None, 1_000_060, Some(60));
        check(Setting::Access(-60), None, 999_940, None);
        check(Setting::Modified(60), Some(999_990), 1_000_050, Some(50));
        check(Setting::Modified(60), Some(900_000), 900_060, None);
        check(Setting::Modified(-5), Some(2_000_000), 1_999_995, None);
        check(Setting::Modified(60), None, 1_000_060, Some(60));
        check(Setting::Modified(0), Some(5), 1_000_000, Some(0));
        check(Setting::Epoch, None, 1, None);
        assert_eq!(Lifetime::of(&Setting::Off, 0, None), None);
    }
}
