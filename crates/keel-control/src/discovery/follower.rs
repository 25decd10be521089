//! The task that follows one name.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use keel_model::FollowedName;
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    containers::{Containers, Families},
    dns::{Answer, Dns, DnsFailure, Place},
};
use crate::{chain::chain, located::Located};

/// How long one attempt to connect to a new address may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two attempts at first; doubled up to the greatest.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// How long the first answer waits for its addresses to accept a connection before it counts without them.
const FIRST_PROBES: Duration = Duration::from_millis(500);
/// When to ask again after nobody answered.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Who says which addresses a name has.
pub(super) enum Source {
    /// DNS, asked again and again. Until it has answered, these addresses hold, which the name has for another port.
    Dns(Vec<IpAddr>),
    /// The engine, which says so by itself.
    Engine(watch::Receiver<Option<Containers>>),
    /// The cluster, which does so, too. `None` until it has been asked once.
    #[cfg(feature = "kubernetes")]
    Cluster(watch::Receiver<Option<Vec<Located>>>),
}

/// Follows a name until the task is aborted.
pub(super) async fn follow(
    name: FollowedName,
    source: Source,
    doubts: mpsc::Receiver<SocketAddr>,
    found: watch::Sender<Option<Vec<Located>>>,
    changes: mpsc::UnboundedSender<FollowedName>,
) {
    let follower = Follower::new(name, doubts, found, changes);
    match source {
        Source::Dns(first) => follower.follow_dns(&first).await,
        Source::Engine(containers) => follower.follow_engine(containers).await,
        #[cfg(feature = "kubernetes")]
        Source::Cluster(endpoints) => follower.follow_cluster(endpoints).await,
    }
}

/// Waits until a moment; for ever where there is none.
pub(super) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

struct Follower {
    name: FollowedName,
    members: BTreeMap<Located, Member>,
    /// How many addresses have been new so far.
    joined: u64,
    probes: JoinSet<(Located, Accepts)>,
    /// Gives addresses at which requests fail.
    doubts: mpsc::Receiver<SocketAddr>,
    /// Until when the first answer waits for its probes.
    first_until: Option<Instant>,
    /// Whether the last question had no answer.
    failing: bool,
    /// Whether all addresses take part where none accepts a connection: a request says what is wrong with them.
    means_it: bool,
    /// Those that have taken part without having accepted a connection.
    unproven: BTreeSet<Located>,
    found: watch::Sender<Option<Vec<Located>>>,
    changes: mpsc::UnboundedSender<FollowedName>,
}

/// Whether something accepts connections at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepts {
    Yes,
    /// It says no, or nobody is there.
    No,
}

impl Accepts {
    /// Takes only the peer's word, or that of the network on the way there: what this process lacks says nothing.
    fn of(error: &io::Error) -> Self {
        use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
        match error.kind() {
            ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable => Self::No,
            _ => Self::Yes,
        }
    }
}

/// An address that the name has.
enum Member {
    /// It has not accepted a connection yet.
    Probed(AbortHandle),
    /// It takes part.
    In,
    /// It takes part, and whether it still accepts connections is looked at.
    Doubted(AbortHandle),
    /// It was looked at and accepted none. Only a connection lets it in again: what proved that it could serve proved
    /// wrong.
    Out(AbortHandle),
}

impl Member {
    fn takes_part(&self) -> bool {
        matches!(self, Self::In | Self::Doubted(_))
    }

    /// The task that tries it.
    fn task(&self) -> Option<&AbortHandle> {
        match self {
            Self::Probed(task) | Self::Doubted(task) | Self::Out(task) => Some(task),
            Self::In => None,
        }
    }
}

/// What a task has found, or that it was aborted.
type Tried = Result<(Id, (Located, Accepts)), JoinError>;

impl Follower {
    fn new(
        name: FollowedName,
        doubts: mpsc::Receiver<SocketAddr>,
        found: watch::Sender<Option<Vec<Located>>>,
        changes: mpsc::UnboundedSender<FollowedName>,
    ) -> Self {
        Self {
            name,
            members: BTreeMap::new(),
            joined: 0,
            probes: JoinSet::new(),
            doubts,
            first_until: None,
            failing: false,
            means_it: false,
            unproven: BTreeSet::new(),
            found,
            changes,
        }
    }

    async fn follow_dns(mut self, first: &[IpAddr]) {
        if !first.is_empty() {
            // They are used if nobody answers now.
            self.means_it = true;
            let place = |ip: &IpAddr| Place { address: SocketAddr::new(*ip, self.name.port), record: None };
            let places: Vec<Place> = first.iter().map(place).collect();
            let wanted = places.into_iter().map(|place| (self.newcomer(place), false)).collect();
            self.take(wanted);
        }
        let mut dns = None;
        let mut ask_at = Instant::now();
        loop {
            tokio::select! {
                () = sleep_until(ask_at) => {
                    let holds = self.ask(&mut dns).await;
                    ask_at = Instant::now() + holds;
                }
                Some(tried) = self.probes.join_next_with_id() => self.learns(tried),
                Some(address) = self.doubts.recv() => self.doubt(address),
                () = at(self.first_until) => self.first_until = None,
            }
            self.publish();
        }
    }

    async fn follow_engine(mut self, mut containers: watch::Receiver<Option<Containers>>) {
        containers.mark_changed();
        loop {
            tokio::select! {
                changed = containers.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let (resolver, host, port) = (&self.name.resolver, &self.name.host, self.name.port);
                    let matches = containers.borrow_and_update().as_ref().map(|containers| {
                        let families = Families { ipv4: resolver.ipv4, ipv6: resolver.ipv6 };
                        containers.matches(host, port, families)
                    });
                    let Some(matches) = matches else { continue };
                    self.take(matches.into_iter().map(|one| (one.located, one.proven)).collect());
                }
                Some(tried) = self.probes.join_next_with_id() => self.learns(tried),
                Some(address) = self.doubts.recv() => self.doubt(address),
                () = at(self.first_until) => self.first_until = None,
            }
            self.publish();
        }
    }

    /// Who the cluster calls ready has proven it there.
    #[cfg(feature = "kubernetes")]
    async fn follow_cluster(mut self, mut endpoints: watch::Receiver<Option<Vec<Located>>>) {
        endpoints.mark_changed();
        loop {
            tokio::select! {
                changed = endpoints.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let (ipv4, ipv6) = (self.name.resolver.ipv4, self.name.resolver.ipv6);
                    let known = endpoints.borrow_and_update().clone();
                    let Some(known) = known else { continue };
                    let is_wanted = |one: &Located| if one.address.is_ipv4() { ipv4 } else { ipv6 };
                    self.take(known.into_iter().filter(is_wanted).map(|one| (one, true)).collect());
                }
                Some(tried) = self.probes.join_next_with_id() => self.learns(tried),
                Some(address) = self.doubts.recv() => self.doubt(address),
                () = at(self.first_until) => self.first_until = None,
            }
            self.publish();
        }
    }

    /// Asks once and gives the time until the next question.
    async fn ask(&mut self, dns: &mut Option<Dns>) -> Duration {
        match self.answer(dns).await {
            Ok(answer) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("{} is resolved again", self.name.host);
                }
                self.means_it = dns.as_ref().is_some_and(Dns::means_it);
                let wanted = answer.addresses.into_iter().map(|place| (self.located(place), false)).collect();
                self.take(wanted);
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
                if self.found.borrow().is_none() && self.members.is_empty() {
                    self.found.send_replace(Some(Vec::new()));
                }
                RETRY_INTERVAL
            }
        }
    }

    /// The member with this address, or a new one: another container may have the address of one that failed.
    fn located(&mut self, place: Place) -> Located {
        let Place { address, record } = place;
        let is_same = |known: &&Located| known.address == address && known.record == record;
        if let Some(known) = self.members.keys().find(is_same) {
            return known.clone();
        }
        self.newcomer(place)
    }

    fn newcomer(&mut self, place: Place) -> Located {
        self.joined += 1;
        let Place { address, record } = place;
        Located { address, incarnation: self.joined, instance: None, record }
    }

    async fn answer(&self, dns: &mut Option<Dns>) -> Result<Answer, DnsFailure> {
        let dns = match dns {
            Some(dns) => dns,
            None => dns.insert(Dns::new(&self.name.resolver).await?),
        };
        dns.ask(&self.name).await
    }

    /// Drops addresses that are gone and probes new ones, unless something else has proven that they serve. That spares the
    /// first probe only.
    fn take(&mut self, wanted: BTreeMap<Located, bool>) {
        self.members.retain(|located, member| {
            let stays = wanted.contains_key(located);
            if let (Some(task), false) = (member.task(), stays) {
                task.abort();
            }
            stays
        });
        self.unproven.retain(|located| self.members.contains_key(located));
        for (located, proven) in wanted {
            let probes = &mut self.probes;
            let member = self.members.entry(located).or_insert_with_key(|located| {
                if proven { Member::In } else { Member::Probed(probes.spawn(probe(located.clone()))) }
            });
            if let (Member::Probed(probe), true) = (&member, proven) {
                probe.abort();
                *member = Member::In;
            }
        }
        if self.found.borrow().is_none() && self.first_until.is_none() {
            self.first_until = Some(Instant::now() + FIRST_PROBES);
        }
    }

    /// Looks whether an address at which requests fail accepts connections: if it does, its failures count as always.
    fn doubt(&mut self, address: SocketAddr) {
        let mut members = self.members.iter_mut();
        let known = members.find(|(located, member)| located.address == address && member.takes_part());
        if let Some((located, member @ Member::In)) = known {
            *member = Member::Doubted(self.probes.spawn(check(located.clone())));
        }
    }

    fn learns(&mut self, tried: Tried) {
        let Ok((id, (located, accepts))) = tried else { return };
        // What was begun before it left and returned says nothing of it now.
        let is_its_own = |member: &&mut Member| member.task().is_some_and(|task| task.id() == id);
        match (self.members.get_mut(&located).filter(is_its_own), accepts) {
            (Some(Member::Probed(_) | Member::Out(_)), Accepts::Yes) if self.unproven.remove(&located) => {
                // Requests that went there before it listened have failed: that says nothing any more.
                self.members.remove(&located);
                let next = self.newcomer(Place { address: located.address, record: located.record });
                self.members.insert(next, Member::In);
            }
            (Some(member), Accepts::Yes) => *member = Member::In,
            (Some(Member::Doubted(_)), Accepts::No) => {
                tracing::info!("{} accepts no connection; it takes part again when it does", located.address);
                self.members.remove(&located);
                // The engine says by itself whether it is another one.
                let next = match located.instance {
                    Some(_) => located,
                    None => self.newcomer(Place { address: located.address, record: located.record }),
                };
                let probe = self.probes.spawn(probe(next.clone()));
                self.members.insert(next, Member::Out(probe));
            }
            (Some(Member::Probed(_) | Member::Out(_) | Member::In) | None, _) => {}
        }
    }

    fn publish(&mut self) {
        if self.first_until.is_some() && !self.members.values().all(Member::takes_part) {
            return;
        }
        self.first_until = None;
        let members = self.members.iter().filter(|(_, member)| member.takes_part());
        let mut now: Vec<Located> = members.map(|(located, _)| located.clone()).collect();
        if now.is_empty() && self.means_it {
            now.extend(self.members.keys().cloned());
            self.unproven.extend(now.iter().cloned());
        }
        let changed = self.found.send_if_modified(|found| {
            let changed = found.as_ref() != Some(&now);
            if changed {
                tracing::info!("{} is {}", self.name, shown(&now));
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

fn shown(members: &[Located]) -> String {
    let one = |located: &Located| match &located.instance {
        Some(instance) => format!("{instance} ({})", located.address),
        None => located.address.to_string(),
    };
    if members.is_empty() { "nobody".into() } else { members.iter().map(one).collect::<Vec<_>>().join(", ") }
}

/// Tries once whether the address accepts a connection. One that only takes its time may be busy.
async fn check(located: Located) -> (Located, Accepts) {
    let accepts = match timeout(CONNECT_TIMEOUT, TcpStream::connect(located.address)).await {
        Ok(Err(error)) => Accepts::of(&error),
        Ok(Ok(_)) | Err(_) => Accepts::Yes,
    };
    (located, accepts)
}

/// Returns when the address has accepted a connection.
async fn probe(located: Located) -> (Located, Accepts) {
    let address = located.address;
    let mut interval = PROBE_INTERVAL;
    loop {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return (located, Accepts::Yes),
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

#[cfg(test)]
mod tests {
    use keel_model::{Resolver, ResolverSource};
    use rustix::io::Errno;

    use super::*;

    fn follower() -> Follower {
        let (source, timeout) = (ResolverSource::Docker, CONNECT_TIMEOUT);
        let resolver = Resolver { source, valid: None, ipv4: true, ipv6: true, timeout };
        let name = FollowedName { resolver, host: "app".into(), port: 80, port_name: None };
        let (_, doubts) = mpsc::channel(1);
        Follower::new(name, doubts, watch::channel(None).0, mpsc::unbounded_channel().0)
    }

    /// A container whose healthcheck passes.
    fn well(address: SocketAddr) -> (Located, bool) {
        (Located { address, incarnation: 1, instance: Some("app1".into()), record: None }, true)
    }

    #[test]
    fn only_the_peers_word_is_a_no() {
        let check =
            |errno: Errno, accepts: Accepts| assert_eq!(Accepts::of(&errno.into()), accepts, "{errno}");
        for errno in [Errno::CONNREFUSED, Errno::CONNRESET, Errno::HOSTUNREACH, Errno::NETUNREACH] {
            check(errno, Accepts::No);
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::ACCESS] {
            check(errno, Accepts::Yes);
        }
    }

    #[tokio::test]
    async fn one_check_at_a_time_answers_all_doubts() -> io::Result<()> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let mut follower = follower();
        follower.take(BTreeMap::from([well(address)]));
        (0..100).for_each(|_| follower.doubt(address));
        assert_eq!(follower.probes.len(), 1);
        let tried = follower.probes.join_next_with_id().await.expect("is checked");
        follower.learns(tried);
        assert!(matches!(follower.members[&well(address).0], Member::In));
        follower.doubt(address);
        assert_eq!(follower.probes.len(), 1, "a later one is another");
        Ok(())
    }

    #[tokio::test]
    async fn a_healthcheck_does_not_bring_back_who_accepts_nothing() -> io::Result<()> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        drop(listener);
        let mut follower = follower();
        let takes_part = |follower: &Follower| follower.members[&well(address).0].takes_part();
        follower.take(BTreeMap::from([well(address)]));
        assert!(takes_part(&follower), "its healthcheck says so");
        follower.doubt(address);
        let tried = follower.probes.join_next_with_id().await.expect("is checked");
        follower.learns(tried);
        assert!(!takes_part(&follower));
        // As when the engine tells of another container.
        follower.take(BTreeMap::from([well(address)]));
        assert!(!takes_part(&follower));
        let _listener = std::net::TcpListener::bind(address)?;
        let tried = follower.probes.join_next_with_id().await.expect("is probed");
        follower.learns(tried);
        assert!(takes_part(&follower));
        Ok(())
    }
}
