//! A service gets more instances, then fewer.

use super::{Case, Way, as_it_is};
use crate::{
    Error,
    stage::{Context, Stage},
    subject::{Subject, Tried},
};

pub(super) const CASE: Case = Case {
    name: "scale",
    what: "a service gets two more instances, then as many as before; shares are exact after each, nothing is lost",
    allows: "",
    fits,
    way: Way::Project { setup: as_it_is, play },
};

fn fits(context: &Context<'_>) -> Result<(), String> {
    scalable(context.subject).map(drop).ok_or_else(|| "every service has a fixed container_name".to_owned())
}

fn scalable(subject: &Subject) -> Option<&Tried> {
    subject.services.iter().find(|service| service.can_scale && service.replicas > 0)
}

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    let before = stage.names()?.len();
    let (name, replicas) = scalable(stage.context.subject)
        .map(|service| (service.name.clone(), service.replicas))
        .unwrap_or_default();
    for (count, expect) in [(replicas + 2, before + 2), (replicas, before)] {
        stage.under_load(|stage| stage.command(&["scale", &format!("{name}={count}")]))?;
        let names = stage.names()?;
        if names.len() != expect {
            stage.find(format!("{} instances are ready instead of {expect} after scaling", names.len()));
        }
        stage.even(&format!("{name} scaled to {count}"), &names)?;
    }
    Ok(())
}
