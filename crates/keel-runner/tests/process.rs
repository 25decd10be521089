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

use keel_model::{BuildStep, Dependency, DependencyCondition, Healthcheck, ServiceName};
use keel_runner::{ApplyOptions, Ending, Exit, InstanceState, LogNews, Notice};
use support::*;

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
    assert_eq!(lines.last().expect("it printed").text, "told");
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

/// A life that didn't begin leaves as little as one that ended.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_started_leaves_no_files_and_no_control_group() {
    let bench = Bench::new();
    let mut app = service("app", &["/no/such/program"], None);
    app.restart.condition = keel_model::RestartCondition::Never;
    let mut refused = service("refused", &["/etc/passwd"], None);
    refused.restart.condition = keel_model::RestartCondition::Never;
    let error = within(bench.runner.apply(vec![app, refused], ApplyOptions::default())).await;
    assert!(error.is_err());
    let run = bench.dir.path().join("state/run");
    assert_eq!(std::fs::read_dir(&run).unwrap().count(), 0, "folders are left");
    let record = std::fs::read_to_string(bench.dir.path().join("state/instances")).unwrap();
    match record.lines().find_map(|line| line.strip_prefix("cgroup ")) {
        Some(cgroup) => {
            let folders = std::fs::read_dir(cgroup).unwrap().flatten();
            assert_eq!(folders.filter(|entry| entry.path().is_dir()).count(), 0, "control groups are left");
        }
        None => keel_testkit::not_run("the part with control groups: there are none"),
    }
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

    /// The process that watches over the runner.
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
            return keel_testkit::not_run(why);
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

#[test]
fn a_state_folder_that_is_being_given_up_is_waited_for() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("lock")).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let ending = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        drop(file);
    });
    keel_runner::start(keel_runner::Settings::new("p", dir.path())).unwrap();
    ending.join().unwrap();
}

/// Everything above once more as a user without rights, where this one can become such a one.
#[test]
fn all_of_this_as_nobody() {
    again_as_nobody("all_of_this_as_nobody");
}
