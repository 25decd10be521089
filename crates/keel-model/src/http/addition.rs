//! ngx_http_addition_module: what is put before responses and behind them.

use crate::{MediaTypes, settings::settings};

settings! {
    /// `add_before_body`, `add_after_body`, `addition_types`.
    pub struct AdditionScope, set by AdditionLayer {
        /// `add_before_body`: the path whose response comes first.
        before: Option<String> = None;
        /// `add_after_body`: the path whose response comes last.
        after: Option<String> = None;
        /// `addition_types`.
        types: MediaTypes = MediaTypes::always();
    }
}
