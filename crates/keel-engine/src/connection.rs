//! The way to the engine, and how long it may take.

use std::{
    io,
    net::{TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    time::Duration,
};

use bollard::{Docker, errors::Error};

use crate::error::{CALL_TIMEOUT, EngineError, innermost};

const SOCKET: &str = "unix:///var/run/docker.sock";
/// How long it may take to answer at all.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the engine is: DOCKER_HOST, else its socket at the usual place.
pub fn host() -> String {
    std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()).unwrap_or_else(|| SOCKET.into())
}

/// Whether an engine answers. An engine that wants TLS counts as one that answers.
pub fn answers() -> bool {
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
///
/// # Errors
///
/// [`EngineError::Silent`] where nothing answers within 10 s.
pub async fn connect() -> Result<Docker, EngineError> {
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

/// Waits for an answer, 60 s at most.
///
/// # Errors
///
/// [`EngineError`], as the engine or the connection has it.
pub async fn call<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, EngineError> {
    match tokio::time::timeout(CALL_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(EngineError::from),
        Err(_) => Err(EngineError::Slow { within: CALL_TIMEOUT }),
    }
}
