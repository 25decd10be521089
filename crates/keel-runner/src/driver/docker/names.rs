//! Names of containers: as Compose gives them, one owner each.
//!
//! A replacement beside the one that it replaces has another name until that one is gone.

use std::collections::BTreeMap;

use super::{Birth, ContainerDriver, container_of, lock};
use crate::supervisor::Incarnation;

/// The names in use.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<String, Incarnation>);

impl Names {
    /// Gives a life the name it should have, or one of its own while another has that.
    pub(super) fn take(&mut self, wish: &str, incarnation: Incarnation) -> String {
        match *self.0.entry(wish.to_owned()).or_insert(incarnation) == incarnation {
            true => wish.to_owned(),
            false => format!("{wish}_{incarnation}"),
        }
    }

    fn hand_on(&mut self, wish: &str, from: Incarnation, heir: Option<Incarnation>) -> bool {
        if self.0.get(wish).is_some_and(|owner| *owner != from) {
            return false;
        }
        match heir {
            Some(heir) => drop(self.0.insert(wish.to_owned(), heir)),
            None => drop(self.0.remove(wish)),
        }
        true
    }
}

/// The name that an instance's container should have: `container_name`, else `PROJECT_SERVICE_N`.
pub(super) fn wish(project: &str, birth: &Birth) -> String {
    match &birth.spec.instance_name {
        Some(name) if birth.is_instance() => name.clone(),
        _ if birth.is_instance() => format!("{project}_{}_{}", birth.spec.name, birth.ordinal),
        _ => format!("{project}_{}", birth.name.replace('-', "_")),
    }
}

impl ContainerDriver {
    /// The name of a container that is gone to the one that waits for it.
    pub(super) async fn hand_on_name(&self, wish: &str, from: Incarnation) {
        let heir = {
            let lives = self.lives();
            let waits = lives.iter().find(|(_, living)| living.wish == wish && living.id().is_some());
            waits.map(|(incarnation, living)| (*incarnation, living.id().unwrap_or_default().to_owned()))
        };
        let owns =
            lock(&self.0.names).hand_on(wish, from, heir.as_ref().map(|(incarnation, _)| *incarnation));
        if let (true, Some((_, id))) = (owns, heir) {
            self.rename(&id, wish).await;
        }
    }

    /// Gives a container that was made under another name its own, if nobody has that any more.
    pub(super) async fn claim_name(&self, incarnation: Incarnation, id: &str, wish: &str) {
        let mine = {
            let mut names = lock(&self.0.names);
            !names.0.contains_key(wish) && names.take(wish, incarnation) == wish
        };
        if mine {
            self.rename(id, wish).await;
        }
    }

    async fn rename(&self, id: &str, name: &str) {
        let Some(docker) = self.0.engine.get() else { return };
        let options =
            keel_engine::api::query_parameters::RenameContainerOptionsBuilder::default().name(name).build();
        if let Err(error) = keel_engine::call(docker.rename_container(id, options)).await {
            tracing::debug!("{id} keeps its name, not {name}: {error}");
        }
    }
}

impl Birth {
    /// Whether it is an instance, not a one-off.
    pub(super) fn is_instance(&self) -> bool {
        // One-offs count down from the top.
        self.incarnation < Incarnation::MAX / 2 && container_of(&self.spec).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_owner_and_is_handed_on() {
        let mut names = Names::default();
        assert_eq!(names.take("shop_app_1", 1), "shop_app_1");
        assert_eq!(names.take("shop_app_1", 2), "shop_app_1_2");
        assert!(!names.hand_on("shop_app_1", 2, None), "it isn't its to give");
        assert!(names.hand_on("shop_app_1", 1, Some(2)));
        assert_eq!(names.take("shop_app_1", 3), "shop_app_1_3");
        assert!(names.hand_on("shop_app_1", 2, None));
        assert_eq!(names.take("shop_app_1", 4), "shop_app_1");
    }
}
