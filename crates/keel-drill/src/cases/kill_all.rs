//! All instances die at once: requests wait for those that take their place.

use super::{Case, Way, as_it_is};
use crate::{
    Error,
    stage::{Context, Stage},
};

pub(super) const CASE: Case = Case {
    name: "kill-all",
    what: "all instances are killed at once; requests wait for the ones that take their place, then go on",
    allows: "502 for a POST that was on its way: it may have arrived, so it isn't sent again",
    fits,
    way: Way::Project { setup: as_it_is, play },
};

fn fits(context: &Context<'_>) -> Result<(), String> {
    match context.subject.services.iter().find(|service| service.replicas > 0 && !service.restarts) {
        Some(service) => {
            Err(format!("`{}` isn't started again when it dies (`restart: always`)", service.name))
        }
        None => Ok(()),
    }
}

fn play(stage: &mut Stage<'_>) -> Result<(), Error> {
    let mut names = stage.names()?;
    let back = names.clone();
    stage.seed.shuffle(&mut names);
    let step = stage.under_load(|stage| {
        let death = stage.kill(&names)?;
        stage.allow_killed("502 for a POST on its way", &names, &death);
        stage.come_back(&back, &death.pids)
    })?;
    let waited = stage.records_of(step).iter().map(|record| record.latency()).max().unwrap_or_default();
    stage.show(step, "while all were killed");
    stage.observe(step, format!("waited {:.2} s at most", waited.as_secs_f64()));
    stage.even("all killed and back", &back)
}
