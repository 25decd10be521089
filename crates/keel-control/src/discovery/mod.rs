//! Names whose addresses come and go, followed while traffic is served.
//!
//! One task for each name asks, compares and says what has changed; nothing here knows upstreams or the data plane.
//! Four rules hold for every source:
//! - A source that doesn't answer changes nothing: the last known addresses stay, and the log says so once until it does.
//! - An address takes part when it has accepted a connection, never earlier: a container is in DNS before what runs in
//!   it listens. Where none of a name accepts one, and it isn't Docker's DNS that names them, all take part, as in nginx.
//! - An address that accepts none any more takes part again when it does. It may be another
//!   container by then, without failures: a replaced container keeps its address, and DNS doesn't show the change.
//! - A name that has no address is an empty group and no failure.

#[cfg(feature = "kubernetes")]
mod cluster;
mod containers;
mod dns;
mod engine;
mod follower;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use keel_model::{FollowedName, ResolverSource};
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use self::{containers::Containers, follower::Source};
use crate::located::{Located, Names};

/// Doubts about one name's addresses that may wait. One that is dropped comes again when its peer fails again.
const DOUBTS_MAX: usize = 64;

/// How long a configuration waits for the addresses of its names before it takes effect without.
const FIRST_ANSWERS: Duration = Duration::from_secs(3);

/// The names that are followed; each until nobody wants it any more.
#[derive(Debug)]
pub(crate) struct Discovery {
    followed: BTreeMap<FollowedName, Followed>,
    /// What the container engine says, once a name asks for it.
    containers: Option<watch::Sender<Option<Containers>>>,
    /// The way to the cluster, once a name has needed it; for all names one.
    #[cfg(feature = "kubernetes")]
    cluster: cluster::Way,
    changes: mpsc::UnboundedSender<FollowedName>,
}

#[derive(Debug)]
struct Followed {
    /// `None` until it has been asked once.
    found: watch::Receiver<Option<Vec<Located>>>,
    /// Takes addresses at which requests fail.
    doubts: mpsc::Sender<SocketAddr>,
    task: AbortHandle,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Discovery {
    /// Makes one that follows nothing yet. The receiver gets each name whose addresses have changed.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<FollowedName>) {
        let (changes, receiver) = mpsc::unbounded_channel();
        let discovery = Self {
            followed: BTreeMap::new(),
            containers: None,
            #[cfg(feature = "kubernetes")]
            cluster: cluster::Way::default(),
            changes,
        };
        (discovery, receiver)
    }

    /// Follows these names too, on the current tokio runtime.
    pub(crate) fn follow(&mut self, names: &BTreeSet<FollowedName>) {
        for name in names {
            if !self.followed.contains_key(name) {
                let (sender, found) = watch::channel(None);
                let (doubts, doubted) = mpsc::channel(DOUBTS_MAX);
                let source = self.source(name);
                let changes = self.changes.clone();
                let task = tokio::spawn(follower::follow(name.clone(), source, doubted, sender, changes));
                let followed = Followed { found, doubts, task: task.abort_handle() };
                self.followed.insert(name.clone(), followed);
            }
        }
    }

    fn source(&mut self, name: &FollowedName) -> Source {
        match &name.resolver.source {
            ResolverSource::Docker => {}
            #[cfg(feature = "kubernetes")]
            ResolverSource::Kubernetes => return cluster::source(name, &self.cluster),
            // Without the feature such a name isn't followed at all.
            #[cfg(not(feature = "kubernetes"))]
            ResolverSource::Kubernetes => return Source::Dns(Vec::new()),
            ResolverSource::Servers(_) | ResolverSource::System => return Source::Dns(self.known(name)),
        }
        // The last listener's end has ended the task.
        let listened_to = self.containers.take().filter(|containers| !containers.is_closed());
        let containers = listened_to.unwrap_or_else(|| {
            let containers = watch::Sender::new(None);
            tokio::spawn(engine::watch(containers.clone()));
            containers
        });
        let receiver = containers.subscribe();
        self.containers = Some(containers);
        Source::Engine(receiver)
    }

    /// The addresses that are known of a name for another port, as of one whose port a reload changes.
    fn known(&self, name: &FollowedName) -> Vec<IpAddr> {
        let is_same = |one: &FollowedName| {
            one.host == name.host && one.resolver == name.resolver && one.port_name == name.port_name
        };
        let mut followed = self.followed.iter().filter(|(one, _)| is_same(one));
        let known = followed.find_map(|(_, followed)| followed.found.borrow().clone());
        known.unwrap_or_default().iter().map(|located| located.address.ip()).collect()
    }

    /// Follows no other names than these any more.
    pub(crate) fn retain(&mut self, names: &BTreeSet<FollowedName>) {
        self.followed.retain(|name, _| names.contains(name));
    }

    /// Hears that a peer of these names has failed: it is looked whether it is there at all.
    pub(crate) fn doubt<'a>(&self, names: impl Iterator<Item = &'a FollowedName>, address: SocketAddr) {
        for followed in names.filter_map(|name| self.followed.get(name)) {
            // A task that has ended follows nothing, and one that has many to look at isn't waited for.
            let _ = followed.doubts.try_send(address);
        }
    }

    /// Waits until each of these names, as far as they are followed, has been asked for once, but not longer than
    /// [`FIRST_ANSWERS`].
    pub(crate) fn first_answers(
        &self,
        names: &BTreeSet<FollowedName>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let deadline = Instant::now() + FIRST_ANSWERS;
        let followed = names.iter().filter_map(|name| self.followed.get(name));
        let followed: Vec<_> = followed.map(|followed| followed.found.clone()).collect();
        async move {
            for mut found in followed {
                if timeout_at(deadline, found.wait_for(Option::is_some)).await.is_err() {
                    return;
                }
            }
        }
    }

    /// What answers to each name now.
    pub(crate) fn names(&self) -> Names {
        let found = |followed: &Followed| followed.found.borrow().clone().unwrap_or_default();
        self.followed.iter().map(|(name, followed)| (name.clone(), found(followed))).collect()
    }
}
