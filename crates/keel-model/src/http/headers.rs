//! ngx_http_headers_module: fields added to responses.

use serde::{Deserialize, Serialize};

use crate::{Layer, Template, settings::settings};

settings! {
    /// `add_header`, `add_trailer`, `expires`.
    pub struct HeadersScope, set by HeadersLayer {
        /// Fields added to responses.
        add: Vec<AddHeader> = Vec::new(), as AddedFields;
        /// Fields added after the body.
        add_trailers: Vec<AddHeader> = Vec::new(), as AddedFields;
        /// `expires`.
        expires: Expires = Expires::Off;
    }
}

/// One `add_header`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddHeader {
    /// The field's name as written.
    pub name: String,
    /// Its value; an empty result adds nothing.
    pub value: Template,
    /// Whether it is added to every status (`always`) or to nginx's list only.
    pub always: bool,
}

/// `add_header` or `add_trailer` in one block, and what becomes of the outer block's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddedFields {
    /// Those of this block.
    pub fields: Vec<AddHeader>,
    /// `add_header_inherit`, `add_trailer_inherit`; inherited itself.
    pub inherit: Option<InheritFields>,
}

/// What becomes of the fields that the outer block adds (`add_header_inherit`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InheritFields {
    /// They are added where none are set here.
    #[default]
    On,
    /// None of them is added.
    Off,
    /// They are added after those set here.
    Merge,
}

impl Layer<Vec<AddHeader>> for AddedFields {
    fn inherit(&mut self, outer: &Self) {
        self.inherit = self.inherit.or(outer.inherit);
        let takes = match self.inherit.unwrap_or_default() {
            InheritFields::On => self.fields.is_empty(),
            InheritFields::Off => false,
            InheritFields::Merge => true,
        };
        if takes {
            self.fields.extend_from_slice(&outer.fields);
        }
    }

    fn settle(&self, default: Vec<AddHeader>) -> Vec<AddHeader> {
        if self.fields.is_empty() { default } else { self.fields.clone() }
    }
}

/// `expires`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expires {
    /// Fields stay as they are.
    #[default]
    Off,
    /// 1970, `no-cache`.
    Epoch,
    /// 31 December 2037, ten years.
    Max,
    /// Seconds from now; negative for `no-cache`.
    Access(i64),
    /// Seconds from the file's modification.
    Modified(i64),
    /// Seconds since midnight (`@15h30m`).
    Daily(u32),
    /// One of the above, as text, from a variable.
    Variable(Template),
}
