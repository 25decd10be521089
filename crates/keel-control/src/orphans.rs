//! What the first process of a container owes the others: to wait for those whose parent has gone.
//!
//! What is run in the container beside the balancer — `docker exec`, a healthcheck — leaves its orphans to process
//! 1; without anybody waiting they stay as zombies until there is no process id left. Children of our own are waited
//! for by those who started them ([`keel_sys::children`]).

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

/// Orphans are looked for again after this time, as long as one was found.
const REAP_AGAIN_AFTER: Duration = Duration::from_millis(500);

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
        while tokio::task::spawn_blocking(keel_sys::children::reap_orphans).await.unwrap_or(false) {
            tokio::time::sleep(REAP_AGAIN_AFTER).await;
        }
    }
}
