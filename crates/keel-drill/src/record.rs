//! What the load generator notes of one request: the client's side of the comparison.

use std::{collections::BTreeMap, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A moment on the machine's monotonic clock, in microseconds: the same in every process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// The moment that is now.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Monotonic);
        let part = |number: i64| u64::try_from(number).unwrap_or(0);
        Self(part(time.tv_sec) * 1_000_000 + part(time.tv_nsec) / 1000)
    }

    /// How long it is since an earlier moment; zero if that came later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// A later moment.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)))
    }

    /// An earlier moment.
    #[must_use]
    pub fn before(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// Which request: the step that it belongs to, and its number there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Id {
    /// The step.
    pub step: u32,
    /// Its number in the step, from 0.
    pub number: u32,
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "d{}-{}", self.step, self.number)
    }
}

impl std::str::FromStr for Id {
    type Err = ();

    /// Reads what [`Id`] prints.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (step, number) = text.strip_prefix('d').and_then(|rest| rest.split_once('-')).ok_or(())?;
        Ok(Self { step: step.parse().map_err(|_| ())?, number: number.parse().map_err(|_| ())? })
    }
}

/// One request, from its intended start to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which one.
    pub id: Id,
    /// Whether it was a POST, which must not be repeated; else it was a GET.
    pub is_post: bool,
    /// When it was to be sent.
    pub intended: Moment,
    /// When the generator got round to it, and asked for a connection.
    pub begun: Moment,
    /// When a connection was free for it.
    pub free: Moment,
    /// When its first byte was written: after the connection was made, where it is a new one.
    pub sent: Moment,
    /// When it was over: the last byte, or the failure.
    pub ended: Moment,
    /// Whether its connection had been used before.
    pub is_reused: bool,
    /// Length and checksum of its body, as instances note them.
    pub body_sum: String,
    /// Which instance says it has answered.
    pub instance: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a request, as the client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// A complete response.
    Answered {
        /// Its status.
        status: u16,
        /// What its body was.
        body: Body,
    },
    /// No complete response.
    Broken(Break),
}

/// How a complete body compares with what the instance announced of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// It is what was announced.
    Whole,
    /// Complete to the client, yet not what was announced.
    Torn,
    /// Nothing was announced.
    Unannounced,
    /// It answers another request.
    Foreign,
}

/// Where a response broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Break {
    /// No connection could be made.
    Connect,
    /// The connection ended before the first byte of a response.
    BeforeHead,
    /// The connection ended within the head or the body.
    Within,
    /// No end came within the client's patience.
    TimedOut,
    /// What came is no HTTP.
    Malformed,
}

impl Record {
    /// The time from its intended start to its end.
    pub fn latency(&self) -> Duration {
        self.ended.since(self.intended)
    }

    /// How much later it was begun than intended: the generator's own fault. What connections take is the system's.
    pub fn lag(&self) -> Duration {
        self.begun.since(self.intended)
    }

    /// How long it waited for one of the connections to be free.
    pub fn queued(&self) -> Duration {
        self.free.since(self.begun)
    }

    /// Whether it was under way at some time between two moments.
    pub fn overlaps(&self, from: Moment, to: Moment) -> bool {
        self.sent <= to && self.ended >= from
    }
}

impl Outcome {
    /// Whether it is a response of success, whatever its body.
    pub fn is_success(self) -> bool {
        matches!(self, Outcome::Answered { status: 200..=299, .. })
    }

    /// Says it in a few words: `502`, `cut off within the response`.
    pub fn words(self) -> String {
        match self {
            Outcome::Answered { status, .. } => status.to_string(),
            Outcome::Broken(Break::Connect) => "no connection".to_owned(),
            Outcome::Broken(Break::BeforeHead) => "closed without a response".to_owned(),
            Outcome::Broken(Break::Within) => "cut off within the response".to_owned(),
            Outcome::Broken(Break::TimedOut) => "no end in time".to_owned(),
            Outcome::Broken(Break::Malformed) => "not HTTP".to_owned(),
        }
    }
}

/// What must be true of one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepShare {
    /// Its number.
    pub step: u32,
    /// In words: `app2 stopped`.
    pub condition: String,
    /// What each instance should receive.
    pub expected: Option<BTreeMap<String, u64>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_printed() {
        let id = Id { step: 3, number: 1207 };
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "d3", "3-4", "d3-x", "d-4", "d3-4-5"] {
            assert_eq!(text.parse::<Id>(), Err(()), "{text}");
        }
    }
}
