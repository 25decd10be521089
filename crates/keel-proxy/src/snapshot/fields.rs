//! Fields that the configuration adds: `add_header`, `add_trailer`, `proxy_set_header`.

use keel_http::{FieldName, Lines, unfolded};
use keel_model::{AddHeader, Part, Template};

use crate::error::CompileError;

/// One field, with its name looked at and its line written where nothing in it depends on the request.
pub(crate) struct FieldProgram {
    pub(crate) name: FieldName,
    /// The value, on one line as far as the configuration gives it.
    pub(crate) value: Template,
    /// The whole line of a value without variables.
    pub(crate) ready: Option<Lines>,
}

impl FieldProgram {
    pub(super) fn compile(name: &str, value: &Template) -> Result<Self, CompileError> {
        let name = FieldName::new(name).map_err(CompileError::Field)?;
        let parts = value.parts.iter().map(|part| match part {
            Part::Literal(text) => Part::Literal(unfolded(text)),
            Part::Variable(variable) => Part::Variable(variable.clone()),
        });
        let value = Template { parts: parts.collect() };
        let ready = value.as_literal().map(|text| {
            let mut line = Lines::default();
            line.named(&name, |out| out.extend_from_slice(text.as_bytes()));
            line
        });
        if let Some(line) = &ready {
            line.check().map_err(CompileError::Field)?;
        }
        Ok(Self { name, value, ready })
    }
}

/// One `add_header` or `add_trailer`.
pub(crate) struct AddedField {
    pub(crate) field: FieldProgram,
    /// Whether it is added to every status.
    pub(crate) always: bool,
}

impl AddedField {
    pub(crate) fn compile(add: &AddHeader) -> Result<Self, CompileError> {
        Ok(Self { field: FieldProgram::compile(&add.name, &add.value)?, always: add.always })
    }
}
