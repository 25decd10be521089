//! Signals to commands in containers, for which the engine has no call.
//!
//! On the engine's own machine such a command is a process as any other, and the engine says its number. By the time that
//! it is used the number may be another's, and it never was of this machine where the engine or Evenkeel counts its own:
//! an engine elsewhere or in a virtual machine, Evenkeel in a container. So nothing is sent but to processes whose
//! cgroup has the container's name, each by a descriptor that can't pass to another one. Where there is none, or
//! this user may not signal it, the command goes on until it ends by itself.

use std::{io, time::Duration};

use keel_engine::{Docker, EngineError, call};
use keel_sys::process::{pidfd_open, pidfd_send_signal};

use super::SIGKILL;
use crate::driver::process::members_of_group;

/// How often it is looked whether something is left of a command that is being ended: it may have just been started,
/// or fork meanwhile.
const LOOKS_MAX: u32 = 20;
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The length of a container's name in the engine.
const ID_BYTES: usize = 64;

/// Sends a signal to a command in a container and what it started in its group. One that has just begun may print before
/// the engine knows its process: that is waited for.
pub(super) async fn signal_exec(docker: &Docker, exec: &str, signal: i32) {
    for _ in 0..LOOKS_MAX {
        match send(docker, exec, signal).await {
            Ok(Sent::Unknown) => tokio::time::sleep(LOOK_EVERY).await,
            Ok(Sent::Unseen) => {
                return tracing::warn!(
                    "a command in a container gets no signal: its process isn't seen on this machine"
                );
            }
            Ok(Sent::To | Sent::Ended) => return,
            Err(error) => {
                return tracing::debug!("a command in a container wasn't sent signal {signal}: {error}");
            }
        }
    }
    tracing::warn!("a command in a container gets no signal: the engine doesn't say which process it is");
}

/// Ends a command in a container and what it started in its group.
pub(super) async fn end_exec(docker: Docker, exec: String) {
    for _ in 0..LOOKS_MAX {
        match send(&docker, &exec, SIGKILL).await {
            Ok(Sent::To | Sent::Unknown) => tokio::time::sleep(LOOK_EVERY).await,
            Ok(Sent::Unseen) => {
                return tracing::debug!(
                    "a healthcheck that took too long goes on: its process isn't seen here"
                );
            }
            Ok(Sent::Ended) => return,
            Err(error) => return tracing::debug!("a healthcheck that took too long may go on: {error}"),
        }
    }
}

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    To,
    /// The engine doesn't know its process yet.
    Unknown,
    /// It runs, as the engine says, in none of this machine's processes.
    Unseen,
    Ended,
}

/// Sends a signal once.
async fn send(docker: &Docker, exec: &str, signal: i32) -> Result<Sent, EngineError> {
    let state = call(docker.inspect_exec(exec)).await?;
    let leader = state.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0);
    let (Some(leader), Some(container)) = (leader, state.container_id) else {
        return Ok(if state.exit_code.is_some() { Sent::Ended } else { Sent::Unknown });
    };
    // It reads a file of every process.
    let sent = tokio::task::spawn_blocking(move || signal_group(&container, leader, signal)).await;
    Ok(match sent {
        Ok(1..) => Sent::To,
        _ if state.running == Some(true) => Sent::Unseen,
        _ => Sent::Ended,
    })
}

/// Signals the processes of a group that are in a container.
fn signal_group(container: &str, group: i32, signal: i32) -> usize {
    let send = |pid: i32| -> io::Result<bool> {
        let process = pidfd_open(pid)?;
        // Read when the descriptor is open: should the number be another's by now, then that one isn't signalled.
        let is_meant = is_in(&std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?, container);
        if is_meant {
            pidfd_send_signal(process, signal)?;
        }
        Ok(is_meant)
    };
    members_of_group(group).into_iter().filter(|pid| send(*pid).unwrap_or(false)).count()
}

/// Whether the cgroups of a process are those of a container: `/docker/ID`, `/system.slice/docker-ID.scope`.
fn is_in(cgroups: &str, container: &str) -> bool {
    let is_id = container.len() == ID_BYTES && container.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id && cgroups.lines().any(|line| line.contains(container))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt, process::Command};

    use super::*;

    #[test]
    fn only_a_cgroup_with_the_containers_name_is_its() {
        let (id, other) = ("a1".repeat(32), "b2".repeat(32));
        let check = |cgroups: &str, container: &str, expect: bool| {
            assert_eq!(is_in(cgroups, container), expect, "{cgroups} {container}");
        };
        check(&format!("0::/docker/{id}\n"), &id, true);
        check(&format!("1:name=systemd:/system.slice/docker-{id}.scope\n0::/\n"), &id, true);
        check(&format!("0::/docker/{other}\n"), &id, false);
        check("0::/user.slice\n", &id, false);
        check("0::/docker/a1a1\n", "a1a1", false);
        check("0::/user.slice\n", "", false);
    }

    #[test]
    fn a_foreign_process_with_the_number_is_not_signalled() {
        let mut foreign = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let pid = i32::try_from(foreign.id()).unwrap();
        assert_eq!(members_of_group(pid), [pid]);
        assert_eq!(signal_group(&"a1".repeat(32), pid, SIGKILL), 0);
        assert!(foreign.try_wait().unwrap().is_none());
        foreign.kill().unwrap();
        foreign.wait().unwrap();
    }
}
