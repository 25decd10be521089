//! `include`: other Compose files, each read as a project of its own and then taken in.
//!
//! Relative paths in them start from their own folder, variables come from their own .env below ours. What both files
//! declare is merged, ours over theirs; of two that are included the first counts (compose-go, loader/include.go).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use keel_diag::Diagnostic;

use crate::{
    decode::Decoder,
    extends::{missing_file, rebase},
    files::FileReader,
    files::is_readable,
    merge,
    schema::{self, Care},
    yaml::{Entry, Mapping, Node, Value},
};

/// How deep files may include each other.
const DEPTH_MAX: usize = 16;
/// Files included in one run at most.
const INCLUDES_MAX: usize = 256;

const SECTIONS: [&str; 5] = ["services", "networks", "volumes", "configs", "secrets"];

/// One entry of `include`.
struct Include {
    files: Vec<PathBuf>,
    folder: PathBuf,
    env_files: Vec<PathBuf>,
}

impl FileReader<'_> {
    /// Takes in what a document includes.
    pub(crate) fn included(
        &mut self,
        mut document: Node,
        folder: &Path,
        variables: &BTreeMap<String, String>,
    ) -> Node {
        let Value::Mapping(entries) = &mut document.value else { return document };
        let Some(list) = entries.shift_remove("include") else { return document };
        if self.include_depth >= DEPTH_MAX {
            self.report.push(
                Diagnostic::error("compose::include", "files include each other without end")
                    .at(list.key, format!("{DEPTH_MAX} deep here")),
            );
            return document;
        }
        for include in self.include_list(&list.value, folder, variables) {
            self.includes += 1;
            if self.includes > INCLUDES_MAX {
                let message = format!("more than {INCLUDES_MAX} files are included");
                self.report.push(Diagnostic::error("compose::include", message).at(list.key, "passed here"));
                break;
            }
            let inner = self.variables_of(&include.env_files, variables);
            self.include_depth += 1;
            let tree = self.project_tree(&include.files, &include.folder, &inner);
            self.include_depth -= 1;
            if let Some(tree) = tree {
                let tree = rebase(tree, &include.folder, &inner);
                take_in(entries, tree);
            }
        }
        document
    }

    fn include_list(
        &mut self,
        node: &Node,
        folder: &Path,
        variables: &BTreeMap<String, String>,
    ) -> Vec<Include> {
        let mut decoder = Decoder { report: self.report, folder, variables };
        let mut result = Vec::new();
        for item in decoder.items(node) {
            let (paths, own_folder, env_files) = match &item.value {
                Value::Mapping(entries) => {
                    schema::check(entries, schema::INCLUDE, "`include`", Care::Effects, decoder.report);
                    let mut texts =
                        |name: &str| item.get(name).map_or_else(Vec::new, |node| decoder.texts(node));
                    (texts("path"), texts("project_directory"), texts("env_file"))
                }
                _ => (decoder.texts(item), Vec::new(), Vec::new()),
            };
            let absolute = |texts: Vec<crate::Spanned<String>>| -> Vec<PathBuf> {
                texts.iter().map(|text| decoder.path(&text.value)).collect()
            };
            let (files, env_files) = (absolute(paths), absolute(env_files));
            let Some(first) = files.first() else {
                decoder.invalid(item.span, "`include` needs a path", "");
                continue;
            };
            let parent = || first.parent().unwrap_or(folder).to_owned();
            let folder = absolute(own_folder).pop().unwrap_or_else(parent);
            for path in env_files.iter().filter(|path| !is_readable(path)) {
                missing_file(decoder.report, path, item.span);
            }
            let env_files = if env_files.is_empty() { vec![folder.join(".env")] } else { env_files };
            result.push(Include { files, folder, env_files });
        }
        result
    }
}

fn take_in(entries: &mut Mapping, tree: Node) {
    let Value::Mapping(included) = tree.value else { return };
    for (section, entry) in included {
        if !SECTIONS.contains(&section.as_str()) {
            continue;
        }
        let empty = || Entry { key: entry.key, value: Node::mapping(entry.value.span, Mapping::new()) };
        let ours = entries.entry(section.clone()).or_insert_with(empty);
        let Value::Mapping(theirs) = entry.value.value else { continue };
        if ours.value.is_null() {
            ours.value = Node::mapping(entry.value.span, Mapping::new());
        }
        let Value::Mapping(ours) = &mut ours.value.value else { continue };
        for (name, resource) in theirs {
            match ours.get_mut(&name) {
                Some(known) if known.value != resource.value => {
                    let own = std::mem::replace(&mut known.value, Node::null(known.key));
                    known.value = merge::merge_resource(&section, resource.value, own);
                }
                Some(_) => {}
                None => {
                    ours.insert(name, resource);
                }
            }
        }
    }
}
