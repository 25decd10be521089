//! The chart of requests that each instance received, step by step.
//!
//! Each step has its own scale: a case may send 12 requests first and 20,000 after. What an instance should have received
//! is a stroke across its bar, so that a bar that is off shows even where the numbers aren't read.

use std::collections::BTreeSet;

use keel_report::{
    bars::{Bar, Bars, Group, Scale},
    picture::{Ink, Picture},
    words,
};

use crate::results::{Case, Step};

/// Draws a case's shares; none where no step says who received what.
pub(super) fn draw(case: &Case) -> Option<Picture> {
    let judgement = Judgement::of(case);
    let steps = case.steps.iter().filter(|step| !instances(step).is_empty());
    let groups: Vec<Group> = steps.map(|step| group(step, judgement)).collect();
    if groups.is_empty() {
        return None;
    }
    let bars = Bars {
        title: format!("{}: requests per instance", case.name),
        label: format!("Requests per instance in the case {}", case.name),
        groups,
        columns: 1,
        name_width: 130.0,
        number_width: 190.0,
        scale: Scale::PerGroup,
        stroke_means: "what the instance should have received",
    };
    Some(bars.draw())
}

/// Whether a share that differs from what was expected is what the drill complains of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    Clean,
    HasFindings,
}

impl Judgement {
    pub(super) fn of(case: &Case) -> Self {
        if case.findings.is_empty() { Judgement::Clean } else { Judgement::HasFindings }
    }
}

/// Names of a step's instances, those that should have received something and didn't among them.
pub(super) fn instances(step: &Step) -> Vec<&str> {
    let expected = step.expected.iter().flat_map(|expected| expected.keys());
    let names: BTreeSet<&str> = step.received.keys().chain(expected).map(String::as_str).collect();
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort_by_key(|name| words::natural_order(name));
    names
}

/// What an instance should have received, if that isn't what it did.
pub(super) fn missed(step: &Step, instance: &str) -> Option<u64> {
    let expected = step.expected.as_ref()?.get(instance).copied().unwrap_or_default();
    let received = step.received.get(instance).copied().unwrap_or_default();
    (expected != received).then_some(expected)
}

fn group(step: &Step, judgement: Judgement) -> Group {
    let total: u64 = step.received.values().sum();
    let bars = instances(step).into_iter().map(|name| {
        let received = step.received.get(name).copied().unwrap_or_default();
        let missed = missed(step, name);
        let number = match missed {
            Some(expected) => format!("{}, should be {}", words::count(received), words::count(expected)),
            None => format!("{} · {}", words::count(received), share_text(received, total)),
        };
        let expected = step.expected.as_ref().and_then(|expected| expected.get(name));
        let mut bar = Bar::new(name, received as f64, number);
        bar.stroke = expected.map(|expected| *expected as f64);
        if missed.is_some() && judgement == Judgement::HasFindings {
            (bar.ink, bar.number_ink) = (Ink::Wrong, Ink::Wrong);
        }
        bar
    });
    Group {
        title: step.condition.clone(),
        note: words::counted(total, "request", "requests"),
        bars: bars.collect(),
    }
}

fn share_text(part: u64, whole: u64) -> String {
    format!("{:.1} %", words::share(part, whole) * 100.0)
}
