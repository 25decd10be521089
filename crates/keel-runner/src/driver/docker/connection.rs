//! The way to the engine, and how long it may take.

use std::{
    error::Error as _,
    io,
    net::{TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    time::Duration,
};

use bollard::{Docker, errors::Error};

const SOCKET: &str = "unix:///var/run/docker.sock";
/// How long the engine may take for anything but builds and pulls. Starting ten containers on a busy machine takes it
/// seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take to answer at all.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the engine didn't do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    /// Nobody answers.
    #[error(
        "no container engine answers at {host}: {why}; start it, or run as local processes with --driver process"
    )]
    Silent {
        /// Where it was looked for.
        host: String,
        /// What the system said.
        why: String,
    },
    /// It refused.
    #[error("{message}")]
    Refused {
        /// The status of its answer.
        status: u16,
        /// What it said.
        message: String,
    },
    /// Nobody took the connection: nothing was asked.
    #[error("the engine can't be reached: {0}")]
    Unreached(String),
    /// It did not answer in time.
    #[error("the engine doesn't answer within {} s", CALL_TIMEOUT.as_secs())]
    Slow,
    /// The connection broke, or what came makes no sense.
    #[error("the engine can't be asked: {0}")]
    Broken(String),
}

impl EngineError {
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: 409, .. })
    }

    /// Whether it says nothing about what was asked for, and the same may be done later. A port that is taken and a
    /// command that isn't there are an engine's own errors, with the status 500.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::Silent { .. } | Self::Unreached(_) | Self::Slow | Self::Broken(_) => true,
            // From who stands before an engine and doesn't reach it.
            Self::Refused { status, .. } => matches!(status, 502..=504),
        }
    }

    /// Whether it may have done what it was asked for, for all that is known.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.is_outage() && !matches!(self, Self::Silent { .. } | Self::Unreached(_))
    }

    /// Says what it kept from being done.
    pub(super) fn keeps_from(&self, what: String) -> LaunchError {
        if self.is_outage() { LaunchError::Unasked(what) } else { LaunchError::Refused(what) }
    }
}

/// Why a container didn't come up.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaunchError {
    /// It can't be as it is: the same would happen again.
    #[error("{0}")]
    Refused(String),
    /// The engine was out of reach before it was to start it.
    #[error("{0}")]
    Unasked(String),
    /// The engine was out of reach when it was to start it, or was gone right after: it may have run.
    #[error("{0}")]
    Lost(String),
}

impl From<String> for LaunchError {
    fn from(why: String) -> Self {
        Self::Refused(why)
    }
}

impl From<&str> for LaunchError {
    fn from(why: &str) -> Self {
        Self::Refused(why.into())
    }
}

impl From<Error> for EngineError {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                Self::Refused { status: status_code, message }
            }
            Error::RequestTimeoutError => Self::Slow,
            Error::HyperLegacyError { ref err } if err.is_connect() => Self::Unreached(innermost(&error)),
            other => Self::Broken(innermost(&other)),
        }
    }
}

/// Gives what an error is about in the end: the layers above say nothing more.
fn innermost(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}

/// Gives where the engine is: DOCKER_HOST, else its socket at the usual place.
pub(crate) fn host() -> String {
    std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()).unwrap_or_else(|| SOCKET.into())
}

/// Tells whether an engine answers. An engine that wants TLS counts as one that answers.
pub(crate) fn answers() -> bool {
    let host = host();
    let (scheme, place) = host.split_once("://").unwrap_or(("unix", &host));
    let pinged = match scheme {
        "unix" => UnixStream::connect(place).and_then(|mut stream| {
            stream.set_read_timeout(Some(FIRST_ANSWER_TIMEOUT))?;
            ping(&mut stream)
        }),
        "tcp" | "http" => place.to_socket_addrs().and_then(|mut addresses| {
            let address = addresses.next().ok_or(io::ErrorKind::NotFound)?;
            let mut stream = TcpStream::connect_timeout(&address, FIRST_ANSWER_TIMEOUT)?;
            stream.set_read_timeout(Some(FIRST_ANSWER_TIMEOUT))?;
            ping(&mut stream)
        }),
        _ => Ok(()),
    };
    pinged.is_ok()
}

fn ping(stream: &mut (impl io::Read + io::Write)) -> io::Result<()> {
    stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
    let mut begin = [0; 5];
    stream.read_exact(&mut begin)?;
    if begin == *b"HTTP/" { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Connects to the engine and agrees on a version of its API.
pub(super) async fn connect() -> Result<Docker, EngineError> {
    let host = host();
    let silent = |error: &Error| EngineError::Silent { host: host.clone(), why: innermost(error) };
    let docker = Docker::connect_with_host(&host).map_err(|error| silent(&error))?.with_timeout(CALL_TIMEOUT);
    match tokio::time::timeout(FIRST_ANSWER_TIMEOUT, docker.negotiate_version()).await {
        Ok(Ok(docker)) => Ok(docker),
        Ok(Err(error)) => Err(silent(&error)),
        Err(_) => Err(EngineError::Silent {
            host: host.clone(),
            why: format!("no answer within {} s", FIRST_ANSWER_TIMEOUT.as_secs()),
        }),
    }
}

/// Waits for an answer, within bounds.
pub(super) async fn call<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, EngineError> {
    match tokio::time::timeout(CALL_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(EngineError::from),
        Err(_) => Err(EngineError::Slow),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_has_to_mend_is_no_outage() {
        let refused = |status| EngineError::Refused { status, message: String::new() };
        let broken = EngineError::Broken("connection reset".into());
        for error in [EngineError::Slow, broken, refused(503)] {
            assert!(matches!(error.keeps_from("x".into()), LaunchError::Unasked(_)), "{error:?}");
        }
        for status in [400, 404, 409, 500] {
            assert!(matches!(refused(status).keeps_from("x".into()), LaunchError::Refused(_)), "{status}");
        }
    }
}
