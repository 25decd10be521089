//! Putting files into effect, the first time and again.

use std::{collections::BTreeMap, io::ErrorKind, sync::PoisonError};

use keel_diag::Diagnostic;
use keel_model::{Address, ServiceName};
use keel_runner::Begun;
use tokio::sync::MutexGuard;

use super::{
    joined::{Joined, ProjectOptions, Reading},
    supervise::{ProjectError, RunningProject},
};
use crate::{sockets::ListenError, traffic::ApplyError};

/// What `up` is told.
#[derive(Clone, Debug)]
pub struct UpOptions {
    /// Which files.
    pub project: ProjectOptions,
    /// Numbers of instances that differ from the files'. They stay until the next `up`.
    pub scale: BTreeMap<ServiceName, u32>,
    /// Replace instances even if nothing about them changed.
    pub force_recreate: bool,
    /// Run builds again.
    pub build: bool,
    /// Only these services and what they depend on; all where empty.
    pub only: Vec<ServiceName>,
}

/// Why `up` or `reload` failed.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The files have errors. What ran before runs on.
    #[error("the files have errors")]
    Files(Box<Reading>),
    /// The files name another project than the one that runs.
    #[error("the files are of project `{new}`, and this is `{running}`")]
    OtherProject {
        /// The name in the files.
        new: String,
        /// The name of what runs.
        running: String,
    },
    /// `--scale` or a name on the command line that the files don't have.
    #[error("there is no service `{name}`")]
    UnknownService {
        /// The name.
        name: ServiceName,
        /// A service it may be meant for.
        suggestion: Option<String>,
    },
    /// More than one instance of a service with a fixed name.
    #[error("`{service}` has a `container_name`, so it can't have {replicas} instances")]
    FixedName {
        /// The service.
        service: ServiceName,
        /// How many were asked for.
        replicas: u32,
    },
    /// They could not be put into effect.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// A text of the balancer's image can't be written. Nothing has changed.
    #[error("can't write a file that is to be served")]
    Text(#[from] super::TextError),
}

impl RunningProject {
    /// Reads the files and puts them into effect, first the traffic's side, whose failure changes nothing, then the
    /// instances'; returns what was read, warnings included, when the instances have reached their state, or at once
    /// when everything is being ended.
    ///
    /// # Errors
    /// See [`UpError`].
    pub async fn up(&self, options: UpOptions) -> Result<Reading, UpError> {
        let follow = async {
            let _one_at_a_time = self.applying().await;
            let reading = read(options.project.clone()).await;
            let changing = self.changing().await;
            self.follow(reading, options, changing).await
        };
        self.unless_ending(follow).await
    }

    /// Puts files into effect that have been read, as [`up`](Self::up) does.
    ///
    /// # Errors
    /// See [`UpError`].
    pub async fn up_with(&self, reading: Reading, options: UpOptions) -> Result<Reading, UpError> {
        let follow = async {
            let _one_at_a_time = self.applying().await;
            let changing = self.changing().await;
            self.follow(reading, options, changing).await
        };
        self.unless_ending(follow).await
    }

    /// Reads the same files again and puts them into effect.
    ///
    /// # Errors
    /// See [`UpError`]. What ran before runs on in each case.
    pub async fn reload(&self) -> Result<Reading, UpError> {
        let follow = async {
            let _one_at_a_time = self.applying().await;
            let Some(InEffect { options, .. }) = self.in_effect() else { return Ok(Reading::default()) };
            let reading = read(options.clone()).await;
            let changing = self.changing().await;
            let scale = self.in_effect().map(|in_effect| in_effect.scale).unwrap_or_default();
            let options =
                UpOptions { project: options, scale, force_recreate: false, build: false, only: Vec::new() };
            self.follow(reading, options, changing).await
        };
        self.unless_ending(follow).await
    }

    async fn follow(
        &self,
        mut reading: Reading,
        options: UpOptions,
        changing: MutexGuard<'_, ()>,
    ) -> Result<Reading, UpError> {
        let Some(joined) = &reading.joined else { return Err(UpError::Files(Box::new(reading))) };
        if let Some(running) = self.in_effect()
            && running.joined.name != joined.name
        {
            let (new, running) = (joined.name.clone(), running.joined.name);
            return Err(UpError::OtherProject { new, running });
        }
        // A site that is served stays as it is, as the seat does, until its files are in order again.
        let is_served = |name: &String| {
            self.in_effect()
                .is_some_and(|before| before.joined.sites.iter().any(|site| site.service == *name))
        };
        if joined.faulty_sites.iter().any(is_served) {
            return Err(UpError::Files(Box::new(reading)));
        }
        let mut joined = joined.clone();
        if let Some(before) = self.in_effect() {
            keep_started(&mut joined, &before.joined);
            keep_containers(&mut joined, &before.joined);
            keep_unnamed(&mut joined, &before.joined, &options.only);
        }
        scale(&mut joined, &options.scale)?;
        let known = |name: &ServiceName| joined.services.iter().any(|service| service.name == *name);
        if let Some(name) = options.only.iter().find(|name| !known(name)) {
            return Err(unknown(name, &joined));
        }
        joined.texts.put()?;
        let mut outcome = self.apply_traffic(&joined, &options.only).await;
        if let Err(ProjectError::Traffic(ApplyError::Listen(errors))) = &outcome
            && give_up_own_addresses(&mut joined, errors)
        {
            outcome = self.apply_traffic(&joined, &options.only).await;
        }
        match outcome {
            Err(ProjectError::Traffic(ApplyError::Listen(errors))) => {
                let others = errors.iter().filter(|error| !joined.is_own(&error.address));
                reading.diagnostics = others.map(|error| cannot_listen(error, &joined)).collect();
                return Err(UpError::Files(Box::new(reading)));
            }
            outcome => outcome?,
        }
        for left in joined.texts.sweep(self.in_effect().map(|before| before.joined.texts).as_ref()) {
            tracing::warn!("a text of the balancer's image that it hasn't any more stays: {left}");
        }
        if let Err(error) = joined.ports.keep() {
            tracing::warn!("`evenkeel config` may show other ports than those in use: {error}");
        }
        // What the instances do about it is another matter: traffic follows these files already.
        let services = joined.services.clone();
        self.runner().set_names(joined.extra_hosts.clone());
        self.set_in_effect(InEffect { options: options.project, scale: options.scale, joined });
        let options = keel_runner::ApplyOptions {
            force_recreate: options.force_recreate,
            build: options.build,
            only: (!options.only.is_empty()).then_some(options.only),
        };
        let begun = self.runner().begin_apply(services, options).await.map_err(ProjectError::from)?;
        drop(changing);
        let ended = begun.end().await;
        self.settle().await;
        ended.map_err(ProjectError::from)?;
        Ok(reading)
    }

    /// Starts instances that are stopped. A service that no profile enables gets the instances that the files give it.
    /// Returns when the state is reached.
    ///
    /// # Errors
    /// See [`UpError`].
    pub async fn start_instances(&self, names: Vec<String>) -> Result<(), UpError> {
        let (waking, others) = {
            let changing = self.changing().await;
            let dormant = self.in_effect().map(|in_effect| in_effect.dormant()).unwrap_or_default();
            let sleeps = |name: &String| dormant.contains_key(&ServiceName(name.clone()));
            let (waking, others): (Vec<String>, Vec<String>) = names.iter().cloned().partition(sleeps);
            let meant = |name: &ServiceName| waking.contains(&name.0);
            let scale = dormant.iter().filter(|(name, _)| meant(name));
            let scale = scale.map(|(name, replicas)| (name.clone(), *replicas)).collect();
            (self.begin_scale(&scale, changing).await?, others)
        };
        let mut outcome = end_all(waking).await;
        if outcome.is_ok() && (!others.is_empty() || names.is_empty()) {
            outcome = self.runner().start(others).await.map_err(ProjectError::from);
        }
        self.settle().await;
        Ok(outcome?)
    }

    /// Sets how many instances services have, until the next `up`; a reload keeps it. Returns when the state is reached.
    ///
    /// # Errors
    /// See [`UpError`].
    pub async fn scale(&self, changes: &BTreeMap<ServiceName, u32>) -> Result<(), UpError> {
        let begun = self.begin_scale(changes, self.changing().await).await?;
        let outcome = end_all(begun).await;
        self.settle().await;
        Ok(outcome?)
    }

    async fn begin_scale(
        &self,
        changes: &BTreeMap<ServiceName, u32>,
        _changing: MutexGuard<'_, ()>,
    ) -> Result<Vec<Begun>, UpError> {
        let Some(mut in_effect) = self.in_effect() else { return Ok(Vec::new()) };
        scale(&mut in_effect.joined, changes)?;
        in_effect.scale.extend(changes.iter().map(|(name, replicas)| (name.clone(), *replicas)));
        self.set_in_effect(in_effect);
        let mut begun = Vec::with_capacity(changes.len());
        for (name, replicas) in changes {
            let one = self.runner().begin_scale(name.clone(), *replicas).await;
            begun.push(one.map_err(ProjectError::from)?);
        }
        Ok(begun)
    }

    /// The project in effect, if one is.
    pub fn joined(&self) -> Option<Joined> {
        self.in_effect().map(|in_effect| in_effect.joined)
    }

    fn in_effect(&self) -> Option<InEffect> {
        self.files_in_effect().lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_in_effect(&self, in_effect: InEffect) {
        *self.files_in_effect().lock().unwrap_or_else(PoisonError::into_inner) = Some(in_effect);
    }
}

/// The files in effect and how they were asked for.
#[derive(Clone, Debug)]
pub(super) struct InEffect {
    options: ProjectOptions,
    scale: BTreeMap<ServiceName, u32>,
    joined: Joined,
}

impl InEffect {
    /// The services that no profile enables and that haven't been started by name.
    fn dormant(&self) -> BTreeMap<ServiceName, u32> {
        let sleeps = |name: &ServiceName| self.scale.get(name).is_none_or(|replicas| *replicas == 0);
        let dormant = self.joined.dormant.iter().filter(|(name, _)| sleeps(name));
        dormant.map(|(name, replicas)| (name.clone(), *replicas)).collect()
    }
}

/// Waits for the ends of all of them; gives the first failure.
async fn end_all(begun: Vec<Begun>) -> Result<(), ProjectError> {
    let mut outcome = Ok(());
    for one in begun {
        let ended = one.end().await;
        outcome = outcome.and(ended.map_err(ProjectError::from));
    }
    outcome
}

async fn read(options: ProjectOptions) -> Reading {
    // Reading asks the system's resolver, which may take its time.
    let read = tokio::task::spawn_blocking(move || options.read()).await;
    read.unwrap_or_else(|error| {
        tracing::error!("the reader of the files failed: {error}");
        Reading::default()
    })
}

/// Services that no profile enables and that run all the same were started by name, or under a profile: they stay.
fn keep_started(joined: &mut Joined, before: &Joined) {
    for service in joined.services.iter_mut().filter(|service| joined.dormant.contains_key(&service.name)) {
        let running = before.services.iter().find(|other| other.name == service.name);
        service.replicas = running.map_or(0, |running| running.replicas);
    }
}

/// An engine that doesn't answer now is no reason to end what it runs.
fn keep_containers(joined: &mut Joined, before: &Joined) {
    for name in &joined.without_engine {
        if let Some(running) = before.services.iter().find(|other| other.name == *name) {
            joined.services.push(running.clone());
        }
    }
}

/// Does without the listeners at a seat's own address that can't be opened: only this project's services would use them.
/// Whether that is all that is wrong.
fn give_up_own_addresses(joined: &mut Joined, errors: &[ListenError]) -> bool {
    if !errors.iter().all(|error| joined.is_own(&error.address)) {
        return false;
    }
    for error in errors {
        let Address::Tcp(address) = &error.address else { continue };
        let mut seats = joined.seat.iter().chain(&joined.sites);
        let seat = seats.find(|seat| seat.address == Some(address.ip()));
        let (seat, port) = (seat.map_or("the balancer", |seat| seat.service.as_str()), address.port());
        tracing::warn!("the services of this project don't reach {seat}:{port}: {error}: {}", error.source);
    }
    joined.plan.listeners.retain(|listener| errors.iter().all(|error| error.address != listener.address));
    true
}

/// `up SERVICE` leaves alone what it doesn't name and nothing named depends on.
fn keep_unnamed(joined: &mut Joined, before: &Joined, only: &[ServiceName]) {
    if only.is_empty() {
        return;
    }
    let mut meant = only.to_vec();
    let mut next = 0;
    while let Some(name) = meant.get(next).cloned() {
        let service = joined.services.iter().find(|service| service.name == name);
        let more = service.iter().flat_map(|service| &service.depends_on).map(|one| one.service.clone());
        let more: Vec<_> = more.filter(|name| !meant.contains(name)).collect();
        meant.extend(more);
        next += 1;
    }
    for service in joined.services.iter_mut().filter(|service| !meant.contains(&service.name)) {
        if let Some(running) = before.services.iter().find(|other| other.name == service.name) {
            service.clone_from(running);
        }
    }
}

/// Points to the line that asks for an address which can't be had.
fn cannot_listen(error: &ListenError, joined: &Joined) -> Diagnostic {
    let holder = error.culprit.as_ref().map(|culprit| format!(", held by {culprit}")).unwrap_or_default();
    let message = format!("{error}: {}{holder}", error.source);
    let diagnostic = Diagnostic::error("control::cannot-listen", message);
    let diagnostic = match joined.published_at.get(&error.address) {
        Some(span) => diagnostic.at(*span, "published here"),
        None => diagnostic,
    };
    match (&error.culprit, error.source.kind()) {
        (Some(culprit), _) => diagnostic.help(format!("stop {culprit}, or publish another port")),
        (None, ErrorKind::PermissionDenied) => diagnostic
            .help("ports below 1024 need root; publish a higher one")
            .help("or let everybody have them: sysctl net.ipv4.ip_unprivileged_port_start=0"),
        (None, _) => diagnostic.help("publish another port"),
    }
}

fn scale(joined: &mut Joined, scale: &BTreeMap<ServiceName, u32>) -> Result<(), UpError> {
    for (name, replicas) in scale {
        let Some(service) = joined.services.iter_mut().find(|service| service.name == *name) else {
            return Err(unknown(name, joined));
        };
        if service.instance_name.is_some() && *replicas > 1 {
            return Err(UpError::FixedName { service: name.clone(), replicas: *replicas });
        }
        service.replicas = *replicas;
    }
    Ok(())
}

fn unknown(name: &ServiceName, joined: &Joined) -> UpError {
    let names = joined.services.iter().map(|service| service.name.0.as_str());
    UpError::UnknownService {
        name: name.clone(),
        suggestion: keel_diag::suggest(&name.0, names).map(str::to_owned),
    }
}
