//! Where names were found to lead.

use std::{collections::BTreeMap, net::SocketAddr};

use keel_model::FollowedName;

/// Where something that answers to a name is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Located {
    /// Its address.
    pub address: SocketAddr,
    /// Tells it from what was at this address before.
    pub incarnation: u64,
    /// What it is called, where that is known: a container's name.
    pub instance: Option<String>,
    /// What a SRV record says of it.
    pub record: Option<SrvRecord>,
}

/// What a SRV record says of an address (RFC 2782), as nginx takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SrvRecord {
    /// Its share among the others, at least 1.
    pub weight: u32,
    /// Whether others have a better priority.
    pub is_backup: bool,
    /// Tells records apart that say the same: the address stands among the peers as often as there are.
    pub copy: u32,
}

/// What answers to each followed name now, in the order of addresses.
pub type Names = BTreeMap<FollowedName, Vec<Located>>;
