//! What supervisor and data plane say to each other, over a unix socket.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Address, PeerKey, PeerSet, Plan, UpstreamName};

/// What the supervisor tells the data plane.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Build everything that this plan needs, without moving traffic. The descriptors of `sockets`, then of `logs`, then
    /// of `folders` come with the message, in that order; sockets that the data plane already holds are not sent again, logs
    /// always are (the supervisor may open what the data plane's user may not). Answered by [`Report::Prepared`] or
    /// [`Report::Refused`].
    Prepare {
        /// The new configuration.
        plan: Box<Plan>,
        /// Addresses of the listening sockets that come along.
        sockets: Vec<Address>,
        /// Paths of the log files that come along, open for appending: access and error logs without variables.
        logs: Vec<PathBuf>,
        /// Folders of the plan's trees that come along, for looking up what is in them: those that could be opened.
        folders: Vec<PathBuf>,
    },
    /// Let traffic take the prepared plan. Can't fail. Answered by [`Report::Committed`].
    Commit {
        /// The generation that was prepared.
        generation: u64,
    },
    /// Forget the prepared plan.
    Abandon {
        /// The generation that was prepared.
        generation: u64,
    },
    /// Replace the peers of one upstream. A peer that is no longer in the set takes no new request, its idle
    /// connections close, and once its last request has ended [`Report::Drained`] says so.
    Peers {
        /// Which upstream.
        upstream: UpstreamName,
        /// All its peers.
        set: PeerSet,
    },
    /// Write to these files from now on (SIGUSR1); their descriptors come with the message.
    ReopenLogs {
        /// Paths of the log files that come along.
        logs: Vec<PathBuf>,
    },
    /// Accept no more, finish what is in flight, then exit (SIGQUIT).
    Quit,
    /// Exit at once (SIGTERM).
    Stop,
    /// Answered by [`Report::Status`].
    Status,
}

/// What the data plane tells the supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Report {
    /// The plan can be committed.
    Prepared {
        /// Which plan.
        generation: u64,
    },
    /// The plan can't be taken; the one before it stays.
    Refused {
        /// Which plan.
        generation: u64,
        /// Why, for a person.
        reason: String,
    },
    /// New requests follow this plan now.
    Committed {
        /// Which plan.
        generation: u64,
    },
    /// A peer that left its set has no request in flight any more.
    Drained {
        /// Whose peer.
        upstream: UpstreamName,
        /// Which peer.
        peer: PeerKey,
    },
    /// A connection to an instance broke: whether it still listens is to be looked at.
    Doubted {
        /// Which start of which instance.
        incarnation: u64,
    },
    /// Failures have excluded a peer for a while (`max_fails`, `fail_timeout`).
    Excluded {
        /// Whose peer.
        upstream: UpstreamName,
        /// Which peer.
        peer: PeerKey,
    },
    /// Counts since the start of this data plane.
    Status(Box<DataPlaneStatus>),
}

/// Counts since the start of the data plane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataPlaneStatus {
    /// The generation in effect.
    pub generation: u64,
    /// Connections accepted from clients.
    pub accepted: u64,
    /// Connections of clients that are open now.
    pub active: u64,
    /// Requests read from clients.
    pub requests: u64,
    /// Requests waiting for an instance that is being started.
    pub queued: u64,
    /// Panics caught, each of which cost one connection.
    pub panics: u64,
    /// Counts of each server, by its zone (`status_zone`) or its name.
    pub zones: Vec<ZoneStatus>,
    /// Counts of each upstream's peers.
    pub peers: Vec<PeerStatus>,
}

/// Counts of one zone of servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneStatus {
    /// Its name.
    pub name: String,
    /// Its requests.
    pub traffic: TrafficStatus,
}

/// The classes of statuses: 1xx to 5xx.
pub const STATUS_CLASSES: usize = 5;

/// Upper bounds of the buckets that durations are counted in, rising.
pub const DURATION_BOUNDS: [Duration; 14] = {
    const MILLIS: [u64; 14] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000];
    let mut bounds = [Duration::ZERO; 14];
    let mut at = 0;
    while at < bounds.len() {
        bounds[at] = Duration::from_millis(MILLIS[at]);
        at += 1;
    }
    bounds
};

/// Sums of requests that have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficStatus {
    /// How many.
    pub requests: u64,
    /// Those with a response, by the class of its status.
    pub responses: [u64; STATUS_CLASSES],
    /// Bytes that came.
    pub received_bytes: u64,
    /// Bytes that were sent.
    pub sent_bytes: u64,
    /// How many took as long as each of [`DURATION_BOUNDS`] at most and longer than the one before; the last one took
    /// longer than all.
    pub durations: Vec<u64>,
    /// The sum of all durations, in microseconds.
    pub took_micros: u64,
}

impl TrafficStatus {
    /// Adds another one's.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.received_bytes += other.received_bytes;
        self.sent_bytes += other.sent_bytes;
        self.took_micros = self.took_micros.wrapping_add(other.took_micros);
        self.responses.iter_mut().zip(other.responses).for_each(|(sum, count)| *sum += count);
        self.durations.resize(self.durations.len().max(other.durations.len()), 0);
        self.durations.iter_mut().zip(&other.durations).for_each(|(sum, count)| *sum += count);
    }
}

/// Counts of one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Whose peer.
    pub upstream: UpstreamName,
    /// Which peer.
    pub peer: PeerKey,
    /// The instance behind it, if Evenkeel runs it.
    pub instance: Option<String>,
    /// First attempts given to it.
    pub first_attempts: u64,
    /// Retries given to it.
    pub retries: u64,
    /// Attempts that failed (`proxy_next_upstream` counts them as unsuccessful).
    pub failures: u64,
    /// Requests in flight now.
    pub in_flight: u32,
    /// Whether `max_fails` excludes it now.
    pub excluded: bool,
    /// Its attempts that have ended.
    pub traffic: TrafficStatus,
}

/// A message that can't be read: the two processes are not of the same build.
#[derive(Debug, thiserror::Error)]
#[error("a message between supervisor and data plane can't be read")]
pub struct BadMessage(#[from] postcard::Error);

macro_rules! wire {
    ($message:ty) => {
        impl $message {
            /// Gives the bytes that [`decode`](Self::decode) reads.
            ///
            /// # Errors
            /// When a length exceeds what the format can hold.
            pub fn encode(&self) -> Result<Vec<u8>, BadMessage> {
                Ok(postcard::to_stdvec(self)?)
            }

            /// Reads what [`encode`](Self::encode) of the same build wrote.
            ///
            /// # Errors
            /// When the bytes are anything else.
            pub fn decode(bytes: &[u8]) -> Result<Self, BadMessage> {
                Ok(postcard::from_bytes(bytes)?)
            }
        }
    };
}

wire!(Order);
wire!(Report);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_survive_the_wire() {
        let order = Order::Prepare {
            plan: Box::new(Plan { generation: 7, ..Plan::default() }),
            sockets: vec![Address::Unix("/run/x.sock".into())],
            logs: vec!["/var/log/access.log".into()],
            folders: vec!["/srv/site".into()],
        };
        let bytes = order.encode().unwrap();
        assert_eq!(format!("{:?}", Order::decode(&bytes).unwrap()), format!("{order:?}"));
        assert!(Order::decode(&bytes[..bytes.len() - 1]).is_err());
    }
}
