//! A control group for each life, where this process may make one: `cgroup.kill` reaches what nothing else does.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// What the groups that Evenkeel makes begin with; project, run and process id follow.
const PREFIX: &str = "evenkeel-";
/// Tells the runs of one process apart.
static NEXT: AtomicU32 = AtomicU32::new(1);
/// How often the removal of a group is tried whose processes are about to end.
const REMOVALS_MAX: u32 = 100;
const REMOVED_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// The group below which instances get theirs.
#[derive(Clone, Debug)]
pub(super) struct Cgroups {
    folder: PathBuf,
}

impl Cgroups {
    /// Finds the group of this process in the unified hierarchy and makes one for the project in it.
    ///
    /// # Errors
    /// When there is no unified hierarchy, or it isn't delegated to this user.
    pub(super) fn open(project: &str) -> io::Result<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup")?;
        let mounts = keel_sys::proc::text("/proc/self/mounts")?;
        let folder = folder_of(&own, &mounts).ok_or(io::ErrorKind::Unsupported)?;
        remove_dead(&folder);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{}", name_of(project), std::process::id());
        let folder = folder.join(name);
        // A run that had this process id and was killed.
        remove(&folder);
        std::fs::create_dir(&folder)?;
        Ok(Self { folder })
    }

    /// The group of all lives.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Opens the file that ends all that lives in it; `None` before Linux 5.14.
    pub(super) fn open_kill(&self) -> Option<File> {
        OpenOptions::new().write(true).open(self.folder.join("cgroup.kill")).ok()
    }

    /// Makes the group of one life; gives where to write its first process.
    pub(super) fn make(&self, name: &str) -> io::Result<(PathBuf, OwnedFd)> {
        let folder = self.folder.join(name_of(name));
        std::fs::create_dir(&folder)?;
        let processes: File = OpenOptions::new().write(true).open(folder.join("cgroup.procs"))?;
        Ok((folder, processes.into()))
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        remove_now(&self.folder);
    }
}

/// Ends all processes of a group and of those below it.
pub(super) fn kill(folder: &Path) {
    let _ = std::fs::write(folder.join("cgroup.kill"), "1");
}

/// Removes a group whose processes have ended, and those below it. Waits for them, if not for long.
pub(super) fn remove(folder: &Path) {
    for _ in 0..REMOVALS_MAX {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_now(&entry.path());
            }
        }
        match std::fs::remove_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                std::thread::sleep(REMOVED_AGAIN_AFTER)
            }
            _ => return,
        }
    }
}

/// Removes it as far as nothing lives in it.
fn remove_now(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_now(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(folder);
}

/// Removes what runs left behind that were killed, as far as nothing lives in it.
fn remove_dead(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(pid_of);
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove_now(&entry.path());
        }
    }
}

/// The process whose group has that name, if it is one of ours.
fn pid_of(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.rsplit_once('-')?.1.parse().ok()
}

/// Makes a name that can be a folder's.
fn name_of(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect()
}

fn folder_of(own: &str, mounts: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (at, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then_some(at)
    })?;
    Some(Path::new(mount).join(path.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_own_groups() {
        assert_eq!(pid_of("evenkeel-my-shop-42"), Some(42));
        assert_eq!(pid_of("evenkeel-42"), None);
        assert_eq!(pid_of("user-shop-42"), None);
        assert_eq!(name_of("a/b c.d-e"), "a_b_c.d-e");
    }

    #[test]
    fn finds_the_unified_hierarchy() {
        let check = |own: &str, mounts: &str, expect: Option<&str>| {
            assert_eq!(folder_of(own, mounts), expect.map(PathBuf::from));
        };
        let unified = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        check("0::/user.slice/x.scope\n", unified, Some("/sys/fs/cgroup/user.slice/x.scope"));
        let hybrid =
            "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        check("3:cpu:/\n0::/\n", hybrid, Some("/sys/fs/cgroup/unified/"));
        check("3:cpu:/\n", hybrid, None);
        check("0::/\n", "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n", None);
    }
}
