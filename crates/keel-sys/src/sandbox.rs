//! Starting a child in surroundings of its own: fork(2) to execve(2).
//!
//! The standard library starts the child; between fork and exec this module puts it into a mount namespace, under a
//! [`Trap`](crate::seccomp::Trap), and under the parent's death. Everything that runs there is prepared before the fork
//! and allocates nothing, because another thread may have held the allocator.

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::Path,
    process::{Child, Command},
};

use rustix::{
    fs::{CWD, Mode, OFlags},
    mount::{MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change},
    net::{AddressFamily, SocketFlags, SocketType},
    process::{Signal, set_parent_process_death_signal},
    thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces},
};

/// What a child gets beyond what [`Command`] gives it.
#[derive(Debug, Default)]
pub struct Sandbox {
    /// Where it runs. Entered last, so that it lies in the namespace's mounts.
    pub working_dir: Option<CString>,
    /// Which files it sees.
    pub namespace: Namespace,
    /// Whether its `bind` and `connect` are trapped.
    pub trap: TrapMode,
    /// A `cgroup.procs` file, open for writing: the group it lives in.
    pub cgroup: Option<OwnedFd>,
    /// Whether it leads a session or a process group.
    pub group: Group,
    /// Whom it becomes, for good. Only root can say.
    pub user: Option<User>,
}

/// A user that a child becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// Which files a child sees.
#[derive(Debug, Default)]
pub enum Namespace {
    /// The parent's.
    #[default]
    Inherit,
    /// A private copy of the parent's with these changes.
    New(NewNamespace),
    /// That of the process this descriptor stands for.
    Join {
        /// A pidfd.
        of: OwnedFd,
        /// Whether that process has a user namespace of its own, too.
        with_user: bool,
    },
}

/// A private copy of the parent's mounts, and inter-process communication (System V's and POSIX message queues) of its own.
#[derive(Debug, Default)]
pub struct NewNamespace {
    /// For a parent without rights: user and group id to appear as, the parent's own.
    pub map_user: Option<(u32, u32)>,
    /// What is mounted over what, in this order: source, then target.
    pub binds: Vec<(CString, CString)>,
    /// A folder that becomes an empty one in memory, for all to write to: where POSIX shared memory is.
    pub shared_memory: Option<CString>,
    /// The name that the child sees as the machine's.
    pub hostname: Option<CString>,
}

/// Whether a child's `bind` and `connect` are trapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrapMode {
    /// They are.
    On,
    /// They aren't.
    #[default]
    Off,
}

/// What a child leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Group {
    /// A process group of its own.
    #[default]
    Process,
    /// A session of its own, whose terminal is its standard input.
    Terminal,
}

/// A child that runs.
#[derive(Debug)]
pub struct Spawned {
    /// The child.
    pub child: Child,
    /// Its trap, when asked for.
    pub trap: Option<OwnedFd>,
}

/// Which step failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// fork, standard streams, or execve: the command itself.
    Command,
    /// Making or entering the namespace.
    Namespace,
    /// Mounts within it.
    Mount,
    /// Installing the trap.
    Trap,
    /// Entering the working directory.
    WorkingDir,
    /// Entering the control group.
    Cgroup,
    /// Becoming the user.
    User,
    /// Anything else between fork and exec.
    Setup,
}

const STEPS: [Step; 8] = [
    Step::Command,
    Step::Namespace,
    Step::Mount,
    Step::Trap,
    Step::WorkingDir,
    Step::Cgroup,
    Step::User,
    Step::Setup,
];

/// Why a child couldn't be started.
#[derive(Debug)]
pub struct SpawnError {
    /// The step that failed.
    pub step: Step,
    /// What the kernel said.
    pub source: io::Error,
}

/// Starts a child. It is sent SIGKILL when the calling thread ends: call from a thread that lives as long as the child
/// may. All its descriptors beyond the standard streams are closed on exec, even those without CLOEXEC.
///
/// # Errors
/// The step that failed, and why. No child is left then.
pub fn spawn(mut command: Command, sandbox: Sandbox) -> Result<Spawned, SpawnError> {
    let setup = |source| SpawnError { step: Step::Setup, source };
    let (reports, report_to) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(|error| setup(error.into()))?;
    let parent = rustix::process::getpid();
    if sandbox.group == Group::Process {
        command.process_group(0);
    }
    let inside = move || match enter(&sandbox, parent, &report_to) {
        Ok(()) => Ok(()),
        Err((step, error)) => {
            report(&report_to, step, None);
            Err(error)
        }
    };
    // SAFETY: the closure only makes system calls on what was prepared; it neither allocates nor takes locks.
    unsafe { command.pre_exec(inside) };
    let spawned = command.spawn();
    // The command holds the closure and with it our end of the child's descriptors.
    drop(command);
    let (step, trap) = read_report(&reports);
    match spawned {
        Ok(child) => Ok(Spawned { child, trap }),
        Err(source) => Err(SpawnError { step, source }),
    }
}

type Failed = (Step, io::Error);

fn at<E: Into<io::Error>>(step: Step) -> impl Fn(E) -> Failed {
    move |error| (step, error.into())
}

/// Runs in the child, before exec.
fn enter(sandbox: &Sandbox, parent: rustix::process::Pid, report_to: &OwnedFd) -> Result<(), Failed> {
    if let Some(cgroup) = &sandbox.cgroup {
        rustix::io::write(cgroup, b"0").map_err(at(Step::Cgroup))?;
    }
    if sandbox.group == Group::Terminal {
        rustix::process::setsid().map_err(at(Step::Setup))?;
        // SAFETY: descriptor 0 is open: the standard library has just put the terminal there.
        let terminal = unsafe { BorrowedFd::borrow_raw(0) };
        rustix::process::ioctl_tiocsctty(terminal).map_err(at(Step::Setup))?;
    }
    match &sandbox.namespace {
        Namespace::Inherit => {}
        Namespace::New(new) => make_namespace(new)?,
        Namespace::Join { of, with_user } => join_namespace(of.as_fd(), *with_user)?,
    }
    if let Some(user) = &sandbox.user {
        become_user(user).map_err(at(Step::User))?;
    }
    if let Some(working_dir) = &sandbox.working_dir {
        rustix::process::chdir(working_dir.as_c_str()).map_err(at(Step::WorkingDir))?;
    }
    close_all_on_exec().map_err(at(Step::Setup))?;
    // Entering a user namespace and becoming another user clear it, so it comes after both.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(at(Step::Setup))?;
    if rustix::process::getppid() != Some(parent) {
        return Err((Step::Setup, io::Error::from_raw_os_error(libc::ECHILD)));
    }
    if sandbox.trap == TrapMode::On {
        let trap = install_trap().map_err(at(Step::Trap))?;
        report(report_to, Step::Trap, Some(&trap));
    }
    Ok(())
}

/// Becomes another user: groups first, as without root they can't be set any more. The pipes that it writes to become
/// its own, so that it may open them again by /dev/stdout.
fn become_user(user: &User) -> Result<(), rustix::io::Errno> {
    let (uid, gid) = (rustix::process::Uid::from_raw(user.uid), rustix::process::Gid::from_raw(user.gid));
    for stream in [1, 2] {
        // SAFETY: the standard library has just put the standard streams there.
        let stream = unsafe { BorrowedFd::borrow_raw(stream) };
        let stat = rustix::fs::fstat(stream)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Fifo {
            rustix::fs::fchown(stream, Some(uid), Some(gid))?;
        }
    }
    // A child has one thread, so what is set for the thread is set for the process.
    set_groups(&user.groups)?;
    rustix::thread::set_thread_gid(gid)?;
    rustix::thread::set_thread_uid(uid)
}

fn set_groups(groups: &[u32]) -> Result<(), rustix::io::Errno> {
    // SAFETY: the pointer and the length are those of one slice.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    match result {
        0 => Ok(()),
        _ => {
            Err(rustix::io::Errno::from_io_error(&io::Error::last_os_error())
                .unwrap_or(rustix::io::Errno::PERM))
        }
    }
}

fn install_trap() -> io::Result<OwnedFd> {
    match crate::seccomp::install() {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            rustix::thread::set_no_new_privs(true)?;
            crate::seccomp::install()
        }
        result => result,
    }
}

fn make_namespace(new: &NewNamespace) -> Result<(), Failed> {
    let failed = at::<rustix::io::Errno>(Step::Namespace);
    let flags = UnshareFlags::NEWNS | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC;
    let flags = if new.map_user.is_some() { flags | UnshareFlags::NEWUSER } else { flags };
    // SAFETY: the child has one thread, and none of the flags touches its descriptor table.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(&failed)?;
    if let Some((uid, gid)) = new.map_user {
        write_file(c"/proc/self/setgroups", b"deny").map_err(&failed)?;
        let mut line = [0; 32];
        write_file(c"/proc/self/uid_map", id_map(uid, &mut line)).map_err(&failed)?;
        write_file(c"/proc/self/gid_map", id_map(gid, &mut line)).map_err(&failed)?;
    }
    let propagation = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change(c"/", propagation).map_err(at(Step::Mount))?;
    for (source, target) in &new.binds {
        mount_bind_recursive(source.as_c_str(), target.as_c_str()).map_err(at(Step::Mount))?;
    }
    if let Some(folder) = &new.shared_memory {
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount(c"tmpfs", folder.as_c_str(), c"tmpfs", flags, c"mode=1777").map_err(at(Step::Mount))?;
    }
    if let Some(hostname) = &new.hostname {
        rustix::system::sethostname(hostname.to_bytes()).map_err(at(Step::Namespace))?;
    }
    Ok(())
}

fn join_namespace(of: BorrowedFd<'_>, with_user: bool) -> Result<(), Failed> {
    let own = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION;
    let kinds = if with_user { own | ThreadNameSpaceType::USER } else { own };
    move_into_thread_name_spaces(of, kinds).map_err(at(Step::Namespace))
}

fn write_file(path: &CStr, bytes: &[u8]) -> Result<(), rustix::io::Errno> {
    let file = rustix::fs::openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, bytes).map(drop)
}

/// Writes `ID ID 1` without allocating.
fn id_map(id: u32, line: &mut [u8; 32]) -> &[u8] {
    use io::Write;
    let mut rest = &mut line[..];
    // Two numbers of ten digits and the rest fit into 32 bytes.
    let written = match write!(rest, "{id} {id} 1") {
        Ok(()) => 32 - rest.len(),
        Err(_) => 0,
    };
    &line[..written]
}

fn close_all_on_exec() -> io::Result<()> {
    // SAFETY: takes numbers only, and with this flag closes nothing now.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    // Before 5.11 there is no such call; the descriptors that Rust code opens are closed on exec anyway.
    match result {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // Sandboxes older than the call refuse it.
            error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL | libc::EPERM)) => {
                Ok(())
            }
            error => Err(error),
        },
    }
}

/// Tells the parent, in one byte, how far the child came, and hands it the trap.
fn report(report_to: &OwnedFd, step: Step, trap: Option<&OwnedFd>) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let byte =
        [STEPS.iter().position(|known| *known == step).and_then(|n| u8::try_from(n).ok()).unwrap_or(0)];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [trap.unwrap_or(report_to).as_fd()];
    if trap.is_some() {
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    // A parent that can't be told notices by the missing report.
    let _ = sendmsg(report_to, &[io::IoSlice::new(&byte)], &mut ancillary, SendFlags::NOSIGNAL);
}

/// Reads what the child reported: the last step it named, and its trap.
fn read_report(reports: &OwnedFd) -> (Step, Option<OwnedFd>) {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut last = Step::Command;
    let mut trap = None;
    let mut byte = [0];
    loop {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = recvmsg(reports, &mut [io::IoSliceMut::new(&mut byte)], &mut ancillary, flags);
        if !received.is_ok_and(|received| received.bytes == 1) {
            return (last, trap);
        }
        let step = STEPS.get(usize::from(byte[0])).copied().unwrap_or(Step::Setup);
        let mut handed_over = false;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                handed_over = true;
                trap = descriptors.last();
            }
        }
        // A trap handed over means that this step went well.
        last = if handed_over { Step::Command } else { step };
    }
}

/// Makes a terminal: the controlling end, and the end to give to a child as its three standard streams.
///
/// # Errors
/// When the system is out of terminals, or devpts isn't mounted.
pub fn open_terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&controller)?;
    unlockpt(&controller)?;
    let name = ptsname(&controller, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let terminal = rustix::fs::openat(CWD, name.as_c_str(), flags, Mode::empty())?;
    Ok((controller, terminal))
}

/// Tells a terminal its size.
///
/// # Errors
/// When the descriptor isn't a terminal.
pub fn resize_terminal(terminal: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// Makes the text that the calls above take of a path.
///
/// # Errors
/// `InvalidInput` when it has a NUL in it.
pub fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

#[cfg(test)]
mod tests {
    use std::{io::Read, process::Stdio};

    use super::*;
    use crate::seccomp::{Answer, Call, Trap};

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    fn output_of(mut child: Child) -> String {
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        child.wait().unwrap();
        text
    }

    #[test]
    fn names_the_step_that_fails() {
        let missing = Sandbox { working_dir: Some(c"/no/such/folder".into()), ..Sandbox::default() };
        assert_eq!(spawn(sh("true"), missing).unwrap_err().step, Step::WorkingDir);
        let error = spawn(Command::new("/no/such/program"), Sandbox::default()).unwrap_err();
        assert_eq!((error.step, error.source.kind()), (Step::Command, io::ErrorKind::NotFound));
    }

    #[test]
    fn becomes_another_user_for_good() {
        if !rustix::process::geteuid().is_root() {
            return keel_testkit::not_run("only root can");
        }
        let user = User { uid: 4321, gid: 8765, groups: vec![8765, 99] };
        let trap = TrapMode::On;
        let sandbox =
            Sandbox { user: Some(user), trap, working_dir: Some(c"/".into()), ..Sandbox::default() };
        let script = "id -u; id -g; id -G; echo again > /dev/stdout; cat /etc/shadow 2>/dev/null";
        let spawned = spawn(sh(script), sandbox).unwrap();
        assert_eq!(output_of(spawned.child), "4321\n8765\n8765 99\nagain\n");
        let secret = std::env::temp_dir().join(format!("keel-sys-secret-{}", std::process::id()));
        std::fs::create_dir_all(&secret).unwrap();
        let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&secret, closed).unwrap();
        let user = Some(User { uid: 4321, gid: 8765, groups: Vec::new() });
        let sandbox = Sandbox { user, working_dir: c_path(&secret).ok(), ..Sandbox::default() };
        assert_eq!(spawn(sh("true"), sandbox).unwrap_err().step, Step::WorkingDir);
        std::fs::remove_dir(&secret).unwrap();
    }

    #[test]
    fn gives_a_namespace_of_its_own_that_another_can_join() {
        let folder = std::env::temp_dir().join(format!("keel-sys-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("hosts");
        std::fs::write(&file, "127.5.5.5 here\n").unwrap();
        let root = rustix::process::geteuid().is_root();
        let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let new = NewNamespace {
            map_user: (!root).then_some(ids),
            binds: vec![(c_path(&file).unwrap(), c"/etc/hosts".into())],
            shared_memory: None,
            hostname: Some(c"app1".into()),
        };
        let script = "cat /etc/hosts; uname -n; exec sleep 60";
        let sandbox = Sandbox { namespace: Namespace::New(new), ..Sandbox::default() };
        let spawned = match spawn(sh(script), sandbox) {
            Ok(spawned) => spawned,
            Err(error) if error.step == Step::Namespace => {
                keel_testkit::not_run(error.source);
                return;
            }
            Err(error) => panic!("{error:?}"),
        };
        let mut child = spawned.child;
        let mut text = [0; 20];
        child.stdout.as_mut().unwrap().read_exact(&mut text).unwrap();
        assert_eq!(&text, b"127.5.5.5 here\napp1\n");
        let of = crate::process::pidfd_open(i32::try_from(child.id()).unwrap()).unwrap();
        let join = Namespace::Join { of, with_user: !root };
        let joined = spawn(sh("cat /etc/hosts"), Sandbox { namespace: join, ..Sandbox::default() }).unwrap();
        assert_eq!(output_of(joined.child), "127.5.5.5 here\n");
        assert_ne!(std::fs::read_to_string("/etc/hosts").unwrap(), "127.5.5.5 here\n");
        child.kill().unwrap();
        child.wait().unwrap();
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn traps_bind() {
        let mut command = Command::new("python3");
        command.args(["-c", "import socket; s = socket.socket(); s.bind(('127.0.0.1', 7)); print('bound')"]);
        command.stdout(Stdio::piped());
        let sandbox = Sandbox { trap: TrapMode::On, ..Sandbox::default() };
        let spawned = match spawn(command, sandbox) {
            Ok(spawned) => spawned,
            Err(error) if matches!(error.step, Step::Trap | Step::Command) => {
                keel_testkit::not_run(format_args!("{:?}: {}", error.step, error.source));
                return;
            }
            Err(error) => panic!("{error:?}"),
        };
        let trap = Trap::from(spawned.trap.unwrap());
        // A python3 that is a script asks the name service first, over a socket of its own.
        let notification = loop {
            let notification = trap.receive().unwrap();
            if notification.call != Call::Connect {
                break notification;
            }
            trap.answer(notification.id, Answer::Continue).unwrap();
        };
        assert_eq!((notification.call, notification.address_bytes), (Call::Bind, 16));
        let mut address = [0; 16];
        crate::seccomp::read_memory(notification.thread, notification.address, &mut address).unwrap();
        assert_eq!(address[2..8], [0, 7, 127, 0, 0, 1]);
        assert!(trap.is_valid(notification.id));
        trap.answer(notification.id, Answer::Done).unwrap();
        assert!(!trap.is_valid(notification.id));
        assert_eq!(output_of(spawned.child), "bound\n");
    }

    #[test]
    fn writes_the_map_of_an_id() {
        assert_eq!(id_map(u32::MAX, &mut [0; 32]), b"4294967295 4294967295 1");
    }
}
