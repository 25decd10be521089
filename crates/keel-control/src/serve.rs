//! The balancer alone: nginx's master process, with its signals and pid file.

use std::{io, path::Path};

use keel_diag::{Diagnostic, Sources};
use tokio::{sync::mpsc, task::JoinSet};

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

/// What the caller does when things happen.
pub trait ServeObserver {
    /// The ports listen and the pid file is there.
    fn started(&mut self);
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
    observer.started();
    loop {
        tokio::select! {
            signal = signals.recv() => match signal {
                Some(ServeSignal::Reload) => reload(&balancer, options, observer).await,
                Some(ServeSignal::Reopen) => {
                    tracing::info!("reopening logs");
                    if let Err(error) = balancer.reopen_logs().await {
                        tracing::error!("{}", chain(&error));
                    }
                }
                Some(ServeSignal::Quit) => {
                    tracing::info!("gracefully shutting down");
                    quit(&balancer, &mut signals).await;
                    break;
                }
                Some(ServeSignal::Stop) | None => {
                    balancer.stop().await;
                    break;
                }
            },
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
async fn reload(balancer: &Balancer, options: &ServeOptions, observer: &mut dyn ServeObserver) {
    tracing::info!("reconfiguring");
    let reader = options.clone();
    // Reading asks the resolver, which may take its time: traffic doesn't wait for that, other signals do.
    let Ok(read) = tokio::task::spawn_blocking(move || reader.read()).await else {
        tracing::error!("the configuration's reader failed; the configuration in effect stays");
        return;
    };
    observer.diagnosed(&read.diagnostics, &read.sources);
    let Some(ready) = read.ready else {
        tracing::error!("the new configuration has errors; the one in effect stays");
        return;
    };
    let outcome = match ready.create_folders() {
        Ok(()) => balancer.apply(ready.plan.clone(), &ready.bindings).await.map_err(ServeError::Apply),
        Err(error) => Err(ServeError::Folder(error)),
    };
    match outcome {
        Ok(()) => observer.applied(&ready),
        Err(error) => tracing::error!("{}; the configuration in effect stays", chain(&error)),
    }
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
