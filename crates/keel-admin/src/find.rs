//! Finds the supervisor of a project: by its folder's own socket, else among all sockets of the project's name.
//!
//! A supervisor of an earlier version has a socket without a folder in its name; one whose folder was moved has the old
//! path's. Their answers identify both. A supervisor that runs from another folder belongs to another project, and is
//! reported as such.

use std::{
    fs::File,
    io,
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use keel_control::project::Identity;

use crate::{
    api::{FolderId, ProjectInfo},
    client::Client,
    paths::{Paths, is_private, runtime_folder},
};

/// How long another project's supervisor may take to say what it runs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What a search came to.
#[derive(Clone, Debug)]
pub enum Found {
    /// A supervisor runs this project.
    Here(Client),
    /// None does.
    Nowhere {
        /// Those that run a project of this name from other folders.
        elsewhere: Vec<ProjectInfo>,
        /// The name under which this very folder runs, since before it was moved.
        moved_from: Option<String>,
    },
}

/// Looks for the supervisor of a project.
pub async fn find(identity: &Identity) -> Found {
    // In a folder that others may write to, anybody could answer in a supervisor's place.
    if !is_private(&runtime_folder()) {
        return Found::Nowhere { elsewhere: Vec::new(), moved_from: None };
    }
    let own = identity.folder.as_ref().map(|folder| Paths::socket_of(&identity.name, folder));
    if let Some(socket) = own.as_ref().filter(|socket| UnixStream::connect(socket).is_ok()) {
        return Found::Here(Client::new(socket));
    }
    let mut elsewhere = Vec::new();
    let mut moved_from = None;
    for socket in sockets(&runtime_folder()) {
        let client = Client::new(&socket);
        let asked = client.get::<ProjectInfo>("/v1/project");
        let Ok(Ok(info)) = tokio::time::timeout(ANSWER_TIMEOUT, asked).await else { continue };
        let is_here = identity.folder.as_ref().is_some_and(|folder| is_in(&info, folder));
        match info.name == identity.name {
            true if is_here => return Found::Here(client),
            true => elsewhere.push((client, info)),
            // Two names in one folder are two projects, unless the name was the folder's.
            false if is_here && !info.folder.exists() => moved_from = Some(info.name),
            false => {}
        }
    }
    // A name alone means the only one that has it.
    match (&identity.folder, elsewhere.as_slice()) {
        (None, [(client, _)]) => Found::Here(client.clone()),
        _ => {
            let elsewhere = elsewhere.into_iter().map(|(_, info)| info).collect();
            Found::Nowhere { elsewhere, moved_from }
        }
    }
}

/// All control sockets of this user, in order.
fn sockets(runtime: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(runtime).into_iter().flatten().filter_map(Result::ok);
    let mut sockets: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sock"))
        .collect();
    sockets.sort();
    sockets
}

/// Whether a project runs from this folder, by whatever path.
fn is_in(info: &ProjectInfo, folder: &Path) -> bool {
    let same_path =
        info.folder.canonicalize().is_ok_and(|running| folder.canonicalize().ok() == Some(running));
    same_path
        || (info.folder_id.is_some()
            && File::open(folder).and_then(|folder| folder_id(&folder)).ok() == info.folder_id)
}

/// What stays of a folder when it is moved.
pub(crate) fn folder_id(folder: &File) -> io::Result<FolderId> {
    folder.metadata().map(|meta| FolderId { device: meta.dev(), inode: meta.ino() })
}
