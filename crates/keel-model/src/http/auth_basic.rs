//! ngx_http_auth_basic_module: who may come in, by name and password.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Part, Template, settings::settings};

settings! {
    /// `auth_basic` and `auth_basic_user_file`. Nothing is asked for unless both are there.
    pub struct AuthBasicScope, set by AuthBasicLayer {
        /// `auth_basic`: what the credentials are for; `None` for `off`. A value that turns out to be `off` asks for none.
        realm: Option<Template> = None;
        /// `auth_basic_user_file`.
        user_file: Option<AuthUserFile> = None;
    }
}

/// Where users and their passwords are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthUserFile {
    /// The path.
    pub path: Template,
    /// Where it begins unless it is absolute: the folder of the configuration file.
    pub folder: PathBuf,
}

impl AuthUserFile {
    /// Gives the file, or the folder that it is somewhere below where requests name it.
    pub fn fixed_part(&self) -> PathBuf {
        match self.path.parts.as_slice() {
            [Part::Literal(path)] => self.folder.join(path),
            [Part::Literal(path), ..] => match path.rsplit_once('/') {
                Some((folder, _)) => self.folder.join(format!("{folder}/")),
                None => self.folder.clone(),
            },
            // An absolute path is anywhere; the usual one is beside the configuration.
            _ => self.folder.clone(),
        }
    }

    /// Gives the path of an evaluated template.
    pub fn resolve(&self, evaluated: &Path) -> PathBuf {
        self.folder.join(evaluated)
    }
}
