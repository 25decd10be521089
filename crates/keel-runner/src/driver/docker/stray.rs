//! Containers that the engine made and didn't say so: its answer got lost, or came too late.
//!
//! Whose such a one is its labels say; what others made under its name stays. One task looks for all of them: an engine
//! that breaks off every answer adds one with every try.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use keel_engine::{Docker, EngineError, api::models::ContainerSummary, call};

use super::{
    ContainerDriver, INCARNATION_LABEL, PROJECT_LABEL, REMOVE_AGAIN_AFTER, lock,
    sweep::{list, remove},
};
use crate::supervisor::{Event, Incarnation};

/// How long it is looked for a container that the engine may still be making.
const LATE_WITHIN: Duration = Duration::from_secs(60);
/// How many are looked for. One that is forgotten is removed when its name is needed, or at the end of all.
const STRAYS_MAX: usize = 256;

/// Those that are looked for.
#[derive(Debug, Default)]
pub(super) struct Strays {
    sought: BTreeMap<Incarnation, Stray>,
    /// Whether somebody looks.
    are_sought: bool,
}

/// A container that may be there.
#[derive(Debug)]
struct Stray {
    name: String,
    search: Search,
}

#[derive(Debug)]
enum Search {
    /// The engine hasn't been heard since.
    Unanswered(Sequel),
    /// It wasn't there. It may come until then.
    Late { until: Instant },
}

/// What a look for one has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// It was there, and was removed.
    Removed,
}

/// What is done once it is known that its name is free.
#[derive(Debug)]
pub(super) struct Sequel {
    /// The name that its instance's container should have.
    pub(super) wish: String,
    /// What is told only then.
    pub(super) event: Option<Event>,
}

impl Strays {
    /// Adds one; gives what was to come after the one that is forgotten for it.
    fn add(&mut self, incarnation: Incarnation, stray: Stray) -> Option<(Incarnation, Sequel)> {
        let is_full = self.sought.len() >= STRAYS_MAX;
        let forgotten = if is_full { self.sought.pop_first() } else { None };
        self.sought.insert(incarnation, stray);
        match forgotten {
            Some((incarnation, Stray { search: Search::Unanswered(sequel), .. })) => {
                Some((incarnation, sequel))
            }
            _ => None,
        }
    }

    /// Notes that one was looked for, and was removed or not; gives what comes after that.
    fn looked(&mut self, incarnation: Incarnation, found: Found) -> Option<Sequel> {
        let stray = self.sought.remove(&incarnation)?;
        let (until, sequel) = match stray.search {
            Search::Unanswered(sequel) => (Instant::now() + LATE_WITHIN, Some(sequel)),
            Search::Late { until } => (until, None),
        };
        if found == Found::Nothing && Instant::now() < until {
            self.sought.insert(incarnation, Stray { search: Search::Late { until }, ..stray });
        }
        sequel
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sought.len()
    }
}

impl ContainerDriver {
    /// Looks for what the engine may have made for a life under a name, and removes it. Hands the instance's name on
    /// and tells the event once that name is known to be free; what is made later is looked for beside that.
    pub(super) fn seek(&self, docker: &Docker, incarnation: Incarnation, name: String, sequel: Sequel) {
        let search = Search::Unanswered(sequel);
        let (forgotten, are_sought) = {
            let mut strays = lock(&self.0.strays);
            let forgotten = strays.add(incarnation, Stray { name, search });
            (forgotten, std::mem::replace(&mut strays.are_sought, true))
        };
        if let Some((incarnation, sequel)) = forgotten {
            let driver = self.clone();
            tokio::spawn(async move { driver.go_on(incarnation, sequel).await });
        }
        if !are_sought {
            tokio::spawn(self.clone().seek_all(docker.clone()));
        }
    }

    async fn seek_all(self, docker: Docker) {
        loop {
            if let Err(error) = self.look_for_strays(&docker).await {
                tracing::debug!("containers that were made without an answer are looked for again: {error}");
            }
            {
                let mut strays = lock(&self.0.strays);
                if strays.sought.is_empty() || self.0.told.is_closed() {
                    strays.are_sought = false;
                    return;
                }
            }
            tokio::time::sleep(REMOVE_AGAIN_AFTER).await;
        }
    }

    async fn look_for_strays(&self, docker: &Docker) -> Result<(), EngineError> {
        let sought: Vec<(Incarnation, String)> = {
            let strays = lock(&self.0.strays);
            strays.sought.iter().map(|(incarnation, stray)| (*incarnation, stray.name.clone())).collect()
        };
        let there = list(docker, &self.0.project).await?;
        for (incarnation, name) in sought {
            let found = there.iter().find(|container| self.incarnation_in(container) == Some(incarnation));
            if let Some(id) = found.and_then(|container| container.id.as_ref()) {
                match remove(docker, id).await {
                    Err(error) if error.is_outage() => return Err(error),
                    Err(error) => tracing::warn!("the container {name} can't be removed: {error}"),
                    Ok(()) => {}
                }
            }
            let sequel = lock(&self.0.strays)
                .looked(incarnation, if found.is_some() { Found::Removed } else { Found::Nothing });
            if let Some(sequel) = sequel {
                self.go_on(incarnation, sequel).await;
            }
        }
        Ok(())
    }

    async fn go_on(&self, incarnation: Incarnation, sequel: Sequel) {
        self.hand_on_name(&sequel.wish, incarnation).await;
        if let Some(event) = sequel.event {
            self.tell(event);
        }
    }

    /// The life that a container was made for, if that is one of ours.
    fn incarnation_in(&self, container: &ContainerSummary) -> Option<Incarnation> {
        let labels = container.labels.as_ref()?;
        let is_ours = labels.get(PROJECT_LABEL) == Some(&self.0.project);
        labels.get(INCARNATION_LABEL).filter(|_| is_ours)?.parse().ok()
    }

    /// Removes a container by its name if it is one of ours that no life has; tells whether the name is free then.
    pub(super) async fn remove_unowned(&self, docker: &Docker, name: &str) -> Result<bool, EngineError> {
        let container = match call(docker.inspect_container(name, None)).await {
            // Somebody else was quicker.
            Err(error) if error.is_missing() => return Ok(true),
            outcome => outcome?,
        };
        let labels = container.config.and_then(|config| config.labels).unwrap_or_default();
        let incarnation = labels.get(INCARNATION_LABEL).and_then(|text| text.parse().ok());
        let is_ours = labels.get(PROJECT_LABEL) == Some(&self.0.project);
        match container.id {
            Some(id) if is_ours && incarnation.is_some_and(|of| !self.has(of)) => {
                remove(docker, &id).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_looked_for_as_are_bounded() {
        let stray = |number: usize| Stray {
            name: format!("shop_app_{number}"),
            search: Search::Unanswered(Sequel { wish: format!("wish {number}"), event: None }),
        };
        let mut strays = Strays::default();
        for number in 0..STRAYS_MAX {
            assert!(strays.add(number as u64, stray(number)).is_none());
        }
        // What waits for the oldest needn't wait any longer.
        let (incarnation, sequel) = strays.add(STRAYS_MAX as u64, stray(STRAYS_MAX)).unwrap();
        assert_eq!((incarnation, sequel.wish.as_str()), (0, "wish 0"));
        assert_eq!(strays.len(), STRAYS_MAX);
    }

    #[test]
    fn one_that_was_not_there_may_come_later() {
        let search = || Search::Unanswered(Sequel { wish: "app".into(), event: None });
        let mut strays = Strays::default();
        strays.add(1, Stray { name: "app".into(), search: search() });
        assert!(strays.looked(1, Found::Nothing).is_some_and(|sequel| sequel.wish == "app"));
        assert!(strays.looked(1, Found::Nothing).is_none());
        assert_eq!(strays.len(), 1);
        assert!(strays.looked(1, Found::Removed).is_none());
        assert_eq!(strays.len(), 0);
        let until = Instant::now();
        strays.add(2, Stray { name: "app".into(), search: Search::Late { until } });
        assert!(strays.looked(2, Found::Nothing).is_none());
        assert_eq!(strays.len(), 0, "it took too long");
    }
}
