//! The chart of requests that each instance received, step by step.
//!
//! Each step has its own scale: a case may send 12 requests first and 20,000 after. What an instance should have received
//! is a stroke across its bar, so that a bar that is off shows even where the numbers aren't read.

use std::collections::BTreeSet;

use keel_report::{
    font::{Face, OTHER_FONT},
    picture::{Anchor, Area, Ink, Pen, Picture, Style, at},
    words,
};

use crate::results::{Case, Step};

const WIDTH: f64 = 760.0;
const MARGIN: f64 = 16.0;
const NAME_WIDTH: f64 = 130.0;
const NUMBER_WIDTH: f64 = 190.0;
const ROW: f64 = 22.0;
const BAR: f64 = 14.0;
const STEP_HEAD: f64 = 26.0;
const STEP_GAP: f64 = 10.0;

/// Draws a case's shares; none where no step says who received what.
pub(super) fn draw(case: &Case) -> Option<Picture> {
    if case.steps.iter().all(|step| instances(step).is_empty()) {
        return None;
    }
    let mut picture = Picture::new(WIDTH, format!("Requests per instance in the case {}", case.name));
    let mut y = MARGIN;
    picture.text(
        at(MARGIN, y + 12.0),
        format!("{}: requests per instance", case.name),
        Style::new(14.0, Ink::Text).bold(),
    );
    y += 26.0;
    for step in case.steps.iter().filter(|step| !instances(step).is_empty()) {
        y = draw_step(&mut picture, step, y, Judgement::of(case));
    }
    if case.steps.iter().any(|step| step.expected.is_some()) {
        picture.line(vec![at(MARGIN + 1.0, y), at(MARGIN + 1.0, y + 12.0)], Pen::new(Ink::Text, 2.0));
        picture.text(
            at(MARGIN + 9.0, y + 10.0),
            "what the instance should have received",
            Style::new(11.0, Ink::Muted),
        );
        y += 16.0;
    }
    picture.height = y + MARGIN - STEP_GAP / 2.0;
    Some(picture)
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

fn draw_step(picture: &mut Picture, step: &Step, top: f64, judgement: Judgement) -> f64 {
    let total: u64 = step.received.values().sum();
    let mut y = top;
    let requests = words::counted(total, "request", "requests");
    let head = Style::new(12.0, Ink::Text).bold();
    let room = (WIDTH - 2.0 * MARGIN) / OTHER_FONT - Face::Regular.width(&requests, 12.0) - 16.0;
    picture.text(at(MARGIN, y + 12.0), Face::Bold.fit(&step.condition, 12.0, room), head);
    picture.text(at(WIDTH - MARGIN, y + 12.0), requests, Style::new(12.0, Ink::Muted).anchored(Anchor::End));
    y += STEP_HEAD - 6.0;
    picture.line(vec![at(MARGIN, y), at(WIDTH - MARGIN, y)], Pen::new(Ink::Grid, 1.0));
    y += 6.0;

    let names = instances(step);
    let expected = |name: &str| step.expected.as_ref().and_then(|expected| expected.get(name)).copied();
    let received = |name: &str| step.received.get(name).copied().unwrap_or_default();
    let longest = names.iter().map(|name| received(name).max(expected(name).unwrap_or_default())).max();
    let bar_left = MARGIN + NAME_WIDTH;
    let bar_room = WIDTH - MARGIN - NUMBER_WIDTH - bar_left;
    for name in names {
        let (got, wanted) = (received(name), expected(name));
        let is_wrong = missed(step, name).is_some() && judgement == Judgement::HasFindings;
        let ink = if is_wrong { Ink::Wrong } else { Ink::Data };
        let middle = y + ROW / 2.0;
        picture.text(
            at(bar_left - 10.0, middle + 4.0),
            Face::Regular.fit(name, 12.0, (NAME_WIDTH - 12.0) / OTHER_FONT),
            Style::new(12.0, Ink::Text).anchored(Anchor::End),
        );
        let length = |number: u64| words::share(number, longest.unwrap_or_default()) * bar_room;
        let bar = Area { x: bar_left, y: middle - BAR / 2.0, width: length(got).max(1.0), height: BAR };
        picture.rectangle(bar, 2.0, Some(ink), None);
        if let Some(wanted) = wanted {
            let x = bar_left + length(wanted);
            picture.line(
                vec![at(x, middle - BAR / 2.0 - 3.0), at(x, middle + BAR / 2.0 + 3.0)],
                Pen::new(Ink::Text, 2.0),
            );
        }
        let mut numbers = format!("{} · {}", words::count(got), share_text(got, total));
        if let Some(wanted) = missed(step, name) {
            numbers = format!("{}, should be {}", words::count(got), words::count(wanted));
        }
        let ink = if is_wrong { Ink::Wrong } else { Ink::Text };
        let end = bar_left + length(got).max(length(wanted.unwrap_or_default()));
        picture.text(
            at(end + 9.0, middle + 4.0),
            Face::Regular.fit(&numbers, 12.0, (WIDTH - MARGIN - end - 9.0) / OTHER_FONT),
            Style::new(12.0, ink),
        );
        y += ROW;
    }
    y + STEP_GAP
}

fn share_text(part: u64, whole: u64) -> String {
    format!("{:.1} %", words::share(part, whole) * 100.0)
}
