//! Kubernetes: manifests of a project, and the endpoints of a Service followed while traffic is served.
//!
//! Evenkeel runs nothing there: the kubelet starts and restarts, Deployments roll and scale. [`export`] writes what the
//! two files of a project say as objects of the cluster, without asking one. [`cluster`] lists and watches the slices of a
//! Service; [`endpoints`] makes of them who takes requests, without I/O.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

pub mod cluster;
pub mod endpoints;
pub mod export;
