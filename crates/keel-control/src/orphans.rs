//! What the first process of a container owes the others: to wait for those whose parent has gone.
//!
//! Whatever is run in the container beside the balancer — `docker exec`, a healthcheck — leaves its orphans to process
//! 1; without anybody waiting they stay as zombies until there is no process id left. Children of our own are waited
//! for by those who started them.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tokio::signal::unix::{SignalKind, signal};

static OWN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Leaves a child to whoever started it.
pub(crate) fn own(pid: u32) {
    OWN.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
}

/// Forgets a child that has been waited for.
pub(crate) fn disown(pid: u32) {
    OWN.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
}

/// Waits for orphans as long as this process is the first of its container; else returns at once.
pub(crate) async fn reap() {
    if std::process::id() != 1 {
        return;
    }
    let mut ended = match signal(SignalKind::child()) {
        Ok(ended) => ended,
        Err(error) => return tracing::warn!("orphans can't be waited for: {error}"),
    };
    while ended.recv().await.is_some() {
        children().into_iter().for_each(reap_one);
    }
}

/// Waits for a child if it has ended. One that was started a moment ago and isn't noted as ours yet has its status taken
/// from whoever started it, who then sees an end for an unknown reason.
fn reap_one(child: u32) {
    if OWN.lock().unwrap_or_else(PoisonError::into_inner).contains(&child) {
        return;
    }
    let Some(pid) = i32::try_from(child).ok().and_then(Pid::from_raw) else { return };
    if let Ok(Some(_)) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
        tracing::debug!("waited for process {child}, which nobody else would");
    }
}

fn children() -> Vec<u32> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u32>>()
        })
        .collect()
}
