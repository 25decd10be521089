//! The task that follows one name.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use keel_model::FollowedName;
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Located,
    dns::{Answer, Dns, DnsFailure},
};
use crate::serve::chain;

/// How long one attempt to connect to a new address may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two attempts at first; doubled up to the greatest.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// How long the first answer waits for its addresses to accept a connection before it counts without them.
const FIRST_PROBES: Duration = Duration::from_millis(500);
/// When to ask again after nobody answered.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Follows a name until the task is aborted.
pub(super) async fn follow(
    name: FollowedName,
    found: watch::Sender<Option<Vec<Located>>>,
    changes: mpsc::UnboundedSender<FollowedName>,
) {
    let mut follower = Follower {
        members: BTreeMap::new(),
        probes: JoinSet::new(),
        first_until: None,
        failing: false,
        name,
        found,
        changes,
    };
    let mut dns = None;
    let mut ask_at = Instant::now();
    loop {
        tokio::select! {
            () = sleep_until(ask_at) => {
                let holds = follower.ask(&mut dns).await;
                ask_at = Instant::now() + holds;
            }
            Some(Ok(address)) = follower.probes.join_next() => follower.joins(address),
            () = at(follower.first_until) => follower.first_until = None,
        }
        follower.publish();
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

struct Follower {
    name: FollowedName,
    members: BTreeMap<SocketAddr, Member>,
    probes: JoinSet<SocketAddr>,
    /// Until when the first answer waits for its probes.
    first_until: Option<Instant>,
    /// Whether the last question had no answer.
    failing: bool,
    found: watch::Sender<Option<Vec<Located>>>,
    changes: mpsc::UnboundedSender<FollowedName>,
}

/// An address that the name has.
enum Member {
    /// It has not accepted a connection yet.
    Probed(AbortHandle),
    /// It takes part.
    In,
}

impl Follower {
    /// Asks once and gives the time until the next question.
    async fn ask(&mut self, dns: &mut Option<Dns>) -> Duration {
        match self.answer(dns).await {
            Ok(answer) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("{} is resolved again", self.name.host);
                }
                self.take(&answer.addresses);
                answer.holds
            }
            Err(error) => {
                // Its sockets may be what is broken.
                *dns = None;
                if !std::mem::replace(&mut self.failing, true) {
                    let (host, count) = (&self.name.host, self.members.len());
                    tracing::error!(
                        "{host} could not be resolved ({}); its {count} known addresses stay",
                        chain(&error)
                    );
                }
                if self.found.borrow().is_none() {
                    self.found.send_replace(Some(Vec::new()));
                }
                RETRY_INTERVAL
            }
        }
    }

    async fn answer(&self, dns: &mut Option<Dns>) -> Result<Answer, DnsFailure> {
        let resolver = &self.name.resolver;
        let dns = match dns {
            Some(dns) => dns,
            None => dns.insert(Dns::new(resolver).await?),
        };
        dns.ask(&self.name.host, resolver).await
    }

    /// Drops the addresses that are gone and probes the new ones.
    fn take(&mut self, addresses: &BTreeSet<IpAddr>) {
        let wanted: BTreeSet<SocketAddr> =
            addresses.iter().map(|ip| SocketAddr::new(*ip, self.name.port)).collect();
        self.members.retain(|address, member| {
            let stays = wanted.contains(address);
            if let (Member::Probed(probe), false) = (member, stays) {
                probe.abort();
            }
            stays
        });
        for address in wanted {
            let probes = &mut self.probes;
            self.members.entry(address).or_insert_with(|| Member::Probed(probes.spawn(probe(address))));
        }
        if self.found.borrow().is_none() && self.first_until.is_none() {
            self.first_until = Some(Instant::now() + FIRST_PROBES);
        }
    }

    fn joins(&mut self, address: SocketAddr) {
        if let Some(member) = self.members.get_mut(&address) {
            *member = Member::In;
        }
    }

    fn publish(&mut self) {
        let is_in = |member: &Member| matches!(member, Member::In);
        if self.first_until.is_some() && !self.members.values().all(is_in) {
            return;
        }
        self.first_until = None;
        let members = self.members.iter().filter(|(_, member)| is_in(member));
        let now: Vec<Located> = members
            .map(|(address, _)| Located { address: *address, incarnation: 0, instance: None })
            .collect();
        let changed = self.found.send_if_modified(|found| {
            let changed = found.as_ref() != Some(&now);
            if changed {
                tracing::debug!("{} is {now:?}", self.name);
                *found = Some(now);
            }
            changed
        });
        if changed {
            // Nobody to tell means that the end is near.
            drop(self.changes.send(self.name.clone()));
        }
    }
}

/// Returns when the address has accepted a connection.
async fn probe(address: SocketAddr) -> SocketAddr {
    let mut interval = PROBE_INTERVAL;
    loop {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return address,
            outcome => {
                if interval == PROBE_INTERVAL {
                    tracing::debug!("{address} doesn't take part yet: {outcome:?}");
                }
            }
        }
        sleep(interval).await;
        interval = (interval * 2).min(PROBE_INTERVAL_MAX);
    }
}
