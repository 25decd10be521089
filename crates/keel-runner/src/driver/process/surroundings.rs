//! The files that an instance sees otherwise than the host: `/etc/hosts`, `/etc/nsswitch.conf`, `/tmp`, `/dev/shm`.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use keel_model::ProcessSpec;
use keel_sys::sandbox::{NewNamespace, c_path};

use crate::error::at;

/// Where POSIX shared memory and semaphores are.
const SHARED_MEMORY: &str = "/dev/shm";

/// The files that are mounted over the host's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overlays<'a> {
    /// The life's own.
    pub(super) hosts: &'a Path,
    /// The project's.
    pub(super) nsswitch: Option<&'a Path>,
}

/// What a life is given.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) namespace: NewNamespace,
    /// Whether `/tmp` is its own.
    pub(super) private_tmp: bool,
}

/// Prepares a namespace. `folder` is the life's own; its `tmp` becomes `/tmp`.
pub(super) fn prepare(
    spec: &ProcessSpec,
    overlays: Overlays<'_>,
    folder: &Path,
    hostname: &str,
) -> io::Result<Surroundings> {
    let mut binds = Vec::new();
    let mut over = |source: &Path, target: &Path| -> io::Result<()> {
        binds.push((c_path(source)?, c_path(target)?));
        Ok(())
    };
    if Path::new("/etc/hosts").exists() {
        over(overlays.hosts, Path::new("/etc/hosts"))?;
    }
    if let Some(nsswitch) = overlays.nsswitch {
        over(nsswitch, Path::new("/etc/nsswitch.conf"))?;
    }
    let kept = kept_of_tmp(spec);
    let private_tmp = kept.is_some();
    if let Some(kept) = kept {
        let tmp = folder.join("tmp");
        fs::create_dir_all(&tmp).map_err(at(&tmp))?;
        fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777)).map_err(at(&tmp))?;
        for name in kept {
            let (source, target) = (Path::new("/tmp").join(&name), tmp.join(&name));
            match fs::metadata(&source) {
                Ok(metadata) if metadata.is_dir() => fs::create_dir_all(&target).map_err(at(&target))?,
                Ok(_) => drop(fs::File::create(&target).map_err(at(&target))?),
                Err(_) => continue,
            }
            over(&source, &target)?;
        }
        over(&tmp, Path::new("/tmp"))?;
    }
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let map_user = (!uid.is_root()).then(|| (uid.as_raw(), gid.as_raw()));
    let hostname = spec.hostname.as_deref().unwrap_or(hostname);
    let hostname = CString::new(hostname.get(..64).unwrap_or(hostname)).ok();
    let shared_memory =
        Some(SHARED_MEMORY).filter(|folder| Path::new(folder).is_dir() && !is_needed(spec, folder));
    let shared_memory = shared_memory.map(|folder| c_path(Path::new(folder))).transpose()?;
    Ok(Surroundings { namespace: NewNamespace { map_user, binds, shared_memory, hostname }, private_tmp })
}

/// What the service needs of this host's folders: its mounts, its program and what that is given, where it works.
fn needed(spec: &ProcessSpec) -> impl Iterator<Item = &Path> {
    let mapped = spec.path_map.iter().map(|(_, host)| host.as_path());
    let program = spec.argv.iter().map(Path::new);
    let prefix = spec.path_prefix.iter().map(PathBuf::as_path);
    mapped.chain(program).chain([spec.working_dir.as_path()]).chain(prefix)
}

/// Whether the service needs something of this folder of the host.
fn is_needed(spec: &ProcessSpec, folder: &str) -> bool {
    needed(spec).any(|path| path.starts_with(folder))
}

/// Which entries of the host's `/tmp` the service needs; `None` when that is all of it.
fn kept_of_tmp(spec: &ProcessSpec) -> Option<BTreeSet<PathBuf>> {
    let below = needed(spec).filter_map(|path| path.strip_prefix("/tmp").ok());
    below
        .map(|rest| match rest.components().next() {
            Some(Component::Normal(first)) => Some(PathBuf::from(first)),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_is_its_own_unless_the_file_mounts_it() {
        let spec = |host: &str| ProcessSpec {
            argv: vec!["app".into()],
            environment: Default::default(),
            working_dir: "/".into(),
            build: Vec::new(),
            path_map: vec![("/data".into(), host.into())],
            path_prefix: Vec::new(),
            hostname: None,
            user: None,
        };
        assert!(is_needed(&spec("/dev/shm"), SHARED_MEMORY));
        assert!(is_needed(&spec("/dev/shm/cache"), SHARED_MEMORY));
        assert!(!is_needed(&spec("/dev/shm2"), SHARED_MEMORY));
        let works_there = ProcessSpec { working_dir: "/dev/shm/project".into(), ..spec("/srv") };
        assert!(is_needed(&works_there, SHARED_MEMORY));
    }

    #[test]
    fn keeps_of_tmp_what_the_service_needs() {
        let check = |working_dir: &str, program: &str, expect: Option<&[&str]>| {
            let spec = ProcessSpec {
                argv: vec![program.into()],
                environment: Default::default(),
                working_dir: working_dir.into(),
                build: Vec::new(),
                path_map: vec![("/app".into(), "/srv/app".into())],
                path_prefix: vec!["/tmp/venvs/x/bin".into()],
                hostname: None,
                user: None,
            };
            let expect = expect.map(|names| names.iter().map(PathBuf::from).collect());
            assert_eq!(kept_of_tmp(&spec), expect, "{working_dir} {program}");
        };
        check("/srv", "app", Some(&["venvs"]));
        check("/tmp/project/app", "/tmp/bin", Some(&["bin", "project", "venvs"]));
        check("/tmp", "app", None);
    }
}
