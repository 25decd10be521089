//! How diagnostics are shown to a person. The binary decides about the form; this crate only passes it on.

use keel_diag::{Diagnostic, Sources};

/// Turns diagnostics into text.
pub trait Describe: Send + Sync {
    /// Every diagnostic as a text of its own, errors first. `sources` are the texts that they point into.
    fn diagnostics(&self, diagnostics: &[Diagnostic], sources: &Sources) -> Vec<String>;
}
