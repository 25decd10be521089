//! The real binary.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
};

struct App {
    child: Child,
    address: SocketAddr,
}

impl App {
    fn start(variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel-demo-app"));
        command
            .env("PORT", "0")
            .env("NAME", "app1")
            .env("HOSTNAME", "app1-2")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let listened: SocketAddr = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
        App { child, address: ([127, 0, 0, 1], listened.port()).into() }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }

    fn term(&self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_response(input: &mut impl BufRead) -> String {
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let mut line = String::new();
        assert_ne!(input.read_line(&mut line).unwrap(), 0, "{head}");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        head += &line;
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}

#[test]
fn answers_on_one_connection() {
    let app = App::start(&[]);
    let stream = app.connect();
    let mut input = BufReader::new(&stream);
    for (request, expect) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "Hello from app1\n"),
        ("GET /health HTTP/1.1\r\nHost: x\r\n\r\n", "ok\n"),
        ("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "3 bytes to app1\n"),
        ("GET /slow?ms=1 HTTP/1.1\r\nHost: x\r\n\r\n", "Hello from app1\n"),
    ] {
        (&stream).write_all(request.as_bytes()).unwrap();
        assert_eq!(read_response(&mut input), expect);
    }
}

#[test]
fn term_finishes_what_is_in_flight_and_lets_idle_ones_go() {
    let mut app = App::start(&[]);
    let (idle, busy) = (app.connect(), app.connect());
    (&idle).write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    read_response(&mut BufReader::new(&idle));
    (&busy).write_all(b"POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").unwrap();
    let mut input = BufReader::new(&busy);
    let mut line = String::new();
    input.read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 100 Continue\r\n");
    input.read_line(&mut line).unwrap();
    app.term();
    let mut rest = Vec::new();
    (&idle).read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    assert!(app.child.try_wait().unwrap().is_none(), "a request is in flight");
    (&busy).write_all(b"ab").unwrap();
    assert_eq!(read_response(&mut input), "2 bytes to app1\n");
    assert!(app.child.wait().unwrap().success());
}

#[test]
fn the_ledger_says_what_came_and_what_was_answered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    let app = App::start(&[("LEDGER", path.to_str().unwrap())]);
    let stream = app.connect();
    (&stream).write_all(b"POST / HTTP/1.1\r\nX-Request-Id: r7\r\nContent-Length: 2\r\n\r\n").unwrap();
    while fs::read_to_string(&path).unwrap() != "received r7 app1-2\n" {
        std::thread::yield_now();
    }
    (&stream).write_all(b"ab").unwrap();
    read_response(&mut BufReader::new(&stream));
    (&stream).write_all(b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    (&stream).read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\r\nX-Instance: app1-2\r\nX-Body: 16-"), "{answer}");
    let expect = "received r7 app1-2\nanswered r7 app1-2 2-9e83486d\n\
                  received /a app1-2\nanswered /a app1-2 0-00000000\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), expect);
}

#[test]
fn a_port_that_is_none_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_evenkeel-demo-app")).env("PORT", "http").output().unwrap();
    assert!(!output.status.success());
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "error: PORT is `http`, which is no port\n");
}
