//! What the runner tells of its own accord, and how an instance stands.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::SystemTime,
};

use keel_model::ServiceName;

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The pool of a service changed. Sent within a millisecond of an instance's readiness or death.
    Pool {
        /// Whose.
        service: ServiceName,
        /// All instances that may get requests, in the order of their numbers.
        instances: Vec<PoolInstance>,
        /// Whether an instance is being started that will join, so that requests may wait for it.
        starting: bool,
    },
    /// An instance left the pool. Say [`Runner::drained`](crate::Runner::drained) when nothing is in flight to it.
    Draining {
        /// Its name.
        instance: String,
        /// Which start of it.
        incarnation: u64,
    },
    /// How an instance stands changed.
    State(InstanceStatus),
    /// An instance is gone from the list: it was scaled away, or its service removed.
    Gone {
        /// Its name.
        instance: String,
    },
    /// Something takes its time and goes on: a line of a build, a step begun.
    Progress {
        /// The service it is for.
        service: ServiceName,
        /// A line, as it came.
        text: String,
    },
    /// An instance isn't ready yet; said after a second and then every five.
    Slow {
        /// Its name.
        instance: String,
        /// Why, as far as that can be seen.
        why: String,
    },
}

/// An instance that may get requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolInstance {
    /// Its name: `app1`, or `app-2` of several.
    pub name: String,
    /// Which start of it; counts over all instances from 1.
    pub incarnation: u64,
    /// Where it is.
    pub address: IpAddr,
    /// Which port takes the place of which, where the instance couldn't have the one it asked for.
    pub ports: BTreeMap<u16, u16>,
    /// Whether the runner asks the kernel if it listens, exactly at this address ([`Runner::doubted`](crate::Runner::doubted)).
    pub is_watched: bool,
}

impl PoolInstance {
    /// The socket address behind which the instance's `port` is found. `None` when the instance lives on the
    /// host's own loopback address and serves another port only.
    pub fn socket_address(&self, port: u16) -> Option<SocketAddr> {
        if let Some(actual) = self.ports.get(&port) {
            return Some(SocketAddr::new(self.address, *actual));
        }
        let shared = self.address == IpAddr::V4(Ipv4Addr::LOCALHOST);
        (!shared || self.ports.is_empty()).then(|| SocketAddr::new(self.address, port))
    }
}

/// How an instance stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceStatus {
    /// Its name.
    pub name: String,
    /// Its service.
    pub service: ServiceName,
    /// Which start of it; 0 when it was never started.
    pub incarnation: u64,
    /// Its state.
    pub state: InstanceState,
    /// The process it runs as.
    pub pid: Option<u32>,
    /// Its own address.
    pub address: Option<IpAddr>,
    /// Its ports as a person reads them: `5000`, or `80 (as 41873)`.
    pub ports: Vec<String>,
    /// Since when the state holds.
    pub since: SystemTime,
    /// How often it was started again because it had ended.
    pub restarts: u32,
    /// Whether it kept ending right after its start and hasn't run for long enough since, in any state.
    pub is_crash_loop: bool,
    /// How its last process ended.
    pub exit: Option<Exit>,
    /// What its last healthcheck said.
    pub health: Option<Health>,
    /// What else should be known: a fallback, what it waits for, when it is tried again.
    pub note: Option<String>,
}

/// The life of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InstanceState {
    /// It waits for what it depends on, or runs and doesn't serve yet.
    Starting,
    /// It serves.
    Ready,
    /// Its healthcheck fails; it is out of the pool.
    Unhealthy,
    /// It left the pool and finishes what is in flight.
    Draining,
    /// It was told to end.
    Stopping,
    /// It has ended.
    Exited,
    /// It keeps ending and is tried again after a growing pause.
    CrashLoop,
}

impl std::fmt::Display for InstanceState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Exited => "exited",
            Self::CrashLoop => "crash-loop",
        })
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// Whether it ended as one that has done its work.
    pub fn is_success(self) -> bool {
        self == Self::Status(0)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What a healthcheck said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether it passed.
    pub passed: bool,
    /// The end of what it printed, or why it couldn't run.
    pub output: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_port_of_an_instance() {
        let instance = |address: [u8; 4], ports: &[(u16, u16)]| PoolInstance {
            name: "app1".into(),
            incarnation: 1,
            address: address.into(),
            ports: ports.iter().copied().collect(),
            is_watched: true,
        };
        let check = |instance: &PoolInstance, port, expect: Option<&str>| {
            assert_eq!(instance.socket_address(port), expect.map(|text| text.parse().unwrap()));
        };
        let own = instance([127, 3, 4, 5], &[(80, 41873)]);
        check(&own, 5000, Some("127.3.4.5:5000"));
        check(&own, 80, Some("127.3.4.5:41873"));
        let shared = instance([127, 0, 0, 1], &[(5000, 33333)]);
        check(&shared, 5000, Some("127.0.0.1:33333"));
        check(&shared, 9000, None);
    }
}
