//! Several drills of one project side by side: what each proxy in the balancer's seat lost, case by case.
//!
//! Cases are matched by name. What differs between the runs besides the proxy (machine, seed) is said, since it could
//! account for a difference.

use std::collections::BTreeSet;

use keel_report::{
    bars::{Bar, Bars, Group, Scale},
    document::{Block, Cell, Column, Document, Headline, Kind, Level, Table, Tone},
    picture::{Ink, Picture},
    words,
};

use super::content;
use crate::results::{Case, Count, Results};

/// Writes the side-by-side.
pub(super) fn document(all: &[Results]) -> Document {
    let projects: BTreeSet<&str> = all.iter().map(|results| results.project.as_str()).collect();
    let projects: Vec<&str> = projects.into_iter().collect();
    let mut document = Document {
        title: format!("Drills of {} side by side", projects.join(", ")),
        subtitle: all.iter().map(|results| results.proxy.as_str()).collect::<Vec<_>>().join(" · "),
        verdict: verdict(all),
        blocks: Vec::new(),
    };
    document.heading(Level::Chapter, "What each lost, per case", "cases");
    document.blocks.push(Block::Table(per_case(all)));
    if let Some(picture) = draw(all) {
        document.blocks.push(Block::Picture { file: "compare".to_owned(), picture });
    }
    document.heading(Level::Chapter, "All cases together", "totals");
    document.blocks.push(Block::Table(totals(all)));
    document.heading(Level::Chapter, "Latency", "latency");
    document.paragraph(
        "99th percentile of the answered requests, in milliseconds. A request that was lost has none.",
    );
    document.blocks.push(Block::Table(latency(all)));
    add_runs(&mut document, all);
    if all.iter().any(|results| !results.files.is_empty()) {
        document.heading(Level::Chapter, "Files", "files");
    }
    let mut shown: Vec<&str> = Vec::new();
    for results in all {
        for (name, text) in &results.files {
            let is_folded =
                shown.contains(&text.as_str()) || !content::shown_files(results).contains(&name.as_str());
            let name = format!("{}: {name}", results.proxy);
            document.blocks.push(Block::Source { name, text: text.clone(), is_folded });
            shown.push(text);
        }
    }
    document
}

/// Names of all cases, in the order in which they come first.
fn case_names(all: &[Results]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for case in all.iter().flat_map(|results| &results.cases) {
        if !names.contains(&case.name.as_str()) {
            names.push(&case.name);
        }
    }
    names
}

fn find<'a>(results: &'a Results, name: &str) -> Option<&'a Case> {
    results.cases.iter().find(|case| case.name == name)
}

/// `14 lost, 3 doubled`; nothing where there is nothing.
fn wrongs(count: &Count) -> Vec<String> {
    let kinds = [(count.lost, "lost"), (count.doubled, "doubled"), (count.torn, "torn")];
    kinds
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, kind)| format!("{} {kind}", words::count(number)))
        .collect()
}

fn verdict(all: &[Results]) -> Headline {
    let detail = all.iter().map(|results| {
        let wrongs = wrongs(&content::total(results));
        let sent = words::counted(content::total(results).sent, "request", "requests");
        let what =
            if wrongs.is_empty() { "none lost, doubled or torn".to_owned() } else { wrongs.join(", ") };
        format!("{}: of {sent} {what}.", results.proxy)
    });
    Headline { tone: Tone::Plain, text: "What each proxy lost".to_owned(), detail: detail.collect() }
}

fn table_of_proxies(all: &[Results], kind: Kind) -> Table {
    let mut table = Table::new([("Case", Kind::Words)]);
    table.columns.extend(all.iter().map(|results| Column { title: results.proxy.clone(), kind }));
    table
}

fn per_case(all: &[Results]) -> Table {
    let mut table = table_of_proxies(all, Kind::Words);
    for name in case_names(all) {
        let mut row = vec![Cell::from(name)];
        row.extend(all.iter().map(|results| outcome(find(results, name))));
        table.rows.push(row);
    }
    table
}

/// What became of a case with one of the proxies.
fn outcome(case: Option<&Case>) -> Cell {
    let Some(case) = case else { return Cell::toned("–", Tone::Muted) };
    let wrongs = wrongs(&case.count);
    if case.skipped.is_some() {
        return content::result_cell(case);
    }
    if wrongs.is_empty() && !case.findings.is_empty() {
        let findings = words::counted(case.findings.len() as u64, "finding", "findings");
        return Cell::toned(format!("none lost, {findings}"), Tone::Wrong);
    }
    if !wrongs.is_empty() {
        let of = words::count(case.count.sent);
        return Cell::toned(format!("{} of {of}", wrongs.join(", ")), Tone::Wrong);
    }
    match case.count.allowed {
        0 => Cell::toned("clean", Tone::Good),
        allowed => Cell::toned(format!("clean, {} failed as allowed", words::count(allowed)), Tone::Good),
    }
}

fn totals(all: &[Results]) -> Table {
    let mut table = Table::new([
        ("Proxy", Kind::Words),
        ("Sent", Kind::Number),
        ("Answered", Kind::Number),
        ("Allowed", Kind::Number),
        ("Lost", Kind::Number),
        ("Doubled", Kind::Number),
        ("Torn", Kind::Number),
        ("What that bounds", Kind::Words),
    ]);
    for results in all {
        let total = content::total(results);
        let mut row = vec![Cell::from(results.proxy.as_str())];
        row.extend(content::count_cells(&total));
        row.push(words::bound(total.lost, total.sent, "lost").into());
        table.rows.push(row);
    }
    table
}

fn latency(all: &[Results]) -> Table {
    let mut table = table_of_proxies(all, Kind::Number);
    for name in case_names(all) {
        let mut row = vec![Cell::from(name)];
        row.extend(all.iter().map(|results| match find(results, name) {
            Some(case) if case.skipped.is_none() && case.count.answered > 0 => {
                words::figures(case.latency.p99).into()
            }
            _ => Cell::toned("–", Tone::Muted),
        }));
        table.rows.push(row);
    }
    table
}

fn add_runs(document: &mut Document, all: &[Results]) {
    document.heading(Level::Chapter, "Runs", "runs");
    document.blocks.push(Block::List(sameness(all)));
    let mut table = Table::new([
        ("Proxy", Kind::Words),
        ("Began", Kind::Words),
        ("Took", Kind::Words),
        ("Seed", Kind::Number),
        ("Machine", Kind::Words),
    ]);
    for results in all {
        let cores = words::counted(u64::from(results.machine.cores), "processor", "processors");
        table.rows.push(vec![
            results.proxy.as_str().into(),
            content::when(results).into(),
            words::seconds(results.took.0).into(),
            results.seed.to_string().into(),
            format!("{cores} ({}), {}", results.machine.processor, results.machine.kernel).into(),
        ]);
    }
    document.blocks.push(Block::Table(table));
}

/// What was alike in all runs and what wasn't.
fn sameness(all: &[Results]) -> Vec<String> {
    let machines: BTreeSet<_> =
        all.iter().map(|results| (&results.machine.processor, results.machine.cores)).collect();
    let seeds: BTreeSet<_> = all.iter().map(|results| results.seed).collect();
    let differs = |name: &&str| {
        let mut loads =
            all.iter().filter_map(|results| find(results, name)).filter(|case| case.skipped.is_none());
        let load = |case: &Case| {
            let load = &case.load;
            (
                load.rate.map(f64::to_bits),
                load.connections,
                load.requests_per_connection,
                load.posts.to_bits(),
            )
        };
        let first = loads.next().map(load);
        loads.any(|case| Some(load(case)) != first)
    };
    let other_loads: Vec<&str> = case_names(all).into_iter().filter(differs).collect();
    vec![
        match machines.len() {
            0 | 1 => "All ran on the same machine.".to_owned(),
            _ => "The machines differ: latencies can't be compared.".to_owned(),
        },
        match seeds.len() {
            0 | 1 => "All had the same seed: faults came in the same order.".to_owned(),
            _ => "The seeds differ: faults came in a different order.".to_owned(),
        },
        match other_loads.as_slice() {
            [] => "A case that was played with several had the same load with each.".to_owned(),
            some => format!("The load differs in {}.", some.join(", ")),
        },
    ]
}

/// Draws the share of requests that went wrong, for the cases in which any did.
fn draw(all: &[Results]) -> Option<Picture> {
    let has_wrong = |name: &&str| {
        all.iter().filter_map(|results| find(results, name)).any(|case| !wrongs(&case.count).is_empty())
    };
    let groups: Vec<Group> = case_names(all)
        .into_iter()
        .filter(has_wrong)
        .map(|name| Group {
            title: name.to_owned(),
            note: String::new(),
            bars: all.iter().map(|results| bar(results, name)).collect(),
        })
        .collect();
    if groups.is_empty() {
        return None;
    }
    let bars = Bars {
        title: "Requests lost, doubled or torn, as a share of those sent".to_owned(),
        label: "Requests lost, doubled or torn, per case and proxy".to_owned(),
        groups,
        columns: 1,
        name_width: 270.0,
        number_width: 210.0,
        scale: Scale::Common,
        stroke_means: "",
    };
    Some(bars.draw())
}

/// What one proxy did wrong in a case.
fn bar(results: &Results, name: &str) -> Bar {
    let proxy = results.proxy.as_str();
    let nothing =
        |text: &str, ink| Bar { ink: Ink::Grid, number_ink: ink, ..Bar::new(proxy, 0.0, text.to_owned()) };
    let Some(case) = find(results, name).filter(|case| case.skipped.is_none()) else {
        return nothing("not played", Ink::Muted);
    };
    let Count { lost, doubled, torn, sent, .. } = case.count;
    let wrong = lost.saturating_add(doubled).saturating_add(torn);
    if wrong == 0 {
        return nothing("none", Ink::Text);
    }
    let share = words::share(wrong, sent);
    let number = format!("{} ({})", words::percent(share), wrongs(&case.count).join(", "));
    Bar { ink: Ink::Wrong, number_ink: Ink::Wrong, ..Bar::new(proxy, share, number) }
}
