//! What instances printed, read from their files: the lines of all of them, by time.

use std::{
    fs::File,
    io::{BufRead, BufReader, Chain, Read, Seek, SeekFrom, Take},
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use keel_telemetry::BoundedFile;

use super::output::{LogLine, Stream};
use crate::named::Named;

/// Bytes that are read at a time to find where the last lines begin.
const BLOCK_BYTES: usize = 64 << 10;

/// The lines that were kept up to a moment, by time. Each is read from the disk when it is asked for: not on a thread that
/// others wait for.
#[derive(Debug, Default)]
pub struct Past {
    logs: Vec<InstanceLog>,
}

impl Past {
    pub(super) fn of(logs: Vec<InstanceLog>) -> Self {
        Self { logs }
    }
}

impl Iterator for Past {
    type Item = LogLine;

    fn next(&mut self) -> Option<LogLine> {
        self.logs.retain_mut(|log| log.peek().is_some());
        let oldest = self.logs.iter_mut().min_by_key(|log| log.next.as_ref().map(|line| line.time))?;
        oldest.next.take()
    }
}

/// The lines of one instance.
#[derive(Debug)]
pub(super) struct InstanceLog {
    names: Named,
    lines: Option<BufReader<Chain<Take<File>, Take<File>>>>,
    next: Option<LogLine>,
}

impl InstanceLog {
    /// Opens what is kept of an instance, which is read up to its present end.
    pub(super) fn open(names: Named, path: &Path, tail: Option<usize>) -> Self {
        let lines_max = tail.unwrap_or(usize::MAX);
        let (new, lines) = open_tail(path, lines_max).unzip();
        let (old, _) = open_tail(&BoundedFile::old_path(path), lines_max - lines.unwrap_or(0)).unzip();
        let empty = || File::open("/dev/null").ok().map(|file| file.take(0));
        let parts = old.or_else(empty).zip(new.or_else(empty));
        let lines = parts.map(|(old, new)| BufReader::with_capacity(BLOCK_BYTES, old.chain(new)));
        Self { names, lines, next: None }
    }

    fn peek(&mut self) -> Option<&LogLine> {
        let mut line = Vec::new();
        while let (None, Some(lines)) = (&self.next, &mut self.lines) {
            line.clear();
            match lines.read_until(b'\n', &mut line) {
                Ok(length) if length > 0 => {
                    let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line));
                    self.next = parse_line(&text, &self.names);
                }
                Ok(_) | Err(_) => self.lines = None,
            }
        }
        self.next.as_ref()
    }
}

/// Opens a file at the first of its last lines; gives their number too.
fn open_tail(path: &Path, lines_max: usize) -> Option<(Take<File>, usize)> {
    // Reading a pipe in its place would take what is meant for somebody else.
    if !std::fs::metadata(path).is_ok_and(|meta| meta.is_file()) {
        return None;
    }
    let warn = |error| tracing::warn!("kept output isn't shown: {}: {error}", path.display());
    let mut file = File::open(path).map_err(warn).ok()?;
    let length = file.metadata().map_err(warn).ok()?.len();
    let (begin, lines) = if lines_max == usize::MAX { (0, 0) } else { last_lines(&file, length, lines_max) };
    file.seek(SeekFrom::Start(begin)).ok()?;
    Some((file.take(length - begin), lines))
}

/// Where the last lines of a file begin, and how many they are.
fn last_lines(file: &File, length: u64, lines_max: usize) -> (u64, usize) {
    if lines_max == 0 || length == 0 {
        return (length, 0);
    }
    let mut block = vec![0; BLOCK_BYTES];
    let (mut at, mut found) = (length, 0);
    while at > 0 {
        let bytes = usize::try_from(at).unwrap_or(usize::MAX).min(BLOCK_BYTES);
        let Some(block) = block.get_mut(..bytes) else { break };
        at -= u64::try_from(bytes).unwrap_or(at);
        if file.read_exact_at(block, at).is_err() {
            break;
        }
        for (offset, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let behind = at + u64::try_from(offset).unwrap_or(0) + 1;
            if behind == length {
                continue;
            }
            found += 1;
            if found == lines_max {
                return (behind, found);
            }
        }
    }
    (0, found + 1)
}

fn parse_line(line: &str, names: &Named) -> Option<LogLine> {
    let mut fields = line.splitn(3, ' ');
    let since = Duration::from_micros(fields.next()?.parse().ok()?);
    let stream = if fields.next()? == "e" { Stream::Stderr } else { Stream::Stdout };
    let text = fields.next()?.to_owned();
    Some(LogLine {
        service: names.service.clone(),
        instance: names.instance.clone(),
        stream,
        time: UNIX_EPOCH + since,
        text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_last_lines_of_both_files_and_of_all_instances_by_time() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, times: &[u64]| {
            let text: String = times.iter().map(|time| format!("{time} o {name} {time}\n")).collect();
            std::fs::write(folder.path().join(name), text).unwrap();
        };
        write("a.log.1", &[1, 4]);
        write("a.log", &[5, 9]);
        write("b.log", &[2, 3, 7]);
        let check = |tail, expect: &[u64]| {
            let log = |name: &str| {
                let names = Named { service: name.into(), instance: name.into() };
                InstanceLog::open(names, &folder.path().join(format!("{name}.log")), tail)
            };
            let past = Past::of(vec![log("a"), log("b"), log("nobody")]);
            let times: Vec<u64> =
                past.map(|line| line.text.rsplit(' ').next().unwrap().parse().unwrap()).collect();
            assert_eq!(times, expect, "{tail:?}");
        };
        check(None, &[1, 2, 3, 4, 5, 7, 9]);
        check(Some(0), &[]);
        check(Some(1), &[7, 9]);
        check(Some(2), &[3, 5, 7, 9]);
        check(Some(3), &[2, 3, 4, 5, 7, 9]);
        check(Some(100), &[1, 2, 3, 4, 5, 7, 9]);
    }

    #[test]
    fn finds_lines_that_lie_across_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let text: String =
            (0..50).map(|n| format!("{n}{}\n", "x".repeat(BLOCK_BYTES / 3 * (n % 5)))).collect();
        std::fs::write(&path, &text).unwrap();
        let file = File::open(&path).unwrap();
        let length = text.len() as u64;
        for lines in 1..50 {
            let (begin, found) = last_lines(&file, length, lines);
            let tail = &text[usize::try_from(begin).unwrap()..];
            assert_eq!((found, tail.lines().count()), (lines, lines));
            assert!(tail.starts_with(&(50 - lines).to_string()));
        }
        assert_eq!(last_lines(&file, length, 50), (0, 50));
        assert_eq!(last_lines(&file, length, 51), (0, 50));
    }
}
