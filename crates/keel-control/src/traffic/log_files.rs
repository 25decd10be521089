//! The log files, which the supervisor opens: the data plane's user may not be allowed to.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use keel_model::{Plan, User};
use keel_tree::beneath::{self, Links};

use super::{ApplyError, DataPlaneCommand};

/// Opens the logs of a plan that don't depend on a request.
pub(super) fn open_logs(
    plan: &Plan,
    command: &DataPlaneCommand,
) -> Result<(Vec<PathBuf>, Vec<OwnedFd>), ApplyError> {
    let (paths, folders) = (plan.log_paths(), plan.tree_folders());
    let mut files = Vec::with_capacity(paths.len());
    for path in &paths {
        let is_private = command.private_logs.as_ref().is_some_and(|folder| path.starts_with(folder));
        let readers = if is_private { LogReaders::Owner } else { LogReaders::Everybody };
        let user = plan.process.user.as_ref();
        // What a project's mount holds, its instances may have put there: no link in it is followed.
        let folder = folders.iter().rev().find(|folder| path.starts_with(folder));
        let opened = match folder.and_then(|folder| Some((folder, path.strip_prefix(folder).ok()?))) {
            Some((folder, below)) => open_log_beneath(folder, below, user, readers),
            None => open_log(path, user, readers),
        };
        let file = opened.map_err(|source| ApplyError::Log { path: path.clone(), source })?;
        files.push(file.into());
    }
    Ok((paths, files))
}

/// Who may read a log that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogReaders {
    /// Mode 0600, also where it was there before.
    Owner,
    /// Mode 0644, as nginx makes it.
    Everybody,
}

/// Opens a log for appending; a new one belongs to the data plane's user, so that log rotation by it can work. Neither
/// opening nor writing waits for somebody to read a pipe.
///
/// # Errors
/// When it can't be opened, or is a pipe that nobody reads.
pub fn open_log(path: &Path, user: Option<&User>, readers: LogReaders) -> io::Result<File> {
    use rustix::fs::OFlags;
    let is_new = !path.exists();
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mode = if readers == LogReaders::Owner { 0o600 } else { 0o644 };
    let opened = OpenOptions::new().create(true).append(true).mode(mode).custom_flags(flags).open(path);
    settle_log(opened, is_new, user, readers)
}

/// Opens a log in a folder that is never left, as [`open_log`] does.
fn open_log_beneath(
    folder: &Path,
    below: &Path,
    user: Option<&User>,
    readers: LogReaders,
) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let folder = beneath::open_real_folder(folder)?;
    let is_new = beneath::kind(folder.as_fd(), below).is_err();
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mode = if readers == LogReaders::Owner { 0o600 } else { 0o644 };
    let opened = beneath::open(folder.as_fd(), below, flags, Mode::from(mode), Links::Refused);
    settle_log(opened.map(File::from).map_err(io::Error::from), is_new, user, readers)
}

fn settle_log(
    opened: io::Result<File>,
    is_new: bool,
    user: Option<&User>,
    readers: LogReaders,
) -> io::Result<File> {
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::NXIO.raw_os_error() => {
            io::Error::other("it is a pipe or socket, and nobody reads it")
        }
        _ => error,
    })?;
    if readers == LogReaders::Owner && file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    if let Some(user) = user.filter(|_| is_new) {
        std::os::unix::fs::fchown(&file, Some(user.uid), Some(user.gid))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_without_a_reader_is_refused_and_one_with_is_never_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let mode = rustix::fs::Mode::from(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let error = open_log(&path, None, LogReaders::Everybody).unwrap_err();
        assert!(error.to_string().contains("nobody reads it"), "{error}");
        let _reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let log = open_log(&path, None, LogReaders::Everybody).unwrap();
        assert!(rustix::fs::fcntl_getfl(&log).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
    }

    #[test]
    fn a_link_in_a_mount_is_no_log() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("mount/sub")).unwrap();
        std::fs::write(at("victim"), "kept").unwrap();
        std::os::unix::fs::symlink("../victim", at("mount/link.log")).unwrap();
        std::os::unix::fs::symlink("..", at("mount/dir")).unwrap();
        let place = |below: &str| keel_model::FileLayer {
            path: "/logs".into(),
            kind: keel_model::FileLayerKind::Mounted,
            place: Some(keel_model::HostPlace { folder: at("mount"), below: below.into() }),
        };
        let open = |name: &str| {
            let trees = vec![keel_model::FileTree { name: "web".into(), layers: vec![place("")] }];
            let mut plan = Plan { trees, ..Plan::default() };
            plan.process.error_logs = vec![keel_model::ErrorLog {
                destination: keel_model::ErrorDestination::File(at("mount").join(name)),
                level: keel_model::LogLevel::Error,
            }];
            open_logs(&plan, &DataPlaneCommand::default()).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!((open("new.log"), open("sub/new.log")), (Ok(()), Ok(())));
        for link in ["link.log", "dir/victim", "dir/new"] {
            assert!(open(link).is_err(), "{link}");
        }
        assert_eq!(std::fs::read_to_string(at("victim")).unwrap(), "kept");
        assert!(!at("new").exists());
    }

    #[test]
    fn logs_of_a_project_are_for_its_owner_and_others_are_as_in_nginx() {
        let folder = tempfile::tempdir().unwrap();
        let check = |readers: LogReaders, expect: u32| {
            let path = folder.path().join("log");
            for before in [None, Some(0o644)] {
                if let Some(mode) = before {
                    std::fs::write(&path, "").unwrap();
                    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
                }
                let file = open_log(&path, None, readers).unwrap();
                assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, expect, "{before:?}");
                std::fs::remove_file(&path).unwrap();
            }
        };
        check(LogReaders::Owner, 0o600);
        check(LogReaders::Everybody, 0o644);
    }
}
