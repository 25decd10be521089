//! What this machine lets the driver do.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use keel_sys::{
    process::pidfd_open,
    sandbox::{Namespace, NewNamespace, Sandbox, TrapMode, spawn},
    sock_diag::SockDiag,
};

use super::cgroup::Cgroups;

/// One thing that the driver can or can't do here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What, and if it can't, why.
    pub what: String,
    /// Whether it can.
    pub ok: bool,
    /// What to do about it, and what is missing until then.
    pub remedy: Option<String>,
}

/// Tries everything that the driver needs of the kernel. Blocks for some milliseconds.
pub fn doctor() -> Vec<Finding> {
    let user = if rustix::process::geteuid().is_root() { User::Root } else { User::Other };
    let finding = |what: &str, tried: io::Result<()>, remedy: &str| Finding {
        ok: tried.is_ok(),
        remedy: tried.is_err().then(|| remedy.to_owned()),
        what: match tried {
            Ok(()) => what.to_owned(),
            Err(error) => format!("{what}: {error}"),
        },
    };
    let namespaces = if user == User::Root { "mount namespaces" } else { "user namespaces" };
    vec![
        finding(
            namespaces,
            try_namespace(user),
            "without them names of services don't resolve in instances, and /tmp and shared memory are shared; \
             sysctl kernel.apparmor_restrict_unprivileged_userns=0 or user.max_user_namespaces=10000 allows them",
        ),
        finding(
            "seccomp notification",
            try_trap(),
            "without it instances must listen on $PORT; it needs Linux 5.5 and no other filter with a listener in \
             force (a container runtime may have one)",
        ),
        finding(
            "ports below 1024",
            low_ports(user),
            "listeners on them need sysctl net.ipv4.ip_unprivileged_port_start=80, or root; instances that bind them \
             are moved to free ports",
        ),
        finding(
            "control groups",
            Cgroups::open("doctor").map(drop),
            "instances are ended by process group, namespace and parent instead; start Evenkeel with \
             systemd-run --user --scope -p Delegate=yes for a delegated one",
        ),
        finding(
            "process descriptors (pidfd)",
            i32::try_from(std::process::id()).map_err(io::Error::other).and_then(pidfd_open).map(drop),
            "instances can't be run without them; they need Linux 5.6",
        ),
        finding(
            "one for all instances: UDP ports that the file doesn't list, abstract unix sockets (ps notes who has one)",
            Ok(()),
            "",
        ),
        finding(
            "socket diagnostics (sock_diag)",
            SockDiag::open().and_then(|mut diag| diag.listeners_of_port(1).map(drop)),
            "instances can't be seen to listen without them; the kernel needs CONFIG_INET_DIAG",
        ),
    ]
}

/// Who runs this program.
#[derive(Clone, Copy, PartialEq, Eq)]
enum User {
    Root,
    Other,
}

fn try_namespace(user: User) -> io::Result<()> {
    let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let new = NewNamespace { map_user: (user == User::Other).then_some(ids), ..NewNamespace::default() };
    run(Sandbox { namespace: Namespace::New(new), ..Sandbox::default() })
}

fn try_trap() -> io::Result<()> {
    run(Sandbox { trap: TrapMode::On, ..Sandbox::default() })
}

fn run(sandbox: Sandbox) -> io::Result<()> {
    let mut command = Command::new("/bin/sh");
    command.arg0("sh").args(["-c", ":"]).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let spawned = spawn(command, sandbox).map_err(|error| error.source);
    spawned.and_then(|mut spawned| spawned.child.wait()).map(drop)
}

fn low_ports(user: User) -> io::Result<()> {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")?;
    let first: u32 = first.trim().parse().map_err(io::Error::other)?;
    match user == User::Root || first <= 80 {
        true => Ok(()),
        false => Err(io::Error::other(format!("only from {first} on"))),
    }
}
