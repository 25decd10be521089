//! `evenkeel export`: the project's two files as what a cluster is given.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use keel_control::project::{Exported, ExportedFile, Part, ProjectOptions, Readers, SwarmOptions};
use keel_diag::Format;

use crate::{
    color::color,
    project::ProjectArgs,
    serve::FormatName,
    terminal::{self, Stdout, say},
};

/// Evenkeel's image under the name that it is built with; the tag keeps a cluster from asking a registry each time.
const IMAGE: &str = concat!("evenkeel:", env!("CARGO_PKG_VERSION"));

/// `export`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    to: Cluster,
    /// How messages about the files look
    #[arg(long, value_enum, default_value = "human", global = true)]
    messages: FormatName,
}

#[derive(Debug, clap::Subcommand)]
enum Cluster {
    /// Write manifests for Kubernetes
    #[cfg(feature = "kubernetes")]
    Kubernetes(KubernetesArgs),
    /// Not in this program: build it with the feature `kubernetes`
    #[cfg(not(feature = "kubernetes"))]
    Kubernetes {
        #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
        ignored: Vec<std::ffi::OsString>,
    },
    /// Write a stack file for Docker Swarm
    Swarm(SwarmArgs),
}

#[cfg(feature = "kubernetes")]
#[derive(Debug, clap::Args)]
struct KubernetesArgs {
    /// Folder for one file per object and a kustomization.yaml; `-` for standard output
    #[arg(long, value_name = "DIR", default_value = "-")]
    out: PathBuf,
    /// Evenkeel's image, for the balancer's seat
    #[arg(long, default_value = IMAGE)]
    image: String,
    /// The cluster's version; fields that it doesn't know are left out
    #[arg(long, value_name = "1.MINOR", default_value = "1.33", value_parser = minor_version)]
    cluster_version: u32,
    /// How long an instance serves on after it was told to end, until every balancer knows
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = crate::linger::seconds)]
    drain: std::time::Duration,
}

#[derive(Debug, clap::Args)]
struct SwarmArgs {
    /// Folder for stack.yml and the files that it names
    #[arg(long, value_name = "DIR", default_value = "swarm")]
    out: PathBuf,
    /// Evenkeel's image, for the balancer's seat
    #[arg(long, default_value = IMAGE)]
    image: String,
}

#[cfg(feature = "kubernetes")]
fn minor_version(text: &str) -> Result<u32, String> {
    let minor = text.strip_prefix("1.").and_then(|minor| minor.parse().ok());
    minor.filter(|minor| *minor >= 16).ok_or_else(|| "a version from 1.16 on, such as 1.33".to_owned())
}

/// Runs the command.
pub(crate) fn run(project: &ProjectArgs, args: &Args) -> anyhow::Result<ExitCode> {
    let options = ProjectOptions::from(project.choice()?);
    let (exported, out) = match &args.to {
        #[cfg(feature = "kubernetes")]
        Cluster::Kubernetes(to) => {
            let wanted = keel_control::project::KubernetesOptions {
                image: to.image.clone(),
                minor_version: to.cluster_version,
                drain: to.drain,
            };
            (options.export_kubernetes(&wanted), &to.out)
        }
        #[cfg(not(feature = "kubernetes"))]
        Cluster::Kubernetes { .. } => anyhow::bail!(
            "`export kubernetes` isn't in this program; `cargo install --profile dist --path crates/evenkeel --features kubernetes` builds one that has it, and so has the image"
        ),
        Cluster::Swarm(to) => (options.export_swarm(&SwarmOptions { image: to.image.clone() }), &to.out),
    };
    let text =
        keel_diag::render(&exported.diagnostics, &exported.sources, Format::from(args.messages), color());
    terminal::say_text(&text);
    if exported.has_errors() || exported.files.is_empty() {
        return Ok(ExitCode::from(2));
    }
    match out.as_os_str() == "-" {
        true => print(&exported)?,
        false => write(out, &exported.files)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints all objects as one stream of documents.
fn print(exported: &Exported) -> anyhow::Result<()> {
    let mut out = Stdout::lock();
    for file in exported.files.iter().filter(|file| file.part == Part::Object) {
        write!(out, "---\n{}", file.text)?;
    }
    out.flush()?;
    Ok(())
}

fn write(folder: &Path, files: &[ExportedFile]) -> anyhow::Result<()> {
    for file in files {
        let path = folder.join(&file.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("can't create {}", parent.display()))?;
        }
        let mode = match file.readers {
            Readers::All => 0o644,
            Readers::Owner => 0o600,
        };
        let mut options = fs::OpenOptions::new();
        let opened = options.write(true).create(true).truncate(true).mode(mode).open(&path);
        let written = opened.and_then(|mut opened| opened.write_all(file.text.as_bytes()));
        written.with_context(|| format!("can't write {}", path.display()))?;
    }
    say!("{} files in {}", files.len(), folder.display());
    Ok(())
}

#[cfg(all(test, feature = "kubernetes"))]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        let check = |text: &str, expect: Option<u32>| assert_eq!(minor_version(text).ok(), expect, "{text}");
        check("1.33", Some(33));
        check("1.20", Some(20));
        check("1.2", None);
        check("2.0", None);
        check("latest", None);
    }
}
