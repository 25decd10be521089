//! System calls of a child handed to this process: seccomp_unotify(2).
//!
//! Only `bind` and `connect` are trapped; the reader of the [`Trap`] decides what happens. Once the trap is closed a
//! trapped call fails with ENOSYS. The calls of 32-bit programs have other numbers and are trapped as well.
//!
//! Other ways to a connection are closed, each with an error after which programs take the ordinary one:
//! - `io_uring_setup` fails with ENOSYS, as on a kernel without it. Container engines refuse it, too (Docker with EPERM,
//!   Podman with ENOSYS); every program that falls back knows ENOSYS, some of them don't know EPERM.
//! - A send with MSG_FASTOPEN, which connects on its way, fails with EOPNOTSUPP, as where TCP Fast Open is switched off.
//! - `socketcall`, the old 32-bit call for all that sockets do, fails with ENOSYS: a filter can't look at its arguments,
//!   which are in memory. Some C libraries of 32-bit programs know nothing newer; such a program gets no socket at all.
//! - Calls of any other table, of x32 for one, fail with ENOSYS, as on a kernel built without it.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

/// A system call that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Identifies it in answers.
    pub id: u64,
    /// The calling thread, by this process's numbering.
    pub thread: i32,
    /// Which call.
    pub call: Call,
    /// The descriptor it is about, in the caller's table.
    pub descriptor: RawFd,
    /// Where the caller keeps the address.
    pub address: u64,
    /// How many bytes long the address is said to be.
    pub address_bytes: u64,
}

/// A trapped call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// bind(2).
    Bind,
    /// connect(2).
    Connect,
    /// Anything else; not trapped by the filter of this module.
    Other,
}

/// What the caller gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The kernel does the call as it was made.
    Continue,
    /// It returns 0 without being done.
    Done,
    /// It fails with this error number.
    Fail(i32),
}

/// The reading end of a filter.
#[derive(Debug)]
pub struct Trap(OwnedFd);

impl From<OwnedFd> for Trap {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl AsFd for Trap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Trap {
    /// Takes the next call that waits. Blocks when there is none: ask poll(2) first.
    ///
    /// # Errors
    /// `NotFound` when the caller died meanwhile; otherwise what ioctl(2) says.
    pub fn receive(&self) -> io::Result<Notification> {
        // SAFETY: a notification of zeros is a valid value, and what the kernel asks for.
        let mut raw: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the request takes a pointer to such a value, which outlives the call.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut raw) })?;
        let [descriptor, address, address_bytes, ..] = raw.data.args;
        let table = if raw.data.arch == AUDIT_ARCH { &NATIVE } else { &NARROW };
        let call = match u32::try_from(raw.data.nr) {
            Ok(number) if number == table.bind => Call::Bind,
            Ok(number) if number == table.connect => Call::Connect,
            _ => Call::Other,
        };
        Ok(Notification {
            id: raw.id,
            thread: i32::try_from(raw.pid).unwrap_or(0),
            call,
            // The kernel takes the low 32 bits as an int.
            descriptor: i32::from_ne_bytes(low_half(descriptor).to_ne_bytes()),
            address,
            address_bytes: low_half(address_bytes).into(),
        })
    }

    /// Tells whether the caller still waits, so that what was read from its memory is the call's.
    pub fn is_valid(&self, id: u64) -> bool {
        // SAFETY: the request takes a pointer to an id, which outlives the call.
        unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) == 0 }
    }

    /// Answers a call.
    ///
    /// # Errors
    /// `NotFound` when the caller no longer waits.
    pub fn answer(&self, id: u64, answer: Answer) -> io::Result<()> {
        let (error, flags) = match answer {
            Answer::Continue => (0, u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap_or(1)),
            Answer::Done => (0, 0),
            Answer::Fail(error) => (-error, 0),
        };
        let raw = libc::seccomp_notif_resp { id, val: 0, error, flags };
        // SAFETY: the request takes a pointer to such a value, which outlives the call.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const raw) })
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub(crate) const AUDIT_ARCH: u32 = 0xc000_00b7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the seccomp filter is written for x86_64 and aarch64");

/// Numbers of the calls that the filter looks at.
struct Table {
    bind: u32,
    connect: u32,
    io_uring_setup: u32,
    socketcall: u32,
    sendmsg: u32,
    sendto: u32,
    sendmmsg: u32,
}

/// A number that no call has.
const NO_CALL: u32 = u32::MAX;

const NATIVE: Table = Table {
    bind: number(libc::SYS_bind),
    connect: number(libc::SYS_connect),
    io_uring_setup: number(libc::SYS_io_uring_setup),
    socketcall: NO_CALL,
    sendmsg: number(libc::SYS_sendmsg),
    sendto: number(libc::SYS_sendto),
    sendmmsg: number(libc::SYS_sendmmsg),
};

const fn number(call: libc::c_long) -> u32 {
    // Numbers of calls are small.
    call.unsigned_abs() as u32
}

/// The table of 32-bit programs: i386.
#[cfg(target_arch = "x86_64")]
const NARROW_ARCH: u32 = 0x4000_0003;
#[cfg(target_arch = "x86_64")]
const NARROW: Table = Table {
    bind: 361,
    connect: 362,
    io_uring_setup: 425,
    socketcall: 102,
    sendmsg: 370,
    sendto: 369,
    sendmmsg: 345,
};
/// The table of 32-bit programs: ARM EABI.
#[cfg(target_arch = "aarch64")]
const NARROW_ARCH: u32 = 0x4000_0028;
#[cfg(target_arch = "aarch64")]
const NARROW: Table = Table {
    bind: 282,
    connect: 283,
    io_uring_setup: 425,
    socketcall: NO_CALL,
    sendmsg: 296,
    sendto: 290,
    sendmmsg: 374,
};

/// From here on numbers are those of x32, which has the native architecture.
const X32_FROM: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data`.
const NR_AT: u32 = 0;
const ARCH_AT: u32 = 4;
/// The low half of the arguments with these indices.
const ARGUMENT_2_AT: u32 = 16 + 2 * 8 + LOW_HALF;
const ARGUMENT_3_AT: u32 = 16 + 3 * 8 + LOW_HALF;
const LOW_HALF: u32 = if cfg!(target_endian = "big") { 4 } else { 0 };

/// Puts this thread and all its children under the filter; gives the trap. Uses no memory but the stack, so that it
/// may run between fork and exec.
///
/// # Errors
/// `EBUSY` when a filter with a trap is in force already; `EACCES` without CAP_SYS_ADMIN in the user namespace and
/// without NO_NEW_PRIVS; `EINVAL` or `ENOSYS` on kernels before 5.0.
pub(crate) fn install() -> io::Result<OwnedFd> {
    let mut program = filter();
    let length = u16::try_from(program.len()).unwrap_or(u16::MAX);
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    match set_filter(&program, flags | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => set_filter(&program, flags),
        result => result,
    }
}

/// The program of the filter.
fn filter() -> [libc::sock_filter; 28] {
    const LOAD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const JUMP_FROM: u16 = 0x35;
    const JUMP_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    // Where the lines are that others jump to.
    const NATIVE_AT: u8 = 11;
    const SENDMSG_AT: u8 = 20;
    const SEND_AT: u8 = 22;
    const FAST_OPEN_AT: u8 = 24;
    const ALLOW_AT: u8 = 25;
    const NO_CALL_AT: u8 = 26;
    const TRAP_AT: u8 = 27;
    let load = |at| libc::sock_filter { code: LOAD, jt: 0, jf: 0, k: at };
    let ret = |k| libc::sock_filter { code: RETURN, jt: 0, jf: 0, k };
    let fail = |errno: i32| ret(libc::SECCOMP_RET_ERRNO | errno.unsigned_abs());
    // Goes from line `at` to `to` where the test holds, else on. Jumps count from the line that follows.
    let jump = |at: u8, code, k, to: u8| libc::sock_filter { code, jt: to - at - 1, jf: 0, k };
    let is = |at, k, to| jump(at, JUMP_EQUAL, k, to);
    let either = |at: u8, code, k, to, otherwise: u8| libc::sock_filter {
        jf: otherwise - at - 1,
        ..jump(at, code, k, to)
    };
    let fast_open = libc::MSG_FASTOPEN.unsigned_abs();
    [
        /* 0 */ load(ARCH_AT),
        is(1, AUDIT_ARCH, NATIVE_AT),
        either(2, JUMP_EQUAL, NARROW_ARCH, 3, NO_CALL_AT),
        /* 3 */ load(NR_AT),
        is(4, NARROW.bind, TRAP_AT),
        is(5, NARROW.connect, TRAP_AT),
        is(6, NARROW.io_uring_setup, NO_CALL_AT),
        is(7, NARROW.socketcall, NO_CALL_AT),
        is(8, NARROW.sendmsg, SENDMSG_AT),
        is(9, NARROW.sendto, SEND_AT),
        either(10, JUMP_EQUAL, NARROW.sendmmsg, SEND_AT, ALLOW_AT),
        /* 11 */ load(NR_AT),
        jump(12, JUMP_FROM, X32_FROM, NO_CALL_AT),
        is(13, NATIVE.bind, TRAP_AT),
        is(14, NATIVE.connect, TRAP_AT),
        is(15, NATIVE.io_uring_setup, NO_CALL_AT),
        is(16, NATIVE.socketcall, NO_CALL_AT),
        is(17, NATIVE.sendmsg, SENDMSG_AT),
        is(18, NATIVE.sendto, SEND_AT),
        either(19, JUMP_EQUAL, NATIVE.sendmmsg, SEND_AT, ALLOW_AT),
        /* 20 */ load(ARGUMENT_2_AT),
        either(21, JUMP_SET, fast_open, FAST_OPEN_AT, ALLOW_AT),
        /* 22 */ load(ARGUMENT_3_AT),
        either(23, JUMP_SET, fast_open, FAST_OPEN_AT, ALLOW_AT),
        /* 24 */ fail(libc::EOPNOTSUPP),
        /* 25 */ ret(ALLOW),
        /* 26 */ fail(libc::ENOSYS),
        /* 27 */ ret(libc::SECCOMP_RET_USER_NOTIF),
    ]
}

/// Has one call fail from now on for this thread and what it starts, as a kernel without it would.
#[cfg(test)]
pub(crate) fn fail_on_this_thread(call: libc::c_long, errno: i32) -> io::Result<()> {
    let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let mut program = [
        step(0x20, 0, NR_AT),
        step(0x15, 1, number(call)),
        step(0x06, 0, libc::SECCOMP_RET_ERRNO | errno.unsigned_abs()),
        step(0x06, 0, 0x7fff_0000),
    ];
    rustix::thread::set_no_new_privs(true)?;
    let program = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the program's pointer and length describe an array that outlives the call; the kernel checks the rest.
    check(unsafe { libc::syscall(libc::SYS_seccomp, mode, 0, &raw const program) }.try_into().unwrap_or(-1))
}

fn set_filter(program: &libc::sock_fprog, flags: libc::c_ulong) -> io::Result<OwnedFd> {
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the program's pointer and length describe an array that outlives the call; the kernel checks the rest.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const *program) };
    match i32::try_from(result) {
        // SAFETY: the call gave a new descriptor that nobody else owns.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Copies bytes out of another process's memory; gives how many could be read: process_vm_readv(2).
///
/// # Errors
/// `EPERM` without the right to trace it, `ESRCH` when it has ended, `EFAULT` when nothing is mapped there.
pub fn read_memory(process: i32, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let base = usize::try_from(address).map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))?;
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(base), iov_len: buffer.len() };
    // SAFETY: the local vector describes `buffer`, which outlives the call; the remote one is only a number here.
    let result = unsafe { libc::process_vm_readv(process, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn low_half(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW: u32 = 0x7fff_0000;

    /// Runs the filter on a call as the kernel would.
    fn verdict(arch: u32, number: i64, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(u32::try_from(number).unwrap().to_ne_bytes());
        data.extend(arch.to_ne_bytes());
        data.extend(0_u64.to_ne_bytes());
        arguments.iter().for_each(|argument| data.extend(argument.to_ne_bytes()));
        let program = filter();
        let (mut at, mut loaded) = (0, 0);
        loop {
            let line = program[at];
            at += 1;
            let jump = |holds| usize::from(if holds { line.jt } else { line.jf });
            match line.code {
                0x20 => {
                    let from = line.k as usize;
                    loaded = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
                }
                0x15 => at += jump(loaded == line.k),
                0x35 => at += jump(loaded >= line.k),
                0x45 => at += jump(loaded & line.k != 0),
                _ => return line.k,
            }
        }
    }

    #[test]
    fn traps_two_calls_and_closes_the_ways_around_them() {
        let open = libc::MSG_FASTOPEN.unsigned_abs().into();
        let refused = |errno: i32| libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
        let check = |number, arguments, expect| {
            assert_eq!(verdict(AUDIT_ARCH, number, arguments), expect, "{number} {arguments:?}");
        };
        check(libc::SYS_bind, [open; 6], libc::SECCOMP_RET_USER_NOTIF);
        check(libc::SYS_connect, [0; 6], libc::SECCOMP_RET_USER_NOTIF);
        check(libc::SYS_io_uring_setup, [0; 6], refused(libc::ENOSYS));
        check(libc::SYS_io_uring_enter, [0; 6], ALLOW);
        check(libc::SYS_sendmsg, [0, 0, open, 0, 0, 0], refused(libc::EOPNOTSUPP));
        check(libc::SYS_sendmsg, [open, open, 0, open, open, open], ALLOW);
        for number in [libc::SYS_sendto, libc::SYS_sendmmsg] {
            check(number, [0, 0, 0, open | 1, 0, 0], refused(libc::EOPNOTSUPP));
            check(number, [open, open, open, 0, open, open], ALLOW);
        }
        check(libc::SYS_read, [open; 6], ALLOW);
    }

    #[test]
    fn other_tables_lead_around_nothing() {
        let open: u64 = libc::MSG_FASTOPEN.unsigned_abs().into();
        let refused = |errno: i32| libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
        let check = |number: u32, arguments, expect| {
            assert_eq!(verdict(NARROW_ARCH, number.into(), arguments), expect, "{number} {arguments:?}");
        };
        check(NARROW.bind, [0; 6], libc::SECCOMP_RET_USER_NOTIF);
        check(NARROW.connect, [0; 6], libc::SECCOMP_RET_USER_NOTIF);
        check(NARROW.io_uring_setup, [0; 6], refused(libc::ENOSYS));
        check(NARROW.socketcall, [0; 6], refused(libc::ENOSYS));
        check(NARROW.sendmsg, [0, 0, open, 0, 0, 0], refused(libc::EOPNOTSUPP));
        check(NARROW.sendto, [0, 0, 0, open, 0, 0], refused(libc::EOPNOTSUPP));
        check(NARROW.sendmmsg, [0, 0, 0, open, 0, 0], refused(libc::EOPNOTSUPP));
        check(NARROW.sendmmsg, [0; 6], ALLOW);
        check(1, [0; 6], ALLOW);
        for number in [libc::SYS_bind, libc::SYS_connect, libc::SYS_read] {
            let x32 = number + i64::from(X32_FROM);
            assert_eq!(verdict(AUDIT_ARCH, x32, [0; 6]), refused(libc::ENOSYS), "{number}");
            assert_eq!(verdict(0, number, [0; 6]), refused(libc::ENOSYS), "{number}");
        }
    }
}
