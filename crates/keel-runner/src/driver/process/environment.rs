//! What an instance finds in its environment, and which program a command names.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use keel_model::ProcessSpec;

/// What is handed through from Evenkeel's own environment, beside `LC_*`.
const HANDED_THROUGH: [&str; 6] = ["PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR"];
/// Where programs are when PATH isn't set.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the driver adds of its own.
pub(super) struct Own<'a> {
    pub(super) instance: &'a str,
    /// The port that the instance is to listen on.
    pub(super) port: Option<u16>,
    /// Whether it has a `/tmp` of its own, so that the host's TMPDIR may not be there.
    pub(super) private_tmp: bool,
}

/// Makes the whole environment of an instance. Later sources win: the host's, the driver's, the file's.
pub(super) fn environment(
    host: impl Iterator<Item = (OsString, OsString)>,
    own: &Own<'_>,
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

/// Finds the program that a command names, as execvp(3) would in that environment.
///
/// # Errors
/// A sentence that says what was looked for and where.
pub(super) fn find_program(name: &str, working_dir: &Path, path: &OsString) -> Result<PathBuf, String> {
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
        folders.into_iter().find(|program| is_program(program).unwrap_or(false))
    };
    // Images have `python`; many hosts have only `python3`.
    let python = || (name == "python").then(|| found("python3")).flatten();
    found(name).or_else(python).ok_or_else(|| format!("there is no command `{name}` on this machine"))
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
        let own = Own { instance: "app1", port: Some(5000), private_tmp: true };
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
        let own = Own { instance: "app1", port: None, private_tmp: false };
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
                find_program(name, Path::new(dir), &path).map(|program| program.display().to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), expect, "{name}");
        };
        check("/bin/sh", "/", Ok("/bin/sh"));
        check("./sh", "/bin", Ok("/bin/./sh"));
        check("./nothing", "/bin", Err("there is no /bin/./nothing"));
        check("/etc/passwd", "/", Err("/etc/passwd isn't executable"));
        check("no-such-command", "/", Err("there is no command `no-such-command` on this machine"));
        check("sh", "/no/such/dir", Err("its working directory /no/such/dir isn't there"));
    }
}
