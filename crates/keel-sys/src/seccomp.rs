//! System calls of a child handed to this process: seccomp_unotify(2).
//!
//! Only `bind` and `connect` of the native system-call table are trapped; the reader of the [`Trap`] decides what happens.
//! Once the trap is closed a trapped call fails with ENOSYS.
//!
//! Two other ways to a connection are closed, each with an error after which programs take the ordinary one:
//! - `io_uring_setup` fails with ENOSYS, as on a kernel without it. Container engines refuse it, too (Docker with EPERM,
//!   Podman with ENOSYS); every program that falls back knows ENOSYS, some of them don't know EPERM.
//! - A send with MSG_FASTOPEN, which connects on its way, fails with EOPNOTSUPP, as where TCP Fast Open is switched off.

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
        let call = match i64::from(raw.data.nr) {
            libc::SYS_bind => Call::Bind,
            libc::SYS_connect => Call::Connect,
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

/// Offsets in `struct seccomp_data`.
const NR_AT: u32 = 0;
const ARCH_AT: u32 = 4;
/// The low half of the arguments with these indices.
const ARGUMENT_2_AT: u32 = 16 + 2 * 8 + LOW_HALF;
const ARGUMENT_3_AT: u32 = 16 + 3 * 8 + LOW_HALF;
const LOW_HALF: u32 = if cfg!(target_endian = "big") { 4 } else { 0 };

/// Puts this thread, and whatever it starts, under the filter; gives the trap. Uses no memory but the stack, so that it
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

/// The program of the filter. Jumps count from the line that follows.
fn filter() -> [libc::sock_filter; 17] {
    const LOAD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const JUMP_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    let load = |at| libc::sock_filter { code: LOAD, jt: 0, jf: 0, k: at };
    let equal = |k, jt, jf| libc::sock_filter { code: JUMP_EQUAL, jt, jf, k };
    let has = |k, jt, jf| libc::sock_filter { code: JUMP_SET, jt, jf, k };
    let ret = |k| libc::sock_filter { code: RETURN, jt: 0, jf: 0, k };
    let number = |call: i64| u32::try_from(call).unwrap_or(u32::MAX);
    let fail = |errno: i32| ret(libc::SECCOMP_RET_ERRNO | errno.unsigned_abs());
    let fast_open = libc::MSG_FASTOPEN.unsigned_abs();
    [
        /* 0 */ load(ARCH_AT),
        /* 1 */ equal(AUDIT_ARCH, 0, 12),
        /* 2 */ load(NR_AT),
        /* 3 */ equal(number(libc::SYS_bind), 12, 0),
        /* 4 */ equal(number(libc::SYS_connect), 11, 0),
        /* 5 */ equal(number(libc::SYS_io_uring_setup), 9, 0),
        /* 6 */ equal(number(libc::SYS_sendmsg), 2, 0),
        /* 7 */ equal(number(libc::SYS_sendto), 3, 0),
        /* 8 */ equal(number(libc::SYS_sendmmsg), 2, 5),
        /* 9 */ load(ARGUMENT_2_AT),
        /* 10 */ has(fast_open, 2, 3),
        /* 11 */ load(ARGUMENT_3_AT),
        /* 12 */ has(fast_open, 0, 1),
        /* 13 */ fail(libc::EOPNOTSUPP),
        /* 14 */ ret(ALLOW),
        /* 15 */ fail(libc::ENOSYS),
        /* 16 */ ret(libc::SECCOMP_RET_USER_NOTIF),
    ]
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
        assert_eq!(verdict(0, libc::SYS_bind, [0; 6]), ALLOW);
    }
}
