//! `add_header`.

use keel_http::{Name, date};

use super::{Filter, Settings, is_plain_status};
use crate::{
    answer::{Answer, Special},
    error::CompileError,
    job::Job,
    snapshot::AddedField,
};

struct AddHeader {
    fields: Vec<AddedField>,
}

pub(super) fn compile(settings: &Settings<'_>) -> Result<Option<Box<dyn Filter>>, CompileError> {
    let add = &settings.scope.headers.add;
    if add.is_empty() {
        return Ok(None);
    }
    let fields = add.iter().map(AddedField::compile).collect::<Result<_, _>>()?;
    Ok(Some(Box::new(AddHeader { fields })))
}

impl Filter for AddHeader {
    fn header(&self, job: &Job<'_>, answer: &mut Answer) -> Result<(), Special> {
        let is_plain = is_plain_status(answer.status);
        for added in self.fields.iter().filter(|added| is_plain || added.always) {
            let name = &added.field.name;
            // Of these there is one: the operator's takes the place of any other, and none is none.
            let is_single = matches!(name.known(), Name::Etag | Name::LastModified | Name::Expires);
            if let Some(line) = added.field.ready.as_ref().filter(|_| !is_single) {
                answer.fields.added.append(line);
                continue;
            }
            let value = job.lookup_with(answer).text(&added.field.value);
            if is_single {
                answer.fields.dropped = answer.fields.dropped.with(name.known());
                answer.fields.added.remove(name);
            }
            match name.known() {
                Name::Etag => answer.fields.etag = Some(value.clone()).filter(|value| !value.is_empty()),
                Name::LastModified => answer.fields.modified = date::parse_http(&value),
                _ => {}
            }
            answer.fields.added.named(name, |out| out.extend_from_slice(&value));
        }
        Ok(())
    }
}
