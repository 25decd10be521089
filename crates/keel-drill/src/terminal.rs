//! The table that grows on the terminal while a drill runs.

use crate::results::{Case, Results, Source};

/// The table's head.
pub fn head() -> String {
    format!(
        "{:<20} {:>8} {:>8} {:>7} {:>5} {:>7} {:>5} {:>8} {:>8} {:>6}\n",
        "CASE", "SENT", "ANSWERED", "ALLOWED", "LOST", "DOUBLED", "TORN", "P50 ms", "P99 ms", "TOOK"
    )
}

/// A case's row, and below it each step's shares and what is wrong.
pub fn row(case: &Case) -> String {
    let Case { name, count, latency, .. } = case;
    if let Some(why) = &case.skipped {
        return format!("{name:<20} not played: {why}\n");
    }
    let mut text = format!(
        "{name:<20} {:>8} {:>8} {:>7} {:>5} {:>7} {:>5} {:>8.1} {:>8.1} {:>4.1} s\n",
        count.sent,
        count.answered,
        count.allowed,
        count.lost,
        case.doubled().map_or("?".to_owned(), |doubled| doubled.to_string()),
        count.torn,
        latency.p50,
        latency.p99,
        case.took.0
    );
    for step in &case.steps {
        let shares: Vec<String> =
            step.received.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let seen =
            if step.observation.is_empty() { String::new() } else { format!(" ({})", step.observation) };
        let colon = if shares.is_empty() { "" } else { ": " };
        text.push_str(&format!("    {}{colon}{}{seen}\n", step.condition, shares.join(", ")));
    }
    if case.source == Source::None {
        text.push_str("    not counted: received twice, and shares\n");
    }
    for limit in &case.load.limits {
        text.push_str(&format!("    note: {limit}\n"));
    }
    for finding in &case.findings {
        text.push_str(&format!("    WRONG: {}\n", finding.what));
        if !finding.ids.is_empty() {
            text.push_str(&format!("        {}\n", finding.ids.join(" ")));
        }
    }
    text
}

/// The last lines.
pub fn summary(results: &Results) -> String {
    let (mut cases, mut sent, mut lost, mut wrong, mut blind) = (0_u64, 0, 0, 0_u64, 0_u64);
    for case in results.played() {
        cases += 1;
        sent += case.count.sent;
        lost += case.count.lost + case.count.doubled + case.count.torn;
        wrong += u64::from(!case.findings.is_empty());
        blind += u64::from(case.source == Source::None);
    }
    let verdict = match (cases, wrong) {
        (0, _) => "nothing was played, so nothing is shown".to_owned(),
        (_, 0) => {
            let what = if blind > 0 {
                format!("nothing lost or torn; received twice not counted in {blind} of them")
            } else {
                "nothing lost, doubled or torn".to_owned()
            };
            format!("{what}; at most {:.3} % would be, with 95 % confidence", 300.0 / (sent.max(1) as f64))
        }
        _ => format!("{wrong} of them found something wrong; {lost} requests lost, doubled or torn"),
    };
    let Results { proxy, took, seed, .. } = results;
    let early =
        results.ended_early.as_ref().map(|why| format!("ended early, in {why}\n")).unwrap_or_default();
    format!("{early}{proxy}: {cases} cases, {sent} requests in {:.0} s, seed {seed}: {verdict}\n", took.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Count, Seconds};

    fn case(source: Source) -> Case {
        let count = Count { sent: 300, answered: 300, ..Count::default() };
        Case { name: "even".to_owned(), source, count, took: Seconds(1.0), ..Case::default() }
    }

    /// Says what the last line's verdict is, and whether that is clean.
    #[track_caller]
    fn check(cases: Vec<Case>, ended_early: Option<&str>, expect: (&str, bool)) {
        let ended_early = ended_early.map(str::to_owned);
        let results = Results { cases, ended_early, ..Results::default() };
        let said = summary(&results);
        assert_eq!((said.contains(expect.0), results.is_clean()), (true, expect.1), "{said}");
    }

    #[test]
    fn nothing_is_claimed_that_was_not_seen() {
        let skipped = || Case { skipped: Some("no".to_owned()), ..Case::default() };
        check(
            vec![case(Source::File), skipped()],
            None,
            ("nothing lost, doubled or torn; at most 1.000 %", true),
        );
        check(
            vec![case(Source::None)],
            None,
            ("nothing lost or torn; received twice not counted in 1", true),
        );
        check(vec![skipped()], None, ("nothing was played", false));
        check(vec![case(Source::File)], Some("even: ended"), ("ended early, in even: ended\n", false));
        assert!(row(&case(Source::None)).contains("not counted: received twice, and shares"));
        assert!(!row(&case(Source::Output)).contains("not counted"));
    }
}
