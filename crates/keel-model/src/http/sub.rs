//! ngx_http_sub_module: replacing text in responses.

use serde::{Deserialize, Serialize};

use crate::{MediaTypes, Template, settings::settings};

settings! {
    /// `sub_filter` and its family.
    pub struct SubScope, set by SubLayer {
        /// `sub_filter`, in the file's order.
        pairs: Vec<SubPair> = Vec::new();
        /// `sub_filter_once`: whether each text is replaced once.
        once: bool = true;
        /// `sub_filter_last_modified`: whether responses keep the date of their last change.
        last_modified: bool = false;
        /// `sub_filter_types`.
        types: MediaTypes = MediaTypes::always();
    }
}

/// One `sub_filter`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubPair {
    /// What is looked for, in any case.
    pub text: Template,
    /// What takes its place.
    pub replacement: Template,
}
