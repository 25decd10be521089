//! The commands of a shell that make, copy, move and remove files, done on the layers of a container's files.

use std::path::{Path, PathBuf};

use super::{
    expand::Word,
    files::{Layer, matches_wildcard},
    shell::Shell,
};
use crate::{Origin, decode::tidy};

/// The paths that a word names; `None` where that isn't known.
pub(super) fn matching(shell: &Shell<'_>, word: &Word) -> Option<Vec<PathBuf>> {
    let path = shell.absolute(&word.text)?;
    if !word.pattern {
        return Some(vec![path]);
    }
    if word.text.contains('[') {
        return None;
    }
    let matches = |pattern: &str, name: &str| matches_wildcard(pattern.as_bytes(), name.as_bytes());
    Some(shell.files.matching(&path, &matches))
}

impl Shell<'_> {
    /// Does it; `None` where it can't be followed, and then nothing is done.
    pub(super) fn change(&mut self, name: &str, arguments: &[Word]) -> Option<()> {
        let is_option = |word: &&Word| word.text.starts_with('-') && word.text.len() > 1;
        let (options, paths): (Vec<&Word>, Vec<&Word>) = arguments.iter().partition(is_option);
        let known = match name {
            "rm" => "rRfvd",
            "cp" => "arRfpvdLPH",
            "mv" => "fv",
            "ln" => "sfnv",
            "mkdir" => "pvm",
            _ => "ac",
        };
        let is_known = |word: &&Word| match word.text.as_str() {
            "--recursive" | "--force" | "--verbose" | "--parents" | "--symbolic" | "--archive" | "--" => true,
            text => {
                text.trim_start_matches('-').chars().all(|c| known.contains(c)) && !text.starts_with("--")
            }
        };
        if !options.iter().all(is_known) {
            return None;
        }
        let mut named = Vec::new();
        for word in &paths {
            named.push(matching(self, word)?);
        }
        match name {
            "rm" => {
                for path in named.into_iter().flatten() {
                    self.files.add(&path, Layer::Removed, self.span);
                }
            }
            "mkdir" => {
                // The number after `-m` is a folder of no use.
                named.into_iter().flatten().for_each(|path| self.files.make_folder(&path));
            }
            "touch" => {
                for path in named.into_iter().flatten() {
                    if self.files.find(&path).is_none() && !self.files.is_folder(&path) {
                        self.files.write(&path, String::new(), self.span);
                    }
                }
            }
            _ => {
                let deep = options.iter().any(|word| word.text.contains(['r', 'R', 'a']));
                let kind = match name {
                    "cp" if deep => Transfer::Deep,
                    "cp" => Transfer::Flat,
                    "mv" => Transfer::Move,
                    _ => Transfer::Link,
                };
                return self.transfer(kind, &paths, named);
            }
        }
        Some(())
    }

    fn transfer(&mut self, kind: Transfer, words: &[&Word], mut named: Vec<Vec<PathBuf>>) -> Option<()> {
        let target_word = words.last().filter(|_| words.len() > 1)?;
        let mut targets = named.pop()?;
        let target = targets.pop().filter(|_| targets.is_empty())?;
        let is_folder = target_word.text.ends_with('/') || self.files.is_folder(&target);
        let several = named.iter().map(Vec::len).sum::<usize>() > 1;
        if several && !is_folder {
            return None;
        }
        let mut moves = Vec::new();
        for (word, paths) in words.iter().zip(named) {
            // A link's target counts from the link's own folder.
            let beside = if is_folder { Some(target.as_path()) } else { target.parent() };
            let paths = match beside.filter(|_| kind == Transfer::Link && !word.text.starts_with('/')) {
                Some(_) if word.pattern => return None,
                Some(folder) => vec![tidy(&folder.join(&word.text))],
                None => paths,
            };
            for source in paths {
                let content = word.text.ends_with("/.");
                let into = match source.file_name() {
                    Some(file) if is_folder && !content => target.join(file),
                    _ => target.clone(),
                };
                moves.push((source, into));
            }
        }
        let mut layers = Vec::new();
        for (source, into) in moves {
            self.layers(kind, &source, &into, &mut layers)?;
            if kind == Transfer::Move {
                layers.push((source, Layer::Removed));
            }
        }
        layers.into_iter().for_each(|(path, layer)| self.files.add(&path, layer, self.span));
        Some(())
    }

    /// The layers that a copy of one file or folder adds.
    fn layers(
        &self,
        kind: Transfer,
        source: &Path,
        into: &Path,
        layers: &mut Vec<(PathBuf, Layer)>,
    ) -> Option<()> {
        if kind == Transfer::Link && source.starts_with("/dev") {
            return Some(());
        }
        if !self.files.is_folder(source) {
            let origin = self.files.find(source)?;
            layers.push((into.to_owned(), Layer::Copied(origin)));
            return Some(());
        }
        if kind == Transfer::Flat || into.starts_with(source) {
            return None;
        }
        if let Some(host) = self.files.single_folder(source) {
            layers.push((into.to_owned(), Layer::Copied(Origin::Host(host))));
            return Some(());
        }
        if self.files.is_cut_below(source) {
            return None;
        }
        for path in self.files.below(source) {
            let below = path.strip_prefix(source).ok()?;
            layers.push((into.join(below), Layer::Copied(self.files.find(&path)?)));
        }
        Some(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transfer {
    Flat,
    Deep,
    Move,
    Link,
}
