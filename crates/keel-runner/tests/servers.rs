//! Servers as people run them, unchanged. What isn't on this machine is skipped by name; the Python ones need
//! `KEEL_TEST_VENV`, a virtual environment with flask, gunicorn and uvicorn.

#![expect(clippy::expect_used, reason = "a test ends where it fails")]

mod support;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use keel_model::{Healthcheck, Service};
use support::*;

/// Runs two instances of a server on the same port and checks that each answers for itself.
async fn check(mut service: Service, port: u16, path: &str, expect: &str) {
    service.replicas = 2;
    let mut bench = Bench::up(vec![service]).await;
    let pool = bench.pool("app", 2).await;
    for instance in &pool {
        let address = instance.socket_address(port).expect("it has the port");
        for _ in 0..3 {
            let answer = get(address, path);
            assert!(answer.contains(expect), "{}: {answer}", instance.name);
        }
    }
    assert_ne!(pool.first().map(|one| one.address), pool.last().map(|one| one.address));
}

fn get(address: SocketAddr, path: &str) -> String {
    request(address, &format!("GET {path} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"))
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.exists());
    if found.is_none() {
        keel_testkit::not_run(format_args!("there is no {name}"));
    }
    found
}

fn venv() -> Option<PathBuf> {
    let venv = std::env::var_os("KEEL_TEST_VENV").map(PathBuf::from);
    if venv.is_none() {
        keel_testkit::not_run("KEEL_TEST_VENV isn't set");
    }
    venv
}

/// A folder with one file, and a service that runs in it.
fn in_folder(folder: &Path, file: &str, text: &str, argv: &[&str], port: u16) -> Service {
    std::fs::write(folder.join(file), text).expect("a file");
    let mut app = service("app", argv, Some(port));
    process(&mut app).working_dir = folder.into();
    app
}

const FLASK: &str = r#"
from flask import Flask
app = Flask(__name__)
@app.get("/")
def hello(): return "Hello from flask"
if __name__ == "__main__": app.run(host="0.0.0.0", port=5000, debug=DEBUG)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn flask_with_and_without_the_reloader() {
    let Some(venv) = venv() else { return };
    for debug in ["False", "True"] {
        let folder = tempfile::tempdir().expect("a folder");
        let text = FLASK.replace("DEBUG", debug);
        let mut app = in_folder(folder.path(), "app.py", &text, &["python", "app.py"], 5000);
        process(&mut app).path_prefix = vec![venv.join("bin")];
        check(app, 5000, "/", "Hello from flask").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gunicorn_with_workers() {
    let Some(venv) = venv() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    for bind in ["0.0.0.0:8000", "[::]:8000", "127.0.0.1:8000"] {
        let argv = ["gunicorn", "-w", "2", "-b", bind, "app:app"];
        let mut app = in_folder(folder.path(), "app.py", FLASK, &argv, 8000);
        process(&mut app).path_prefix = vec![venv.join("bin")];
        check(app, 8000, "/", "Hello from flask").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uvicorn_on_all_its_binds() {
    let Some(venv) = venv() else { return };
    let text = r#"
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"Hello from uvicorn"})
"#;
    let folder = tempfile::tempdir().expect("a folder");
    for argv in [
        &["uvicorn", "app:app", "--host", "0.0.0.0", "--port", "8000"][..],
        &["uvicorn", "app:app", "--host", "", "--port", "8000"],
        &["uvicorn", "app:app", "--host", "::", "--port", "8000", "--workers", "2"],
    ] {
        let mut app = in_folder(folder.path(), "app.py", text, argv, 8000);
        process(&mut app).path_prefix = vec![venv.join("bin")];
        check(app, 8000, "/", "Hello from uvicorn").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_on_its_default_bind() {
    let Some(node) = program("node") else { return };
    let text = "require('http').createServer((q, r) => r.end('Hello from node')).listen(3000)";
    let folder = tempfile::tempdir().expect("a folder");
    let app = in_folder(folder.path(), "app.js", text, &[&node.to_string_lossy(), "app.js"], 3000);
    check(app, 3000, "/", "Hello from node").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn java_http_server() {
    let Some(java) = program("java") else { return };
    let text = r#"
import com.sun.net.httpserver.*;
public class App {
    public static void main(String[] a) throws Exception {
        HttpServer s = HttpServer.create(new java.net.InetSocketAddress(8080), 0);
        s.createContext("/", x -> { byte[] b = "Hello from java".getBytes(); x.sendResponseHeaders(200, b.length); x.getResponseBody().write(b); x.close(); });
        s.start();
    }
}
"#;
    let folder = tempfile::tempdir().expect("a folder");
    let app = in_folder(folder.path(), "App.java", text, &[&java.to_string_lossy(), "App.java"], 8080);
    check(app, 8080, "/", "Hello from java").await;
}

/// Says whether a 64-bit ELF file names a dynamic linker (elf(5), PT_INTERP).
fn asks_for_a_linker(elf: &[u8]) -> bool {
    let number = |at: usize, size: usize| {
        elf.iter().skip(at).take(size).rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    let (table, size, count) = (number(0x20, 8), number(0x36, 2), number(0x38, 2));
    (0..count).any(|at| number(table + at * size, 4) == 3)
}

/// No library stands between it and the kernel's calls.
#[tokio::test(flavor = "multi_thread")]
async fn a_static_rust_binary() {
    let text = r#"
use std::{io::{Read, Write}, net::TcpListener};
fn main() {
    let bind = std::env::args().nth(1).unwrap();
    for client in TcpListener::bind(bind).unwrap().incoming() {
        let mut client = client.unwrap();
        let _ = client.read(&mut [0; 1024]);
        let _ = client.write_all(b"HTTP/1.0 200 OK\r\n\r\nHello from a static binary");
    }
}
"#;
    let Some(rustc) = program("rustc") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    assert!(
        asks_for_a_linker(&std::fs::read("/proc/self/exe").expect("this test")),
        "even this test asks for none"
    );
    let (source, binary) = (folder.path().join("app.rs"), folder.path().join("app"));
    std::fs::write(&source, text).expect("a file");
    let mut build = std::process::Command::new(rustc);
    build.args(["-C", "target-feature=+crt-static", "-o"]).arg(&binary).arg(&source);
    let built = build.output().expect("rustc runs");
    if !built.status.success() {
        let why = String::from_utf8_lossy(&built.stderr);
        return keel_testkit::not_run(format_args!("rustc links nothing statically: {why}"));
    }
    assert!(!asks_for_a_linker(&std::fs::read(&binary).expect("the binary")), "it isn't static");
    let program = binary.to_string_lossy().into_owned();
    for bind in ["0.0.0.0:8080", "127.0.0.1:8080", "[::]:8080"] {
        check(service("app", &[&program, bind], Some(8080)), 8080, "/", "Hello from a static binary").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_as_an_instance() {
    let Some(nginx) = program("nginx") else { return };
    let text = "daemon off; error_log stderr; pid /tmp/nginx.pid; worker_processes 2; events {}
http { access_log off; server { listen 80; listen [::]:80; location / { return 200 'Hello from nginx'; } }
client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c; uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e; }";
    let folder = tempfile::tempdir().expect("a folder");
    let conf = folder.path().join("nginx.conf").to_string_lossy().into_owned();
    let argv = [&*nginx.to_string_lossy(), "-c", &conf];
    check(in_folder(folder.path(), "nginx.conf", text, &argv, 80), 80, "/", "Hello from nginx").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_of_localhost_as_healthcheck() {
    let Some(curl) = program("curl") else { return };
    let mut app = service("app", &["/usr/bin/python3", "-m", "http.server", "5000"], Some(5000));
    app.healthcheck = Some(Healthcheck {
        argv: vec![curl.to_string_lossy().into_owned(), "-f".into(), "http://localhost:5000/".into()],
        interval: std::time::Duration::from_secs(30),
        timeout: std::time::Duration::from_secs(5),
        retries: 3,
        start_period: std::time::Duration::ZERO,
        start_interval: None,
    });
    check(app, 5000, "/", "Directory listing").await;
}
