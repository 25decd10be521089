//! The data plane as fuzz targets have it: a plan answers requests, without sockets. Nothing else enables this feature.

use keel_model::Plan;

use crate::{http2, phase, rig::Rig};

/// A worker without listeners.
pub struct Plane(Rig);

impl Plane {
    /// Makes one; `None` where the data plane refuses the plan.
    pub fn new(plan: &Plan) -> Option<Self> {
        Rig::of(plan).map(Self)
    }

    /// The response to a request without a body; `None` where the bytes are no head that is taken.
    pub fn answer(&self, head: &[u8]) -> Option<Vec<u8>> {
        let answered = self.0.enter(async || {
            self.0
                .try_job(head, async |job| {
                    phase::run(job).await;
                })
                .await
        });
        answered.map(|((), response)| response)
    }
}

/// The lines that a request of HTTP/2 becomes; `None` where it is refused.
pub fn lines_of_http2(parts: &http::request::Parts) -> Option<Vec<u8>> {
    let mut lines = Vec::new();
    http2::fields::write_request(parts, &mut lines).ok()?;
    Some(lines)
}
