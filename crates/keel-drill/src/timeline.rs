//! Latency and what happened over time, from the client's records.

use std::time::Duration;

use crate::{
    record::{Moment, Outcome, Record},
    results::{Latency, Seconds, Slice},
};

/// Slices of a case's time line, at most.
const SLICES_MAX: u32 = 120;
/// The shortest slice.
const SLICE_MIN: Duration = Duration::from_millis(50);

/// Percentiles of all requests that were answered.
pub(crate) fn latency(records: &[Record]) -> Latency {
    let answered = records.iter().filter(|record| matches!(record.outcome, Outcome::Answered { .. }));
    let mut times: Vec<f64> = answered.map(milliseconds).collect();
    times.sort_by(f64::total_cmp);
    Latency {
        p50: percentile(&times, 0.5).unwrap_or(0.0),
        p99: percentile(&times, 0.99).unwrap_or(0.0),
        p999: percentile(&times, 0.999).unwrap_or(0.0),
        max: times.last().copied().unwrap_or(0.0),
    }
}

/// Cuts the time from the first request to the end of the last into slices.
pub(crate) fn slices(records: &[Record], start: Moment) -> Vec<Slice> {
    let end = records.iter().map(|record| record.ended).max().unwrap_or(start);
    let length = (end.since(start) / SLICES_MAX).max(SLICE_MIN);
    let count = usize::try_from(end.since(start).as_micros() / length.as_micros().max(1)).unwrap_or(0) + 1;
    let mut ended: Vec<Vec<&Record>> = vec![Vec::new(); count];
    for record in records {
        let at = record.ended.since(start).as_micros() / length.as_micros().max(1);
        if let Some(slice) = usize::try_from(at).ok().and_then(|at| ended.get_mut(at)) {
            slice.push(record);
        }
    }
    (0_u32..)
        .zip(ended)
        .map(|(number, records)| {
            let mut times: Vec<f64> = records.iter().copied().map(milliseconds).collect();
            times.sort_by(f64::total_cmp);
            Slice {
                from: Seconds::from(length * number),
                length: Seconds::from(length),
                rate: records.len() as f64 / length.as_secs_f64(),
                errors: records.iter().filter(|record| !record.outcome.is_success()).count() as u64,
                p99: percentile(&times, 0.99),
            }
        })
        .collect()
}

fn milliseconds(record: &Record) -> f64 {
    record.latency().as_secs_f64() * 1000.0
}

/// The value that a share of a sorted list doesn't exceed (nearest rank).
fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Body, Break, Id};

    fn record(intended_ms: u64, ended_ms: u64, outcome: Outcome) -> Record {
        Record {
            id: Id::default(),
            is_post: false,
            intended: Moment(intended_ms * 1000),
            begun: Moment(intended_ms * 1000),
            free: Moment(intended_ms * 1000),
            sent: Moment(intended_ms * 1000),
            ended: Moment(ended_ms * 1000),
            is_reused: false,
            body_sum: String::new(),
            instance: None,
            outcome,
        }
    }

    #[test]
    fn latency_counts_from_the_intended_start() {
        let ok = Outcome::Answered { status: 200, body: Body::Whole };
        let records: Vec<Record> = (1..=100).map(|ms| record(10, 10 + ms, ok)).collect();
        let found = latency(&records);
        assert_eq!([found.p50, found.p99, found.p999, found.max], [50.0, 99.0, 100.0, 100.0]);
        assert_eq!(latency(&[record(0, 9, Outcome::Broken(Break::Connect))]).max, 0.0);
    }

    #[test]
    fn slices_hold_what_ended_in_them() {
        let ok = Outcome::Answered { status: 200, body: Body::Whole };
        let records = [record(0, 10, ok), record(0, 49, Outcome::Broken(Break::Within)), record(90, 120, ok)];
        let found = slices(&records, Moment(0));
        let shown: Vec<_> = found.iter().map(|slice| (slice.rate, slice.errors, slice.p99)).collect();
        assert_eq!(shown, [(40.0, 1, Some(49.0)), (0.0, 0, None), (20.0, 0, Some(30.0))]);
    }
}
