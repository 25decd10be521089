//! The list of balancing algorithms.
//!
//! An algorithm is one file below and one line in [`policies`]. It describes itself without naming a file format; the
//! readers make their directives from that.

use std::{fmt, sync::Arc};

use keel_model::PolicyConfig;

use crate::{
    Ask,
    pick::Pick,
    tier::{RosterPeer, Tier},
};

mod hash;
mod ip_hash;
mod least_conn;
mod random;
mod round_robin;

/// All algorithms; the first is the default.
pub fn policies() -> &'static [PolicyInfo] {
    &[round_robin::INFO, least_conn::INFO, ip_hash::INFO, hash::INFO, random::INFO]
}

/// What an algorithm says of itself.
#[derive(Clone, Copy, Debug)]
pub struct PolicyInfo {
    /// Its name, which is also its file's and its directive's.
    pub name: &'static str,
    /// What it does, in a sentence or two, for the reference.
    pub doc: &'static str,
    /// What decides, where that is a text which each request has; it stands before the parameters.
    pub key: Option<KeyInfo>,
    /// Its parameters in order.
    pub parameters: &'static [ParameterInfo],
    build: Build,
}

type Build = fn(&[String]) -> Result<Arc<dyn Policy>, PolicyError>;

/// A text of each request that an algorithm goes by.
#[derive(Clone, Copy, Debug)]
pub struct KeyInfo {
    /// Its name for messages and the reference.
    pub name: &'static str,
}

/// A parameter of an algorithm.
#[derive(Clone, Copy, Debug)]
pub struct ParameterInfo {
    /// Its name for messages.
    pub name: &'static str,
    /// The words it may be.
    pub values: &'static [&'static str],
    /// Whether it must be there. Those that need not follow those that must.
    pub required: bool,
    /// What it does.
    pub doc: &'static str,
}

/// Why a configured policy can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// There is no such algorithm.
    #[error("there is no balancing algorithm `{0}`")]
    Unknown(String),
    /// It doesn't take this parameter.
    #[error("`{policy}` doesn't take the parameter `{parameter}`")]
    Parameter {
        /// The algorithm.
        policy: &'static str,
        /// What it was given.
        parameter: String,
    },
    /// A parameter lacks.
    #[error("`{policy}` needs the parameter `{parameter}`")]
    Missing {
        /// The algorithm.
        policy: &'static str,
        /// What lacks.
        parameter: &'static str,
    },
}

/// Checks a configured policy.
///
/// # Errors
/// When there is no such algorithm or it doesn't take these parameters.
pub fn check_policy(config: &PolicyConfig) -> Result<(), PolicyError> {
    build(config).map(|_| ())
}

pub(crate) fn build(config: &PolicyConfig) -> Result<Arc<dyn Policy>, PolicyError> {
    let info = policies()
        .iter()
        .find(|info| info.name == config.name)
        .ok_or_else(|| PolicyError::Unknown(config.name.clone()))?;
    match (&info.key, &config.key) {
        (Some(key), None) => return Err(PolicyError::Missing { policy: info.name, parameter: key.name }),
        (None, Some(_)) => {
            return Err(PolicyError::Parameter { policy: info.name, parameter: "key".to_owned() });
        }
        _ => {}
    }
    info.check(&config.parameters)?;
    (info.build)(&config.parameters)
}

impl PolicyInfo {
    fn check(&self, parameters: &[String]) -> Result<(), PolicyError> {
        let mut known = self.parameters.iter();
        for parameter in parameters {
            if !known.next().is_some_and(|info| info.values.contains(&parameter.as_str())) {
                return Err(PolicyError::Parameter { policy: self.name, parameter: parameter.clone() });
            }
        }
        match known.next() {
            Some(info) if info.required => {
                Err(PolicyError::Missing { policy: self.name, parameter: info.name })
            }
            _ => Ok(()),
        }
    }
}

/// A balancing algorithm: chooses a peer of one tier and takes it.
pub(crate) trait Policy: Send + Sync + fmt::Debug {
    /// Chooses among the available peers that were not tried. Choosing and taking are one step, so that an algorithm
    /// that compares loads can hold its lock over both.
    fn choose(&self, ask: &Ask<'_>, tier: &Tier) -> Choice;
}

/// What a policy came to.
pub(crate) enum Choice {
    /// This one. `changed` when that made it unavailable to others.
    Picked { pick: Pick, changed: bool },
    /// The tier is out of date about this peer: to be asked again when it is not.
    Stale(Arc<RosterPeer>),
    /// None is left in this tier.
    Nobody,
}

impl Choice {
    fn take(entry: Option<&Arc<RosterPeer>>, ask: &Ask<'_>) -> Self {
        entry.map_or(Self::Nobody, |entry| entry.take(ask))
    }
}

#[cfg(test)]
mod tests {
    use keel_model::Template;

    use super::*;

    #[test]
    fn policies_are_found_by_name_and_check_their_parameters() {
        let check = |text: &str, expect: &str| {
            let mut words = text.split(' ').map(String::from);
            let name = words.next().unwrap();
            let key = (name == "hash").then(Template::default);
            let config = PolicyConfig { name, key, parameters: words.collect() };
            let got = check_policy(&config).map_or_else(|error| error.to_string(), |()| "ok".into());
            assert_eq!(got, expect, "{text}");
        };
        check("round_robin", "ok");
        check("least_conn", "ok");
        check("ip_hash", "ok");
        check("random", "ok");
        check("random two", "ok");
        check("random two least_conn", "ok");
        check("random three", "`random` doesn't take the parameter `three`");
        check("ip_hash x", "`ip_hash` doesn't take the parameter `x`");
        check("hash consistent", "ok");
        check("hash ketama", "`hash` doesn't take the parameter `ketama`");
        let keyless = PolicyConfig { name: "hash".into(), ..PolicyConfig::default() };
        assert_eq!(check_policy(&keyless).unwrap_err().to_string(), "`hash` needs the parameter `key`");
        check("fair", "there is no balancing algorithm `fair`");
        assert_eq!(PolicyConfig::default().name, policies()[0].name);
    }

    #[test]
    fn names_are_unique_and_documented() {
        for (at, info) in policies().iter().enumerate() {
            assert!(info.doc.ends_with('.'), "{}", info.name);
            assert!(policies()[..at].iter().all(|other| other.name != info.name), "{}", info.name);
        }
    }
}
