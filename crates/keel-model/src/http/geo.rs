//! ngx_http_geo_module: a value from an address.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::{Clients, Variable};

/// A `geo` block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geo {
    /// Whose text is the address; `None` for the client's own.
    pub address: Option<Variable>,
    /// What has which value.
    pub places: GeoPlaces,
    /// The value of addresses that no place has, and where there is no address.
    pub default: String,
    /// `proxy`: who is believed when it tells the client's address in `X-Forwarded-For`.
    pub proxies: Vec<Clients>,
    /// `proxy_recursive`: whether addresses that are themselves believed are skipped.
    pub proxy_recursive: bool,
    /// `volatile`: the value is worked out anew at every use.
    pub volatile: bool,
}

/// The addresses of a `geo` block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GeoPlaces {
    /// Networks; the narrowest that holds an address decides.
    Networks(Vec<GeoNetwork>),
    /// `ranges`: of IPv4 alone, in order, none within another.
    Ranges(Vec<GeoRange>),
}

/// One network of a `geo` block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeoNetwork {
    /// Its address, host bits zero.
    pub address: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
    /// The value there.
    pub value: String,
}

/// One range of a `geo` block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeoRange {
    /// The first address.
    pub first: Ipv4Addr,
    /// The last.
    pub last: Ipv4Addr,
    /// The value there.
    pub value: String,
}
