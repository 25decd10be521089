//! Whether the data plane's user can read the files that it is to serve.
//!
//! A container reads them through its mounts, past the folders above: of a project in root's closed home folder nginx
//! serves what Evenkeel, which has no mounts, can't reach. The question is answered from owners and modes. A file with an
//! access list is taken for readable: only the kernel knows.

use std::{
    collections::BTreeMap,
    fs::Metadata,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use keel_compose::Origin;
use keel_diag::Diagnostic;
use keel_model::{Part, Plan, Root, User};

use super::placed::PlacedFiles;

/// How many files and folders of a root are looked at.
const FILES_MAX: usize = 2_000;
/// The name under which the kernel keeps a file's access list.
const ACCESS_LIST: &str = "system.posix_acl_access";

/// Warns of files that are to be served and that the data plane's user can't read.
pub(super) fn name_unreadable(plan: &Plan, placed: &PlacedFiles) -> Option<Diagnostic> {
    let mut reader = FileRights::new(plan.process.user.as_ref()?);
    let mut denied: Vec<Denied> = Vec::new();
    for file in files(plan, placed) {
        denied.extend(reader.denied(&file));
    }
    let first = denied.first()?;
    let (user, shown) = (&reader.user.name, first.file.display());
    let message = match denied.len() {
        1 => format!("the data plane's user `{user}` can't read {shown}"),
        count => format!("the data plane's user `{user}` can't read {count} files, {shown} among them"),
    };
    let by = first.by.display();
    let diagnostic = Diagnostic::warning("join::unreadable", message);
    let diagnostic = match () {
        () if first.file == placed.folder => diagnostic
            .help(format!("{by} is closed to others: set XDG_STATE_HOME to a folder that they can pass")),
        () if first.by == first.file => diagnostic.help(format!("let everybody read it: `chmod o+r {by}`")),
        () => diagnostic
            .help(format!(
                "{by} is closed to others: nginx in a container, which reads through a mount, doesn't pass it"
            ))
            .help(format!("move the project elsewhere, or let others pass: `chmod o+x {by}`")),
    };
    Some(diagnostic.help("or name another user in nginx.conf: `user NAME;`"))
}

/// Gives files of this host that are to be served. Hidden ones are not meant for clients.
fn files(plan: &Plan, placed: &PlacedFiles) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = placed
        .files
        .iter()
        .filter_map(|file| match &file.origin {
            Origin::Host(host) => Some(host.clone()),
            // Everyone who may pass the folder reads it.
            Origin::Text(_) => None,
        })
        .collect();
    if !placed.files.is_empty() {
        found.insert(0, placed.folder.clone());
    }
    let roots = plan.scopes().into_iter().filter_map(|scope| match &scope.core.root {
        Root::Root(template) | Root::Alias(template) => match template.parts.first() {
            Some(Part::Literal(path)) => Some(PathBuf::from(path)),
            _ => None,
        },
    });
    let mut roots: Vec<PathBuf> = roots.filter(|root| !root.starts_with(&placed.folder)).collect();
    roots.sort();
    roots.dedup();
    for root in roots {
        add_below(root, &mut found);
    }
    found.retain(|path| !is_hidden(path));
    found.truncate(FILES_MAX);
    found
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Adds what lies below a folder. Links to folders aren't gone through: they may lead in a circle.
fn add_below(root: PathBuf, found: &mut Vec<PathBuf>) {
    let mut folders = vec![root];
    let mut looked_at = 0;
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            looked_at += 1;
            if looked_at > FILES_MAX {
                return;
            }
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && !is_hidden(&entry.path()) {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
}

/// A file that can't be read.
struct Denied {
    file: PathBuf,
    /// What denies it: the file, or a folder on the way.
    by: PathBuf,
}

/// What a user may do with files.
struct FileRights<'a> {
    user: &'a User,
    groups: Vec<u32>,
    /// The folders that were asked about, with the outermost that denies.
    folders: BTreeMap<PathBuf, Option<PathBuf>>,
}

impl<'a> FileRights<'a> {
    fn new(user: &'a User) -> Self {
        let groups = keel_sys::user::groups_of(&user.name, user.gid).unwrap_or_else(|_| vec![user.gid]);
        Self { user, groups, folders: BTreeMap::new() }
    }

    /// Tells what denies a file, or entering a folder.
    fn denied(&mut self, file: &Path) -> Option<Denied> {
        let ways = [Some(file.to_owned()), std::fs::canonicalize(file).ok()];
        let by = ways.into_iter().flatten().find_map(|path| {
            let folder = path.parent().and_then(|parent| self.folder(parent));
            folder.or_else(|| self.closes(&path).then_some(path))
        });
        // What is named is what the user has named.
        by.map(|by| Denied { file: file.to_owned(), by })
    }

    /// Gives the outermost folder on the way to and into one that denies.
    fn folder(&mut self, folder: &Path) -> Option<PathBuf> {
        if let Some(known) = self.folders.get(folder) {
            return known.clone();
        }
        let above = folder.parent().and_then(|parent| self.folder(parent));
        let denied = above.or_else(|| self.closes(folder).then(|| folder.to_owned()));
        self.folders.insert(folder.to_owned(), denied.clone());
        denied
    }

    /// Tells whether this path itself is what denies: a folder to be entered, or a file to be read. What isn't there
    /// denies nothing.
    fn closes(&self, path: &Path) -> bool {
        const READ: u32 = 0o4;
        const ENTER: u32 = 0o1;
        let Ok(meta) = std::fs::metadata(path) else { return false };
        let needed = if meta.is_dir() { ENTER } else { READ };
        !self.may(&meta, needed) && rustix::fs::getxattr(path, ACCESS_LIST, &mut [0_u8; 0][..]).is_err()
    }

    fn may(&self, meta: &Metadata, needed: u32) -> bool {
        let shift = match () {
            () if self.user.uid == 0 => return true,
            () if meta.uid() == self.user.uid => 6,
            () if self.groups.contains(&meta.gid()) => 3,
            () => 0,
        };
        meta.mode() >> shift & needed != 0
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    fn says(folder: &Path, user: &User) -> Option<String> {
        let mut reader = FileRights::new(user);
        let mut found = Vec::new();
        add_below(folder.join("html"), &mut found);
        let denied = found.iter().find_map(|file| reader.denied(file))?;
        let below = |path: &Path| path.strip_prefix(folder).unwrap().display().to_string();
        Some(format!("{} by {}", below(&denied.file), below(&denied.by)))
    }

    #[test]
    fn what_denies_a_file_is_found() {
        // The folders above must be open.
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let set = |path: &str, mode| {
            std::fs::set_permissions(folder.path().join(path), Permissions::from_mode(mode)).unwrap();
        };
        std::fs::create_dir_all(folder.path().join("html/sub")).unwrap();
        std::fs::write(folder.path().join("html/sub/x"), "").unwrap();
        set("", 0o755);
        set("html", 0o755);
        set("html/sub", 0o711);
        set("html/sub/x", 0o604);
        let meta = std::fs::metadata(folder.path().join("html/sub/x")).unwrap();
        let stranger = User { name: "nobody".into(), uid: 4_000_000, gid: 4_000_000 };
        assert_eq!(says(folder.path(), &stranger), None);
        let member = User { gid: meta.gid(), ..stranger.clone() };
        assert_eq!(says(folder.path(), &member).as_deref(), Some("html/sub/x by html/sub/x"));
        set("html/sub/x", 0o600);
        assert_eq!(says(folder.path(), &stranger).as_deref(), Some("html/sub/x by html/sub/x"));
        let owner = User { uid: meta.uid(), ..stranger.clone() };
        assert_eq!(says(folder.path(), &owner), None);
        set("html", 0o700);
        assert_eq!(says(folder.path(), &stranger).as_deref(), Some("html/sub/x by html"));
    }
}
