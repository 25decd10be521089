//! What came in and what was answered, in a file that outlives the process.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Write},
};

/// Appends lines, each by one `write(2)`, so that a SIGKILL loses none that was begun before an answer.
pub(crate) struct Ledger(Option<File>);

impl Ledger {
    pub(crate) fn open(path: Option<OsString>) -> Result<Self, String> {
        let Some(path) = path.filter(|path| !path.is_empty()) else {
            return Ok(Self(None));
        };
        let file = OpenOptions::new().append(true).create(true).open(&path);
        file.map(|file| Self(Some(file)))
            .map_err(|error| format!("the ledger {} can't be opened: {error}", path.display()))
    }

    pub(crate) fn note(&self, line: &str) -> io::Result<()> {
        match &self.0 {
            Some(file) => (&mut &*file).write_all(format!("{line}\n").as_bytes()),
            None => Ok(()),
        }
    }
}
