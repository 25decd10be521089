//! `evenkeel up`: starts the project here, or tells the supervisor that runs it already what has changed.

use std::{
    io,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use keel_admin::{
    ClaimError, Client, ClientError, Found, Paths, Shown, SupervisorClaim,
    api::{FileChoice, ProjectInfo, UpRequest},
    find, remedies,
};
use keel_control::{
    Balancer, BalancerSettings, DataPlaneCommand, FirstNames, Sharing,
    project::{
        Identity, Joined, LoadedFiles, ProjectError, ProjectOptions, Reading, RunningProject, UpError,
        UpOptions, place,
    },
};
use keel_diag::Format;
use keel_model::{DriverChoice, Run, ServiceName};
use keel_runner::{Follower, LogNews};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, broadcast},
};

use crate::{
    control::Plain,
    detach::{self, Side, Word},
    instances::parse_scale,
    output::Prefixes,
    project::{ProjectArgs, block_on, elsewhere_error, show_message, show_reading},
    terminal::{self, say},
};

/// `up`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these services and what they depend on
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Go to the background once everything is up
    #[arg(short = 'd', long)]
    detach: bool,
    /// Build again before starting
    #[arg(long)]
    build: bool,
    /// What runs the instances: process, docker, or auto (what has only an image in the engine, the rest as local
    /// processes). Without it `x-driver` in the file says so, else process
    #[arg(long, value_name = "DRIVER", value_parser = ["process", "docker", "auto"])]
    driver: Option<String>,
    /// Replace instances even if nothing about them changed
    #[arg(long)]
    force_recreate: bool,
    /// Number of instances of a service
    #[arg(long, value_name = "SERVICE=COUNT", value_parser = parse_scale)]
    scale: Vec<(String, u32)>,
}

/// How long a supervisor may have its claim and take no command: it is beginning or ending.
const SILENT_MAX: Duration = Duration::from_secs(10);
const ASK_EVERY: Duration = Duration::from_millis(10);
/// How long the pipe of an instance that has ended may take to give the last lines.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// Runs the command.
pub(crate) fn run(project: &ProjectArgs, args: &Args) -> anyhow::Result<ExitCode> {
    let side = detach::side();
    if side == Side::Detached {
        detach::enter();
    }
    let driver = args.driver.as_deref().map(str::parse::<DriverChoice>).transpose()?;
    let choice = FileChoice { driver, ..project.choice()? };
    let options = ProjectOptions::from(choice.clone());
    let loaded = options.load();
    // A supervisor that runs the project reads its files itself.
    if let Some(client) = find_running(&loaded)? {
        return args.ask(&client, choice);
    }
    if args.detach && side == Side::Foreground {
        return Ok(detach::start_detached());
    }
    let mut reading = loaded.join();
    show_reading(&reading, Format::Human);
    let Some(joined) = &reading.joined else { return Ok(ExitCode::from(2)) };
    let paths = Paths::of(&joined.name, &joined.folder);
    let role = match find_other(joined, &paths)? {
        Some(client) => Role::Client(client),
        None => {
            paths.make(&joined.name)?;
            find_role(&paths)?
        }
    };
    match role {
        Role::Supervisor { mut claim, predecessor } => {
            if predecessor == Predecessor::AwaitedItsEnd {
                // What it held is free now, ports and containers.
                reading = options.read();
            }
            let options = args.options(options);
            let in_part = reading.has_errors();
            let supervisor = Supervisor { args, options, paths, side, in_part };
            let outcome = block_on(supervisor.run(&mut claim, reading));
            // Last of all: the next holder of the claim finds the state folder free, which tasks have held until now.
            drop(claim);
            outcome
        }
        Role::Client(client) => args.ask(&client, choice),
    }
}

/// Finds the supervisor that runs the project of these files and takes commands.
fn find_running(loaded: &LoadedFiles<'_>) -> anyhow::Result<Option<Client>> {
    let Ok(identity @ Identity { folder: Some(_), .. }) = loaded.identity() else { return Ok(None) };
    block_on(async {
        let Found::Here(client) = find(&identity).await else { return Ok(None) };
        let info = client.get::<ProjectInfo>("/v1/project").await;
        Ok(info.is_ok_and(|info| !info.is_ending).then_some(client))
    })
}

/// What this process is to a project.
#[derive(Debug)]
enum Role {
    /// Nobody supervises it: this one does from now on.
    Supervisor { claim: SupervisorClaim, predecessor: Predecessor },
    /// Somebody does, and answers.
    Client(Client),
}

/// Whether another supervisor had the claim until a moment ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Predecessor {
    None,
    AwaitedItsEnd,
}

/// Finds out who supervises a project. A supervisor that is beginning has the claim and doesn't answer; one that is
/// ending, as when `evenkeel down` has just returned, may still answer. Both are waited for.
fn find_role(paths: &Paths) -> anyhow::Result<Role> {
    let since = Instant::now();
    let mut predecessor = Predecessor::None;
    loop {
        let taken = match SupervisorClaim::take(paths) {
            Err(taken @ ClaimError::Taken { .. }) => taken,
            claim => return Ok(Role::Supervisor { claim: claim?, predecessor }),
        };
        predecessor = Predecessor::AwaitedItsEnd;
        let client = Client::new(&paths.socket);
        let asked = block_on(async { Ok(client.get::<ProjectInfo>("/v1/project").await) })?;
        match asked {
            Ok(info) if !info.is_ending => return Ok(Role::Client(client)),
            Err(ClientError::Failed(failure)) => return Err(failure.into()),
            Ok(_) if since.elapsed() >= SILENT_MAX => return Err(ProjectError::Ending.into()),
            Err(_) if since.elapsed() >= SILENT_MAX => return Err(taken.into()),
            Ok(_) | Err(_) => std::thread::sleep(ASK_EVERY),
        }
    }
}

/// Finds a supervisor of this folder that isn't reached by its own socket: one of an earlier version, or from before the
/// folder was moved. Containers and networks of two folders would have the same names.
fn find_other(joined: &Joined, paths: &Paths) -> anyhow::Result<Option<Client>> {
    let identity = Identity { name: joined.name.clone(), folder: Some(joined.folder.clone()) };
    match block_on(async { Ok(find(&identity).await) })? {
        Found::Here(client) => Ok(Some(client).filter(|client| client.socket() != paths.socket)),
        Found::Nowhere { elsewhere, .. } => {
            let has_containers =
                joined.services.iter().any(|service| matches!(service.run, Run::Container(_)));
            match elsewhere.iter().find(|other| has_containers && other.has_containers) {
                Some(other) => Err(elsewhere_error(other)
                    .context("containers of both would have the same names: give this one another with -p")),
                None => Ok(None),
            }
        }
    }
}

/// Says at the end what of the files isn't run: why stands far above.
fn say_not_run(joined: &Joined) {
    let names: Vec<String> = joined.not_run.iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => {}
        [one] => say!("{one} isn't run, see above"),
        several => say!("{} aren't run, see above", several.join(", ")),
    }
}

impl Args {
    /// Has the supervisor that runs the project read the files and follow them.
    fn ask(&self, client: &Client, files: FileChoice) -> anyhow::Result<ExitCode> {
        let request = UpRequest {
            files,
            force_recreate: self.force_recreate,
            build: self.build,
            scale: self.scale.clone(),
            services: self.services.clone(),
        };
        block_on(async {
            client.command("/v1/up", &request, show_message).await?;
            Ok(ExitCode::SUCCESS)
        })
    }

    fn options(&self, project: ProjectOptions) -> UpOptions {
        UpOptions {
            project,
            scale: self.scale.iter().map(|(name, count)| (ServiceName(name.clone()), *count)).collect(),
            force_recreate: self.force_recreate,
            build: self.build,
            only: self.services.iter().cloned().map(ServiceName).collect(),
        }
    }
}

struct Supervisor<'a> {
    args: &'a Args,
    options: UpOptions,
    paths: Paths,
    side: Side,
    /// Whether something in the files can't be run here; it was said.
    in_part: bool,
}

impl Supervisor<'_> {
    async fn run(self, claim: &mut SupervisorClaim, reading: Reading) -> anyhow::Result<ExitCode> {
        let Some(joined) = &reading.joined.clone() else { return Ok(ExitCode::from(2)) };
        let mut signals = Signals::listen()?;
        let mut settings = keel_runner::Settings::new(&joined.name, &self.paths.state);
        settings.place = place(&joined.name, &joined.folder);
        let (runner, notices) = keel_runner::start(settings)?;
        // The guardian has been forked; before, this process must have no threads.
        terminal::never_wait();
        let private_logs = Some(self.paths.state.clone());
        let (balancer, news) = Balancer::start(BalancerSettings {
            command: DataPlaneCommand { private_logs, ..DataPlaneCommand::default() },
            sharing: Sharing::WithInstances,
            first_names: FirstNames::ComeLater,
        });
        let project = RunningProject::start(runner, notices, balancer, news);
        let ended = Arc::new(Notify::new());
        serve_commands(claim, &project, joined, &ended);
        let detached = self.side == Side::Detached;
        let mut output = None;
        if !detached {
            output = self.show_output(&project).await;
        }
        let events = tokio::spawn(show_events(project.clone()));
        let first = tokio::select! {
            outcome = project.up_with(reading, self.options.clone()) => outcome,
            () = signals.ends.received() => {
                say!("stopping; once more to stop at once");
                tokio::select! {
                    outcome = project.down(keel_runner::Ending::drain(Duration::ZERO)) => outcome?,
                    () = signals.ends.received() => stop_at_once(&project).await,
                }
                return Ok(ExitCode::FAILURE);
            }
        };
        if let Err(UpError::Project(ProjectError::Ending)) = &first {
            tokio::select! {
                () = ended.notified() => {}
                () = signals.ends.received() => stop_at_once(&project).await,
            }
            say!("stopped by `evenkeel down` before everything was up");
            return Ok(ExitCode::FAILURE);
        }
        let (Some(word), first) = (self.word(&first), &first) else {
            let text = first.as_ref().err().map(explain).unwrap_or_default();
            tokio::select! {
                outcome = project.down(keel_runner::Ending::drain(Duration::ZERO)) => outcome?,
                () = signals.ends.received() => stop_at_once(&project).await,
            }
            if let Err(UpError::Files(_)) = first {
                terminal::say_text(&text);
                return Ok(ExitCode::FAILURE);
            }
            anyhow::bail!("{text}");
        };
        if let Err(error) = first {
            self.say_error(error, &project);
        }
        say_not_run(joined);
        let how = if self.args.detach { "`evenkeel down` stops" } else { "Ctrl-C stops" };
        say!("{}", listening(joined, how));
        if detached {
            detach::release(word, Some(&self.paths.state.join("supervisor.log")))?;
            events.abort();
        }
        let code = self.serve(&project, &mut signals, &ended).await?;
        if let Some(output) = output {
            output.end().await;
        }
        Ok(if word == Word::UpInPart { ExitCode::FAILURE } else { code })
    }

    /// What is said of a first start, unless nothing runs: one service that can't run keeps none of the others from
    /// running.
    fn word<T>(&self, first: &Result<T, UpError>) -> Option<Word> {
        match first {
            Err(UpError::Project(ProjectError::Runner(_))) => Some(Word::UpInPart),
            Err(_) => None,
            Ok(_) if self.in_part => Some(Word::UpInPart),
            Ok(_) => Some(Word::Up),
        }
    }

    fn say_error(&self, error: &UpError, project: &RunningProject) {
        say!("error: {}", explain(error));
        // In the foreground it stands above.
        if self.side == Side::Detached {
            remedies(error, project.runner()).iter().for_each(|hint| say!("hint: {hint}"));
        }
    }

    async fn serve(
        &self,
        project: &RunningProject,
        signals: &mut Signals,
        ended: &Notify,
    ) -> anyhow::Result<ExitCode> {
        loop {
            tokio::select! {
                () = ended.notified() => return Ok(ExitCode::SUCCESS),
                () = signals.ends.received() => break,
                _ = signals.reload.recv() => {
                    // Beside this loop: instances may take minutes to follow, and Ctrl-C must not wait for them.
                    tokio::spawn(reload(project.clone()));
                }
                _ = signals.reopen.recv() => if let Err(error) = project.balancer().reopen_logs().await {
                    say!("error: {}", keel_control::chain(&error));
                },
            }
        }
        say!("draining; once more to stop at once");
        tokio::select! {
            outcome = project.down(keel_runner::Ending::default()) => outcome?,
            () = signals.ends.received() => stop_at_once(project).await,
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Shows what instances write, each line behind their name.
    async fn show_output(&self, project: &RunningProject) -> Option<ShownOutput> {
        let news = match project.runner().logs(Vec::new(), Some(0)).await {
            Ok((_, news)) => news,
            Err(error) => {
                tracing::warn!("no output can be shown: {error}");
                return None;
            }
        };
        let ends = Arc::new(Notify::new());
        Some(ShownOutput { task: tokio::spawn(show_lines(news, ends.clone())), ends })
    }
}

/// The task that shows what instances write.
struct ShownOutput {
    task: tokio::task::JoinHandle<()>,
    ends: Arc<Notify>,
}

impl ShownOutput {
    /// Shows what instances wrote before they ended.
    async fn end(self) {
        self.ends.notify_one();
        drop(self.task.await);
    }
}

async fn show_lines(mut news: Follower, ends: Arc<Notify>) {
    let mut prefixes = Prefixes::new();
    let mut show = |news: LogNews| match news {
        LogNews::Line(line) => {
            let text = prefixes.line(&line.instance, &line.text);
            keel_telemetry::stdout().push(format!("{text}\n").as_bytes());
        }
        LogNews::LeftOut { lines } => keel_telemetry::stdout().leave_out(lines),
    };
    while !keel_telemetry::stdout().is_gone() {
        tokio::select! {
            line = news.recv() => match line {
                Some(line) => show(line),
                None => return,
            },
            () = ends.notified() => break,
        }
    }
    while let Ok(Some(line)) = tokio::time::timeout(LAST_WORDS, news.recv()).await {
        show(line);
    }
}

/// Ends what wouldn't end with this process; local processes do.
async fn stop_at_once(project: &RunningProject) {
    say!("stopping at once");
    project.runner().abandon().await;
}

async fn reload(project: RunningProject) {
    match project.reload().await {
        Ok(reading) => show_reading(&reading, Format::Human),
        Err(error) => say!("{}\nthe configuration in effect stays", explain(&error)),
    }
}

async fn show_events(project: RunningProject) {
    let mut events = project.events();
    let mut shown = Shown::default();
    loop {
        match events.recv().await {
            Ok(event) => shown.message(event).into_iter().for_each(show_message),
            Err(broadcast::error::RecvError::Lagged(events)) => say!("[{events} events were left out]"),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Serves the control socket, where the claim has it.
fn serve_commands(
    claim: &mut SupervisorClaim,
    project: &RunningProject,
    joined: &Joined,
    ended: &Arc<Notify>,
) {
    let Some(listener) = claim.listener() else { return };
    let (project, folder, ended) = (project.clone(), joined.folder.clone(), ended.clone());
    let served = keel_admin::serve(listener, project, folder, ended, Arc::new(Plain));
    tokio::spawn(async move {
        if let Err(error) = served.await {
            tracing::error!("the control socket failed: {error}");
        }
    });
}

fn listening(joined: &Joined, how: &str) -> String {
    let addresses = joined.client_addresses();
    match addresses.as_slice() {
        [] => format!("listening nowhere; {how}"),
        addresses => format!("listening on {}; {how}", addresses.join(", ")),
    }
}

fn explain(error: &UpError) -> String {
    match error {
        UpError::Files(reading) => {
            keel_diag::render(&reading.diagnostics, &reading.sources, Format::Human, crate::color::color())
        }
        other => keel_control::chain(other),
    }
}

struct Signals {
    ends: EndSignals,
    reload: Signal,
    reopen: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            ends: EndSignals {
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
            },
            reload: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
        })
    }
}

/// The user's wish to end.
struct EndSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl EndSignals {
    async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Waits for a role while another has the claim; gives the thread that does.
    fn waiting(paths: &Paths) -> thread::JoinHandle<anyhow::Result<Role>> {
        let (paths, (begun, begins)) = (paths.clone(), std::sync::mpsc::channel());
        let waiting = thread::spawn(move || {
            begun.send(()).unwrap();
            find_role(&paths)
        });
        begins.recv().unwrap();
        waiting
    }

    #[test]
    fn a_supervisor_that_ends_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let paths = Paths { socket: at("s"), lock: at("l"), state: at("state"), cache: at("cache") };
        // Its socket is closed and still there, as when it ends, or gone, as before it begins.
        for remains in [true, false] {
            let Role::Supervisor { claim, .. } = find_role(&paths).unwrap() else { panic!("it is nobody's") };
            std::fs::remove_file(&paths.socket).unwrap();
            if remains {
                drop(std::os::unix::net::UnixListener::bind(&paths.socket).unwrap());
            }
            let next = waiting(&paths);
            thread::sleep(2 * ASK_EVERY);
            assert!(!next.is_finished());
            drop(claim);
            let Role::Supervisor { predecessor, .. } = next.join().unwrap().unwrap() else {
                panic!("it is gone")
            };
            assert_eq!(predecessor, Predecessor::AwaitedItsEnd);
        }
    }
}
