//! Whether a balancer on this machine serves: the question and the answer behind `evenkeel healthcheck`.
//!
//! The answer goes the whole way — supervisor, channel, data plane — and no request is sent, so that the check shifts no
//! peer's share and writes no access log. It is asked over an abstract socket: that needs no folder to write to, as in
//! a container with a read-only file system. Anybody who shares the network namespace may ask; all there is to learn is
//! yes or no.

use std::{
    io::{self, BufRead, BufReader, Read},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::MetadataExt,
            net::{SocketAddr, UnixListener, UnixStream},
        },
    },
    time::Duration,
};

use tokio::io::AsyncWriteExt;

use crate::balancer::Balancer;

/// What the data plane's word is passed on as.
const WELL: &str = "well";
const ILL: &str = "no data plane answers";

/// How long an answer may take: longer than the supervisor itself waits for its data plane.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts to accept when one has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The most that is read of an answer.
const ANSWER_BYTES_MAX: u64 = 256;

/// Names are unique among processes that may share a network namespace.
fn prefix() -> io::Result<String> {
    Ok(format!("evenkeel-health/{}/", std::fs::metadata("/proc/self/ns/pid")?.ino()))
}

/// Answers until dropped.
pub(crate) async fn answer(balancer: Balancer) {
    if let Err(error) = try_answer(balancer).await {
        tracing::warn!("`evenkeel healthcheck` will get no answer: {error}");
    }
}

async fn try_answer(balancer: Balancer) -> io::Result<()> {
    let name = format!("{}{}", prefix()?, std::process::id());
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            // Out of descriptors for the moment, as a rule.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let word = if balancer.status().await.is_some() { WELL } else { ILL };
        // One at a time, and the line fits the socket's buffer: nobody can hold up the next.
        drop(stream.write_all(format!("{word}\n").as_bytes()).await);
    }
}

/// Why a balancer doesn't count as well.
#[derive(Debug, thiserror::Error)]
pub enum Unwell {
    /// None runs here.
    #[error("no balancer runs here")]
    Nobody,
    /// It was asked in vain.
    #[error("process {pid} doesn't answer")]
    Silent {
        /// Its process id.
        pid: String,
        /// What came instead.
        #[source]
        source: io::Error,
    },
    /// It says itself that it isn't.
    #[error("process {pid}: {word}")]
    Ill {
        /// Its process id.
        pid: String,
        /// What it said.
        word: String,
    },
    /// The list of processes can't be read.
    #[error("can't look for balancers")]
    System(#[from] io::Error),
}

/// Asks the balancer with this process id, or every one among the processes of the caller's namespace.
///
/// # Errors
/// When there is none or one isn't well.
pub fn ask_health(only: Option<u32>) -> Result<(), Unwell> {
    let prefix = prefix()?;
    let sockets = keel_sys::proc::text("/proc/net/unix")?;
    let names = sockets.lines().filter_map(|line| line.rsplit(' ').next()?.strip_prefix('@'));
    let mut pids: Vec<&str> = names.filter_map(|name| name.strip_prefix(&prefix)).collect();
    // A socket is listed again for each connection that it has accepted.
    pids.sort_unstable();
    pids.dedup();
    if let Some(only) = only {
        pids.retain(|pid| *pid == only.to_string());
    }
    if pids.is_empty() {
        return Err(Unwell::Nobody);
    }
    for pid in pids {
        let word = ask(&format!("{prefix}{pid}"))
            .map_err(|source| Unwell::Silent { pid: pid.to_owned(), source })?;
        if word != WELL {
            return Err(Unwell::Ill { pid: pid.to_owned(), word });
        }
    }
    Ok(())
}

fn ask(name: &str) -> io::Result<String> {
    let stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut word = String::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_line(&mut word)?;
    Ok(word.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_of_another_program_whose_name_is_no_text_is_passed_over() {
        let name = [b"keel-health-\xff-", std::process::id().to_string().as_bytes()].concat();
        let _other = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
        let nobody = ask_health(Some(u32::MAX));
        assert!(matches!(nobody, Err(Unwell::Nobody)), "{nobody:?}");
    }
}
