//! A worker for unit tests: requests are text, answers are captured, and there is no connection to anybody.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "for tests and fuzz targets alone")]

use std::{cell::OnceCell, rc::Rc, sync::Arc};

use keel_http::{Limits, Rules, Underscores};
use keel_model::*;
use keel_sys::Channel;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use crate::{
    client::{Capture, Client, ClientConnection, Sink},
    downstream,
    exchange::{Exchange, Remote},
    job::Job,
    phase,
    reports::Reports,
    snapshot::{self, PlanFiles},
    stores::Stores,
    worker::{Worker, WorkerSetup},
};

/// One worker and its runtime.
pub(crate) struct Rig {
    runtime: LocalRuntime,
    worker: OnceCell<Rc<Worker>>,
}

/// A location for paths that begin with `prefix`, in whose folder nothing is.
pub(crate) fn location(prefix: &str) -> Location {
    let mut scope = Scope::default();
    scope.core.root = Root::Root(Template::literal("/nonexistent"));
    scope.log.logs.clear();
    Location {
        matcher: LocationMatcher::Prefix(prefix.into()),
        scope,
        rewrite: Rewrite::default(),
        locations: Vec::new(),
    }
}

/// An upstream with one peer, to which nobody connects.
pub(crate) fn upstream(name: &str) -> Upstream {
    let address = Address::Unix("peer".into());
    Upstream {
        name: UpstreamName(name.into()),
        policy: PolicyConfig::default(),
        keepalive: UpstreamKeepalive::default(),
        zone: None,
        peers: PeerSet { peers: vec![Peer::new(address, name)], starting: false, managed: false },
    }
}

/// What a location with these settings and a `proxy_pass` does.
#[cfg(test)]
pub(crate) fn program(scope: &Scope) -> Box<snapshot::PeerProgram> {
    let name = UpstreamName("app".into());
    let pass = ProxyPass {
        target: ProxyTarget::Upstream(name.clone()),
        host: Template::literal("app"),
        port: "80".into(),
        uri: None,
    };
    let scope = Scope { content: Content::Proxy(pass), ..scope.clone() };
    snapshot::PeerProgram::compile(&scope, &[(name, 0)].into()).unwrap().unwrap()
}

impl Rig {
    /// Makes one with a server; `adjust` gives it locations.
    pub(crate) fn new(adjust: impl FnOnce(&mut Plan)) -> Self {
        let mut plan = Plan {
            process: ProcessSettings { workers: 1, worker_connections: 16, ..ProcessSettings::default() },
            listeners: vec![Listener {
                address: Address::Unix("rig".into()),
                declared_port: 80,
                proxy_protocol: false,
                http2: false,
                tls: false,
                options: SocketOptions::default(),
                default_server: ServerId(0),
                servers: vec![ServerId(0)],
                by_local_address: Vec::new(),
            }],
            servers: vec![VirtualServer {
                names: vec![ServerName::Exact("h".into())],
                files: FileSource::Host,
                client: ClientSettings::default(),
                ssl: None,
                scope: location("").scope,
                rewrite: Rewrite::default(),
                locations: Vec::new(),
            }],
            ..Plan::default()
        };
        adjust(&mut plan);
        Self::of(&plan).expect("a plan that holds")
    }

    /// Makes one for a plan; `None` where the data plane refuses it.
    pub(crate) fn of(plan: &Plan) -> Option<Self> {
        let stores = Stores::new(1, Arc::new(|_, _| {})).unwrap();
        let prepared = snapshot::compile(plan, &stores, PlanFiles::default()).ok()?;
        let (channel, _) = Channel::pair().unwrap();
        let (_, orders) = tokio::sync::mpsc::channel(1);
        let setup = WorkerSetup {
            snapshot: prepared.snapshot,
            registry: stores.groups().clone(),
            counters: stores.counters.clone(),
            reports: Reports::new(channel),
            index: 0,
            connection_serial: Arc::default(),
            seed: 1,
            orders,
        };
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        let rig = Self { runtime, worker: OnceCell::new() };
        rig.enter(async || {
            let _ = rig.worker.set(Worker::new(setup).0);
        });
        Some(rig)
    }

    /// Runs something on the worker's runtime.
    pub(crate) fn enter<T>(&self, run: impl AsyncFnOnce() -> T) -> T {
        self.runtime.block_on(run())
    }

    pub(crate) fn worker(&self) -> &Rc<Worker> {
        self.worker.get().unwrap()
    }

    /// Answers a request.
    pub(crate) fn request(&self, text: &str) -> String {
        self.enter(async || self.answer(text).await)
    }

    /// Answers a request, from within the runtime.
    pub(crate) async fn answer(&self, text: &str) -> String {
        let (_, captured) = self
            .with_job(text, async |job| {
                phase::run(job).await;
            })
            .await;
        String::from_utf8(captured).unwrap()
    }

    /// Does something with a request whose head has been read; gives its result and what was captured.
    pub(crate) async fn with_job<T>(
        &self,
        text: &str,
        act: impl AsyncFnOnce(&mut Job<'_>) -> T,
    ) -> (T, Vec<u8>) {
        self.try_job(text.as_bytes(), act).await.unwrap_or_else(|| panic!("no head that is taken: {text}"))
    }

    /// The same for any bytes; `None` where they are no whole head, or one that is refused.
    pub(crate) async fn try_job<T>(
        &self,
        input: &[u8],
        act: impl AsyncFnOnce(&mut Job<'_>) -> T,
    ) -> Option<(T, Vec<u8>)> {
        let worker = self.worker();
        let view = worker.view();
        let sink = Sink::Capture(Capture::default());
        let listener = Rc::new(Address::Unix("rig".into()));
        let connection = ClientConnection::new(worker, view.clone(), 0, Remote::Unix, listener);
        let mut client = Client::new(worker, connection, sink);
        let mut ex = Exchange::default();
        ex.begin(view.clone(), 0);
        ex.received.input = input.to_vec();
        let rules = Rules {
            limits: Limits { line_bytes_max: 8 << 10, head_bytes_max: 32 << 10, fields_max: 100 },
            drop_odd_fields: true,
            underscores: Underscores::Invalid,
        };
        let Ok(keel_http::Progress::Complete(end)) = ex.received.head.parse(&ex.received.input, &rules)
        else {
            return None;
        };
        (ex.received.head_end, ex.received.consumed) = (end, end);
        downstream::accept_head(worker, &mut client, &mut ex, &view).ok()?;
        let result = act(&mut Job { worker, client: &mut client, ex: &mut ex, view }).await;
        Some((result, client.stream.captured().to_vec()))
    }
}
