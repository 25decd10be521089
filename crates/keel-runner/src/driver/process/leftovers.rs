//! What a run writes down of itself, and the end of what outlived it.
//!
//! All processes of Evenkeel may be killed at once. The next `up` or `down` then finds what is left by any of these: the
//! run's control group, its mark ([`keel_sys::mark`]), a main process's id and start time. A number alone is never
//! enough, and nothing that is older than the run is touched. A record that is cut off, or of another boot, is good for
//! what it says, and the file that is every instance's `/etc/nsswitch.conf` tells them without any record.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use keel_sys::{
    mark::{FileId, Mark},
    proc::{Stat, stat},
};

use super::{
    census::{Family, end_all, find},
    cgroup,
};

/// The variable that every process of a run has in its environment.
pub(super) const VARIABLE: &str = "EVENKEEL_RUN";
/// The file in the state folder that all instances see as `/etc/nsswitch.conf`.
pub(super) const MARK_FILE: &str = "nsswitch.conf";

/// One run of the driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RunRecord {
    /// Which boot of the kernel: process ids of another mean nothing.
    pub(super) boot: String,
    /// A number that no other run has; empty if it isn't known.
    pub(super) id: String,
    /// When the supervisor started, in the kernel's ticks since boot.
    pub(super) began: u64,
    pub(super) cgroup: Option<PathBuf>,
    /// Main processes and when they started.
    lives: BTreeSet<(i32, u64)>,
}

impl RunRecord {
    /// Makes that of this process.
    pub(super) fn new(cgroup: Option<PathBuf>) -> Self {
        let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().replace('-', ""));
        let me = i32::try_from(std::process::id()).ok().and_then(stat);
        Self {
            boot: boot(),
            id: read("/proc/sys/kernel/random/uuid").unwrap_or_default(),
            began: me.map_or(0, |stat| stat.start_time),
            cgroup,
            lives: BTreeSet::new(),
        }
    }

    /// What a life's processes have as [`VARIABLE`].
    pub(super) fn value(&self, incarnation: u64) -> String {
        format!("{}.{incarnation}", self.id)
    }

    /// The mark of one life.
    pub(super) fn life_mark(&self, incarnation: u64) -> Mark {
        Mark::new(format!("{VARIABLE}={}\0", self.value(incarnation)), None)
    }

    /// The mark of all lives. `file` is the one that they see as `/etc/nsswitch.conf`.
    pub(super) fn mark(&self, file: Option<FileId>) -> Mark {
        // Without a number it would be anybody's.
        let variable = if self.id.is_empty() { String::new() } else { format!("{VARIABLE}={}.", self.id) };
        Mark::new(variable, file)
    }

    /// Writes it down with what lives, whole or not at all.
    pub(super) fn write<'a>(
        &self,
        path: &Path,
        families: impl Iterator<Item = &'a Family>,
    ) -> io::Result<()> {
        let mut text = format!("boot {}\nrun {} {}\n", self.boot, self.id, self.began);
        if let Some(cgroup) = self.cgroup.as_deref().and_then(Path::to_str) {
            text.push_str(&format!("cgroup {cgroup}\n"));
        }
        for family in families {
            text.push_str(&format!("life {} {}\n", family.pid, family.start_time));
        }
        let beside = path.with_extension("new");
        let mut options = fs::OpenOptions::new();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        fs::rename(beside, path)
    }

    fn parse(text: &str) -> Self {
        let mut record = Self::default();
        // A last line without an end may be cut off.
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let mut words = line.splitn(2, ' ');
            let (what, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let pair = || rest.split_once(' ').map(|(first, second)| (first.to_owned(), second.parse().ok()));
            match what {
                "boot" => rest.clone_into(&mut record.boot),
                "run" => {
                    if let Some((id, Some(began))) = pair() {
                        (record.id, record.began) = (id, began);
                    }
                }
                "cgroup" => record.cgroup = Some(rest.into()),
                "life" => {
                    record.lives.extend(pair().and_then(|(pid, started)| Some((pid.parse().ok()?, started?))))
                }
                _ => {}
            }
        }
        record
    }
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Ends what an earlier run left behind, and removes its files. Tells whether there was anything.
pub(crate) fn end_leftovers(state_dir: &Path) -> bool {
    let path = state_dir.join("instances");
    let text = fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let was_recorded = text.is_ok();
    let record = RunRecord::parse(&text.unwrap_or_default());
    let ended =
        if record.boot.is_empty() || record.boot == boot() { end_processes(&record, state_dir) } else { 0 };
    if ended > 0 {
        tracing::info!(ended, "ended processes that an earlier run left behind");
    }
    let run = state_dir.join("run");
    let had_files = fs::read_dir(&run).is_ok_and(|mut entries| entries.next().is_some());
    if let Err(error) = remove_tree(&run) {
        tracing::warn!("{} can't be removed: {error}", run.display());
    }
    let _ = fs::remove_file(&path);
    // What ended in good order has neither.
    ended > 0 || had_files || (was_recorded && !record.lives.is_empty())
}

fn end_processes(record: &RunRecord, state_dir: &Path) -> usize {
    if let Some(cgroup) = &record.cgroup {
        cgroup::kill(cgroup);
    }
    let mark = record.mark(FileId::of(&state_dir.join(MARK_FILE)).ok());
    let is_main = |pid: i32, stat: &Stat| record.lives.contains(&(pid, stat.start_time));
    let ended = end_all(|| find(record.began, is_main, &mark));
    if let Some(cgroup) = &record.cgroup {
        cgroup::remove(cgroup);
    }
    ended
}

/// Removes a folder with all that is in it, also what its owner had made unreadable to himself. Fine if there is none.
pub(super) fn remove_tree(folder: &Path) -> io::Result<()> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match fs::remove_dir_all(folder) {
        Err(error) if gone(&error) => Ok(()),
        Err(_) => {
            open_folders(folder);
            fs::remove_dir_all(folder).or_else(|error| if gone(&error) { Ok(()) } else { Err(error) })
        }
        Ok(()) => Ok(()),
    }
}

fn open_folders(folder: &Path) {
    let is_folder = fs::symlink_metadata(folder).is_ok_and(|metadata| metadata.is_dir());
    if !is_folder {
        return;
    }
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        open_folders(&entry.path());
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleep(value: Option<&str>) -> Child {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("sleep");
        command.arg("60").process_group(0).env_clear();
        let child = command.envs(value.map(|value| (VARIABLE, value))).spawn().unwrap();
        // It has no environment for a moment while it becomes another program.
        while value.is_some() && fs::read(format!("/proc/{}/environ", child.id())).unwrap().is_empty() {
            std::thread::yield_now();
        }
        child
    }

    fn family(child: &Child) -> Family {
        Family::of(i32::try_from(child.id()).unwrap(), Mark::default())
    }

    fn end(mut child: Child) {
        assert!(child.try_wait().unwrap().is_none(), "it was to go on");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn ends_leftovers_by_mark_or_by_pid_and_start_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("instances");
        let record = RunRecord::new(None);
        let (mut main, another) = (sleep(None), sleep(None));
        let mut marked = sleep(Some(&record.value(7)));
        let strangers = [sleep(Some("0123.7")), sleep(Some(&record.id))];
        let mut wrong = family(&another);
        wrong.start_time += 1;
        record.write(&path, [&family(&main), &wrong].into_iter()).unwrap();
        assert!(end_leftovers(folder.path()));
        assert!(!main.wait().unwrap().success());
        assert!(!marked.wait().unwrap().success());
        strangers.into_iter().chain([another]).for_each(end);
        assert!(!path.exists());
        assert!(!end_leftovers(folder.path()), "nothing is left");
    }

    #[test]
    fn a_record_that_is_cut_off_or_of_another_boot_ends_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("instances");
        let record = RunRecord::new(None);
        let child = sleep(None);
        record.write(&path, [&family(&child)].into_iter()).unwrap();
        let whole = fs::read(&path).unwrap();
        // Any cut: the process whose line is cut is left, and nothing fails.
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            end_leftovers(folder.path());
        }
        let text = String::from_utf8(whole).unwrap();
        fs::write(&path, text.replace(&record.boot, "another")).unwrap();
        end_leftovers(folder.path());
        end(child);
    }

    #[test]
    fn what_it_wrote_it_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("instances");
        let record = RunRecord::new(Some("/sys/fs/cgroup/a b".into()));
        record.write(&path, std::iter::empty()).unwrap();
        assert_eq!(RunRecord::parse(&fs::read_to_string(&path).unwrap()), record);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(record.id.len(), 32);
    }

    #[test]
    fn removes_what_was_made_unreadable() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        fs::create_dir_all(run.join("a/b")).unwrap();
        fs::write(run.join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", run.join("a/link")).unwrap();
        fs::set_permissions(run.join("a/b"), fs::Permissions::from_mode(0o0)).unwrap();
        remove_tree(&run).unwrap();
        assert!(!run.exists());
        remove_tree(&run).unwrap();
    }
}
