//! Instances by name.

/// An instance by name.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) service: String,
    pub(crate) instance: String,
}
