//! `auth_basic`: a name and a password of a file.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt as _, path::Path, pin::pin};

use keel_http::{Lines, Name};
use keel_model::{LogLevel, Template};

use super::{access::Access, files::errno_text};
use crate::{
    answer::Special,
    credentials::Credentials,
    job::Job,
    passwords::{PasswordOutcome, Question},
    subrequest::until_gone,
};

/// Decides by the credentials that the request brings.
pub(super) async fn check(job: &mut Job<'_>) -> Access {
    let view = job.view.clone();
    let place = job.ex.place(&view);
    let scope = &place.scope.auth_basic;
    let (Some(realm), Some(file)) = (&scope.realm, &scope.user_file) else { return Access::Declined };
    let Some(passwords) = &view.snapshot.passwords else { return Access::Declined };
    let realm = job.text(realm);
    if realm == b"off" {
        return Access::Declined;
    }
    let Some(credentials) = job.ex.field(Name::Authorization).and_then(Credentials::parse) else {
        let text = "no user/password was provided for basic authentication";
        job.client.log(job.worker, job.ex, LogLevel::Info, text);
        return Access::Denied(challenge(&realm));
    };
    let user = credentials.user().to_vec();
    let path = file.resolve(&evaluated(job, &file.path));
    let question = Question { files: place.files.clone(), path: path.clone(), credentials };
    let Some(outcome) = until_gone(job, pin!(passwords.verify(question))).await else {
        return Access::Denied(499.into());
    };
    match outcome {
        PasswordOutcome::Right => Access::Allowed,
        PasswordOutcome::Wrong => {
            let text = format!("user \"{}\": password mismatch", user.escape_ascii());
            job.client.log_error(job.worker, job.ex, &text);
            Access::Denied(challenge(&realm))
        }
        PasswordOutcome::NoSuchUser => {
            let (user, path) = (user.escape_ascii(), path.display());
            let text = format!("user \"{user}\" was not found in \"{path}\"");
            job.client.log_error(job.worker, job.ex, &text);
            Access::Denied(challenge(&realm))
        }
        PasswordOutcome::Unreadable(error) => Access::Denied(unreadable(job, &path, &error)),
        PasswordOutcome::Busy => {
            job.client.log_error(job.worker, job.ex, "too many passwords wait to be verified");
            Access::Denied(503.into())
        }
    }
}

fn evaluated(job: &Job<'_>, path: &Template) -> std::path::PathBuf {
    Path::new(OsStr::from_bytes(&job.text(path))).to_owned()
}

/// The file of users is missing, which keeps everybody out, or can't be read.
fn unreadable(job: &Job<'_>, path: &Path, error: &io::Error) -> Special {
    let (level, status) = match error.kind() {
        io::ErrorKind::NotFound => (LogLevel::Error, 403),
        _ => (LogLevel::Crit, 500),
    };
    let text = format!("open() \"{}\" failed ({})", path.display(), errno_text(error));
    job.client.log(job.worker, job.ex, level, &text);
    status.into()
}

/// Asks the client who it is.
fn challenge(realm: &[u8]) -> Special {
    let mut fields = Lines::default();
    fields.field("WWW-Authenticate", &[b"Basic realm=\"", realm, b"\""].concat());
    Special { status: 401, location: None, fields }
}
