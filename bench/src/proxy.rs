//! The proxies that are compared: how each is configured, started and stopped.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    cpus::Cpus,
    peers::Peers,
    process::{self, Memory},
    work::{UNIX_FOLDER, Work},
};

/// Clients that a proxy takes at most, if there are descriptors for twice as many.
const CONNECTIONS_MAX: u64 = 16_384;
/// Descriptors for everything else.
const SPARE_FILES: u64 = 256;
/// How long a proxy may take to listen, to answer one request, and to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Requests on a connection before a proxy closes it: never, within a measurement.
const KEEPALIVE_REQUESTS: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Evenkeel,
    Nginx,
    Haproxy,
    Envoy,
}

impl Kind {
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Evenkeel => "evenkeel",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
        }
    }
}

/// A proxy that could be started.
pub(crate) struct Proxy {
    kind: Kind,
    path: PathBuf,
    /// Its name and version: `nginx 1.31.5`.
    pub(crate) name: String,
    /// What it says of its version, in full.
    pub(crate) version: String,
}

impl Proxy {
    pub(crate) fn new(kind: Kind, path: PathBuf) -> anyhow::Result<Self> {
        let flag = if kind == Kind::Envoy { "--version" } else { "-v" };
        let flag = if kind == Kind::Evenkeel { "--version" } else { flag };
        let output = Command::new(&path).arg(flag).output();
        let output = output.with_context(|| format!("{} can't be run", path.display()))?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        // Envoy says where it is, too.
        let version = line.replace(&*path.to_string_lossy(), kind.program()).trim().to_owned();
        let name = match number(&version) {
            Some(number) => format!("{} {number}", kind.program()),
            None => kind.program().to_owned(),
        };
        Ok(Self { kind, path, name, version })
    }

    /// Starts it in a folder of its own and waits until it listens.
    pub(crate) fn start(&self, folder: &Path, peers: &Peers, cpus: &Cpus) -> anyhow::Result<Running> {
        process::allow_files(2 * CONNECTIONS_MAX + SPARE_FILES);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        drop(listener);
        let prefix = tempfile::Builder::new().prefix(self.kind.program()).tempdir_in(folder)?.keep();
        fs::create_dir(prefix.join("logs"))?;
        let config = prefix.join(match self.kind {
            Kind::Evenkeel | Kind::Nginx => "nginx.conf",
            Kind::Haproxy => "haproxy.cfg",
            Kind::Envoy => "envoy.json",
        });
        fs::write(&config, self.config(address, peers, &prefix))?;
        let mut command = Command::new(&self.path);
        match self.kind {
            Kind::Evenkeel => command.arg("serve").arg("-p").arg(&prefix).arg("-c").arg(&config),
            Kind::Nginx => command.arg("-p").arg(&prefix).arg("-c").arg(&config),
            Kind::Haproxy => command.arg("-db").arg("-f").arg(&config),
            Kind::Envoy => {
                let quiet = ["--concurrency", "1", "--log-level", "error", "--disable-hot-restart"];
                command.arg("-c").arg(&config).args(quiet)
            }
        };
        let log = fs::File::create(prefix.join("output"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = cpus.on_proxy_s(|| command.spawn())?;
        let child = child.with_context(|| format!("{} can't be started", self.name))?;
        let mut running = Running { child, name: self.name.clone(), address, family: Vec::new() };
        running.wait_until_it_listens(&prefix)?;
        Ok(running)
    }

    fn config(&self, listen: SocketAddr, peers: &Peers, prefix: &Path) -> String {
        match self.kind {
            Kind::Evenkeel | Kind::Nginx => nginx_config(listen, peers, prefix),
            Kind::Haproxy => haproxy_config(listen, peers),
            Kind::Envoy => envoy_config(listen, peers),
        }
    }
}

/// Finds `1.31.5` in what a program says of its version.
fn number(version: &str) -> Option<&str> {
    version
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .find(|word| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit()))
}

fn nginx_config(listen: SocketAddr, peers: &Peers, prefix: &Path) -> String {
    let server = |address: String| format!("        server {address};\n");
    let servers: String = peers.addresses.iter().map(|peer| server(peer.to_string())).collect();
    let sockets: String =
        peers.sockets.iter().map(|peer| server(format!("unix:{}", peer.display()))).collect();
    let prefix = prefix.display();
    format!(
        "daemon off;
worker_processes 1;
pid {prefix}/logs/nginx.pid;
error_log {prefix}/logs/error.log;
events {{
    worker_connections {CONNECTIONS_MAX};
}}
http {{
    access_log off;
    keepalive_requests {KEEPALIVE_REQUESTS};
    upstream app {{
{servers}        keepalive 128;
        keepalive_requests {KEEPALIVE_REQUESTS};
    }}
    upstream unix {{
{sockets}        keepalive 128;
        keepalive_requests {KEEPALIVE_REQUESTS};
    }}
    server {{
        listen {listen};
        proxy_http_version 1.1;
        proxy_set_header Connection \"\";
        proxy_max_temp_file_size 0;
        location / {{
            proxy_pass http://app;
        }}
        location {UNIX_FOLDER} {{
            proxy_pass http://unix;
        }}
    }}
}}
"
    )
}

fn haproxy_config(listen: SocketAddr, peers: &Peers) -> String {
    let files = process::allow_files(2 * CONNECTIONS_MAX + SPARE_FILES);
    let connections = CONNECTIONS_MAX.min(files.saturating_sub(SPARE_FILES) / 2);
    let servers: String = (1..)
        .zip(&peers.addresses)
        .map(|(number, peer)| format!("    server app{number} {peer}\n"))
        .collect();
    let sockets: String = (1..)
        .zip(&peers.sockets)
        .map(|(number, peer)| format!("    server unix{number} unix@{}\n", peer.display()))
        .collect();
    format!(
        "global
    nbthread 1
    maxconn {connections}
defaults
    mode http
    maxconn {connections}
    timeout connect 60s
    timeout client 75s
    timeout server 60s
frontend all
    bind {listen}
    use_backend unix if {{ path_beg {UNIX_FOLDER} }}
    default_backend app
backend app
    balance roundrobin
    http-reuse always
{servers}backend unix
    balance roundrobin
    http-reuse always
{sockets}"
    )
}

fn envoy_config(listen: SocketAddr, peers: &Peers) -> String {
    let socket = |address: &SocketAddr| {
        serde_json::json!({ "socket_address": {
            "address": address.ip().to_string(), "port_value": address.port(),
        } })
    };
    let pipe = |path: &PathBuf| serde_json::json!({ "pipe": { "path": path.to_string_lossy() } });
    let cluster = |name: &str, addresses: Vec<serde_json::Value>| {
        let endpoint = |address| serde_json::json!({ "endpoint": { "address": address } });
        let endpoints: Vec<_> = addresses.into_iter().map(endpoint).collect();
        serde_json::json!({
            "name": name,
            "type": "STATIC",
            "lb_policy": "ROUND_ROBIN",
            "connect_timeout": "60s",
            "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": endpoints }] },
        })
    };
    let route = |prefix: &str, name: &str| serde_json::json!({ "match": { "prefix": prefix }, "route": { "cluster": name } });
    let types = "type.googleapis.com/envoy.extensions.filters";
    serde_json::json!({ "static_resources": {
        "listeners": [{
            "address": socket(&listen),
            "filter_chains": [{ "filters": [{
                "name": "http",
                "typed_config": {
                    "@type": format!("{types}.network.http_connection_manager.v3.HttpConnectionManager"),
                    "stat_prefix": "http",
                    "route_config": { "virtual_hosts": [{
                        "name": "all",
                        "domains": ["*"],
                        "routes": [route(UNIX_FOLDER, "unix"), route("/", "app")],
                    }] },
                    "http_filters": [{
                        "name": "router",
                        "typed_config": { "@type": format!("{types}.http.router.v3.Router") },
                    }],
                },
            }] }],
        }],
        "clusters": [
            cluster("app", peers.addresses.iter().map(socket).collect()),
            cluster("unix", peers.sockets.iter().map(pipe).collect()),
        ],
    } })
    .to_string()
}

/// A proxy that listens. It is stopped when this is dropped.
pub(crate) struct Running {
    child: Child,
    name: String,
    pub(crate) address: SocketAddr,
    family: Vec<u32>,
}

impl Running {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn url(&self, work: Work) -> String {
        format!("http://{}{}", self.address, work.path())
    }

    /// The CPU time that all its threads have used.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<Duration> {
        process::cpu_time(&self.family).with_context(|| self.name.clone())
    }

    /// Its memory.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        process::memory(&self.family).with_context(|| self.name.clone())
    }

    fn wait_until_it_listens(&mut self, prefix: &Path) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.check(Work::Body100).is_err() {
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                let said = fs::read_to_string(prefix.join("output")).unwrap_or_default();
                bail!("{} doesn't serve: {}", self.name, said.trim());
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.family = process::family(self.child.id())?;
        Ok(())
    }

    /// Sends one request and looks at the answer.
    pub(crate) fn check(&self, work: Work) -> anyhow::Result<()> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = format!("GET {} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n", work.path());
        stream.write_all(request.as_bytes())?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        let (head, body) = response.split_once("\r\n\r\n").context("no response")?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "{} answers {head}", self.name);
        ensure!(body.len() == work.body_bytes(), "{} sends {} bytes", self.name, body.len());
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let signal = |pid: u32, signal| {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // It may have ended.
                let _ = kill_process(pid, signal);
            }
        };
        signal(self.child.id(), Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                self.family.iter().for_each(|pid| signal(*pid, Signal::KILL));
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_number_of_a_version() {
        let check = |text, expect| assert_eq!(number(text), expect, "{text}");
        check("nginx version: nginx/1.31.5", Some("1.31.5"));
        check("HAProxy version 2.6.12-1+deb12u4 2026/10/17", Some("2.6.12"));
        check("envoy  version: 1f3c5/1.40.0/Clean/RELEASE/BoringSSL", Some("1.40.0"));
        check("evenkeel 0.1.0", Some("0.1.0"));
        check("", None);
    }
}
