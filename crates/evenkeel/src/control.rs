//! Control sockets: `--control`, by which a command reaches a balancer alone, and how what was read is told over one.

use std::path::PathBuf;

use keel_admin::{Client, ClientError, Describe};
use keel_diag::{Color, Diagnostic, Format, Severity, Sources};

use crate::project::{Hinted, ProjectArgs};

/// The option.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ControlArgs {
    /// The control socket of a running `evenkeel serve`, instead of this folder's project
    #[arg(long = "control", value_name = "SOCKET")]
    socket: Option<PathBuf>,
}

impl ControlArgs {
    /// The client of what is meant.
    ///
    /// # Errors
    /// When no project of this folder runs, and no socket is named.
    pub(crate) fn client(&self, project: &ProjectArgs) -> anyhow::Result<Client> {
        match &self.socket {
            Some(socket) => Ok(Client::new(socket)),
            None => project.client(),
        }
    }

    /// Whether a socket is named.
    pub(crate) fn is_given(&self) -> bool {
        self.socket.is_some()
    }

    /// Says what helps where nobody answers.
    pub(crate) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        match (&self.socket, error.downcast_ref::<ClientError>()) {
            (Some(socket), Some(ClientError::NotRunning)) => Hinted::new(
                format!("nobody answers at {}", socket.display()),
                "without `--control`, `evenkeel serve` has its socket beside its pid file: logs/nginx.control",
            )
            .into(),
            _ => error,
        }
    }
}

/// Diagnostics as text for clients of the control socket.
pub(crate) struct Plain;

impl Describe for Plain {
    fn diagnostics(&self, diagnostics: &[Diagnostic], sources: &Sources) -> Vec<String> {
        let mut sorted = diagnostics.to_vec();
        sorted.sort_by_key(|one| one.severity != Severity::Error);
        let render = |one: &Diagnostic| {
            keel_diag::render(std::slice::from_ref(one), sources, Format::Human, Color::None)
        };
        sorted.iter().map(render).collect()
    }
}
