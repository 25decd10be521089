//! What a service waits for before it starts, and who must end before it: `depends_on`.

use keel_model::{Dependency, DependencyCondition, ServiceName};

use super::{Life, Slot, SlotId, Supervisor, Wanted, is_run_here};

/// Why a service can't start yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unmet {
    /// In a sentence that begins with the instance: "waits for db to be ready".
    pub(super) text: String,
    /// Whether nothing that is under way will change it.
    pub(super) hopeless: bool,
}

impl Supervisor {
    /// The first dependency of a service that doesn't hold.
    pub(super) fn unmet_dependency(&self, service: &ServiceName) -> Option<Unmet> {
        let entry = self.services.get(service)?;
        entry.spec.depends_on.iter().find_map(|dependency| {
            self.unmet(dependency).filter(|unmet| dependency.required || !unmet.hopeless)
        })
    }

    fn unmet(&self, dependency: &Dependency) -> Option<Unmet> {
        let name = &dependency.service;
        let Some(entry) = self.services.get(name) else {
            return Some(Unmet { text: format!("waits for {name}, which isn't there"), hopeless: true });
        };
        if !is_run_here(&entry.spec) {
            let text = format!("waits for {name} to accept connections at its address");
            return (!entry.accepts).then_some(Unmet { text, hopeless: false });
        }
        let life = |slot: &Slot| slot.current.and_then(|current| self.lives.get(&current));
        let mut slots = self.slots_of(name).map(|(_, slot)| slot);
        let (holds, what) = match dependency.condition {
            DependencyCondition::Started => (
                slots.any(|slot| life(slot).is_some_and(Life::is_started) || slot.last_exit.is_some()),
                "start",
            ),
            DependencyCondition::Healthy => {
                (slots.any(|slot| life(slot).is_some_and(Life::is_ready)), "be ready")
            }
            DependencyCondition::Completed => {
                let done = |slot: &Slot| {
                    slot.current.is_none() && slot.last_exit.is_some_and(crate::Exit::is_success)
                };
                (self.slots_of(name).next().is_some() && slots.all(done), "complete")
            }
        };
        if holds {
            return None;
        }
        let hopeless = self.slots_of(name).all(|(_, slot)| {
            let unhealthy = life(slot).is_some_and(Life::is_unhealthy);
            unhealthy || slot.is_failing() || (slot.wanted == Wanted::Down && slot.lives().next().is_none())
        });
        Some(Unmet { text: format!("waits for {name} to {what}"), hopeless })
    }

    /// Whether an instance lives whose service depends on this one and is to end as well.
    pub(super) fn has_living_dependents(&self, service: &ServiceName) -> bool {
        let depends = |id: &SlotId| {
            self.services
                .get(&id.service)
                .is_some_and(|entry| entry.spec.depends_on.iter().any(|d| d.service == *service))
        };
        self.slots.iter().any(|(id, slot)| {
            let ends = slot.wanted == Wanted::Down && slot.lives().next().is_some();
            ends && id.service != *service && depends(id)
        })
    }

    /// Adds to a list of services all that they depend on.
    pub(super) fn with_dependencies(&self, services: Vec<ServiceName>) -> Vec<ServiceName> {
        let mut all = services;
        let mut at = 0;
        while let Some(name) = all.get(at).cloned() {
            let dependencies = self.services.get(&name).map(|entry| entry.spec.depends_on.as_slice());
            for dependency in dependencies.unwrap_or_default() {
                if self.services.contains_key(&dependency.service) && !all.contains(&dependency.service) {
                    all.push(dependency.service.clone());
                }
            }
            at += 1;
        }
        all
    }
}
