//! A case being played: the system, the load on it, and what was done when.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rustix::process::{Signal, kill_process};

use crate::{
    Error, Options,
    configuration::Tuning,
    front::Program,
    generator::{Pace, Shape, Target},
    ledger::{Ledger, Source},
    load::Load,
    nginx::Seated,
    record::{Moment, Outcome, Record},
    results,
    seed::Seed,
    subject::Subject,
    system::{Ground, Instance, Setup, System, wait_dead},
    verdict::{Allowance, Allowed, Methods, StepShare},
};

/// How long a client waits for a response.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Requests one after another at the beginning of a step: enough that everybody gets some, few enough to be read.
const IN_TURN: u32 = 12;
/// How long load flows before something is done to the system, and after it was done.
const MARGIN: Duration = Duration::from_millis(250);
/// After how long a balancer gives a silent peer up: long for an answer on a busy machine, short for somebody who watches.
const TIMES_OUT: &str = "2s";
/// How long an instance may take to come back.
pub(crate) const COMES_BACK: Duration = Duration::from_secs(60);

/// What all cases of a drill share.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) subject: &'a Subject,
    pub(crate) options: &'a Options,
    pub(crate) ground: &'a Ground,
    /// What was found out about the project's program; the same in every case.
    pub(crate) known: &'a Known,
    /// The case's own randomness.
    pub(crate) seed: Seed,
    /// Which case of the drill this is.
    pub(crate) number: usize,
}

impl<'a> Context<'a> {
    /// Gives the program that balances.
    pub(crate) fn program(&self) -> Program<'a> {
        match &self.options.nginx {
            Some(nginx) => Program::Nginx(&nginx.path),
            None => Program::Evenkeel(&self.ground.program),
        }
    }
}

/// What is found out once about the project's program.
#[derive(Debug, Default)]
pub(crate) struct Known {
    source: Cell<Option<Source>>,
    /// The status with which a POST is refused, if it is.
    refuses_posts: Cell<Option<u16>>,
}

/// Everything a case leaves behind to be judged.
#[derive(Debug, Default)]
pub(crate) struct Played {
    pub(crate) records: Vec<Record>,
    pub(crate) ledger: Ledger,
    pub(crate) steps: Vec<StepShare>,
    /// What was seen in each step, by its number.
    pub(crate) observations: BTreeMap<u32, String>,
    pub(crate) allowed: Vec<Allowance>,
    pub(crate) events: Vec<(Moment, String)>,
    pub(crate) load: results::Load,
    /// What the case itself found to be wrong, beside requests and shares.
    pub(crate) findings: Vec<results::Finding>,
    pub(crate) files: BTreeMap<String, String>,
    pub(crate) system: results::System,
}

/// A case being played.
pub(crate) struct Stage<'a> {
    pub(crate) context: &'a Context<'a>,
    pub(crate) system: System,
    /// The nginx in Evenkeel's place, where one is tried.
    nginx: Option<Seated<'a>>,
    pub(crate) load: Load,
    pub(crate) seed: Seed,
    pub(crate) shape: Shape,
    source: Source,
    played: Played,
    step: u32,
}

impl<'a> Stage<'a> {
    /// Starts the system and the load generator, and sends a first request.
    pub(crate) fn set(context: &'a Context<'a>, setup: &Setup) -> Result<Self, Error> {
        let Context { subject, options, ground, .. } = *context;
        let mut system = System::up(subject, ground, setup, context.number)?;
        let nginx = match &options.nginx {
            Some(nginx) => {
                let instances = system.instances()?;
                Some(Seated::start(nginx, subject, setup, &instances, options.listen, &ground.stop)?)
            }
            None => None,
        };
        let listeners = nginx.as_ref().map_or(&system.listeners, |nginx| &nginx.listeners);
        let address = listeners
            .get(&subject.route.listen)
            .copied()
            .ok_or_else(|| Error::Project("the listener that was tried is gone".to_owned()))?;
        let source = match (&setup.peers, context.known.source.get()) {
            (Some(_), _) => Some(Source::File),
            (None, known) => known,
        };
        if source.is_none_or(|source| source == Source::Output) {
            system.follow_output()?;
        }
        let target = Target {
            address: options.via.unwrap_or(address),
            host: subject.route.host.clone(),
            path: options.path.clone().unwrap_or_else(|| subject.route.path.clone()),
            patience: PATIENCE,
        };
        let load = Load::start(&ground.program, &target, &ground.stop)?;
        let shape = Shape {
            pace: Pace::Rate(options.rate),
            connections: options.connections,
            requests_per_connection: Some(50),
            think: Duration::ZERO,
            posts: 0.3,
            body_bytes_max: 2000,
        };
        let seed = context.seed.split("events");
        let mut played = Played { files: system.files.clone(), ..Played::default() };
        if let Some(nginx) = &nginx {
            played.files.insert("nginx.conf".to_owned(), nginx.configuration.clone());
        }
        played.load = results::Load {
            rate: Some(options.rate),
            connections: shape.connections,
            requests_per_connection: shape.requests_per_connection,
            posts: shape.posts,
            ..results::Load::default()
        };
        let mut stage = Self {
            context,
            system,
            nginx,
            load,
            seed,
            shape,
            source: source.unwrap_or_default(),
            played,
            step: 0,
        };
        if setup.peers.is_none() {
            stage.warm_up(source.is_some())?;
        }
        Ok(stage)
    }

    /// Sends a GET and a POST, and finds out what the program shows of them.
    fn warm_up(&mut self, source_is_known: bool) -> Result<(), Error> {
        let in_turn = |posts| Shape { pace: Pace::InTurn, posts, ..self.shape.clone() };
        let (get, post) = (in_turn(0.0), in_turn(1.0));
        let first = self.requests(&get, Some(1))?;
        let path = &self.context.subject.route.path;
        match self.load.records_of(first).first().map(|record| record.outcome) {
            Some(outcome) if outcome.is_success() => {}
            Some(outcome) if self.context.options.via.is_none() => {
                return Err(Error::Project(format!(
                    "GET {path} is answered with {}; name a path that works with --path",
                    outcome.words()
                )));
            }
            _ => {}
        }
        if !source_is_known {
            self.source = self.find_source(first)?;
            self.context.known.source.set(Some(self.source));
            let second = self.requests(&post, Some(1))?;
            if let Some(Outcome::Answered { status: status @ (404 | 405 | 501), .. }) =
                self.load.records_of(second).first().map(|record| record.outcome)
            {
                self.context.known.refuses_posts.set(Some(status));
                self.allow(
                    "the POST that asked whether POSTs are taken",
                    Allowed::Status(&[404, 405, 501]),
                    Methods::Posts,
                );
            }
        }
        if let Some(status) = self.context.known.refuses_posts.get() {
            self.shape.posts = 0.0;
            self.played.load.posts = 0.0;
            self.played.load.limits.push(format!("POST {path} is refused ({status}): only GETs were sent"));
        }
        if self.nginx.as_ref().is_some_and(Seated::is_as_it_is) {
            self.played.load.limits.push(
                "an instance that is started again has another address here; under Docker it mostly keeps its own"
                    .to_owned(),
            );
        }
        match self.source {
            Source::File => {}
            Source::Output => {
                self.played.load.limits.push("received is what instances print of request URLs".into())
            }
            Source::None => self.played.load.limits.push(
                "this program shows nothing of requests: received twice can't be counted, nor shares".into(),
            ),
        }
        Ok(())
    }

    /// Finds out where the program shows what it received.
    fn find_source(&self, step: u32) -> Result<Source, Error> {
        for _ in 0..100 {
            for source in [Source::File, Source::Output] {
                if self.system.ledger(source)?.entries.iter().any(|entry| entry.id.step == step) {
                    return Ok(source);
                }
            }
            self.load.pass(Duration::from_millis(10))?;
        }
        Ok(Source::None)
    }

    /// Gives the services whose instances answer.
    fn services(&self) -> BTreeSet<&'a str> {
        self.context.subject.services.iter().map(|service| service.name.as_str()).collect()
    }

    /// Gives the instances that take requests now.
    pub(crate) fn ready(&self) -> Result<Vec<Instance>, Error> {
        self.system.ready(&self.services())
    }

    /// Gives their names.
    pub(crate) fn names(&self) -> Result<Vec<String>, Error> {
        Ok(self.ready()?.into_iter().map(|one| one.name).collect())
    }

    /// Takes one of the ready instances.
    pub(crate) fn any(&mut self) -> Result<Instance, Error> {
        let ready = self.ready()?;
        let chosen = self.seed.choose(&ready).cloned();
        chosen.ok_or_else(|| Error::Project("no instance is ready".to_owned()))
    }

    /// Waits until exactly these instances take requests, and the balancer knows.
    pub(crate) fn wait_ready(&mut self, names: &[String]) -> Result<(), Error> {
        let (services, expect) = (self.services(), names.iter().map(String::as_str).collect::<BTreeSet<_>>());
        let what = format!("{} are ready", names.join(", "));
        self.system.wait_until(&what, COMES_BACK, |instances| {
            let own = || instances.iter().filter(|one| services.contains(one.service.as_str()));
            let ready: BTreeSet<&str> =
                own().filter(|one| one.state == "ready").map(|one| one.name.as_str()).collect();
            ready == expect && own().all(|one| matches!(one.state.as_str(), "ready" | "exited"))
        })?;
        // Nothing is left to do, and it returns when the data plane has the last change of peers.
        let words: Vec<&str> = ["start"].into_iter().chain(names.iter().map(String::as_str)).collect();
        self.system.run(&words)?;
        self.follow()
    }

    /// Tells an nginx of what has changed, if that is how it is run.
    fn follow(&mut self) -> Result<(), Error> {
        let Some(nginx) = &mut self.nginx else { return Ok(()) };
        nginx.follow(self.context.subject, &self.system.instances()?)
    }

    /// Sends requests of one shape, to the end, and gives their step.
    fn requests(&mut self, shape: &Shape, count: Option<u32>) -> Result<u32, Error> {
        let step = self.begin(shape, count)?;
        let expected = match (shape.pace, count) {
            (Pace::Rate(rate), Some(count)) => Duration::from_secs_f64(f64::from(count) / rate.max(0.001)),
            (Pace::Bursts { size, pause, .. }, Some(count)) => pause * (count / size.max(1) + 1) * 2,
            _ => Duration::from_secs(10),
        };
        self.load.wait_idle(expected)?;
        Ok(step)
    }

    fn begin(&mut self, shape: &Shape, count: Option<u32>) -> Result<u32, Error> {
        let step = self.step;
        self.step += 1;
        let seed = self.seed.split(&format!("step {step}")).next();
        self.load.begin(step, shape, count, seed)?;
        Ok(step)
    }

    /// Sends a few requests one after another and then many under load; each of these instances must get exactly its
    /// share of both.
    pub(crate) fn even(&mut self, condition: &str, names: &[String]) -> Result<(), Error> {
        let in_turn = Shape { pace: Pace::InTurn, posts: 0.0, ..self.shape.clone() };
        let few = self.requests(&in_turn, Some(multiple(IN_TURN, names.len())))?;
        self.expect(few, &format!("{condition}, one after another"), names);
        let order: Vec<Record> = self.load.records_of(few);
        self.observe(few, takes_turns(&order, names.len()));
        let shape = self.shape.clone();
        let many = self.requests(&shape, Some(multiple(self.context.options.requests / 4, names.len())))?;
        self.expect(many, &format!("{condition}, under load"), names);
        Ok(())
    }

    /// Notes that a step's requests must be shared equally among these.
    fn expect(&mut self, step: u32, condition: &str, names: &[String]) {
        let sent = self.load.records_of(step).len() as u64;
        let each = sent / (names.len() as u64).max(1);
        let is_exact = self.context.subject.is_even()
            && self.source != Source::None
            && each * names.len() as u64 == sent;
        let expected = is_exact.then(|| names.iter().map(|name| (name.clone(), each)).collect());
        self.played.steps.push(StepShare { step, condition: condition.to_owned(), expected });
    }

    /// Notes a step whose shares are of interest, though no number follows from the rules.
    pub(crate) fn show(&mut self, step: u32, condition: &str) {
        self.played.steps.push(StepShare { step, condition: condition.to_owned(), expected: None });
    }

    /// Notes what was seen in a step.
    pub(crate) fn observe(&mut self, step: u32, what: impl Into<String>) {
        self.played.observations.insert(step, what.into());
    }

    /// Does something while load flows, a while before and after; gives the step of that load.
    pub(crate) fn under_load(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<u32, Error> {
        let shape = self.shape.clone();
        let step = self.begin(&shape, None)?;
        let before = MARGIN.mul_f64(0.5 + self.seed.unit());
        self.load.pass(before)?;
        act(self)?;
        self.load.pass(MARGIN)?;
        self.load.end()?;
        Ok(step)
    }

    /// Sends so many requests of the case's load; gives their step.
    pub(crate) fn send(&mut self, count: u32) -> Result<u32, Error> {
        let shape = self.shape.clone();
        self.requests(&shape, Some(count))
    }

    /// Sets the share of POSTs.
    pub(crate) fn posts(&mut self, share: f64) {
        self.shape.posts = share;
        self.played.load.posts = share;
    }

    /// Waits until instances that died have been replaced; starts those that nobody replaces.
    pub(crate) fn come_back(&mut self, names: &[String]) -> Result<(), Error> {
        if self.context.subject.services.iter().any(|service| service.replicas > 0 && !service.restarts) {
            let words: Vec<&str> = ["start"].into_iter().chain(names.iter().map(String::as_str)).collect();
            self.command(&words)?;
        }
        self.wait_ready(names)
    }

    /// Replaces instances one at a time. An nginx that is told of changes is told after each, as its expert would.
    pub(crate) fn restart(&mut self, names: &[String]) -> Result<(), Error> {
        if self.nginx.is_some() {
            return names.iter().try_for_each(|name| self.command(&["restart", name]));
        }
        let words: Vec<&str> = ["restart"].into_iter().chain(names.iter().map(String::as_str)).collect();
        self.command(&words)
    }

    /// Has the files read again, and notes it.
    pub(crate) fn reload(&mut self) -> Result<(), Error> {
        match &self.nginx {
            Some(nginx) => nginx.reload()?,
            None => return self.command(&["reload"]),
        }
        self.note("nginx -s reload");
        Ok(())
    }

    /// Runs a command on the system as its user would, and notes it.
    pub(crate) fn command(&mut self, words: &[&str]) -> Result<(), Error> {
        self.note(format!("evenkeel {}", words.join(" ")));
        self.system.run(words)?;
        self.follow()
    }

    /// Sends a signal to an instance's process, and notes it.
    pub(crate) fn signal(&mut self, instance: &String, signal: Signal, name: &str) -> Result<(), Error> {
        self.note(format!("kill -{name} {instance}"));
        self.system.signal(std::slice::from_ref(instance), signal).map(drop)
    }

    /// Kills instances with SIGKILL, all at once, and notes it; gives from when to when that took.
    pub(crate) fn kill(&mut self, instances: &[String]) -> Result<(Moment, Moment), Error> {
        let from = self.note(format!("kill -KILL {}", instances.join(" ")));
        let killed = self.system.signal(instances, Signal::KILL)?;
        killed.into_iter().try_for_each(|pid| wait_dead(pid, &self.context.ground.stop))?;
        Ok((from, Moment::now()))
    }

    /// Kills the process that serves connections, and notes it; gives from when to when that took.
    pub(crate) fn kill_data_plane(&mut self) -> Result<(Moment, Moment), Error> {
        let lost = || Error::Project("nginx has no worker".to_owned());
        let pid = match &self.nginx {
            Some(nginx) => nginx.worker().ok_or_else(lost)?,
            None => self.system.data_plane()?,
        };
        let at = self.note("kill -KILL the data plane");
        let killed = kill_process(pid, Signal::KILL);
        killed.map_err(|error| Error::io("the data plane can't be killed", error.into()))?;
        wait_dead(pid, &self.context.ground.stop)?;
        Ok((at, Moment::now()))
    }

    /// Notes that something is done now.
    pub(crate) fn note(&mut self, what: impl Into<String>) -> Moment {
        let now = Moment::now();
        self.played.events.push((now, what.into()));
        now
    }

    /// Allows an outcome throughout the case.
    pub(crate) fn allow(&mut self, words: &'static str, outcome: Allowed, methods: Methods) {
        self.played.allowed.push(Allowance { words, outcome, methods, during: None });
    }

    /// Allows an outcome for requests under way while something happened, or within a while after it.
    pub(crate) fn allow_around(
        &mut self,
        words: &'static str,
        outcome: Allowed,
        methods: Methods,
        (from, to): (Moment, Moment),
        after: Duration,
    ) {
        let during = Some((from.before(Duration::from_millis(5)), to.after(after)));
        self.played.allowed.push(Allowance { words, outcome, methods, during });
    }

    /// Notes something that is wrong.
    pub(crate) fn find(&mut self, what: impl Into<String>) {
        self.played.findings.push(results::Finding { what: what.into(), ids: Vec::new() });
    }

    /// Gives the records of one step.
    pub(crate) fn records_of(&self, step: u32) -> Vec<Record> {
        self.load.records_of(step)
    }

    /// Ends load and system and gives everything that came of it.
    pub(crate) fn strike(self) -> Result<Played, Error> {
        let Self { context, system, load, source, shape, mut played, .. } = self;
        played.system = described(context.subject, &system)?;
        played.load.rate = match shape.pace {
            Pace::Rate(rate) => Some(rate),
            Pace::InTurn | Pace::Bursts { .. } => None,
        };
        played.records = load.finish();
        if source == Source::Output {
            // What was printed last is still on its way.
            std::thread::sleep(Duration::from_millis(300));
        }
        played.ledger = system.ledger(source)?;
        played.ledger.rename(&played.steps);
        Ok(played)
    }
}

impl Setup {
    /// The project as it is, with the time-outs after which a silent peer is given up.
    pub(crate) fn with_timeouts() -> Self {
        let tuning = Tuning {
            directives: vec![
                ("proxy_read_timeout", TIMES_OUT.to_owned()),
                ("proxy_send_timeout", TIMES_OUT.to_owned()),
                ("proxy_connect_timeout", TIMES_OUT.to_owned()),
            ],
            server_parameters: Vec::new(),
        };
        Self { tuning, peers: None }
    }
}

/// Gives the multiple of `of` that is next to `about`, at least one.
pub(crate) fn multiple(about: u32, of: usize) -> u32 {
    let of = u32::try_from(of.max(1)).unwrap_or(u32::MAX);
    (about / of).max(1) * of
}

/// Says whether instances answered in turn: the same sequence again and again.
fn takes_turns(records: &[Record], instances: usize) -> &'static str {
    let mut sorted: Vec<&Record> = records.iter().collect();
    sorted.sort_by_key(|record| record.id);
    let answered: Vec<&str> = sorted.iter().filter_map(|record| record.instance.as_deref()).collect();
    if answered.is_empty() || answered.len() < records.len() {
        return "";
    }
    let first: BTreeSet<&&str> = answered.iter().take(instances).collect();
    let repeats = answered.iter().zip(answered.iter().skip(instances)).all(|(one, next)| one == next);
    if first.len() == instances && repeats { "in turn" } else { "not in turn" }
}

/// Describes the system for the report.
fn described(subject: &Subject, system: &System) -> Result<results::System, Error> {
    let services: BTreeSet<&str> = subject.services.iter().map(|service| service.name.as_str()).collect();
    let networks = |service: &str| subject.networks.get(service).cloned().unwrap_or_default();
    let own: Vec<Instance> =
        system.instances()?.into_iter().filter(|one| services.contains(one.service.as_str())).collect();
    let route = &subject.route;
    let address = |one: &Instance| {
        let ip = one.address.clone().unwrap_or_default();
        let port =
            subject.services.iter().find(|service| service.name == one.service).map(|service| service.port);
        match port {
            Some(port) if !ip.is_empty() && !ip.contains(':') => format!("{ip}:{port}"),
            _ => ip,
        }
    };
    let mut all_networks: Vec<String> = services.iter().flat_map(|service| networks(service)).collect();
    all_networks.sort();
    all_networks.dedup();
    Ok(results::System {
        listeners: system
            .listeners
            .iter()
            .map(|(listen, address)| results::Listener {
                address: address.to_string(),
                listen: listen.to_string(),
                upstreams: if *listen == route.listen { vec![route.upstream.clone()] } else { Vec::new() },
            })
            .collect(),
        upstreams: vec![results::Upstream {
            name: route.upstream.clone(),
            policy: subject.policy(),
            instances: own.iter().map(|one| one.name.clone()).collect(),
        }],
        instances: own
            .iter()
            .map(|one| results::Instance {
                name: one.name.clone(),
                service: one.service.clone(),
                address: address(one),
                networks: networks(&one.service),
            })
            .collect(),
        networks: all_networks,
    })
}
