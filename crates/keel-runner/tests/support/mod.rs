//! A runner over real processes, and what its tests ask of it.

#![allow(dead_code, reason = "each test file uses what it needs")]

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    process::Command,
    time::{Duration, Instant},
};

use keel_model::{
    Port, ProcessSpec, Protocol, RestartCondition, RestartPolicy, Run, Service, ServiceName, Stop,
};
use keel_runner::{
    ApplyOptions, ExecOutput, ExecRequest, InstanceStatus, Notice, PoolInstance, Runner, Settings, start,
};
use tokio::sync::mpsc::UnboundedReceiver;

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Answers every connection with the instance's name; needs `HOST` and `PORT`.
pub(crate) const SERVER: &str = r#"
import os, socket
family = socket.AF_INET6 if ":" in HOST else socket.AF_INET
s = socket.socket(family)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((HOST, PORT))
s.listen(64)
print("listening", flush=True)
while True:
    c, _ = s.accept()
    c.recv(4096)
    c.sendall(os.environ["HOSTNAME"].encode())
    c.close()
"#;

pub(crate) struct Bench {
    pub(crate) runner: Runner,
    pub(crate) notices: UnboundedReceiver<Notice>,
    /// Removed with this.
    pub(crate) dir: tempfile::TempDir,
    pub(crate) pools: BTreeMap<ServiceName, Vec<PoolInstance>>,
}

pub(crate) fn server(name: &str, host: &str, port: u16) -> Service {
    python(name, &format!("HOST, PORT = {host:?}, {port}\n{SERVER}"), Some(port))
}

pub(crate) fn python(name: &str, script: &str, port: Option<u16>) -> Service {
    service(name, &["/usr/bin/python3", "-c", script], port)
}

pub(crate) fn service(name: &str, argv: &[&str], port: Option<u16>) -> Service {
    Service {
        name: ServiceName(name.into()),
        replicas: 1,
        instance_name: None,
        numbering: keel_model::Numbering::Several,
        run: Run::Process(ProcessSpec {
            argv: argv.iter().map(|text| (*text).to_owned()).collect(),
            environment: BTreeMap::new(),
            working_dir: "/".into(),
            build: Vec::new(),
            path_map: Vec::new(),
            path_prefix: Vec::new(),
            hostname: None,
            user: None,
        }),
        ports: port.into_iter().map(|number| Port { number, protocol: Protocol::Tcp }).collect(),
        aliases: Vec::new(),
        healthcheck: None,
        must_listen: true,
        restart: RestartPolicy {
            condition: RestartCondition::Always,
            attempts_max: None,
            delay: Duration::ZERO,
            window: Duration::ZERO,
        },
        depends_on: Vec::new(),
        stop: Stop { signal: 15, grace_period: Duration::from_secs(5) },
        digest: "1".into(),
    }
}

pub(crate) fn process(service: &mut Service) -> &mut ProcessSpec {
    match &mut service.run {
        Run::Process(process) => process,
        Run::Container(_) | Run::External(_) => panic!("isn't run here"),
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let settings = Settings::new(format!("test-{}", dir.path().display()), dir.path().join("state"));
        let (runner, notices) = start(settings).expect("a runner");
        Self { runner, notices, dir, pools: BTreeMap::new() }
    }

    pub(crate) async fn up(services: Vec<Service>) -> Self {
        let bench = Self::new();
        let applied = bench.runner.apply(services, ApplyOptions::default());
        within(applied).await.expect("everything is ready");
        bench
    }

    /// Waits for a notice.
    pub(crate) async fn until<T>(&mut self, mut wanted: impl FnMut(&Notice) -> Option<T>) -> T {
        loop {
            let notice = within(self.notices.recv()).await.expect("the runner lives");
            if let Notice::Pool { service, instances, .. } = &notice {
                self.pools.insert(service.clone(), instances.clone());
            }
            if let Some(found) = wanted(&notice) {
                return found;
            }
        }
    }

    /// Waits until a service has that many instances in its pool.
    pub(crate) async fn pool(&mut self, service: &str, size: usize) -> Vec<PoolInstance> {
        let name = ServiceName(service.into());
        if let Some(pool) = self.pools.get(&name).filter(|pool| pool.len() == size) {
            return pool.clone();
        }
        self.until(|notice| match notice {
            Notice::Pool { service, instances, .. } if *service == name && instances.len() == size => {
                Some(instances.clone())
            }
            _ => None,
        })
        .await
    }

    pub(crate) async fn status(&self, name: &str) -> InstanceStatus {
        let all = self.runner.instances().await.expect("the runner lives");
        all.into_iter().find(|status| status.name == name).expect("the instance is there")
    }

    /// Waits until an instance has printed a line, and gives all that it has printed by then.
    pub(crate) async fn printed_until(&self, instance: &str, last: &str) -> Vec<String> {
        let of = || vec![instance.to_owned()];
        let (_, mut news) = self.runner.logs(of(), Some(0)).await.expect("the runner lives");
        loop {
            let (lines, _) = self.runner.logs(of(), None).await.expect("the runner lives");
            let lines: Vec<String> = lines.map(|line| line.text).collect();
            if lines.iter().any(|line| line == last) {
                return lines;
            }
            within(news.recv()).await.expect("it prints more");
        }
    }

    /// Runs a shell command in an instance; gives what it prints and its status.
    pub(crate) async fn sh(&self, instance: &str, script: &str) -> (String, i32) {
        let request = ExecRequest {
            name: instance.into(),
            argv: vec!["/bin/sh".into(), "-c".into(), script.into()],
            environment: Vec::new(),
            terminal: None,
        };
        let mut exec = within(self.runner.exec(request)).await.expect("the command starts");
        exec.close_input();
        let mut text = Vec::new();
        loop {
            match within(exec.next()).await {
                ExecOutput::Output(bytes) | ExecOutput::Error(bytes) => text.extend(bytes),
                ExecOutput::InputTaken(_) => {}
                ExecOutput::Exit(status) => {
                    return (String::from_utf8_lossy(&text).trim().to_owned(), status);
                }
            }
        }
    }
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// Connects, says something, and gives what comes back.
pub(crate) fn ask(address: SocketAddr) -> String {
    request(address, "hello")
}

pub(crate) fn request(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(text.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

pub(crate) fn ask_instance(instance: &PoolInstance, port: u16) -> String {
    ask(instance.socket_address(port).expect("it has the port"))
}

/// Whether a process lives.
pub(crate) fn lives(pid: u32) -> bool {
    let stat = i32::try_from(pid).ok().and_then(keel_sys::proc::stat);
    stat.is_some_and(|stat| !stat.is_over())
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

/// Tells whether the tests are run by root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs all tests of this file but `test` again as a user without rights, where this one can become such a one.
pub(crate) fn again_as_nobody(test: &str) {
    const NOBODY: u32 = 65534;
    if !is_root() {
        return keel_testkit::not_run("this user isn't root");
    }
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(["--skip", test, "--test-threads=2"]).uid(NOBODY).gid(NOBODY).env_clear();
    command.env("PATH", "/usr/bin:/bin").env("HOME", "/").current_dir("/");
    let output = match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return keel_testkit::not_run("nobody may not read this program");
        }
        output => output.expect("it can be started"),
    };
    let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    said.lines().filter_map(|line| line.strip_prefix("not run: ")).for_each(keel_testkit::not_run);
    assert!(output.status.success(), "{text}\n{said}");
}
