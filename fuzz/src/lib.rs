//! What several targets check.

#![forbid(unsafe_code)]

use keel_diag::{Color, Diagnostic, Format, Severity, Sources, render};

/// Checks that diagnostics point into the texts they are about and can be shown in every form, in those that a person
/// reads without a control character that came from outside.
pub fn check_diagnostics(diagnostics: &[Diagnostic], sources: &Sources) {
    for diagnostic in diagnostics {
        for label in &diagnostic.labels {
            let (start, end) = (label.span.start as usize, label.span.end as usize);
            let text = sources.text(label.span.source);
            assert!(text.get(start..end).is_some(), "{diagnostic:?} points outside {} bytes", text.len());
        }
    }
    let json = render(diagnostics, sources, Format::Json, Color::None);
    assert_eq!(json.lines().count(), diagnostics.len(), "{json}");
    for format in [Format::Human, Format::Short] {
        let shown = render(diagnostics, sources, format, Color::None);
        let control = shown.chars().find(|c| c.is_control() && *c != '\n');
        assert!(control.is_none(), "{control:?} reaches the terminal: {shown:?}");
    }
}

/// Says whether any is an error.
pub fn has_error(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
}
