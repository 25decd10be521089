//! Collects diagnostics and remembers which service an error concerns.
//!
//! One service that can't run never keeps the others from running, so an error met while a service is read makes
//! that service faulty and leaves the project sound.

use std::collections::BTreeSet;

use keel_diag::{Diagnostic, Severity};

/// Diagnostics kept of one run; further ones are dropped.
const DIAGNOSTICS_MAX: usize = 1_000;

/// The diagnostics of one run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    diagnostics: Vec<Diagnostic>,
    service: Option<String>,
    faulty: BTreeSet<String>,
    unsound: bool,
    gaps: Gaps,
}

/// Whether a part of the files couldn't be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Gaps {
    #[default]
    None,
    Some,
}

/// What may be said for no other reason than that a part couldn't be read.
const OF_GAPS: [&str; 3] = ["compose::undefined", "compose::no-services", "compose::nothing-to-run"];

impl Report {
    /// Adds a diagnostic; one that was already given (a file read twice through `extends`) is dropped.
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        if self.gaps == Gaps::Some && OF_GAPS.contains(&diagnostic.code) {
            return;
        }
        if diagnostic.severity == Severity::Error {
            match &self.service {
                Some(service) => {
                    self.faulty.insert(service.clone());
                }
                None => self.unsound = true,
            }
        }
        if self.diagnostics.len() < DIAGNOSTICS_MAX && !self.diagnostics.contains(&diagnostic) {
            self.diagnostics.push(diagnostic);
        }
    }

    /// Says that a part of the files can't be read, which is reported: what it would declare isn't missed.
    pub(crate) fn expect_gaps(&mut self) {
        self.gaps = Gaps::Some;
    }

    /// Adds several.
    pub(crate) fn extend(&mut self, diagnostics: impl IntoIterator<Item = Diagnostic>) {
        diagnostics.into_iter().for_each(|diagnostic| self.push(diagnostic));
    }

    /// Runs `work`; errors met in it concern `service`.
    pub(crate) fn within<T>(&mut self, service: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        let outer = self.service.replace(service.to_owned());
        let result = work(self);
        self.service = outer;
        result
    }

    /// Whether an error concerns this service.
    pub(crate) fn is_faulty(&self, service: &str) -> bool {
        self.faulty.contains(service)
    }

    /// Whether no error concerns the project as a whole.
    pub(crate) fn is_sound(&self) -> bool {
        !self.unsound
    }

    /// Ends the run: diagnostics by file and place, those without a place first.
    pub(crate) fn into_diagnostics(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|diagnostic| diagnostic.span().map(|span| (span.source, span.start)));
        self.diagnostics
    }
}
