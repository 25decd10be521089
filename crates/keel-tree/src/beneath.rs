//! Opens a path of a folder without leaving the folder (openat2(2), since Linux 5.6; a walk of single steps before).

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path},
    sync::LazyLock,
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

/// How often an opening is tried again that a rename somewhere has disturbed.
const TRIES_MAX: usize = 128;

/// What becomes of links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Each is an error, the last part of the path included.
    Refused,
    /// Relative ones that stay in the folder are followed, where the kernel can do so safely.
    Within,
}

/// Whether the kernel opens beneath a folder. Filters of system calls that are older than the call answer EPERM.
static IN_ONE_CALL: LazyLock<bool> = LazyLock::new(|| {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = rustix::fs::openat2(CWD, ".", flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS);
    !matches!(opened, Err(Errno::NOSYS | Errno::PERM))
});

/// Opens a path of a folder; an empty one is the folder itself. With `PATH | NOFOLLOW` the last part may be a link, which
/// is opened itself.
///
/// # Errors
/// `LOOP` for a link that isn't followed and `XDEV` for a way out of the folder; else what open(2) says.
pub fn open(
    folder: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    links: Links,
) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = flags | OFlags::CLOEXEC;
    if *IN_ONE_CALL {
        in_one_call(folder, path, flags, mode, links)
    } else {
        by_steps(folder, path, flags, mode)
    }
}

/// Opens a folder of this host by its path, to open what lies in it. The last part of the path may be a link.
///
/// # Errors
/// What open(2) says.
pub fn open_folder(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a folder of this host by a path in which no link is followed.
///
/// # Errors
/// `LOOP` for a link; else what open(2) says.
pub fn open_real_folder(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let below = path.strip_prefix("/").map_err(|_| Errno::INVAL)?;
    open(open_folder(Path::new("/"))?.as_fd(), below, flags, Mode::empty(), Links::Refused)
}

/// The kind of what is at a path of a folder, links themselves included.
///
/// # Errors
/// As [`open`].
pub fn kind(folder: BorrowedFd<'_>, path: &Path) -> Result<(FileType, OwnedFd), Errno> {
    let opened = open(folder, path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty(), Links::Refused)?;
    let meta = rustix::fs::fstat(&opened)?;
    Ok((FileType::from_raw_mode(meta.st_mode), opened))
}

fn in_one_call(
    folder: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    links: Links,
) -> Result<OwnedFd, Errno> {
    let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    if links == Links::Refused {
        resolve |= ResolveFlags::NO_SYMLINKS;
    }
    let mut outcome = Err(Errno::AGAIN);
    for _ in 0..TRIES_MAX {
        outcome = rustix::fs::openat2(folder, path, flags, mode, resolve);
        if !matches!(outcome, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    outcome
}

/// Refuses every link: which of them stay in the folder is found out elsewhere.
fn by_steps(folder: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let mut held: Option<OwnedFd> = None;
    let mut components = path.components().filter(|one| *one != Component::CurDir).peekable();
    if components.peek().is_none() {
        return rustix::fs::openat(folder, ".", flags, mode);
    }
    while let Some(component) = components.next() {
        let Component::Normal(name) = component else { return Err(Errno::XDEV) };
        let at = held.as_ref().map_or(folder, AsFd::as_fd);
        if components.peek().is_none() {
            return rustix::fs::openat(at, name, flags | OFlags::NOFOLLOW, mode);
        }
        let step = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = rustix::fs::openat(at, name, step, Mode::empty())?;
        if FileType::from_raw_mode(rustix::fs::fstat(&next)?.st_mode) == FileType::Symlink {
            return Err(Errno::LOOP);
        }
        held = Some(next);
    }
    Err(Errno::NOENT)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_leads_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        std::fs::create_dir_all(at("in/sub")).unwrap();
        std::fs::write(at("out"), "secret").unwrap();
        std::fs::write(at("in/sub/x"), "x").unwrap();
        let links = [
            ("in/rel", "sub/x"),
            ("in/up", "../out"),
            ("in/abs", at("out").to_str().unwrap()),
            ("in/dir", ".."),
            ("in/sub/back", "../sub/x"),
            ("in/self", "/proc/self/root"),
        ]
        .map(|(link, target)| symlink(target, at(link)).unwrap());
        assert_eq!(links.len(), 6);
        let inside = open_folder(&at("in")).unwrap();
        let read = OFlags::RDONLY;
        let kernel = |path: &str, links| {
            in_one_call(inside.as_fd(), Path::new(path), read | OFlags::CLOEXEC, Mode::empty(), links)
                .map(drop)
        };
        let steps = |path: &str| by_steps(inside.as_fd(), Path::new(path), read, Mode::empty()).map(drop);
        assert_eq!(
            (kernel("sub/x", Links::Refused), steps("sub/x"), steps("./sub/./x")),
            (Ok(()), Ok(()), Ok(()))
        );
        assert_eq!((kernel("rel", Links::Within), kernel("sub/back", Links::Within)), (Ok(()), Ok(())));
        for path in ["rel", "up", "abs", "dir/out", "sub/back", "self/etc/passwd"] {
            assert_eq!(
                (kernel(path, Links::Refused), steps(path)),
                (Err(Errno::LOOP), Err(Errno::LOOP)),
                "{path}"
            );
        }
        for path in ["up", "abs", "dir/out", "../out", "sub/../../out", "/etc/passwd"] {
            assert_eq!(kernel(path, Links::Within), Err(Errno::XDEV), "{path}");
        }
        assert!(kernel("self/etc/passwd", Links::Within).is_err());
        assert_eq!((steps("../out"), steps("/etc/passwd")), (Err(Errno::XDEV), Err(Errno::XDEV)));
        assert_eq!((steps("sub/no"), steps("sub/x/y")), (Err(Errno::NOENT), Err(Errno::NOTDIR)));
    }

    #[test]
    fn a_link_itself_can_be_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        symlink("x", folder.path().join("link")).unwrap();
        let at = open_folder(folder.path()).unwrap();
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let stepped = by_steps(at.as_fd(), Path::new("link"), flags, Mode::empty()).unwrap();
        let (kind, opened) = kind(at.as_fd(), Path::new("link")).unwrap();
        for opened in [&opened, &stepped] {
            assert_eq!(rustix::fs::readlinkat(opened, "", Vec::new()).unwrap().to_bytes(), b"x");
        }
        assert_eq!(kind, FileType::Symlink);
    }
}
