//! What can be asked of the supervisor, and when that is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use keel_model::{Service, ServiceName};

use super::{
    Action, Entry, Life, Slot, SlotId, Supervisor, Wanted, is_run_here,
    rollout::{Planned, Why},
};

/// Tells one command from another.
pub(crate) type CommandId = u64;

/// The most instances of one service.
const REPLICAS_MAX: u32 = 1_000;

/// Something that somebody wants.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// Run these services, and no others. Of those in `only`, if given, and what they depend on, instances are started
    /// and replaced; the rest is only known from then on.
    Apply { services: Vec<Arc<Service>>, only: Option<BTreeSet<ServiceName>>, recreate: Recreate },
    /// Start what doesn't run, and what it depends on.
    Start { names: Vec<String> },
    /// Drain and end.
    Stop { names: Vec<String>, ending: Ending },
    /// Replace, one at a time.
    Restart { names: Vec<String>, ending: Ending },
    /// Send a signal, without a drain.
    Kill { names: Vec<String>, signal: i32 },
    /// Run that many instances.
    Scale { service: ServiceName, replicas: u32 },
    /// End everything, dependents first.
    Down { ending: Ending },
}

/// How long an instance may take to end, where that isn't as usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// For what is in flight, before it is told to end.
    pub drain: Option<Duration>,
    /// From there until it is killed; else its `stop_grace_period`.
    pub grace: Option<Duration>,
}

impl Ending {
    /// Limits the drain alone.
    pub fn drain(limit: Duration) -> Self {
        Self { drain: Some(limit), grace: None }
    }

    fn or(self, drain_timeout: Duration) -> Patience {
        Patience { drain: self.drain.unwrap_or(drain_timeout), grace: self.grace }
    }
}

/// The same with a limit for the drain in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    pub(super) drain: Duration,
    pub(super) grace: Option<Duration>,
}

impl From<Duration> for Patience {
    fn from(drain: Duration) -> Self {
        Self { drain, grace: None }
    }
}

/// Which running instances an apply replaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recreate {
    /// Those whose service changed.
    #[default]
    Changed,
    /// All of them.
    All,
}

/// Why a command didn't come to its end as it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No service and no instance has that name.
    #[error("there is no service or instance `{name}`")]
    UnknownName {
        /// The name.
        name: String,
    },
    /// A service with a fixed name can have one instance only.
    #[error("service `{service}` can't have {replicas} instances: its container_name is `{instance_name}`")]
    FixedName {
        /// The service.
        service: ServiceName,
        /// How many were asked for.
        replicas: u32,
        /// The fixed name.
        instance_name: String,
    },
    /// More instances than Evenkeel runs of one service.
    #[error("service `{service}` can't have {replicas} instances: the most is {REPLICAS_MAX}")]
    TooMany {
        /// The service.
        service: ServiceName,
        /// How many were asked for.
        replicas: u32,
    },
    /// Others run the service.
    #[error("service `{service}` isn't run here: it is found at its x-process.address")]
    NotRunHere {
        /// The service.
        service: ServiceName,
    },
    /// Some instances didn't reach the state; the others did.
    #[error("{}", failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Failed {
        /// Each of them, and why.
        failures: Vec<Failure>,
    },
    /// The runner has ended.
    #[error("the runner has ended")]
    Ended,
}

/// An instance that didn't reach the state it was to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its name.
    pub instance: String,
    /// Why.
    pub why: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.instance, self.why)
    }
}

/// A command that hasn't come to its end.
#[derive(Debug)]
pub(super) struct Pending {
    id: CommandId,
    goals: BTreeMap<SlotId, Goal>,
    failures: Vec<Failure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// Its current life is ready, or it has done its work.
    Up,
    /// Nothing of it lives.
    Down,
    /// The rollout has been there, and what it replaced is gone.
    Replaced,
}

impl Supervisor {
    /// `asked` is the last command that had been given when this one was: what was stopped since stays so.
    pub(super) fn command(&mut self, now: Instant, id: CommandId, asked: CommandId, command: Command) {
        self.asked = (id, asked);
        let goals = match command {
            Command::Apply { services, only, recreate } => self.apply(now, id, services, only, recreate),
            Command::Start { names } => self.start(now, &names),
            Command::Stop { names, ending } => self.stop_named(now, &names, ending),
            Command::Restart { names, ending } => self.restart(now, id, &names, ending),
            Command::Kill { names, signal } => self.kill(now, &names, signal),
            Command::Scale { service, replicas } => self.scale(now, service, replicas),
            Command::Down { ending } => Ok(self.down(now, ending)),
        };
        match goals {
            Ok(goals) => self.pending.push(Pending { id, goals, failures: Vec::new() }),
            Err(error) => self.actions.push(Action::Finished { id, result: Err(error) }),
        }
    }

    fn apply(
        &mut self,
        now: Instant,
        id: CommandId,
        services: Vec<Arc<Service>>,
        only: Option<BTreeSet<ServiceName>>,
        recreate: Recreate,
    ) -> Result<BTreeMap<SlotId, Goal>, CommandError> {
        for spec in &services {
            check_replicas(spec, spec.replicas)?;
        }
        let mut goals = self.remove_all_but(&services);
        let all: BTreeSet<ServiceName> = services.iter().map(|spec| spec.name.clone()).collect();
        let only = only.unwrap_or_else(|| all.clone());
        for spec in &services {
            // What isn't asked for keeps running as it is; what doesn't run may as well be known in its new form.
            let running = self.slots_of(&spec.name).next().is_some();
            if !running || only.contains(&spec.name) {
                self.know(spec);
            }
        }
        let wanted = self.with_dependencies(only.into_iter().filter(|name| all.contains(name)).collect());
        for spec in services.iter().filter(|spec| wanted.contains(&spec.name) && is_run_here(spec)) {
            let named_before = self.names_of(&spec.name);
            self.know(spec);
            goals.extend(self.resize(now, &spec.name, spec.replicas));
            self.tell_renamed(&named_before);
            for (slot, goal) in goals.iter_mut().filter(|(slot, _)| slot.service == spec.name) {
                if *goal == Goal::Up && self.is_outdated(slot, spec, recreate) {
                    let why = if recreate == Recreate::All { Why::Asked } else { Why::Outdated };
                    let (slot, patience) = (slot.clone(), self.drain_timeout.into());
                    self.rollouts.enqueue(Planned { slot, command: id, patience, why });
                    *goal = Goal::Replaced;
                }
            }
        }
        Ok(goals)
    }

    fn know(&mut self, spec: &Arc<Service>) {
        let entry = self.services.entry(spec.name.clone());
        let entry = entry.or_insert_with(|| Entry {
            spec: Arc::clone(spec),
            replicas: 0,
            accepts: false,
            removed: false,
        });
        if entry.spec.run != spec.run {
            entry.accepts = false;
        }
        entry.spec = Arc::clone(spec);
        entry.removed = false;
        if entry.replicas == 0 {
            entry.replicas = spec.replicas;
        }
        if !is_run_here(spec) && !entry.accepts {
            self.actions.push(Action::WatchExternal { service: spec.name.clone() });
        }
    }

    fn is_outdated(&self, slot: &SlotId, spec: &Service, recreate: Recreate) -> bool {
        let current = self.slots.get(slot).and_then(|slot| slot.current);
        let life = current.and_then(|current| self.lives.get(&current)).filter(|life| !life.is_ending());
        life.is_some_and(|life| recreate == Recreate::All || life.spec.digest != spec.digest)
    }

    fn remove_all_but(&mut self, services: &[Arc<Service>]) -> BTreeMap<SlotId, Goal> {
        let mut goals = BTreeMap::new();
        let gone: Vec<ServiceName> = self
            .services
            .keys()
            .filter(|name| services.iter().all(|spec| spec.name != **name))
            .cloned()
            .collect();
        for name in gone {
            goals.extend(self.resize_down(&name, 0));
            if let Some(entry) = self.services.get_mut(&name) {
                entry.removed = true;
            }
        }
        goals
    }

    /// Brings the slots of a service to a number, and all of them up.
    fn resize(&mut self, now: Instant, name: &ServiceName, replicas: u32) -> BTreeMap<SlotId, Goal> {
        let mut goals = self.resize_down(name, replicas);
        for ordinal in 1..=replicas {
            let id = SlotId { service: name.clone(), ordinal };
            let fresh = || Slot::new(now, self.drain_timeout);
            let slot = self.slots.entry(id.clone()).or_insert_with(fresh);
            slot.removed = false;
            slot.after_dependents = false;
            if slot.stopped_by > self.asked.1 {
                continue;
            }
            slot.want_up(now);
            self.told.insert(id.clone());
            goals.insert(id, Goal::Up);
        }
        if let Some(entry) = self.services.get_mut(name) {
            entry.replicas = replicas;
        }
        goals
    }

    fn resize_down(&mut self, name: &ServiceName, replicas: u32) -> BTreeMap<SlotId, Goal> {
        let surplus: Vec<SlotId> =
            self.slots_of(name).map(|(id, _)| id.clone()).filter(|id| id.ordinal > replicas).collect();
        let drain_timeout = self.drain_timeout;
        for id in &surplus {
            self.supersede(id);
            if let Some(slot) = self.slots.get_mut(id) {
                slot.removed = true;
                slot.wanted = Wanted::Down;
                slot.patience = drain_timeout.into();
                slot.after_dependents = false;
            }
        }
        surplus.into_iter().map(|id| (id, Goal::Down)).collect()
    }

    fn names_of(&self, service: &ServiceName) -> Vec<(SlotId, String)> {
        self.slots_of(service).map(|(id, _)| (id.clone(), self.name_of(id))).collect()
    }

    /// Says of instances whose name changed that the old one is gone.
    fn tell_renamed(&mut self, before: &[(SlotId, String)]) {
        for (id, name) in before {
            if self.name_of(id) != *name {
                self.actions.push(Action::Gone { name: name.clone() });
                self.told.insert(id.clone());
                // The pool carries names.
                self.renamed.insert(id.service.clone());
            }
        }
    }

    /// Finds what names stand for; each must stand for something. No name at all stands for everything.
    fn resolve(&self, names: &[String]) -> Result<Vec<SlotId>, CommandError> {
        if names.is_empty() {
            return Ok(self.slots.keys().cloned().collect());
        }
        let mut found = Vec::new();
        for name in names {
            let slots = self.find(name);
            if slots.is_empty() && !self.services.contains_key(&ServiceName(name.clone())) {
                return Err(CommandError::UnknownName { name: name.clone() });
            }
            found.extend(slots);
        }
        Ok(found)
    }

    fn start(&mut self, now: Instant, names: &[String]) -> Result<BTreeMap<SlotId, Goal>, CommandError> {
        let mut slots = self.resolve(names)?;
        let services: Vec<ServiceName> = names.iter().map(|name| ServiceName(name.clone())).collect();
        let named = services.iter().filter(|name| self.services.contains_key(name)).cloned();
        let asked: Vec<ServiceName> = named.chain(slots.iter().map(|id| id.service.clone())).collect();
        for name in self.with_dependencies(asked.clone()) {
            let Some(entry) = self.services.get(&name).filter(|entry| is_run_here(&entry.spec)) else {
                continue;
            };
            let replicas = entry.replicas.max(1);
            if self.slots_of(&name).next().is_none() {
                slots.extend(self.resize(now, &name, replicas).into_keys());
            } else if !asked.contains(&name) {
                // What has done its work isn't done again for those who wait for it.
                let done = |slot: &Slot| slot.last_exit.is_some_and(crate::Exit::is_success);
                let undone = self.slots_of(&name).filter(|(_, slot)| !done(slot));
                slots.extend(undone.map(|(id, _)| id.clone()).collect::<Vec<_>>());
            }
        }
        let mut goals = BTreeMap::new();
        for id in slots {
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            if !slot.removed && slot.stopped_by <= self.asked.1 {
                slot.want_up(now);
                self.told.insert(id.clone());
            }
            goals.insert(id, Goal::Up);
        }
        Ok(goals)
    }

    fn stop_named(
        &mut self,
        now: Instant,
        names: &[String],
        ending: Ending,
    ) -> Result<BTreeMap<SlotId, Goal>, CommandError> {
        let slots = self.resolve(names)?;
        let patience = ending.or(self.drain_timeout);
        for id in &slots {
            self.want_down(now, id, patience);
        }
        Ok(slots.into_iter().map(|id| (id, Goal::Down)).collect())
    }

    fn want_down(&mut self, now: Instant, id: &SlotId, patience: Patience) {
        self.supersede(id);
        // What ends already may be given less time.
        let lives: Vec<_> = self.slots.get(id).into_iter().flat_map(Slot::lives).collect();
        for life in lives.into_iter().filter(|life| self.is_ending(*life)).collect::<Vec<_>>() {
            self.begin_end(now, life, patience);
        }
        if let Some(slot) = self.slots.get_mut(id) {
            slot.wanted = Wanted::Down;
            slot.stopped_by = self.asked.0;
            slot.retry_at = None;
            slot.failures = 0;
            slot.patience = patience;
            slot.after_dependents = false;
            self.told.insert(id.clone());
        }
    }

    fn restart(
        &mut self,
        now: Instant,
        id: CommandId,
        names: &[String],
        ending: Ending,
    ) -> Result<BTreeMap<SlotId, Goal>, CommandError> {
        let mut slots = self.resolve(names)?;
        let mut services: BTreeSet<ServiceName> = slots.iter().map(|slot| slot.service.clone()).collect();
        // `depends_on: restart: true` reaches on to dependents of dependents.
        loop {
            let follows = |entry: &&Entry| {
                entry.spec.depends_on.iter().any(|d| d.restart && services.contains(&d.service))
            };
            let more: Vec<ServiceName> = self
                .services
                .values()
                .filter(follows)
                .map(|entry| entry.spec.name.clone())
                .filter(|name| !services.contains(name))
                .collect();
            if more.is_empty() {
                break;
            }
            for name in more {
                let up = self.slots_of(&name).filter(|(_, slot)| slot.wanted == Wanted::Up);
                slots.extend(up.map(|(id, _)| id.clone()).collect::<Vec<_>>());
                services.insert(name);
            }
        }
        let mut goals = BTreeMap::new();
        slots.retain(|slot| self.slots.get(slot).is_some_and(|slot| !slot.removed));
        for slot in slots {
            if !self.goes_on(&slot) {
                // There is nothing to replace.
                if let Some(stopped) = self.slots.get_mut(&slot) {
                    stopped.want_up(now);
                    self.told.insert(slot.clone());
                }
                goals.insert(slot, Goal::Up);
            } else if !goals.contains_key(&slot) {
                goals.insert(slot.clone(), Goal::Replaced);
                let patience = ending.or(self.drain_timeout);
                self.rollouts.enqueue(Planned { slot, command: id, patience, why: Why::Asked });
            }
        }
        Ok(goals)
    }

    /// Whether a slot has a life that isn't about to end.
    fn goes_on(&self, id: &SlotId) -> bool {
        let current = self.slots.get(id).and_then(|slot| slot.current);
        current.and_then(|current| self.lives.get(&current)).is_some_and(|life| !life.is_ending())
    }

    fn kill(
        &mut self,
        now: Instant,
        names: &[String],
        signal: i32,
    ) -> Result<BTreeMap<SlotId, Goal>, CommandError> {
        const SIGKILL: i32 = 9;
        let slots = self.resolve(names)?;
        let mut goals = BTreeMap::new();
        for id in slots {
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            let lives: Vec<_> = slot.lives().collect();
            let stop_signal = self.services.get(&id.service).map(|entry| entry.spec.stop.signal);
            // As Docker: a signal that is to end it also says that it shall not come back.
            let ends = signal == SIGKILL || stop_signal == Some(signal);
            if ends {
                slot.stopped_by = self.asked.0;
                slot.wanted = Wanted::Down;
                slot.retry_at = None;
                slot.patience = Duration::ZERO.into();
                slot.after_dependents = false;
                goals.insert(id.clone(), Goal::Down);
                self.supersede(&id);
            }
            for incarnation in lives {
                if signal == SIGKILL {
                    self.kill_now(now, incarnation);
                } else if !ends && self.lives.get(&incarnation).is_some_and(Life::is_started) {
                    self.actions.push(Action::Signal { incarnation, signal });
                }
            }
        }
        Ok(goals)
    }

    fn scale(
        &mut self,
        now: Instant,
        service: ServiceName,
        replicas: u32,
    ) -> Result<BTreeMap<SlotId, Goal>, CommandError> {
        let Some(entry) = self.services.get(&service) else {
            return Err(CommandError::UnknownName { name: service.0 });
        };
        let spec = Arc::clone(&entry.spec);
        check_replicas(&spec, replicas)?;
        if !is_run_here(&spec) {
            return Err(CommandError::NotRunHere { service });
        }
        let before = self.names_of(&service);
        // As with Compose, so many run afterwards: one that was stopped by name before counts and is started.
        let goals = self.resize(now, &service, replicas);
        self.tell_renamed(&before);
        Ok(goals)
    }

    fn down(&mut self, now: Instant, ending: Ending) -> BTreeMap<SlotId, Goal> {
        let patience = ending.or(self.drain_timeout);
        let all: Vec<SlotId> = self.slots.keys().cloned().collect();
        for id in &all {
            self.want_down(now, id, patience);
            if let Some(slot) = self.slots.get_mut(id) {
                slot.removed = true;
                slot.after_dependents = true;
            }
        }
        all.into_iter().map(|id| (id, Goal::Down)).collect()
    }

    /// Has a command wait until an instance that it found ended has come up, in place of its replacement.
    pub(super) fn await_start(&mut self, slot: &SlotId, command: CommandId) {
        let pending = self.pending.iter_mut().find(|pending| pending.id == command);
        if let Some(goal) = pending.and_then(|pending| pending.goals.get_mut(slot)) {
            *goal = Goal::Up;
        }
    }

    /// Notes that a command failed for an instance.
    pub(super) fn fail_command(&mut self, id: CommandId, failure: Failure) {
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.id == id) {
            pending.failures.push(failure);
        }
    }

    pub(super) fn finish_commands(&mut self) {
        for mut pending in std::mem::take(&mut self.pending) {
            let mut failures = std::mem::take(&mut pending.failures);
            pending.goals.retain(|slot, goal| match self.reached(slot, *goal, pending.id) {
                Reached::NotYet => true,
                Reached::Yes => false,
                Reached::Never(why) => {
                    failures.push(Failure { instance: self.name_of(slot), why });
                    false
                }
            });
            if !pending.goals.is_empty() {
                self.pending.push(Pending { failures, ..pending });
                continue;
            }
            let result = if failures.is_empty() { Ok(()) } else { Err(CommandError::Failed { failures }) };
            self.actions.push(Action::Finished { id: pending.id, result });
        }
    }

    fn reached(&self, id: &SlotId, goal: Goal, command: CommandId) -> Reached {
        let slot = self.slots.get(id);
        match goal {
            Goal::Replaced if self.rollouts.is_pending(id, command) => Reached::NotYet,
            Goal::Replaced if slot.is_some_and(|slot| !slot.retiring.is_empty()) => Reached::NotYet,
            Goal::Replaced => Reached::Yes,
            Goal::Down if slot.is_some_and(|slot| slot.wanted == Wanted::Up) => Reached::Yes,
            Goal::Down if slot.is_some_and(|slot| slot.lives().next().is_some()) => Reached::NotYet,
            Goal::Down => Reached::Yes,
            Goal::Up if self.rollouts.is_pending(id, command) => Reached::NotYet,
            Goal::Up => slot.map_or_else(
                || Reached::Never("it was removed meanwhile".into()),
                |slot| self.came_up(id, slot),
            ),
        }
    }

    fn came_up(&self, id: &SlotId, slot: &Slot) -> Reached {
        let why_ended = || match (&slot.last_error, slot.last_exit) {
            (Some(error), _) => error.clone(),
            (None, Some(exit)) => format!("ended: {exit}"),
            (None, None) => "it was stopped meanwhile".into(),
        };
        if slot.wanted == Wanted::Down {
            let completed = slot.last_exit.is_some_and(crate::Exit::is_success) && slot.last_error.is_none();
            return if completed { Reached::Yes } else { Reached::Never(why_ended()) };
        }
        match slot.current.and_then(|current| self.lives.get(&current)) {
            Some(life) if life.is_ready() => Reached::Yes,
            Some(life) if life.is_unhealthy() => Reached::Never(life.complaint()),
            _ if slot.is_crash_loop() => Reached::Never(format!(
                "{} times in a row right after its start, {}",
                slot.failures,
                why_ended()
            )),
            _ if slot.is_failing() => Reached::Never(why_ended()),
            Some(_) => Reached::NotYet,
            None => match self.unmet_dependency(&id.service) {
                Some(unmet) if unmet.hopeless => Reached::Never(unmet.text),
                _ => Reached::NotYet,
            },
        }
    }
}

enum Reached {
    Yes,
    NotYet,
    Never(String),
}

fn check_replicas(spec: &Service, replicas: u32) -> Result<(), CommandError> {
    let service = spec.name.clone();
    match &spec.instance_name {
        Some(instance_name) if replicas > 1 => {
            Err(CommandError::FixedName { service, replicas, instance_name: instance_name.clone() })
        }
        _ if replicas > REPLICAS_MAX => Err(CommandError::TooMany { service, replicas }),
        _ => Ok(()),
    }
}
