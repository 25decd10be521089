//! The `/etc/hosts` that instances see, in which services and instances have names.
//!
//! A file for each life, mounted over its own: in it the instance's name is its own address, also while another life of the
//! instance still serves. It is never truncated and never replaced: a new content is written over the old one in a
//! single call and padded to the file's length, so that a reader sees the one or the other.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs::{File, Permissions},
    io,
    net::IpAddr,
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
};

use crate::supervisor::Incarnation;

/// The file's length from the start, so that it seldom grows.
const BYTES_MIN: usize = 4 << 10;

/// The files of all lives.
#[derive(Debug)]
pub(super) struct Hosts {
    /// What the host's own file says.
    base: String,
    names: BTreeMap<String, Vec<IpAddr>>,
    files: BTreeMap<Incarnation, HostsFile>,
}

/// Whose a file is.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    /// Its own names: those that `hostname` gives among them.
    pub(super) names: Vec<String>,
    pub(super) address: IpAddr,
}

#[derive(Debug)]
struct HostsFile {
    file: File,
    own: Owner,
    length: usize,
    written: Vec<u8>,
}

impl Hosts {
    pub(super) fn new() -> Self {
        let base = std::fs::read_to_string("/etc/hosts").unwrap_or_else(|_| "127.0.0.1 localhost\n".into());
        Self { base, names: BTreeMap::new(), files: BTreeMap::new() }
    }

    /// Makes the file of a life. It follows the names until [`forget`](Self::forget).
    pub(super) fn open(&mut self, incarnation: Incarnation, path: &Path, own: Owner) -> io::Result<()> {
        let file = File::create(path)?;
        // Every user reads it, under any umask of this process.
        file.set_permissions(Permissions::from_mode(0o644))?;
        let mut file = HostsFile { file, own, length: BYTES_MIN, written: Vec::new() };
        file.write(&self.base, &self.names)?;
        self.files.insert(incarnation, file);
        Ok(())
    }

    pub(super) fn forget(&mut self, incarnation: Incarnation) {
        self.files.remove(&incarnation);
    }

    /// Writes which names stand for which addresses.
    pub(super) fn write(&mut self, names: &BTreeMap<String, Vec<IpAddr>>) -> io::Result<()> {
        if self.names == *names {
            return Ok(());
        }
        self.names.clone_from(names);
        // One that can't be written keeps none of the others from it.
        self.files.values_mut().map(|file| file.write(&self.base, names)).fold(Ok(()), io::Result::and)
    }
}

impl HostsFile {
    fn write(&mut self, base: &str, names: &BTreeMap<String, Vec<IpAddr>>) -> io::Result<()> {
        let text = text_of(base, &self.own, names, self.length);
        if text == self.written {
            return Ok(());
        }
        self.length = self.length.max(text.len());
        self.file.write_all_at(&text, 0)?;
        self.written = text;
        Ok(())
    }
}

fn text_of(base: &str, own: &Owner, names: &BTreeMap<String, Vec<IpAddr>>, length: usize) -> Vec<u8> {
    let mut text = String::new();
    for name in &own.names {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{}\t{name}", own.address);
    }
    let is_own = |name: &str| own.names.iter().any(|own| own.eq_ignore_ascii_case(name));
    for (name, addresses) in names.iter().filter(|(name, _)| !is_own(name)) {
        for address in addresses {
            let _ = writeln!(text, "{address}\t{name}");
        }
    }
    text.push_str(base);
    let mut bytes = text.into_bytes();
    if bytes.last() != Some(&b'\n') {
        bytes.push(b'\n');
    }
    bytes.resize(bytes.len().max(length), b'\n');
    bytes
}

/// Makes a `nsswitch.conf` in which host names come from `/etc/hosts` first, and all else is the host's.
pub(super) fn nsswitch(host: &str) -> String {
    let others = host.lines().filter(|line| !line.trim_start().starts_with("hosts:"));
    others.chain(["hosts: files dns"]).fold(String::new(), |text, line| text + line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(names: &[&str]) -> Owner {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Owner { names, address: [127, 7, 7, 7].into() }
    }

    #[test]
    fn puts_names_before_the_hosts_own_and_pads() {
        let address = |last| IpAddr::from([127, 1, 2, last]);
        let names = BTreeMap::from([
            ("app".to_owned(), vec![address(3), address(4)]),
            ("app-1".to_owned(), vec![address(3)]),
            ("app-2".to_owned(), vec![address(4)]),
        ]);
        let text = text_of("127.0.0.1 localhost", &own(&["app-2"]), &names, 120);
        assert_eq!(text.len(), 120);
        let text = String::from_utf8(text).unwrap();
        let expect =
            "127.7.7.7\tapp-2\n127.1.2.3\tapp\n127.1.2.4\tapp\n127.1.2.3\tapp-1\n127.0.0.1 localhost";
        assert_eq!(text.trim_end(), expect);
    }

    #[test]
    fn its_hostname_is_its_own_although_all_of_the_service_have_it() {
        let names = BTreeMap::from([("node-a".to_owned(), vec![IpAddr::from([127, 1, 2, 3])])]);
        let text = text_of("", &own(&["app-1", "node-a"]), &names, 0);
        assert_eq!(String::from_utf8(text).unwrap().trim_end(), "127.7.7.7\tapp-1\n127.7.7.7\tnode-a");
    }

    #[test]
    fn a_shorter_content_leaves_nothing_of_a_longer_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        let mut hosts = Hosts::new();
        hosts.open(1, &path, own(&["app"])).unwrap();
        let many: BTreeMap<_, _> =
            (0..2_000).map(|n| (format!("name-{n}"), vec![IpAddr::from([127, 1, 1, 1])])).collect();
        hosts.write(&many).unwrap();
        let longest = std::fs::metadata(&path).unwrap().len();
        hosts.write(&BTreeMap::new()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("name-") && text.starts_with("127.7.7.7\tapp\n"));
        assert_eq!(text.len() as u64, longest);
    }

    #[test]
    fn one_that_comes_later_knows_the_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        let mut hosts = Hosts::new();
        hosts.write(&BTreeMap::from([("db".to_owned(), vec![[127, 1, 1, 1].into()])])).unwrap();
        hosts.open(1, &path, own(&["app"])).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("127.7.7.7\tapp\n127.1.1.1\tdb\n"));
    }

    #[test]
    fn asks_files_before_dns() {
        let host = "passwd: files systemd\nhosts:  mymachines resolve [!UNAVAIL=return] files\n";
        assert_eq!(nsswitch(host), "passwd: files systemd\nhosts: files dns\n");
    }
}
