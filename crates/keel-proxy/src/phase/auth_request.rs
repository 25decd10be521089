//! `auth_request`: a subrequest decides whether the request may pass.

use keel_http::{Lines, Name};
use keel_model::Variable;

use super::access::Access;
use crate::{
    answer::Special,
    exchange::Authorisation,
    job::{Flow, Job},
    subrequest::{self, Subrequest},
};

/// Asks, and acts on what was answered. An error is what the request ends with instead.
pub(super) async fn check(job: &mut Job<'_>) -> Result<Access, Flow> {
    let Some(path) = &job.place().scope.auth_request.path else { return Ok(Access::Declined) };
    let path = path.as_bytes().to_vec();
    subrequest::run(job, Subrequest { path, done }).await?;
    Ok(match job.ex.routed.authorisation.take() {
        Some(answered) => decide(job, answered),
        None => Access::Denied(500.into()),
    })
}

fn decide(job: &Job<'_>, answered: Authorisation) -> Access {
    match answered.status {
        200..=299 => Access::Allowed,
        401 => Access::Denied(Special { status: 401, location: None, fields: answered.challenges }),
        403 => Access::Denied(403.into()),
        status => {
            let text = format!("auth request unexpected status: {status}");
            job.client.log_error(job.worker, job.ex, &text);
            Access::Denied(500.into())
        }
    }
}

/// Takes over what the subrequest's answer says, and what `auth_request_set` makes of it.
fn done(job: &mut Job<'_>, inner: &mut Job<'_>) {
    // Both requests have one set of variables in nginx.
    job.ex.routed.take_written(&inner.ex.routed);
    let view = job.view.clone();
    for (variable, value) in &job.ex.place(&view).scope.auth_request.set {
        let value = inner.text(value);
        match variable {
            Variable::Args => {
                job.ex.routed.args = value;
                job.ex.routed.raw_uri_valid = false;
            }
            Variable::Defined(id) => job.ex.routed.slots.set(*id, &value),
            // No other can be set.
            _ => {}
        }
    }
    let challenges = if inner.ex.sent.status == 401 { challenges(inner) } else { Lines::default() };
    job.ex.routed.authorisation = Some(Authorisation { status: inner.ex.sent.status, challenges });
}

/// Gives `WWW-Authenticate` of an answer, or of the peer's response behind it.
fn challenges(inner: &Job<'_>) -> Lines {
    let mut challenges = inner.client.stream.captured_fields(Name::WwwAuthenticate);
    let side = &inner.ex.upstream;
    if challenges.is_empty() && side.has_head {
        for field in side.head.fields.all(Name::WwwAuthenticate) {
            challenges.copied(field, &side.input);
        }
    }
    challenges
}
