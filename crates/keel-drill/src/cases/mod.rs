//! The cases, one file each: what is done to the system, what is allowed, what must be true after.

mod add_one;
mod close_idle;
mod close_random;
mod command_in_restart;
mod cut_everywhere;
mod even;
mod foreign_process;
mod frozen;
mod kill_all;
mod kill_data_plane;
mod kill_evenkeel;
mod kill_one;
mod never_answers;
mod overload;
mod reload;
mod rolling_restart;
mod scale;
mod slow_listen;
mod slow_start;
mod stop_one;
mod unread_terminal;

use crate::{
    Error,
    stage::{Context, Played, Stage},
    system::Setup,
};

/// A case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// As `--case` takes it.
    pub name: &'static str,
    /// What is done to the system, and what must be true.
    pub what: &'static str,
    /// Outcomes beside success that count as right, in words.
    pub allows: &'static str,
    /// Says why a project can't be tried with it.
    pub(crate) fits: fn(&Context<'_>) -> Result<(), String>,
    /// How it is played.
    pub(crate) way: Way,
}

/// How a case is played.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// On the whole project.
    Project { setup: fn(&Context<'_>) -> Setup, play: fn(&mut Stage<'_>) -> Result<(), Error> },
    /// In its own way.
    Own(fn(&Context<'_>) -> Result<Played, Error>),
}

/// All cases, in the order in which they are played.
pub const CASES: &[&Case] = &[
    &even::CASE,
    &stop_one::CASE,
    &add_one::CASE,
    &kill_one::CASE,
    &kill_all::CASE,
    &rolling_restart::CASE,
    &command_in_restart::CASE,
    &scale::CASE,
    &reload::CASE,
    &kill_data_plane::CASE,
    &kill_evenkeel::CASE,
    &frozen::CASE,
    &never_answers::CASE,
    &close_random::CASE,
    &close_idle::CASE,
    &cut_everywhere::CASE,
    &slow_start::CASE,
    &slow_listen::CASE,
    &foreign_process::CASE,
    &unread_terminal::CASE,
    &overload::CASE,
];

/// Any project.
fn any(_: &Context<'_>) -> Result<(), String> {
    Ok(())
}

/// A project in which another instance can take over.
fn several(context: &Context<'_>) -> Result<(), String> {
    let instances: u32 = context.subject.services.iter().map(|service| service.replicas).sum();
    if instances > 1 { Ok(()) } else { Err("there is only one instance".to_owned()) }
}

/// Evenkeel itself is tried, not who balances in its place.
fn own(context: &Context<'_>) -> Result<(), String> {
    match context.options.nginx {
        Some(_) => Err("it tries what runs the instances, which is Evenkeel here, too".to_owned()),
        None => Ok(()),
    }
}

/// Instances of Evenkeel's whose port can be another one.
fn movable(context: &Context<'_>) -> Result<(), String> {
    own(context)?;
    if context.subject.has_upstream_block() && context.subject.has_services_alone() {
        Ok(())
    } else {
        Err("nginx.conf has no `upstream` block of services alone, whose port could be another one"
            .to_owned())
    }
}

/// The project as it is.
fn as_it_is(_: &Context<'_>) -> Setup {
    Setup::default()
}

impl Case {
    /// Plays it.
    pub(crate) fn play(&self, context: &Context<'_>) -> Result<Played, Error> {
        match self.way {
            Way::Own(play) => play(context),
            Way::Project { setup, play } => {
                let mut stage = Stage::set(context, &setup(context))?;
                match play(&mut stage) {
                    Ok(()) => stage.strike(),
                    Err(error) => stage.break_off(error),
                }
            }
        }
    }
}
