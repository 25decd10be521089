//! The order that carries a plan with all that is open for it.

use std::{os::fd::OwnedFd, path::PathBuf};

use keel_model::{Address, Order, Plan};
use keel_sys::channel::DESCRIPTORS_MAX;
use keel_tree::beneath;

use super::{ApplyError, DataPlaneCommand, log_files::open_logs};

/// Makes the order that carries a plan, its sockets and its logs.
pub(super) fn prepare_order<'a>(
    plan: &Plan,
    sockets: impl Iterator<Item = (&'a Address, &'a OwnedFd)>,
    command: &DataPlaneCommand,
) -> Result<(Order, Vec<OwnedFd>), ApplyError> {
    let mut addresses = Vec::new();
    let mut descriptors = Vec::new();
    for (address, socket) in sockets {
        addresses.push(address.clone());
        descriptors.push(socket.try_clone().map_err(|error| ApplyError::DataPlane(error.to_string()))?);
    }
    let (logs, files) = open_logs(plan, command)?;
    descriptors.extend(files);
    let (folders, files): (Vec<PathBuf>, Vec<OwnedFd>) = open_tree_folders(plan).into_iter().unzip();
    descriptors.extend(files);
    if descriptors.len() > DESCRIPTORS_MAX {
        let text = format!(
            "it has {} listeners, logs and mounted folders together; {DESCRIPTORS_MAX} are the most",
            descriptors.len()
        );
        return Err(ApplyError::Refused(text));
    }
    Ok((Order::Prepare { plan: Box::new(plan.clone()), sockets: addresses, logs, folders }, descriptors))
}

/// Opens the folders in which the plan's trees have their files, as mounts do: the way to them may be closed to the data
/// plane's user. One that isn't there may come later.
fn open_tree_folders(plan: &Plan) -> Vec<(PathBuf, OwnedFd)> {
    let folders = plan.tree_folders().into_iter();
    folders.filter_map(|folder| beneath::open_real_folder(&folder).ok().map(|open| (folder, open))).collect()
}
