//! Going to the background without fork: the program starts itself again, detached, and waits for its word.
//!
//! The child's standard output and error are one pipe; what it writes there is shown on standard error. A byte
//! that no text has says that it is up, and this process ends with 0; if it ends before that, this process ends with its status. Nothing
//! that stays holds the caller's own descriptors, so `evenkeel up -d | cat` ends too.

use std::{
    io::{BufRead, BufReader, PipeWriter, Read, Write},
    os::fd::AsFd,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use keel_telemetry::{BoundedFile, Outlet};

use crate::{
    color::{self, DETACHED as MARK},
    terminal::{self, say},
};

/// The last byte that the child writes; no text has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// All of it is up.
    Up = 0,
    /// It stays, and something of it isn't up: that has been said.
    UpInPart = 1,
}

impl Word {
    fn of(byte: u8) -> Option<Self> {
        [Self::Up, Self::UpInPart].into_iter().find(|word| *word as u8 == byte)
    }
}

/// Which side of the detachment this process is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The one the user started.
    Foreground,
    /// The one that stays.
    Detached,
}

/// Says which side this process is on.
pub(crate) fn side() -> Side {
    if std::env::var_os(MARK).is_some() { Side::Detached } else { Side::Foreground }
}

/// Starts this program again, detached, and waits until it is up or has failed.
pub(crate) fn start_detached() -> ExitCode {
    let mut arguments = std::env::args_os();
    let mut command = Command::new(keel_control::own_program());
    if let Some(name) = arguments.next() {
        std::os::unix::process::CommandExt::arg0(&mut command, name);
    }
    command.args(arguments).env(MARK, color::passed_on()).stdin(Stdio::null());
    let spawned = std::io::pipe().and_then(|(reader, writer)| {
        let child = command.stdout(writer.try_clone()?).stderr(writer).spawn()?;
        // The command holds the writing end: the pipe must end with the child.
        drop(command);
        Ok((child, reader))
    });
    let (mut child, reader) = match spawned {
        Ok(spawned) => spawned,
        Err(error) => {
            say!("evenkeel: can't go to the background: {error}");
            return ExitCode::FAILURE;
        }
    };
    match show_until_up(reader) {
        Some(Word::Up) => return ExitCode::SUCCESS,
        Some(Word::UpInPart) => return ExitCode::FAILURE,
        None => {}
    }
    match child.wait() {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Copies what the child says to standard error until it says that it is up, or ends.
fn show_until_up(mut output: impl Read) -> Option<Word> {
    let mut buffer = [0; 4096];
    loop {
        let said = match output.read(&mut buffer) {
            Ok(0) => return None,
            Ok(length) => buffer.get(..length).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return None,
        };
        // Another thread's line may come behind the byte before the child lets go of the pipe.
        let found = said.iter().enumerate().find_map(|(at, byte)| Some((at, Word::of(*byte)?)));
        let text = found.map_or(said, |(at, _)| said.get(..at).unwrap_or_default());
        // A reader that has gone away changes nothing about what the child does.
        drop(std::io::stderr().write_all(text));
        if let Some((_, word)) = found {
            return Some(word);
        }
    }
}

/// In the detached child, before anything else: leaves the terminal's session.
pub(crate) fn enter() {
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!("no session of its own: {error}");
    }
}

/// How long the log of a detached supervisor may be; then the next begins. Two are kept.
const LOG_BYTES_MAX: u64 = 1 << 20;

/// In the detached child, when it is up: lets the foreground process go as soon as it has heard everything, and says
/// nothing to its terminal any more. What it has to say goes to `log`.
///
/// # Errors
/// When `/dev/null` can't be opened.
pub(crate) fn release(word: Word, log: Option<&Path>) -> std::io::Result<()> {
    color::let_go();
    terminal::let_go(&[word as u8]);
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(null.as_fd())?;
    match log.map(begin_log) {
        Some(Ok(pipe)) => rustix::stdio::dup2_stderr(pipe.as_fd())?,
        Some(Err(_)) | None => rustix::stdio::dup2_stderr(null.as_fd())?,
    }
    Ok(())
}

/// Has everything said that goes to the log from now on. Gives a pipe for those who know standard error alone, as the data
/// plane does that is started later: the file is only ever written by this process, which knows its length.
fn begin_log(path: &Path) -> std::io::Result<PipeWriter> {
    let log = Outlet::to_file(BoundedFile::open(path, LOG_BYTES_MAX)?)?;
    let (reader, writer) = std::io::pipe()?;
    terminal::say_to(log.clone());
    let pass_on = move || pass_on(reader, &log);
    std::thread::Builder::new().name("stderr".into()).spawn(pass_on)?;
    Ok(writer)
}

/// Takes in lines until nobody is left to write one.
fn pass_on(reader: impl Read, log: &Outlet) {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    // A longer line is passed on in pieces.
    while (&mut reader).take(LOG_LINE_BYTES_MAX).read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        log.push(&line);
        line.clear();
    }
}

/// The longest piece of a line that is taken in at once.
const LOG_LINE_BYTES_MAX: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_comes_line_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("supervisor.log");
        let log = Outlet::to_file(BoundedFile::open(&path, 100_000).unwrap()).unwrap();
        let long = "x".repeat(200);
        pass_on(format!("one\n{}two", format!("{long}\n").repeat(2000)).as_bytes(), &log);
        log.flush(std::time::Duration::from_secs(10));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("two") && text.len() <= 100_000 && text.starts_with(&long), "{}", text.len());
    }

    #[test]
    fn the_word_is_heard_wherever_it_stands() {
        assert_eq!(show_until_up(&b"web-1: ready\n\0"[..]), Some(Word::Up));
        assert_eq!(show_until_up(&b"\x01web-1: starting\n"[..]), Some(Word::UpInPart));
        assert_eq!(show_until_up(&b"error\n"[..]), None);
    }
}
