//! The cluster's word on the endpoints of Services.
//!
//! One task for each name keeps its pool; the way to the API is one for all. When the API doesn't answer the endpoints known
//! last stay, and the log says so once until it does.

use std::{fmt, sync::Arc, time::Duration};

use keel_kube::{
    cluster::{Cluster, ClusterError, Progress, ServiceRef, follow},
    endpoints::{Effect, Event, Pool, PortChoice},
};
use keel_model::FollowedName;
use tokio::{
    sync::{OnceCell, watch},
    time::sleep,
};

use super::follower::Source;
use crate::located::Located;

/// When to try again after the API couldn't be reached.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// What a name's task says: `None` until the API has been asked once.
type Found = watch::Sender<Option<Vec<Located>>>;

/// The way to the cluster's API, found when it is first needed.
#[derive(Clone, Default)]
pub(super) struct Way(Arc<OnceCell<Cluster>>);

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Way").field(&self.0.initialized()).finish()
    }
}

impl Way {
    async fn cluster(&self) -> Result<&Cluster, ClusterError> {
        self.0.get_or_try_init(Cluster::find).await
    }
}

/// The source of a name: the cluster, or DNS for a name that no Service can have.
pub(super) fn source(name: &FollowedName, way: &Way) -> Source {
    let Some(service) = ServiceRef::parse(&name.host) else { return Source::Dns(Vec::new()) };
    let choice = match &name.port_name {
        Some(port) => PortChoice::Name(port.clone()),
        None => PortChoice::Number(name.port),
    };
    let found = Found::new(None);
    let receiver = found.subscribe();
    let followed = Followed { name: name.to_string(), pool: Pool::new(choice), found, undeclared: None };
    tokio::spawn(watch(service, followed, way.clone()));
    Source::Cluster(receiver)
}

/// A name and who answers to it.
struct Followed {
    name: String,
    pool: Pool,
    found: Found,
    /// The port that was last said to be none of the Service's.
    undeclared: Option<u16>,
}

impl Followed {
    fn take(&mut self, event: Event) {
        let slices = match &event {
            Event::Put(slice) => std::slice::from_ref(slice),
            Event::Listed(slices) => slices.as_slice(),
            Event::Gone(_) => &[],
        };
        let undeclared = slices.iter().find_map(|slice| Some((self.pool.undeclared(slice)?, slice)));
        if let Some((port, slice)) = undeclared
            && self.undeclared.replace(port) != Some(port)
        {
            let known: Vec<String> =
                slice.ports.iter().map(|port| format!("{} ({})", port.number, port.name)).collect();
            tracing::warn!("{}: its endpoints name no port {port} but {}", self.name, known.join(", "));
        }
        let effect = self.pool.apply(event);
        if effect == Effect::Changed || self.found.borrow().is_none() {
            let members = self.pool.members().map(|(member, name)| Located {
                address: member.address,
                incarnation: member.incarnation,
                instance: name.map(str::to_owned),
                record: None,
            });
            self.found.send_replace(Some(members.collect()));
        }
    }
}

/// Follows a Service until nobody listens any more.
async fn watch(service: ServiceRef, mut followed: Followed, way: Way) {
    let mut progress = Progress::default();
    let mut failing = false;
    let closed = followed.found.clone();
    loop {
        let error = tokio::select! {
            error = ask(&service, &mut followed, &way, &mut progress, &mut failing) => error,
            () = closed.closed() => return,
        };
        if !std::mem::replace(&mut failing, true) {
            let known = followed.found.borrow().as_ref().map_or(0, Vec::len);
            let name = &followed.name;
            tracing::error!(
                "{name}: the cluster can't be asked ({error}); its {known} endpoints known last stay"
            );
        }
        if followed.found.borrow().is_none() {
            followed.found.send_replace(Some(Vec::new()));
        }
        sleep(RETRY_INTERVAL).await;
    }
}

/// Asks until the API doesn't answer.
async fn ask(
    service: &ServiceRef,
    followed: &mut Followed,
    way: &Way,
    progress: &mut Progress,
    failing: &mut bool,
) -> ClusterError {
    let cluster = match way.cluster().await {
        Ok(cluster) => cluster,
        Err(error) => return error,
    };
    let name = followed.name.clone();
    let mut answered = || {
        if std::mem::take(failing) {
            tracing::info!("{name}: the cluster can be asked again");
        }
    };
    let mut take = |event: Option<Event>| {
        answered();
        if let Some(event) = event {
            followed.take(event);
        }
    };
    match follow(cluster, service, progress, &mut take).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}
