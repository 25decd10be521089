//! ngx_http_split_clients_module: requests divided into parts by a hash.

use serde::{Deserialize, Serialize};

use crate::Template;

/// A `split_clients` block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitClients {
    /// What is hashed.
    pub key: Template,
    /// The parts in the file's order; what is beyond all of them has the empty value.
    pub parts: Vec<SplitPart>,
}

/// One part of a `split_clients` block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitPart {
    /// Its hashes are those below this and not below that of the part before; `None` takes all that are left.
    pub below: Option<u32>,
    /// The value there.
    pub value: String,
}
