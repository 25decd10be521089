//! A case being played: the system, the load on it, and what was done when.

mod evenkeel;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    Error, Options,
    configuration::Tuning,
    front::Program,
    generator::{Pace, Shape, Target},
    ledger::{Ledger, LinesEach, Source},
    load::Load,
    nginx::Seated,
    process::Group,
    record::{Id, Moment, Outcome, Record, StepShare},
    results,
    seed::Seed,
    subject::Subject,
    system::{Ground, Instance, Setup, System},
    verdict::{Allowance, Allowed, Methods, Reached},
};

/// How long a client waits for a response.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Requests one after another at the beginning of a step: enough that everybody gets some, few enough to be read.
const IN_TURN: u32 = 12;
/// How long load flows before something is done to the system, and after it was done.
const MARGIN: Duration = Duration::from_millis(250);
/// After how long a balancer gives a silent peer up: long for an answer on a busy machine, short for somebody who watches.
const TIMES_OUT: Duration = Duration::from_secs(2);
/// The least a request takes that was given up: balancers count from a clock that they read once for many events.
pub(crate) const GIVEN_UP_AFTER: Duration = Duration::from_millis(1800);
/// How long an app may take to show its first request, before it counts as one that shows nothing.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);
/// How long what an app printed last may take until the drill has it.
const PRINTED_WITHIN: Duration = Duration::from_secs(60);
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
    /// The program that balances.
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
    /// How much it prints of a request, where that is what shows it.
    lines_each: Cell<Option<LinesEach>>,
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
    /// Where requests go.
    pub(crate) target: Target,
    pub(crate) load: Load,
    pub(crate) seed: Seed,
    pub(crate) shape: Shape,
    source: Source,
    played: Played,
    step: u32,
    /// What the system was, where it has ended before the case has.
    described: Option<results::System>,
}

/// The load of a case that asks for no other.
fn usual_shape(options: &Options) -> Shape {
    Shape {
        pace: Pace::Rate(options.rate),
        connections: options.connections,
        requests_per_connection: Some(50),
        think: Duration::ZERO,
        posts: 0.3,
        body_bytes_min: 0,
        body_bytes_max: 2000,
    }
}

impl<'a> Stage<'a> {
    /// Starts the system and the load generator, and sends a first request.
    pub(crate) fn set(context: &'a Context<'a>, setup: &Setup) -> Result<Self, Error> {
        let Context { subject, options, ground, .. } = *context;
        let mut system = System::up(subject, ground, setup, context.number)?;
        let nginx = match &options.nginx {
            Some(nginx) => {
                let instances = system.instances()?;
                Some(Seated::start(nginx, subject, setup, &instances, options.listen, ground)?)
            }
            None => None,
        };
        let listeners = nginx.as_ref().map_or(&system.listeners, |nginx| &nginx.listeners);
        let address = listeners
            .get(&subject.route.listen)
            .copied()
            .ok_or_else(|| Error::Fault("the listener that was tried is gone".to_owned()))?;
        let source = match (&setup.peers, context.known.source.get()) {
            (Some(_), _) => Some(Source::File),
            (None, known) => known,
        };
        if source.is_none_or(|source| source == Source::Output) {
            system.follow_output()?;
        }
        // Who listens on all addresses is reached by any.
        let ip = if address.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address.ip() };
        let address = SocketAddr::new(ip, address.port());
        let target = Target {
            address: options.via.unwrap_or(address),
            host: subject.route.host.clone(),
            path: options.path.clone().unwrap_or_else(|| subject.route.path.clone()),
            patience: PATIENCE,
        };
        let load = Load::start(&ground.program, &target, &ground.stop)?;
        let shape = usual_shape(options);
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
            target,
            load,
            seed,
            shape,
            source: source.unwrap_or_default(),
            played,
            step: 0,
            described: None,
        };
        if setup.peers.is_none() {
            stage.warm_up()?;
        }
        Ok(stage)
    }

    /// Sends a GET and finds out, the first time, what the program shows of it and of a POST.
    fn warm_up(&mut self) -> Result<(), Error> {
        let is_known = self.context.known.source.get().is_some();
        let first = self.one(Methods::All)?;
        let path = &self.context.subject.route.path;
        match self.load.records_of(first).first().map(|record| record.outcome) {
            Some(outcome) if !outcome.is_success() && self.context.options.via.is_none() => {
                let said = format!("GET {path} is answered with {}", outcome.words());
                return Err(if is_known {
                    Error::Fault(format!("{said} before anything was done"))
                } else {
                    Error::Project(format!("{said}; name a path that works with --path"))
                });
            }
            _ => {}
        }
        if !is_known {
            self.find_out(first)?;
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

    /// Finds out where the program shows requests, and whether it takes POSTs.
    fn find_out(&mut self, first: u32) -> Result<(), Error> {
        let known = self.context.known;
        self.source = self.find_source(first)?;
        known.source.set(Some(self.source));
        let post = self.one(Methods::Posts)?;
        let sent = self.load.records_of(post).first().cloned();
        if let Some(Record { outcome: Outcome::Answered { status, .. }, sent, ended, .. }) = sent
            && matches!(status, 404 | 405 | 501)
        {
            known.refuses_posts.set(Some(status));
            self.played.allowed.push(Allowance {
                words: "the POST that asked whether POSTs are taken",
                outcome: Allowed::Status(&[404, 405, 501]),
                methods: Methods::Posts,
                during: Some((sent, ended)),
                at_most: 1,
                ..Allowance::default()
            });
        }
        if self.source == Source::Output {
            // What comes later in the same output says that everything before has been seen.
            self.settle()?;
            let ledger = self.system.ledger(self.source)?;
            let lines = |step: u32| ledger.entries.iter().filter(|entry| entry.id.step == step).count();
            known.lines_each.set(Some(LinesEach { get: lines(first).max(1), post: lines(post).max(1) }));
        }
        Ok(())
    }

    /// Sends one request, a POST or a GET; gives its step.
    fn one(&mut self, methods: Methods) -> Result<u32, Error> {
        let posts = if methods == Methods::Posts { 1.0 } else { 0.0 };
        self.requests(&Shape { pace: Pace::InTurn, posts, ..self.shape.clone() }, Some(1))
    }

    /// Finds out where the program shows what it received.
    fn find_source(&self, step: u32) -> Result<Source, Error> {
        let deadline = Instant::now() + SHOWN_WITHIN;
        while Instant::now() < deadline {
            for source in [Source::File, Source::Output] {
                if self.system.ledger(source)?.entries.iter().any(|entry| entry.id.step == step) {
                    return Ok(source);
                }
            }
            self.load.pass(Duration::from_millis(10))?;
        }
        Ok(Source::None)
    }

    /// Waits until everything that instances printed has been read: sends each some last requests, which come behind all
    /// others in what it prints, and waits for those.
    fn settle(&mut self) -> Result<(), Error> {
        let shape = Shape { pace: Pace::InTurn, posts: 0.0, ..self.shape.clone() };
        let count = multiple(1, self.names()?.len()).saturating_mul(2);
        let step = self.requests(&shape, Some(count))?;
        let answered: BTreeSet<Id> = self
            .load
            .records_of(step)
            .iter()
            .filter(|one| one.outcome.is_success())
            .map(|one| one.id)
            .collect();
        let deadline = Instant::now() + PRINTED_WITHIN;
        loop {
            let ledger = self.system.ledger(self.source)?;
            let seen: BTreeSet<Id> = ledger.entries.iter().map(|entry| entry.id).collect();
            if answered.is_subset(&seen) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let missing = answered.difference(&seen).count();
                let said =
                    format!("of {missing} answered requests nothing was printed: receipts may be missing");
                self.played.load.limits.push(said);
                return Ok(());
            }
            self.load.pass(Duration::from_millis(5))?;
        }
    }

    /// The services whose instances answer.
    fn services(&self) -> BTreeSet<&'a str> {
        self.context.subject.services.iter().map(|service| service.name.as_str()).collect()
    }

    /// The instances that take requests now.
    pub(crate) fn ready(&self) -> Result<Vec<Instance>, Error> {
        self.system.ready(&self.services())
    }

    /// Their names.
    pub(crate) fn names(&self) -> Result<Vec<String>, Error> {
        Ok(self.ready()?.into_iter().map(|one| one.name).collect())
    }

    /// Takes one of the ready instances.
    pub(crate) fn any(&mut self) -> Result<Instance, Error> {
        let ready = self.ready()?;
        let chosen = self.seed.choose(&ready).cloned();
        chosen.ok_or_else(|| Error::Fault("no instance is ready".to_owned()))
    }

    /// Waits until exactly these instances take requests, none of them in a process that has died, and the balancer knows.
    fn wait_ready(&mut self, names: &[String], dead: &[Pid]) -> Result<(), Error> {
        let (services, expect) = (self.services(), names.iter().map(String::as_str).collect::<BTreeSet<_>>());
        let what = format!("{} are ready", names.join(", "));
        self.system.wait_until(&what, COMES_BACK, |instances| {
            let own = || instances.iter().filter(|one| services.contains(one.service.as_str()));
            let ready: BTreeSet<&str> =
                own().filter(|one| one.is_back(dead)).map(|one| one.name.as_str()).collect();
            ready == expect && own().all(|one| one.is_back(dead) || one.state == "exited")
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
        let ready: BTreeSet<String> = self.names()?.into_iter().collect();
        if ready != names.iter().cloned().collect() {
            let list =
                |names: &mut dyn Iterator<Item = &String>| names.cloned().collect::<Vec<_>>().join(", ");
            let (found, wanted) = (list(&mut ready.iter()), list(&mut names.iter()));
            self.find(format!("{condition}: {found} are ready where {wanted} should be"));
        }
        let in_turn = Shape { pace: Pace::InTurn, posts: 0.0, ..self.shape.clone() };
        let few = self.requests(&in_turn, Some(multiple(IN_TURN, names.len())))?;
        self.expect(few, &format!("{condition}, one after another"), names);
        let turns = takes_turns(&self.load.records_of(few), names.len());
        self.observe(few, turns.map(Turns::words).unwrap_or_default());
        if turns == Some(Turns::NotTaken) && self.context.subject.is_even() {
            let records = self.load.records_of(few);
            let ids = records.iter().take(results::Finding::IDS_MAX).map(|record| record.id.to_string());
            let ids = ids.collect();
            let what = format!("{condition}: instances didn't answer in turn");
            self.played.findings.push(results::Finding { what, ids });
        }
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

    /// Waits until instances whose processes died have been replaced; starts those that nobody replaces.
    pub(crate) fn come_back(&mut self, names: &[String], dead: &[Pid]) -> Result<(), Error> {
        if self.context.subject.services.iter().any(|service| service.replicas > 0 && !service.restarts) {
            let words: Vec<&str> = ["start"].into_iter().chain(names.iter().map(String::as_str)).collect();
            self.command(&words)?;
        }
        self.wait_ready(names, dead)
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

    /// Stops all processes of an instance, and notes it; gives those and when all of them had stopped.
    pub(crate) fn freeze(&mut self, instance: &String) -> Result<(Group, Moment), Error> {
        let groups = self.system.groups(std::slice::from_ref(instance))?;
        let group = *groups.first().ok_or_else(|| Error::Fault(format!("{instance} has no process")))?;
        let at = self.note(format!("kill -STOP {instance}"));
        group.signal(Signal::STOP)?;
        group.wait_stopped(&self.context.ground.stop)?;
        Ok((group, at))
    }

    /// Lets the processes of an instance go on, and notes it; gives when.
    pub(crate) fn thaw(&mut self, instance: &str, group: Group) -> Result<Moment, Error> {
        if Group::of(group.main).is_none() {
            self.find(format!("{instance} was to be frozen all the while, and was gone before its end"));
        }
        let at = self.note(format!("kill -CONT {instance}"));
        group.signal(Signal::CONT)?;
        Ok(at)
    }

    /// Kills instances with SIGKILL, all at once and all their processes, and notes it; gives which and when.
    pub(crate) fn kill(&mut self, instances: &[String]) -> Result<Killed, Error> {
        let groups = self.system.groups(instances)?;
        let from = self.note(format!("kill -KILL {}", instances.join(" ")));
        groups.iter().try_for_each(|group| group.signal(Signal::KILL))?;
        groups.iter().try_for_each(|group| group.wait_dead(&self.context.ground.stop))?;
        Ok(Killed { pids: groups.iter().map(|group| group.main).collect(), from, to: Moment::now() })
    }

    /// Kills the process that serves connections, and notes it; gives when.
    pub(crate) fn kill_data_plane(&mut self) -> Result<Killed, Error> {
        let lost = || Error::Fault("there is no process that serves connections".to_owned());
        let pid = match &self.nginx {
            Some(nginx) => nginx.worker().ok_or_else(lost)?,
            None => self.system.data_plane()?,
        };
        let group = Group::of(pid).ok_or_else(lost)?;
        let from = self.note("kill -KILL the data plane");
        // It alone: where it leads a group, nobody else is to be in it.
        let killed = kill_process(pid, Signal::KILL);
        killed.map_err(|error| Error::io("the data plane can't be killed", error.into()))?;
        group.wait_dead(&self.context.ground.stop)?;
        Ok(Killed { pids: vec![pid], from, to: Moment::now() })
    }

    /// Notes that something is done now.
    pub(crate) fn note(&mut self, what: impl Into<String>) -> Moment {
        let now = Moment::now();
        self.played.events.push((now, what.into()));
        now
    }

    /// Allows an outcome.
    pub(crate) fn allow(&mut self, allowance: Allowance) {
        self.played.allowed.push(allowance);
    }

    /// Allows that POSTs which were on their way to killed instances are answered with 502: as many as there are
    /// connections, since each carries one.
    pub(crate) fn allow_killed(&mut self, words: &'static str, instances: &[String], killed: &Killed) {
        self.allow(Allowance {
            words,
            outcome: Allowed::Status(&[502]),
            methods: Methods::Posts,
            reached: Reached::NobodyBut(instances.iter().cloned().collect()),
            during: Some(killed.during()),
            at_most: u64::from(self.shape.connections),
            ..Allowance::default()
        });
    }

    /// Allows that POSTs to an instance which gives no answer are answered with 504, once the time-out is over: as many as
    /// its time holds, with one on each connection.
    pub(crate) fn allow_silent(&mut self, instance: &str, (from, to): (Moment, Moment)) {
        let rounds = to.since(from).as_secs_f64() / GIVEN_UP_AFTER.as_secs_f64() + 1.0;
        self.allow(Allowance {
            words: "504 for a POST to it",
            outcome: Allowed::Status(&[504]),
            methods: Methods::Posts,
            reached: Reached::NobodyBut(BTreeSet::from([instance.to_owned()])),
            during: Some((from, to)),
            took_min: GIVEN_UP_AFTER,
            at_most: u64::from(self.shape.connections) * rounds as u64,
        });
    }

    /// What instances noted so far.
    pub(crate) fn ledger(&self) -> Result<Ledger, Error> {
        self.system.ledger(self.source)
    }

    /// Notes something that is wrong.
    pub(crate) fn find(&mut self, what: impl Into<String>) {
        self.played.findings.push(results::Finding { what: what.into(), ids: Vec::new() });
    }

    /// Notes what a case found to be wrong with requests that it names.
    pub(crate) fn find_all(&mut self, findings: impl Iterator<Item = results::Finding>) {
        self.played.findings.extend(findings);
    }

    /// The records of one step.
    pub(crate) fn records_of(&self, step: u32) -> Vec<Record> {
        self.load.records_of(step)
    }

    /// Ends load and system and gives everything that came of it.
    pub(crate) fn strike(mut self) -> Result<Played, Error> {
        if self.source == Source::Output {
            self.settle()?;
        }
        let Self { context, system, load, source, shape, mut played, described: before, .. } = self;
        played.system = before.map_or_else(|| described(context.subject, &system), Ok)?;
        played.load.rate = match shape.pace {
            Pace::Rate(rate) => Some(rate),
            Pace::InTurn | Pace::Bursts { .. } => None,
        };
        played.records = load.finish();
        played.ledger = system.ledger(source)?;
        if let Some(each) = context.known.lines_each.get().filter(|_| source == Source::Output) {
            played.ledger.fold(each, &played.records);
        }
        played.ledger.rename(&played.steps);
        Ok(played)
    }

    /// Ends a case that broke off: what came of it so far, with the reason among its findings. Where requests are still
    /// under way there is nothing to compare, and only the reason is left.
    pub(crate) fn break_off(mut self, error: Error) -> Result<Played, Error> {
        if matches!(error, Error::Interrupted | Error::Project(_)) || self.load.end().is_err() {
            return Err(error);
        }
        self.find(unplayed(&error));
        self.strike().map_err(|_| error)
    }
}

/// Says that a case wasn't played to its end.
pub(crate) fn unplayed(error: &Error) -> String {
    format!("it couldn't be played to its end: {}", keel_control::chain(error))
}

/// What was killed, and when: from the signal to the last process's end.
#[derive(Clone, Debug)]
pub(crate) struct Killed {
    pub(crate) pids: Vec<Pid>,
    pub(crate) from: Moment,
    pub(crate) to: Moment,
}

/// How long after the last process's end others may not have heard of it: packets that lie in the kernel while all
/// processors are taken.
const UNHEARD_MAX: Duration = Duration::from_millis(100);

impl Killed {
    /// The time in which a request may have been caught by it.
    pub(crate) fn during(&self) -> (Moment, Moment) {
        (self.from, self.to.after(UNHEARD_MAX))
    }
}

impl Setup {
    /// The project as it is, with the time-outs after which a silent peer is given up.
    pub(crate) fn with_timeouts() -> Self {
        let time = format!("{}s", TIMES_OUT.as_secs());
        let tuning = Tuning {
            directives: vec![
                ("proxy_read_timeout", time.clone()),
                ("proxy_send_timeout", time.clone()),
                ("proxy_connect_timeout", time),
            ],
            ..Tuning::default()
        };
        Self { tuning, ..Self::default() }
    }
}

/// The multiple of `of` that is next to `about`, at least one.
pub(crate) fn multiple(about: u32, of: usize) -> u32 {
    let of = u32::try_from(of.max(1)).unwrap_or(u32::MAX);
    (about / of).max(1) * of
}

/// Whether instances answered in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turns {
    Taken,
    NotTaken,
}

impl Turns {
    fn words(self) -> &'static str {
        match self {
            Self::Taken => "in turn",
            Self::NotTaken => "not in turn",
        }
    }
}

/// Whether instances answered in turn: the same sequence again and again. `None` where they don't say who they are.
fn takes_turns(records: &[Record], instances: usize) -> Option<Turns> {
    let mut sorted: Vec<&Record> = records.iter().collect();
    sorted.sort_by_key(|record| record.id);
    let answered: Vec<&str> = sorted.iter().filter_map(|record| record.instance.as_deref()).collect();
    if answered.is_empty() || answered.len() < records.len() {
        return None;
    }
    let first: BTreeSet<&&str> = answered.iter().take(instances).collect();
    let repeats = answered.iter().zip(answered.iter().skip(instances)).all(|(one, next)| one == next);
    Some(if first.len() == instances && repeats { Turns::Taken } else { Turns::NotTaken })
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
        let port = system.peer_port.or(port);
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
