//! What instances print: taken line by line, kept in a bounded file for each, and told to who follows.

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{io::AsyncReadExt, net::unix::pipe, sync::oneshot};

use super::{
    followers::{Follower, Followers},
    log_writer::{LogWriter, path_of},
    past::Past,
};
use crate::named::Named;

/// A longer line is told in pieces.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Bytes that are read at a time.
const READ_BYTES: usize = 32 << 10;
/// How long what waits for the disk is waited for at the end of a run.
const LAST_LINES_WITHIN: Duration = Duration::from_secs(2);

/// A line that an instance printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// The instance's name at that time.
    pub instance: String,
    /// Its service.
    pub service: String,
    /// Where to it printed.
    pub stream: Stream,
    /// When it was taken.
    pub time: SystemTime,
    /// The line without its end, as UTF-8 as far as it is.
    pub text: String,
}

/// Where to an instance printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What all instances print.
#[derive(Debug)]
pub(crate) struct Output {
    folder: PathBuf,
    writer: Arc<LogWriter>,
    /// Locked while lines are handed to the writer and told, so that past and present of a follower meet without a gap.
    followers: Arc<Mutex<Followers>>,
}

impl Output {
    /// Prepares the folder and starts the thread that writes.
    pub(crate) fn new(folder: PathBuf) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        // Of an earlier version.
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700))?;
        let writer = Arc::new(LogWriter::start(folder.clone())?);
        Ok(Self { folder, writer, followers: Arc::default() })
    }

    /// Has the last lines of these instances looked up, by time, and lets somebody hear every line from then on.
    pub(crate) fn follow(
        &self,
        of: &[Named],
        tail: Option<usize>,
        is_meant: impl Fn(&LogLine) -> bool + Send + Sync + 'static,
    ) -> (PendingPast, Follower) {
        let mut followers = lock(&self.followers);
        // A follower without a past doesn't wait for the disk.
        let past = (tail != Some(0)).then(|| self.writer.look(of, tail));
        (PendingPast(past), followers.add(is_meant))
    }

    /// Waits until all that was printed is kept, if not for long.
    pub(crate) async fn flush(&self) {
        let flushed = self.writer.look(&[], None);
        let _ = tokio::time::timeout(LAST_LINES_WITHIN, flushed).await;
    }

    /// Whether anything of an instance is kept.
    pub(crate) fn has_any(&self, instance: &str) -> bool {
        std::fs::metadata(path_of(&self.folder, instance)).is_ok_and(|meta| meta.len() > 0)
    }

    /// Prepares to take what a life of an instance prints.
    pub(in crate::driver) fn open(&self, service: &str, instance: &str) -> Sink {
        self.writer.reopen(instance);
        Sink {
            service: service.into(),
            instance: instance.into(),
            writer: Arc::clone(&self.writer),
            followers: Arc::clone(&self.followers),
        }
    }
}

/// The past, once the disk has said it.
#[derive(Debug)]
pub(crate) struct PendingPast(Option<oneshot::Receiver<Past>>);

impl PendingPast {
    /// Waits for it.
    pub(crate) async fn get(self) -> Past {
        match self.0 {
            Some(past) => past.await.unwrap_or_default(),
            None => Past::default(),
        }
    }
}

/// Where the lines of one instance go.
#[derive(Clone, Debug)]
pub(in crate::driver) struct Sink {
    service: String,
    instance: String,
    writer: Arc<LogWriter>,
    followers: Arc<Mutex<Followers>>,
}

impl Sink {
    /// Takes in lines of one stream. Never waits.
    pub(in crate::driver) fn take(&self, stream: Stream, lines: Vec<String>) {
        if lines.is_empty() {
            return;
        }
        let time = SystemTime::now();
        let line = |text| {
            let (service, instance) = (self.service.clone(), self.instance.clone());
            Arc::new(LogLine { service, instance, stream, time, text })
        };
        let lines: Vec<Arc<LogLine>> = lines.into_iter().map(line).collect();
        let followers = lock(&self.followers);
        lines.iter().for_each(|line| followers.tell(line));
        self.writer.keep(lines);
    }

    /// Waits until the disk has room for more, if not for long.
    pub(in crate::driver) async fn room(&self) {
        self.writer.room(&self.instance).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a stream to its end.
pub(in crate::driver) async fn drain(descriptor: OwnedFd, stream: Stream, sink: Sink) {
    let Ok(mut pipe) = pipe::Receiver::from_owned_fd(descriptor) else { return };
    let mut lines = Lines::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        sink.room().await;
        match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(n) => {
                let whole = lines.push(buffer.get(..n).unwrap_or_default());
                if !whole.is_empty() {
                    sink.take(stream, whole);
                }
            }
        }
    }
    let rest: Vec<String> = lines.finish().into_iter().collect();
    if !rest.is_empty() {
        sink.take(stream, rest);
    }
}

/// Makes lines of bytes.
#[derive(Debug, Default)]
pub(in crate::driver) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    pub(in crate::driver) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(bytes);
        let mut whole = Vec::new();
        let mut start = 0;
        while let Some(tail) = self.rest.get(start..) {
            let end = tail.iter().position(|byte| *byte == b'\n');
            let Some(length) = end.or((tail.len() > LINE_BYTES_MAX).then_some(LINE_BYTES_MAX)) else { break };
            whole.push(text_of(tail.get(..length).unwrap_or_default()));
            start += length + usize::from(end.is_some());
        }
        self.rest.drain(..start.min(self.rest.len()));
        whole
    }

    pub(in crate::driver) fn finish(self) -> Option<String> {
        (!self.rest.is_empty()).then(|| text_of(&self.rest))
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(bytes)).into_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::driver::{followers::LogNews, log_writer::FILE_BYTES_MAX};

    #[test]
    fn makes_lines_wherever_the_bytes_are_cut() {
        let text = b"one\r\ntwo\n\nthree";
        for cut in 0..=text.len() {
            let mut lines = Lines::default();
            let mut all = lines.push(&text[..cut]);
            all.extend(lines.push(&text[cut..]));
            all.extend(lines.finish());
            assert_eq!(all, ["one", "two", "", "three"], "cut at {cut}");
        }
        let mut lines = Lines::default();
        let pieces = lines.push(&vec![b'x'; LINE_BYTES_MAX * 2 + 1]);
        assert_eq!(pieces.iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES_MAX; 2]);
    }

    fn named(instance: &str) -> [Named; 1] {
        [Named { service: instance.into(), instance: instance.into() }]
    }

    #[tokio::test]
    async fn keeps_the_last_lines_within_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let output = Output::new(folder.path().to_owned()).unwrap();
        let sink = output.open("app1", "app1");
        let (_, mut follower) = output.follow(&[], None, |_| true);
        for n in 0..400 {
            sink.room().await;
            sink.take(Stream::Stderr, vec![format!("{n} {}", "x".repeat(60_000))]);
        }
        let past = output.follow(&named("app1"), Some(3), |_| true).0.get().await;
        let tail: Vec<_> = past.map(|line| line.text[..3].to_owned()).collect();
        assert_eq!(tail, ["397", "398", "399"]);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(folder.path()), mode(&path_of(folder.path(), "app1"))), (0o700, 0o600));
        let kept: u64 =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(kept <= 2 * FILE_BYTES_MAX, "{kept}");
        let Some(LogNews::Line(line)) = follower.try_recv() else { panic!("nothing was told") };
        assert_eq!((line.instance.as_str(), line.stream), ("app1", Stream::Stderr));
        assert_eq!(output.follow(&named("nobody"), Some(3), |_| true).0.get().await.count(), 0);
    }

    #[tokio::test]
    async fn a_follower_gets_every_line_once_wherever_it_joins() {
        let folder = tempfile::tempdir().unwrap();
        let output = Output::new(folder.path().to_owned()).unwrap();
        let sink = output.open("app", "app");
        let printing = std::thread::spawn(move || {
            (0..2000).for_each(|n| sink.take(Stream::Stdout, vec![n.to_string()]));
        });
        let joined: Vec<_> = (0..20).map(|_| output.follow(&named("app"), None, |_| true)).collect();
        printing.join().unwrap();
        let expect: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
        for (past, mut follower) in joined {
            let mut all: Vec<String> = past.get().await.map(|line| line.text).collect();
            while let Some(LogNews::Line(line)) = follower.try_recv() {
                all.push(line.text.clone());
            }
            assert_eq!(all, expect);
        }
    }
}
