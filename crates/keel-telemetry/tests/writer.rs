//! Log lines arrive, whole and in order, and nothing waits for them.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use keel_telemetry::{Buffering, Log, LogWriter, Target};

fn open(writer: &LogWriter, path: &Path, buffering: Buffering) -> Log {
    writer.open(Target::File(File::create(path).unwrap()), buffering)
}

#[test]
fn every_worker_s_lines_arrive_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let writer = LogWriter::start(|problem| panic!("{problem}")).unwrap();
    let log = open(&writer, &path, Buffering::default());
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let log = log.for_worker();
            scope.spawn(move || {
                for number in 0..5000 {
                    log.append(format!("{worker} {number}\n").as_bytes());
                }
            });
        }
    });
    drop((log, writer));
    let text = fs::read_to_string(path).unwrap();
    let mut next = [0; 4];
    for line in text.lines() {
        let (worker, number) = line.split_once(' ').unwrap();
        let worker: usize = worker.parse().unwrap();
        assert_eq!(number, next[worker].to_string());
        next[worker] += 1;
    }
    assert_eq!(next, [5000; 4]);
}

#[test]
fn a_line_arrives_without_a_flush() {
    let (reader, pipe) = std::io::pipe().unwrap();
    let writer = LogWriter::start(|problem| panic!("{problem}")).unwrap();
    let log = writer.open(Target::File(File::from(OwnedFd::from(pipe))), Buffering::default());
    let mut lines = BufReader::new(reader).lines();
    for number in 0..20 {
        log.append(format!("{number}\n").as_bytes());
        assert_eq!(lines.next().unwrap().unwrap(), number.to_string());
    }
}

#[test]
fn a_buffer_waits_until_it_is_full_or_due() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let writer = LogWriter::start(|problem| panic!("{problem}")).unwrap();
    let (reader, pipe) = std::io::pipe().unwrap();
    let seen = writer.open(Target::File(File::from(OwnedFd::from(pipe))), Buffering::default());
    let mut seen_lines = BufReader::new(reader).lines();
    let mut after_a_round = || {
        // The writer looks at logs in turn; once this line is there it has seen those before, or the next round has.
        for _ in 0..2 {
            seen.append(b"x\n");
            seen_lines.next().unwrap().unwrap();
        }
        fs::read_to_string(&path).unwrap()
    };
    let log = open(&writer, &path, Buffering { bytes: 20, flush: None });
    log.append(b"123456789\n");
    assert_eq!(after_a_round(), "");
    log.append(b"abcdefghijk\n");
    assert_eq!(after_a_round(), "123456789\n");
    log.append(b"longer than the whole buffer\n");
    assert_eq!(after_a_round(), "123456789\nabcdefghijk\nlonger than the whole buffer\n");
    log.append(b"last\n");
    writer.flush();
    assert!(after_a_round().ends_with("last\n"));

    let (reader, pipe) = std::io::pipe().unwrap();
    let buffering = Buffering { bytes: 1000, flush: Some(Duration::from_millis(1)) };
    let due = writer.open(Target::File(File::from(OwnedFd::from(pipe))), buffering);
    due.append(b"due\n");
    assert_eq!(BufReader::new(reader).lines().next().unwrap().unwrap(), "due");
}

#[test]
fn a_stalled_reader_costs_lines_and_never_the_caller() {
    let (mut reader, pipe) = std::io::pipe().unwrap();
    let (told, problems) = mpsc::channel();
    let writer = LogWriter::start(move |problem| told.send(problem.to_string()).unwrap()).unwrap();
    let log = writer.open(Target::File(File::from(OwnedFd::from(pipe))), Buffering::default());
    let line = [[b'x'; 1023].as_slice(), b"\n"].concat();
    // Pipe and queue hold 1 MiB each at most, and what the writer holds is another.
    (0..4096).for_each(|_| log.append(&line));
    let all = std::thread::spawn(move || {
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        text
    });
    drop((log, writer));
    let arrived = all.join().unwrap().len() / 1024;
    let lost: usize =
        problems.iter().map(|text| text.split(' ').next().unwrap().parse::<usize>().unwrap()).sum();
    assert!(lost > 0 && arrived + lost == 4096, "{arrived} arrived, {lost} lost");
}

#[test]
fn a_pipe_that_nobody_reads_holds_up_neither_other_logs_nor_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (reader, pipe) = std::io::pipe().unwrap();
    let pipe = File::from(OwnedFd::from(pipe));
    rustix::fs::fcntl_setfl(&pipe, rustix::fs::fcntl_getfl(&pipe).unwrap() | rustix::fs::OFlags::NONBLOCK)
        .unwrap();
    let (told, problems) = mpsc::channel();
    let writer = LogWriter::start(move |problem| told.send(problem.to_string()).unwrap()).unwrap();
    let stalled = writer.open(Target::File(pipe), Buffering::default());
    let line = [[b'x'; 1023].as_slice(), b"\n"].concat();
    (0..4096).for_each(|_| stalled.append(&line));
    let path = folder.path().join("other.log");
    let other = open(&writer, &path, Buffering::default());
    other.append(b"goes on\n");
    writer.flush();
    assert_eq!(fs::read_to_string(&path).unwrap(), "goes on\n");
    drop((stalled, other, writer));
    let lost: usize =
        problems.iter().map(|text| text.split(' ').next().unwrap().parse::<usize>().unwrap()).sum();
    let mut arrived = Vec::new();
    let mut reader = reader;
    reader.read_to_end(&mut arrived).unwrap();
    let arrived = arrived.iter().filter(|byte| **byte == b'\n').count();
    // The line that the pipe has half of is lost.
    assert!(arrived > 0 && arrived + lost == 4096, "{arrived} arrived, {lost} lost");
}

#[test]
fn reopening_moves_later_lines_to_the_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name| folder.path().join(name);
    let writer = LogWriter::start(|problem| panic!("{problem}")).unwrap();
    let log = open(&writer, &path("old"), Buffering { bytes: 1000, flush: None });
    let worker = log.for_worker();
    worker.append(b"before\n");
    assert!(log.reopen(Target::File(File::create(path("new")).unwrap())).is_empty());
    worker.append(b"after\n");
    writer.flush();
    assert_eq!(fs::read_to_string(path("old")).unwrap(), "before\n");
    assert_eq!(fs::read_to_string(path("new")).unwrap(), "after\n");
}

#[test]
fn lines_go_to_files_named_with_each() {
    let folder = tempfile::tempdir().unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let theirs = told.clone();
    let writer = LogWriter::start(move |problem| theirs.lock().unwrap().push(problem.to_string())).unwrap();
    let log = writer.open(Target::ByPath, Buffering::default());
    for number in 0..200 {
        log.append_to(&folder.path().join(format!("{}.log", number % 100)), format!("{number}\n").as_bytes());
    }
    writer.flush();
    assert_eq!(fs::read_to_string(folder.path().join("7.log")).unwrap(), "7\n107\n");
    log.append_to(&folder.path().join("no/such/folder.log"), b"x\n");
    writer.flush();
    let told = told.lock().unwrap();
    assert!(told.len() == 1 && told[0].ends_with("no/such/folder.log can't be opened"), "{told:?}");
}

#[test]
fn the_end_of_the_last_handle_closes_a_log_behind_what_it_gathered() {
    let writer = LogWriter::start(|problem| panic!("{problem}")).unwrap();
    let (mut reader, pipe) = std::io::pipe().unwrap();
    let buffering = Buffering { bytes: 1000, flush: None };
    let log = writer.open(Target::File(File::from(OwnedFd::from(pipe))), buffering);
    let worker = log.for_worker();
    log.append(b"one\n");
    drop(log);
    worker.append(b"two\n");
    drop(worker);
    let mut text = String::new();
    // Ends once nobody holds the other end of the pipe.
    reader.read_to_string(&mut text).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["one", "two"]);
}
