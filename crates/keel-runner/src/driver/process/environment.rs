//! What an instance finds in its environment, and which program a command names.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use keel_model::{ProcessSpec, ProcessUser};

/// What is handed through from Evenkeel's own environment, beside `LC_*`.
const HANDED_THROUGH: [&str; 6] = ["PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR"];
/// Where programs are when PATH isn't set.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the driver adds of its own.
pub(super) struct Identity<'a> {
    pub(super) instance: &'a str,
    /// The port that the instance is to listen on.
    pub(super) port: Option<u16>,
    /// Whether it has a `/tmp` of its own, so that the host's TMPDIR may not be there.
    pub(super) private_tmp: bool,
}

/// Makes the whole environment of an instance. Later sources win: the host's, the driver's, the file's.
pub(super) fn environment(
    host: impl Iterator<Item = (OsString, OsString)>,
    own: &Identity<'_>,
    spec: &ProcessSpec,
) -> BTreeMap<OsString, OsString> {
    let handed_through = |name: &OsString| {
        HANDED_THROUGH.iter().any(|known| name == known) || name.as_bytes().starts_with(b"LC_")
    };
    let mut environment: BTreeMap<OsString, OsString> =
        host.filter(|(name, _)| handed_through(name)).collect();
    if own.private_tmp {
        environment.remove(std::ffi::OsStr::new("TMPDIR"));
    }
    environment.insert("PYTHONUNBUFFERED".into(), "1".into());
    environment.insert("HOSTNAME".into(), spec.hostname.as_deref().unwrap_or(own.instance).into());
    if let Some(user) = &spec.user {
        environment.insert("HOME".into(), user.home.clone().into());
        match &user.name {
            Some(name) => drop(environment.insert("USER".into(), name.into())),
            None => drop(environment.remove(std::ffi::OsStr::new("USER"))),
        }
    }
    if let Some(port) = own.port {
        environment.insert("PORT".into(), port.to_string().into());
    }
    for (name, value) in &spec.environment {
        environment.insert(name.into(), value.into());
    }
    let path = environment.entry("PATH".into()).or_insert_with(|| PATH_DEFAULT.into());
    let mut prefixed = OsString::new();
    for folder in &spec.path_prefix {
        prefixed.push(folder);
        prefixed.push(":");
    }
    prefixed.push(&*path);
    *path = prefixed;
    environment
}

/// Finds the program that a command names, as execvp(3) would in that environment and with the rights of that user.
///
/// # Errors
/// A sentence that says what was looked for and where.
pub(super) fn find_program(
    name: &str,
    working_dir: &Path,
    path: &OsString,
    user: Option<&ProcessUser>,
) -> Result<PathBuf, String> {
    if !working_dir.is_dir() {
        return Err(format!("its working directory {} isn't there", working_dir.display()));
    }
    if name.contains('/') {
        let program = working_dir.join(name);
        return match is_program(&program) {
            Ok(true) => Ok(program),
            Ok(false) => Err(format!("{} isn't executable", program.display())),
            Err(_) => Err(format!("there is no {}", program.display())),
        };
    }
    let found = |name: &str| {
        let folders = std::env::split_paths(path).map(|folder| working_dir.join(folder).join(name));
        let programs: Vec<_> = folders.filter(|program| is_program(program).unwrap_or(false)).collect();
        let may_run = |program: &&PathBuf| why_closed(program, user).is_none();
        programs.iter().find(may_run).or(programs.first()).cloned()
    };
    // Images have `python`; many hosts have only `python3`.
    let python = || (name == "python").then(|| found("python3")).flatten();
    found(name).or_else(python).ok_or_else(|| format!("there is no command `{name}` on this machine"))
}

/// Says why a user other than this process's can't run a program, as far as modes tell; access lists may allow more, so this
/// explains a refusal and refuses nothing.
pub(super) fn why_closed(program: &Path, user: Option<&ProcessUser>) -> Option<String> {
    let user = user?;
    let real = program.canonicalize().unwrap_or_else(|_| program.to_owned());
    let closed = |path: &&Path| std::fs::metadata(path).is_ok_and(|meta| !may_pass(&meta, user));
    let parts = program.ancestors().chain(real.ancestors()).filter(|part| !part.as_os_str().is_empty());
    let part = parts.filter(closed).min_by_key(|part| part.components().count())?;
    let name = user.name.clone().unwrap_or_else(|| user.uid.to_string());
    Some(format!("{} is closed to user {name}", part.display()))
}

/// Whether a user may run a file or go through a folder, as its mode has it.
fn may_pass(meta: &std::fs::Metadata, user: &ProcessUser) -> bool {
    let mask = match () {
        () if user.uid == 0 => 0o111,
        () if meta.uid() == user.uid => 0o100,
        () if meta.gid() == user.gid || user.groups.contains(&meta.gid()) => 0o010,
        () => 0o001,
    };
    meta.mode() & mask != 0
}

fn is_program(path: &Path) -> io::Result<bool> {
    let metadata = std::fs::metadata(path)?;
    Ok(metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(environment: &[(&str, &str)], path_prefix: &[&str]) -> ProcessSpec {
        ProcessSpec {
            argv: Vec::new(),
            environment: environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            working_dir: "/".into(),
            build: Vec::new(),
            path_map: Vec::new(),
            path_prefix: path_prefix.iter().map(PathBuf::from).collect(),
            hostname: None,
            user: None,
        }
    }

    #[test]
    fn is_clean_and_complete() {
        let host =
            [("PATH", "/bin"), ("LC_ALL", "C"), ("TMPDIR", "/tmp/x"), ("AWS_SECRET", "s"), ("TZ", "UTC")];
        let host = host.into_iter().map(|(name, value)| (name.into(), value.into()));
        let own = Identity { instance: "app1", port: Some(5000), private_tmp: true };
        let made = environment(host, &own, &spec(&[("TZ", "CET"), ("NAME", "x")], &["/venv/bin"]));
        let made: Vec<_> = made.iter().map(|(k, v)| format!("{}={}", k.display(), v.display())).collect();
        let expect = [
            "HOSTNAME=app1",
            "LC_ALL=C",
            "NAME=x",
            "PATH=/venv/bin:/bin",
            "PORT=5000",
            "PYTHONUNBUFFERED=1",
            "TZ=CET",
        ];
        assert_eq!(made, expect);
    }

    #[test]
    fn says_which_machine_and_user_it_is() {
        let host = [("HOME", "/root"), ("USER", "root")].into_iter().map(|(k, v)| (k.into(), v.into()));
        let own = Identity { instance: "app1", port: None, private_tmp: false };
        let mut spec = spec(&[], &[]);
        spec.hostname = Some("node-a".into());
        let user = keel_model::ProcessUser {
            name: None,
            home: "/".into(),
            uid: 1000,
            gid: 1000,
            groups: Vec::new(),
        };
        spec.user = Some(user);
        let made = environment(host, &own, &spec);
        let get = |name: &str| made.get(std::ffi::OsStr::new(name)).and_then(|value| value.to_str());
        assert_eq!((get("HOSTNAME"), get("HOME"), get("USER")), (Some("node-a"), Some("/"), None));
    }

    #[test]
    fn finds_programs_and_says_what_is_missing() {
        let path = OsString::from("/usr/bin:/bin");
        let check = |name: &str, dir: &str, expect: Result<&str, &str>| {
            let found =
                find_program(name, Path::new(dir), &path, None).map(|program| program.display().to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), expect, "{name}");
        };
        check("/bin/sh", "/", Ok("/bin/sh"));
        check("./sh", "/bin", Ok("/bin/./sh"));
        check("./nothing", "/bin", Err("there is no /bin/./nothing"));
        check("/etc/passwd", "/", Err("/etc/passwd isn't executable"));
        check("no-such-command", "/", Err("there is no command `no-such-command` on this machine"));
        check("sh", "/no/such/dir", Err("its working directory /no/such/dir isn't there"));
    }

    #[test]
    fn a_user_gets_the_first_program_that_it_may_run() {
        // Open to all users, as a TMPDIR may not be.
        let dir = Path::new("/tmp").join(format!("keel-programs-{}", std::process::id()));
        let make = |folder: &str, folder_mode: u32| {
            let folder = dir.join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            let program = folder.join("tool");
            std::fs::write(&program, "").unwrap();
            std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
            std::fs::set_permissions(&folder, PermissionsExt::from_mode(folder_mode)).unwrap();
            program
        };
        let (closed, open) = (make("closed", 0o700), make("open", 0o755));
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
        let uid = std::fs::metadata(&closed).unwrap().uid();
        let other = ProcessUser {
            name: Some("app".into()),
            home: "/".into(),
            uid: uid + 4321,
            gid: 4_000_000,
            groups: Vec::new(),
        };
        let find = |folders: &[&str], user: &ProcessUser| {
            let path = std::env::join_paths(folders.iter().map(|folder| dir.join(folder))).unwrap();
            find_program("tool", &dir, &path, Some(user))
        };
        assert_eq!(find(&["closed", "open"], &other), Ok(open));
        assert_eq!(find(&["closed", "open"], &ProcessUser { uid, ..other.clone() }), Ok(closed.clone()));
        let folder = dir.join("closed");
        assert_eq!(find(&["closed"], &other), Ok(closed.clone()), "an access list may allow it");
        let said = format!("{} is closed to user app", folder.display());
        assert_eq!(why_closed(&closed, Some(&other)), Some(said));
        assert_eq!(why_closed(&closed, None), None);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
