//! `auth_request`: a subrequest decides whether the request may pass.

use keel_http::{Lines, Name};
use keel_model::Variable;

use super::access::Access;
use crate::{answer::Special, exchange::Authorisation, job::Job, subrequest::Subrequest};

/// Asks, or acts on what was answered.
pub(super) fn check(job: &mut Job<'_>) -> Access {
    let answered = job.ex.routed.authorisation.take();
    let Some(path) = &job.place().scope.auth_request.path else { return Access::Declined };
    let Some(answered) = answered else {
        return Access::Ask(Subrequest { path: path.as_bytes().to_vec(), done });
    };
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
