//! Whether the data plane's user can read the files that it is to serve.
//!
//! As a container's mounts do, the folders that are served from are held open, so that the way to them doesn't matter. What
//! lies in them must be open to the user. The kernel is asked, as that user: it alone knows access lists, groups and what
//! a server of files does with root.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use keel_diag::Diagnostic;
use keel_model::{FileSource, HostPlace, Part, Plan, Root, User};
use keel_tree::beneath;
use rustix::{
    fs::{Access, AtFlags},
    io::Errno,
};

/// How many files and folders of all roots are looked at.
const FILES_MAX: usize = 2_000;

/// Warns of files that are to be served and that the data plane's user can't read. Says, too, if not all were looked at
/// and none of them is closed.
pub(super) fn name_unreadable(plan: &Plan) -> Option<Diagnostic> {
    let user = plan.process.user.as_ref()?;
    let found: Vec<(HostPlace, Vec<PathBuf>)> =
        served(plan).into_iter().map(|place| (place.clone(), files(&place))).collect();
    let denied = denied(user, &found);
    let first = denied.first()?;
    let (name, shown) = (&user.name, first.file.display());
    let is_cut = found.iter().map(|(_, files)| files.len()).sum::<usize>() >= FILES_MAX;
    let message = match denied.len() {
        1 => format!("the data plane's user `{name}` can't read {shown}"),
        count if is_cut => {
            format!(
                "the data plane's user `{name}` can't read {count} of the first {FILES_MAX} files, {shown} among them"
            )
        }
        count => format!("the data plane's user `{name}` can't read {count} files, {shown} among them"),
    };
    let by = first.by.display();
    let diagnostic = Diagnostic::warning("join::unreadable", message);
    let diagnostic = match first.by == first.file {
        true => diagnostic.help(format!("let everybody read it: `chmod o+r {by}`")),
        false => diagnostic.help(format!("{by} is closed to others; let them pass: `chmod o+x {by}`")),
    };
    Some(diagnostic.help("or name another user in nginx.conf: `user NAME;`"))
}

/// The places on this host that files are served from.
fn served(plan: &Plan) -> Vec<HostPlace> {
    let mut found = Vec::new();
    for server in &plan.servers {
        let FileSource::Tree(name) = &server.files else { continue };
        let Some(tree) = plan.trees.iter().find(|tree| tree.name == *name) else { continue };
        let alone = Plan { servers: vec![server.clone()], ..Plan::default() };
        for scope in alone.scopes() {
            let (Root::Root(template) | Root::Alias(template)) = &scope.core.root;
            let Some(Part::Literal(root)) = template.parts.first() else { continue };
            let root = Path::new(root);
            for layer in &tree.layers {
                let Some(place) = &layer.place else { continue };
                if let Ok(below) = root.strip_prefix(&layer.path) {
                    found.push(HostPlace { below: join(&place.below, below), ..place.clone() });
                } else if layer.path.starts_with(root) {
                    found.push(place.clone());
                }
            }
        }
    }
    found.sort_by(|one, other| (&one.folder, &one.below).cmp(&(&other.folder, &other.below)));
    found.dedup();
    found
}

/// The files at a place, relative to its folder. Hidden ones are not meant for clients, and links lead elsewhere.
fn files(place: &HostPlace) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut rest = vec![place.below.clone()];
    while let Some(below) = rest.pop() {
        let path = join(&place.folder, &below);
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        if meta.is_file() {
            found.push(below);
        } else if meta.is_dir() {
            let names =
                std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.file_name());
            let shown = names.filter(|name| !name.as_encoded_bytes().starts_with(b"."));
            rest.extend(shown.map(|name| below.join(name)));
        }
        if found.len() + rest.len() > FILES_MAX {
            break;
        }
    }
    found.truncate(FILES_MAX);
    found
}

/// Appends a path; an empty one would leave a slash behind.
fn join(path: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { path.to_owned() } else { path.join(below) }
}

/// A file that can't be read.
struct Denied {
    file: PathBuf,
    /// What denies it: the file, or a folder on the way.
    by: PathBuf,
}

/// Asks the kernel, as the user.
fn denied(user: &User, found: &[(HostPlace, Vec<PathBuf>)]) -> Vec<Denied> {
    let groups = keel_sys::user::groups_of(&user.name, user.gid).unwrap_or_else(|_| vec![user.gid]);
    let open = |place: &HostPlace| beneath::open_real_folder(&place.folder).ok();
    let folders: Vec<(OwnedFd, &HostPlace, &Vec<PathBuf>)> =
        found.iter().filter_map(|(place, files)| Some((open(place)?, place, files))).collect();
    let ask = || {
        let all = folders.iter().flat_map(|(open, place, files)| {
            files.iter().filter_map(move |file| {
                let by = denies(open, file)?;
                Some(Denied { file: join(&place.folder, file), by: join(&place.folder, by) })
            })
        });
        all.collect()
    };
    // Who can't become the user serves as himself.
    keel_sys::user::as_user((user.uid, user.gid), &groups, ask).unwrap_or_default()
}

/// What denies reading a file of a folder: the outermost folder that can't be entered, or the file.
fn denies<'f>(folder: &OwnedFd, file: &'f Path) -> Option<&'f Path> {
    let denies = |path: &Path, access: Access| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let asked = rustix::fs::accessat(folder.as_fd(), path, access, AtFlags::EACCESS);
        matches!(asked, Err(Errno::ACCESS | Errno::PERM))
    };
    let above: Vec<&Path> = file.ancestors().skip(1).collect();
    let closed = above.into_iter().rev().find(|folder| denies(folder, Access::EXEC_OK));
    closed.or_else(|| denies(file, Access::READ_OK).then_some(file))
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    fn says(folder: &Path, user: &User) -> Vec<String> {
        let place = HostPlace { folder: folder.join("html"), below: PathBuf::new() };
        let found = [(place.clone(), files(&place))];
        let below = |path: &Path| path.strip_prefix(folder).unwrap().display().to_string();
        let denied = denied(user, &found);
        denied.iter().map(|one| format!("{} by {}", below(&one.file), below(&one.by))).collect()
    }

    #[test]
    fn what_denies_a_file_is_found() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can ask as another user");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let set = |path: &str, mode| {
            std::fs::set_permissions(folder.path().join(path), Permissions::from_mode(mode)).unwrap();
        };
        std::fs::create_dir_all(folder.path().join("html/sub")).unwrap();
        std::fs::write(folder.path().join("html/sub/x"), "").unwrap();
        std::fs::write(folder.path().join("html/.hidden"), "").unwrap();
        set("html/.hidden", 0o600);
        // The way to what is mounted doesn't matter.
        set("", 0o700);
        set("html", 0o755);
        set("html/sub", 0o711);
        set("html/sub/x", 0o604);
        let stranger = User { name: "nobody".into(), uid: 4_000_000, gid: 4_000_000 };
        assert!(says(folder.path(), &stranger).is_empty());
        let member = User { gid: 0, ..stranger.clone() };
        assert_eq!(says(folder.path(), &member), ["html/sub/x by html/sub/x"]);
        set("html/sub/x", 0o600);
        assert_eq!(says(folder.path(), &stranger), ["html/sub/x by html/sub/x"]);
        std::os::unix::fs::chown(folder.path().join("html/sub/x"), Some(4_000_000), None).unwrap();
        assert!(says(folder.path(), &stranger).is_empty());
        set("html", 0o700);
        assert_eq!(says(folder.path(), &stranger), ["html/sub/x by html"]);
    }
}
