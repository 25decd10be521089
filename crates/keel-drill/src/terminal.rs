//! The table that grows on the terminal while a drill runs.

use crate::results::{Case, Results};

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
        count.doubled,
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
        text.push_str(&format!("    {}: {}{seen}\n", step.condition, shares.join(", ")));
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

/// The last line.
pub fn summary(results: &Results) -> String {
    let played = results.cases.iter().filter(|case| case.skipped.is_none());
    let (mut cases, mut sent, mut lost, mut wrong) = (0_u64, 0, 0, 0_u64);
    for case in played {
        cases += 1;
        sent += case.count.sent;
        lost += case.count.lost + case.count.doubled + case.count.torn;
        wrong += u64::from(!case.findings.is_empty());
    }
    let verdict = match wrong {
        0 => format!(
            "nothing lost, doubled or torn; at most {:.3} % would be, with 95 % confidence",
            300.0 / (sent.max(1) as f64)
        ),
        _ => format!("{wrong} of them found something wrong; {lost} requests lost, doubled or torn"),
    };
    let Results { proxy, took, seed, .. } = results;
    format!("{proxy}: {cases} cases, {sent} requests in {:.0} s, seed {seed}: {verdict}\n", took.0)
}
