//! What a request's phases work on.

use std::rc::Rc;

use crate::{
    downstream::Client,
    exchange::Exchange,
    snapshot::Place,
    variables::Lookup,
    worker::{View, Worker},
};

/// One request on its connection.
pub(crate) struct Job<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) client: &'a mut Client,
    pub(crate) ex: &'a mut Exchange,
    pub(crate) view: Rc<View>,
}

impl Job<'_> {
    /// Gives the place that the request is in.
    pub(crate) fn place(&self) -> &Place {
        self.ex.place(&self.view)
    }

    /// Gives what variables are looked up in.
    pub(crate) fn lookup(&self) -> Lookup<'_> {
        Lookup { worker: self.worker, client: self.client, ex: self.ex, view: &self.view, head: None }
    }

    /// Lets the response be the connection's last if the worker has been told to quit since the request came.
    pub(crate) fn settle_keep_alive(&mut self) {
        self.ex.keep_alive = self.ex.keep_alive && self.worker.quitting().is_none();
    }

    /// Evaluates a template.
    pub(crate) fn text(&self, template: &keel_model::Template) -> Vec<u8> {
        let mut out = Vec::new();
        self.lookup().append_template(template, &mut out);
        out
    }
}

/// What a phase decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// The next phase goes on.
    Next,
    /// The response has been sent, as far as it could be.
    Done,
    /// The request ends with this status, which `error_page` may replace.
    Status(u16),
    /// The request goes on at the URI that has been set.
    Redirect,
    /// The request goes on in a named location, which has been set.
    Named,
    /// The connection closes without a (further) byte.
    Close,
}
