//! What a balancer says of itself, under `up` as well as alone, and the control socket of one alone.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use keel_control::{Balancer, ReloadError, Serving};
use keel_metrics::Instances;
use keel_model::{DataPlaneStatus, Peer, PeerStatus};
use tokio::{net::UnixListener, sync::mpsc};

use crate::{
    answer::{fail, stream},
    api::{BalancerInfo, Counts, Failure, Message, PeerInfo},
    text::Describe,
};

/// What the handlers share.
#[derive(Clone)]
struct Server {
    serving: Serving,
    describe: Arc<dyn Describe>,
}

/// Serves the control socket of a balancer alone until the task is dropped. `describe` turns diagnostics into text.
///
/// # Errors
/// When no connection can be accepted.
pub async fn serve_balancer(
    listener: UnixListener,
    serving: Serving,
    describe: Arc<dyn Describe>,
) -> std::io::Result<()> {
    let v1 = Router::new()
        .route("/balancer", get(info))
        .route("/peers", get(peers))
        .route("/metrics", get(metrics))
        .route("/reload", post(reload))
        .fallback(no_instances);
    let server = Server { serving, describe };
    axum::serve(listener, Router::new().nest("/v1", v1).with_state(server)).await
}

async fn info(State(server): State<Server>) -> Response {
    let balancer = server.serving.balancer();
    let info = BalancerInfo {
        configuration: Some(server.serving.configuration().to_owned()),
        project: None,
        listeners: balancer.listeners().iter().map(ToString::to_string).collect(),
        ..describe_balancer(balancer).await
    };
    Json(info).into_response()
}

async fn peers(State(server): State<Server>) -> Response {
    Json(describe_peers(server.serving.balancer()).await).into_response()
}

async fn metrics(State(server): State<Server>) -> Response {
    describe_metrics(server.serving.balancer(), Instances::new()).await
}

async fn reload(State(server): State<Server>) -> Response {
    let (sender, receiver) = mpsc::channel(1);
    // It goes on if the client leaves.
    tokio::spawn(async move {
        let outcome = match server.serving.reload().await {
            Ok(reread) => {
                for text in server.describe.diagnostics(&reread.diagnostics, &reread.sources) {
                    drop(sender.send(Message::Warning { text }).await);
                }
                Message::Done
            }
            Err(ReloadError::Files(reread)) => {
                let text = server.describe.diagnostics(&reread.diagnostics, &reread.sources).join("\n");
                let text = format!("{}\nthe configuration in effect stays", text.trim_end());
                Message::Failed(Failure { text, hints: Vec::new() })
            }
            Err(error) => {
                let text = format!("{}; the configuration in effect stays", keel_control::chain(&error));
                Message::Failed(Failure { text, hints: Vec::new() })
            }
        };
        drop(sender.send(outcome).await);
    });
    stream(receiver)
}

async fn no_instances() -> Response {
    let failure = Failure {
        text: "this balancer runs no instances: it has no such command".into(),
        hints: vec!["`ps`, `peers` and `reload` are what it has".into()],
    };
    (StatusCode::NOT_FOUND, Json(failure)).into_response()
}

/// What every balancer says of itself.
pub(crate) async fn describe_balancer(balancer: &Balancer) -> BalancerInfo {
    BalancerInfo {
        configuration: None,
        project: None,
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        listeners: Vec::new(),
        counts: balancer.status().await.as_ref().map(counts),
    }
}

fn counts(status: &DataPlaneStatus) -> Counts {
    Counts {
        generation: status.generation,
        accepted: status.accepted,
        active: status.active,
        requests: status.requests,
        queued: status.queued,
        panics: status.panics,
    }
}

/// The text for Prometheus; `instances` are those that the supervisor runs.
pub(crate) async fn describe_metrics(balancer: &Balancer, instances: Instances) -> Response {
    match balancer.status().await {
        Some(status) => {
            let head = [(header::CONTENT_TYPE, keel_metrics::CONTENT_TYPE)];
            (head, keel_metrics::text(status, instances)).into_response()
        }
        None => fail(StatusCode::SERVICE_UNAVAILABLE, "the data plane doesn't answer".into()),
    }
}

/// All peers of all upstreams, with the data plane's counts.
pub(crate) async fn describe_peers(balancer: &Balancer) -> Vec<PeerInfo> {
    let status = balancer.status().await.unwrap_or_default();
    // One address may stand in a set more than once, and has counts for each time.
    let mut counted: HashMap<_, VecDeque<PeerStatus>> = HashMap::new();
    for peer in status.peers {
        counted.entry((peer.upstream.clone(), peer.peer.clone())).or_default().push_back(peer);
    }
    let mut infos = Vec::new();
    for (upstream, set) in balancer.peers() {
        for peer in set.peers {
            let counts = counted.get_mut(&(upstream.clone(), peer.key.clone())).and_then(VecDeque::pop_front);
            infos.push(describe_peer(upstream.0.clone(), peer, counts));
        }
    }
    infos
}

fn describe_peer(upstream: String, peer: Peer, counts: Option<PeerStatus>) -> PeerInfo {
    let is_excluded = counts.as_ref().is_some_and(|counts| counts.excluded);
    let state = match (peer.down, is_excluded) {
        (true, _) => "down",
        (false, true) => "excluded",
        (false, false) => "up",
    };
    PeerInfo {
        upstream,
        address: peer.key.address.to_string(),
        name: peer.name,
        instance: peer.instance,
        weight: peer.weight,
        backup: peer.backup,
        state: state.into(),
        in_flight: counts.as_ref().map_or(0, |counts| counts.in_flight),
        requests: counts.as_ref().map_or(0, |counts| counts.first_attempts),
        retries: counts.as_ref().map_or(0, |counts| counts.retries),
        failures: counts.as_ref().map_or(0, |counts| counts.failures),
    }
}

#[cfg(test)]
mod tests {
    use keel_model::{Address, TrafficStatus, UpstreamName};

    use super::*;

    #[test]
    fn what_the_file_says_of_a_peer_comes_before_what_failures_say() {
        let address = Address::Tcp(([127, 0, 0, 1], 80).into());
        let check = |down: bool, excluded: bool, expect: &str| {
            let peer = Peer { down, weight: 3, ..Peer::new(address.clone(), "app:80") };
            let counts = PeerStatus {
                upstream: UpstreamName("u".into()),
                peer: peer.key.clone(),
                instance: None,
                first_attempts: 5,
                retries: 1,
                failures: 2,
                in_flight: 4,
                excluded,
                traffic: TrafficStatus::default(),
            };
            let info = describe_peer("u".into(), peer, Some(counts));
            assert_eq!((info.state.as_str(), info.weight, info.in_flight, info.failures), (expect, 3, 4, 2));
        };
        check(false, false, "up");
        check(false, true, "excluded");
        check(true, true, "down");
    }
}
