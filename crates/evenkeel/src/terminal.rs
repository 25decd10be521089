//! What this program says, and how: a reader that stalls, leaves or is a terminal is dealt with here alone.
//!
//! A command that ends soon writes as any program does. A supervisor never waits for its reader: a terminal held with
//! Ctrl-S or a pager that isn't scrolled must not stop a service, so its lines go through [`keel_telemetry::Outlet`].
//! Control characters from outside don't reach a terminal; colours do. What goes into a file or a pipe stays as it is.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use keel_telemetry::Outlet;

/// How long a reader may take nothing at the end before what waits for it is given up.
const READER_PATIENCE: Duration = Duration::from_millis(200);

/// What a shell calls a program that wrote to a pipe which nobody reads any more: 128 and SIGPIPE.
const NOBODY_READS: u8 = 128 + 13;

static NEVER_WAITS: AtomicBool = AtomicBool::new(false);
/// Where everything is said once there is no terminal any more.
static LOG: OnceLock<Outlet> = OnceLock::new();

/// Says a line on standard error.
macro_rules! say {
    ($($arguments:tt)*) => { crate::terminal::say_text(&format!("{}\n", format_args!($($arguments)*))) };
}
pub(crate) use say;

/// From now on nothing in this process waits for who reads its output. Starts threads.
pub(crate) fn never_wait() {
    keel_telemetry::stderr();
    NEVER_WAITS.store(true, Relaxed);
    std::panic::set_hook(Box::new(|panic| say!("{panic}")));
}

/// Says this last to who reads now: standard output and error become something else, which nobody waits for.
pub(crate) fn let_go(last: &[u8]) {
    // Both are one pipe, to a process that may be held up by its terminal: what it has yet to hear waits, and nothing here does.
    keel_telemetry::stdout().close_with(last);
    NEVER_WAITS.store(false, Relaxed);
}

/// Says everything there from now on.
pub(crate) fn say_to(log: Outlet) {
    drop(LOG.set(log));
}

/// Gives a reader the time to take what was said, if it takes anything.
pub(crate) fn finish() {
    if let Some(log) = LOG.get() {
        log.flush(READER_PATIENCE);
    }
    if NEVER_WAITS.load(Relaxed) {
        keel_telemetry::stdout().flush(READER_PATIENCE);
        keel_telemetry::stderr().flush(READER_PATIENCE);
    }
}

/// Says a text on standard error. Nobody may be there to hear it, which is no error.
pub(crate) fn say_text(text: &str) {
    let text = escape_lines(text);
    if let Some(log) = LOG.get() {
        log.push(text.as_bytes());
    } else if NEVER_WAITS.load(Relaxed) {
        keel_telemetry::stderr().push(text.as_bytes());
    } else {
        drop(io::stderr().lock().write_all(text.as_bytes()));
    }
}

/// Standard error, for what writes a line at a time.
#[derive(Debug)]
pub(crate) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        say_text(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard output of a command that ends: lines as they are for a file or a pipe, harmless ones for a terminal.
#[derive(Debug)]
pub(crate) struct Stdout {
    out: io::StdoutLock<'static>,
    is_terminal: bool,
}

impl Stdout {
    pub(crate) fn lock() -> Self {
        let out = io::stdout().lock();
        Self { is_terminal: out.is_terminal(), out }
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match str::from_utf8(bytes) {
            Ok(text) if self.is_terminal => self.out.write_all(escape_lines(text).as_bytes()),
            _ => self.out.write_all(bytes),
        };
        written.map(|()| bytes.len()).map_err(Unwritten::error)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().map_err(Unwritten::error)
    }
}

/// Standard output of a command that measures: while it works nothing waits for a reader, at its end it does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unhurried;

impl Unhurried {
    /// Waits for the reader, as any program that writes does.
    pub(crate) fn finish(self) {
        const PATIENCE: Duration = Duration::from_secs(24 * 3600);
        keel_telemetry::stdout().flush(PATIENCE);
        keel_telemetry::stderr().flush(PATIENCE);
    }
}

impl Write for Unhurried {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if keel_telemetry::stdout().is_gone() {
            return Err(Unwritten::error(io::ErrorKind::BrokenPipe.into()));
        }
        match str::from_utf8(bytes) {
            Ok(text) if io::stdout().is_terminal() => {
                keel_telemetry::stdout().push(escape_lines(text).as_bytes())
            }
            _ => keel_telemetry::stdout().push(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes an error of standard output one that says so, for who writes to it without [`Stdout`].
pub(crate) fn unwritten(error: io::Error) -> io::Error {
    Unwritten::error(error)
}

/// Standard output takes nothing.
#[derive(Debug)]
struct Unwritten(io::Error);

impl Unwritten {
    fn error(error: io::Error) -> io::Error {
        io::Error::new(error.kind(), Self(error))
    }
}

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "can't write to standard output: {}", self.0)
    }
}

impl std::error::Error for Unwritten {}

/// The status with which to end quietly, if an error says that who read standard output has enough.
pub(crate) fn reader_left(error: &anyhow::Error) -> Option<ExitCode> {
    let errors = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    let mut unwritten = errors.filter_map(|error| error.get_ref()?.downcast_ref::<Unwritten>());
    unwritten
        .any(|Unwritten(error)| error.kind() == io::ErrorKind::BrokenPipe)
        .then(|| ExitCode::from(NOBODY_READS))
}

/// Makes what came from outside harmless to a terminal, line ends included. Colours pass.
pub(crate) fn escape(text: &str) -> String {
    escape_except(text, &['\t'])
}

/// The same for a text of several lines.
pub(crate) fn escape_lines(text: &str) -> String {
    escape_except(text, &['\t', '\n'])
}

fn escape_except(text: &str, harmless: &[char]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_control() && !harmless.contains(&c)) {
        let (plain, control) = rest.split_at(at);
        out.push_str(plain);
        let color = color_length(control);
        if color > 0 {
            out.push_str(control.get(..color).unwrap_or_default());
            rest = control.get(color..).unwrap_or_default();
        } else {
            let mut characters = control.chars();
            out.extend(characters.next().into_iter().flat_map(char::escape_default));
            rest = characters.as_str();
        }
    }
    out.push_str(rest);
    out
}

/// The length of the colour sequence (`ESC [ digits m`) that a text begins with, or 0.
fn color_length(text: &str) -> usize {
    let Some(parameters) = text.strip_prefix("\x1b[") else { return 0 };
    match parameters.find(|c: char| !c.is_ascii_digit() && !matches!(c, ';' | ':')) {
        Some(end) if parameters.as_bytes().get(end) == Some(&b'm') => end + 3,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_pass_and_nothing_else_does() {
        let check = |text: &str, expect: &str| assert_eq!(escape(text), expect);
        check("plain\ttext", "plain\ttext");
        check("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m");
        check("\x1b[38:2::1:2:3mrgb\x1b[m", "\x1b[38:2::1:2:3mrgb\x1b[m");
        check("\x1b[2Jgone", "\\u{1b}[2Jgone");
        check("\x1b[?25l\x1b[1A\x1b[>4;1m", "\\u{1b}[?25l\\u{1b}[1A\\u{1b}[>4;1m");
        check("\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}");
        check("\x1bP+q\x1b\\ \x1b_x \x1bc", "\\u{1b}P+q\\u{1b}\\ \\u{1b}_x \\u{1b}c");
        check("\u{9b}2J \u{9d}0;x\u{9c}", "\\u{9b}2J \\u{9d}0;x\\u{9c}");
        check("a\rb\x08\x0e\x7f", "a\\rb\\u{8}\\u{e}\\u{7f}");
        check("two\nlines", "two\\nlines");
        check("\x1b[", "\\u{1b}[");
        assert_eq!(escape_lines("two\nlines\x07\n"), "two\nlines\\u{7}\n");
    }

    #[test]
    fn only_a_reader_of_standard_output_that_left_ends_a_command_quietly() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(reader_left(&anyhow::Error::from(Unwritten::error(broken()))).is_some());
        assert!(reader_left(&anyhow::Error::from(broken())).is_none());
        let full = Unwritten::error(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(keel_control::chain(&full), "can't write to standard output: no storage space");
        assert!(reader_left(&anyhow::Error::from(full)).is_none());
    }
}
