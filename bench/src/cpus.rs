//! Who runs where: the proxy on the last CPU, everything else on the others.

use anyhow::Context;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPUs of this process, split in two.
pub(crate) struct Cpus {
    proxy: CpuSet,
    others: CpuSet,
}

impl Cpus {
    pub(crate) fn split() -> anyhow::Result<Self> {
        let all = sched_getaffinity(None).context("the CPUs can't be known")?;
        let mut proxy = CpuSet::new();
        let mut others = all;
        let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| all.is_set(*cpu));
        if let Some(last) = last.filter(|_| all.count() > 1) {
            proxy.set(last);
            others.unset(last);
        } else {
            proxy = all;
        }
        Ok(Self { proxy, others })
    }

    /// Moves this process, and what it starts from now on, to the others.
    pub(crate) fn use_others(&self) -> anyhow::Result<()> {
        sched_setaffinity(None, &self.others).context("CPUs can't be chosen")
    }

    /// Starts what `start` starts on the proxy's CPU.
    pub(crate) fn on_proxy_s<T>(&self, start: impl FnOnce() -> T) -> anyhow::Result<T> {
        sched_setaffinity(None, &self.proxy).context("CPUs can't be chosen")?;
        let started = start();
        self.use_others()?;
        Ok(started)
    }
}
