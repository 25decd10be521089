//! Replaces running instances: the replacement first, one at a time.
//!
//! All rollouts share one queue, so that a restart of three services takes one instance at a time as well. Where a
//! replacement doesn't become ready the instance it was to replace goes on, and the rest of that command is not
//! attempted. The next one has its turn when the old one has left the pool, was drained and was told to end: how long it takes
//! over that isn't waited for. What a later command says of an instance counts: one that is stopped leaves the queue, and the others
//! are replaced.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{CommandId, Failure, Incarnation, Life, Patience, SlotId, Supervisor, Wanted, takes_turns};

#[derive(Debug, Default)]
pub(super) struct Rollouts {
    queue: VecDeque<Planned>,
    step: Option<Step>,
}

/// A slot whose life is to be replaced.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) slot: SlotId,
    pub(super) command: CommandId,
    /// How long the old one may take to end.
    pub(super) patience: Patience,
    pub(super) why: Why,
}

/// Why a life is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Somebody wants that.
    Asked,
    /// Its service has changed. One that was replaced meanwhile is as it should be.
    Outdated,
}

#[derive(Debug)]
struct Step {
    planned: Planned,
    phase: Replacing,
}

#[derive(Debug)]
enum Replacing {
    /// The replacement isn't ready yet.
    Starting { new: Incarnation },
    /// It is, and the old one leaves: until what is in flight is done and it was told to end.
    Retiring { old: Incarnation },
    /// The old one ends first, and then the new one starts: both at once can't be.
    InTurn,
    /// A later command ends the instance, its replacement too.
    Superseded,
}

impl Rollouts {
    pub(super) fn enqueue(&mut self, planned: Planned) {
        self.queue.push_back(planned);
    }

    /// Whether a slot has yet to be replaced for a command.
    pub(super) fn is_pending(&self, slot: &SlotId, command: CommandId) -> bool {
        let now = self.step.as_ref().map(|step| &step.planned);
        self.queue.iter().chain(now).any(|planned| planned.slot == *slot && planned.command == command)
    }

    pub(super) fn is_replacing(&self, slot: &SlotId) -> bool {
        self.step.as_ref().is_some_and(|step| step.planned.slot == *slot)
    }

    /// Gives up what is planned for a slot; gives the commands that planned it.
    fn supersede(&mut self, slot: &SlotId) -> Vec<CommandId> {
        let of_slot = |planned: &Planned| planned.slot == *slot;
        let mut commands: Vec<CommandId> =
            self.queue.iter().filter(|planned| of_slot(planned)).map(|planned| planned.command).collect();
        self.queue.retain(|planned| !of_slot(planned));
        if let Some(step) = self.step.as_mut().filter(|step| of_slot(&step.planned)) {
            // Where the old one ends already the replacement has its place, and the command what it wants.
            if !matches!(step.phase, Replacing::Retiring { .. } | Replacing::Superseded) {
                commands.push(step.planned.command);
            }
            step.phase = Replacing::Superseded;
        }
        commands
    }

    fn abandon(&mut self, command: CommandId) {
        self.queue.retain(|planned| planned.command != command);
        self.step = None;
    }
}

impl Supervisor {
    /// Gives up the replacement of an instance that a later command ends.
    pub(super) fn supersede(&mut self, id: &SlotId) {
        for command in self.rollouts.supersede(id) {
            let failure = Failure { instance: self.name_of(id), why: "it was stopped meanwhile".into() };
            self.fail_command(command, failure);
        }
    }

    pub(super) fn advance_rollouts(&mut self, now: Instant) {
        while self.advance_rollout(now) {}
    }

    /// Takes one step; tells whether there may be another right away.
    fn advance_rollout(&mut self, now: Instant) -> bool {
        let Some(step) = &self.rollouts.step else { return self.begin_step(now) };
        match step.phase {
            Replacing::Starting { new } => self.advance_replacement(now, step.planned.clone(), new),
            Replacing::InTurn => self.advance_in_turn(step.planned.clone()),
            Replacing::Superseded => {
                let id = step.planned.slot.clone();
                self.rollouts.step = None;
                if let Some(new) = self.slots.get_mut(&id).and_then(|slot| slot.replacement.take()) {
                    self.begin_end(now, new, Duration::ZERO.into());
                    if let Some(slot) = self.slots.get_mut(&id) {
                        slot.retiring.insert(new);
                    }
                }
                true
            }
            Replacing::Retiring { old } => {
                // What it does with its signal, and with its time to end, is its own affair.
                let done = self.lives.get(&old).is_none_or(Life::is_stopping);
                if done {
                    self.rollouts.step = None;
                }
                done
            }
        }
    }

    fn begin_step(&mut self, now: Instant) -> bool {
        let Some(planned) = self.rollouts.queue.pop_front() else { return false };
        let id = &planned.slot;
        let Some(slot) = self.slots.get_mut(id).filter(|slot| !slot.removed) else { return true };
        let stays =
            slot.current.is_some_and(|current| self.lives.get(&current).is_some_and(|l| !l.is_ending()));
        if !stays {
            slot.want_up(now);
            self.await_start(id, planned.command);
            return true;
        }
        let digest = self.services.get(&id.service).map(|entry| entry.spec.digest.as_str());
        let current = slot.current.and_then(|current| self.lives.get(&current));
        let is_as_planned = current.is_some_and(|life| Some(life.spec.digest.as_str()) == digest);
        if planned.why == Why::Outdated && is_as_planned {
            return true;
        }
        let old = slot.current.and_then(|current| self.lives.get(&current));
        let in_turn = old.is_some_and(|old| takes_turns(&old.spec)) || self.takes_turns(&id.service);
        if let (true, Some(slot)) = (in_turn, self.slots.get_mut(id)) {
            let old = slot.current.take();
            slot.retiring.extend(old);
            slot.want_up(now);
            if let Some(old) = old {
                self.begin_end(now, old, planned.patience);
            }
            self.rollouts.step = Some(Step { planned, phase: Replacing::InTurn });
            return true;
        }
        if let Some(new) = self.spawn(now, id) {
            if let Some(slot) = self.slots.get_mut(id) {
                slot.replacement = Some(new);
            }
            self.rollouts.step = Some(Step { planned, phase: Replacing::Starting { new } });
        }
        true
    }

    fn advance_replacement(&mut self, now: Instant, planned: Planned, new: Incarnation) -> bool {
        let (id, command, patience) = (&planned.slot, planned.command, planned.patience);
        let Some(slot) = self.slots.get_mut(id) else {
            self.rollouts.step = None;
            return true;
        };
        let Some(life) = self.lives.get(&new) else {
            let why = slot.last_error.clone().unwrap_or_else(|| "its replacement ended".into());
            return self.fail_rollout(id, command, why);
        };
        if life.is_ready() {
            let Some(old) = slot.current.filter(|old| *old != new) else {
                self.rollouts.step = None;
                return true;
            };
            slot.current = Some(new);
            slot.replacement = None;
            slot.retiring.insert(old);
            slot.failures = 0;
            slot.last_exit = None;
            slot.last_error = None;
            self.rollouts.step = Some(Step { planned, phase: Replacing::Retiring { old } });
            self.begin_end(now, old, patience);
            return true;
        }
        if life.is_unhealthy() {
            let why = format!("its replacement didn't become ready: {}", life.complaint());
            // Where the old one is gone meanwhile the replacement took its place, and stays.
            if let Some(new) = slot.replacement.take() {
                slot.retiring.insert(new);
                self.begin_end(now, new, Duration::ZERO.into());
            }
            return self.fail_rollout(id, command, why);
        }
        false
    }

    fn advance_in_turn(&mut self, planned: Planned) -> bool {
        let Some(slot) = self.slots.get(&planned.slot).filter(|slot| !slot.removed) else {
            self.rollouts.step = None;
            return true;
        };
        let life = slot.current.and_then(|current| self.lives.get(&current));
        let why = match life {
            Some(life) if life.is_ready() => {
                self.rollouts.step = None;
                return true;
            }
            Some(life) if life.is_unhealthy() => format!("it didn't become ready: {}", life.complaint()),
            _ if slot.wanted == Wanted::Down || slot.is_failing() => {
                slot.last_error.clone().unwrap_or_else(|| "it ended".into())
            }
            _ => return false,
        };
        self.fail_rollout(&planned.slot, planned.command, why)
    }

    fn fail_rollout(&mut self, id: &SlotId, command: CommandId, why: String) -> bool {
        let instance = self.name_of(id);
        let kept = self.slots.get(id).and_then(|slot| slot.current);
        let kept = kept.and_then(|life| self.lives.get(&life)).is_some_and(Life::is_ready);
        let why = if kept { format!("{why}; the one it was to replace goes on") } else { why };
        self.rollouts.abandon(command);
        self.fail_command(command, Failure { instance, why });
        self.told.insert(id.clone());
        true
    }
}
