//! A balancer as its clients see it: who answers, how often, and what is lost while something happens.

use std::net::SocketAddr;

use anyhow::Context;

use crate::{Load, Report, Shares, get, wait_until};

/// How many requests show shares: so many that two, three and four instances get whole ones.
const ROUND: usize = 12;

/// The address of a balancer whose instances say `Hello from NAME`.
#[derive(Clone, Copy, Debug)]
pub struct Front {
    address: SocketAddr,
}

impl Front {
    /// Takes its address.
    pub fn new(address: impl Into<SocketAddr>) -> Self {
        Self { address: address.into() }
    }

    /// Who answers twelve requests, one after the other.
    ///
    /// # Errors
    /// When one has no answer, or another one than an instance's.
    pub fn round(&self) -> anyhow::Result<Shares> {
        let mut shares = Shares::new();
        for _ in 0..ROUND {
            let text = get(self.address, "/")?.text();
            let name = text.trim().strip_prefix("Hello from ");
            let name = name.with_context(|| format!("answered {text:?}"))?;
            *shares.entry(name.to_owned()).or_default() += 1;
        }
        Ok(shares)
    }

    /// Waits until just these answer, each as often as the others.
    ///
    /// # Errors
    /// When that takes too long; the message has who answered last.
    pub fn wait_for(&self, names: &[&str]) -> anyhow::Result<()> {
        let mut last = String::new();
        let waited = wait_until(&format!("just {names:?} answer, in equal shares"), || {
            let round = self.round();
            last = format!("{round:?}");
            round.is_ok_and(|shares| shares == equal(names))
        });
        waited.context(last)
    }

    /// Requests over so many connections without pause while something happens, and for a while after it.
    ///
    /// # Errors
    /// When what happens fails, or the requests don't go on.
    pub fn under_load(
        &self,
        connections: usize,
        what: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Report> {
        let load = Load::start(self.address, connections);
        load.wait_for(50)?;
        what()?;
        load.wait_for(100)?;
        Ok(load.stop())
    }
}

/// The shares of a round that these have in equal parts.
pub fn equal(names: &[&str]) -> Shares {
    names.iter().map(|name| ((*name).to_owned(), ROUND / names.len().max(1))).collect()
}
