//! Decides what happens to which instance when.
//!
//! A state machine without I/O and without a clock: events and the time go in, actions come out. After each event it
//! walks every slot towards its wanted state ([`Supervisor::handle`]), so that no order of events leaves one behind. It
//! starts no process and knows no address: the driver does.
//!
//! A *slot* is an instance by its number in the service (`app-2`); a *life* is one process of it. A slot has one
//! current life, a second one while it is being replaced, and behind it any number that are ending.

mod command;
mod dependencies;
mod life;
mod rollout;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use keel_model::{Handover, Numbering, RestartCondition, Run, Service, ServiceName};

use command::Patience;
pub(crate) use command::{Command, CommandId};
pub use command::{CommandError, Ending, Failure, Recreate};
use life::{Life, Phase};
use rollout::Rollouts;
#[cfg(test)]
pub(crate) use tests::{container as test_container, service as test_service};
pub(crate) use view::View;

use crate::Exit;

/// Which start of an instance; counts over all of them from 1.
pub(crate) type Incarnation = u64;

/// Which probe of a life; counts from 1.
pub(crate) type ProbeNumber = u64;

/// An instance, by its service and its number in it, from 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SlotId {
    pub(crate) service: ServiceName,
    pub(crate) ordinal: u32,
}

/// Ends in a row from which on it is a crash loop.
const CRASH_LOOP_FROM: u32 = 3;
/// The pause before the second restart in a row; it doubles from there.
const BACK_OFF_FIRST: Duration = Duration::from_millis(100);
/// The longest pause before a restart.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// How long an instance must run for its start to count as a success, where the file says nothing. As Docker.
const RESTART_WINDOW: Duration = Duration::from_secs(10);
/// How long an instance must run to count as ready where nothing can be asked about it. Shorter, and it has died at once.
const STEADY_AFTER: Duration = Duration::from_secs(1);
/// Between two probes until the first success.
const FIRST_PROBES_EVERY: Duration = Duration::from_millis(100);
/// The same in a container, where a probe costs more.
const FIRST_CONTAINER_PROBES_EVERY: Duration = Duration::from_millis(500);
/// How long an instance without a healthcheck may take until it listens.
const LISTENS_WITHIN: Duration = Duration::from_secs(60);
/// After which time a start counts as slow, and how often that is said again.
const SLOW_AFTER: Duration = Duration::from_secs(1);
const SLOW_AGAIN: Duration = Duration::from_secs(5);

/// Something happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// Somebody wants something. Commands count from 1; `asked` is the last one that had been given when this one was,
    /// which may have been built for since. What was stopped meanwhile stays so.
    Command { id: CommandId, asked: CommandId, command: Command },
    /// The process runs.
    Started { incarnation: Incarnation },
    /// It couldn't be started.
    StartFailed { incarnation: Incarnation, why: String },
    /// The driver doesn't answer just now. The instance hasn't run.
    StartUnasked { incarnation: Incarnation, why: String },
    /// It listens on its first port.
    Listening { incarnation: Incarnation },
    /// It did, and doesn't any more.
    Deaf { incarnation: Incarnation },
    /// A port of it is elsewhere from now on.
    Moved { incarnation: Incarnation },
    /// The healthcheck asked for came to an end.
    Probed { incarnation: Incarnation, number: ProbeNumber, passed: bool },
    /// The driver has judged it.
    Judged { incarnation: Incarnation, verdict: EngineWord },
    /// Nothing is in flight to it any more.
    Drained { incarnation: Incarnation },
    /// The process ended and nothing is left of it.
    Exited { incarnation: Incarnation, exit: Exit },
    /// A service that others run accepts connections.
    Accepts { service: ServiceName },
    /// Time went by.
    Tick,
}

/// What an engine says of a container that it watches itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EngineWord {
    /// Its healthcheck passes.
    Well,
    /// Its healthcheck has failed as often as makes it unhealthy.
    Ill,
    /// Somebody paused it.
    Paused,
    /// It is paused no longer.
    Resumed,
    /// Somebody took it out of its networks.
    CutOff,
    /// It is in one of them again.
    Connected,
    /// Somebody else sent it a signal that ends it.
    Leaving,
}

/// Something to do.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Start a process.
    Start { incarnation: Incarnation, slot: SlotId, spec: Arc<Service> },
    /// Run the healthcheck once; where there is none, look whether it listens.
    Probe { incarnation: Incarnation, number: ProbeNumber },
    /// Send the process a signal.
    Signal { incarnation: Incarnation, signal: i32 },
    /// End everything that is left of it.
    KillAll { incarnation: Incarnation },
    /// Say that it drains; the pool without it has been published.
    Drain { incarnation: Incarnation, slot: SlotId },
    /// Publish the pool of a service.
    Publish { service: ServiceName, ready: Vec<Incarnation>, starting: bool },
    /// Tell how an instance stands.
    Status { slot: SlotId },
    /// An instance is gone, or has another name now.
    Gone { name: String },
    /// Say why it isn't ready yet.
    Slow { slot: SlotId, incarnation: Option<Incarnation> },
    /// Find out when a service that others run accepts connections.
    WatchExternal { service: ServiceName },
    /// A command came to its end.
    Finished { id: CommandId, result: Result<(), CommandError> },
}

/// What is wanted of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// It runs.
    Up,
    /// It doesn't: it was stopped, or has ended and isn't started again.
    Down,
}

#[derive(Debug)]
struct Slot {
    wanted: Wanted,
    /// The last command that ended it; 0 for none.
    stopped_by: CommandId,
    /// Once nothing of it lives it is forgotten.
    removed: bool,
    /// It ends after the services that depend on it (`down`).
    after_dependents: bool,
    patience: Patience,
    current: Option<Incarnation>,
    replacement: Option<Incarnation>,
    retiring: BTreeSet<Incarnation>,
    /// Ends in a row.
    failures: u32,
    /// Starts in a row that nobody could be asked for.
    unasked: u32,
    restarts: u32,
    retry_at: Option<Instant>,
    last_exit: Option<Exit>,
    /// Why it couldn't be started, or why it was ended.
    last_error: Option<String>,
    /// Since when it has no current life.
    since: Instant,
    slow_at: Option<Instant>,
}

/// What a life is to its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Current,
    /// It is to take the current one's place.
    Replacement,
    /// Another has taken its place.
    Retiring,
}

impl Slot {
    fn new(now: Instant, drain_timeout: Duration) -> Self {
        Self {
            wanted: Wanted::Up,
            stopped_by: 0,
            removed: false,
            after_dependents: false,
            patience: drain_timeout.into(),
            current: None,
            replacement: None,
            retiring: BTreeSet::new(),
            failures: 0,
            unasked: 0,
            restarts: 0,
            retry_at: None,
            last_exit: None,
            last_error: None,
            since: now,
            slow_at: Some(now + SLOW_AFTER),
        }
    }

    fn lives(&self) -> impl Iterator<Item = Incarnation> {
        self.current.into_iter().chain(self.replacement).chain(self.retiring.iter().copied())
    }

    fn is_crash_loop(&self) -> bool {
        self.failures >= CRASH_LOOP_FROM
    }

    /// Whether it has failed so often that nobody should wait for it.
    fn is_failing(&self) -> bool {
        self.is_crash_loop() || self.unasked >= CRASH_LOOP_FROM
    }

    /// Forgets a life that is over, and says which part it had. A replacement under way takes the current one's place.
    fn forget(&mut self, now: Instant, incarnation: Incarnation) -> Part {
        self.retiring.remove(&incarnation);
        if self.current == Some(incarnation) {
            self.current = self.replacement.take();
            self.since = now;
            return Part::Current;
        }
        if self.replacement == Some(incarnation) {
            self.replacement = None;
            return Part::Replacement;
        }
        Part::Retiring
    }

    /// Makes it wanted, with a clean record.
    fn want_up(&mut self, now: Instant) {
        if self.wanted == Wanted::Down || self.current.is_none() {
            self.slow_at = Some(now + SLOW_AFTER);
            self.last_exit = None;
            self.last_error = None;
        }
        self.wanted = Wanted::Up;
        self.failures = 0;
        self.unasked = 0;
        self.retry_at = None;
    }
}

#[derive(Debug)]
struct Entry {
    spec: Arc<Service>,
    /// How many instances are wanted; the file's number until it is scaled.
    replicas: u32,
    /// Of a service that others run: whether it was seen to accept connections.
    accepts: bool,
    /// Once nothing of it lives it is forgotten.
    removed: bool,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Supervisor {
    drain_timeout: Duration,
    services: BTreeMap<ServiceName, Entry>,
    slots: BTreeMap<SlotId, Slot>,
    lives: BTreeMap<Incarnation, Life>,
    last_incarnation: Incarnation,
    rollouts: Rollouts,
    pending: Vec<command::Pending>,
    /// The command that is being taken in, and the last one that had been given when it was.
    asked: (CommandId, CommandId),
    published: BTreeMap<ServiceName, (Vec<Incarnation>, bool)>,
    /// Services whose pools are to be published even if nobody joined or left: their instances' names or ports changed.
    renamed: BTreeSet<ServiceName>,
    told: BTreeSet<SlotId>,
    actions: Vec<Action>,
}

impl Supervisor {
    /// Makes one without services. `drain_timeout` holds where a command names none.
    pub(crate) fn new(drain_timeout: Duration) -> Self {
        Self {
            drain_timeout,
            services: BTreeMap::new(),
            slots: BTreeMap::new(),
            lives: BTreeMap::new(),
            last_incarnation: 0,
            rollouts: Rollouts::default(),
            pending: Vec::new(),
            asked: (0, 0),
            published: BTreeMap::new(),
            renamed: BTreeSet::new(),
            told: BTreeSet::new(),
            actions: Vec::new(),
        }
    }

    /// Takes in what happened and gives what to do, in this order.
    pub(crate) fn handle(&mut self, now: Instant, event: Event) -> Vec<Action> {
        match event {
            Event::Command { id, asked, command } => self.command(now, id, asked, command),
            Event::Started { incarnation } => self.started(now, incarnation),
            Event::StartFailed { incarnation, why } => self.start_failed(now, incarnation, why),
            Event::StartUnasked { incarnation, why } => self.start_unasked(now, incarnation, why),
            Event::Listening { incarnation } => self.listening(now, incarnation),
            Event::Deaf { incarnation } => self.deaf(now, incarnation),
            Event::Moved { incarnation } => {
                if let Some(life) = self.lives.get(&incarnation).filter(|life| life.is_ready()) {
                    self.renamed.insert(life.slot.service.clone());
                    self.told.insert(life.slot.clone());
                }
            }
            Event::Probed { incarnation, number, passed } => self.probed(now, incarnation, number, passed),
            Event::Judged { incarnation, verdict } => self.judged(now, incarnation, verdict),
            Event::Drained { incarnation } => self.drained(now, incarnation),
            Event::Exited { incarnation, exit } => self.exited(now, incarnation, exit),
            Event::Accepts { service } => {
                if let Some(entry) = self.services.get_mut(&service) {
                    entry.accepts = true;
                }
            }
            Event::Tick => {}
        }
        self.advance(now);
        self.check_invariants();
        std::mem::take(&mut self.actions)
    }

    /// The time of the next [`Event::Tick`] that is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let lives = self.lives.values().filter_map(Life::next_deadline);
        let slots = self.slots.values().filter(|slot| slot.wanted == Wanted::Up).flat_map(|slot| {
            let retry_at = slot.retry_at.filter(|_| slot.current.is_none());
            retry_at.into_iter().chain(slot.slow_at)
        });
        let steady = self.slots.values().filter_map(|slot| self.steady_at(slot));
        lives.chain(slots).chain(steady).min()
    }

    /// When an instance that kept ending will have run for long enough to be trusted again.
    fn steady_at(&self, slot: &Slot) -> Option<Instant> {
        let life = slot.current.filter(|_| slot.failures > 0).and_then(|current| self.lives.get(&current))?;
        life.is_ready().then(|| life.started + window_of(&life.spec))
    }

    /// Forgets the failures of those that have run for long enough since.
    fn trust_again(&mut self, now: Instant) {
        let steady = |slot: &Slot| self.steady_at(slot).is_some_and(|at| at <= now);
        let trusted: Vec<SlotId> =
            self.slots.iter().filter(|(_, slot)| steady(slot)).map(|(id, _)| id.clone()).collect();
        for id in trusted {
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.failures = 0;
                self.told.insert(id);
            }
        }
    }

    fn advance(&mut self, now: Instant) {
        self.fire_timers(now);
        self.trust_again(now);
        self.begin_ends(now);
        self.begin_starts(now);
        self.advance_rollouts(now);
        // A rollout may have made a slot wanted that has no life.
        self.begin_starts(now);
        self.tell_slow(now);
        self.forget_removed();
        self.publish();
        self.finish_commands();
        for slot in std::mem::take(&mut self.told) {
            if self.slots.contains_key(&slot) {
                self.actions.push(Action::Status { slot });
            }
        }
    }

    fn begin_starts(&mut self, now: Instant) {
        for slot in self.slots.values_mut().filter(|slot| slot.wanted == Wanted::Up) {
            // Stopped, and wanted again before it was gone: the next one needn't wait for that.
            let ending = |life: &Incarnation| self.lives.get(life).is_some_and(Life::is_ending_as_asked);
            if let Some(current) = slot.current.filter(ending) {
                slot.retiring.insert(current);
                slot.current = slot.replacement.take();
            }
        }
        let due: Vec<SlotId> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.wanted == Wanted::Up && slot.current.is_none())
            .filter(|(_, slot)| slot.retry_at.is_none_or(|at| at <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            let incarnation = match self.unmet_dependency(&id.service) {
                None if !self.must_wait(&id) => self.spawn(now, &id),
                _ => None,
            };
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.current = incarnation;
                slot.retry_at = None;
            }
        }
    }

    /// Whether an instance of a service can't start while another life of it goes on.
    fn takes_turns(&self, service: &ServiceName) -> bool {
        self.services.get(service).is_some_and(|entry| takes_turns(&entry.spec))
    }

    /// Whether those that end have to be gone before the next one starts.
    fn must_wait(&self, id: &SlotId) -> bool {
        let Some(slot) = self.slots.get(id).filter(|slot| !slot.retiring.is_empty()) else { return false };
        let one_that_ends =
            |life: &Incarnation| self.lives.get(life).is_some_and(|life| takes_turns(&life.spec));
        self.takes_turns(&id.service) || slot.retiring.iter().any(one_that_ends)
    }

    /// Starts a life for a slot; the caller puts it in its place.
    fn spawn(&mut self, now: Instant, id: &SlotId) -> Option<Incarnation> {
        let spec = Arc::clone(&self.services.get(&id.service)?.spec);
        self.last_incarnation += 1;
        let incarnation = self.last_incarnation;
        self.lives.insert(incarnation, Life::new(now, id.clone(), Arc::clone(&spec)));
        self.actions.push(Action::Start { incarnation, slot: id.clone(), spec });
        self.told.insert(id.clone());
        Some(incarnation)
    }

    /// Begins to end what isn't wanted.
    fn begin_ends(&mut self, now: Instant) {
        let goes_on = |slot: &Slot| slot.lives().any(|life| !self.is_ending(life));
        let held =
            |id: &SlotId, slot: &Slot| slot.after_dependents && self.has_living_dependents(&id.service);
        let unwanted = self.slots.iter().filter(|(_, slot)| slot.wanted == Wanted::Down && goes_on(slot));
        let unwanted: Vec<(SlotId, Vec<Incarnation>)> = unwanted
            .filter(|(id, slot)| !held(id, slot))
            .map(|(id, slot)| (id.clone(), slot.lives().collect()))
            .collect();
        for (id, lives) in unwanted {
            let usual = self.drain_timeout.into();
            let patience = self.slots.get(&id).map_or(usual, |slot| slot.patience);
            for incarnation in lives {
                self.begin_end(now, incarnation, patience);
            }
        }
    }

    fn is_ending(&self, incarnation: Incarnation) -> bool {
        self.lives.get(&incarnation).is_none_or(Life::is_ending)
    }

    fn tell_slow(&mut self, now: Instant) {
        for (id, slot) in &mut self.slots {
            let ready = slot.current.and_then(|current| self.lives.get(&current)).is_some_and(Life::is_ready);
            if slot.wanted == Wanted::Down || ready {
                slot.slow_at = None;
            } else if slot.slow_at.is_some_and(|at| at <= now) {
                slot.slow_at = Some(now + SLOW_AGAIN);
                self.actions.push(Action::Slow { slot: id.clone(), incarnation: slot.current });
            }
        }
    }

    fn forget_removed(&mut self) {
        let gone: Vec<SlotId> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.removed && slot.lives().next().is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            let name = self.name_of(&id);
            self.slots.remove(&id);
            self.actions.push(Action::Gone { name });
        }
        let living: BTreeSet<ServiceName> = self.slots.keys().map(|id| id.service.clone()).collect();
        self.services.retain(|name, entry| !entry.removed || living.contains(name));
    }

    /// Says which services' pools changed.
    fn publish(&mut self) {
        let names: BTreeSet<ServiceName> =
            self.services.keys().chain(self.published.keys()).cloned().collect();
        for name in names {
            let pool = (self.ready_of(&name), self.is_starting(&name));
            let before = self.published.get(&name);
            let renamed = self.renamed.remove(&name);
            if (renamed || before != Some(&pool)) && (before.is_some() || pool != (Vec::new(), false)) {
                let (ready, starting) = pool.clone();
                // Before anything that follows from the change, such as a signal to an instance that has just left.
                self.actions.insert(0, Action::Publish { service: name.clone(), ready, starting });
                self.published.insert(name, pool);
            }
        }
        self.published.retain(|name, pool| self.services.contains_key(name) || *pool != (Vec::new(), false));
    }

    fn slots_of(&self, service: &ServiceName) -> impl Iterator<Item = (&SlotId, &Slot)> {
        let first = SlotId { service: service.clone(), ordinal: 0 };
        let last = SlotId { service: service.clone(), ordinal: u32::MAX };
        self.slots.range(first..=last)
    }

    fn ready_of(&self, service: &ServiceName) -> Vec<Incarnation> {
        let lives =
            self.slots_of(service).flat_map(|(_, slot)| slot.current.into_iter().chain(slot.replacement));
        lives.filter(|life| self.lives.get(life).is_some_and(Life::is_ready)).collect()
    }

    /// Whether an instance is on its way that will join the pool.
    fn is_starting(&self, service: &ServiceName) -> bool {
        self.slots_of(service).any(|(_, slot)| {
            let coming = match slot.current {
                Some(life) => self.lives.get(&life).is_some_and(Life::is_coming),
                None => self.unmet_dependency(service).is_none_or(|unmet| !unmet.hopeless),
            };
            slot.wanted == Wanted::Up && !slot.is_failing() && coming
        })
    }

    /// An instance's name: the service's, and its number where there are several.
    pub(crate) fn name_of(&self, id: &SlotId) -> String {
        let Some(entry) = self.services.get(&id.service) else {
            return format!("{}-{}", id.service, id.ordinal);
        };
        match &entry.spec.instance_name {
            Some(name) if id.ordinal == 1 => name.clone(),
            _ if entry.replicas <= 1 && id.ordinal == 1 && entry.spec.numbering == Numbering::Several => {
                id.service.to_string()
            }
            _ => format!("{}-{}", id.service, id.ordinal),
        }
    }

    /// Finds the slots that a name stands for: a service's, or one instance's.
    pub(crate) fn find(&self, name: &str) -> Vec<SlotId> {
        let of_service: Vec<_> =
            self.slots_of(&ServiceName(name.to_owned())).map(|(id, _)| id.clone()).collect();
        if !of_service.is_empty() {
            return of_service;
        }
        let named =
            |id: &&SlotId| self.name_of(id) == name || format!("{}-{}", id.service, id.ordinal) == name;
        self.slots.keys().filter(named).cloned().collect()
    }

    /// The service of that name as it was last applied.
    pub(crate) fn service(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        self.services.get(name).map(|entry| &entry.spec)
    }

    /// Takes in what has come to light about a service since it was applied.
    pub(crate) fn learn(&mut self, spec: Arc<Service>) {
        if let Some(entry) = self.services.get_mut(&spec.name) {
            entry.spec = spec;
        }
    }

    /// All services as they were last applied.
    pub(crate) fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values().map(|entry| &entry.spec)
    }

    /// All slots.
    pub(crate) fn slot_ids(&self) -> impl Iterator<Item = &SlotId> {
        self.slots.keys()
    }

    /// The current life of a slot.
    pub(crate) fn current(&self, id: &SlotId) -> Option<Incarnation> {
        self.slots.get(id)?.current
    }

    /// Whether a life may get requests.
    pub(crate) fn is_ready(&self, incarnation: Incarnation) -> bool {
        self.lives.get(&incarnation).is_some_and(Life::is_ready)
    }

    /// The slot that a life belongs to.
    pub(crate) fn slot_of(&self, incarnation: Incarnation) -> Option<&SlotId> {
        self.lives.get(&incarnation).map(|life| &life.slot)
    }

    fn check_invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        let mut seen = BTreeSet::new();
        for (id, slot) in &self.slots {
            for incarnation in slot.lives() {
                assert!(seen.insert(incarnation), "life {incarnation} has two places");
                let life = self.lives.get(&incarnation);
                assert!(life.is_some_and(|life| life.slot == *id), "life {incarnation} isn't {id:?}'s");
            }
            for incarnation in &slot.retiring {
                assert!(self.is_ending(*incarnation), "life {incarnation} retires and isn't ending");
            }
            if slot.wanted == Wanted::Down && !slot.after_dependents {
                assert!(slot.lives().all(|life| self.is_ending(life)), "{id:?} isn't wanted and stays");
            }
            assert!(
                slot.replacement.is_none() || self.rollouts.is_replacing(id),
                "{id:?} is replaced by nobody"
            );
        }
        assert_eq!(seen.len(), self.lives.len(), "a life has no place");
        for (incarnation, life) in &self.lives {
            assert!(!life.is_ready() || !life.is_kept_out(), "life {incarnation} is ready: {life:?}");
        }
    }
}

/// Whether its instances listen on a TCP port that others are to reach.
fn serves(spec: &Service) -> bool {
    spec.ports.iter().any(|port| port.protocol == keel_model::Protocol::Tcp)
}

/// Whether an instance must be seen to listen before it is ready, beside what its healthcheck says. A container is on its
/// own: its healthcheck asks inside of it.
fn must_listen(spec: &Service) -> bool {
    let is_sure = spec.healthcheck.is_none() || spec.must_listen;
    matches!(spec.run, Run::Process(_)) && serves(spec) && is_sure
}

/// Whether Evenkeel runs it.
fn is_run_here(spec: &Service) -> bool {
    matches!(spec.run, Run::Process(_) | Run::Container(_))
}

/// Whether two lives of an instance can't be at once.
fn takes_turns(spec: &Service) -> bool {
    matches!(&spec.run, Run::Container(container) if container.handover == Handover::OneAtATime)
}

/// How long an instance must run for its start to count as a success.
fn window_of(spec: &Service) -> Duration {
    spec.restart.window.max(RESTART_WINDOW)
}

/// The pause before a restart, if there is to be one. `failures` counts the end that has just happened.
fn restart_after(spec: &Service, exit: Exit, failures: u32) -> Option<Duration> {
    let policy = &spec.restart;
    let again = match policy.condition {
        RestartCondition::Never => false,
        RestartCondition::OnFailure => !exit.is_success(),
        RestartCondition::Always => true,
    };
    if !again || policy.attempts_max.is_some_and(|max| failures > max) {
        return None;
    }
    Some(policy.delay.max(back_off(failures)))
}

/// The pause after so many failures in a row.
fn back_off(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        n => BACK_OFF_FIRST.saturating_mul(2_u32.saturating_pow(n - 2)).min(BACK_OFF_MAX),
    }
}
