//! The phases `server rewrite` and `rewrite`: `set`, `rewrite`, `if`, `break`, `return`.
//!
//! A place's steps are done in order until one ends them. Nothing is allocated for steps of which none matches.

use std::{ops::ControlFlow, path::Path};

use keel_http::uri;
use keel_model::{AfterRewrite, FileTest, LogLevel, OwnArgs, Part, Return, Template, Variable};
use keel_regex::{Regex, TooManySteps};

use super::{files, redirect, try_files};
use crate::{
    answer::{Answer, Special},
    client,
    job::{Flow, Job},
    snapshot::{Branch, Rule, Step, Test},
    variables::parse_size,
    worker::View,
};

/// How the steps of a place ended.
pub(super) enum Rewritten<'a> {
    /// The next phase goes on.
    Next,
    /// The location is looked for anew: the URI has changed.
    Moved,
    /// The request is answered with this.
    Return(&'a Return),
    /// The request ends.
    Decided(Flow),
}

/// Says whether a location has something to do here. Most have not, and are spared the rest. What a server does was done
/// before, so a request that no location takes has nothing to do either.
pub(super) fn is_set(job: &Job<'_>) -> bool {
    !job.place().rewrite.is_empty() && job.ex.routed.place != Some(job.ex.server(&job.view).root)
}

/// Does the steps of the place.
pub(super) fn run<'a>(job: &mut Job<'_>, view: &'a View) -> Rewritten<'a> {
    let place = job.ex.place(view);
    let mut engine = Engine { log: place.scope.rewrite.log, job, escapes: true, moved: false };
    match engine.steps(&place.rewrite) {
        ControlFlow::Break(Rewritten::Next) | ControlFlow::Continue(()) if engine.moved => Rewritten::Moved,
        ControlFlow::Break(ended) => ended,
        ControlFlow::Continue(()) => Rewritten::Next,
    }
}

/// What the steps of a place leave for each other.
struct Engine<'a, 'j> {
    job: &'a mut Job<'j>,
    /// `rewrite_log`.
    log: bool,
    /// Whether captures are escaped in values, as they are until a `rewrite` has matched.
    escapes: bool,
    /// Whether the location is to be looked for anew.
    moved: bool,
}

type Outcome<'v> = ControlFlow<Rewritten<'v>>;

impl Engine<'_, '_> {
    fn steps<'v>(&mut self, steps: &'v [Step]) -> Outcome<'v> {
        steps.iter().try_for_each(|step| match step {
            Step::Set { variable, value } => {
                self.set(variable, value);
                ControlFlow::Continue(())
            }
            Step::Break => {
                self.stay();
                ControlFlow::Break(Rewritten::Next)
            }
            Step::Return(answer) => ControlFlow::Break(Rewritten::Return(answer)),
            Step::Rewrite(rule) => self.rewrite(rule),
            Step::If(branch) => self.branch(branch),
        })
    }

    fn set(&mut self, variable: &Variable, value: &Template) {
        let value = self.text(value, self.escapes);
        match variable {
            Variable::Args => {
                self.job.ex.routed.args = value;
                self.job.ex.routed.raw_uri_valid = false;
            }
            Variable::Defined(id) => self.job.ex.routed.slots.set(*id, &value),
            Variable::LimitRate => match parse_size(&value) {
                Some(rate) => self.job.ex.sent.note_limit_rate(rate),
                None => {
                    let text = format!("invalid $limit_rate \"{}\"", String::from_utf8_lossy(&value));
                    self.job.client.log_error(self.job.worker, self.job.ex, &text);
                }
            },
            // No other can be set.
            _ => {}
        }
    }

    /// Lets the location stay, whatever the URI has become.
    fn stay(&mut self) {
        if std::mem::take(&mut self.moved) {
            self.job.ex.routed.prefix_is_gone = true;
        }
    }

    fn branch<'v>(&mut self, branch: &'v Branch) -> Outcome<'v> {
        if self.holds(&branch.test)? != branch.wants {
            return ControlFlow::Continue(());
        }
        if let Some(place) = branch.place {
            self.job.ex.routed.place = Some(place);
            let view = self.job.view.clone();
            self.job.client.limit_keep_alive(self.job.worker, self.job.ex, &view);
        }
        self.steps(&branch.steps)
    }

    fn holds<'v>(&mut self, test: &Test) -> ControlFlow<Rewritten<'v>, bool> {
        let mut value = self.job.worker.buffers.take();
        let holds = self.test(test, &mut value);
        self.job.worker.buffers.give(value);
        holds
    }

    /// Tests with a buffer for the values that it takes.
    fn test<'v>(&mut self, test: &Test, value: &mut Vec<u8>) -> ControlFlow<Rewritten<'v>, bool> {
        ControlFlow::Continue(match test {
            Test::Holds(variable) => {
                self.job.lookup().append(variable, value);
                !matches!(value.as_slice(), b"" | b"0")
            }
            Test::Equals(variable, text) => {
                self.job.lookup().append(variable, value);
                let end = value.len();
                self.append(text, self.escapes, value);
                value.get(..end) == value.get(end..)
            }
            Test::Matches { variable, regex, written } => {
                self.job.lookup().append(variable, value);
                self.matches(regex, written, value)?
            }
            Test::File(test, path) => {
                self.append(path, self.escapes, value);
                self.file(*test, value)
            }
        })
    }

    fn file(&self, test: FileTest, path: &[u8]) -> bool {
        use std::os::unix::ffi::OsStrExt as _;
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        self.job.place().files.passes(path, test).unwrap_or_else(|error| {
            try_files::log_failure(self.job, path, &error);
            false
        })
    }

    /// Matches an expression and keeps its groups.
    fn matches<'v>(
        &mut self,
        regex: &Regex,
        written: &str,
        value: &[u8],
    ) -> ControlFlow<Rewritten<'v>, bool> {
        let found = regex.is_match(value).and_then(|found| {
            if found {
                self.job.ex.take_groups(&self.job.view.snapshot, regex, value)?;
            } else {
                self.job.ex.routed.captures.clear();
            }
            Ok(found)
        });
        let found = match found {
            Ok(found) => found,
            Err(error @ TooManySteps) => {
                let text = format!("{error}: \"{written}\" on \"{}\"", String::from_utf8_lossy(value));
                self.job.client.log(self.job.worker, self.job.ex, LogLevel::Alert, &text);
                return ControlFlow::Break(Rewritten::Decided(Flow::status(500)));
            }
        };
        if self.log {
            let how = if found { "matches" } else { "does not match" };
            self.note(&format!("\"{written}\" {how} \"{}\"", String::from_utf8_lossy(value)));
        }
        ControlFlow::Continue(found)
    }

    fn rewrite<'v>(&mut self, rule: &'v Rule) -> Outcome<'v> {
        let uri = std::mem::take(&mut self.job.ex.routed.uri);
        let found = self.matches(&rule.regex, &rule.written, &uri);
        self.job.ex.routed.uri = uri;
        if !found? {
            return ControlFlow::Continue(());
        }
        let routed = &mut self.job.ex.routed;
        routed.internal = true;
        routed.raw_uri_valid = false;
        self.escapes = false;
        if let AfterRewrite::Redirect(status) = rule.then {
            return ControlFlow::Break(Rewritten::Decided(self.redirect(rule, status)));
        }
        let uri = self.text(&rule.replacement, false);
        let own = std::mem::take(&mut self.job.ex.routed.args);
        let args = match (&rule.args, rule.own_args) {
            (Some(args), own_args) => {
                let mut args = self.text_with(args, true, &own);
                if own_args == OwnArgs::Append && !own.is_empty() {
                    args.push(b'&');
                    args.extend_from_slice(&own);
                }
                args
            }
            (None, OwnArgs::Append) => own,
            (None, OwnArgs::Drop) => Vec::new(),
        };
        if self.log {
            let (uri, args) = (String::from_utf8_lossy(&uri), String::from_utf8_lossy(&args));
            self.note(&format!("rewritten data: \"{uri}\", args: \"{args}\""));
        }
        let is_empty = uri.is_empty();
        self.job.ex.routed.uri = uri;
        self.job.ex.routed.args = args;
        if is_empty {
            self.job.client.log_error(self.job.worker, self.job.ex, "the rewritten URI has a zero length");
            return ControlFlow::Break(Rewritten::Decided(Flow::status(500)));
        }
        self.moved = rule.then != AfterRewrite::Break;
        match rule.then {
            AfterRewrite::Next | AfterRewrite::Redirect(_) => ControlFlow::Continue(()),
            AfterRewrite::Last => ControlFlow::Break(Rewritten::Next),
            AfterRewrite::Break => {
                self.job.ex.routed.prefix_is_gone = true;
                ControlFlow::Break(Rewritten::Next)
            }
        }
    }

    fn redirect(&mut self, rule: &Rule, status: u16) -> Flow {
        let mut url = Vec::new();
        uri::unescape_redirect(&self.text(&rule.replacement, true), &mut url);
        let args = &self.job.ex.routed.args;
        if rule.own_args == OwnArgs::Append && !args.is_empty() {
            url.push(if rule.has_query { b'&' } else { b'?' });
            url.extend_from_slice(args);
        }
        if self.log {
            self.note(&format!("rewritten redirect: \"{}\"", String::from_utf8_lossy(&url)));
        }
        moved(self.job, status, url)
    }

    fn note(&self, text: &str) {
        self.job.client.log(self.job.worker, self.job.ex, LogLevel::Notice, text);
    }

    fn text(&self, template: &Template, escapes: bool) -> Vec<u8> {
        let mut out = Vec::new();
        self.append(template, escapes, &mut out);
        out
    }

    /// Evaluates the new query while the request's own is `own`.
    fn text_with(&mut self, template: &Template, escapes: bool, own: &[u8]) -> Vec<u8> {
        self.job.ex.routed.args.extend_from_slice(own);
        let text = self.text(template, escapes);
        self.job.ex.routed.args.clear();
        text
    }

    /// Appends a template's text. Where captures are escaped, they are if the client's path had escapes, or a `+`.
    fn append(&self, template: &Template, escapes: bool, out: &mut Vec<u8>) {
        let received = &self.job.ex.received;
        let path = received.head.target.path.of(&received.input);
        if !escapes || memchr::memchr2(b'%', b'+', path).is_none() {
            return self.job.lookup().append_template(template, out);
        }
        for part in &template.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Variable(Variable::Capture(number)) => {
                    let mut group = Vec::new();
                    self.job.ex.routed.captures.append(*number, &mut group);
                    uri::escape_argument(&group, out);
                }
                Part::Variable(variable) => {
                    self.job.lookup().append(variable, out);
                }
            }
        }
    }
}

/// Sends the client to a URL; a path is made one.
fn moved(job: &Job<'_>, status: u16, url: Vec<u8>) -> Flow {
    let url = if url.first() == Some(&b'/') { redirect::absolute_url(job.lookup(), &url) } else { url };
    Flow::Status(Box::new(Special::moved(status, url)))
}

/// Answers as `return` says. An error without a text gets the page for its status; everything else is sent as it is,
/// with the media type of the URI's ending, as a file would have it.
pub(super) async fn answer(job: &mut Job<'_>, answer: &Return) -> Flow {
    let status = answer.status;
    let text = answer.text.as_ref().filter(|text| !text.parts.is_empty());
    if status >= 400 && text.is_none() {
        return Flow::status(status);
    }
    // The text may tell it: `$status`.
    job.ex.sent.status = job.ex.sent.forced_status.unwrap_or(status);
    let text = text.map(|text| job.text(text)).unwrap_or_default();
    if matches!(status, 301 | 302 | 303 | 307 | 308) {
        return moved(job, status, text);
    }
    if client::expect_continue(job).await.is_err() {
        return Flow::Close;
    }
    // A response that led here by `X-Accel-Redirect` may have said what it is.
    Flow::Answer(match job.ex.sent.content_type.clone() {
        Some(carried) => Answer::text(status, &String::from_utf8_lossy(&carried), text),
        None => Answer::text(status, files::content_type(job), text),
    })
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
