//! How an instance stands, as far as the machine knows.

use std::time::Instant;

use keel_model::ServiceName;

use super::{Incarnation, Life, Phase, Slot, SlotId, Supervisor, Wanted};
use crate::{Exit, InstanceState};

/// One line of the list of instances: a life, or a slot without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) name: String,
    pub(crate) service: ServiceName,
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) state: InstanceState,
    pub(crate) since: Instant,
    pub(crate) restarts: u32,
    pub(crate) is_crash_loop: bool,
    pub(crate) exit: Option<Exit>,
    pub(crate) note: Option<String>,
    /// When it is started again.
    pub(crate) retry_at: Option<Instant>,
}

impl Supervisor {
    /// The lines of one slot, the current life first.
    pub(crate) fn views(&self, id: &SlotId) -> Vec<View> {
        let Some(slot) = self.slots.get(id) else { return Vec::new() };
        let lives = slot.lives().filter_map(|incarnation| Some((incarnation, self.lives.get(&incarnation)?)));
        let mut views: Vec<View> = lives
            .map(|(incarnation, life)| View {
                incarnation: Some(incarnation),
                state: match slot.is_crash_loop() && life.is_coming() {
                    true => InstanceState::CrashLoop,
                    false => state_of(life),
                },
                since: life.since,
                note: life.is_unhealthy().then(|| life.complaint()),
                retry_at: None,
                ..self.line(id, slot)
            })
            .collect();
        if slot.current.is_none() {
            views.insert(0, self.line(id, slot));
        }
        views
    }

    /// The line of a slot without a life.
    fn line(&self, id: &SlotId, slot: &Slot) -> View {
        let (state, note) = match slot.wanted {
            Wanted::Down => (InstanceState::Exited, slot.last_error.clone()),
            Wanted::Up if slot.is_crash_loop() => (InstanceState::CrashLoop, slot.last_error.clone()),
            Wanted::Up => {
                let waits = self.unmet_dependency(&id.service).map(|unmet| unmet.text);
                (InstanceState::Starting, waits.or_else(|| slot.last_error.clone()))
            }
        };
        View {
            name: self.name_of(id),
            service: id.service.clone(),
            incarnation: None,
            state,
            since: slot.since,
            restarts: slot.restarts,
            is_crash_loop: slot.is_crash_loop(),
            exit: slot.last_exit,
            note,
            retry_at: slot.retry_at,
        }
    }

    /// Says what an instance without a life waits for.
    pub(crate) fn waits_for(&self, id: &SlotId) -> Option<String> {
        self.unmet_dependency(&id.service).map(|unmet| unmet.text)
    }
}

fn state_of(life: &Life) -> InstanceState {
    match life.phase {
        Phase::Spawning | Phase::Starting { .. } | Phase::Settling { .. } => InstanceState::Starting,
        Phase::Ready => InstanceState::Ready,
        Phase::Unhealthy => InstanceState::Unhealthy,
        Phase::Draining { .. } => InstanceState::Draining,
        Phase::Stopping { .. } => InstanceState::Stopping,
    }
}
