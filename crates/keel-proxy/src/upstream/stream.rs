//! A peer's stream: it takes the head and the body of one request, and yields head, payload and trailers of the response.
//!
//! How either stands on the connection is known here and nowhere else, so that a peer that speaks something else than
//! HTTP/1 is one more variant. Time and retries are the business of [`attempt`](mod@super::attempt).

mod fastcgi;
mod h1;
mod h2;
mod sender;

use std::{
    io,
    task::{Context, Poll},
    time::Duration,
};

use keel_http::{
    FirstLine, Lines, Progress, RequestBody, ResponseError, body::Trailers, fastcgi::RecordError,
};
use keel_model::LogLevel;

pub(super) use self::sender::SendFailure;
use self::{
    fastcgi::FastCgi,
    h1::{H1, HeadForm},
    h2::H2,
    sender::{BodyForm, Sender},
};
use super::{pool::PeerConnection, shared::Lease};
use crate::{
    client::Client,
    error::PeerFailure,
    exchange::{Exchange, UpstreamSide},
    snapshot::{PeerProgram, Protocol},
};

/// One request to a peer and its response.
#[expect(clippy::large_enum_variant, reason = "nearly all are of the larger one, and what holds it is boxed")]
pub(crate) enum PeerStream {
    H1(H1),
    /// Boxed as the next, so that others don't grow.
    H2(Box<H2>),
    FastCgi(Box<FastCgi>),
}

/// What a request to a peer goes by.
pub(crate) enum Line {
    /// A connection of its own, for as long as the request takes.
    Own(PeerConnection),
    /// A stream of one that others use, too.
    Shared(Lease),
}

/// Why there is no head of a response.
pub(super) enum NoHead {
    /// The peer closed the connection in good order.
    Closed,
    /// The connection broke.
    Broke(io::Error),
    /// The peer has taken nothing of the request, and says so.
    Refused,
    /// The peer ended the request's stream, with this error, on a connection that goes on.
    Reset(u32),
    /// What came is none.
    Invalid(InvalidHead),
}

/// Why what came is no head of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidHead {
    #[error(transparent)]
    Response(#[from] ResponseError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("upstream prematurely closed FastCGI stdout")]
    StdoutEnded,
    #[error("upstream sent unexpected FastCGI record: 3")]
    RequestEnded,
    /// The application complained of what `fastcgi_catch_stderr` names.
    #[error("the response is refused by \"fastcgi_catch_stderr\"")]
    Caught,
}

impl From<ResponseError> for NoHead {
    fn from(error: ResponseError) -> Self {
        NoHead::Invalid(InvalidHead::Response(error))
    }
}

/// What a stream has to say for the log.
#[derive(Debug)]
pub(crate) enum Notice {
    /// What an application complained of.
    Stderr(Vec<u8>),
    TooMuch,
    ClosedStdout,
    ClosedRequest,
    Record(RecordError),
    Broke(io::Error),
}

impl Notice {
    pub(crate) fn level(&self) -> LogLevel {
        match self {
            Notice::TooMuch => LogLevel::Warn,
            _ => LogLevel::Error,
        }
    }

    /// What is said, in nginx's words.
    pub(crate) fn text(&self) -> String {
        match self {
            Notice::Stderr(text) => {
                let blank = |byte: &u8| matches!(byte, b'\n' | b'\r' | b'.' | b' ');
                let length = text.iter().rposition(|byte| !blank(byte)).map_or(0, |at| at + 1);
                let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
                format!("FastCGI sent in stderr: \"{text}\"")
            }
            Notice::TooMuch => {
                "upstream sent more data than specified in \"Content-Length\" header".to_owned()
            }
            Notice::ClosedStdout => "upstream prematurely closed FastCGI stdout".to_owned(),
            Notice::ClosedRequest => "upstream prematurely closed FastCGI request".to_owned(),
            Notice::Record(error) => error.to_string(),
            Notice::Broke(error) => format!("recv() failed ({})", crate::phase::files::errno_text(error)),
        }
    }
}

/// Reads the head of a gateway's response as far as it has come; interim responses are passed over.
fn read_gateway_head(side: &mut UpstreamSide, first: FirstLine) -> Result<bool, ResponseError> {
    loop {
        match side.head.parse_gateway(&side.input, first)? {
            Progress::Partial => return Ok(false),
            Progress::Complete(end) if (100..200).contains(&side.head.status) && side.head.status != 101 => {
                side.head.clear_at(end);
            }
            Progress::Complete(end) => {
                side.body_start = end;
                side.has_head = true;
                return Ok(true);
            }
        }
    }
}

impl Line {
    /// Whether its connection has carried a request before.
    pub(super) fn is_reused(&self) -> bool {
        match self {
            Line::Own(connection) => connection.requests > 0,
            Line::Shared(lease) => lease.is_reused(),
        }
    }

    /// Whether its connection has carried a request before, and carried none when this one came.
    pub(super) fn has_idled(&self) -> bool {
        match self {
            Line::Own(connection) => connection.requests > 0,
            Line::Shared(lease) => lease.has_idled(),
        }
    }
}

impl PeerStream {
    /// Begins a request on a line. The head to send is in `ex`; its body is there, or is the client's as it comes
    /// (`streams`), of `size_max` bytes at most.
    pub(crate) fn new(
        line: Line,
        ex: &mut Exchange,
        program: &PeerProgram,
        streams: bool,
        size_max: u64,
    ) -> Self {
        let (body, head) = match &program.protocol {
            Protocol::Http(_) if streams && matches!(ex.received.head.body, RequestBody::Chunked) => {
                (BodyForm::Chunked, HeadForm::Http)
            }
            Protocol::Http(_) => (BodyForm::Plain, HeadForm::Http),
            Protocol::FastCgi(_) => (BodyForm::Records, HeadForm::Gateway),
            Protocol::Uwsgi(_) | Protocol::Scgi(_) => (BodyForm::Plain, HeadForm::Gateway),
        };
        let sender = Sender::new(ex, body, streams, size_max);
        match (line, &program.protocol) {
            (Line::Shared(lease), _) => PeerStream::H2(Box::new(H2::new(lease, sender))),
            (Line::Own(connection), Protocol::FastCgi(fastcgi)) => {
                PeerStream::FastCgi(Box::new(FastCgi::new(connection, sender, fastcgi)))
            }
            (Line::Own(connection), _) => PeerStream::H1(H1::new(connection, sender, head)),
        }
    }

    /// Sends as much of the request as the peer takes. Ready when all is sent.
    #[inline]
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        ex: &mut Exchange,
    ) -> Poll<Result<(), SendFailure>> {
        match self {
            PeerStream::H1(h1) => h1.poll_send(cx, client, ex),
            PeerStream::H2(h2) => h2.poll_send(cx, client, ex),
            PeerStream::FastCgi(fastcgi) => fastcgi.poll_send(cx, client, ex),
        }
    }

    /// Goes on sending the request to a peer that has answered before it had the whole. What can't be sent isn't missed.
    pub(crate) fn poll_rest_of_request(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        ex: &mut Exchange,
    ) {
        match self {
            PeerStream::H1(h1) => h1.poll_rest_of_request(cx, client, ex),
            PeerStream::H2(h2) => h2.poll_rest_of_request(cx, client, ex),
            PeerStream::FastCgi(fastcgi) => fastcgi.poll_rest_of_request(cx, client, ex),
        }
    }

    /// Whether the whole request has been sent.
    pub(super) fn is_sent(&self) -> bool {
        match self {
            PeerStream::H2(h2) => h2.is_sent(),
            _ => self.sender().is_done(),
        }
    }

    /// Counts the bytes of the request that were sent.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sender().sent
    }

    /// Whether sending waits for the client rather than for the peer.
    pub(super) fn waits_for_client(&self, ex: &Exchange) -> bool {
        !self.is_sent() && self.sender().waits_for_client(ex)
    }

    fn sender(&self) -> &Sender {
        match self {
            PeerStream::H1(h1) => &h1.sender,
            PeerStream::H2(h2) => &h2.sender,
            PeerStream::FastCgi(fastcgi) => &fastcgi.sender,
        }
    }

    /// Counts the bytes that have come while the response's head was read.
    pub(super) fn received_bytes(&self, side: &UpstreamSide) -> u64 {
        match self {
            PeerStream::H1(_) | PeerStream::H2(_) => side.input.len() as u64,
            PeerStream::FastCgi(fastcgi) => fastcgi.received,
        }
    }

    /// Gives the next thing that is to be said in the log.
    pub(crate) fn take_notice(&mut self) -> Option<Notice> {
        match self {
            PeerStream::H1(_) | PeerStream::H2(_) => None,
            PeerStream::FastCgi(fastcgi) => fastcgi.take_notice(),
        }
    }

    /// Whether it says in the log itself why a response broke off.
    pub(crate) fn explains_itself(&self) -> bool {
        matches!(self, PeerStream::FastCgi(_))
    }

    /// Reads the response's head into `side`, with what comes with it. It has `bytes_max` bytes at most.
    #[inline]
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        side: &mut UpstreamSide,
        bytes_max: usize,
    ) -> Poll<Result<(), NoHead>> {
        match self {
            PeerStream::H1(h1) => h1.poll_head(cx, side, bytes_max),
            PeerStream::H2(h2) => h2.poll_head(cx, side, bytes_max),
            PeerStream::FastCgi(fastcgi) => fastcgi.poll_head(cx, side, bytes_max),
        }
    }

    /// Begins the body behind a head, and passes on the payload that came with it.
    ///
    /// # Errors
    /// When that is no body.
    #[inline]
    pub(crate) fn begin_body(
        &mut self,
        side: &mut UpstreamSide,
        trailers: Trailers,
        pass: impl FnMut(&[u8]),
    ) -> Result<(), PeerFailure> {
        match self {
            PeerStream::H1(h1) => h1.begin_body(side, trailers, pass),
            PeerStream::H2(h2) => {
                h2.begin_body(side, trailers);
                Ok(())
            }
            PeerStream::FastCgi(fastcgi) => fastcgi.begin_body(side, pass),
        }
    }

    /// Reads once, `room` bytes or more, and passes on the payload in that. Gives how many bytes came; 0 is the end of a
    /// body that ends with its connection.
    #[inline]
    pub(crate) fn poll_payload(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Vec<u8>,
        room: usize,
        pass: impl FnMut(&[u8]),
    ) -> Poll<Result<usize, PeerFailure>> {
        match self {
            PeerStream::H1(h1) => h1.poll_payload(cx, scratch, room, pass),
            PeerStream::H2(h2) => h2.poll_payload(cx, pass),
            PeerStream::FastCgi(fastcgi) => fastcgi.poll_payload(cx, scratch, room, pass),
        }
    }

    /// Whether the response has been read to its end.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            PeerStream::H1(h1) => h1.has_ended(),
            PeerStream::H2(h2) => h2.has_ended(),
            PeerStream::FastCgi(fastcgi) => fastcgi.has_ended(),
        }
    }

    /// The trailers of a response that has been read to its end.
    pub(crate) fn trailers(&self) -> Lines {
        match self {
            PeerStream::H1(h1) => h1.trailers(),
            PeerStream::H2(h2) => h2.trailers(),
            PeerStream::FastCgi(_) => Lines::default(),
        }
    }

    /// Whether the connection may carry another request: both messages are over, nothing has come behind them, and the
    /// peer keeps it open.
    pub(crate) fn is_reusable(&self, side: &UpstreamSide) -> bool {
        match self {
            PeerStream::H1(h1) => h1.is_reusable(side),
            // Its connection goes on without it.
            PeerStream::H2(_) => false,
            PeerStream::FastCgi(fastcgi) => fastcgi.is_reusable(),
        }
    }

    /// Notes that the peer has sent nothing for so long, though something was due.
    pub(crate) fn note_silence(&self, silence: Duration) {
        if let PeerStream::H2(h2) = self {
            h2.note_silence(silence);
        }
    }

    /// The connection, where it is the request's own.
    pub(super) fn connection_mut(&mut self) -> Option<&mut PeerConnection> {
        match self {
            PeerStream::H1(h1) => Some(&mut h1.connection),
            PeerStream::H2(_) => None,
            PeerStream::FastCgi(fastcgi) => Some(&mut fastcgi.connection),
        }
    }

    /// Gives the connection back, where it is the request's own.
    pub(super) fn into_connection(self) -> Option<PeerConnection> {
        match self {
            PeerStream::H1(h1) => Some(h1.connection),
            PeerStream::H2(_) => None,
            PeerStream::FastCgi(fastcgi) => Some(fastcgi.connection),
        }
    }

    /// The connection below, once what follows on it is no HTTP any more. It counts as a connection to its end.
    pub(crate) fn into_upgraded(self) -> Option<PeerConnection> {
        self.into_connection()
    }
}
