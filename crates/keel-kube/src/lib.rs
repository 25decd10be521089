//! Kubernetes: manifests of a project, and the endpoints of a Service followed while traffic is served.
//!
//! Evenkeel runs nothing there: the kubelet starts and restarts, Deployments roll and scale. [`export`] writes what the
//! two files of a project say as objects of the cluster. No cluster is asked for that.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

pub mod export;
