//! System calls of a child handed to this process: seccomp_unotify(2).
//!
//! Only `bind` and `connect` of the native system-call table are trapped. The filter looks at the call's number alone,
//! so that it stays four comparisons; what happens is decided by whoever reads the [`Trap`]. Once the trap is closed
//! a trapped call fails with ENOSYS.

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

/// Puts this thread, and whatever it starts, under the filter; gives the trap. Uses no memory but the stack, so that it
/// may run between fork and exec.
///
/// # Errors
/// `EBUSY` when a filter with a trap is in force already; `EACCES` without CAP_SYS_ADMIN in the user namespace and
/// without NO_NEW_PRIVS; `EINVAL` or `ENOSYS` on kernels before 5.0.
pub(crate) fn install() -> io::Result<OwnedFd> {
    const LOAD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    let load = |at| libc::sock_filter { code: LOAD, jt: 0, jf: 0, k: at };
    let equal = |k, jt, jf| libc::sock_filter { code: JUMP_EQUAL, jt, jf, k };
    let ret = |k| libc::sock_filter { code: RETURN, jt: 0, jf: 0, k };
    let number = |call: i64| u32::try_from(call).unwrap_or(u32::MAX);
    let mut program = [
        load(ARCH_AT),
        equal(AUDIT_ARCH, 0, 3),
        load(NR_AT),
        equal(number(libc::SYS_bind), 2, 0),
        equal(number(libc::SYS_connect), 1, 0),
        ret(ALLOW),
        ret(libc::SECCOMP_RET_USER_NOTIF),
    ];
    let program = libc::sock_fprog { len: 7, filter: program.as_mut_ptr() };
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    match set_filter(&program, flags | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => set_filter(&program, flags),
        result => result,
    }
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
