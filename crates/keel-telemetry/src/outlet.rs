//! Standard output and standard error, written by a thread so that nobody else waits for who reads them.
//!
//! A terminal held with Ctrl-S, a pager that isn't scrolled and a stalled ssh take nothing for as long as they like.
//! Text waits in memory meanwhile, [`QUEUE_BYTES_MAX`] at most. Beyond that lines are left out until half of it is free
//! again, and their number is written where they would have been. A descriptor can't be made non-blocking instead:
//! other processes share it.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    mem,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::BoundedFile;

/// Bytes that wait for a reader at most.
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// Bytes that are given to the kernel at once.
const PIECE_BYTES_MAX: usize = 64 << 10;
/// When to try again where another process made the descriptor non-blocking.
const AGAIN_AFTER: Duration = Duration::from_millis(10);

/// A descriptor that may stall. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Outlet {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// Pieces that the thread has dealt with; tells progress.
    dealt_with: u64,
    is_writing: bool,
    phase: Phase,
}

#[derive(Debug)]
enum Piece {
    Text(Vec<u8>),
    LeftOut { lines: u64 },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// Lines are left out until there is room again.
    Full,
    /// What waits is written, nothing is taken in any more.
    Closing,
    /// Nobody can ever read it again.
    Gone,
}

/// Standard output. The first call of this or of [`stderr`] starts a thread.
pub fn stdout() -> &'static Outlet {
    &standard().0
}

/// Standard error: the same as [`stdout`] where both are one terminal, so that the order of lines stays.
pub fn stderr() -> &'static Outlet {
    &standard().1
}

fn standard() -> &'static (Outlet, Outlet) {
    static STANDARD: OnceLock<(Outlet, Outlet)> = OnceLock::new();
    STANDARD.get_or_init(|| {
        let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
        let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
        let is_one = stdout.as_ref().is_ok_and(|one| stderr.as_ref().is_ok_and(|two| are_same(one, two)));
        let error = Outlet::of(stderr);
        if is_one { (error.clone(), error) } else { (Outlet::of(stdout), error) }
    })
}

fn are_same(one: &File, two: &File) -> bool {
    let identity = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino(), meta.rdev())).ok();
    identity(one).is_some_and(|id| identity(two) == Some(id))
}

impl Outlet {
    /// Starts the thread that writes to a descriptor.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        Self::start(File::from(descriptor))
    }

    /// Starts the thread that writes to a file.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn to_file(file: BoundedFile) -> io::Result<Self> {
        Self::start(file)
    }

    fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new() });
        let theirs = shared.clone();
        thread::Builder::new().name("outlet".into()).spawn(move || theirs.run(out))?;
        Ok(Self { shared })
    }

    /// Without a descriptor or a thread everything is left out.
    fn of(descriptor: io::Result<File>) -> Self {
        descriptor.and_then(|file| Self::new(file.into())).unwrap_or_else(|_| {
            let queue = Queue { phase: Phase::Gone, ..Queue::default() };
            Self { shared: Arc::new(Shared { queue: Mutex::new(queue), changed: Condvar::new() }) }
        })
    }

    /// Takes in a line or several, their ends included. Never waits.
    pub fn push(&self, lines: &[u8]) {
        let mut queue = self.shared.lock();
        match queue.phase {
            Phase::Closing | Phase::Gone => return,
            Phase::Open if queue.bytes + lines.len() <= QUEUE_BYTES_MAX => queue.put(lines),
            Phase::Open | Phase::Full => {
                queue.phase = Phase::Full;
                queue.leave_out(count_lines(lines));
            }
        }
        self.shared.changed.notify_all();
    }

    /// Counts lines that were left out before they came here to those that are left out here.
    pub fn leave_out(&self, lines: u64) {
        let mut queue = self.shared.lock();
        if matches!(queue.phase, Phase::Open | Phase::Full) {
            queue.leave_out(lines);
        }
        self.shared.changed.notify_all();
    }

    /// Tells whether nobody can ever read it again.
    pub fn is_gone(&self) -> bool {
        self.shared.lock().phase == Phase::Gone
    }

    /// Waits until everything is written, for as long as some of it is within each `patience`, ten times that in all.
    pub fn flush(&self, patience: Duration) {
        let end = Instant::now() + patience * 10;
        let mut queue = self.shared.lock();
        while !queue.is_done() && Instant::now() < end {
            let before = queue.dealt_with;
            let stuck = |queue: &mut Queue| !queue.is_done() && queue.dealt_with == before;
            let waited = self.shared.changed.wait_timeout_while(queue, patience, stuck);
            let (next, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
            queue = next;
            if outcome.timed_out() {
                return;
            }
        }
    }

    /// Writes this last, however much waits, and lets go of the descriptor. Doesn't wait for it.
    pub fn close_with(&self, last: &[u8]) {
        let mut queue = self.shared.lock();
        if queue.phase != Phase::Gone {
            queue.put(last);
            queue.phase = Phase::Closing;
        }
        self.shared.changed.notify_all();
    }
}

impl Queue {
    fn is_done(&self) -> bool {
        self.phase == Phase::Gone || (self.pieces.is_empty() && !self.is_writing)
    }

    fn put(&mut self, lines: &[u8]) {
        self.bytes += lines.len();
        match self.pieces.back_mut() {
            Some(Piece::Text(text)) if text.len() + lines.len() <= PIECE_BYTES_MAX => {
                text.extend_from_slice(lines);
            }
            _ => self.pieces.push_back(Piece::Text(lines.to_vec())),
        }
    }

    fn leave_out(&mut self, more: u64) {
        match self.pieces.back_mut() {
            Some(Piece::LeftOut { lines }) => *lines += more,
            _ => self.pieces.push_back(Piece::LeftOut { lines: more }),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut file: impl Write) {
        // Lines whose number is still to be written.
        let mut left_out = 0;
        while let Some(piece) = self.next() {
            let outcome = match &piece {
                Piece::LeftOut { lines } => {
                    left_out += lines;
                    Ok(())
                }
                Piece::Text(text) => write_piece(&mut file, text, &mut left_out),
            };
            let length = if let Piece::Text(text) = &piece { text.len() } else { 0 };
            let mut queue = self.lock();
            queue.is_writing = false;
            queue.dealt_with += 1;
            queue.bytes = queue.bytes.saturating_sub(length);
            if queue.phase == Phase::Full && queue.bytes <= QUEUE_BYTES_MAX / 2 {
                queue.phase = Phase::Open;
            }
            if outcome.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
                *queue = Queue { phase: Phase::Gone, ..Queue::default() };
            }
            // Not kept for the next line: it may be long until that comes.
            let says_now = left_out > 0 && queue.pieces.is_empty() && queue.phase != Phase::Gone;
            drop(queue);
            if says_now {
                drop(write_piece(&mut file, b"", &mut left_out));
            }
            self.changed.notify_all();
        }
    }

    /// Waits for what is to be written next; `None` at the end.
    fn next(&self) -> Option<Piece> {
        let mut queue = self.lock();
        loop {
            if let Some(piece) = queue.pieces.pop_front() {
                queue.is_writing = true;
                return Some(piece);
            }
            match queue.phase {
                Phase::Open | Phase::Full => {}
                Phase::Closing | Phase::Gone => {
                    queue.phase = Phase::Gone;
                    return None;
                }
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Writes a piece, behind the number of lines that were left out before it. What can't be written counts to them.
fn write_piece(file: &mut impl Write, text: &[u8], left_out: &mut u64) -> io::Result<()> {
    let said = mem::take(left_out);
    let head = if said > 0 { format!("{}\n", left_out_text(said)) } else { String::new() };
    let outcome = write_all(file, head.as_bytes());
    if let Err((error, _)) = outcome {
        *left_out = said + count_lines(text);
        return Err(error);
    }
    write_all(file, text).map_err(|(error, rest)| {
        *left_out = count_lines(rest);
        error
    })
}

/// As `write_all`, but gives what isn't written, and bears with a descriptor that another process made non-blocking.
fn write_all<'a>(file: &mut impl Write, mut bytes: &'a [u8]) -> Result<(), (io::Error, &'a [u8])> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err((io::ErrorKind::WriteZero.into(), bytes)),
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(AGAIN_AFTER),
            Err(error) => return Err((error, bytes)),
        }
    }
    Ok(())
}

/// The number of lines in a text, the last one with or without its end.
pub(crate) fn count_lines(text: &[u8]) -> u64 {
    let ends = text.iter().filter(|byte| **byte == b'\n').count();
    let open = text.last().is_some_and(|byte| *byte != b'\n');
    u64::try_from(ends).unwrap_or(u64::MAX).saturating_add(u64::from(open))
}

/// Says how many lines of output are missing, as it stands in their place.
pub fn left_out_text(lines: u64) -> String {
    let (what, verb) = if lines == 1 { ("line", "was") } else { ("lines", "were") };
    format!("[{lines} {what} {verb} left out]")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};

    use super::*;

    /// Much longer than anything here takes.
    const DEADLINE: Duration = Duration::from_secs(20);

    #[test]
    fn a_reader_that_stalls_holds_nobody_up_and_is_told_what_it_missed() {
        let (reader, pipe) = io::pipe().unwrap();
        let outlet = Outlet::new(pipe.into()).unwrap();
        let line = |number: usize| format!("{number} {}\n", "x".repeat(1000));
        let pushed = 2 * QUEUE_BYTES_MAX / 1000;
        for number in 0..pushed {
            outlet.push(line(number).as_bytes());
        }
        outlet.close_with(b"the end\n");
        let mut seen = 0;
        let mut left_out = 0;
        for text in BufReader::new(reader).lines().map(Result::unwrap) {
            if let Some(rest) = text.strip_prefix('[') {
                left_out += rest.split(' ').next().unwrap().parse::<usize>().unwrap();
            } else if text == "the end" {
                break;
            } else {
                assert_eq!(text.split(' ').next().unwrap(), (seen + left_out).to_string());
                seen += 1;
            }
        }
        assert!(left_out > 0);
        assert_eq!(seen + left_out, pushed);
    }

    #[test]
    fn flushing_waits_for_a_reader_and_not_for_one_that_stalls() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let outlet = Outlet::new(pipe.into()).unwrap();
        outlet.push(b"read\n");
        outlet.flush(DEADLINE);
        let mut text = [0; 5];
        reader.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"read\n");
        outlet.push(&[b'x'; 4 * PIECE_BYTES_MAX]);
        outlet.flush(Duration::from_millis(10));
        // Otherwise the thread would still write when the pipe is dropped, which is the next thing to be tried.
        assert!(!outlet.is_gone());
        drop(reader);
        outlet.flush(DEADLINE);
        assert!(outlet.is_gone());
    }

    #[test]
    fn a_full_disk_costs_lines_and_their_number_is_told() {
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        let mut left_out = 3;
        assert!(write_piece(&mut full, b"one\ntwo\n", &mut left_out).is_err());
        assert_eq!(left_out, 5);
        let (mut reader, pipe) = io::pipe().unwrap();
        let mut pipe = File::from(OwnedFd::from(pipe));
        write_piece(&mut pipe, b"three\n", &mut left_out).unwrap();
        drop(pipe);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "[5 lines were left out]\nthree\n");
        assert_eq!(left_out, 0);
    }
}
