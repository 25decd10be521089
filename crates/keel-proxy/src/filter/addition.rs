//! `add_before_body` and `add_after_body`: puts other responses before a body and behind it.

use keel_model::AdditionScope;

use super::{Filter, Settings, content_type::ContentType};
use crate::{
    answer::{Answer, Around, Special},
    error::CompileError,
    job::Job,
};

struct Addition {
    scope: AdditionScope,
}

pub(super) fn compile(settings: &Settings<'_>) -> Result<Option<Box<dyn Filter>>, CompileError> {
    let scope = &settings.scope.addition;
    let adds = scope.before.is_some() || scope.after.is_some();
    Ok(adds.then(|| Box::new(Addition { scope: scope.clone() }) as Box<dyn Filter>))
}

impl Filter for Addition {
    fn header(&self, job: &Job<'_>, answer: &mut Answer) -> Result<(), Special> {
        if answer.status != 200 || !ContentType::is_listed(&self.scope.types, job, answer) {
            return Ok(());
        }
        answer.resize();
        answer.forbid_ranges();
        answer.weaken_etag(job.ex);
        let AdditionScope { before, after, .. } = &self.scope;
        answer.around = Some(Box::new(Around { before: before.clone(), after: after.clone() }));
        Ok(())
    }
}
