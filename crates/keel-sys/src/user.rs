//! Users, groups, and becoming one.

use std::{ffi::CString, io};

/// A user as the system's database has it: getpwnam_r(3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// The home folder.
    pub home: String,
}

/// The most room that an entry of the database gets.
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// Finds a user by login name; `None` when there is none.
///
/// # Errors
/// When the database can't be read.
pub fn user_by_name(name: &str) -> io::Result<Option<Account>> {
    let name = c_string(name)?;
    find_user(|entry, buffer, found| {
        // SAFETY: all pointers are valid for the call, and the length is the buffer's.
        unsafe { libc::getpwnam_r(name.as_ptr(), entry, buffer.as_mut_ptr(), buffer.len(), found) }
    })
}

/// Finds a user by number; `None` when there is none.
///
/// # Errors
/// When the database can't be read.
pub fn user_by_id(uid: u32) -> io::Result<Option<Account>> {
    find_user(|entry, buffer, found| {
        // SAFETY: all pointers are valid for the call, and the length is the buffer's.
        unsafe { libc::getpwuid_r(uid, entry, buffer.as_mut_ptr(), buffer.len(), found) }
    })
}

/// Finds a group's number by its name; `None` when there is none.
///
/// # Errors
/// When the database can't be read.
pub fn group_by_name(name: &str) -> io::Result<Option<u32>> {
    let name = c_string(name)?;
    let mut room = 1024;
    loop {
        let mut buffer: Vec<libc::c_char> = vec![0; room];
        // SAFETY: a group of null pointers and zeros is a valid value of that C struct.
        let mut entry: libc::group = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        // SAFETY: all pointers are valid for the call, and the length is the buffer's.
        let error = unsafe {
            libc::getgrnam_r(name.as_ptr(), &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found)
        };
        match error {
            0 if found.is_null() => return Ok(None),
            0 => return Ok(Some(entry.gr_gid)),
            libc::ERANGE if room < ENTRY_BYTES_MAX => room *= 2,
            libc::EINTR => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Most groups that one user may be in.
const GROUPS_MAX: usize = 65_536;

/// The groups that a user is in, `gid` among them: getgrouplist(3).
///
/// # Errors
/// When the name holds a zero byte, or the user is in more groups than Linux allows.
pub fn groups_of(name: &str, gid: u32) -> io::Result<Vec<u32>> {
    let name = c_string(name)?;
    let mut room = 32;
    while room <= GROUPS_MAX {
        let mut groups: Vec<libc::gid_t> = vec![0; room];
        let mut count = libc::c_int::try_from(room).map_err(io::Error::other)?;
        // SAFETY: all pointers are valid for the call, and `count` is the room of the list.
        let found = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        if found >= 0 {
            groups.truncate(usize::try_from(count).unwrap_or(0));
            return Ok(groups);
        }
        room *= 2;
    }
    Err(io::Error::other("the user is in too many groups"))
}

fn find_user(
    ask: impl Fn(*mut libc::passwd, &mut [libc::c_char], *mut *mut libc::passwd) -> libc::c_int,
) -> io::Result<Option<Account>> {
    let mut room = 1024;
    loop {
        let mut buffer = vec![0; room];
        // SAFETY: a passwd of null pointers and zeros is a valid value of that C struct.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        match ask(&raw mut entry, &mut buffer, &raw mut found) {
            0 if found.is_null() => return Ok(None),
            0 => {
                let text = |field: *const libc::c_char| {
                    if field.is_null() {
                        return String::new();
                    }
                    // SAFETY: the call succeeded, so the field points to a terminated string within `buffer`.
                    unsafe { std::ffi::CStr::from_ptr(field) }.to_string_lossy().into_owned()
                };
                return Ok(Some(Account {
                    name: text(entry.pw_name),
                    uid: entry.pw_uid,
                    gid: entry.pw_gid,
                    home: text(entry.pw_dir),
                }));
            }
            libc::ERANGE if room < ENTRY_BYTES_MAX => room *= 2,
            libc::EINTR => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Makes the whole process that user for good: supplementary groups of `name`, then group, then user. Can't be undone.
///
/// # Errors
/// What initgroups(3), setgid(2) or setuid(2) says. The process may then have given up a part of its rights and
/// should end.
pub fn become_user(uid: u32, gid: u32, name: &str) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: the name is a terminated string that outlives the call.
    check(unsafe { libc::initgroups(name.as_ptr(), gid) })?;
    // SAFETY: takes a number only.
    check(unsafe { libc::setgid(gid) })?;
    // SAFETY: takes a number only.
    check(unsafe { libc::setuid(uid) })
}

/// Runs something as a user, on a thread of its own that ends with it. The rest of the process stays who it is.
///
/// # Errors
/// When no thread can be had, or this process may not become the user.
pub fn as_user<T: Send>(
    (uid, gid): (u32, u32),
    groups: &[u32],
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    use rustix::process::{Gid, Uid};
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let groups: Vec<Gid> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
    std::thread::scope(|scope| {
        let become_it_and_work = move || {
            rustix::thread::set_thread_groups(&groups)?;
            rustix::thread::set_thread_res_gid(gid, gid, gid)?;
            rustix::thread::set_thread_res_uid(uid, uid, uid)?;
            Ok(work())
        };
        let thread = std::thread::Builder::new().spawn_scoped(scope, become_it_and_work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")))
    })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn c_string(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_is_another_user_and_the_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("closed");
        std::fs::write(&file, "x").unwrap();
        let closed = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, closed).unwrap();
        let read =
            as_user((65_534, 65_534), &[65_534], || std::fs::read(&file).map_err(|error| error.kind()));
        match read {
            Ok(read) => assert_eq!(read, Err(io::ErrorKind::PermissionDenied)),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "only root becomes somebody");
                assert!(!rustix::process::geteuid().is_root());
            }
        }
        assert!(std::fs::read(&file).is_ok());
    }

    #[test]
    fn finds_users_and_groups() {
        let root = user_by_name("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid, root.home.as_str()), (0, 0, "/root"));
        assert_eq!(user_by_id(0).unwrap().unwrap(), root);
        assert_eq!(group_by_name("root").unwrap(), Some(0));
        assert!(groups_of("root", 0).unwrap().contains(&0));
        assert_eq!(groups_of("no-such-user-here", 77).unwrap(), [77]);
        assert_eq!(user_by_name("no-such-user-here").unwrap(), None);
        assert_eq!(group_by_name("no-such-group-here").unwrap(), None);
        assert!(user_by_name("a\0b").is_err());
    }
}
