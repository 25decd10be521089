//! Numbers and sentences as every form of the report has them.

/// A whole number with its thousands marked: `12,345`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and its noun: `1 case`, `12 cases`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A number with as many decimals as make three figures: `0.84`, `12.3`, `1,204`.
pub fn figures(number: f64) -> String {
    if !number.is_finite() {
        return "–".to_owned();
    }
    if number.abs() >= 99.95 {
        let sign = if number < 0.0 { "-" } else { "" };
        return format!("{sign}{}", count(number.abs().round() as u64));
    }
    if number.abs() >= 9.995 { format!("{number:.1}") } else { format!("{number:.2}") }
}

/// A length of time: `0.42 s`, `12.3 s`, `2 min 5 s`.
pub fn seconds(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 99.95 {
        return format!("{} s", figures(seconds));
    }
    let whole = seconds.round();
    format!("{} min {} s", figures_whole((whole / 60.0).floor()), figures_whole(whole % 60.0))
}

fn figures_whole(number: f64) -> String {
    format!("{number:.0}")
}

/// Bytes of memory, in GiB.
pub fn memory(bytes: u64) -> String {
    let gibibytes = bytes as f64 / f64::from(1 << 30);
    format!("{} GiB", figures(gibibytes))
}

/// A share of one as per cent with two figures that count: `25 %`, `0.73 %`, `0.00073 %`.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if !percent.is_finite() {
        return "–".to_owned();
    }
    if percent == 0.0 {
        return "0 %".to_owned();
    }
    if percent >= 9.95 {
        return format!("{percent:.0} %");
    }
    // Two figures after the leading zeros: at most six zeros, which a trillion trials would need.
    let mut decimals = 1;
    while decimals < 8 && percent * 10_f64.powi(decimals - 1) < 0.995 {
        decimals += 1;
    }
    let decimals = usize::try_from(decimals).unwrap_or_default();
    format!("{percent:.decimals$} %")
}

/// `part` of `whole`, between 0 and 1; 0 where there is no whole.
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// What so many trials say about the true rate of what happened in `hits` of them: for none, the rule of three.
///
/// With none in N independent trials, the rates that would have shown at least one with a probability of 95 % begin at
/// 1 - 0.05^(1/N), which is below -ln(0.05)/N = 2.9957/N (Hanley and Lippman-Hand 1983, doi:10.1001/jama.1983.03330370053031).
pub fn bound(hits: u64, trials: u64, done: &str) -> String {
    let of = format!("{} of {}", count(hits), count(trials));
    if trials == 0 {
        return format!("0 of 0 {done}: nothing is shown about it.");
    }
    if hits > 0 {
        return format!("{of} {done}: {}.", percent(share(hits, trials)));
    }
    if trials <= 3 {
        return format!("{of} {done}: too few trials to bound anything.");
    }
    format!(
        "{of} {done}: at most 3/{} = {} with 95 % confidence (rule of three).",
        count(trials),
        percent(share(3, trials))
    )
}

/// The text with a capital first.
pub fn capital(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_uppercase().chain(characters).collect(),
        None => String::new(),
    }
}

/// The text with a capital first and a stop last.
pub fn sentence(text: &str) -> String {
    let text = capital(text.trim());
    if text.is_empty() || text.ends_with(['.', '!', '?', ':']) { text } else { format!("{text}.") }
}

/// A name made fit for a file and an anchor: lower-case letters, digits and dashes; never empty.
pub fn slug(name: &str) -> String {
    let mut slug = String::new();
    for character in name.chars().take(60) {
        let character = character.to_ascii_lowercase();
        if character.is_ascii_alphanumeric() {
            slug.push(character);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { "case".to_owned() } else { slug.to_owned() }
}

/// Sorts names as people count: `app2` before `app10`.
pub fn natural_order(name: &str) -> Vec<(String, Option<u64>)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
        let (digits, after) =
            after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len()));
        parts.push((word.to_owned(), digits.parse().ok()));
        rest = after;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_marked() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(12_345_678), "12,345,678");
        assert_eq!(figures(0.0), "0.00");
        assert_eq!(figures(0.844), "0.84");
        assert_eq!(figures(9.999), "10.0");
        assert_eq!(figures(99.99), "100");
        assert_eq!(figures(1_203.7), "1,204");
        assert_eq!(figures(f64::NAN), "–");
        assert_eq!(seconds(12.34), "12.3 s");
        assert_eq!(seconds(125.2), "2 min 5 s");
        assert_eq!(seconds(119.7), "2 min 0 s");
        assert_eq!(memory(8 << 30), "8.00 GiB");
    }

    #[test]
    fn shares_keep_two_figures_that_count() {
        assert_eq!(percent(0.25), "25 %");
        assert_eq!(percent(0.0996), "10 %");
        assert_eq!(percent(0.073), "7.3 %");
        assert_eq!(percent(3.0 / 412_345.0), "0.00073 %");
        assert_eq!(percent(0.0), "0 %");
    }

    #[test]
    fn none_lost_is_bounded_by_the_rule_of_three() {
        assert_eq!(
            bound(0, 20_000, "lost"),
            "0 of 20,000 lost: at most 3/20,000 = 0.015 % with 95 % confidence (rule of three)."
        );
        assert_eq!(bound(0, 3, "lost"), "0 of 3 lost: too few trials to bound anything.");
        assert_eq!(bound(7, 1_000, "lost"), "7 of 1,000 lost: 0.70 %.");
        assert_eq!(
            bound(0, 0, "POSTs received twice"),
            "0 of 0 POSTs received twice: nothing is shown about it."
        );
        // What the rule stands for: a rate of 3/N shows none in N trials less than once in twenty times.
        for trials in [12_i32, 100, 20_000] {
            assert!((1.0 - 3.0 / f64::from(trials)).powi(trials) < 0.05);
        }
    }

    #[test]
    fn names_become_safe_file_names() {
        assert_eq!(slug("kill-one"), "kill-one");
        assert_eq!(slug("../../etc/passwd"), "etc-passwd");
        assert_eq!(slug("Kill <one>!"), "kill-one");
        assert_eq!(slug("…"), "case");
    }

    #[test]
    fn sentences_begin_and_end() {
        assert_eq!(sentence("one instance is killed"), "One instance is killed.");
        assert_eq!(sentence("Nothing is done."), "Nothing is done.");
        assert_eq!(sentence(""), "");
    }

    #[test]
    fn numbers_in_names_count() {
        let mut names = vec!["app10", "app2", "app", "db1", "app2-10", "app2-9"];
        names.sort_by_key(|name| natural_order(name));
        assert_eq!(names, ["app", "app2", "app2-9", "app2-10", "app10", "db1"]);
    }
}
