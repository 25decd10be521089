//! Which project a command means, and how to reach the supervisor of it.

use std::{collections::BTreeMap, io, path::PathBuf, process::ExitCode};

use keel_admin::{
    ClaimError, Client, ClientError, Found, PathError, Paths,
    api::{FileChoice, Message, ProjectInfo},
    find,
};
use keel_control::project::{Identity, ProjectOptions, Reading};
use keel_diag::Format;
use keel_telemetry::left_out_text;

use crate::{
    color::color,
    terminal::{self, escape, say},
};

/// Options by which a project is found, as Compose has them.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ProjectArgs {
    /// Compose file; may be given several times, later ones win
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Name of the project, instead of the file's or the folder's
    #[arg(short = 'p', long, value_name = "NAME")]
    project_name: Option<String>,
    /// Folder in which files are looked for, instead of this one
    #[arg(long, value_name = "FOLDER", global = true)]
    project_directory: Option<PathBuf>,
    /// Profile to enable; may be given several times
    #[arg(long, value_name = "PROFILE", global = true)]
    profile: Vec<String>,
    /// File with variables, instead of .env
    #[arg(long, value_name = "FILE", global = true)]
    env_file: Vec<PathBuf>,
}

impl ProjectArgs {
    /// The choice in a form that can be sent to a supervisor: paths absolute, the environment included.
    pub(crate) fn choice(&self) -> io::Result<FileChoice> {
        let here = std::env::current_dir()?;
        let folder = self.project_directory.as_ref().map_or_else(|| here.clone(), |folder| here.join(folder));
        let text = |os: std::ffi::OsString| os.into_string().ok();
        let environment: BTreeMap<String, String> =
            std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect();
        Ok(FileChoice {
            folder,
            files: self.files.iter().map(|file| here.join(file)).collect(),
            project_name: self.project_name.clone(),
            profiles: self.profile.clone(),
            env_files: self.env_file.iter().map(|file| here.join(file)).collect(),
            environment,
            driver: None,
        })
    }

    /// Reads the files.
    pub(crate) fn read(&self) -> anyhow::Result<Reading> {
        Ok(ProjectOptions::from(self.choice()?).read())
    }

    /// Finds the supervisor of this project. Its name and its folder are all that is needed of the files.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`], or that a project of this name runs from another folder.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let identity = self.identity()?;
        match block_on(async { Ok(find(&identity).await) })? {
            Found::Here(client) => Ok(client),
            Found::Nowhere { elsewhere, moved_from } => Err(nowhere(&identity, &elsewhere, moved_from)),
        }
    }

    /// Says which project is meant.
    pub(crate) fn identity(&self) -> anyhow::Result<Identity> {
        Ok(ProjectOptions::from(self.choice()?).load().identity()?)
    }
}

/// Says why no supervisor is this project's.
fn nowhere(identity: &Identity, elsewhere: &[ProjectInfo], moved_from: Option<String>) -> anyhow::Error {
    match (elsewhere, moved_from) {
        ([], None) => ClientError::NotRunning.into(),
        ([], Some(name)) => Hinted::new(
            format!("this folder's project runs under the name that the folder had before, `{name}`"),
            format!("`evenkeel -p {name} ...` acts on it"),
        )
        .into(),
        ([other], _) => elsewhere_error(other),
        (several, _) => {
            let folders: Vec<String> = several.iter().map(|info| info.folder.display().to_string()).collect();
            Hinted::new(
                format!("projects called `{}` run from other folders: {}", identity.name, folders.join(", ")),
                "run the command in the folder that you mean, or name it with --project-directory",
            )
            .into()
        }
    }
}

/// Says that a project's name belongs to what runs from another folder.
pub(crate) fn elsewhere_error(other: &ProjectInfo) -> anyhow::Error {
    let (name, folder, pid) = (&other.name, other.folder.display(), other.pid);
    if other.folder.exists() {
        Hinted::new(
            format!("the project `{name}` runs from another folder, {folder} (pid {pid})"),
            format!("`evenkeel --project-directory {folder} ...` acts on that one"),
        )
    } else {
        Hinted::new(
            format!("the project `{name}` runs from a folder that is gone, {folder} (pid {pid})"),
            format!("`evenkeel -p {name} down`, called where no Compose file is, ends it"),
        )
    }
    .into()
}

/// Ends what is left of a project whose supervisor is gone. Tells whether there may have been something.
pub(crate) async fn end_leftovers(project: &ProjectArgs) -> anyhow::Result<bool> {
    let Identity { name, folder: Some(folder) } = project.identity()? else { return Ok(false) };
    let paths = Paths::of(&name, &folder);
    if !paths.has_state(&name) {
        return Ok(false);
    }
    paths.make(&name)?;
    Ok(keel_runner::end_leftovers(&name, &paths.state).await?)
}

/// Runs a future to its end on a runtime of its own.
pub(crate) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(future);
    // A thread that reads standard input can't be interrupted; nothing waits for it.
    runtime.shutdown_background();
    outcome
}

/// An error with a remedy.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Hinted {
    text: String,
    pub(crate) hint: String,
}

impl Hinted {
    pub(crate) fn new(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { text: text.into(), hint: hint.into() }
    }
}

/// Prints an error with its causes and remedies, and gives the exit code.
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    if let Some(code) = terminal::reader_left(error) {
        return code;
    }
    say!("error: {}", keel_control::chain(error.as_ref()));
    if let Some(hinted) = error.downcast_ref::<Hinted>() {
        say!("hint: {}", hinted.hint);
    }
    if let Some(path) = error.downcast_ref::<PathError>() {
        say!("hint: {}", path.remedy);
    }
    if let Some(hint) = error.downcast_ref::<keel_runner::Error>().and_then(where_to_write) {
        say!("hint: {hint}");
    }
    if let Some(ClaimError::Io { .. }) = error.downcast_ref::<ClaimError>() {
        say!("hint: set XDG_RUNTIME_DIR to a folder of your own that you can write to");
    }
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::NotRunning) => say!("hint: `evenkeel up` starts it"),
        Some(ClientError::Failed(failure)) => {
            failure.hints.iter().for_each(|hint| say!("hint: {hint}"));
        }
        _ => {}
    }
    ExitCode::FAILURE
}

/// Says what helps where the runner can't write its files.
fn where_to_write(error: &keel_runner::Error) -> Option<&'static str> {
    let (keel_runner::Error::StateDir { source, .. } | keel_runner::Error::System(source)) = error else {
        return None;
    };
    match source.kind() {
        io::ErrorKind::PermissionDenied => Some(
            "after a run with `sudo` such files are root's: `sudo chown -R $USER` on the folder gives them back; or set \
             XDG_STATE_HOME to a folder that you can write to",
        ),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => {
            Some("make room there, or set XDG_STATE_HOME to a folder that has some")
        }
        _ => None,
    }
}

/// Shows what happens while a command runs, on standard error.
pub(crate) fn show_message(message: Message) {
    match message {
        Message::Progress { service, text } => say!("{service}: {}", escape(&text)),
        Message::State { instance, state, note } => match note {
            Some(note) => say!("{instance}: {state} ({})", escape(&note)),
            None => say!("{instance}: {state}"),
        },
        Message::Warning { text } => say!("{}", text.trim_end()),
        Message::LeftOut { lines } => say!("{}", left_out_text(lines)),
        Message::Output { .. } | Message::Done | Message::Failed(_) | Message::Unknown => {}
    }
}

/// Prints what is to be said about a project's files.
pub(crate) fn show_reading(reading: &Reading, format: Format) {
    terminal::say_text(&keel_diag::render(&reading.diagnostics, &reading.sources, format, color()));
}
