//! What a project is read with: the command line's options and the shell's environment.

use std::{collections::BTreeMap, path::PathBuf};

use keel_model::DriverChoice;

/// What `load` is asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where the search for files starts, and what relative paths in these options start from.
    pub folder: PathBuf,
    /// `-f`, in order. Empty: COMPOSE_FILE, else a search in the folder and above.
    pub files: Vec<PathBuf>,
    /// `-p`. Without it COMPOSE_PROJECT_NAME, the file's `name`, the folder's name.
    pub project_name: Option<String>,
    /// `--profile`. COMPOSE_PROFILES counts too.
    pub profiles: Vec<String>,
    /// `--env-file`, in place of .env.
    pub env_files: Vec<PathBuf>,
    /// The shell's environment.
    pub environment: BTreeMap<String, String>,
    /// `--driver`; it counts more than any `x-driver`.
    pub driver: Option<DriverChoice>,
    /// Where the services run: it decides which fields are named as not honoured.
    pub place: RunPlace,
}

/// Where the services of a project run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunPlace {
    /// On this machine, under Evenkeel.
    #[default]
    Here,
    /// In a cluster, for which manifests are written.
    Cluster,
}
