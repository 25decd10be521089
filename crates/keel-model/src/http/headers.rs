//! ngx_http_headers_module: fields added to responses.

use serde::{Deserialize, Serialize};

use crate::Template;

/// `add_header`, `add_trailer`, `expires`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadersScope {
    /// Fields added to responses.
    pub add: Vec<AddHeader>,
    /// Fields added after the body.
    pub add_trailers: Vec<AddHeader>,
    /// `expires`.
    pub expires: Expires,
}

/// One `add_header`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddHeader {
    /// The field's name as written.
    pub name: String,
    /// Its value; an empty result adds nothing.
    pub value: Template,
    /// Whether it is added to every status (`always`) or to nginx's list only.
    pub always: bool,
}

/// `expires`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expires {
    /// Fields stay as they are.
    #[default]
    Off,
    /// 1970, `no-cache`.
    Epoch,
    /// 31 December 2037, ten years.
    Max,
    /// Seconds from now; negative for `no-cache`.
    Access(i64),
    /// Seconds from the file's modification.
    Modified(i64),
    /// Seconds since midnight (`@15h30m`).
    Daily(u32),
    /// One of the above, as text, from a variable.
    Variable(Template),
}
