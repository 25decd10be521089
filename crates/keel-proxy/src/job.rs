//! What a request's phases work on, and what they decide.

use std::rc::Rc;

use keel_http::Lines;

use crate::{
    answer::{Answer, Special},
    client::Client,
    exchange::Exchange,
    phase::redirect::{InternalUri, Restart},
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
    /// The place that the request is in.
    pub(crate) fn place(&self) -> &Place {
        self.ex.place(&self.view)
    }

    /// What variables are looked up in.
    pub(crate) fn lookup(&self) -> Lookup<'_> {
        let Self { worker, client, ex, view } = self;
        Lookup { worker, client, ex, view, answer: None, trailers: None }
    }

    /// What variables are looked up in while an answer is made ready.
    pub(crate) fn lookup_with<'a>(&'a self, answer: &'a Answer) -> Lookup<'a> {
        Lookup { answer: Some(answer), ..self.lookup() }
    }

    /// What variables are looked up in while trailers are made ready.
    pub(crate) fn lookup_with_trailers<'a>(&'a self, trailers: &'a Lines) -> Lookup<'a> {
        Lookup { trailers: Some(trailers), ..self.lookup() }
    }

    /// Lets the response be the connection's last if the worker has been told to quit since the request came.
    pub(crate) fn settle_keep_alive(&mut self) {
        self.ex.sent.keep_alive = self.ex.sent.keep_alive && self.worker.quitting().is_none();
    }

    /// Evaluates a template.
    pub(crate) fn text(&self, template: &keel_model::Template) -> Vec<u8> {
        let mut out = Vec::new();
        self.lookup().append_template(template, &mut out);
        out
    }
}

/// What a phase decides. Small, as every phase of every request returns one: what is rare is boxed.
pub(crate) enum Flow {
    /// The next phase goes on.
    Next,
    /// This is sent.
    Answer(Box<Answer>),
    /// The request ends with a status, which `error_page` may replace.
    Status(Box<Special>),
    /// The request goes on elsewhere in this server.
    Redirect {
        /// Where to; `None` keeps the URI, as a named location does.
        uri: Option<Box<InternalUri>>,
        restart: Restart,
    },
    /// The connection closes without a (further) byte.
    Close,
}

impl Flow {
    /// Ends the request with a status that has no fields of its own.
    pub(crate) fn status(status: u16) -> Self {
        Flow::Status(Box::new(status.into()))
    }
}

/// How a request ended, for its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Its response has been sent.
    Answered,
    /// The connection closes: nothing is to be sent, or nothing more can be.
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{answer::PeerAnswer, upstream::Target};

    #[test]
    fn what_every_request_moves_is_small() {
        assert!(size_of::<Flow>() <= 40, "{}", size_of::<Flow>());
        assert!(size_of::<Target>() <= 16, "{}", size_of::<Target>());
        assert!(size_of::<PeerAnswer>() <= 96, "{}", size_of::<PeerAnswer>());
    }
}
