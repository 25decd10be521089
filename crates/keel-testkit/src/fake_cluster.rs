//! A Kubernetes API that says what a test wants: endpoint slices, listed and watched.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

/// How the API behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterMood {
    /// As it should.
    Well,
    /// It closes every connection.
    Away,
    /// It answers everything with status 500.
    Failing,
}

/// What an endpoint can do, as a slice says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FakeState {
    /// It takes requests.
    Ready,
    /// It isn't well yet, or no more.
    NotReady,
    /// It was told to end and still answers.
    Leaving,
    /// It was told to end and answers no more.
    Ending,
}

/// The API, on a free port of 127.0.0.1. It ends when dropped.
#[derive(Debug)]
pub struct FakeCluster {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    mood: ClusterMood,
    /// The one version of slices that it knows.
    api: &'static str,
    version: u64,
    slices: BTreeMap<String, Kept>,
    /// What happened, for watches.
    history: Vec<Happened>,
    /// Watches from before this version are refused.
    forgotten: u64,
    lists: u64,
    watches: u64,
    /// Changes when all connections are to end.
    epoch: u64,
    connections: Vec<TcpStream>,
    over: bool,
}

#[derive(Clone, Debug)]
struct Kept {
    service: String,
    /// The object, without the braces around it and its version.
    text: String,
}

#[derive(Clone, Debug)]
struct Happened {
    version: u64,
    service: String,
    line: String,
}

impl FakeCluster {
    /// Starts one that knows this version of slices: `v1` or `v1beta1`.
    ///
    /// # Errors
    /// When there is no port.
    pub fn start(api: &'static str) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state = State {
            mood: ClusterMood::Well,
            api,
            version: 100,
            slices: BTreeMap::new(),
            history: Vec::new(),
            forgotten: 0,
            lists: 0,
            watches: 0,
            epoch: 0,
            connections: Vec::new(),
            over: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let server = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut state = server.lock();
                if state.over {
                    return;
                }
                if state.mood == ClusterMood::Away {
                    continue;
                }
                state.connections.extend(stream.try_clone().ok());
                drop(state);
                let server = Arc::clone(&server);
                thread::spawn(move || server.serve(stream));
            }
        });
        Ok(Self { address, shared })
    }

    /// The file that KUBECONFIG names.
    pub fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\n\
             clusters: [{{name: c, cluster: {{server: 'http://{}'}}}}]\n\
             users: [{{name: u, user: {{token: t}}}}]\n\
             contexts: [{{name: x, context: {{cluster: c, user: u, namespace: shop}}}}]\n\
             current-context: x\n",
            self.address
        )
    }

    /// Puts a slice of a Service in place. Endpoints are addresses with their states; their pods are called by the address.
    pub fn put(&self, slice: &str, service: &str, port: u16, endpoints: &[(String, FakeState)]) {
        let endpoints: Vec<String> =
            endpoints.iter().map(|(address, state)| endpoint(address, *state)).collect();
        let mut state = self.shared.lock();
        state.version += 1;
        let version = state.version;
        let text = format!(
            r#""apiVersion":"discovery.k8s.io/{}","kind":"EndpointSlice","addressType":"IPv4","ports":[{{"name":"http","port":{port},"protocol":"TCP"}}],"endpoints":[{}]"#,
            state.api,
            endpoints.join(",")
        );
        let kept = Kept { service: service.to_owned(), text };
        let known = state.slices.insert(slice.to_owned(), kept.clone()).is_some();
        let kind = if known { "MODIFIED" } else { "ADDED" };
        let line = format!("{{\"type\":\"{kind}\",\"object\":{}}}\n", kept.object(slice, version));
        state.history.push(Happened { version, service: kept.service, line });
        self.shared.changed.notify_all();
    }

    /// Removes a slice.
    pub fn remove(&self, slice: &str) {
        let mut state = self.shared.lock();
        let Some(kept) = state.slices.remove(slice) else { return };
        state.version += 1;
        let version = state.version;
        let line = format!("{{\"type\":\"DELETED\",\"object\":{}}}\n", kept.object(slice, version));
        state.history.push(Happened { version, service: kept.service, line });
        self.shared.changed.notify_all();
    }

    /// Tells watches the version, and nothing else.
    pub fn bookmark(&self) {
        let mut state = self.shared.lock();
        state.version += 1;
        let (version, api) = (state.version, state.api);
        let line = format!(
            "{{\"type\":\"BOOKMARK\",\"object\":{{\"apiVersion\":\"discovery.k8s.io/{api}\",\"kind\":\"EndpointSlice\",\"metadata\":{{\"resourceVersion\":\"{version}\"}}}}}}\n"
        );
        state.history.push(Happened { version, service: String::new(), line });
        self.shared.changed.notify_all();
    }

    /// Breaks all connections, and behaves so from now on.
    pub fn behave(&self, mood: ClusterMood) {
        let mut state = self.shared.lock();
        state.mood = mood;
        self.shared.cut(state);
    }

    /// Forgets what has happened, and breaks all connections: a watch from before is answered with 410.
    pub fn forget(&self) {
        let mut state = self.shared.lock();
        state.version += 1;
        state.forgotten = state.version;
        state.history.clear();
        self.shared.cut(state);
    }

    /// How often slices were listed.
    pub fn lists(&self) -> u64 {
        self.shared.lock().lists
    }

    /// How often a watch was begun.
    pub fn watches(&self) -> u64 {
        self.shared.lock().watches
    }
}

impl Drop for FakeCluster {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.behave(ClusterMood::Away);
        // Wakes it up.
        drop(TcpStream::connect(self.address));
    }
}

impl Kept {
    fn object(&self, name: &str, version: u64) -> String {
        format!(
            r#"{{{},"metadata":{{"name":"{name}","namespace":"shop","resourceVersion":"{version}","labels":{{"kubernetes.io/service-name":"{}"}}}}}}"#,
            self.text, self.service
        )
    }
}

fn endpoint(address: &str, state: FakeState) -> String {
    let (ready, serving, terminating) = match state {
        FakeState::Ready => (true, true, false),
        FakeState::NotReady => (false, false, false),
        FakeState::Leaving => (false, true, true),
        FakeState::Ending => (false, false, true),
    };
    format!(
        r#"{{"addresses":["{address}"],"conditions":{{"ready":{ready},"serving":{serving},"terminating":{terminating}}},"targetRef":{{"kind":"Pod","name":"pod-{address}","uid":"uid-{address}"}}}}"#
    )
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self, mut state: MutexGuard<'_, State>) {
        state.epoch += 1;
        for connection in state.connections.drain(..) {
            // It may have ended by itself.
            drop(connection.shutdown(Shutdown::Both));
        }
        drop(state);
        self.changed.notify_all();
    }

    fn serve(&self, stream: TcpStream) {
        let Ok(reading) = stream.try_clone() else { return };
        let mut lines = BufReader::new(reading).lines();
        while let Some(Ok(first)) = lines.next() {
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
            if self.answer(&stream, &target).is_none() {
                return;
            }
        }
    }

    /// Answers one request; `None` when the connection has ended.
    fn answer(&self, stream: &TcpStream, target: &str) -> Option<()> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parameter = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .clone()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.replace("%3D", "=").replace("%2F", "/"))
        };
        let mut state = self.lock();
        if state.mood == ClusterMood::Failing {
            drop(state);
            return refuse(stream, 500, "InternalError");
        }
        if !path.contains(&format!("/discovery.k8s.io/{}/namespaces/shop/endpointslices", state.api)) {
            drop(state);
            return refuse(stream, 404, "NotFound");
        }
        let selector = parameter("labelSelector").unwrap_or_default();
        let service = selector.rsplit('=').next().unwrap_or_default().to_owned();
        if parameter("watch").is_some() {
            state.watches += 1;
            let from = parameter("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
            if from < state.forgotten {
                drop(state);
                return refuse(stream, 410, "Expired");
            }
            return self.watch(stream, state, &service, from);
        }
        state.lists += 1;
        let version = state.version;
        let own = state.slices.iter().filter(|(_, kept)| kept.service == service);
        let items: Vec<String> = own.map(|(name, kept)| kept.object(name, version)).collect();
        let text = format!(
            r#"{{"apiVersion":"discovery.k8s.io/{}","kind":"EndpointSliceList","metadata":{{"resourceVersion":"{version}"}},"items":[{}]}}"#,
            state.api,
            items.join(",")
        );
        drop(state);
        respond(stream, 200, &text)
    }

    fn watch(
        &self,
        mut stream: &TcpStream,
        mut state: MutexGuard<'_, State>,
        service: &str,
        from: u64,
    ) -> Option<()> {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (epoch, mut seen) = (state.epoch, from);
        stream.write_all(head.as_bytes()).ok()?;
        loop {
            if state.epoch != epoch {
                return None;
            }
            let new = state.history.iter().filter(|one| one.version > seen);
            let own = new.filter(|one| one.service == service || one.service.is_empty());
            let lines: String = own.map(|one| one.line.as_str()).collect();
            seen = state.version.max(seen);
            if !lines.is_empty() {
                stream.write_all(format!("{:x}\r\n{lines}\r\n", lines.len()).as_bytes()).ok()?;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn refuse(stream: &TcpStream, status: u16, reason: &str) -> Option<()> {
    let text = format!(
        r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"the test says so","reason":"{reason}","code":{status}}}"#
    );
    respond(stream, status, &text)
}

fn respond(mut stream: &TcpStream, status: u16, text: &str) -> Option<()> {
    let head = format!(
        "HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(text.as_bytes())).ok()
}
