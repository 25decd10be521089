//! What concerns many places is said once.

use crate::{Diagnostic, Frequency};

/// Keeps, of diagnostics that are said once in a run, the first of each code and message, with the number of the
/// others. Everything else stays as it is and where it is.
pub fn fold(diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut kept: Vec<(Diagnostic, usize)> = Vec::with_capacity(diagnostics.len());
    for found in diagnostics {
        let same = |one: &&mut (Diagnostic, usize)| {
            one.0.frequency == Frequency::OncePerRun
                && one.0.code == found.code
                && one.0.message == found.message
        };
        match kept.iter_mut().find(same) {
            Some((_, others)) if found.frequency == Frequency::OncePerRun => *others += 1,
            _ => kept.push((found, 0)),
        }
    }
    kept.into_iter().map(|(found, others)| with_others(found, others)).collect()
}

fn with_others(mut found: Diagnostic, others: usize) -> Diagnostic {
    let places = match others {
        0 => return found,
        1 => "one more place".to_owned(),
        others => format!("{others} more places"),
    };
    if let Some(label) = found.labels.first_mut() {
        let gap = if label.text.is_empty() { "" } else { "; " };
        label.text = format!("{}{gap}the same holds at {places}", label.text);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Sources, Span};

    #[test]
    fn says_once_what_is_marked_so() {
        let source = Sources::default().add("a.conf", "0123456789");
        let at = |place: usize| Span::new(source, place..place + 1);
        let hint =
            |place| Diagnostic::warning("a::hint", "x has no effect").at(at(place), "why").once_per_run();
        let other = Diagnostic::warning("a::hint", "y has no effect").at(at(7), "why").once_per_run();
        let error = |place| Diagnostic::error("a::error", "wrong").at(at(place), "");
        let folded = fold(vec![hint(1), error(2), hint(3), other.clone(), error(4), hint(5)]);
        let texts: Vec<_> = folded.iter().map(|found| (found.code, found.labels[0].text.as_str())).collect();
        assert_eq!(
            texts,
            [
                ("a::hint", "why; the same holds at 2 more places"),
                ("a::error", ""),
                ("a::hint", "why"),
                ("a::error", "")
            ]
        );
        assert_eq!(folded[0].span(), Some(at(1)));
    }
}
