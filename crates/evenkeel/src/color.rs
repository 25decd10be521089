//! Whether what is said may be coloured: by this process, and by one in the background whose first words this one shows.

use std::{
    io::{self, IsTerminal},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use keel_diag::Color;

/// Set in the environment of a detached child, to [`passed_on`].
pub(crate) const DETACHED: &str = "EVENKEEL_DETACHED";

const IN_COLOR: &str = "color";

/// Whether nobody shows this process's words any more.
static IS_LET_GO: AtomicBool = AtomicBool::new(false);

/// Whether standard error may be coloured.
pub(crate) fn color() -> Color {
    let wanted =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let shown =
        || !IS_LET_GO.load(Relaxed) && std::env::var_os(DETACHED).is_some_and(|mark| mark == IN_COLOR);
    if wanted || shown() { Color::Ansi } else { Color::None }
}

/// What a detached child is told.
pub(crate) fn passed_on() -> &'static str {
    if color() == Color::Ansi { IN_COLOR } else { "plain" }
}

/// From now on nobody shows what this process says.
pub(crate) fn let_go() {
    IS_LET_GO.store(true, Relaxed);
}
