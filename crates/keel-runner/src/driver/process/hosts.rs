//! The `/etc/hosts` that instances see, in which services and instances have names.
//!
//! One file for the project, mounted over each instance's own. It is never truncated and never replaced: a new content
//! is written over the old one in a single call and padded to the file's length, so that a reader sees the one or
//! the other.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs::File,
    io,
    net::IpAddr,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// The file's length from the start, so that it seldom grows.
const BYTES_MIN: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct Hosts {
    file: File,
    path: PathBuf,
    /// What the host's own file says.
    base: String,
    length: usize,
    written: Vec<u8>,
}

impl Hosts {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let base = std::fs::read_to_string("/etc/hosts").unwrap_or_else(|_| "127.0.0.1 localhost\n".into());
        let file = File::create(path)?;
        let mut hosts = Self { file, path: path.to_owned(), base, length: BYTES_MIN, written: Vec::new() };
        hosts.write(&BTreeMap::new())?;
        Ok(hosts)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes which names stand for which addresses.
    pub(super) fn write(&mut self, names: &BTreeMap<String, Vec<IpAddr>>) -> io::Result<()> {
        let text = text_of(&self.base, names, self.length);
        if text == self.written {
            return Ok(());
        }
        self.length = self.length.max(text.len());
        self.file.write_all_at(&text, 0)?;
        self.written = text;
        Ok(())
    }
}

fn text_of(base: &str, names: &BTreeMap<String, Vec<IpAddr>>, length: usize) -> Vec<u8> {
    let mut text = String::new();
    for (name, addresses) in names {
        for address in addresses {
            // Writing to a String can't fail.
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

    #[test]
    fn puts_names_before_the_hosts_own_and_pads() {
        let names =
            BTreeMap::from([("app".to_owned(), vec![IpAddr::from([127, 1, 2, 3]), [127, 4, 5, 6].into()])]);
        let text = text_of("127.0.0.1 localhost", &names, 80);
        assert_eq!(text.len(), 80);
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.trim_end(), "127.1.2.3\tapp\n127.4.5.6\tapp\n127.0.0.1 localhost");
    }

    #[test]
    fn a_shorter_content_leaves_nothing_of_a_longer_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut hosts = Hosts::create(&folder.path().join("hosts")).unwrap();
        let many: BTreeMap<_, _> =
            (0..2_000).map(|n| (format!("name-{n}"), vec![IpAddr::from([127, 1, 1, 1])])).collect();
        hosts.write(&many).unwrap();
        hosts.write(&BTreeMap::new()).unwrap();
        let text = std::fs::read_to_string(hosts.path()).unwrap();
        assert!(!text.contains("name-"));
        assert!(text.len() > BYTES_MIN);
    }

    #[test]
    fn asks_files_before_dns() {
        let host = "passwd: files systemd\nhosts:  mymachines resolve [!UNAVAIL=return] files\n";
        assert_eq!(nsswitch(host), "passwd: files systemd\nhosts: files dns\n");
    }
}
