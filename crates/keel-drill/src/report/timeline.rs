//! The chart of a case over time: rate, failures and the 99th percentile, with what was done to the system.
//!
//! Events are numbered strokes through all three parts, named below, so that any number of them stays readable. The
//! percentile is drawn on a logarithmic scale where it spans more than a factor of 30: a fail-over of a second would
//! else flatten everything around it.

use keel_report::{
    axis::{Axis, tick_label},
    font::{Face, OTHER_FONT},
    picture::{Anchor, Area, Ink, Mark, Pen, Picture, Point, Style, at},
    words,
};

use crate::results::{Case, Event, Seconds, Slice};

const WIDTH: f64 = 760.0;
const MARGIN: f64 = 16.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = WIDTH - 20.0;
const TITLE: f64 = 20.0;
const RATE_HEIGHT: f64 = 96.0;
const ERRORS_HEIGHT: f64 = 44.0;
const P99_HEIGHT: f64 = 96.0;
const GAP: f64 = 14.0;
const BADGE: f64 = 8.0;
const BADGE_ROWS_MAX: usize = 4;
const EVENT_ROW: f64 = 17.5;
/// Where an event's name begins within its column.
const EVENT_NAME: f64 = 124.0;
/// More lines of events than this help nobody.
const EVENT_LINES_MAX: usize = 60;
const LOGARITHMIC_FROM: f64 = 30.0;

/// Draws a case over time; none where it has no slices.
pub(super) fn draw(case: &Case) -> Option<Picture> {
    let slices = &case.timeline;
    let end = slices.iter().map(|slice| slice.from.0 + slice.length.0).fold(0.0, f64::max);
    if slices.is_empty() || end <= 0.0 {
        return None;
    }
    let mut picture =
        Picture::new(WIDTH, format!("Rate, errors and latency over time in the case {}", case.name));
    let heading = Style::new(14.0, Ink::Text).bold();
    picture.text(at(MARGIN, MARGIN + 12.0), format!("{}: over time", case.name), heading);

    let time = Axis::linear(end, LEFT, RIGHT);
    let badges = place_badges(&case.events, &time);
    let rows = badges.iter().map(|badge| badge.row + 1).max().unwrap_or_default();
    let badges_top = MARGIN + 24.0 + TITLE;
    let top = badges_top + row_height(rows);

    // The first title stands above the numbers of events, and their strokes leave out the other two.
    let rate = draw_rate(&mut picture, case, &time, Part { title: MARGIN + 24.0, top });
    let title = rate + GAP;
    let errors = draw_errors(&mut picture, case, &time, Part { title, top: title + TITLE });
    let title = errors.unwrap_or(title + TITLE - 4.0) + GAP;
    let p99 = draw_p99(&mut picture, slices, &time, Part { title, top: title + TITLE });
    let mut plots = vec![(badges_top, rate)];
    plots.extend(errors.map(|bottom| (rate + GAP + TITLE, bottom)));
    plots.extend(p99.map(|bottom| (title + TITLE, bottom)));
    for badge in &badges {
        let centre = at(badge.x, badges_top + row_height(badge.row) + BADGE);
        let begin = if badge.is_numbered { centre.y } else { top };
        for (from, to) in &plots {
            picture.line(vec![at(badge.x, from.max(begin)), at(badge.x, *to)], Pen::dashed(Ink::Notice, 1.0));
        }
    }
    for badge in badges.iter().filter(|badge| badge.is_numbered) {
        draw_badge(&mut picture, at(badge.x, badges_top + row_height(badge.row) + BADGE), badge.number);
    }
    let y = p99.unwrap_or(title + TITLE - 4.0);
    let y = draw_time(&mut picture, &time, y);
    let y = draw_events(&mut picture, &case.events, y);
    picture.height = y + MARGIN - 4.0;
    Some(picture)
}

fn row_height(rows: usize) -> f64 {
    rows as f64 * (2.0 * BADGE + 2.0)
}

/// Where a part's title and its plot begin.
#[derive(Clone, Copy)]
struct Part {
    title: f64,
    top: f64,
}

/// Where an event's number stands. Of events of one name in a row the first and the last have theirs shown, as the legend
/// has it.
struct Badge {
    number: usize,
    is_numbered: bool,
    x: f64,
    row: usize,
}

/// Numbers beside each other where there is room, else below each other.
fn place_badges(events: &[Event], time: &Axis) -> Vec<Badge> {
    let mut ends = [f64::NEG_INFINITY; BADGE_ROWS_MAX];
    let mut badges = Vec::new();
    let runs = runs(events);
    for (index, event) in events.iter().enumerate() {
        let (x, number) = (time.place(event.at.0), index + 1);
        if !runs.iter().any(|run| run.first == number || run.last == number) {
            badges.push(Badge { number, is_numbered: false, x, row: 0 });
            continue;
        }
        let row = ends.iter().position(|end| *end < x - BADGE).unwrap_or(BADGE_ROWS_MAX - 1);
        if let Some(end) = ends.get_mut(row) {
            *end = x + BADGE + 2.0;
        }
        badges.push(Badge { number, is_numbered: true, x, row });
    }
    badges
}

fn draw_badge(picture: &mut Picture, centre: Point, number: usize) {
    picture.marks.push(Mark::Dot { centre, radius: BADGE, fill: Ink::Notice });
    picture.text(
        at(centre.x, centre.y + 3.5),
        number.to_string(),
        Style::new(10.0, Ink::Surface).bold().anchored(Anchor::Middle),
    );
}

fn draw_title(picture: &mut Picture, title: &str, y: f64) {
    picture.text(at(LEFT, y + 12.0), title, Style::new(11.5, Ink::Text).bold());
}

/// Lines and numbers at the marks of a part's own axis.
fn draw_grid(picture: &mut Picture, axis: &Axis, wanted: u32) {
    for tick in axis.ticks(wanted) {
        let y = axis.place(tick);
        picture.line(vec![at(LEFT, y), at(RIGHT, y)], Pen::new(Ink::Grid, 1.0));
        let style = Style::new(10.5, Ink::Muted).anchored(Anchor::End);
        picture.text(at(LEFT - 6.0, y + 3.5), tick_label(tick), style);
    }
}

fn draw_rate(picture: &mut Picture, case: &Case, time: &Axis, part: Part) -> f64 {
    draw_title(picture, "Requests ended, each second", part.title);
    let (from, to) = (part.top + RATE_HEIGHT, part.top);
    let highest = case.timeline.iter().map(|slice| slice.rate).fold(0.0, f64::max);
    let highest = highest.max(case.load.rate.unwrap_or_default());
    let axis = Axis::linear(highest * 1.05, from, to);
    draw_grid(picture, &axis, 4);

    let mut outline = Vec::new();
    for slice in &case.timeline {
        let y = axis.place(slice.rate);
        outline.push(at(time.place(slice.from.0), y));
        outline.push(at(time.place(slice.from.0 + slice.length.0), y));
    }
    let mut area = outline.clone();
    if let (Some(first), Some(last)) = (outline.first(), outline.last()) {
        area.extend([at(last.x, from), at(first.x, from)]);
    }
    picture.marks.push(Mark::Shape { points: area, fill: Ink::DataSoft });
    picture.line(outline, Pen::new(Ink::Data, 1.5));
    if let Some(rate) = case.load.rate.filter(|rate| rate.is_finite()) {
        let y = axis.place(rate);
        picture.line(vec![at(LEFT, y), at(RIGHT, y)], Pen::dashed(Ink::Muted, 1.0));
        let label = format!("dashed: intended, {} each second", words::figures(rate));
        let style = Style::new(10.5, Ink::Muted).anchored(Anchor::End);
        picture.text(at(RIGHT, part.title + 12.0), label, style);
    }
    from
}

/// Draws failures and gives the foot of the plot; without any there is none.
fn draw_errors(picture: &mut Picture, case: &Case, time: &Axis, part: Part) -> Option<f64> {
    let most = case.timeline.iter().map(|slice| slice.errors).max().unwrap_or_default();
    if most == 0 {
        draw_title(picture, "Failed requests: none", part.title);
        return None;
    }
    let (title, ink) = if case.count.lost > 0 {
        ("Failed requests", Ink::Wrong)
    } else {
        ("Failed requests, all as the case allows", Ink::Notice)
    };
    draw_title(picture, title, part.title);
    let (from, to) = (part.top + ERRORS_HEIGHT, part.top);
    let axis = Axis::linear(most as f64, from, to);
    draw_grid(picture, &axis, if most == 1 { 1 } else { 2 });
    for slice in case.timeline.iter().filter(|slice| slice.errors > 0) {
        let x = time.place(slice.from.0);
        let width = (time.place(slice.from.0 + slice.length.0) - x - 1.0).max(2.0);
        let y = axis.place(slice.errors as f64).min(from - 2.0);
        picture.rectangle(Area { x, y, width, height: from - y }, 0.0, Some(ink), None);
    }
    Some(from)
}

/// Draws the percentile and gives the foot of the plot; without an answer there is none.
fn draw_p99(picture: &mut Picture, slices: &[Slice], time: &Axis, part: Part) -> Option<f64> {
    let known = || slices.iter().filter_map(|slice| slice.p99).filter(|p99| p99.is_finite() && *p99 >= 0.0);
    let (low, high) = known().fold((f64::MAX, 0.0_f64), |(low, high), p99| (low.min(p99), high.max(p99)));
    let (from, to) = (part.top + P99_HEIGHT, part.top);
    if high <= 0.0 {
        draw_title(picture, "99th percentile of latency: nothing was answered", part.title);
        return None;
    }
    let axis = if high / low.max(0.01) > LOGARITHMIC_FROM {
        draw_title(picture, "99th percentile of latency, ms (logarithmic)", part.title);
        let bottom = 10_f64.powf(low.max(0.01).log10().floor());
        Axis::logarithmic(bottom, high * 1.3, from, to)
    } else {
        draw_title(picture, "99th percentile of latency, ms", part.title);
        Axis::linear(high * 1.1, from, to)
    };
    draw_grid(picture, &axis, 4);

    let mut run = Vec::new();
    for slice in slices {
        let Some(p99) = slice.p99 else {
            draw_run(picture, std::mem::take(&mut run));
            continue;
        };
        run.push(at(time.place(slice.from.0 + slice.length.0 / 2.0), axis.place(p99)));
    }
    draw_run(picture, run);
    Some(from)
}

/// A line through values without a gap; a single value is a dot.
fn draw_run(picture: &mut Picture, run: Vec<Point>) {
    match *run.as_slice() {
        [] => {}
        [centre] => picture.marks.push(Mark::Dot { centre, radius: 2.0, fill: Ink::Data }),
        _ => picture.line(run, Pen::new(Ink::Data, 1.5)),
    }
}

fn draw_time(picture: &mut Picture, time: &Axis, top: f64) -> f64 {
    picture.line(vec![at(LEFT, top), at(RIGHT, top)], Pen::new(Ink::Muted, 1.0));
    let ticks = time.ticks(8);
    let last = ticks.last().copied().unwrap_or_default();
    for tick in ticks {
        let x = time.place(tick);
        picture.line(vec![at(x, top), at(x, top + 4.0)], Pen::new(Ink::Muted, 1.0));
        let label = if tick >= last { format!("{} s", tick_label(tick)) } else { tick_label(tick) };
        picture.text(at(x, top + 16.0), label, Style::new(10.5, Ink::Muted).anchored(Anchor::Middle));
    }
    top + 22.0
}

/// Events of one name in a row, by the numbers of the first and the last.
struct Run<'a> {
    first: usize,
    last: usize,
    from: Seconds,
    to: Seconds,
    what: &'a str,
}

impl Run<'_> {
    fn when(&self) -> String {
        if self.first == self.last {
            return words::seconds(self.from.0);
        }
        let from = words::seconds(self.from.0);
        format!("{}–{}", from.trim_end_matches(" s"), words::seconds(self.to.0))
    }
}

/// Puts events of one name in a row together.
fn runs(events: &[Event]) -> Vec<Run<'_>> {
    let mut runs: Vec<Run<'_>> = Vec::new();
    for (index, event) in events.iter().enumerate() {
        let number = index + 1;
        match runs.last_mut() {
            Some(run) if run.what == event.what => (run.last, run.to) = (number, event.at),
            _ => runs.push(Run {
                first: number,
                last: number,
                from: event.at,
                to: event.at,
                what: &event.what,
            }),
        }
    }
    runs
}

/// Numbers, times and names of the events, in two columns where there are many.
fn draw_events(picture: &mut Picture, events: &[Event], top: f64) -> f64 {
    let mut runs = runs(events);
    if runs.is_empty() {
        return top;
    }
    let left = runs.len().saturating_sub(EVENT_LINES_MAX);
    runs.truncate(EVENT_LINES_MAX);
    let column = (WIDTH - 2.0 * MARGIN) / 2.0 - EVENT_NAME - 10.0;
    let all_fit = runs.iter().all(|run| Face::Regular.width(run.what, 11.0) <= column / OTHER_FONT);
    let columns = if runs.len() > 10 || (runs.len() > 3 && all_fit) { 2 } else { 1 };
    let rows = runs.len().div_ceil(columns);
    for (index, run) in runs.iter().enumerate() {
        let (column, row) = (index / rows, index % rows);
        let width = (WIDTH - 2.0 * MARGIN) / columns as f64;
        let x = MARGIN + column as f64 * width;
        let y = top + 8.0 + row as f64 * EVENT_ROW;
        draw_badge(picture, at(x + BADGE, y + BADGE), run.first);
        if run.last > run.first {
            picture.text(at(x + 2.0 * BADGE + 2.5, y + 11.5), "–", Style::new(10.0, Ink::Muted));
            draw_badge(picture, at(x + 3.0 * BADGE + 11.0, y + BADGE), run.last);
        }
        let when = Style::new(11.0, Ink::Muted).anchored(Anchor::End);
        picture.text(at(x + EVENT_NAME - 8.0, y + 12.0), run.when(), when);
        let what = Face::Regular.fit(run.what, 11.0, (width - EVENT_NAME - 10.0) / OTHER_FONT);
        picture.text(at(x + EVENT_NAME, y + 12.0), what, Style::new(11.0, Ink::Text));
    }
    let mut bottom = top + 10.0 + rows as f64 * EVENT_ROW;
    if left > 0 {
        let more = format!("and {left} more, in results.json");
        picture.text(at(MARGIN, bottom + 10.0), more, Style::new(11.0, Ink::Muted));
        bottom += EVENT_ROW;
    }
    bottom
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: f64, what: &str) -> Event {
        Event { at: Seconds(at), what: what.to_owned() }
    }

    #[test]
    fn events_of_one_name_share_a_line() {
        let events =
            [event(0.1, "stop app1"), event(0.2, "reload"), event(0.3, "reload"), event(0.9, "stop app1")];
        let runs = runs(&events);
        let told: Vec<_> = runs.iter().map(|run| (run.first, run.last, run.when(), run.what)).collect();
        assert_eq!(
            told,
            [
                (1, 1, "0.10 s".to_owned(), "stop app1"),
                (2, 3, "0.20–0.30 s".to_owned(), "reload"),
                (4, 4, "0.90 s".to_owned(), "stop app1"),
            ]
        );
    }

    #[test]
    fn of_events_of_one_name_two_numbers_are_shown() {
        let events: Vec<Event> =
            (0..20).map(|number| event(0.3 + f64::from(number) / 1000.0, "reload")).collect();
        let badges = place_badges(&events, &Axis::linear(2.0, LEFT, RIGHT));
        let shown: Vec<_> =
            badges.iter().filter(|one| one.is_numbered).map(|one| (one.number, one.row)).collect();
        assert_eq!((badges.len(), shown), (20, vec![(1, 0), (20, 1)]));
    }

    #[test]
    fn any_number_of_events_fits() {
        let events =
            (0..1_000).map(|number| event(f64::from(number) / 100.0, &format!("event {number}"))).collect();
        let slice = Slice { length: Seconds(10.0), rate: 1.0, p99: Some(1.0), ..Slice::default() };
        let picture = draw(&Case { events, timeline: vec![slice], ..Case::default() }).expect("a chart");
        assert!(picture.height < 1_000.0, "{}", picture.height);
        let says = |text: &str| {
            picture.marks.iter().any(|mark| matches!(mark, Mark::Text { text: it, .. } if it == text))
        };
        assert!(says("event 59") && !says("event 60") && says("and 940 more, in results.json"));
    }
}
