//! State with a name, which lives longer than the configuration that names it: peer groups, queues, logs, counters.
//!
//! A configuration claims what it names while it is compiled ([`Claims`]); what an earlier one had under the same name
//! and settings is the same state. Claiming changes nothing for the configuration in effect. With the commit the claims
//! become what the stores hold, so that what the new configuration doesn't name is dropped here and then.
//! Requests that began under an older configuration keep what they use by its snapshot.
//!
//! - **Peer groups** with the counts of their peers are in `keel-lb`'s registry: a peer keeps its state for as long as
//!   anybody uses it.
//! - **Named state** ([`Named`]) is shared by all workers and known by its kind, its name and its settings.
//! - **Logs** have a queue for each worker ([`logs`]).
//! - **Counters** of the workers last as long as the process.
//!
//! Only the control thread has the stores: no request looks anything up by name. Connections to peers are not here, as
//! each worker has its own.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

pub(crate) mod logs;

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
};

use keel_lb::{Drained, Group, PolicyError, Prepared, Registry};
use keel_model::Upstream;
use keel_telemetry::Counters;

use self::logs::{LogClaims, LogFiles};

/// State that all workers share under a name.
pub(crate) trait Named: Any + Send + Sync {
    /// What it is made from. A configuration with other settings gets state of its own.
    type Settings: PartialEq + ?Sized;

    /// Makes it as it is at first.
    fn new(settings: &Self::Settings) -> Self;

    /// The settings that it was made from.
    fn settings(&self) -> &Self::Settings;
}

/// Which kind of state, and its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct NamedKey {
    kind: TypeId,
    name: String,
}

type NamedStates = HashMap<NamedKey, Arc<dyn Any + Send + Sync>>;

/// All state with a name.
pub(crate) struct Stores {
    groups: Registry,
    drained: Drained,
    named: NamedStates,
    logs: LogFiles,
    pub(crate) counters: Counters,
}

/// What one configuration names, while it is compiled.
pub(crate) struct Claims<'a> {
    stores: &'a Stores,
    groups: Vec<Prepared>,
    named: NamedStates,
    pub(crate) logs: LogClaims<'a>,
}

/// What a compiled configuration names, until it is committed.
pub(crate) struct Claimed {
    groups: Vec<Prepared>,
    named: NamedStates,
    logs: logs::Claimed,
}

impl Stores {
    /// Makes empty ones. `drained` is told of peers that left and have no request in flight any more.
    ///
    /// # Errors
    /// When no thread can be had that writes logs.
    pub(crate) fn new(workers: usize, drained: Drained) -> io::Result<Self> {
        Ok(Self {
            groups: Registry::new(),
            drained,
            named: HashMap::new(),
            logs: LogFiles::new(workers)?,
            counters: Counters::new(workers),
        })
    }

    /// Peer groups by name, for addresses that only requests name.
    pub(crate) fn groups(&self) -> &Registry {
        &self.groups
    }

    /// Begins the claims of a configuration whose log files are these.
    pub(crate) fn claims(&self, files: Vec<(PathBuf, OwnedFd)>) -> Claims<'_> {
        let logs = self.logs.claims(files);
        Claims { stores: self, groups: Vec::new(), named: HashMap::new(), logs }
    }

    /// Holds what a configuration claimed from now on, and nothing else.
    pub(crate) fn commit(&mut self, claimed: Claimed) {
        for group in claimed.groups {
            group.commit();
        }
        self.named = claimed.named;
        self.logs.commit(claimed.logs);
    }

    /// Writes logs to these files from now on.
    pub(crate) fn reopen_logs(&self, files: Vec<(PathBuf, OwnedFd)>) {
        self.logs.reopen(files);
    }

    /// Waits until everything logged so far is written.
    pub(crate) fn flush_logs(&self) {
        self.logs.flush();
    }
}

impl Claims<'_> {
    /// Claims the group of an upstream; it follows the upstream's configuration from the commit on.
    ///
    /// # Errors
    /// When the configured policy can't be used.
    pub(crate) fn group(&mut self, upstream: &Upstream) -> Result<Arc<Group>, PolicyError> {
        let prepared = self.stores.groups.prepare(upstream, self.stores.drained.clone())?;
        let group = prepared.group().clone();
        self.groups.push(prepared);
        Ok(group)
    }

    /// The number of workers.
    pub(crate) fn workers(&self) -> usize {
        self.stores.counters.workers()
    }

    /// Claims the state of this kind and name.
    pub(crate) fn named<T: Named>(&mut self, name: &str, settings: &T::Settings) -> Arc<T> {
        let key = NamedKey { kind: TypeId::of::<T>(), name: name.to_owned() };
        let known = self.named.get(&key).or_else(|| self.stores.named.get(&key));
        let known = known.and_then(|state| state.clone().downcast::<T>().ok());
        let state =
            known.filter(|state| state.settings() == settings).unwrap_or_else(|| Arc::new(T::new(settings)));
        self.named.insert(key, state.clone());
        state
    }

    /// Ends the claims.
    pub(crate) fn finish(self) -> Claimed {
        Claimed { groups: self.groups, named: self.named, logs: self.logs.finish() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Zone {
        bytes: usize,
    }

    impl Named for Zone {
        type Settings = usize;

        fn new(settings: &usize) -> Self {
            Self { bytes: *settings }
        }

        fn settings(&self) -> &usize {
            &self.bytes
        }
    }

    /// Of the same name as a [`Zone`], and another kind.
    struct Other;

    impl Named for Other {
        type Settings = ();

        fn new((): &()) -> Self {
            Self
        }

        fn settings(&self) -> &() {
            &()
        }
    }

    fn stores() -> Stores {
        Stores::new(1, Arc::new(|_, _| {})).unwrap()
    }

    /// Lets a configuration take effect that names one zone.
    fn commit_zone(stores: &mut Stores, name: &str, bytes: usize) -> Arc<Zone> {
        let mut claims = stores.claims(Vec::new());
        let zone = claims.named::<Zone>(name, &bytes);
        let claimed = claims.finish();
        stores.commit(claimed);
        zone
    }

    #[test]
    fn state_lives_through_reloads_that_name_it() {
        let mut stores = stores();
        let first = commit_zone(&mut stores, "one", 10);
        assert!(Arc::ptr_eq(&first, &commit_zone(&mut stores, "one", 10)));
        // Two places that name it share it.
        let mut claims = stores.claims(Vec::new());
        let (a, b) = (claims.named::<Zone>("two", &1), claims.named::<Zone>("two", &1));
        assert!(Arc::ptr_eq(&a, &b));
    }

    #[test]
    fn state_is_dropped_with_the_commit_that_does_not_name_it() {
        let mut stores = stores();
        let zone = Arc::downgrade(&commit_zone(&mut stores, "one", 10));
        let claims = stores.claims(Vec::new()).finish();
        assert!(zone.upgrade().is_some(), "a configuration that isn't committed drops nothing");
        stores.commit(claims);
        assert!(zone.upgrade().is_none());
    }

    #[test]
    fn a_claim_that_is_given_up_changes_nothing() {
        let mut stores = stores();
        let first = commit_zone(&mut stores, "one", 10);
        let mut claims = stores.claims(Vec::new());
        let larger = claims.named::<Zone>("one", &20);
        drop(claims);
        assert_eq!((first.bytes, larger.bytes), (10, 20));
        assert!(Arc::ptr_eq(&first, &commit_zone(&mut stores, "one", 10)));
    }

    #[test]
    fn kinds_have_names_of_their_own_and_other_settings_mean_other_state() {
        let mut stores = stores();
        let mut claims = stores.claims(Vec::new());
        let (zone, other) = (claims.named::<Zone>("x", &1), claims.named::<Other>("x", &()));
        let claimed = claims.finish();
        stores.commit(claimed);
        let mut claims = stores.claims(Vec::new());
        assert!(Arc::ptr_eq(&other, &claims.named::<Other>("x", &())));
        assert!(!Arc::ptr_eq(&zone, &claims.named::<Zone>("x", &2)));
    }
}
