//! Instances as real processes. Run as root and as another user: the driver has two ways in many places.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test ends where it fails")]

mod support;

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use keel_model::{BuildStep, Dependency, DependencyCondition, Healthcheck, Protocol, ServiceName};
use keel_runner::{ApplyOptions, Ending, Exit, InstanceState, LogNews, Notice};
use support::*;

/// A port that nobody has on the wildcard address at this moment.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap().local_addr().unwrap().port()
}

/// A listener such as Evenkeel's: on the wildcard address, ready to share it with specific ones.
fn shared_listener(port: u16) -> TcpListener {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket, sockopt};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    sockopt::set_socket_reuseport(&socket, true).unwrap();
    bind(&socket, &std::net::SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).unwrap();
    listen(&socket, 16).unwrap();
    socket.into()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_and_a_listener_share_a_port() {
    let port = free_port();
    let _balancer = shared_listener(port);
    let mut app = server("app", "0.0.0.0", port);
    app.replicas = 2;
    let mut bench = Bench::up(vec![app]).await;
    let pool = bench.pool("app", 2).await;
    assert_eq!(pool.iter().map(|one| ask_instance(one, port)).collect::<Vec<_>>(), ["app-1", "app-2"]);
    assert_ne!(pool[0].address, pool[1].address);
    assert_eq!(pool[0].socket_address(port).unwrap().port(), port);
    // And they share it whoever comes first.
    drop(_balancer);
    let _balancer = shared_listener(port);
    assert_eq!(ask_instance(&pool[0], port), "app-1");
}

/// Before it listens, the instance asks its own port under every name that a program may use; then it listens and asks again.
/// What it saw is in its log: the name, then who answered or the error's name.
const ASKS_ITSELF: &str = r#"
import errno, os, select, socket, subprocess, sys
def ask(family, address, how):
    s = socket.socket(family); s.settimeout(5)
    try:
        if how == "fastopen": s.sendto(b"x", 0x20000000, address)
        elif how == "nonblocking":
            s.setblocking(False)
            e = s.connect_ex(address)
            if e not in (0, errno.EINPROGRESS): raise OSError(e, "")
            select.select([], [s], [], 5)
            e = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if e: raise OSError(e, "")
            s.setblocking(True); s.sendall(b"x")
        else: s.connect(address); s.sendall(b"x")
        return s.recv(99).decode() or "nothing"
    except OSError as e: return errno.errorcode.get(e.errno, repr(e))
    finally: s.close()
def all(stage):
    v4, v6 = socket.AF_INET, socket.AF_INET6
    me = socket.gethostbyname(socket.gethostname())
    for family, host in [(v4, h) for h in ["127.0.0.1", "127.0.0.2", "0.0.0.0", me] + sys.argv[2:]] + \
            [(v6, h) for h in ["::1", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0"]]:
        print(stage, host if host != me else "own", ask(family, (host, PORT), ""), flush=True)
    for how in ["nonblocking", "fastopen"]:
        print(stage, how, ask(v4, ("127.0.0.1", PORT), how), flush=True)
    child = "import socket; s = socket.create_connection(('localhost', %d), 5); s.sendall(b'x'); print(s.recv(99).decode())"
    ran = subprocess.run([sys.executable, "-c", child % PORT], capture_output=True, text=True)
    print(stage, "child", ran.stdout.strip() or ran.stderr.strip().split("\n")[-1].split(":")[0], flush=True)
PORT = int(sys.argv[1])
all("before")
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("0.0.0.0", PORT)); s.listen(64)
import threading
def serve():
    while True:
        c, _ = s.accept(); c.recv(99); c.sendall(os.environ["HOSTNAME"].encode()); c.close()
threading.Thread(target=serve, daemon=True).start()
all("after")
print("done", flush=True)
threading.Event().wait()
"#;

/// Gives an address of this machine that is no loopback address, if it has one.
fn outer_address() -> Option<String> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // A documentation address (RFC 5737): nothing is sent.
    socket.connect(("192.0.2.1", 9)).ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_port_leads_to_itself_or_to_nobody_under_every_name() {
    let port = free_port();
    // Evenkeel's listener and a sibling have the port, too.
    let balancer = shared_listener(port);
    let answers = |mut taken: std::net::TcpStream| {
        let _ = std::io::Write::write_all(&mut taken, b"the balancer");
    };
    std::thread::spawn(move || balancer.incoming().flatten().for_each(answers));
    let outer = outer_address();
    if outer.is_none() {
        skipped(
            "a part of its_own_port_leads_to_itself_or_to_nobody_under_every_name",
            "there is no network",
        );
    }
    let port_text = port.to_string();
    let mut argv = vec!["/usr/bin/python3", "-c", ASKS_ITSELF, &port_text];
    argv.extend(outer.as_deref());
    let mut app = service("app", &argv, Some(port));
    app.replicas = 2;
    let bench = Bench::up(vec![app]).await;
    for name in ["app-1", "app-2"] {
        let lines = bench.printed_until(name, "done").await;
        let asked = 10 + usize::from(outer.is_some()) + 1;
        assert_eq!(lines.len(), 2 * asked + 1, "{lines:?}");
        for line in lines.iter().filter(|line| *line != "done") {
            let (stage, rest) = line.split_once(' ').unwrap();
            let (how, answer) = rest.split_once(' ').unwrap();
            let expect = match (stage, how) {
                // One number with two names.
                (_, "fastopen") if answer == "ENOTSUP" => "ENOTSUP",
                (_, "fastopen") => "EOPNOTSUPP",
                ("before", "child") => "ConnectionRefusedError",
                ("before", _) => "ECONNREFUSED",
                _ => name,
            };
            assert_eq!(answer, expect, "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn io_uring_is_not_there() {
    let call = format!(
        "import ctypes; c = ctypes.CDLL(None, use_errno=True); \
         r = c.syscall({}, 4, ctypes.create_string_buffer(120)); print(r, ctypes.get_errno())",
        425
    );
    let bench = Bench::up(vec![server("app", "0.0.0.0", 5000)]).await;
    let (text, _) = bench.sh("app", &format!("/usr/bin/python3 -c '{call}'")).await;
    assert_eq!(text, "-1 38", "ENOSYS, for which every program has another way");
}

/// A healthcheck that passes before the instance listens doesn't make it ready.
#[tokio::test(flavor = "multi_thread")]
async fn ready_is_who_listens_and_is_well() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let script = format!(
        "import os, time\nwhile not os.path.exists({:?}): time.sleep(0.01)\nHOST, PORT = '0.0.0.0', 5000\n{SERVER}",
        dir.path().join("go")
    );
    let mut app = python("app", &script, Some(5000));
    process(&mut app).working_dir = dir.path().into();
    app.healthcheck = Some(Healthcheck { argv: vec!["/bin/true".into()], ..often() });
    let mut bench = Bench::new();
    let runner = bench.runner.clone();
    let up = tokio::spawn(async move { runner.apply(vec![app], ApplyOptions::default()).await });
    bench
        .until(|notice| matches!(notice, Notice::Slow { why, .. } if why.contains("port 5000")).then_some(()))
        .await;
    assert_eq!(bench.status("app").await.state, InstanceState::Starting);
    assert!(bench.status("app").await.health.unwrap().passed);
    std::fs::write(dir.path().join("go"), "").unwrap();
    within(up).await.unwrap().unwrap();
    let instance = bench.pool("app", 1).await.remove(0);
    assert_eq!(ask_instance(&instance, 5000), "app");
}

/// A stranger has the port on all addresses, and would share it. The healthcheck is his, if anybody lets it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_on_the_port_is_never_taken_for_the_instance() {
    let script = r#"
import socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
s.bind(("0.0.0.0", 0)); s.listen(64); print(s.getsockname()[1], flush=True)
while True:
    c, _ = s.accept(); c.recv(99); c.sendall(b"a stranger"); c.close()
"#;
    let mut stranger =
        Command::new("/usr/bin/python3").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(stranger.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port: u16 = line.trim().parse().unwrap();
    let script = format!("import time; time.sleep(0.3)\nHOST, PORT = '0.0.0.0', {port}\n{SERVER}");
    let mut app = python("app", &script, Some(port));
    let check = format!(
        "import socket; s = socket.create_connection(('localhost', {port}), 5); s.sendall(b'x'); print(s.recv(99))"
    );
    let argv = ["/usr/bin/python3", "-c", &check].map(str::to_owned).into();
    app.healthcheck = Some(Healthcheck { argv, ..often() });
    let mut bench = Bench::up(vec![app]).await;
    let instance = bench.pool("app", 1).await.remove(0);
    let at = instance.socket_address(port).unwrap();
    assert_ne!(at.port(), port);
    assert_eq!(ask(at), "app");
    let status = bench.status("app").await;
    assert_eq!(status.ports, [format!("{port} (as {})", at.port())]);
    assert!(status.health.unwrap().output.contains("app"));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

/// A replacement's own name is its own address, while the one it replaces serves under the service's.
#[tokio::test(flavor = "multi_thread")]
async fn its_own_name_is_itself_and_a_services_name_is_who_is_ready() {
    let script = format!(
        "import socket\nfor name in (socket.gethostname(), 'web'): print(name, socket.gethostbyname(name), flush=True)\n\
         HOST, PORT = '0.0.0.0', 5000\n{SERVER}"
    );
    let mut app = python("app", &script, Some(5000));
    app.aliases = vec!["web".into()];
    let mut bench = Bench::up(vec![app]).await;
    let first = bench.pool("app", 1).await.remove(0);
    within(bench.runner.restart(vec!["app".into()], Ending::drain(Duration::ZERO))).await.unwrap();
    let second = bench.status("app").await.address.unwrap();
    let lines = bench.printed_until("app", &format!("web {}", first.address)).await;
    assert!(lines.contains(&format!("app {second}")), "{second}: {lines:?}");
    // Nobody was ready when the first one started: the name was there, and led to nobody.
    let nobody = lines[1].strip_prefix("web ").unwrap();
    assert!(![first.address, second].iter().any(|one| one.to_string() == nobody), "{lines:?}");
    let refused = format!("exec 3<>/dev/tcp/{nobody}/5000");
    let (text, status) = bench.sh("app", &format!("bash -c '{refused}'")).await;
    assert!(status != 0 && text.contains("refused"), "{text}");
}

/// It closes its listening socket and opens another, as a server that restarts in place does.
#[tokio::test(flavor = "multi_thread")]
async fn who_listens_no_more_leaves_the_pool_and_is_back_at_once() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let script = r#"
import os, signal, socket, time
def listen():
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("0.0.0.0", 5000)); s.listen(64)
    return s
s = listen()
while not os.path.exists("close"): time.sleep(0.005)
s.close()
open("closed", "w").close()
while not os.path.exists("open"): time.sleep(0.005)
s = listen()
while True: time.sleep(1)
"#;
    let mut app = python("app", script, Some(5000));
    process(&mut app).working_dir = dir.path().into();
    let mut bench = Bench::up(vec![app]).await;
    let instance = bench.pool("app", 1).await.remove(0);
    // It listens: a doubt changes nothing.
    bench.runner.doubted(instance.incarnation);
    std::fs::write(dir.path().join("close"), "").unwrap();
    eventually("it closes its socket", || dir.path().join("closed").exists());
    bench.runner.doubted(instance.incarnation);
    let is_coming = |notice: &Notice| match notice {
        Notice::Pool { instances, starting, .. } => Some((instances.len(), *starting)),
        _ => None,
    };
    assert_eq!(bench.until(is_coming).await, (0, true));
    std::fs::write(dir.path().join("open"), "").unwrap();
    let again = bench.pool("app", 1).await.remove(0);
    assert_eq!((again.incarnation, again.address), (instance.incarnation, instance.address));
    assert_eq!(bench.status("app").await.restarts, 0);
}

fn often() -> Healthcheck {
    Healthcheck {
        argv: Vec::new(),
        interval: Duration::from_secs(30),
        timeout: Duration::from_secs(10),
        retries: 300,
        start_period: Duration::ZERO,
        start_interval: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn localhost_and_ipv6_binds_move_too() {
    for host in ["127.0.0.1", "::", "::1", "::ffff:0.0.0.0"] {
        let mut bench = Bench::up(vec![server("app", host, 5000)]).await;
        let pool = bench.pool("app", 1).await;
        assert_eq!(ask_instance(&pool[0], 5000), "app", "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_binds_both_families_serves() {
    let script = r#"
import asyncio
async def serve(reader, writer):
    await reader.read(100)
    writer.write(b"both")
    writer.close()
async def main():
    server = await asyncio.start_server(serve, [None, "::", "0.0.0.0"][1:], 5000)
    print([s.getsockname() for s in server.sockets], flush=True)
    await server.serve_forever()
asyncio.run(main())
"#;
    let mut bench = Bench::up(vec![python("app", script, Some(5000))]).await;
    let pool = bench.pool("app", 1).await;
    for _ in 0..4 {
        assert_eq!(ask_instance(&pool[0], 5000), "both");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_bind_of_a_port_fails_as_ever() {
    let script = r#"
import errno, socket, os
def bind():
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("0.0.0.0", 5000)); s.listen(); return s
first = bind()
try: bind(); print("bound twice", flush=True)
except OSError as e: print(errno.errorcode[e.errno], flush=True)
first.close()
again = bind()
print("bound again", flush=True)
while True: c, _ = again.accept(); c.sendall(b"ok"); c.close()
"#;
    let bench = Bench::up(vec![python("app", script, Some(5000))]).await;
    let (_, mut news) = bench.runner.logs(vec!["app".into()], Some(0)).await.unwrap();
    let printed = || async { bench.runner.logs(vec!["app".into()], None).await.unwrap().0 };
    while printed().await.len() < 2 {
        within(news.recv()).await.unwrap();
    }
    let text: Vec<_> = printed().await.into_iter().map(|line| line.text).collect();
    assert_eq!(text, ["EADDRINUSE", "bound again"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_do_not_disturb_trapped_calls() {
    let script = r#"
import signal, socket
told = 0
def tell(*_):
    global told
    told += 1
signal.signal(signal.SIGALRM, tell)
signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
for port in range(7000, 7300):
    s = socket.socket()
    s.bind(("0.0.0.0", port)); s.listen()
    c = socket.create_connection(("127.0.0.1", port))
    assert c.getpeername()[0] == s.getsockname()[0] != "127.0.0.1", (c.getpeername(), s.getsockname())
    c.close(); s.close()
signal.setitimer(signal.ITIMER_REAL, 0)
assert told > 100, told
print("undisturbed", flush=True)
"#;
    let mut app = python("app", script, None);
    app.restart.condition = keel_model::RestartCondition::Never;
    let bench = Bench::new();
    let (_, mut news) = bench.runner.logs(Vec::new(), Some(0)).await.unwrap();
    within(bench.runner.apply(vec![app], ApplyOptions::default())).await.unwrap();
    let Some(LogNews::Line(line)) = within(news.recv()).await else { panic!("it says nothing") };
    assert_eq!(line.text, "undisturbed");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_localhost_is_its_own_address_and_others_are_the_hosts() {
    let host = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let host_port = host.local_addr().unwrap().port();
    let mut app = server("app", "0.0.0.0", 5000);
    app.replicas = 2;
    let bench = Bench::up(vec![app]).await;
    let connect = |port| {
        format!(
            "/usr/bin/python3 -c 'import socket; s = socket.create_connection((\"localhost\", {port}), 5); \
                 s.sendall(b\"x\"); print(s.getpeername()[0], s.recv(99).decode())'"
        )
    };
    for name in ["app-1", "app-2"] {
        let (text, status) = bench.sh(name, &connect(5000)).await;
        let own = bench.status(name).await.address.unwrap();
        assert!(status == 0 && text.ends_with(&format!("{own} {name}")), "{text}");
    }
    let accepted = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = host.accept().unwrap();
        stream.read_exact(&mut [0]).unwrap();
        stream.write_all(b"the host").unwrap();
    });
    let (text, _) = bench.sh("app-1", &connect(host_port)).await;
    assert_eq!(text, "127.0.0.1 the host");
    accepted.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_resolve_and_follow_the_instances() {
    let mut app = server("app", "app", 5000);
    app.aliases = vec!["web".into()];
    let mut other = service("other", &["sleep", "1000"], None);
    other.replicas = 1;
    let bench = Bench::up(vec![app, other]).await;
    let lookup = "getent hosts app web other localhost | awk '{print $1}' | tr '\\n' ' '";
    let address = |status: keel_runner::InstanceStatus| status.address.unwrap().to_string();
    let (app, other) = (address(bench.status("app").await), address(bench.status("other").await));
    let (text, status) = bench.sh("other", lookup).await;
    assert_eq!((text.as_str(), status), (format!("{app} {app} {other} 127.0.0.1").as_str(), 0));
    let at_once = Ending::drain(Duration::ZERO);
    within(bench.runner.restart(vec!["app".into()], at_once)).await.unwrap();
    let moved = address(bench.status("app").await);
    assert_ne!(moved, app);
    let (text, _) = bench.sh("other", lookup).await;
    assert_eq!(text, format!("{moved} {moved} {other} 127.0.0.1"));
    bench.runner.set_names(vec![("proxy".into(), [127, 8, 8, 8].into())]);
    bench.runner.instances().await.unwrap();
    assert_eq!(bench.sh("other", "getent hosts proxy | cut -d' ' -f1").await.0, "127.8.8.8");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_has_a_tmp_a_hostname_and_a_clean_environment() {
    let bench = Bench::up(vec![server("a", "0.0.0.0", 5000), server("b", "0.0.0.0", 5000)]).await;
    assert_eq!(bench.sh("a", "echo mine > /tmp/file; uname -n; echo $PORT").await.0, "a\n5000");
    assert_eq!(bench.sh("b", "cat /tmp/file 2>&1; ls -ld /tmp | cut -c1-10").await.1, 0);
    assert_eq!(bench.sh("a", "cat /tmp/file").await.0, "mine");
    let (environment, _) = bench.sh("a", "env | cut -d= -f1 | sort | tr '\\n' ' '").await;
    assert!(!environment.contains("CARGO"), "{environment}");
    let (descriptors, _) = bench.sh("a", "ls /proc/self/fd | tr '\\n' ' '").await;
    assert_eq!(descriptors.split_whitespace().count(), 4, "{descriptors}: three streams, and ls's own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_is_known_at_once_and_mended() {
    let mut bench = Bench::up(vec![server("app", "0.0.0.0", 5000)]).await;
    let first = bench.pool("app", 1).await.remove(0);
    let pid = bench.status("app").await.pid.unwrap();
    let killed = Instant::now();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid as i32).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    bench.pools.clear();
    bench.pool("app", 0).await;
    let known = killed.elapsed();
    let second = bench.pool("app", 1).await.remove(0);
    assert_eq!(ask_instance(&second, 5000), "app");
    assert!(second.incarnation > first.incarnation);
    assert_eq!(bench.status("app").await.restarts, 1);
    eprintln!("known after {known:?}, mended after {:?}", killed.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_drains_first() {
    let script = format!(
        "import signal, sys\nsignal.signal(15, lambda *a: (print('told', flush=True), sys.exit(0)))\n\
                          HOST, PORT = '0.0.0.0', 5000\n{SERVER}"
    );
    let mut bench = Bench::up(vec![python("app", &script, Some(5000))]).await;
    let instance = bench.pool("app", 1).await.remove(0);
    let runner = bench.runner.clone();
    let stop = tokio::spawn(async move { runner.stop(vec!["app".into()], Ending::default()).await });
    bench.pool("app", 0).await;
    let drains = bench
        .until(|notice| match notice {
            Notice::Draining { instance, incarnation } => Some((instance.clone(), *incarnation)),
            _ => None,
        })
        .await;
    assert_eq!(drains, ("app".to_owned(), instance.incarnation));
    assert_eq!(bench.status("app").await.state, InstanceState::Draining);
    assert_eq!(ask_instance(&instance, 5000), "app", "what is in flight is served");
    bench.runner.drained("app", instance.incarnation);
    within(stop).await.unwrap().unwrap();
    let status = bench.status("app").await;
    assert_eq!((status.state, status.exit), (InstanceState::Exited, Some(Exit::Status(0))));
    let (lines, _) = bench.runner.logs(vec!["app".into()], None).await.unwrap();
    assert_eq!(lines.last().unwrap().text, "told");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ignores_its_signal_is_killed_with_all_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let script = format!(
        "trap '' TERM; setsid sleep 1000 & echo $! >> {0}; sleep 1000 & echo $! >> {0}; echo $$ >> {0}; wait; wait",
        pids.display()
    );
    let mut app = service("app", &["/bin/sh", "-c", &script], None);
    app.stop.grace_period = Duration::from_millis(100);
    process(&mut app).working_dir = dir.path().into();
    let bench = Bench::up(vec![app]).await;
    let started = || -> Vec<u32> {
        std::fs::read_to_string(&pids)
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect()
    };
    eventually("it starts three processes", || started().len() == 3);
    assert!(started().into_iter().all(lives));
    within(bench.runner.stop(vec!["app".into()], Ending::default())).await.unwrap();
    eventually("all of them end", || !started().into_iter().any(lives));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_never_leaves_the_pool_empty() {
    let mut bench = Bench::up(vec![server("app", "0.0.0.0", 5000)]).await;
    let old = bench.pool("app", 1).await.remove(0);
    let runner = bench.runner.clone();
    let restart = tokio::spawn(async move { runner.restart(vec!["app".into()], Ending::default()).await });
    let mut empty = 0;
    let draining = bench
        .until(|notice| match notice {
            Notice::Pool { instances, .. } => {
                empty += u32::from(instances.is_empty());
                None
            }
            Notice::Draining { incarnation, .. } => Some(*incarnation),
            _ => None,
        })
        .await;
    assert_eq!((draining, empty), (old.incarnation, 0));
    let new = bench.pool("app", 1).await.remove(0);
    assert_eq!((ask_instance(&old, 5000), ask_instance(&new, 5000)), ("app".into(), "app".into()));
    bench.runner.drained("app", draining);
    within(restart).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dies_at_once_backs_off_and_is_named() {
    let bench = Bench::new();
    let app = service("app", &["/bin/sh", "-c", "echo broken >&2; exit 7"], Some(5000));
    let error = within(bench.runner.apply(vec![app], ApplyOptions::default())).await.unwrap_err();
    assert_eq!(error.to_string(), "app: 3 times in a row right after its start, ended: exit status 7");
    let status = bench.status("app").await;
    assert!(matches!(status.state, InstanceState::CrashLoop | InstanceState::Starting), "{status:?}");
    assert!(status.restarts >= 2);
    let missing = service("app", &["no-such-command"], Some(5000));
    let missing = keel_model::Service { digest: "2".into(), ..missing };
    let error = within(bench.runner.apply(vec![missing], ApplyOptions::default())).await.unwrap_err();
    assert!(error.to_string().contains("there is no command `no-such-command` on this machine"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn healthchecks_run_inside() {
    let mut app = server("app", "0.0.0.0", 5000);
    let check = "import socket, os\nfor name in ('localhost', os.environ['HOSTNAME'], 'app'):\n  \
                 s = socket.create_connection((name, 5000)); s.sendall(b'x'); \
                 assert s.recv(99) == os.environ['HOSTNAME'].encode(), 'another answers'";
    app.healthcheck = Some(Healthcheck {
        argv: vec!["/usr/bin/python3".into(), "-c".into(), check.into()],
        interval: Duration::from_secs(30),
        timeout: Duration::from_secs(10),
        retries: 3,
        start_period: Duration::ZERO,
        start_interval: None,
    });
    app.replicas = 2;
    let mut bench = Bench::up(vec![app]).await;
    bench.pool("app", 2).await;
    assert!(bench.status("app-1").await.health.unwrap().passed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthcheck_may_print_more_than_a_pipe_holds_and_leave_a_process_behind() {
    let mut app = server("app", "0.0.0.0", 5000);
    let check = "head -c 300000 /dev/zero | tr '\\0' x; echo; echo the end; setsid sleep 1000 & exit 0";
    app.healthcheck = Some(Healthcheck {
        argv: vec!["/bin/sh".into(), "-c".into(), check.into()],
        interval: Duration::from_secs(300),
        timeout: Duration::from_secs(60),
        retries: 3,
        start_period: Duration::ZERO,
        start_interval: None,
    });
    let mut bench = Bench::up(vec![app]).await;
    bench.pool("app", 1).await;
    loop {
        let health = bench.status("app").await.health.unwrap();
        assert!(health.passed);
        // It is told a moment after the pool.
        if !health.output.is_empty() {
            assert!(health.output.ends_with("x\nthe end\n") && health.output.len() == 4096, "{health:?}");
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_for_what_it_depends_on_and_for_services_of_others() {
    let database = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut db = service("db", &[], None);
    db.run = keel_model::Run::External(database.local_addr().unwrap());
    let depends = |service: &str, condition| Dependency {
        service: ServiceName(service.into()),
        condition,
        required: true,
        restart: false,
    };
    let mut job = service("job", &["/bin/sh", "-c", "getent hosts db >/dev/null"], None);
    job.restart.condition = keel_model::RestartCondition::Never;
    job.depends_on = vec![depends("db", DependencyCondition::Healthy)];
    let mut app = server("app", "0.0.0.0", 5000);
    app.depends_on = vec![depends("job", DependencyCondition::Completed)];
    let mut bench = Bench::up(vec![app, job, db]).await;
    assert_eq!(bench.status("job").await.exit, Some(Exit::Status(0)));
    assert_eq!(bench.status("app").await.state, InstanceState::Ready);
    let runner = bench.runner.clone();
    let down = tokio::spawn(async move { runner.down(Ending::default()).await });
    let drains = |notice: &Notice| match notice {
        Notice::Draining { incarnation, .. } => Some(*incarnation),
        _ => None,
    };
    let incarnation = bench.until(drains).await;
    bench.runner.drained("app", incarnation);
    within(down).await.unwrap().unwrap();
    assert_eq!(bench.runner.instances().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn udp_moves_only_where_it_is_listed() {
    let script = r#"
import socket
for port in (5353, 5454):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("0.0.0.0", port)); print(s.getsockname()[0], flush=True)
import time; time.sleep(1000)
"#;
    let mut app = python("app", script, None);
    app.ports.push(keel_model::Port { number: 5353, protocol: Protocol::Udp });
    let bench = Bench::up(vec![app]).await;
    let (_, mut news) = bench.runner.logs(vec!["app".into()], Some(0)).await.unwrap();
    let printed = || async { bench.runner.logs(vec!["app".into()], None).await.unwrap().0 };
    while printed().await.len() < 2 {
        within(news.recv()).await.unwrap();
    }
    let own = bench.status("app").await.address.unwrap().to_string();
    let text: Vec<_> = printed().await.into_iter().map(|line| line.text).collect();
    assert_eq!(text, [own, "0.0.0.0".into()]);
}

/// The file lists none of what these servers have: each still has it, or it is said that it doesn't.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_file_does_not_list_ties_no_instances_together() {
    let port = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap().local_addr().unwrap().port();
    let name = format!("keel-test-{}", std::process::id() * 7 + u32::from(is_root()));
    let script = format!(
        r#"
import ctypes, errno, os, socket
def udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("0.0.0.0", {port})); return s
first = udp()
try: udp(); print("bound twice")
except OSError as e: assert e.errno == errno.EADDRINUSE, e
os.close(os.open("/dev/shm/{name}", os.O_CREAT | os.O_EXCL))
IPC_CREAT, IPC_EXCL = 0o1000, 0o2000
assert ctypes.CDLL(None).shmget(0x6b65656c, 4096, IPC_CREAT | IPC_EXCL | 0o600) >= 0
named = socket.socket(socket.AF_UNIX)
try: named.bind("\0{name}"); named.listen()
except OSError as e: assert e.errno == errno.EADDRINUSE, e
HOST, PORT = "0.0.0.0", 5000
{SERVER}"#
    );
    let mut app = python("app", &script, Some(5000));
    app.replicas = 2;
    let mut bench = Bench::up(vec![app]).await;
    let said = format!("another has the abstract socket @{name}, which is one for all of this host");
    bench.until(|notice| matches!(notice, Notice::Slow { why, .. } if *why == said).then_some(())).await;
    within(bench.runner.restart(vec!["app".into()], Ending::drain(Duration::ZERO))).await.unwrap();
    for instance in ["app-1", "app-2"] {
        let lines = bench.printed_until(instance, "listening").await;
        assert!(!lines.contains(&"bound twice".to_owned()), "{lines:?}");
        assert_eq!(bench.sh(instance, "ls /dev/shm").await.0, name, "a command in it sees what it has");
    }
    assert!(!std::path::Path::new("/dev/shm").join(&name).exists());
    let mut notes = Vec::new();
    for instance in ["app-1", "app-2"] {
        notes.push(bench.status(instance).await.note.unwrap_or_default());
    }
    let at_own = format!("has UDP port {port} at its own address only");
    assert!(notes.iter().any(|note| note.contains(&at_own)), "{notes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_one_and_run_is_apart() {
    let bench = Bench::up(vec![server("app", "0.0.0.0", 5000)]).await;
    let request = |name: &str, script: &str, terminal| keel_runner::ExecRequest {
        name: name.into(),
        argv: vec!["/bin/sh".into(), "-c".into(), script.into()],
        environment: vec![("EXTRA".into(), "yes".into())],
        terminal,
    };
    let size = keel_runner::TerminalSize { rows: 33, columns: 99 };
    let mut exec = bench
        .runner
        .exec(request("app", "stty size; read x; echo got $x $EXTRA; exit 4", Some(size)))
        .await
        .unwrap();
    let mut text = String::new();
    let status = loop {
        match within(exec.next()).await {
            keel_runner::ExecOutput::Output(bytes) => {
                text.push_str(&String::from_utf8_lossy(&bytes));
                if text.contains("33 99") && !text.contains("word") {
                    exec.write(b"word\n");
                }
            }
            keel_runner::ExecOutput::Error(_) => panic!("a terminal has one output"),
            keel_runner::ExecOutput::InputTaken(_) => {}
            keel_runner::ExecOutput::Exit(status) => break status,
        }
    };
    assert!(status == 4 && text.contains("got word yes"), "{status} {text}");
    let mut run =
        within(bench.runner.run_once(request("app", "echo $HOSTNAME $PORT; exit 3", None))).await.unwrap();
    run.close_input();
    let mut text = String::new();
    let status = loop {
        match within(run.next()).await {
            keel_runner::ExecOutput::Output(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
            keel_runner::ExecOutput::Error(_) | keel_runner::ExecOutput::InputTaken(_) => {}
            keel_runner::ExecOutput::Exit(status) => break status,
        }
    };
    assert_eq!((text.trim(), status), ("app-run-1 5000", 3));
}

/// The other half of the next test: a supervisor that will be killed.
#[tokio::test(flavor = "multi_thread")]
async fn helper_that_is_killed() {
    let Ok(dir) = std::env::var("KEEL_TEST_KILLED") else { return };
    // The last but one has no mark in its environment.
    let script = "setsid sleep 1000 & echo $!; sleep 1000 & echo $!; \
                  env -i setsid sleep 1000 & echo $!; echo $$; wait";
    let app = service("app", &["/bin/sh", "-c", script], None);
    let settings = keel_runner::Settings::new("killed", &dir);
    let (runner, _notices) = keel_runner::start(settings).unwrap();
    let (_, mut news) = runner.logs(Vec::new(), Some(0)).await.unwrap();
    runner.apply(vec![app], ApplyOptions::default()).await.unwrap();
    for _ in 0..KILLED_PROCESSES {
        let Some(LogNews::Line(line)) = news.recv().await else { panic!("it says nothing") };
        println!("PID {}", line.text);
    }
    std::future::pending::<()>().await;
}

/// How many processes the instance of a [`Killed`] has.
const KILLED_PROCESSES: usize = 4;

/// A runner in a process of its own, and the processes of its instance, the main one last.
struct Killed {
    process: std::process::Child,
    pids: Vec<u32>,
    dir: tempfile::TempDir,
}

impl Killed {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["helper_that_is_killed", "--exact", "--nocapture"])
            .env("KEEL_TEST_KILLED", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let pid_of = |line: String| line.split("PID ").nth(1).and_then(|pid| pid.trim().parse().ok());
        let pids: Vec<u32> = lines.filter_map(pid_of).take(KILLED_PROCESSES).collect();
        assert!(pids.len() == KILLED_PROCESSES && pids.iter().copied().all(lives), "{pids:?}");
        Self { process, pids, dir }
    }

    /// Gives the process that watches over the runner.
    fn guardian(&self) -> Option<u32> {
        let children = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("children"));
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let lists: Vec<String> = threads.filter_map(|thread| children(thread.unwrap()).ok()).collect();
        let pids = lists.iter().flat_map(|list| list.split_ascii_whitespace());
        let mut pids = pids.filter_map(|pid| pid.parse().ok());
        pids.find(|pid| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim() == "keel-guardian" && lives(*pid)
        })
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn any_lives(&self) -> bool {
        self.pids.iter().copied().any(lives)
    }
}

fn signal(pid: u32, signal: i32) {
    let pidfd = keel_sys::process::pidfd_open(i32::try_from(pid).unwrap()).unwrap();
    keel_sys::process::pidfd_send_signal(pidfd, signal).unwrap();
}

#[test]
fn sigkill_of_the_runner_leaves_no_orphan() {
    let mut killed = Killed::start();
    killed.kill();
    eventually("an orphan lives on", || !killed.any_lives());
}

#[test]
fn a_guardian_that_is_killed_is_followed_by_another() {
    let mut killed = Killed::start();
    let first = killed.guardian().unwrap();
    signal(first, 9);
    eventually("there is no other guardian", || killed.guardian().is_some_and(|second| second != first));
    assert!(killed.pids.iter().copied().all(lives));
    // It was told of what runs before it was there.
    killed.kill();
    eventually("an orphan lives on", || !killed.any_lives());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigkill_of_runner_and_guardian_leaves_nothing_for_the_next_run() {
    let mut killed = Killed::start();
    let run = killed.dir.path().join("run");
    assert!(run.join("app-1").exists());
    let mut stranger = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
    // It can't replace the guardian then.
    signal(killed.process.id(), 19);
    signal(killed.guardian().unwrap(), 9);
    killed.kill();
    assert!(killed.any_lives(), "those that left the group and aren't its children");
    let settings = keel_runner::Settings::new("killed", killed.dir.path());
    let (runner, _notices) = keel_runner::start(settings).unwrap();
    assert!(!killed.any_lives());
    assert!(!run.join("app-1").exists());
    assert!(stranger.try_wait().unwrap().is_none());
    within(runner.down(Ending::default())).await.unwrap();
    assert!(!killed.dir.path().join("instances").exists());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_what_left_its_group_nor_of_its_files_when_a_command_has_ended() {
    let number = format!("1000.{}", std::process::id());
    let script = format!(
        "setsid sleep {number} & \
         (unshare -rpfm --mount-proc sleep {number} || exec sleep {number}) & wait"
    );
    let bench = Bench::up(vec![service("app", &["/bin/sh", "-c", &script], None)]).await;
    let sleeps = || {
        let command = format!("sleep\0{number}\0");
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines.filter(|line| line == command.as_bytes()).count()
    };
    eventually("both run", || sleeps() == 2);
    let run = bench.dir.path().join("state/run");
    within(bench.runner.stop(vec!["app".into()], Ending::drain(Duration::ZERO))).await.unwrap();
    assert_eq!(sleeps(), 0);
    assert_eq!(std::fs::read_dir(&run).unwrap().count(), 0);
    within(bench.runner.down(Ending::default())).await.unwrap();
    assert!(!bench.dir.path().join("state/instances").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_a_stranger_has_on_all_addresses_is_translated() {
    let stranger = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = stranger.local_addr().unwrap().port();
    let mut bench = Bench::up(vec![server("app", "0.0.0.0", port)]).await;
    let instance = bench.pool("app", 1).await.remove(0);
    assert_ne!(instance.socket_address(port).unwrap().port(), port);
    assert_eq!(ask_instance(&instance, port), "app");
    let ports = bench.status("app").await.ports;
    assert_eq!(ports, [format!("{port} (as {})", instance.socket_address(port).unwrap().port())]);
}

/// The other half of the next test: a runner under somebody else's trap.
#[tokio::test(flavor = "multi_thread")]
async fn helper_under_a_trap() {
    if std::env::var("KEEL_TEST_TRAPPED").is_err() {
        return;
    }
    let script = format!("import os\nHOST, PORT = '0.0.0.0', int(os.environ['PORT'])\n{SERVER}");
    let mut app = python("app", &script, Some(5000));
    app.replicas = 12;
    let mut bench = Bench::up(vec![app]).await;
    for instance in bench.pool("app", 12).await {
        assert_eq!(instance.address, Ipv4Addr::LOCALHOST);
        assert_eq!(ask_instance(&instance, 5000), instance.name);
    }
    let note = bench.status("app-1").await.note.unwrap();
    assert!(note.starts_with("no address of its own, must listen on $PORT: "), "{note}");
}

#[test]
fn under_another_trap_the_port_is_said_in_the_environment() {
    use keel_sys::{
        sandbox::{Sandbox, TrapMode, spawn},
        seccomp::{Answer, Trap},
    };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["helper_under_a_trap", "--exact", "--nocapture"]).env("KEEL_TEST_TRAPPED", "1");
    let sandbox = Sandbox { trap: TrapMode::On, ..Sandbox::default() };
    let mut spawned = match spawn(command, sandbox) {
        Ok(spawned) => spawned,
        Err(error) => {
            let why = format!("{:?}: {}", error.step, error.source);
            return skipped("under_another_trap_the_port_is_said_in_the_environment", &why);
        }
    };
    let trap = Trap::from(spawned.trap.take().unwrap());
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_over = over.clone();
    std::thread::spawn(move || {
        // Fails for a caller that died or was interrupted; there will be others.
        while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
            if let Ok(notification) = trap.receive() {
                let _ = trap.answer(notification.id, Answer::Continue);
            }
        }
    });
    let ended = spawned.child.wait().unwrap();
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(ended.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_and_not_run_is_built_before_its_first_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut app = service("app", &["./made"], None);
    app.replicas = 0;
    let command = "printf '#!/bin/sh\\nexec sleep 1000\\n' > made; chmod +x made".to_owned();
    process(&mut app).working_dir = dir.path().into();
    process(&mut app).build = vec![BuildStep::Shell { command, working_dir: dir.path().into() }];
    let bench = Bench::up(vec![app]).await;
    assert!(!dir.path().join("made").exists());
    within(bench.runner.scale(ServiceName("app".into()), 1)).await.unwrap();
    assert_eq!(bench.status("app").await.state, InstanceState::Ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_end_with_the_last_handle() {
    let bench = Bench::up(vec![server("app", "0.0.0.0", 5000)]).await;
    let pid = bench.status("app").await.pid.unwrap();
    assert!(lives(pid));
    drop(bench);
    eventually("it lives on", || !lives(pid));
}

#[test]
fn a_state_folder_has_one_runner() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let dir = tempfile::tempdir().unwrap();
    let first = keel_runner::start(keel_runner::Settings::new("p", dir.path())).unwrap();
    let error = keel_runner::start(keel_runner::Settings::new("p", dir.path())).unwrap_err();
    assert!(
        error.to_string().ends_with(&format!("in use by another evenkeel (pid {})", std::process::id())),
        "{error}"
    );
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_low_port_without_privilege_is_translated() {
    let first: u16 = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    if is_root() || first <= 80 {
        skipped("a_low_port_without_privilege_is_translated", "this user may bind port 80");
        return;
    }
    let bench_services = vec![server("app", "0.0.0.0", 80), server("other", "0.0.0.0", 80)];
    let mut bench = Bench::up(bench_services).await;
    let instance = bench.pool("app", 1).await.remove(0);
    assert_ne!(instance.socket_address(80).unwrap().port(), 80);
    assert_eq!(ask_instance(&instance, 80), "app");
    let connect = |name: &str| {
        format!(
            "/usr/bin/python3 -c 'import socket; s = socket.create_connection((\"{name}\", 80), 5); \
                 s.sendall(b\"x\"); print(s.recv(99).decode())'"
        )
    };
    assert_eq!(bench.sh("app", &connect("localhost")).await.0, "app");
    assert_eq!(bench.sh("app", &connect("other")).await.0, "other");
}

/// Everything above once more as a user without rights, where this one can become such a one.
#[test]
fn all_of_this_as_nobody() {
    const NAME: &str = "all_of_this_as_nobody";
    const NOBODY: u32 = 65534;
    if !is_root() {
        skipped(NAME, "this user isn't root");
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--skip", NAME, "--test-threads=2"]).uid(NOBODY).gid(NOBODY).env_clear();
    command.env("PATH", "/usr/bin:/bin").env("HOME", "/").current_dir("/");
    let output = match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return skipped(NAME, "nobody may not read this program");
        }
        output => output.unwrap(),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}
