//! FastCGI with a peer: records on a connection that carries this request and, where the application keeps it, others behind
//! it.

use std::{
    collections::VecDeque,
    task::{Context, Poll, ready},
};

use keel_http::{
    FirstLine, ResponseError, ResponseFraming,
    fastcgi::{Found, Records},
};

use super::{
    InvalidHead, NoHead, Notice,
    sender::{SendFailure, Sender},
};
use crate::{
    client::Client,
    error::PeerFailure,
    exchange::{Exchange, Method, UpstreamSide},
    io::buffer::BUFFER_BYTES,
    snapshot::FastCgiProgram,
    upstream::pool::PeerConnection,
};

/// Bytes of one complaint that are looked at: as many as a record may have.
const COMPLAINT_BYTES_MAX: usize = 64 << 10;

/// Bytes of one complaint that go to the log, as many as nginx has room for.
const COMPLAINT_SHOWN_BYTES_MAX: usize = 2 << 10;

/// Complaints that wait for the log between two looks at them; further ones are dropped.
const COMPLAINTS_MAX: usize = 64;

/// One request on a connection.
pub(crate) struct FastCgi {
    pub(super) connection: PeerConnection,
    pub(super) sender: Sender,
    /// Whether sending the rest of the request failed.
    unsent: bool,
    /// Whether the application was asked to keep the connection.
    keeps: bool,
    /// Complaints that make a head invalid.
    catch: Vec<String>,
    records: Records,
    raw: Vec<u8>,
    /// Bytes that came, records and all.
    pub(super) received: u64,
    /// What of the announced length hasn't come; `None` where none was announced.
    left: Option<u64>,
    /// Whether the response is over, as far as it is wanted.
    done: bool,
    /// Whether nothing has come, as yet, that can't be told from another response.
    clean: bool,
    complaint: Vec<u8>,
    notices: VecDeque<Notice>,
}

impl FastCgi {
    pub(super) fn new(mut connection: PeerConnection, sender: Sender, program: &FastCgiProgram) -> Self {
        connection.requests += 1;
        Self {
            connection,
            sender,
            unsent: false,
            keeps: program.keeps,
            catch: program.catch_stderr.clone(),
            records: Records::default(),
            raw: Vec::new(),
            received: 0,
            left: None,
            done: false,
            clean: true,
            complaint: Vec::new(),
            notices: VecDeque::new(),
        }
    }

    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        ex: &mut Exchange,
    ) -> Poll<Result<(), SendFailure>> {
        self.sender.poll(cx, &mut self.connection.transport, client, ex)
    }

    pub(super) fn poll_rest_of_request(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        ex: &mut Exchange,
    ) {
        if !self.unsent && !self.sender.is_done() {
            self.unsent = matches!(self.poll_send(cx, client, ex), Poll::Ready(Err(_)));
        }
    }

    pub(super) fn take_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        side: &mut UpstreamSide,
        bytes_max: usize,
    ) -> Poll<Result<(), NoHead>> {
        loop {
            let mut raw = std::mem::take(&mut self.raw);
            raw.clear();
            let filled = self.connection.transport.poll_fill(cx, &mut raw, BUFFER_BYTES);
            let outcome = match filled {
                Poll::Ready(Ok(0)) => Err(NoHead::Closed),
                Poll::Ready(Ok(count)) => {
                    self.received += count as u64;
                    self.read_head(&raw, side, bytes_max)
                }
                Poll::Ready(Err(error)) => Err(NoHead::Broke(error)),
                Poll::Pending => {
                    self.raw = raw;
                    return Poll::Pending;
                }
            };
            self.raw = raw;
            if outcome.is_err() {
                self.end_complaint();
            }
            if outcome? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Reads the head as far as it has come, and keeps what came behind it. False until it is whole.
    fn read_head(&mut self, bytes: &[u8], side: &mut UpstreamSide, bytes_max: usize) -> Result<bool, NoHead> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if self.records.is_over() {
                self.clean = false;
                break;
            }
            let step =
                self.records.decode(rest).map_err(|error| NoHead::Invalid(InvalidHead::Record(error)))?;
            at += step.consumed;
            match step.found {
                Found::Nothing => {}
                Found::Stdout(range) => {
                    side.input.extend_from_slice(rest.get(range).unwrap_or_default());
                    if !side.has_head {
                        side.has_head = parse(side)?;
                        if !side.has_head && side.input.len() >= bytes_max {
                            return Err(NoHead::from(ResponseError::TooLarge));
                        }
                    }
                }
                Found::StdoutEnd if !side.has_head => {
                    return Err(NoHead::Invalid(InvalidHead::StdoutEnded));
                }
                Found::End if !side.has_head => return Err(NoHead::Invalid(InvalidHead::RequestEnded)),
                Found::StdoutEnd | Found::End => {}
                Found::Stderr { text, ends } => {
                    let caught = self.complain(rest.get(text).unwrap_or_default(), ends);
                    if caught && !side.has_head {
                        return Err(NoHead::Invalid(InvalidHead::Caught));
                    }
                }
            }
        }
        Ok(side.has_head)
    }

    /// Keeps a piece of a complaint for the log; says whether it is one that makes a head invalid, once it has ended.
    fn complain(&mut self, text: &[u8], ends: bool) -> bool {
        let room = COMPLAINT_BYTES_MAX.saturating_sub(self.complaint.len());
        self.complaint.extend_from_slice(text.get(..room).unwrap_or(text));
        if !ends {
            return false;
        }
        let mut complaint = std::mem::take(&mut self.complaint);
        let holds = |text: &String| memchr::memmem::find(&complaint, text.as_bytes()).is_some();
        let caught = self.catch.iter().any(holds);
        if self.notices.len() < COMPLAINTS_MAX {
            complaint.truncate(COMPLAINT_SHOWN_BYTES_MAX);
            self.notices.push_back(Notice::Stderr(complaint));
        }
        caught
    }

    /// Keeps what has come of a complaint that broke off.
    fn end_complaint(&mut self) {
        if !self.complaint.is_empty() {
            self.complain(b"", true);
        }
    }

    pub(super) fn begin_body(
        &mut self,
        side: &mut UpstreamSide,
        mut pass: impl FnMut(&[u8]),
    ) -> Result<(), PeerFailure> {
        self.left = match side.head.framing {
            ResponseFraming::Length(length) => Some(length),
            ResponseFraming::Chunked | ResponseFraming::UntilClose => None,
        };
        let has_none = side.method == Method::Head || matches!(side.head.status, 204 | 304);
        if has_none {
            // The rest isn't worth reading; the connection closes.
            (self.done, self.clean) = (true, false);
        } else {
            self.pass(side.input.get(side.body_start..).unwrap_or_default(), &mut pass);
        }
        side.input.truncate(side.body_start);
        self.settle()
    }

    pub(super) fn poll_payload(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Vec<u8>,
        room: usize,
        mut pass: impl FnMut(&[u8]),
    ) -> Poll<Result<usize, PeerFailure>> {
        scratch.clear();
        match ready!(self.connection.transport.poll_fill(cx, scratch, room)) {
            Err(error) => {
                self.end_complaint();
                self.notices.push_back(Notice::Broke(error));
                Poll::Ready(Err(PeerFailure::Error))
            }
            Ok(0) => {
                self.end_complaint();
                self.clean = false;
                // The application has said all, and closes instead of ending the request.
                self.done = self.left == Some(0) || self.records.has_ended_stdout() && self.left.is_none();
                if !self.done {
                    self.notices.push_back(Notice::ClosedRequest);
                }
                Poll::Ready(if self.done { Ok(0) } else { Err(PeerFailure::Error) })
            }
            Ok(count) => {
                self.received += count as u64;
                Poll::Ready(self.read_body(scratch, &mut pass).map(|()| count))
            }
        }
    }

    fn read_body(&mut self, bytes: &[u8], pass: &mut impl FnMut(&[u8])) -> Result<(), PeerFailure> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty() && !self.done) {
            if self.records.is_over() {
                self.clean = false;
                break;
            }
            let step = self.records.decode(rest).map_err(|error| {
                self.notices.push_back(Notice::Record(error));
                PeerFailure::Invalid
            })?;
            at += step.consumed;
            match step.found {
                Found::Nothing => {}
                Found::Stdout(range) => self.pass(rest.get(range).unwrap_or_default(), pass),
                Found::StdoutEnd | Found::End => self.settle()?,
                Found::Stderr { text, ends } => {
                    self.complain(rest.get(text).unwrap_or_default(), ends);
                }
            }
        }
        self.settle()
    }

    /// Passes on bytes of the response, as many as were announced.
    fn pass(&mut self, bytes: &[u8], pass: &mut impl FnMut(&[u8])) {
        let Some(left) = &mut self.left else { return pass(bytes) };
        let length = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
        *left -= length as u64;
        pass(bytes.get(..length).unwrap_or_default());
        if length < bytes.len() {
            // What is too much nobody gets, and nobody knows what it is.
            (self.done, self.clean) = (true, false);
            self.notices.push_back(Notice::TooMuch);
        }
    }

    /// Ends the response where the application has ended it.
    fn settle(&mut self) -> Result<(), PeerFailure> {
        let is_over = self.records.is_over();
        if self.done || !(is_over || self.records.has_ended_stdout()) {
            return Ok(());
        }
        if self.left.is_some_and(|left| left > 0) {
            self.notices.push_back(if is_over { Notice::ClosedRequest } else { Notice::ClosedStdout });
            return Err(PeerFailure::Error);
        }
        // The application ends the request a moment after its output: one that is left early fails at saying so.
        self.done = is_over;
        Ok(())
    }

    pub(super) fn has_ended(&self) -> bool {
        self.done
    }

    pub(super) fn is_reusable(&self) -> bool {
        self.keeps && self.clean && self.records.is_over() && self.sender.is_done()
    }
}

/// Reads the head as far as it has come; interim responses are passed over.
fn parse(side: &mut UpstreamSide) -> Result<bool, NoHead> {
    super::read_gateway_head(side, FirstLine::Field)
        .and_then(|complete| match side.head.status {
            // No request of this protocol can be answered with a tunnel.
            101 if complete => Err(ResponseError::Status),
            _ => Ok(complete),
        })
        .map_err(NoHead::from)
}
