//! What the report of one drill says.

use keel_report::{
    document::{Block, Cell, Column, Document, Headline, Kind, Level, Link, Table, Tone},
    words,
};

use super::{architecture, shares, timeline};
use crate::results::{Case, Count, Finding, Results, Source, Step};

/// More instances than this and their numbers share one column.
const INSTANCE_COLUMNS_MAX: usize = 8;

/// A case with the names of its charts and of its heading, which differ for each case.
pub(super) struct Named<'a> {
    pub(super) case: &'a Case,
    pub(super) slug: String,
}

/// Gives each case a name for files and anchors that no other has.
pub(super) fn name_cases(results: &Results) -> Vec<Named<'_>> {
    let mut named: Vec<Named<'_>> = Vec::new();
    for case in &results.cases {
        let base = words::slug(&case.name);
        let mut slug = base.clone();
        let mut number = 2_u32;
        while named.iter().any(|other| other.slug == slug) {
            slug = format!("{base}-{number}");
            number += 1;
        }
        named.push(Named { case, slug });
    }
    named
}

impl Named<'_> {
    /// The anchor of the case's heading.
    pub(super) fn anchor(&self) -> String {
        format!("case-{}", self.slug)
    }

    fn link(&self) -> Link {
        Link { text: self.case.name.clone(), anchor: self.anchor() }
    }
}

/// Writes the report of a drill.
pub(super) fn document(results: &Results) -> Document {
    let cases = name_cases(results);
    let mut document = Document {
        title: format!("Drill of {}", results.project),
        subtitle: format!("{} · {} · seed {}", results.proxy, when(results), results.seed),
        verdict: verdict(results),
        blocks: Vec::new(),
    };
    add_findings(&mut document, &cases);
    add_summary(&mut document, results, &cases);
    add_set_up(&mut document, results);
    document.heading(Level::Chapter, "Cases", "cases");
    for case in &cases {
        add_case(&mut document, case);
    }
    add_method(&mut document, results);
    add_files(&mut document, results);
    document
}

/// Date and time without the letters of RFC 3339.
pub(super) fn when(results: &Results) -> String {
    let text = results.started_at.replacen('T', " ", 1);
    match text.strip_suffix('Z') {
        Some(text) => format!("{} UTC", text.split('.').next().unwrap_or(text)),
        None => text,
    }
}

/// Counts of all cases that were played; POSTs only of those in which it is seen where they arrived.
pub(super) fn total(results: &Results) -> Count {
    let mut total = Count::default();
    for case in results.played() {
        let count = case.count;
        total.sent = total.sent.saturating_add(count.sent);
        total.sent_posts = total.sent_posts.saturating_add(case.doubled().map_or(0, |_| count.sent_posts));
        total.answered = total.answered.saturating_add(count.answered);
        total.allowed = total.allowed.saturating_add(count.allowed);
        total.lost = total.lost.saturating_add(count.lost);
        total.doubled = total.doubled.saturating_add(count.doubled);
        total.torn = total.torn.saturating_add(count.torn);
        total.repeated = total.repeated.saturating_add(count.repeated);
    }
    total
}

fn verdict(results: &Results) -> Headline {
    let total = total(results);
    let played = results.played().count();
    let blind = results.played().filter(|case| case.source == Source::None).count();
    let findings: usize = results.cases.iter().map(|case| case.findings.len()).sum();
    let with_findings = results.cases.iter().filter(|case| !case.findings.is_empty()).count();
    let skipped = results.cases.len() - played;
    let mut detail = Vec::new();
    let (tone, text) = if played == 0 {
        (Tone::Wrong, "No case was played: nothing is shown".to_owned())
    } else if findings > 0 {
        let text = format!(
            "{} in {} of {}",
            words::counted(findings as u64, "finding", "findings"),
            words::count(with_findings as u64),
            words::counted(played as u64, "case", "cases")
        );
        detail.push(format!(
            "Of {}: {} lost, {} doubled, {} torn.",
            words::counted(total.sent, "request", "requests"),
            words::count(total.lost),
            words::count(total.doubled),
            words::count(total.torn)
        ));
        (Tone::Wrong, text)
    } else {
        let what = if blind == 0 {
            "lost, doubled or torn, and every share was as it should be"
        } else {
            "lost or torn"
        };
        detail.push(format!(
            "Of {} requests in {} none was {what}.",
            words::count(total.sent),
            words::counted(played as u64, "case", "cases")
        ));
        match results.ended_early {
            None => (Tone::Good, "Clean".to_owned()),
            Some(_) => (Tone::Wrong, "Ended before all cases were played".to_owned()),
        }
    };
    if let Some(why) = &results.ended_early {
        detail.push(format!("It ended early, in {why}."));
    }
    if blind > 0 {
        let cases = words::counted(blind as u64, "case", "cases");
        detail.push(format!("Received twice, and shares, could not be counted in {cases}."));
    }
    if played > 0 {
        detail.push(words::bound(total.lost, total.sent, "lost"));
    }
    if skipped > 0 {
        detail.push(format!("{} skipped.", words::counted(skipped as u64, "case was", "cases were")));
    }
    Headline { tone, text, detail }
}

fn add_findings(document: &mut Document, cases: &[Named<'_>]) {
    if cases.iter().all(|named| named.case.findings.is_empty()) {
        return;
    }
    document.heading(Level::Chapter, "Findings", "findings");
    for named in cases {
        for finding in &named.case.findings {
            document.blocks.push(finding_block(finding, Some(named.link())));
        }
    }
}

fn finding_block(finding: &Finding, case: Option<Link>) -> Block {
    let what = if case.is_some() { finding.what.clone() } else { words::capital(&finding.what) };
    Block::Finding { case, what, ids: finding.ids.clone() }
}

fn add_summary(document: &mut Document, results: &Results, cases: &[Named<'_>]) {
    document.heading(Level::Chapter, "Summary", "summary");
    let mut table = Table::new([
        ("Case", Kind::Words),
        ("Sent", Kind::Number),
        ("Answered", Kind::Number),
        ("Allowed", Kind::Number),
        ("Lost", Kind::Number),
        ("Doubled", Kind::Number),
        ("Torn", Kind::Number),
        ("p99, ms", Kind::Number),
        ("Result", Kind::Words),
    ]);
    for named in cases {
        let mut row = vec![Cell::link(&named.case.name, named.anchor())];
        if named.case.skipped.is_some() {
            row.extend((0..7).map(|_| Cell::toned("–", Tone::Muted)));
        } else {
            let mut cells = count_cells(&named.case.count);
            if named.case.source == Source::None
                && let Some(doubled) = cells.get_mut(DOUBLED_COLUMN)
            {
                *doubled = Cell::toned("not counted", Tone::Muted);
            }
            row.extend(cells);
            row.push(words::figures(named.case.latency.p99).into());
        }
        row.push(result_cell(named.case));
        table.rows.push(row);
    }
    if cases.len() > 1 {
        let mut row = vec![Cell::from("All")];
        row.extend(count_cells(&total(results)));
        row.extend([Cell::from(""), Cell::from("")]);
        table.rows.push(row);
    }
    document.blocks.push(Block::Table(table));
    document.blocks.push(Block::Paragraph {
        tone: Tone::Muted,
        text: "Allowed: failed in a way that the case declares beforehand. Lost: failed in any other way. Doubled: \
               received more than once though that isn't safe. Torn: complete to the client, yet shorter than what was \
               meant. p99: 99 of 100 answered requests took no longer."
            .to_owned(),
    });

    document.heading(Level::Section, "What the trials bound", "bounds");
    let total = total(results);
    let mut bounds =
        vec![words::bound(total.lost, total.sent, "lost"), words::bound(total.torn, total.sent, "torn")];
    if results.played().any(|case| case.doubled().is_some()) {
        bounds.push(words::bound(total.doubled, total.sent_posts, "POSTs received twice"));
    }
    document.blocks.push(Block::List(bounds));
    document.paragraph(
        "0 of N lost means that at most 3/N are lost with 95 % confidence: the rule of three. It takes requests for \
         independent trials and holds for these cases, this load and this machine; it isn't a promise about others.",
    );
    let limited: Vec<&str> = cases
        .iter()
        .filter(|named| !named.case.load.limits.is_empty())
        .map(|named| named.case.name.as_str())
        .collect();
    if !limited.is_empty() {
        document.paragraph(format!(
            "Not all could be sent or seen as intended in {}; the cases say what.",
            limited.join(", ")
        ));
    }
    add_all_shares(document, cases);
}

/// Which of [`count_cells`] says what was received twice.
const DOUBLED_COLUMN: usize = 4;

/// The counts, in the order of the summary's columns.
pub(super) fn count_cells(count: &Count) -> Vec<Cell> {
    let wrong =
        |number: u64| Cell::toned(words::count(number), if number > 0 { Tone::Wrong } else { Tone::Plain });
    vec![
        words::count(count.sent).into(),
        words::count(count.answered).into(),
        words::count(count.allowed).into(),
        wrong(count.lost),
        wrong(count.doubled),
        wrong(count.torn),
    ]
}

/// `clean`, `2 findings`, `skipped`.
pub(super) fn result_cell(case: &Case) -> Cell {
    if case.skipped.is_some() {
        return Cell::toned("skipped", Tone::Muted);
    }
    match case.findings.len() as u64 {
        0 => Cell::toned("clean", Tone::Good),
        findings => Cell::toned(words::counted(findings, "finding", "findings"), Tone::Wrong),
    }
}

/// Case, condition, requests per instance, observation: every step in one table.
fn add_all_shares(document: &mut Document, cases: &[Named<'_>]) {
    let mut table = Table::new([
        ("Case", Kind::Words),
        ("Condition", Kind::Words),
        ("Requests per instance", Kind::Words),
        ("Observation", Kind::Words),
    ]);
    for named in cases.iter().filter(|named| named.case.skipped.is_none()) {
        for (index, step) in named.case.steps.iter().enumerate() {
            let case = if index == 0 { Cell::link(&named.case.name, named.anchor()) } else { "".into() };
            let shares = Cell::toned(shares_text(step), share_tone(named.case, step));
            table.rows.push(vec![
                case,
                step.condition.as_str().into(),
                shares,
                step.observation.as_str().into(),
            ]);
        }
    }
    if !table.rows.is_empty() {
        document.heading(Level::Section, "Requests per instance", "shares");
        document.blocks.push(Block::Table(table));
    }
}

fn share_tone(case: &Case, step: &Step) -> Tone {
    let is_off = shares::instances(step).iter().any(|name| shares::missed(step, name).is_some());
    if is_off && !case.findings.is_empty() { Tone::Wrong } else { Tone::Plain }
}

/// `app1 4, app2 4, app3 4`; what differs from what should have been says so.
fn shares_text(step: &Step) -> String {
    let shares: Vec<_> = shares::instances(step)
        .into_iter()
        // A name and its number stay on one line.
        .map(|name| format!("{name}\u{a0}{}", share_text(step, name)))
        .collect();
    shares.join(", ")
}

fn share_text(step: &Step, instance: &str) -> String {
    let received = step.received.get(instance).copied().unwrap_or_default();
    match shares::missed(step, instance) {
        Some(expected) => format!("{} (not {})", words::count(received), words::count(expected)),
        None => words::count(received),
    }
}

fn add_set_up(document: &mut Document, results: &Results) {
    document.heading(Level::Chapter, "Set-up", "set-up");
    let machine = &results.machine;
    let cores = words::counted(u64::from(machine.cores), "processor", "processors");
    document.blocks.push(Block::Facts(vec![
        ("Project".to_owned(), results.project.clone()),
        ("In the balancer's seat".to_owned(), results.proxy.clone()),
        ("Instances run as".to_owned(), results.driver.clone()),
        (
            "Machine".to_owned(),
            format!("{cores} ({}), {}, {}", machine.processor, words::memory(machine.memory), machine.kernel),
        ),
        ("Began".to_owned(), when(results)),
        ("Took".to_owned(), words::seconds(results.took.0)),
        ("Seed".to_owned(), format!("{} (--seed plays the same order of events again)", results.seed)),
    ]));
    if let Some(picture) = architecture::draw(&results.system, &results.proxy) {
        document.blocks.push(Block::Picture { file: "architecture".to_owned(), picture });
    }
    let mut table = Table::new([
        ("Service", Kind::Words),
        ("Instance", Kind::Words),
        ("Address", Kind::Code),
        ("Networks", Kind::Words),
    ]);
    for instance in &results.system.instances {
        table.rows.push(vec![
            instance.service.as_str().into(),
            instance.name.as_str().into(),
            instance.address.as_str().into(),
            instance.networks.join(", ").into(),
        ]);
    }
    if !table.rows.is_empty() {
        document.blocks.push(Block::Table(table));
    }
}

fn add_case(document: &mut Document, named: &Named<'_>) {
    let case = named.case;
    document.heading(Level::Section, &case.name, &named.anchor());
    document.paragraph(words::sentence(&case.what));
    if let Some(reason) = &case.skipped {
        document.blocks.push(Block::Paragraph { tone: Tone::Muted, text: format!("Skipped: {reason}") });
        return;
    }
    if case.findings.is_empty() {
        let allowed = words::counted(case.count.allowed, "request", "requests");
        let what = match case.doubled() {
            Some(_) => "nothing lost, doubled or torn",
            None => "nothing lost or torn; received twice not counted",
        };
        let text = if case.count.allowed > 0 {
            format!("Clean: {what}; {allowed} failed as the case allows.")
        } else {
            format!("Clean: {what}.")
        };
        document.blocks.push(Block::Paragraph { tone: Tone::Good, text });
    }
    for finding in &case.findings {
        document.blocks.push(finding_block(finding, None));
    }
    add_steps(document, case);
    document.blocks.push(Block::Facts(facts(case)));
    if let Some(picture) = shares::draw(case) {
        document.blocks.push(Block::Picture { file: format!("shares-{}", named.slug), picture });
    }
    if let Some(picture) = timeline::draw(case) {
        document.blocks.push(Block::Picture { file: format!("timeline-{}", named.slug), picture });
    }
}

fn add_steps(document: &mut Document, case: &Case) {
    let mut names: Vec<&str> = case.steps.iter().flat_map(shares::instances).collect();
    names.sort_by_key(|name| words::natural_order(name));
    names.dedup();
    let is_wide = names.len() <= INSTANCE_COLUMNS_MAX;
    let mut table = Table::new([("Condition", Kind::Words)]);
    if is_wide {
        let columns = names.iter().map(|name| Column { title: (*name).to_owned(), kind: Kind::Number });
        table.columns.extend(columns);
    } else {
        table.columns.push(Column { title: "Requests per instance".to_owned(), kind: Kind::Words });
    }
    table.columns.push(Column { title: "Observation".to_owned(), kind: Kind::Words });
    for step in &case.steps {
        let mut row = vec![Cell::from(step.condition.as_str())];
        let tone = share_tone(case, step);
        if is_wide {
            row.extend(names.iter().map(|name| {
                let is_off = shares::missed(step, name).is_some();
                Cell::toned(share_text(step, name), if is_off { tone } else { Tone::Plain })
            }));
        } else {
            row.push(Cell::toned(shares_text(step), tone));
        }
        row.push(step.observation.as_str().into());
        table.rows.push(row);
    }
    if !table.rows.is_empty() {
        document.blocks.push(Block::Table(table));
    }
}

fn facts(case: &Case) -> Vec<(String, String)> {
    let (count, latency) = (&case.count, &case.latency);
    let mut requests = format!(
        "{} sent, {} answered, {} lost, {}, {} torn",
        words::count(count.sent),
        words::count(count.answered),
        words::count(count.lost),
        case.doubled()
            .map_or("doubled not counted".to_owned(), |count| format!("{} doubled", words::count(count))),
        words::count(count.torn)
    );
    if count.repeated > 0 {
        let repeated = words::counted(count.repeated, "safe repetition", "safe repetitions");
        requests = format!("{requests}; {repeated} of idempotent requests");
    }
    let mut facts = vec![("Requests".to_owned(), requests)];
    if !case.allowed.is_empty() {
        let allowed = format!("{} ({} were)", case.allowed.join("; "), words::count(count.allowed));
        facts.push(("May fail as".to_owned(), allowed));
    }
    facts.push(("Lost".to_owned(), words::bound(count.lost, count.sent, "lost")));
    if count.sent_posts > 0 && case.doubled().is_some() {
        facts.push((
            "Doubled".to_owned(),
            words::bound(count.doubled, count.sent_posts, "POSTs received twice"),
        ));
    }
    facts.push((
        "Latency".to_owned(),
        format!(
            "median {} ms, p99 {} ms, p99.9 {} ms, longest {} ms",
            words::figures(latency.p50),
            words::figures(latency.p99),
            words::figures(latency.p999),
            words::figures(latency.max)
        ),
    ));
    facts.push(("Load".to_owned(), load_text(case)));
    if !case.load.limits.is_empty() {
        facts.push(("Limits".to_owned(), case.load.limits.join("; ")));
    }
    facts.push(("Took".to_owned(), words::seconds(case.took.0)));
    facts
}

fn load_text(case: &Case) -> String {
    let load = &case.load;
    let mut parts = Vec::new();
    match load.rate {
        Some(rate) => parts.push(format!("{} requests each second intended", words::figures(rate))),
        None => parts.push("as fast as answers came".to_owned()),
    }
    parts.push(words::counted(u64::from(load.connections), "connection", "connections"));
    match load.requests_per_connection {
        Some(1) => parts.push("a new one for each request".to_owned()),
        Some(requests) => parts.push(format!("{} requests on each", words::count(u64::from(requests)))),
        None => parts.push("kept as long as they last".to_owned()),
    }
    if load.posts > 0.0 {
        parts.push(format!("{} POSTs", words::percent(load.posts)));
    }
    if load.late > 0 {
        parts.push(format!("{} sent later than intended", words::count(load.late)));
    }
    parts.join(", ")
}

fn add_method(document: &mut Document, results: &Results) {
    document.heading(Level::Chapter, "How it was measured", "method");
    document.blocks.push(Block::List(vec![
        "The system ran beside whatever else ran, on addresses and ports of its own, with the configuration below.".to_owned(),
        "Every request carried an id. The client, a process of its own, wrote down what it sent and what came back."
            .to_owned(),
        "The demo app and the drill's own peers append an id to a file when a request arrives, before handling it, and \
         again when it is answered, each by one write(2), so that even a SIGKILL hides nothing. Of any other program \
         there is what its output shows of a request's URL; where there isn't even that, the case says so."
            .to_owned(),
        "Sent, answered, lost, doubled and torn are counted by comparing both sides, request by request. The balancer was \
         not asked."
            .to_owned(),
        "Where a rate is given, requests were sent at their intended times whether or not earlier ones were answered, and \
         latency counts from the intended time to the last byte: a stall is counted for every request that it delayed."
            .to_owned(),
        "Requests per instance count what an instance received for the first time; repetitions are counted apart."
            .to_owned(),
        format!(
            "Faults came in an order drawn from the seed {}. Percentiles over time are those of each slice, not averages.",
            results.seed
        ),
    ]));
}

fn add_files(document: &mut Document, results: &Results) {
    if results.files.is_empty() {
        return;
    }
    document.heading(Level::Chapter, "Files", "files");
    let shown = shown_files(results);
    if shown.len() < results.files.len() {
        document.paragraph(
            "Each case has its own copy of the configuration, with its own addresses. Here are the project's files and \
             those of the first case; report.html and results.json have all.",
        );
    }
    for (name, text) in &results.files {
        let is_folded = !shown.contains(&name.as_str());
        document.blocks.push(Block::Source { name: name.clone(), text: text.clone(), is_folded });
    }
}

/// Names of the files to show at once: the project's, and those made for the first case that has any.
pub(super) fn shown_files(results: &Results) -> Vec<&str> {
    let of_case =
        |case: &Case, name: &str| name.strip_prefix(&case.name).is_some_and(|rest| rest.starts_with('/'));
    let names = || results.files.keys().map(String::as_str);
    let first = results.cases.iter().find(|case| names().any(|name| of_case(case, name)));
    names()
        .filter(|name| {
            let is_first = first.is_some_and(|case| of_case(case, name));
            is_first || !results.cases.iter().any(|case| of_case(case, name))
        })
        .collect()
}
