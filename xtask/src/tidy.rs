//! Checks of the house that no compiler makes: who may import whom, what is banned, how long files are.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, ensure};
use serde_json::Value;

/// Who may import whom, directly. Tests may also use keel-testkit; the binary may use every crate.
const IMPORTS: &[(&str, &[&str])] = &[
    ("keel-diag", &[]),
    ("keel-http", &[]),
    ("keel-limit", &[]),
    ("keel-model", &[]),
    ("keel-password", &[]),
    ("keel-sys", &[]),
    ("keel-engine", &["keel-model"]),
    ("keel-lb", &["keel-metrics", "keel-model"]),
    ("keel-metrics", &["keel-model"]),
    ("keel-regex", &["keel-model"]),
    ("keel-telemetry", &["keel-model"]),
    ("keel-tls", &["keel-model"]),
    ("keel-tree", &["keel-model"]),
    ("keel-compose", &["keel-diag", "keel-model", "keel-tree"]),
    ("keel-kube", &["keel-compose", "keel-diag", "keel-model"]),
    ("keel-nginx", &["keel-diag", "keel-lb", "keel-model", "keel-regex", "keel-tls"]),
    (
        "keel-proxy",
        &[
            "keel-http",
            "keel-lb",
            "keel-limit",
            "keel-metrics",
            "keel-model",
            "keel-password",
            "keel-regex",
            "keel-sys",
            "keel-telemetry",
            "keel-tls",
            "keel-tree",
        ],
    ),
    ("keel-runner", &["keel-engine", "keel-model", "keel-sys", "keel-telemetry"]),
    (
        "keel-control",
        &[
            "keel-compose",
            "keel-diag",
            "keel-engine",
            "keel-kube",
            "keel-model",
            "keel-nginx",
            "keel-proxy",
            "keel-runner",
            "keel-sys",
            "keel-telemetry",
            "keel-tree",
        ],
    ),
    (
        "keel-admin",
        &[
            "keel-compose",
            "keel-control",
            "keel-diag",
            "keel-metrics",
            "keel-model",
            "keel-runner",
            "keel-sys",
        ],
    ),
    ("keel-report", &[]),
    (
        "keel-drill",
        &["keel-compose", "keel-control", "keel-diag", "keel-model", "keel-nginx", "keel-report", "keel-sys"],
    ),
    ("keel-testkit", &["keel-model", "keel-sys"]),
];

/// Packages that stay out of the tree, and why.
const BANNED: &[(&str, &str)] = &[
    ("ring", "aws-lc-rs is the one source of cryptography"),
    ("openssl", "rustls is the one TLS"),
    ("openssl-sys", "rustls is the one TLS"),
    ("serde_yaml", "unmaintained, and it loses spans"),
];

/// Packages that one crate alone depends on, and what everybody else has instead.
const OWNED: &[(&str, &str)] =
    &[("bollard", "keel-engine"), ("k8s-openapi", "keel-kube"), ("kube", "keel-kube")];

/// A file longer than this has more than one reason to change.
const FILE_LINES_MAX: usize = 900;

/// An attribute that silences a lint without a reason; in two parts, so that this file may hold it.
const BARE_ALLOW: &str = concat!("#[", "allow(");

/// Runs all checks and prints what is wrong.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the repository")?;
    let metadata = metadata(root)?;
    let mut complaints = Vec::new();
    check_imports(&metadata, &mut complaints);
    check_bans(root, &mut complaints)?;
    let foreign = foreign_folders(root);
    let files = tracked_files(root)?;
    for file in &files {
        check_file(root, file, &foreign, &mut complaints);
    }
    crate::modules::check(root, &files, &mut complaints);
    crate::unread::check(root, &files, &mut complaints);
    for complaint in &complaints {
        eprintln!("tidy: {complaint}");
    }
    Ok(if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn metadata(root: &Path) -> anyhow::Result<Value> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root)
        .output()
        .context("can't run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata.get("packages").and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn check_imports(metadata: &Value, complaints: &mut Vec<String>) {
    let allowed: BTreeMap<_, _> = IMPORTS.iter().copied().collect();
    for package in packages(metadata) {
        let name = text(package, "name");
        let is_ours = package.get("source").is_some_and(Value::is_null);
        if !is_ours || !name.starts_with("keel-") {
            continue;
        }
        let Some(allowed) = allowed.get(name) else {
            // Tools beside the product (bench) import what they measure; a new crate of the product is added above.
            if !text(package, "manifest_path").contains("/crates/") {
                continue;
            }
            complaints.push(format!("{name} isn't in the list of who may import whom (xtask/src/tidy.rs)"));
            continue;
        };
        let dependencies = package.get("dependencies").and_then(Value::as_array).into_iter().flatten();
        for dependency in dependencies {
            let import = text(dependency, "name");
            let for_tests = text(dependency, "kind") == "dev";
            if let Some((_, owner)) = OWNED.iter().find(|(owned, owner)| *owned == import && *owner != name) {
                complaints.push(format!("{name} may not depend on {import}: {owner} does, for all"));
            }
            if import.starts_with("keel-") && !for_tests && !allowed.contains(&import) {
                complaints.push(format!(
                    "{name} may not import {import} (ARCHITECTURE.md, \"who may import whom\")"
                ));
            }
        }
    }
}

/// Looks at what is compiled on some platform: Cargo.lock also names what no chosen feature asks for.
fn check_bans(root: &Path, complaints: &mut Vec<String>) -> anyhow::Result<()> {
    let output = Command::new("cargo")
        .args(["tree", "--workspace", "--locked", "--target", "all", "--prefix", "none", "--format", "{p}"])
        .current_dir(root)
        .output()
        .context("can't run cargo tree")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout)?;
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    ensure!(names.contains("xtask"), "cargo tree doesn't name this program");
    for (banned, why) in BANNED {
        if names.contains(banned) {
            complaints.push(format!("{banned} is in the tree of dependencies: {why}"));
        }
    }
    Ok(())
}

fn tracked_files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output =
        Command::new("git").args(["ls-files", "-z"]).current_dir(root).output().context("can't run git")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout)?;
    Ok(names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect())
}

/// Folders that belong to this machine or this person and not to the project: where it lies, and who works on it. Root's
/// home is nobody's in particular, and the name of `/proc/PID/root`.
fn foreign_folders(root: &Path) -> Vec<String> {
    let is_personal = |home: &PathBuf| home.components().count() > 1 && home != Path::new("/root");
    let home = std::env::home_dir().filter(is_personal);
    let folders = [Some(root.to_owned()), home].into_iter().flatten();
    folders.map(|folder| format!("{}/", folder.display())).collect()
}

fn check_file(root: &Path, file: &Path, foreign: &[String], complaints: &mut Vec<String>) {
    // Binary files and files deleted but not yet committed have no text to check.
    let Ok(text) = std::fs::read_to_string(root.join(file)) else { return };
    let name = file.display();
    for folder in foreign.iter().filter(|folder| text.contains(*folder)) {
        complaints.push(format!("{name} names a folder of this machine ({folder})"));
    }
    if file.extension().is_none_or(|extension| extension != "rs") {
        return;
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        complaints.push(format!("{name} has {lines} lines, more than {FILE_LINES_MAX}"));
    }
    let is_root = file.ends_with("src/lib.rs") || file.ends_with("src/main.rs");
    if is_root && !file.starts_with("crates/keel-sys") && !text.contains("#![forbid(unsafe_code)]") {
        complaints.push(format!("{name} lacks #![forbid(unsafe_code)]"));
    }
    if text.lines().any(|line| line.trim_start().starts_with(BARE_ALLOW)) {
        complaints.push(format!("{name} has a bare #[allow]: use #[expect(lint, reason = \"..\")]"));
    }
}
