//! A file of users: `user:entry` on each line, and perhaps a comment behind another colon.

use std::collections::HashMap;

/// The users of a file.
#[derive(Debug, Default)]
pub struct UserFile {
    entries: HashMap<Vec<u8>, Vec<u8>>,
}

impl UserFile {
    /// Reads a file's text. Lines that begin with `#`, and those without a colon, say nothing; of several lines for one user
    /// the first counts.
    pub fn parse(text: &[u8]) -> Self {
        let mut entries = HashMap::new();
        for line in text.split(|byte| *byte == b'\n') {
            let mut parts = line.splitn(2, |byte| *byte == b':');
            let (Some(user), Some(rest)) = (parts.next(), parts.next()) else { continue };
            if matches!(line.first(), Some(b'#' | b'\r')) {
                continue;
            }
            let entry = rest.split(|byte| matches!(byte, b':' | b'\r')).next().unwrap_or_default();
            entries.entry(user.to_vec()).or_insert_with(|| entry.to_vec());
        }
        Self { entries }
    }

    /// The entry of a user.
    pub fn entry(&self, user: &[u8]) -> Option<&[u8]> {
        self.entries.get(user).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_nginx_reads_them() {
        let text = b"# comment: x\na:1\r\nb:2:said of b\n\nno colon\na:3\n\rc:4\n d :5\n:6\ne:7";
        let file = UserFile::parse(text);
        let check = |user: &str, expect: Option<&str>| {
            assert_eq!(file.entry(user.as_bytes()), expect.map(str::as_bytes), "of {user:?}");
        };
        check("a", Some("1"));
        check("b", Some("2"));
        check("c", None);
        check(" d ", Some("5"));
        check("", Some("6"));
        check("e", Some("7"));
        check("# comment", None);
        check("no colon", None);
    }
}
