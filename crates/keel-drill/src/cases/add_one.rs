//! One more instance: a service that waits to be started by name, or one more of a service that can have several.

use super::{Case, Way, as_it_is};
use crate::{
    Error,
    stage::{Context, Stage},
    subject::Subject,
};

pub(super) const CASE: Case = Case {
    name: "add-one",
    what: "one more instance is started; it takes its exact share from the moment it is ready",
    allows: "",
    fits,
    way: Way::Project { setup: as_it_is, play },
};

fn fits(context: &Context<'_>) -> Result<(), String> {
    match one_more(context.subject) {
        Some(_) => Ok(()),
        None => Err("every service has a fixed container_name, and none waits to be started".to_owned()),
    }
}

/// The command that adds an instance.
pub(super) fn one_more(subject: &Subject) -> Option<Vec<String>> {
    let dormant = subject.services.iter().find(|service| service.replicas == 0);
    let start = dormant.map(|service| vec!["start".to_owned(), service.name.clone()]);
    let scale = || {
        let service = subject.services.iter().find(|service| service.can_scale && service.replicas > 0)?;
        Some(vec!["scale".to_owned(), format!("{}={}", service.name, service.replicas + 1)])
    };
    start.or_else(scale)
}

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    let before = stage.names()?;
    stage.even(&format!("{} ready", before.len()), &before)?;
    let words = one_more(stage.context.subject).unwrap_or_default();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    stage.under_load(|stage| stage.command(&words))?;
    let after = stage.names()?;
    if after.len() != before.len() + 1 {
        stage.find(format!("{} instances are ready after one was added to {}", after.len(), before.len()));
    }
    stage.even(&format!("{} ready", after.len()), &after)
}
