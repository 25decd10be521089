//! `add_trailer`.

use keel_http::Lines;

use super::{Filter, Settings, is_plain_status};
use crate::{
    answer::{Answer, Special},
    error::CompileError,
    job::Job,
    snapshot::AddedField,
};

struct AddTrailer {
    fields: Vec<AddedField>,
}

pub(super) fn compile(settings: &Settings<'_>) -> Result<Option<Box<dyn Filter>>, CompileError> {
    let add = &settings.scope.headers.add_trailers;
    if add.is_empty() {
        return Ok(None);
    }
    let fields = add.iter().map(AddedField::compile).collect::<Result<_, _>>()?;
    Ok(Some(Box::new(AddTrailer { fields })))
}

impl AddTrailer {
    fn fields_of(&self, status: u16) -> impl Iterator<Item = &AddedField> {
        self.fields.iter().filter(move |added| added.always || is_plain_status(status))
    }
}

impl Filter for AddTrailer {
    fn header(&self, job: &Job<'_>, answer: &mut Answer) -> Result<(), Special> {
        answer.fields.trailers |= job.ex.is_http11() && self.fields_of(answer.status).next().is_some();
        Ok(())
    }

    fn trailers(&self, job: &Job<'_>, out: &mut Lines) {
        for added in self.fields_of(job.ex.sent.status) {
            match &added.field.ready {
                Some(line) => out.append(line),
                None => {
                    let value = job.lookup_with_trailers(out).text(&added.field.value);
                    out.named(&added.field.name, |out| out.extend_from_slice(&value));
                }
            }
        }
    }
}
