//! What instances print: taken line by line, kept in a bounded file for each, and told to who follows.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{io::AsyncReadExt, net::unix::pipe, sync::broadcast};

/// One file's size at which the next is begun; two are kept.
const FILE_BYTES_MAX: u64 = 5 << 20;
/// A longer line is told in pieces.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Lines that a follower may be behind before it loses some.
const FOLLOWER_LINES_MAX: usize = 8_192;
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
    followers: broadcast::Sender<Arc<LogLine>>,
}

impl Output {
    pub(crate) fn new(folder: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder, followers: broadcast::Sender::new(FOLLOWER_LINES_MAX) })
    }

    /// Lets somebody hear every line from now on.
    pub(crate) fn follow(&self) -> broadcast::Receiver<Arc<LogLine>> {
        self.followers.subscribe()
    }

    /// Gives the last lines that an instance printed, oldest first.
    pub(crate) fn tail(&self, service: &str, instance: &str, lines_max: usize) -> Vec<LogLine> {
        let (path, old) = self.paths(instance);
        let mut lines = read_lines(&path, service, instance);
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
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let length = file.metadata()?.len();
        let inner = SinkFile { file, path, old, length };
        let followers = self.followers.clone();
        Ok(Sink {
            service: service.into(),
            instance: instance.into(),
            inner: Arc::new(Mutex::new(inner)),
            followers,
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
    followers: broadcast::Sender<Arc<LogLine>>,
}

#[derive(Debug)]
struct SinkFile {
    file: File,
    path: PathBuf,
    old: PathBuf,
    length: u64,
}

impl Sink {
    /// Takes in lines of one stream.
    pub(in crate::driver) fn take(&self, stream: Stream, lines: Vec<String>) {
        if lines.is_empty() {
            return;
        }
        let time = SystemTime::now();
        let mut text = String::new();
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let mark = if stream == Stream::Stdout { 'o' } else { 'e' };
        for line in &lines {
            text.push_str(&format!("{since} {mark} {line}\n"));
        }
        if let Err(error) = self.inner.lock().unwrap_or_else(PoisonError::into_inner).append(&text) {
            tracing::warn!("output of {} isn't kept: {error}", self.instance);
        }
        for text in lines {
            let line = LogLine {
                service: self.service.clone(),
                instance: self.instance.clone(),
                stream,
                time,
                text,
            };
            // Nobody may be following.
            let _ = self.followers.send(Arc::new(line));
        }
    }
}

impl SinkFile {
    fn append(&mut self, text: &str) -> io::Result<()> {
        if self.length > FILE_BYTES_MAX {
            std::fs::rename(&self.path, &self.old)?;
            self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            self.length = 0;
        }
        self.file.write_all(text.as_bytes())?;
        self.length += u64::try_from(text.len()).unwrap_or(0);
        Ok(())
    }
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
        let mut follower = output.follow();
        for n in 0..400 {
            sink.take(Stream::Stderr, vec![format!("{n} {}", "x".repeat(60_000))]);
        }
        let tail: Vec<_> =
            output.tail("app1", "app1", 3).into_iter().map(|line| line.text[..3].to_owned()).collect();
        assert_eq!(tail, ["397", "398", "399"]);
        let kept: u64 =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(kept <= 2 * FILE_BYTES_MAX + 100_000, "{kept}");
        let line = follower.try_recv().unwrap();
        assert_eq!((line.instance.as_str(), line.stream), ("app1", Stream::Stderr));
        assert_eq!(output.tail("nobody", "nobody", 3), []);
    }
}
