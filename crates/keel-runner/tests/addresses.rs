//! Addresses, ports and names of instances: theirs alone. Run as root and as another user, as in `process.rs`.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test ends where it fails")]

mod support;

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, TcpListener},
    process::{Command, Stdio},
    time::Duration,
};

use keel_model::{Healthcheck, Protocol};
use keel_runner::{ApplyOptions, Ending, InstanceState, LogNews, Notice};
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

/// An address of this machine that is no loopback address, if it has one.
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
        keel_testkit::not_run("the part with an address of a network: there is none");
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

/// Calls of 32-bit programs and of x32 have other numbers: they reach this host's port 5000 no more than the native ones.
#[tokio::test(flavor = "multi_thread")]
async fn calls_of_other_tables_are_trapped_or_not_there() {
    let script = r#"
import ctypes, errno, socket, struct, sys
c = ctypes.CDLL(None, use_errno=True)
c.mmap.restype = ctypes.c_void_p
# Memory that a 32-bit address reaches, and in it a function: its arguments go to eax, ebx, ecx and edx of `int 0x80`.
MAP_32BIT = 0x40
page = c.mmap(None, 4096, 7, 0x22 | MAP_32BIT, -1, 0)
code = bytes.fromhex("53 89f8 89f3 4189c8 89d1 4489c2 cd80 5b c3".replace(" ", ""))
ctypes.memmove(page, code, len(code))
int80 = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint] * 4)(page)
def at(host, port):
    raw = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(port), socket.inet_aton(host))
    ctypes.memmove(page + 1024, raw, 16); return page + 1024
def name(result): return "0" if result == 0 else errno.errorcode[-result]
SOCKETCALL, BIND, CONNECT, X32 = 102, 361, 362, 0x40000000
t = socket.socket()
print("connect", name(int80(CONNECT, t.fileno(), at("127.0.0.1", 5000), 16)), flush=True)
ctypes.memmove(page + 2048, struct.pack("=III", t.fileno(), at("127.0.0.1", 5000), 16), 12)
print("socketcall", name(int80(SOCKETCALL, 3, page + 2048, 0)), flush=True)
r = c.syscall(X32 | 42, t.fileno(), ctypes.c_void_p(at("127.0.0.1", 5000)), 16)
print("x32", r, errno.errorcode[ctypes.get_errno()], flush=True)
s = socket.socket()
print("bind", name(int80(BIND, s.fileno(), at("0.0.0.0", 5000), 16)), s.getsockname()[0] == socket.gethostbyname(socket.gethostname()), flush=True)
s.listen()
print("done", flush=True)
import time; time.sleep(1000)
"#;
    if !cfg!(target_arch = "x86_64") || !has_32_bit_calls() {
        return keel_testkit::not_run("the kernel has no 32-bit calls");
    }
    let bench = Bench::up(vec![python("app", script, Some(5000))]).await;
    let lines = bench.printed_until("app", "done").await;
    assert_eq!(lines, ["connect ECONNREFUSED", "socketcall ENOSYS", "x32 -1 ENOSYS", "bind 0 True", "done"]);
}

fn has_32_bit_calls() -> bool {
    std::path::Path::new("/proc/sys/abi/vsyscall32").exists()
}

/// A signal may interrupt a bind that was done; on kernels before 5.19 it is then made again.
#[tokio::test(flavor = "multi_thread")]
async fn a_bind_that_is_made_again_is_in_place() {
    let name = format!("keel-again-{}", std::process::id());
    let script = format!(
        r#"
import socket
def twice(what, s, at):
    s.bind(at)
    try: s.bind(at); print(what, "in place", flush=True)
    except OSError as e: print(what, e, flush=True)
    return s
v4, v6, udp = socket.AF_INET, socket.AF_INET6, socket.SOCK_DGRAM
first = twice("moved", socket.socket(), ("0.0.0.0", 5000))
first.listen()
second = socket.socket(v6); second.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
twice("aside", second, ("::", 5000))
twice("shared", socket.socket(v4, udp), ("0.0.0.0", {}))
twice("abstract", socket.socket(socket.AF_UNIX), "\0{name}")
print("done", flush=True)
import time; time.sleep(1000)
"#,
        free_port()
    );
    let bench = Bench::up(vec![python("app", &script, Some(5000))]).await;
    let lines = bench.printed_until("app", "done").await;
    assert_eq!(lines, ["moved in place", "aside in place", "shared in place", "abstract in place", "done"]);
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

/// The kernel keeps 15 bytes of a name, which may end within a character.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_name_is_no_text_has_its_address_and_ends() {
    let script = r#"
import ctypes, os, socket, time
ctypes.CDLL(None).prctl(15, "обработчик".encode())
s = socket.socket(); s.bind(("0.0.0.0", 5000)); s.listen()
if not os.fork(): os.setsid(); time.sleep(1000)
print(s.getsockname()[0] == socket.gethostbyname(socket.gethostname()), flush=True)
print("done", flush=True)
time.sleep(1000)
"#;
    let bench = Bench::up(vec![python("app", script, Some(5000))]).await;
    assert_eq!(bench.printed_until("app", "done").await, ["True", "done"]);
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

/// The second family gets a port that nobody asks for: at `::1`, or where that is no address of this host at the
/// instance's own.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_binds_the_second_family_apart_serves() {
    let script = r#"
import socket
s = socket.socket(); s.bind(("0.0.0.0", 5000)); s.listen()
v6 = socket.socket(socket.AF_INET6); v6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
v6.bind(("::", 5000)); v6.listen()
assert v6.getsockname()[1] not in (0, 5000), v6.getsockname()
while True: c, _ = s.accept(); c.recv(99); c.sendall(b"served"); c.close()
"#;
    let mut bench = Bench::up(vec![python("app", script, Some(5000))]).await;
    let pool = bench.pool("app", 1).await;
    assert_eq!(ask_instance(&pool[0], 5000), "served");
}

#[test]
fn the_second_family_is_bound_where_ipv6_is_switched_off() {
    if !is_root() {
        return keel_testkit::not_run("this user may not make a network");
    }
    let inside = "ip link set lo up && echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-n", "sh", "-c", inside, "sh"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "a_server_that_binds_the_second_family_apart_serves"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && (said.contains("unshare:") || said.contains("disable_ipv6")) {
        return keel_testkit::not_run(said);
    }
    assert!(output.status.success(), "{}{said}", String::from_utf8_lossy(&output.stdout));
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
    while printed().await.count() < 2 {
        within(news.recv()).await.unwrap();
    }
    let text: Vec<_> = printed().await.map(|line| line.text).collect();
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

#[tokio::test(flavor = "multi_thread")]
async fn a_low_port_without_privilege_is_translated() {
    let first: u16 = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    if is_root() || first <= 80 {
        keel_testkit::not_run("this user may bind port 80");
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
    while printed().await.count() < 2 {
        within(news.recv()).await.unwrap();
    }
    let own = bench.status("app").await.address.unwrap().to_string();
    let text: Vec<_> = printed().await.map(|line| line.text).collect();
    assert_eq!(text, [own, "0.0.0.0".into()]);
}

/// Everything above once more as a user without rights, where this one can become such a one.
#[test]
fn all_of_this_as_nobody() {
    again_as_nobody("all_of_this_as_nobody");
}
