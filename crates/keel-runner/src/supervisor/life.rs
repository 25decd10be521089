//! One process of an instance, from the wish to start it to its end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use keel_model::{Run, Service};

use super::{
    Action, EngineWord, FIRST_CONTAINER_PROBES_EVERY, FIRST_PROBES_EVERY, Incarnation, LISTENS_WITHIN, Part,
    Patience, ProbeNumber, STEADY_AFTER, SlotId, Supervisor, Wanted, back_off, must_listen, restart_after,
    serves, window_of,
};
use crate::Exit;

#[derive(Debug)]
pub(super) struct Life {
    pub(super) slot: SlotId,
    pub(super) spec: Arc<Service>,
    pub(super) phase: Phase,
    pub(super) since: Instant,
    pub(super) started: Instant,
    /// Whether it ever was ready: then requests may be in flight to it.
    served: bool,
    /// How long it has from its signal on, in place of the service's own time.
    grace: Option<Duration>,
    /// Whether it was last seen to listen.
    listens: bool,
    /// Healthchecks that failed in a row, and whether the last one passed.
    pub(super) failing: u32,
    pub(super) last_passed: Option<bool>,
    pub(super) probe: Probe,
    /// Why it is ended, when that counts as its failure.
    blame: Option<&'static str>,
    last_probe: ProbeNumber,
    held: Held,
    /// Whether the engine called it unhealthy, and has said nothing else since. It speaks only when that changes.
    ill: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The driver was asked to start it.
    Spawning,
    /// It runs and doesn't serve yet. Beyond `unhealthy_at` it counts as unhealthy.
    Starting { unhealthy_at: Instant },
    /// It runs, and nothing tells whether it does well but that it is still there at `until`.
    Settling { until: Instant },
    /// It serves.
    Ready,
    /// Its healthcheck fails.
    Unhealthy,
    /// It left the pool.
    Draining { until: Instant },
    /// It was told to end; `kill_at` is `None` once it was sent SIGKILL.
    Stopping { kill_at: Option<Instant>, spawned: bool },
}

/// What others did to an instance, so that it can't serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    /// They paused it.
    is_paused: bool,
    /// They took it out of its networks.
    is_cut_off: bool,
    /// They sent it a signal that ends it, which it may ignore. At that time it is asked whether it serves.
    leaving_until: Option<Instant>,
}

impl Held {
    /// When a signal counts as ignored. One that is paused doesn't get it before it is resumed.
    fn ignored_at(&self) -> Option<Instant> {
        self.leaving_until.filter(|_| !self.is_paused)
    }
}

/// When the healthcheck runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// Never: there is none, or it ends.
    Off,
    /// At this time.
    Due(Instant),
    /// Now. What an earlier one says is about another time.
    Running { number: ProbeNumber },
}

impl Life {
    pub(super) fn new(now: Instant, slot: SlotId, spec: Arc<Service>) -> Self {
        Self {
            slot,
            spec,
            phase: Phase::Spawning,
            since: now,
            started: now,
            served: false,
            grace: None,
            listens: false,
            failing: 0,
            last_passed: None,
            probe: Probe::Off,
            blame: None,
            last_probe: 0,
            held: Held::default(),
            ill: false,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    pub(super) fn is_unhealthy(&self) -> bool {
        self.phase == Phase::Unhealthy
    }

    /// Whether it can't serve for what others did to it.
    pub(super) fn is_kept_out(&self) -> bool {
        self.held != Held::default()
    }

    /// Says what keeps an unhealthy one out of the pool.
    pub(super) fn complaint(&self) -> String {
        match self.held {
            Held { is_paused: true, .. } => return "it is paused".into(),
            Held { is_cut_off: true, .. } => return "it is in none of its networks".into(),
            Held { leaving_until: Some(_), .. } => return "somebody sent it a signal that ends it".into(),
            Held { .. } => {}
        }
        let port = self.spec.ports.iter().find(|port| port.protocol == keel_model::Protocol::Tcp);
        let is_well = match self.spec.healthcheck {
            None => true,
            Some(_) => must_listen(&self.spec) && self.last_passed == Some(true),
        };
        match port.filter(|_| is_well && !self.listens) {
            Some(port) if self.served => {
                format!("it doesn't listen on port {} any more", port.number)
            }
            Some(port) => {
                format!("it doesn't listen on port {} after {} s", port.number, LISTENS_WITHIN.as_secs())
            }
            _ if self.served => "its healthcheck fails".into(),
            _ => "its healthcheck never passed".into(),
        }
    }

    /// Whether it will be ready if all goes well.
    pub(super) fn is_coming(&self) -> bool {
        matches!(self.phase, Phase::Spawning | Phase::Starting { .. } | Phase::Settling { .. })
    }

    pub(super) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Draining { .. } | Phase::Stopping { .. })
    }

    /// Whether it was told to end.
    pub(super) fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. })
    }

    fn grace_period(&self) -> Duration {
        self.grace.unwrap_or(self.spec.stop.grace_period)
    }

    /// Whether it ends because somebody wanted it to, not for a failure of its own.
    pub(super) fn is_ending_as_asked(&self) -> bool {
        self.is_ending() && self.blame.is_none()
    }

    /// Whether a process of it runs, as far as is known.
    pub(super) fn is_started(&self) -> bool {
        !matches!(self.phase, Phase::Spawning | Phase::Stopping { spawned: false, .. })
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Starting { unhealthy_at } => Some(unhealthy_at),
            Phase::Settling { until } | Phase::Draining { until } => Some(until),
            Phase::Stopping { kill_at, spawned: true } => kill_at,
            _ => None,
        };
        let probe = match self.probe {
            Probe::Due(at) => Some(at),
            _ => None,
        };
        phase.into_iter().chain(probe).chain(self.held.ignored_at()).min()
    }

    fn enter(&mut self, now: Instant, phase: Phase) {
        self.phase = phase;
        self.since = now;
        self.served |= phase == Phase::Ready;
        if self.is_ending() {
            self.probe = Probe::Off;
            self.held = Held::default();
        }
    }
}

impl Life {
    /// Takes it out of the pool, or keeps it from joining, for what others did to it.
    fn hold(&mut self, now: Instant) {
        self.probe = Probe::Off;
        if self.phase == Phase::Ready {
            self.enter(now, Phase::Unhealthy);
        }
    }

    /// Asks it once nothing of that is left; takes it for ready where there is nothing to ask. What it said meanwhile
    /// didn't count, and where it is may be another place.
    fn release(&mut self, now: Instant) {
        if self.is_kept_out() || !matches!(self.phase, Phase::Starting { .. } | Phase::Unhealthy) {
            return;
        }
        let can_be_asked = self.spec.healthcheck.is_some() || serves(&self.spec);
        self.probe = if can_be_asked { Probe::Due(now) } else { Probe::Off };
        match self.phase {
            _ if !can_be_asked => self.enter(now, Phase::Ready),
            // From here on it has its time to pass.
            Phase::Unhealthy => self.enter(now, Phase::Unhealthy),
            _ => {}
        }
    }
}

/// How long after its start an instance that never passed counts as unhealthy. Docker would have probed that often.
fn ready_within(spec: &Service) -> Duration {
    match &spec.healthcheck {
        Some(check) => check.start_period + check.interval.saturating_mul(check.retries.max(1)),
        None => LISTENS_WITHIN,
    }
}

impl Supervisor {
    pub(super) fn fire_timers(&mut self, now: Instant) {
        let due: Vec<Incarnation> = self
            .lives
            .iter()
            .filter(|(_, life)| life.next_deadline().is_some_and(|at| at <= now))
            .map(|(incarnation, _)| *incarnation)
            .collect();
        for incarnation in due {
            self.fire_timer(now, incarnation);
        }
    }

    fn fire_timer(&mut self, now: Instant, incarnation: Incarnation) {
        let Some(life) = self.lives.get_mut(&incarnation) else { return };
        if life.held.ignored_at().is_some_and(|at| at <= now) {
            life.held.leaving_until = None;
            life.release(now);
            self.told.insert(life.slot.clone());
        }
        match life.phase {
            Phase::Starting { unhealthy_at } if unhealthy_at <= now => {
                life.enter(now, Phase::Unhealthy);
                life.failing = 0;
                self.told.insert(life.slot.clone());
            }
            Phase::Settling { until } if until <= now => {
                life.enter(now, if life.is_kept_out() { Phase::Unhealthy } else { Phase::Ready });
                self.told.insert(life.slot.clone());
            }
            Phase::Draining { until } if until <= now => self.stop(now, incarnation),
            Phase::Stopping { kill_at: Some(at), spawned } if at <= now => {
                life.phase = Phase::Stopping { kill_at: None, spawned };
                self.actions.push(Action::KillAll { incarnation });
            }
            _ => {}
        }
        if let Some(life) = self.lives.get_mut(&incarnation)
            && matches!(life.probe, Probe::Due(at) if at <= now)
        {
            life.last_probe += 1;
            let number = life.last_probe;
            life.probe = Probe::Running { number };
            self.actions.push(Action::Probe { incarnation, number });
        }
    }

    pub(super) fn started(&mut self, now: Instant, incarnation: Incarnation) {
        let Some(life) = self.lives.get_mut(&incarnation) else { return };
        self.told.insert(life.slot.clone());
        if let Some(slot) = self.slots.get_mut(&life.slot) {
            slot.unasked = 0;
        }
        match life.phase {
            Phase::Spawning => {
                life.started = now;
                let mute = life.spec.healthcheck.is_none() && !serves(&life.spec);
                let phase = match mute {
                    true => Phase::Settling { until: now + STEADY_AFTER },
                    false => Phase::Starting { unhealthy_at: now + ready_within(&life.spec) },
                };
                life.enter(now, phase);
                if life.spec.healthcheck.is_some() && !life.is_kept_out() {
                    life.probe = Probe::Due(now);
                }
                self.fire_timer(now, incarnation);
            }
            // It was told to end before it was there.
            Phase::Stopping { kill_at, spawned: false } => {
                let signal = life.spec.stop.signal;
                let grace = now + life.grace_period();
                life.phase = Phase::Stopping { kill_at: kill_at.map(|_| grace), spawned: true };
                self.actions.push(match kill_at {
                    Some(_) => Action::Signal { incarnation, signal },
                    None => Action::KillAll { incarnation },
                });
            }
            _ => {}
        }
    }

    pub(super) fn listening(&mut self, now: Instant, incarnation: Incarnation) {
        let Some(life) = self.lives.get_mut(&incarnation) else { return };
        life.listens = true;
        let waits = matches!(life.phase, Phase::Starting { .. } | Phase::Unhealthy);
        let is_checked = life.spec.healthcheck.is_some();
        let is_well = !is_checked || (must_listen(&life.spec) && life.last_passed == Some(true));
        if waits && is_well && !life.is_kept_out() {
            if !is_checked {
                life.probe = Probe::Off;
            }
            life.enter(now, Phase::Ready);
            self.told.insert(life.slot.clone());
        }
    }

    /// Takes a life out of the pool that serves no longer, and lives. It is taken for one that starts: requests wait for
    /// it, and it is back as soon as it listens.
    pub(super) fn deaf(&mut self, now: Instant, incarnation: Incarnation) {
        let Some(life) = self.lives.get_mut(&incarnation) else { return };
        life.listens = false;
        if life.is_ready() && must_listen(&life.spec) {
            life.enter(now, Phase::Starting { unhealthy_at: now + LISTENS_WITHIN });
            self.told.insert(life.slot.clone());
        }
    }

    pub(super) fn probed(
        &mut self,
        now: Instant,
        incarnation: Incarnation,
        number: ProbeNumber,
        passed: bool,
    ) {
        let Some(life) = self.lives.get_mut(&incarnation) else { return };
        if life.probe != (Probe::Running { number }) {
            return;
        }
        let Some(check) = life.spec.healthcheck.as_ref() else {
            // Asked once more whether it listens, after what others did. It isn't ended for that it doesn't.
            life.probe = if passed { Probe::Off } else { Probe::Due(now + FIRST_CONTAINER_PROBES_EVERY) };
            if passed && matches!(life.phase, Phase::Starting { .. } | Phase::Unhealthy) {
                life.enter(now, Phase::Ready);
                self.told.insert(life.slot.clone());
            }
            return;
        };
        let (interval, retries) = (check.interval, check.retries.max(1));
        let is_container = matches!(life.spec.run, Run::Container(_));
        let first = if is_container { FIRST_CONTAINER_PROBES_EVERY } else { FIRST_PROBES_EVERY };
        // As in Docker, `start_interval` holds within `start_period`.
        let is_young = now < life.started + check.start_period;
        let first = check.start_interval.filter(|_| is_young).unwrap_or(first);
        let wait = if passed || life.served { interval } else { first };
        // The engine goes on with it from there, and says what comes of it; but not that what it calls unhealthy
        // fails once more.
        let engine_goes_on = is_container && passed && !life.ill;
        life.probe = if engine_goes_on { Probe::Off } else { Probe::Due(now + wait) };
        if life.last_passed != Some(passed) {
            self.told.insert(life.slot.clone());
        }
        life.last_passed = Some(passed);
        life.failing = if passed { 0 } else { life.failing.saturating_add(1) };
        match life.phase {
            Phase::Starting { .. } | Phase::Unhealthy
                if passed && (life.listens || !must_listen(&life.spec)) =>
            {
                life.enter(now, Phase::Ready);
            }
            Phase::Ready if life.failing >= retries => {
                life.enter(now, Phase::Unhealthy);
                life.failing = 0;
            }
            // Out of the pool and still failing a full count later (of ordinary intervals): as good as ended.
            Phase::Unhealthy if !passed && now >= life.since + interval.saturating_mul(retries) => {
                if restart_after(&life.spec, Exit::Status(1), 1).is_none() {
                    return;
                }
                life.blame = Some("it stayed unhealthy");
                self.begin_end(now, incarnation, self.drain_timeout.into());
            }
            _ => return,
        }
        if let Some(life) = self.lives.get(&incarnation) {
            self.told.insert(life.slot.clone());
        }
    }

    pub(super) fn judged(&mut self, now: Instant, incarnation: Incarnation, verdict: EngineWord) {
        let Some(life) = self.lives.get_mut(&incarnation).filter(|life| !life.is_ending()) else { return };
        let check = life.spec.healthcheck.as_ref();
        let waits = matches!(life.phase, Phase::Starting { .. } | Phase::Settling { .. } | Phase::Unhealthy);
        let serves = life.phase == Phase::Ready;
        let (was_ill, was_held) = (life.ill, life.held);
        match verdict {
            EngineWord::Ill => life.ill = true,
            EngineWord::Well => life.ill = false,
            EngineWord::Paused => life.held.is_paused = true,
            EngineWord::Resumed => life.held.is_paused = false,
            EngineWord::CutOff => life.held.is_cut_off = true,
            EngineWord::Connected => life.held.is_cut_off = false,
            EngineWord::Leaving => life.held.leaving_until = Some(now + life.spec.stop.grace_period),
        }
        match verdict {
            EngineWord::Well if waits && !life.is_kept_out() => {
                life.probe = Probe::Off;
                life.enter(now, Phase::Ready);
            }
            // It came back by probes of ours, and is watched again.
            EngineWord::Well if serves => {
                (life.probe, life.failing) = (Probe::Off, 0);
                return;
            }
            // From here on it is asked as if it were new, and ended if it stays that way.
            EngineWord::Ill if serves && !was_ill => {
                life.probe = check.map_or(Probe::Off, |check| Probe::Due(now + check.interval));
                life.enter(now, Phase::Unhealthy);
            }
            EngineWord::Paused if !was_held.is_paused => life.hold(now),
            EngineWord::Resumed if was_held.is_paused => {
                if life.held.leaving_until.is_some() {
                    // It gets the signal only now.
                    life.held.leaving_until = Some(now + life.spec.stop.grace_period);
                }
                life.release(now);
            }
            // It runs on, and its healthcheck may pass.
            EngineWord::CutOff if !was_held.is_cut_off => life.hold(now),
            EngineWord::Connected if was_held.is_cut_off => life.release(now),
            // A process 1 without a handler ignores it, and so may one with a handler of its own.
            EngineWord::Leaving => life.hold(now),
            _ => return,
        }
        life.failing = 0;
        self.told.insert(life.slot.clone());
    }

    pub(super) fn drained(&mut self, now: Instant, incarnation: Incarnation) {
        if self.lives.get(&incarnation).is_some_and(|life| matches!(life.phase, Phase::Draining { .. })) {
            self.stop(now, incarnation);
        }
    }

    /// Takes a life out of the pool and, once nothing is in flight, to its end.
    pub(super) fn begin_end(&mut self, now: Instant, incarnation: Incarnation, patience: Patience) {
        let Some(life) = self.lives.get_mut(&incarnation) else { return };
        let drain_timeout = patience.drain;
        let is_ending = matches!(life.phase, Phase::Draining { .. } | Phase::Stopping { .. });
        life.grace = match (life.grace.filter(|_| is_ending), patience.grace) {
            // A second, more impatient wish.
            (Some(before), Some(grace)) => Some(before.min(grace)),
            (before, grace) => grace.or(before).or(life.grace),
        };
        match &mut life.phase {
            // A second, more impatient wish.
            Phase::Stopping { kill_at: Some(at), .. } => {
                *at = patience.grace.map_or(*at, |grace| (*at).min(now + grace));
                return;
            }
            Phase::Stopping { kill_at: None, .. } => return,
            Phase::Draining { until } => {
                *until = (*until).min(now + drain_timeout);
                return;
            }
            _ => {}
        }
        self.told.insert(life.slot.clone());
        if life.served && serves(&life.spec) && !drain_timeout.is_zero() {
            life.enter(now, Phase::Draining { until: now + drain_timeout });
            self.actions.push(Action::Drain { incarnation, slot: life.slot.clone() });
        } else {
            self.stop(now, incarnation);
        }
    }

    fn stop(&mut self, now: Instant, incarnation: Incarnation) {
        let Some(life) = self.lives.get_mut(&incarnation) else { return };
        let spawned = life.is_started();
        let kill_at = Some(now + life.grace_period());
        let signal = life.spec.stop.signal;
        life.enter(now, Phase::Stopping { kill_at, spawned });
        self.told.insert(life.slot.clone());
        if spawned {
            self.actions.push(Action::Signal { incarnation, signal });
        }
    }

    /// Ends a life at once.
    pub(super) fn kill_now(&mut self, now: Instant, incarnation: Incarnation) {
        let Some(life) = self.lives.get_mut(&incarnation) else { return };
        let spawned = life.is_started();
        life.enter(now, Phase::Stopping { kill_at: None, spawned });
        self.told.insert(life.slot.clone());
        if spawned {
            self.actions.push(Action::KillAll { incarnation });
        }
    }

    pub(super) fn start_failed(&mut self, now: Instant, incarnation: Incarnation, why: String) {
        let Some(life) = self.lives.remove(&incarnation) else { return };
        self.told.insert(life.slot.clone());
        let Some(slot) = self.slots.get_mut(&life.slot) else { return };
        slot.last_error = Some(why);
        // A start that is refused now is refused in a second, too.
        if slot.forget(now, incarnation) == Part::Current && slot.current.is_none() {
            slot.wanted = Wanted::Down;
        }
    }

    /// Tries again later: that nobody can be asked says nothing about the instance, and no restart policy is meant.
    pub(super) fn start_unasked(&mut self, now: Instant, incarnation: Incarnation, why: String) {
        let Some(life) = self.lives.remove(&incarnation) else { return };
        self.told.insert(life.slot.clone());
        let Some(slot) = self.slots.get_mut(&life.slot) else { return };
        slot.last_error = Some(why);
        if slot.forget(now, incarnation) == Part::Current {
            slot.unasked = slot.unasked.saturating_add(1);
            let again = slot.wanted == Wanted::Up && slot.current.is_none();
            slot.retry_at = again.then(|| now + back_off(slot.unasked.saturating_add(1)));
        }
    }

    pub(super) fn exited(&mut self, now: Instant, incarnation: Incarnation, exit: Exit) {
        let Some(life) = self.lives.remove(&incarnation) else { return };
        self.told.insert(life.slot.clone());
        let Some(slot) = self.slots.get_mut(&life.slot) else { return };
        match slot.forget(now, incarnation) {
            Part::Current => {}
            Part::Replacement => {
                slot.last_error = Some(format!("its replacement ended: {exit}"));
                return;
            }
            Part::Retiring => return,
        }
        slot.last_exit = Some(exit);
        slot.last_error = life.blame.map(str::to_owned);
        if slot.wanted == Wanted::Down || slot.current.is_some() {
            return;
        }
        if now.saturating_duration_since(life.started) >= window_of(&life.spec) && life.blame.is_none() {
            slot.failures = 0;
        }
        slot.failures = slot.failures.saturating_add(1);
        let counted = if life.blame.is_some() { Exit::Status(1) } else { exit };
        match restart_after(&life.spec, counted, slot.failures) {
            Some(pause) => {
                slot.restarts = slot.restarts.saturating_add(1);
                slot.retry_at = Some(now + pause);
                slot.slow_at = Some(now + super::SLOW_AFTER);
            }
            None => slot.wanted = Wanted::Down,
        }
    }
}
