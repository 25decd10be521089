//! `stub_status`: how many connections and requests there are, and have been.

use keel_telemetry::Totals;

use crate::{
    answer::Answer,
    client,
    exchange::Method,
    job::{Flow, Job},
};

/// What clients' connections are doing now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connections {
    pub(crate) active: u64,
    /// Those whose request has come in part.
    pub(crate) reading: u64,
    /// Requests that are being answered.
    pub(crate) writing: u64,
    /// Those that have nothing to do.
    pub(crate) waiting: u64,
}

impl Connections {
    pub(crate) fn of(totals: &Totals) -> Self {
        let (active, reading) = (totals.active, totals.reading);
        let writing = totals.requests.saturating_sub(totals.answered);
        Self { active, reading, writing, waiting: active.saturating_sub(reading).saturating_sub(writing) }
    }
}

/// Answers with the numbers, as nginx writes them.
pub(super) async fn run(job: &mut Job<'_>) -> Flow {
    if !job.ex.routed.as_get && !matches!(job.ex.routed.method, Method::Get | Method::Head) {
        return Flow::status(405);
    }
    if client::expect_continue(job).await.is_err() {
        return Flow::Close;
    }
    let totals = job.worker.all_counters.totals();
    let Connections { active, reading, writing, waiting } = Connections::of(&totals);
    let Totals { accepted, requests, .. } = totals;
    let text = format!(
        "Active connections: {active} \nserver accepts handled requests\n {accepted} {accepted} {requests} \n\
         Reading: {reading} Writing: {writing} Waiting: {waiting} \n"
    );
    Flow::Answer(Answer::text(200, "text/plain", text.into_bytes()))
}
