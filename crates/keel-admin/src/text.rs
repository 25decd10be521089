//! How diagnostics are shown to a person. The binary decides about the form; this crate only passes it on.

use keel_control::project::Reading;

/// Turns diagnostics into text.
pub trait Describe: Send + Sync {
    /// Every diagnostic of a reading as a text of its own, in order.
    fn diagnostics(&self, reading: &Reading) -> Vec<String>;
}
