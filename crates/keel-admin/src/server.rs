//! The supervisor's side of the control socket.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    path::PathBuf,
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::{Query, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use keel_control::project::{ProjectError, ProjectEvent, Reading, RunningProject, UpError, UpOptions};
use keel_metrics::Instances;
use keel_model::{Run, ServiceName};
use keel_runner::{CommandError, InstanceState, InstanceStatus, LogLine, LogNews, Notice, Runner};
use serde::Deserialize;
use tokio::{
    net::UnixListener,
    sync::{Notify, broadcast, mpsc},
};

use crate::{
    answer::{fail, stream},
    api::{BalancerInfo, Failure, InstanceInfo, InstanceRequest, Message, ProjectInfo, UpRequest},
    balancer::{describe_balancer, describe_metrics, describe_peers},
    exec,
    find::folder_id,
    text::Describe,
};

/// Lines of an answer that wait for a slow client, before what produces them waits.
const LINES_MAX: usize = 256;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) project: RunningProject,
    /// Called when `down` was asked for over the socket.
    ended: Arc<Notify>,
    describe: Arc<dyn Describe>,
    /// The project's folder, held open so that no other one can get its number.
    folder: Arc<Option<File>>,
}

/// Serves the control socket until the task is dropped.
///
/// `folder` is the project's. `ended` is notified once a client's `down` has been carried out. `describe` turns diagnostics into text.
pub async fn serve(
    listener: UnixListener,
    project: RunningProject,
    folder: PathBuf,
    ended: Arc<Notify>,
    describe: Arc<dyn Describe>,
) -> std::io::Result<()> {
    let folder = Arc::new(File::open(folder).ok());
    let server = Server { project, ended, describe, folder };
    let v1 = Router::new()
        .route("/project", get(project_info))
        .route("/balancer", get(balancer))
        .route("/peers", get(peers))
        .route("/instances", get(instances))
        .route("/metrics", get(metrics))
        .route("/plan", get(plan))
        .route("/logs", get(logs))
        .route("/up", post(up))
        .route("/reload", post(reload))
        .route("/start", post(start))
        .route("/stop", post(stop))
        .route("/restart", post(restart))
        .route("/kill", post(kill))
        .route("/scale", post(scale))
        .route("/down", post(down))
        .route("/exec", post(exec_in))
        .route("/run", post(run_once));
    axum::serve(listener, Router::new().nest("/v1", v1).with_state(server)).await
}

async fn exec_in(State(server): State<Server>, request: Request) -> Response {
    exec::open(request, move |open| async move { server.project.runner().exec(open).await }).await
}

async fn run_once(State(server): State<Server>, request: Request) -> Response {
    exec::open(request, move |open| async move { server.project.runner().run_once(open).await }).await
}

async fn project_info(State(server): State<Server>) -> Response {
    let Some(joined) = server.project.joined() else {
        return fail(StatusCode::TOO_EARLY, "the project is still being read".into());
    };
    let listeners = joined.client_addresses();
    let info = ProjectInfo {
        name: joined.name,
        folder: joined.folder,
        folder_id: server.folder.as_ref().as_ref().and_then(|folder| folder_id(folder).ok()),
        has_containers: joined.services.iter().any(|service| matches!(service.run, Run::Container(_))),
        files: joined.files,
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        listeners,
        balancer: joined.seat.map(|seat| seat.service),
        is_ending: server.project.is_ending(),
    };
    Json(info).into_response()
}

async fn balancer(State(server): State<Server>) -> Response {
    let Some(joined) = server.project.joined() else {
        return fail(StatusCode::TOO_EARLY, "the project is still being read".into());
    };
    let info = BalancerInfo {
        listeners: joined.client_addresses(),
        project: Some(joined.name),
        ..describe_balancer(server.project.balancer()).await
    };
    Json(info).into_response()
}

async fn peers(State(server): State<Server>) -> Response {
    Json(describe_peers(server.project.balancer()).await).into_response()
}

async fn metrics(State(server): State<Server>) -> Response {
    let statuses = match server.project.runner().instances().await {
        Ok(statuses) => statuses,
        Err(error) => return fail(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    };
    let mut instances = Instances::new();
    for status in statuses {
        *instances.entry((status.service.to_string(), status.state.to_string())).or_default() += 1;
    }
    describe_metrics(server.project.balancer(), instances).await
}

async fn plan(State(server): State<Server>) -> Response {
    match server.project.joined() {
        Some(joined) => Json(joined.plan).into_response(),
        None => fail(StatusCode::TOO_EARLY, "the project is still being read".into()),
    }
}

async fn instances(State(server): State<Server>) -> Response {
    let statuses = match server.project.runner().instances().await {
        Ok(statuses) => statuses,
        Err(error) => return fail(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    };
    let traffic = server.project.balancer().status().await.unwrap_or_default();
    let infos: Vec<InstanceInfo> = statuses
        .into_iter()
        .map(|status| {
            let peers = traffic.peers.iter().filter(|peer| {
                peer.instance.as_ref() == Some(&status.name) && peer.peer.incarnation == status.incarnation
            });
            let peers: Vec<_> = peers.collect();
            let mut info = describe_instance(status);
            for peer in peers {
                info.requests += peer.first_attempts;
                info.in_flight += peer.in_flight;
                info.failures += peer.failures;
                info.note = info.note.or_else(|| peer.excluded.then(|| EXCLUDED.to_owned()));
            }
            info
        })
        .collect();
    Json(infos).into_response()
}

/// The note of an instance that gets no requests though it is ready.
const EXCLUDED: &str = "gets no requests for now: too many failed";

fn describe_instance(status: InstanceStatus) -> InstanceInfo {
    InstanceInfo {
        name: status.name,
        service: status.service.0,
        state: status.state.to_string(),
        pid: status.pid,
        address: status.address.map(|address| address.to_string()),
        ports: status.ports,
        since_s: status.since.elapsed().unwrap_or_default().as_secs(),
        restarts: status.restarts,
        exit: status.exit.map(|exit| exit.to_string()),
        health: status.health.filter(|health| !health.passed).map(|health| health.output),
        note: status.note,
        requests: 0,
        in_flight: 0,
        failures: 0,
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LogsQuery {
    /// Names, separated by commas.
    names: String,
    /// Lines of each instance at most, from the end.
    tail: Option<usize>,
    follow: bool,
}

async fn logs(State(server): State<Server>, Query(query): Query<LogsQuery>) -> Response {
    let names: Vec<String> =
        query.names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let (past, mut news) = match server.project.runner().logs(names, query.tail).await {
        Ok(logs) => logs,
        Err(error) => return fail(StatusCode::NOT_FOUND, error.to_string()),
    };
    let (sender, receiver) = mpsc::channel(LINES_MAX);
    tokio::spawn(async move {
        let to = sender.clone();
        // Files of many megabytes, and a reader that takes its time.
        let past = tokio::task::spawn_blocking(move || {
            past.map(|LogLine { instance, text, .. }| Message::Output { instance, line: text })
                .try_for_each(|message| to.blocking_send(message))
        });
        if !query.follow || !past.await.is_ok_and(|sent| sent.is_ok()) {
            return;
        }
        loop {
            tokio::select! {
                line = news.recv() => match line {
                    Some(news) => if sender.send(message_of(news)).await.is_err() { return },
                    None => return,
                },
                () = sender.closed() => return,
            }
        }
    });
    stream(receiver)
}

fn message_of(news: LogNews) -> Message {
    match news {
        LogNews::Line(line) => Message::Output { instance: line.instance.clone(), line: line.text.clone() },
        LogNews::LeftOut { lines } => Message::LeftOut { lines },
    }
}

async fn up(State(server): State<Server>, Json(request): Json<UpRequest>) -> Response {
    run(server, move |server| async move {
        let options = UpOptions {
            project: request.files.into(),
            scale: services(request.scale),
            force_recreate: request.force_recreate,
            build: request.build,
            only: request.services.into_iter().map(ServiceName).collect(),
        };
        let outcome = server.project.up(options).await;
        server.read_outcome(outcome)
    })
}

async fn reload(State(server): State<Server>) -> Response {
    run(server, move |server| async move {
        let outcome = server.project.reload().await;
        server.read_outcome(outcome)
    })
}

async fn start(State(server): State<Server>, Json(request): Json<InstanceRequest>) -> Response {
    run(server, move |server| async move {
        server
            .project
            .start_instances(request.names)
            .await
            .map(|()| Said::default())
            .map_err(|error| server.failure(error))
    })
}

async fn stop(State(server): State<Server>, Json(request): Json<InstanceRequest>) -> Response {
    run(server, move |server| async move {
        let ending = request.ending();
        server.settled(server.project.runner().stop(request.names, ending).await).await
    })
}

async fn restart(State(server): State<Server>, Json(request): Json<InstanceRequest>) -> Response {
    run(server, move |server| async move {
        let ending = request.ending();
        server.settled(server.project.runner().restart(request.names, ending).await).await
    })
}

async fn kill(State(server): State<Server>, Json(request): Json<InstanceRequest>) -> Response {
    run(server, move |server| async move {
        const SIGKILL: i32 = 9;
        let signal = request.signal.unwrap_or(SIGKILL);
        server.settled(server.project.runner().kill(request.names, signal).await).await
    })
}

async fn scale(State(server): State<Server>, Json(request): Json<InstanceRequest>) -> Response {
    run(server, move |server| async move {
        let outcome = server.project.scale(&services(request.scale)).await;
        outcome.map(|()| Said::default()).map_err(|error| server.failure(error))
    })
}

async fn down(State(server): State<Server>, Json(request): Json<InstanceRequest>) -> Response {
    run(server, move |server| async move {
        let outcome = server.project.down(request.ending()).await;
        server.ended.notify_one();
        outcome.map(|()| Said::default()).map_err(|error| runner_failure(error, server.project.runner()))
    })
}

fn services(scale: Vec<(String, u32)>) -> BTreeMap<ServiceName, u32> {
    scale.into_iter().map(|(name, replicas)| (ServiceName(name), replicas)).collect()
}

fn runner_failure(error: keel_runner::Error, runner: &Runner) -> Failure {
    Failure { text: keel_control::chain(&error), hints: where_to_look(&error, runner) }
}

/// Says what may help against an error.
pub fn remedies(error: &UpError, runner: &Runner) -> Vec<String> {
    match error {
        UpError::Project(ProjectError::Runner(error)) => where_to_look(error, runner),
        _ => Vec::new(),
    }
}

/// Says where to look for why instances failed.
fn where_to_look(error: &keel_runner::Error, runner: &Runner) -> Vec<String> {
    let failures = match error {
        keel_runner::Error::Command(CommandError::Failed { failures })
        | keel_runner::Error::Build { rest: Some(CommandError::Failed { failures }), .. } => failures,
        _ => return Vec::new(),
    };
    // What never ran printed nothing.
    let ran = failures.iter().filter(|failure| runner.has_printed(&failure.instance));
    let names: Vec<&str> = ran.map(|failure| failure.instance.as_str()).collect();
    if names.is_empty() {
        return Vec::new();
    }
    vec![format!("`evenkeel logs {}` shows what it printed", names.join(" "))]
}

impl Server {
    /// Ends a command: its outcome holds once traffic follows it.
    async fn settled(&self, outcome: Result<(), keel_runner::Error>) -> Result<Said, Failure> {
        self.project.settle().await;
        match outcome {
            Ok(()) => Ok(Said::default()),
            Err(error) => {
                let near = self.near_names(&error).await;
                let mut failure = runner_failure(error, self.project.runner());
                failure.hints.extend(near);
                Err(failure)
            }
        }
    }

    /// Suggests the names that an unknown one may be meant for.
    async fn near_names(&self, error: &keel_runner::Error) -> Vec<String> {
        let keel_runner::Error::Command(CommandError::UnknownName { name }) = error else {
            return Vec::new();
        };
        let statuses = self.project.runner().instances().await.unwrap_or_default();
        let known = statuses.iter().flat_map(|status| [status.name.as_str(), status.service.0.as_str()]);
        let near = keel_diag::suggest(name, known);
        near.iter().map(|near| format!("did you mean `{near}`?")).collect()
    }

    fn read_outcome(&self, outcome: Result<Reading, UpError>) -> Result<Said, Failure> {
        let reading = outcome.map_err(|error| self.failure(error))?;
        let not_run = reading.joined.iter().flat_map(|joined| &joined.not_run);
        let names: Vec<String> = not_run.map(|name| format!("`{name}`")).collect();
        let text = match names.as_slice() {
            _ if !reading.has_errors() => None,
            [] => Some("the files have errors, see above; the rest is in effect".to_owned()),
            [one] => Some(format!("{one} isn't run, see above; the rest is in effect")),
            several => Some(format!("{} aren't run, see above; the rest is in effect", several.join(", "))),
        };
        let failure = text.map(|text| Failure { text, hints: Vec::new() });
        Ok(Said { warnings: self.describe.diagnostics(&reading.diagnostics, &reading.sources), failure })
    }

    fn failure(&self, error: UpError) -> Failure {
        match &error {
            UpError::Files(reading) => {
                let mut text = self.describe.diagnostics(&reading.diagnostics, &reading.sources).join("\n");
                if text.is_empty() {
                    text = "the files can't be used".into();
                }
                Failure { text, hints: Vec::new() }
            }
            UpError::UnknownService { suggestion, .. } => {
                let hints = suggestion.iter().map(|name| format!("did you mean `{name}`?")).collect();
                Failure { text: error.to_string(), hints }
            }
            UpError::FixedName { .. } => Failure {
                text: error.to_string(),
                hints: vec!["remove `container_name`, so that instances are named by number".into()],
            },
            other => {
                Failure { text: keel_control::chain(other), hints: remedies(other, self.project.runner()) }
            }
        }
    }
}

/// What is said when a command has been carried out.
#[derive(Default)]
struct Said {
    /// Of the files.
    warnings: Vec<String>,
    /// What of them isn't in effect, if something isn't.
    failure: Option<Failure>,
}

/// Runs a command, with what happens on the way as lines before its outcome. The command goes on if the client leaves.
fn run<F, Fut>(server: Server, command: F) -> Response
where
    F: FnOnce(Server) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Said, Failure>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(LINES_MAX);
    let mut events = server.project.events();
    let mut told = CommandLog { sender, shown: Shown::default(), left_out: 0 };
    tokio::spawn(async move {
        let command = command(server);
        tokio::pin!(command);
        let outcome = loop {
            tokio::select! {
                outcome = &mut command => break outcome,
                event = events.recv() => match event {
                    Ok(event) => told.tell(event),
                    Err(broadcast::error::RecvError::Lagged(events)) => told.left_out += events,
                    Err(broadcast::error::RecvError::Closed) => break command.await,
                },
            }
        };
        loop {
            match events.try_recv() {
                Ok(event) => told.tell(event),
                Err(broadcast::error::TryRecvError::Lagged(events)) => told.left_out += events,
                Err(_) => break,
            }
        }
        told.end(outcome).await;
    });
    stream(receiver)
}

/// What a client is told while its command runs. It isn't waited for: what it doesn't take in time is counted.
struct CommandLog {
    sender: mpsc::Sender<Message>,
    shown: Shown,
    left_out: u64,
}

impl CommandLog {
    fn tell(&mut self, event: ProjectEvent) {
        let Some(message) = self.shown.message(event) else { return };
        if self.left_out > 0 && self.sender.try_send(Message::LeftOut { lines: self.left_out }).is_ok() {
            self.left_out = 0;
        }
        if self.left_out > 0 || self.sender.try_send(message).is_err() {
            self.left_out += 1;
        }
    }

    /// The outcome is waited for with; a client that has left is no reason to.
    async fn end(self, outcome: Result<Said, Failure>) {
        if self.left_out > 0 {
            drop(self.sender.send(Message::LeftOut { lines: self.left_out }).await);
        }
        let last = match outcome {
            Ok(Said { warnings, failure }) => {
                for text in warnings {
                    drop(self.sender.send(Message::Warning { text }).await);
                }
                failure.map_or(Message::Done, Message::Failed)
            }
            Err(failure) => Message::Failed(failure),
        };
        drop(self.sender.send(last).await);
    }
}

/// What a person who watches has been shown, so that nothing is said twice.
#[derive(Debug, Default)]
pub struct Shown {
    states: HashMap<String, (InstanceState, Option<String>)>,
    /// Instances whose crash loop was shown: it begins once, however often they are started again.
    crash_loops: HashSet<String>,
}

impl Shown {
    /// What is to be shown of an event, if anything.
    pub fn message(&mut self, event: ProjectEvent) -> Option<Message> {
        match event {
            ProjectEvent::Runner(Notice::Progress { service, text }) => {
                Some(Message::Progress { service: service.0, text })
            }
            ProjectEvent::Runner(Notice::State(status)) => self.state(status),
            ProjectEvent::Runner(Notice::Slow { instance, why }) => {
                Some(Message::Warning { text: format!("{instance} isn't ready yet: {why}") })
            }
            ProjectEvent::DataPlaneLost => {
                Some(Message::Warning { text: "the data plane died; another takes its place".into() })
            }
            ProjectEvent::Runner(_) | ProjectEvent::Serving { .. } => None,
        }
    }

    fn state(&mut self, status: InstanceStatus) -> Option<Message> {
        use InstanceState::{CrashLoop, Draining, Exited, Ready, Starting};
        let state = status.state;
        if !status.is_crash_loop {
            self.crash_loops.remove(&status.name);
        } else if state == CrashLoop {
            if !self.crash_loops.insert(status.name.clone()) {
                return None;
            }
        } else if self.crash_loops.contains(&status.name) && matches!(state, Starting | Ready) {
            return None;
        }
        // How the last process ended is news of those that have none, or another one since.
        let exit = status.exit.filter(|_| matches!(state, Starting | Exited | CrashLoop));
        let notes: Vec<String> = exit.map(|exit| exit.to_string()).into_iter().chain(status.note).collect();
        let note = (!notes.is_empty()).then(|| notes.join("; "));
        let now = (state, note.clone());
        let before = self.states.insert(status.name.clone(), now.clone());
        let is_news = before.as_ref() != Some(&now) && state != Draining;
        is_news.then(|| Message::State { instance: status.name, state: state.to_string(), note })
    }
}
