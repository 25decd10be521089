//! What a process that only serves a network gives up for good: seccomp(2), `PR_SET_NO_NEW_PRIVS`, `PR_SET_DUMPABLE`,
//! `RLIMIT_CORE`.
//!
//! The filter is a list of the system calls that such a process needs; any other fails with EPERM. Three kinds fail with
//! ENOSYS, upon which C libraries use an older call: `clone3`, calls newer than all in the list (as under runc), and those
//! of other tables, of 32-bit programs and of x32. For all calls but three it decides by number and architecture alone: such
//! decisions the kernel keeps in a bitmap (since 5.11) and doesn't run the filter again, so that it costs a request next
//! to nothing. The three are `clone`, allowed for threads only, and `tgkill` and `prlimit64`, for the process itself. It
//! doesn't look into memory: files and peers are decided on elsewhere.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::seccomp::AUDIT_ARCH;

/// Confines this process and all threads that it starts from now on. Call it while there is one thread.
///
/// # Errors
/// When the kernel has no filters (before 3.17, or built without), or refuses the rest. What could be given up is.
pub fn confine() -> io::Result<()> {
    let cores = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let dumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    rustix::thread::set_no_new_privs(true)?;
    install(&program(std::process::id()))?;
    cores.and(dumpable)?;
    Ok(())
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CallRule {
    Allow,
    /// It fails with this error.
    Fail(i32),
    /// For threads only: `CLONE_THREAD` is among the flags, the first argument.
    Threads,
    /// If the first argument is this process, or 0 where that means it.
    Itself,
}

/// What isn't listed.
const ELSE: CallRule = CallRule::Fail(libc::EPERM);
/// What is newer than all that is listed, or of another table.
const UNKNOWN: CallRule = CallRule::Fail(libc::ENOSYS);

/// Calls that are allowed on every architecture.
const ALLOWED: &[libc::c_long] = &[
    // Descriptors.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_lseek,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_flock,
    // Files.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_truncate,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_readahead,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_umask,
    // Sockets.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    // Waiting, and time.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_restart_syscall,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    libc::SYS_mincore,
    // Threads, and signals to them.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_getcpu,
    libc::SYS_getpriority,
    libc::SYS_setpriority,
    libc::SYS_prctl,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigpending,
    libc::SYS_sigaltstack,
    libc::SYS_signalfd4,
    // Who it is, and to become another.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_setgroups,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_capget,
    // The machine.
    libc::SYS_getrandom,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_getrlimit,
    libc::SYS_setrlimit,
];

/// Older calls for the same, which newer architectures don't have.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[libc::c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents,
    libc::SYS_unlink,
    libc::SYS_mkdir,
    libc::SYS_rename,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_time,
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[libc::c_long] = &[];

/// What else isn't refused.
const OTHERS: &[(libc::c_long, CallRule)] = &[
    (libc::SYS_clone, CallRule::Threads),
    (libc::SYS_clone3, CallRule::Fail(libc::ENOSYS)),
    (libc::SYS_tgkill, CallRule::Itself),
    // musl signals its threads by it. A filter doesn't know their numbers; kill(2) by process stays refused.
    (libc::SYS_tkill, if cfg!(target_env = "musl") { CallRule::Allow } else { ELSE }),
    (libc::SYS_prlimit64, CallRule::Itself),
];

/// Offsets in `struct seccomp_data`; of the first argument its low half, on these architectures the first.
const NR_AT: u32 = 0;
const ARCH_AT: u32 = 4;
const FIRST_ARGUMENT_AT: u32 = 16;

const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_FROM: u16 = 0x35;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;

type Instruction = libc::sock_filter;

const fn step(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

const fn fail(error: i32) -> Instruction {
    step(RETURN, 0, 0, ERRNO | error.cast_unsigned())
}

/// Makes the filter: the architecture, then a search by halves for the number's range.
fn program(process: u32) -> Vec<Instruction> {
    let mut program = vec![
        step(LOAD, 0, 0, ARCH_AT),
        step(JUMP_EQUAL, 1, 0, AUDIT_ARCH),
        fail(libc::ENOSYS),
        step(LOAD, 0, 0, NR_AT),
    ];
    program.extend(search(&ranges(), process));
    program
}

/// What holds from which number on, in order, beginning with 0.
fn ranges() -> Vec<(u32, CallRule)> {
    let allowed = ALLOWED.iter().chain(ALLOWED_HERE).map(|number| (*number, CallRule::Allow));
    let mut calls: Vec<(u32, CallRule)> = allowed
        .chain(OTHERS.iter().copied())
        .filter_map(|(number, verdict)| Some((u32::try_from(number).ok()?, verdict)))
        .collect();
    calls.sort_by_key(|(number, _)| *number);
    let mut ranges: Vec<(u32, CallRule)> = vec![(0, ELSE)];
    let mut begin = |at: u32, verdict: CallRule| match ranges.last_mut() {
        Some(last) if last.0 == at => last.1 = verdict,
        Some(last) if last.1 == verdict => {}
        _ => ranges.push((at, verdict)),
    };
    let newest = calls.last().map_or(0, |(number, _)| *number);
    for (number, verdict) in calls {
        begin(number, verdict);
        begin(number.saturating_add(1), if number == newest { UNKNOWN } else { ELSE });
    }
    // What began and ended at one number.
    ranges.dedup_by(|next, before| next.1 == before.1);
    ranges
}

fn search(ranges: &[(u32, CallRule)], process: u32) -> Vec<Instruction> {
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let (Some((from, _)), false) = (upper.first(), lower.is_empty()) else {
        return ranges.first().map(|(_, verdict)| decide(*verdict, process)).unwrap_or_default();
    };
    let lower = search(lower, process);
    // A jump goes 255 steps at most: the list is far shorter than what that allows.
    let over = u8::try_from(lower.len()).unwrap_or(u8::MAX);
    let mut steps = vec![step(JUMP_FROM, over, 0, *from)];
    steps.extend(lower);
    steps.extend(search(upper, process));
    steps
}

fn decide(verdict: CallRule, process: u32) -> Vec<Instruction> {
    const THREAD: u32 = libc::CLONE_THREAD.cast_unsigned();
    let first = step(LOAD, 0, 0, FIRST_ARGUMENT_AT);
    let allow = step(RETURN, 0, 0, ALLOW);
    match verdict {
        CallRule::Allow => vec![allow],
        CallRule::Fail(error) => vec![fail(error)],
        CallRule::Threads => vec![first, step(JUMP_SET, 1, 0, THREAD), fail(libc::EPERM), allow],
        CallRule::Itself => {
            vec![first, step(JUMP_EQUAL, 2, 0, process), step(JUMP_EQUAL, 1, 0, 0), fail(libc::EPERM), allow]
        }
    }
}

fn install(program: &[Instruction]) -> io::Result<()> {
    let mut program = program.to_vec();
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // Without this flag kernels before 5.16 slow the process down against speculative reads of its own memory.
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the pointer and length describe `program`, which outlives the call; the kernel checks the rest.
    match unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const filter) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The part of `struct seccomp_data` that the filter reads.
    struct Call {
        architecture: u32,
        number: u32,
        first: u32,
    }

    /// Runs the filter as the kernel does. `true` beside the verdict when it looked at an argument.
    fn run(program: &[Instruction], call: &Call) -> (u32, bool) {
        let (mut at, mut loaded, mut looked) = (0, 0, false);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            let jump = |taken: bool| usize::from(if taken { jt } else { jf });
            at += 1;
            match code {
                LOAD => {
                    loaded = match k {
                        ARCH_AT => call.architecture,
                        NR_AT => call.number,
                        FIRST_ARGUMENT_AT => call.first,
                        other => panic!("loads {other}"),
                    };
                    looked |= k == FIRST_ARGUMENT_AT;
                }
                JUMP_EQUAL => at += jump(loaded == k),
                JUMP_FROM => at += jump(loaded >= k),
                JUMP_SET => at += jump(loaded & k != 0),
                RETURN => return (k, looked),
                other => panic!("code {other}"),
            }
        }
    }

    const EPERM: u32 = ERRNO | 1;
    const ENOSYS: u32 = ERRNO | libc::ENOSYS.cast_unsigned();

    fn check(number: libc::c_long, first: u32, expect: u32) {
        let number = u32::try_from(number).unwrap();
        let call = Call { architecture: AUDIT_ARCH, number, first };
        assert_eq!(run(&program(42), &call).0, expect, "call {number} of {first}");
    }

    #[test]
    fn decides_every_call_by_its_number_alone_but_three() {
        let program = program(42);
        let allowed: Vec<u32> =
            ALLOWED.iter().chain(ALLOWED_HERE).map(|number| u32::try_from(*number).unwrap()).collect();
        for number in (0..2_000).chain([0x4000_0000, 0x4000_0001, u32::MAX]) {
            let (verdict, looked) = run(&program, &Call { architecture: AUDIT_ARCH, number, first: 42 });
            let other = OTHERS.iter().find(|(other, _)| u32::try_from(*other) == Ok(number));
            match other {
                Some((_, CallRule::Fail(error))) => assert_eq!(verdict, ERRNO | error.cast_unsigned()),
                Some(_) => assert!(looked, "{number}"),
                None => {
                    let is_newer = allowed.iter().all(|known| number > *known);
                    let expect = match allowed.contains(&number) {
                        true => ALLOW,
                        false if is_newer => ENOSYS,
                        false => EPERM,
                    };
                    assert_eq!((verdict, looked), (expect, false), "call {number}");
                }
            }
        }
        assert!(program.len() < 400, "{}", program.len());
    }

    #[test]
    fn refuses_what_a_proxy_never_needs() {
        let never = [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_mount,
            libc::SYS_keyctl,
            libc::SYS_bpf,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_open_by_handle_at,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_io_uring_setup,
            libc::SYS_pidfd_getfd,
            libc::SYS_kill,
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_chroot,
        ];
        never.into_iter().for_each(|number| check(number, 0, EPERM));
    }

    #[test]
    fn threads_may_be_started_and_processes_not() {
        let thread = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND).cast_unsigned();
        check(libc::SYS_clone, thread, ALLOW);
        check(libc::SYS_clone, 17, EPERM);
        check(libc::SYS_clone3, 0, ERRNO | libc::ENOSYS.cast_unsigned());
        check(libc::SYS_tgkill, 42, ALLOW);
        check(libc::SYS_tgkill, 43, EPERM);
        check(libc::SYS_prlimit64, 0, ALLOW);
        check(libc::SYS_prlimit64, 43, EPERM);
    }

    #[test]
    fn calls_of_other_tables_and_of_newer_kernels_are_not_there() {
        let check = |architecture, number| {
            let call = Call { architecture, number, first: 0 };
            assert_eq!(run(&program(42), &call).0, ENOSYS, "{architecture:x} {number}");
        };
        // i386's `read`, x32's, and two that C libraries try before an older one.
        check(0x4000_0003, 3);
        check(AUDIT_ARCH, 0x4000_0000);
        const FUTEX_WAKE: u32 = 454;
        const FCHMODAT2: u32 = 452;
        check(AUDIT_ARCH, FUTEX_WAKE);
        check(AUDIT_ARCH, FCHMODAT2);
    }
}
