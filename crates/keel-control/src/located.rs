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
}

/// What answers to each followed name now, in the order of addresses.
pub type Names = BTreeMap<FollowedName, Vec<Located>>;
