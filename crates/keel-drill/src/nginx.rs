//! nginx in the balancer's seat, on the same instances and with the same cases.
//!
//! Twice: with the project's files as they are — the peers' addresses written out, since nginx can't name what isn't
//! there yet — and as an expert would run it: shared zones, retries, and a reload after each event.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use keel_control::Entry;
use keel_nginx::{Directive, Word};
use rustix::process::Pid;

use crate::{
    Error, Stop,
    configuration::{made, place_listens, remove, text, tuned},
    front::{Front, Program, nginx_version},
    port::{Port, free_ports},
    subject::Subject,
    system::{Ground, Instance, Setup},
};

/// An nginx to try instead of Evenkeel.
#[derive(Clone, Debug)]
pub struct Nginx {
    /// The program.
    pub path: PathBuf,
    /// How it is run.
    pub manner: Manner,
}

/// How an nginx is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// With the project's files, peers resolved once.
    AsIs,
    /// With zones and retries, and told of every change by a reload.
    Expert,
}

/// How long new workers may take to come.
const RELOADS_WITHIN: Duration = Duration::from_secs(60);
/// What takes the place of a peer where there is none: nginx refuses an empty upstream.
const NOBODY: &str = "127.0.0.1:9";
/// What an expert adds to `http`.
const EXPERT: &[(&str, &str)] =
    &[("proxy_next_upstream", "error timeout http_502 http_503"), ("proxy_next_upstream_tries", "3")];

impl Nginx {
    /// Names it for the report.
    ///
    /// # Errors
    /// When it can't be run.
    pub fn name(&self) -> Result<String, Error> {
        let manner = match self.manner {
            Manner::AsIs => "files as they are",
            Manner::Expert => "as an expert runs it",
        };
        Ok(format!("nginx {}, {manner}", nginx_version(&self.path)?))
    }
}

/// A running nginx in front of a system's instances.
#[derive(Debug)]
pub(crate) struct Seated<'a> {
    front: Front,
    nginx: &'a Nginx,
    setup: Setup,
    stop: Stop,
    /// Where clients reach each port that `listen` names.
    pub(crate) listeners: BTreeMap<u16, SocketAddr>,
    /// Keeps other drills from these ports.
    _held: Vec<Port>,
    /// Its configuration now.
    pub(crate) configuration: String,
}

impl<'a> Seated<'a> {
    /// Starts nginx for these instances.
    pub(crate) fn start(
        nginx: &'a Nginx,
        subject: &Subject,
        setup: &Setup,
        instances: &[Instance],
        listen: Option<SocketAddr>,
        ground: &Ground,
    ) -> Result<Self, Error> {
        let ports = subject.listen_ports();
        let mut listeners = BTreeMap::new();
        let held = free_ports(ports.len())?;
        for (port, free) in ports.iter().zip(&held) {
            let fixed = listen.filter(|_| *port == subject.route.listen);
            listeners.insert(*port, fixed.unwrap_or(free.address));
        }
        let configuration =
            Writer { subject, setup, manner: nginx.manner, instances, listeners: &listeners }.write();
        let front = Front::start(&Program::Nginx(&nginx.path), &configuration, ground)?;
        Ok(Self {
            front,
            nginx,
            setup: setup.clone(),
            stop: ground.stop.clone(),
            listeners,
            _held: held,
            configuration,
        })
    }

    /// Tells nginx of a change, if it is run so.
    pub(crate) fn follow(&mut self, subject: &Subject, instances: &[Instance]) -> Result<(), Error> {
        if self.nginx.manner == Manner::AsIs {
            return Ok(());
        }
        let Self { setup, nginx, listeners, .. } = &*self;
        self.configuration = Writer { subject, setup, manner: nginx.manner, instances, listeners }.write();
        self.reload()
    }

    /// Has the configuration read again, and waits for new workers.
    pub(crate) fn reload(&self) -> Result<(), Error> {
        let before = self.front.workers();
        self.front.reload(&self.configuration)?;
        let deadline = Instant::now() + RELOADS_WITHIN;
        while self.front.workers().iter().all(|pid| before.contains(pid)) {
            self.stop.check()?;
            if Instant::now() > deadline {
                return Err(Error::TooSlow("nginx has no new workers after a reload".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Whether nobody tells it of changes.
    pub(crate) fn is_as_it_is(&self) -> bool {
        self.nginx.manner == Manner::AsIs
    }

    /// One of the processes that serve connections.
    pub(crate) fn worker(&self) -> Option<Pid> {
        self.front.workers().into_iter().next()
    }
}

struct Writer<'a> {
    subject: &'a Subject,
    setup: &'a Setup,
    manner: Manner,
    instances: &'a [Instance],
    listeners: &'a BTreeMap<u16, SocketAddr>,
}

impl Writer<'_> {
    fn write(&self) -> String {
        let route = &self.subject.route;
        let mut all = tuned(&self.subject.configuration, &route.upstream, &self.setup.tuning);
        // What concerns the machine and not the traffic is the drill's.
        let own = ["daemon", "pid", "error_log", "user", "master_process", "access_log"];
        remove(&mut all, &|one| {
            own.contains(&one.name.text.as_str()) || one.name.text.ends_with("_temp_path")
        });
        for http in all.iter_mut().filter(|one| one.name.text == "http") {
            let word = http.name.clone();
            let Some(block) = &mut http.block else { continue };
            let mut added = Vec::new();
            self.upstreams(block, &word, &mut added);
            if self.manner == Manner::Expert {
                for (name, arguments) in EXPERT {
                    if block.iter().all(|one| one.name.text != *name) {
                        added.push(made(&word, name, arguments.split_ascii_whitespace()));
                    }
                }
            }
            block.splice(0..0, added);
        }
        place_listens(&mut all, self.listeners);
        let body = text(&all).replacen("http {\n", &format!("http {{\n    {}", Front::folders()), 1);
        format!("{}{body}", Front::preamble())
    }

    /// Writes the peers of every upstream out, those of a literal `proxy_pass http://service:port` as a block of their own.
    fn upstreams(&self, block: &mut [Directive], word: &Word, added: &mut Vec<Directive>) {
        for binding in &self.subject.joined.bindings {
            let name = binding.upstream.0.as_str();
            let is_named = |one: &&mut Directive| one.name.text == "upstream" && one.arg(0) == name;
            match block.iter_mut().find(is_named) {
                Some(upstream) => self.peers(upstream, &binding.entries),
                None => {
                    let own = format!("drill_{}", name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
                    let mut upstream = made(word, "upstream", [own.as_str()]);
                    let servers = binding.entries.iter().map(|_| made(word, "server", [name]));
                    upstream.block = Some(servers.collect());
                    self.peers(&mut upstream, &binding.entries);
                    added.push(upstream);
                    rename_passes(block, &format!("http://{name}"), &format!("http://{own}"));
                }
            }
        }
    }

    fn peers(&self, upstream: &mut Directive, entries: &[Entry]) {
        let word = upstream.name.clone();
        let name = upstream.arg(0).to_owned();
        let Some(block) = &mut upstream.block else { return };
        let lines: Vec<Directive> = block.iter().filter(|one| one.name.text == "server").cloned().collect();
        block.retain(|one| one.name.text != "server");
        let mut servers = Vec::new();
        for (line, entry) in lines.iter().zip(entries) {
            let Entry::Services { services, port, .. } = entry else {
                servers.push(line.clone());
                continue;
            };
            let parameters: Vec<&str> = line.args.iter().skip(1).map(|word| word.text.as_str()).collect();
            let here =
                |one: &&Instance| one.state == "ready" && services.iter().any(|name| name.0 == one.service);
            for instance in self.instances.iter().filter(here) {
                let ip = instance.address.as_deref().unwrap_or_default();
                let address = if ip.contains(':') { ip.to_owned() } else { format!("{ip}:{port}") };
                servers.push(made(
                    &word,
                    "server",
                    [address.as_str()].into_iter().chain(parameters.iter().copied()),
                ));
            }
        }
        if servers.is_empty() {
            servers.push(made(&word, "server", [NOBODY, "down"]));
        }
        if self.manner == Manner::Expert && block.iter().all(|one| one.name.text != "zone") {
            servers.insert(0, made(&word, "zone", [name.as_str(), "64k"]));
        }
        block.splice(0..0, servers);
    }
}

fn rename_passes(directives: &mut [Directive], from: &str, to: &str) {
    for one in directives {
        if one.name.text == "proxy_pass"
            && let Some(target) = one.args.first_mut()
            && let Some(rest) = target.text.strip_prefix(from)
        {
            target.text = format!("{to}{rest}");
        }
        rename_passes(one.block.as_deref_mut().unwrap_or_default(), from, to);
    }
}
