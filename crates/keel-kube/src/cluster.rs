//! The cluster's API: how it is reached, and the slices of one Service, listed once and then watched.
//!
//! Inside a cluster the pod's service account says where the API is and who asks; outside KUBECONFIG does, else
//! ~/.kube/config. Only `list` and `watch` of endpointslices are used. A watch that breaks is resumed where it was; only
//! when the API has forgotten that moment (410) all is listed anew.

use std::{
    borrow::Cow,
    error::Error as _,
    time::{Duration, Instant},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Config, Resource,
    api::{ListParams, WatchParams},
    core::{DynamicResourceScope, WatchEvent},
};
use serde::Deserialize;
use tokio_stream::StreamExt;

use crate::endpoints::{Endpoint, EndpointState, Event, Slice, SlicePort};

/// How long the API may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one listing or the begin of a watch may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a watch lasts; then it is resumed, which shows that the connection is still one.
const WATCH_SECONDS: u32 = 120;
/// A watch that ends sooner, and without a word, was none.
const WATCH_MIN: Duration = Duration::from_secs(1);
/// Slices in one part of a listing.
const PAGE: u32 = 500;
/// The API has forgotten the version from which a watch is to go on.
const GONE: u16 = 410;
const NOT_FOUND: u16 = 404;

/// Why the cluster didn't answer.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Nobody says where it is.
    #[error("no cluster is named: {0}")]
    Unknown(String),
    /// It refused.
    #[error("{message} (status {status})")]
    Refused {
        /// The status of its answer.
        status: u16,
        /// What it said.
        message: String,
    },
    /// It can't be reached, or its answer makes no sense.
    #[error("{0}")]
    Broken(String),
    /// It did not answer in time.
    #[error("no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Slow,
}

impl From<kube::Error> for ClusterError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused { status: status.code, message: status.message },
            other => {
                // The layers above the innermost say nothing more.
                let mut text = other.to_string();
                let mut source = other.source();
                while let Some(error) = source {
                    text = error.to_string();
                    source = error.source();
                }
                Self::Broken(text)
            }
        }
    }
}

/// A Service by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceRef {
    /// Its name.
    pub name: String,
    /// Its namespace; without one that of the pod, or of KUBECONFIG's context.
    pub namespace: Option<String>,
}

impl ServiceRef {
    /// Reads `app`, `app.shop`, `app.shop.svc` or `app.shop.svc.cluster.local`; `None` for a name that is none of a Service.
    pub fn parse(host: &str) -> Option<Self> {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let labels: Vec<&str> = host.split('.').collect();
        let (name, namespace) = match labels.as_slice() {
            [name] => (name, None),
            [name, namespace] | [name, namespace, "svc", ..] => (name, Some((*namespace).to_owned())),
            _ => return None,
        };
        let is_label = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let sound = is_label(name) && namespace.as_deref().is_none_or(is_label);
        sound.then(|| Self { name: (*name).to_owned(), namespace })
    }
}

/// A way to the cluster's API.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    /// The namespace of names that have none.
    namespace: String,
}

impl Cluster {
    /// Finds the API. Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`ClusterError::Unknown`] where neither a service account nor a KUBECONFIG says where it is.
    pub async fn find() -> Result<Self, ClusterError> {
        let found = Config::infer().await;
        let mut config = found.map_err(|error| ClusterError::Unknown(error.to_string()))?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(Duration::from_secs(u64::from(WATCH_SECONDS)) + ANSWER_TIMEOUT);
        let namespace = config.default_namespace.clone();
        Ok(Self { client: Client::try_from(config)?, namespace })
    }
}

/// How far a Service has been followed.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The version that is known; `None` before the first listing, and once the API has forgotten it.
    version: Option<String>,
    /// Whether the API has only the older version of slices.
    is_old: bool,
}

/// Gives every change of a Service's slices to `sink`, and `None` when a watch has begun, until the API doesn't answer. Called again with the same progress it
/// goes on where it was.
///
/// # Errors
/// [`ClusterError`]: that it has ended.
pub async fn follow(
    cluster: &Cluster,
    service: &ServiceRef,
    progress: &mut Progress,
    sink: &mut (dyn FnMut(Option<Event>) + Send),
) -> Result<std::convert::Infallible, ClusterError> {
    loop {
        let kind = Kind { version: if progress.is_old { "v1beta1" } else { "v1" } };
        let namespace = service.namespace.as_deref().unwrap_or(&cluster.namespace);
        let api: Api<Wire> = Api::namespaced_with(cluster.client.clone(), namespace, &kind);
        let selector = format!("kubernetes.io/service-name={}", service.name);
        let version = match &progress.version {
            Some(version) => version.clone(),
            None => match list(&api, &selector).await {
                Err(ClusterError::Refused { status: NOT_FOUND, .. }) if !progress.is_old => {
                    progress.is_old = true;
                    continue;
                }
                listed => {
                    let (slices, version) = listed?.into_parts();
                    sink(Some(Event::Listed(slices)));
                    progress.version = Some(version.clone());
                    version
                }
            },
        };
        match watch(&api, &selector, version, progress, sink).await {
            Err(ClusterError::Refused { status: GONE, .. }) => progress.version = None,
            watched => watched?,
        }
    }
}

/// All slices at a moment.
struct Listed {
    slices: Vec<Slice>,
    version: String,
}

impl Listed {
    fn into_parts(self) -> (Vec<Slice>, String) {
        (self.slices, self.version)
    }
}

async fn list(api: &Api<Wire>, selector: &str) -> Result<Listed, ClusterError> {
    let mut params = ListParams::default().labels(selector).limit(PAGE);
    let mut slices = Vec::new();
    loop {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, api.list(&params)).await;
        let page = answer.map_err(|_| ClusterError::Slow)??;
        slices.extend(page.items.into_iter().map(Slice::from));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => {
                let version = page.metadata.resource_version.unwrap_or_default();
                return Ok(Listed { slices, version });
            }
        }
    }
}

/// Watches until the API ends it, as it does now and then.
async fn watch(
    api: &Api<Wire>,
    selector: &str,
    version: String,
    progress: &mut Progress,
    sink: &mut (dyn FnMut(Option<Event>) + Send),
) -> Result<(), ClusterError> {
    let params = WatchParams::default().labels(selector).timeout(WATCH_SECONDS);
    let begun = tokio::time::timeout(ANSWER_TIMEOUT, api.watch(&params, &version)).await;
    let mut events = std::pin::pin!(begun.map_err(|_| ClusterError::Slow)??);
    sink(None);
    let started = Instant::now();
    let mut is_alive = false;
    while let Some(event) = events.next().await {
        is_alive = true;
        let version = match event? {
            WatchEvent::Added(wire) | WatchEvent::Modified(wire) => {
                let version = wire.metadata.resource_version.clone();
                sink(Some(Event::Put(wire.into())));
                version
            }
            WatchEvent::Deleted(wire) => {
                sink(Some(Event::Gone(wire.metadata.name.unwrap_or_default())));
                wire.metadata.resource_version
            }
            WatchEvent::Bookmark(bookmark) => Some(bookmark.metadata.resource_version),
            WatchEvent::Error(status) => {
                return Err(ClusterError::Refused { status: status.code, message: status.message });
            }
        };
        progress.version = version.or_else(|| progress.version.take());
    }
    // One that ends as soon as it begins would be begun again and again.
    if is_alive || started.elapsed() >= WATCH_MIN {
        Ok(())
    } else {
        Err(ClusterError::Broken("it ended the watch".into()))
    }
}

/// A slice as the API writes it, as far as it matters.
#[derive(Clone, Debug, Deserialize)]
struct Wire {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    ports: Option<Vec<WirePort>>,
    #[serde(default)]
    endpoints: Option<Vec<WireEndpoint>>,
}

#[derive(Clone, Debug, Deserialize)]
struct WirePort {
    name: Option<String>,
    port: Option<u16>,
    protocol: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireEndpoint {
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    conditions: WireConditions,
    target_ref: Option<WireTarget>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct WireConditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
struct WireTarget {
    name: Option<String>,
    uid: Option<String>,
}

impl From<Wire> for Slice {
    fn from(wire: Wire) -> Self {
        let is_tcp = |port: &WirePort| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        let ports = wire.ports.into_iter().flatten().filter(is_tcp);
        let ports = ports
            .filter_map(|port| Some(SlicePort { name: port.name.unwrap_or_default(), number: port.port? }));
        let endpoint = |endpoint: WireEndpoint| {
            let conditions = endpoint.conditions;
            let (name, uid) = endpoint.target_ref.map(|target| (target.name, target.uid)).unwrap_or_default();
            Endpoint {
                // A slice of names (FQDN) has none.
                addresses: endpoint.addresses.iter().filter_map(|text| text.parse().ok()).collect(),
                name,
                uid,
                state: EndpointState::of(conditions.ready, conditions.serving, conditions.terminating),
            }
        };
        Self {
            name: wire.metadata.name.unwrap_or_default(),
            ports: ports.collect(),
            endpoints: wire.endpoints.into_iter().flatten().map(endpoint).collect(),
        }
    }
}

/// Which version of slices is asked for.
struct Kind {
    version: &'static str,
}

impl Resource for Wire {
    type DynamicType = Kind;
    type Scope = DynamicResourceScope;

    fn kind(_: &Kind) -> Cow<'_, str> {
        "EndpointSlice".into()
    }

    fn group(_: &Kind) -> Cow<'_, str> {
        "discovery.k8s.io".into()
    }

    fn version(kind: &Kind) -> Cow<'_, str> {
        kind.version.into()
    }

    fn plural(_: &Kind) -> Cow<'_, str> {
        "endpointslices".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_of_services() {
        let check = |host: &str, expect: Option<(&str, Option<&str>)>| {
            let expect = expect.map(|(name, namespace)| ServiceRef {
                name: name.into(),
                namespace: namespace.map(str::to_owned),
            });
            assert_eq!(ServiceRef::parse(host), expect, "{host}");
        };
        check("app", Some(("app", None)));
        check("App.Shop", Some(("app", Some("shop"))));
        check("app.shop.svc", Some(("app", Some("shop"))));
        check("app.shop.svc.cluster.local", Some(("app", Some("shop"))));
        check("app.shop.svc.example.org.", Some(("app", Some("shop"))));
        check("api.example.org", None);
        check("app-0.app.shop.svc.cluster.local", None);
        check("my_app", None);
        check("", None);
    }

    #[test]
    fn reads_slices_of_both_versions() {
        let text = r#"{"apiVersion": "discovery.k8s.io/v1beta1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "app-x", "resourceVersion": "7"},
            "ports": [{"name": "", "port": 5000, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "topology": {"a": "b"},
                 "targetRef": {"kind": "Pod", "name": "app-1", "uid": "u1"}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["app.example.org"], "conditions": {}}]}"#;
        let wire: Wire = serde_json::from_str(text).expect("is a slice");
        let slice = Slice::from(wire);
        assert_eq!(slice.ports, [SlicePort { name: String::new(), number: 5000 }]);
        let states: Vec<_> = slice.endpoints.iter().map(|endpoint| endpoint.state).collect();
        assert_eq!(states, [EndpointState::Ready, EndpointState::Leaving, EndpointState::Ready]);
        assert_eq!(slice.endpoints[0].name.as_deref(), Some("app-1"));
        assert_eq!(slice.endpoints[2].addresses, Vec::<std::net::IpAddr>::new());
        // An empty one has null for its lists.
        let empty = r#"{"metadata": {"name": "app-y"}, "ports": null, "endpoints": null}"#;
        assert!(serde_json::from_str::<Wire>(empty).is_ok_and(|wire| Slice::from(wire).endpoints.is_empty()));
    }
}
