//! The balancer alone: nginx's master process, with its signals and pid file.

use std::{
    io,
    path::{Path, PathBuf},
};

use keel_diag::{Diagnostic, Sources};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::{
    balancer::{Balancer, BalancerNotice, BalancerSettings, FirstNames},
    chain::chain,
    configuration::{FileError, Ready, ServeOptions},
    health, orphans,
    sockets::Sharing,
    traffic::{ApplyError, DataPlaneCommand},
};

/// What the operator asks of a running balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServeSignal {
    /// Read the configuration again (HUP).
    Reload,
    /// Open the logs again (USR1).
    Reopen,
    /// Finish what is in flight, then end (QUIT).
    Quit,
    /// End at once (TERM, INT).
    Stop,
}

/// Why the balancer can't run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The first configuration could not be put into effect.
    #[error("can't serve this configuration")]
    Apply(#[from] ApplyError),
    /// The pid file could not be written.
    #[error("can't write the pid file {path}")]
    PidFile {
        /// Which file.
        path: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A folder for logs, or for request and response bodies, could not be made.
    #[error("can't create a folder")]
    Folder(#[source] FileError),
}

/// Why a configuration that was read again isn't in effect. The one before it is.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// It has errors.
    #[error("the new configuration has errors")]
    Files(Reread),
    /// It can't be put into effect.
    #[error(transparent)]
    Effect(#[from] ServeError),
    /// Nobody reads it: the reader failed, or the balancer is ending.
    #[error("the configuration can't be read: {0}")]
    Unread(&'static str),
}

/// What is to be said of a configuration that was read again.
#[derive(Clone, Debug)]
pub struct Reread {
    /// Everything that is to be said.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts that it points into.
    pub sources: Sources,
}

/// What came of a reload.
type Reloaded = Result<Reread, ReloadError>;

/// Reloads that were asked for and haven't begun.
const RELOADS_MAX: usize = 16;

/// A balancer that serves, for those who steer it; cheap to clone.
#[derive(Clone, Debug)]
pub struct Serving {
    balancer: Balancer,
    configuration: PathBuf,
    reloads: mpsc::Sender<oneshot::Sender<Reloaded>>,
}

impl Serving {
    /// What it does at this moment.
    pub fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    /// The file that it reads.
    pub fn configuration(&self) -> &Path {
        &self.configuration
    }

    /// Reads the configuration again and puts it into effect, as at HUP.
    ///
    /// # Errors
    /// When that fails; then the configuration before it stays in effect.
    pub async fn reload(&self) -> Result<Reread, ReloadError> {
        let (reply, answer) = oneshot::channel();
        let asked = self.reloads.send(reply).await;
        match (asked, answer.await) {
            (Ok(()), Ok(outcome)) => outcome,
            _ => Err(ReloadError::Unread("the balancer is ending")),
        }
    }
}

/// What the caller does when things happen.
pub trait ServeObserver {
    /// The ports listen and the pid file is there.
    fn started(&mut self, serving: &Serving);
    /// Nothing is taken any more that would steer it: it finishes what it has.
    fn ending(&mut self);
    /// A configuration was read again: show what is to be said of it.
    fn diagnosed(&mut self, diagnostics: &[Diagnostic], sources: &Sources);
    /// A configuration is in effect, with these logs.
    fn applied(&mut self, ready: &Ready);
}

/// Serves until told to end.
///
/// # Errors
/// When the first configuration can't be put into effect. Later ones that fail leave the one before in effect.
pub async fn serve(
    options: &ServeOptions,
    first: Ready,
    mut signals: mpsc::Receiver<ServeSignal>,
    observer: &mut dyn ServeObserver,
) -> Result<(), ServeError> {
    first.create_folders().map_err(ServeError::Folder)?;
    let settings = BalancerSettings {
        command: DataPlaneCommand::default(),
        sharing: Sharing::Exclusive,
        first_names: FirstNames::Awaited,
    };
    let (balancer, mut news) = Balancer::start(settings);
    let mut background = JoinSet::new();
    background.spawn(orphans::reap());
    balancer.apply(first.plan.clone(), &first.bindings).await?;
    let pid = PidFile::write(&first.main.pid)?;
    background.spawn(health::answer(balancer.clone()));
    observer.applied(&first);
    let (reloads, mut asked) = mpsc::channel(RELOADS_MAX);
    observer.started(&Serving { balancer: balancer.clone(), configuration: options.conf_path(), reloads });
    loop {
        tokio::select! {
            signal = signals.recv() => match signal {
                Some(ServeSignal::Reload) => drop(reload(&balancer, options, observer).await),
                Some(ServeSignal::Reopen) => {
                    tracing::info!("reopening logs");
                    if let Err(error) = balancer.reopen_logs().await {
                        tracing::error!("{}", chain(&error));
                    }
                }
                Some(ServeSignal::Quit) => {
                    tracing::info!("gracefully shutting down");
                    observer.ending();
                    quit(&balancer, &mut signals).await;
                    break;
                }
                Some(ServeSignal::Stop) | None => {
                    observer.ending();
                    balancer.stop().await;
                    break;
                }
            },
            Some(reply) = asked.recv() => {
                // Who asked may have left.
                _ = reply.send(reload(&balancer, options, observer).await);
            }
            notice = news.next() => if let BalancerNotice::Serving { pid } = notice {
                tracing::info!("start data plane process {pid}");
            },
        }
    }
    drop(pid);
    tracing::info!("exit");
    Ok(())
}

/// Reads the configuration again and puts it into effect. What fails leaves the one before in effect.
async fn reload(balancer: &Balancer, options: &ServeOptions, observer: &mut dyn ServeObserver) -> Reloaded {
    tracing::info!("reconfiguring");
    let reader = options.clone();
    // Reading asks the resolver, which may take its time: traffic doesn't wait for that, other signals do.
    let Ok(read) = tokio::task::spawn_blocking(move || reader.read()).await else {
        tracing::error!("the configuration's reader failed; the configuration in effect stays");
        return Err(ReloadError::Unread("its reader failed"));
    };
    observer.diagnosed(&read.diagnostics, &read.sources);
    let reread = Reread { diagnostics: read.diagnostics, sources: read.sources };
    let Some(ready) = read.ready else {
        tracing::error!("the new configuration has errors; the one in effect stays");
        return Err(ReloadError::Files(reread));
    };
    let outcome = match ready.create_folders() {
        Ok(()) => balancer.apply(ready.plan.clone(), &ready.bindings).await.map_err(ServeError::Apply),
        Err(error) => Err(ServeError::Folder(error)),
    };
    if let Err(error) = &outcome {
        tracing::error!("{}; the configuration in effect stays", chain(error));
    }
    outcome?;
    observer.applied(&ready);
    Ok(reread)
}

async fn quit(balancer: &Balancer, signals: &mut mpsc::Receiver<ServeSignal>) {
    let graceful = balancer.quit();
    tokio::pin!(graceful);
    loop {
        tokio::select! {
            () = &mut graceful => return,
            signal = signals.recv() => if matches!(signal, Some(ServeSignal::Stop) | None) {
                return balancer.stop().await;
            },
        }
    }
}

/// The file that tells others whom to signal. Removed when the balancer ends.
struct PidFile<'a>(Option<&'a Path>);

impl<'a> PidFile<'a> {
    fn write(path: &'a Path) -> Result<Self, ServeError> {
        match std::fs::write(path, format!("{}\n", std::process::id())) {
            Ok(()) => Ok(Self(Some(path))),
            // The first process of a container is known without a file, and its file system may be read-only.
            Err(error) if std::process::id() == 1 => {
                tracing::info!("no pid file {}: {error}", path.display());
                Ok(Self(None))
            }
            Err(source) => Err(ServeError::PidFile { path: path.display().to_string(), source }),
        }
    }
}

impl Drop for PidFile<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!("can't remove the pid file {}: {error}", path.display());
        }
    }
}
