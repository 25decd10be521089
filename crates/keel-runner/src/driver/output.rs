//! What instances print: taken line by line, kept in a bounded file for each, and told to who follows.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use keel_telemetry::left_out_text;
use tokio::{io::AsyncReadExt, net::unix::pipe};

use super::followers::{Follower, Followers};
use crate::{engine::Named, error::at};

/// One file's size at which the next is begun; two are kept.
const FILE_BYTES_MAX: u64 = 5 << 20;
/// A longer line is told in pieces.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Bytes that are read at a time.
const READ_BYTES: usize = 32 << 10;

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
    /// Locked while lines are written and told, so that past and present of a follower meet without a gap.
    followers: Arc<Mutex<Followers>>,
}

impl Output {
    pub(crate) fn new(folder: PathBuf) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        // Of an earlier version.
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700))?;
        Ok(Self { folder, followers: Arc::default() })
    }

    /// Gives the last lines that these instances printed, by time, and lets somebody hear every line from then on.
    pub(crate) fn follow(
        &self,
        of: &[Named],
        tail: Option<usize>,
        is_meant: impl Fn(&LogLine) -> bool + Send + Sync + 'static,
    ) -> (Vec<LogLine>, Follower) {
        let mut followers = lock(&self.followers);
        let tails = of.iter().flat_map(|names| self.tail(&names.service, &names.instance, tail));
        let mut lines: Vec<LogLine> = tails.collect();
        lines.sort_by_key(|line| line.time);
        (lines, followers.add(is_meant))
    }

    /// Tells whether anything of an instance is kept.
    pub(crate) fn has_any(&self, instance: &str) -> bool {
        std::fs::metadata(self.paths(instance).0).is_ok_and(|meta| meta.len() > 0)
    }

    fn tail(&self, service: &str, instance: &str, lines_max: Option<usize>) -> Vec<LogLine> {
        if lines_max == Some(0) {
            return Vec::new();
        }
        let (path, old) = self.paths(instance);
        let mut lines = read_lines(&path, service, instance);
        let lines_max = lines_max.unwrap_or(usize::MAX);
        if lines.len() < lines_max {
            let mut all = read_lines(&old, service, instance);
            all.append(&mut lines);
            lines = all;
        }
        lines.split_off(lines.len().saturating_sub(lines_max))
    }

    /// Opens the file of an instance.
    pub(in crate::driver) fn open(&self, service: &str, instance: &str) -> io::Result<Sink> {
        let (path, old) = self.paths(instance);
        let file = append_to(&path)?;
        let length = file.metadata()?.len();
        let inner = SinkFile { file, path, old, length, lost: 0 };
        Ok(Sink {
            service: service.into(),
            instance: instance.into(),
            inner: Arc::new(Mutex::new(inner)),
            followers: Arc::clone(&self.followers),
        })
    }

    fn paths(&self, instance: &str) -> (PathBuf, PathBuf) {
        // Names of services and instances have no slash; if one had, it would not lead out of the folder.
        let name = instance.replace('/', "_");
        (self.folder.join(format!("{name}.log")), self.folder.join(format!("{name}.log.1")))
    }
}

/// Where the lines of one instance go.
#[derive(Clone, Debug)]
pub(in crate::driver) struct Sink {
    service: String,
    instance: String,
    inner: Arc<Mutex<SinkFile>>,
    followers: Arc<Mutex<Followers>>,
}

#[derive(Debug)]
struct SinkFile {
    file: File,
    path: PathBuf,
    old: PathBuf,
    length: u64,
    /// Lines that couldn't be written since the last one that could.
    lost: u64,
}

impl Sink {
    /// Takes in lines of one stream.
    pub(in crate::driver) fn take(&self, stream: Stream, lines: Vec<String>) {
        if lines.is_empty() {
            return;
        }
        let time = SystemTime::now();
        let followers = lock(&self.followers);
        lock(&self.inner).keep(&self.instance, time, stream, &lines);
        for text in lines {
            followers.tell(&Arc::new(LogLine {
                service: self.service.clone(),
                instance: self.instance.clone(),
                stream,
                time,
                text,
            }));
        }
    }
}

impl SinkFile {
    /// Keeps lines. A file that can't be written costs lines, whose number it has afterwards.
    fn keep(&mut self, instance: &str, time: SystemTime, stream: Stream, lines: &[String]) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let mut text = String::new();
        if self.lost > 0 {
            text.push_str(&format!("{since} e {}\n", left_out_text(self.lost)));
        }
        let mark = if stream == Stream::Stdout { 'o' } else { 'e' };
        for line in lines {
            text.push_str(&format!("{since} {mark} {line}\n"));
        }
        match self.append(&text) {
            Ok(()) if self.lost > 0 => {
                tracing::warn!("output of {instance} is kept again; {} lines are missing", self.lost);
                self.lost = 0;
            }
            Ok(()) => {}
            Err(error) => {
                if self.lost == 0 {
                    let path = self.path.display();
                    tracing::warn!("output of {instance} isn't kept: {path}: {error}");
                }
                self.lost += u64::try_from(lines.len()).unwrap_or(u64::MAX);
            }
        }
    }

    fn append(&mut self, text: &str) -> io::Result<()> {
        if self.length > FILE_BYTES_MAX {
            std::fs::rename(&self.path, &self.old)?;
            self.file = append_to(&self.path)?;
            self.length = 0;
        }
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            // Half a line would spoil the next one. What isn't a file has no length.
            drop(self.file.set_len(self.length));
            return Err(error);
        }
        self.length += u64::try_from(text.len()).unwrap_or(0);
        Ok(())
    }
}

/// Opens a file to append to, which nobody else reads: what instances print is nobody's business. Somebody may have put a
/// pipe in its place, which is not waited for.
fn append_to(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut options = OpenOptions::new();
    options.create(true).append(true).read(true).mode(0o600).custom_flags(flags);
    let file = options.open(path).map_err(at(path))?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(at(path))?;
    }
    Ok(file)
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

fn read_lines(path: &Path, service: &str, instance: &str) -> Vec<LogLine> {
    // Reading a pipe in its place would take what is meant for somebody else.
    if !std::fs::metadata(path).is_ok_and(|meta| meta.is_file()) {
        return Vec::new();
    }
    let Ok(file) = File::open(path) else { return Vec::new() };
    let lines = BufReader::new(file).split(b'\n').map_while(Result::ok);
    lines.filter_map(|line| parse_line(&String::from_utf8_lossy(&line), service, instance)).collect()
}

fn parse_line(line: &str, service: &str, instance: &str) -> Option<LogLine> {
    let mut fields = line.splitn(3, ' ');
    let since = Duration::from_micros(fields.next()?.parse().ok()?);
    let stream = if fields.next()? == "e" { Stream::Stderr } else { Stream::Stdout };
    let text = fields.next()?.to_owned();
    Some(LogLine {
        service: service.into(),
        instance: instance.into(),
        stream,
        time: UNIX_EPOCH + since,
        text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::followers::LogNews;

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

    #[test]
    fn keeps_the_last_lines_within_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let output = Output::new(folder.path().to_owned()).unwrap();
        let sink = output.open("app1", "app1").unwrap();
        let (_, mut follower) = output.follow(&[], None, |_| true);
        for n in 0..400 {
            sink.take(Stream::Stderr, vec![format!("{n} {}", "x".repeat(60_000))]);
        }
        let tail: Vec<_> =
            output.tail("app1", "app1", Some(3)).into_iter().map(|line| line.text[..3].to_owned()).collect();
        assert_eq!(tail, ["397", "398", "399"]);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(folder.path()), mode(&output.paths("app1").0)), (0o700, 0o600));
        let kept: u64 =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(kept <= 2 * FILE_BYTES_MAX + 100_000, "{kept}");
        let Some(LogNews::Line(line)) = follower.try_recv() else { panic!("nothing was told") };
        assert_eq!((line.instance.as_str(), line.stream), ("app1", Stream::Stderr));
        assert_eq!(output.tail("nobody", "nobody", Some(3)), []);
    }

    #[test]
    fn a_follower_gets_every_line_once_wherever_it_joins() {
        let folder = tempfile::tempdir().unwrap();
        let output = Output::new(folder.path().to_owned()).unwrap();
        let sink = output.open("app", "app-1").unwrap();
        let named = [Named { service: "app".into(), instance: "app-1".into() }];
        let printing = std::thread::spawn(move || {
            (0..2000).for_each(|n| sink.take(Stream::Stdout, vec![n.to_string()]));
        });
        let joined: Vec<_> = (0..20).map(|_| output.follow(&named, None, |_| true)).collect();
        printing.join().unwrap();
        let expect: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
        for (past, mut follower) in joined {
            let mut all: Vec<String> = past.into_iter().map(|line| line.text).collect();
            while let Some(LogNews::Line(line)) = follower.try_recv() {
                all.push(line.text.clone());
            }
            assert_eq!(all, expect);
        }
    }

    #[test]
    fn a_log_that_takes_nothing_costs_lines_and_their_number_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let output = Output::new(folder.path().to_owned()).unwrap();
        let (path, _) = output.paths("app-1");
        let mode = rustix::fs::Mode::from(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let sink = output.open("app", "app-1").unwrap();
        for _ in 0..100 {
            sink.take(Stream::Stdout, vec!["x".repeat(2000)]);
        }
        assert_eq!(output.tail("app", "app-1", None), []);
        assert!(lock(&sink.inner).lost > 0);
        std::fs::remove_file(&path).unwrap();
        lock(&sink.inner).file = append_to(&path).unwrap();
        lock(&sink.inner).length = 0;
        let lost = std::mem::replace(&mut lock(&sink.inner).lost, 7);
        sink.take(Stream::Stdout, vec!["goes on".into()]);
        let lines: Vec<_> = output.tail("app", "app-1", None).into_iter().map(|line| line.text).collect();
        assert_eq!(lines, ["[7 lines were left out]", "goes on"]);
        assert_eq!((lost < 100, lock(&sink.inner).lost), (true, 0));
    }
}
