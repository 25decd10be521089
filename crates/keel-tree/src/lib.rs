//! The files of a container that isn't there.
//!
//! Evenkeel takes the place of a container whose root file system is an image with mounts. Its files lie in folders of
//! this host, and a link among them means what it means in the container: `/x` is the container's `/x`, and no `..`
//! leads above the container's root. [`beneath`] opens a file of one folder without leaving it, [`walk`] follows links
//! through all layers, [`tree`] is the whole for those who serve files.
//!
//! Nothing here follows a link by the host's own rules, and none of /proc's magic links at all.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

pub mod beneath;
pub mod tree;
pub mod walk;

pub use tree::{Found, Tree};
