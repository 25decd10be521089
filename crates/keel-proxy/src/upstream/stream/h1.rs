//! HTTP/1 with a peer (RFC 9112): a connection that carries this request and, if all went well, others behind it. And the
//! responses of gateways that write heads alike, behind which the connection ends.

use std::{
    io,
    task::{Context, Poll, ready},
};

use keel_http::{
    FirstLine, Lines, Progress, ResponseError, ResponseFraming,
    body::{Decoder, Trailers, each_trailer},
};

use super::{
    NoHead,
    sender::{SendFailure, Sender},
};
use crate::{
    client::Client,
    error::PeerFailure,
    exchange::{Exchange, Method, UpstreamSide},
    io::buffer::BUFFER_BYTES,
    upstream::pool::PeerConnection,
};

/// Bytes that the first read takes where the response before it had more than [`BUFFER_BYTES`].
const LONG_BYTES: usize = 64 << 10;

/// One request on a connection.
pub(crate) struct H1 {
    pub(super) connection: PeerConnection,
    pub(super) sender: Sender,
    form: HeadForm,
    /// Whether sending the rest of the request failed.
    unsent: bool,
    /// Finds the end of the response's body.
    decoder: Decoder,
    /// Whether nothing has come, as yet, that can't be told from another response.
    clean: bool,
}

/// How the head of the response is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadForm {
    Http,
    /// As CGI writes it, or with a status line (uwsgi, SCGI).
    Gateway,
}

impl H1 {
    pub(super) fn new(mut connection: PeerConnection, sender: Sender, form: HeadForm) -> Self {
        connection.requests += 1;
        Self { connection, sender, form, unsent: false, decoder: Decoder::Done, clean: false }
    }

    #[inline]
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

    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        side: &mut UpstreamSide,
        bytes_max: usize,
    ) -> Poll<Result<(), NoHead>> {
        loop {
            let room = bytes_max.saturating_sub(side.input.len());
            if room == 0 {
                return Poll::Ready(Err(NoHead::from(ResponseError::TooLarge)));
            }
            match ready!(self.poll_fill_head(cx, &mut side.input, room)) {
                Ok(0) => return Poll::Ready(Err(NoHead::Closed)),
                Err(error) => return Poll::Ready(Err(NoHead::Broke(error))),
                Ok(_) => {}
            }
            let read = match self.form {
                HeadForm::Http => read_head(side),
                HeadForm::Gateway => super::read_gateway_head(side, FirstLine::StatusOrField),
            };
            match read {
                Ok(true) => return Poll::Ready(Ok(())),
                Ok(false) => {}
                Err(error) => return Poll::Ready(Err(NoHead::from(error))),
            }
        }
    }

    /// Reads a part of the head, and with it what has come of the body: a response that fits then takes one read and
    /// one write.
    ///
    /// What fits is learned on each connection. The larger buffer is made only once there is something to read, so that
    /// waiting for a peer never holds one.
    fn poll_fill_head(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut Vec<u8>,
        head_room: usize,
    ) -> Poll<io::Result<usize>> {
        let connection = &mut self.connection;
        if !input.is_empty() {
            let room = head_room.max(BUFFER_BYTES.saturating_sub(input.len()));
            return connection.transport.poll_fill(cx, input, room);
        }
        let mut room = head_room.max(BUFFER_BYTES);
        if connection.answers_long {
            ready!(connection.transport.poll_read_ready(cx))?;
            room = room.max(LONG_BYTES);
        }
        let read = ready!(connection.transport.poll_fill(cx, input, room))?;
        connection.answers_long = read >= BUFFER_BYTES;
        Poll::Ready(Ok(read))
    }

    #[inline]
    pub(super) fn begin_body(
        &mut self,
        side: &mut UpstreamSide,
        trailers: Trailers,
        pass: impl FnMut(&[u8]),
    ) -> Result<(), PeerFailure> {
        self.clean = true;
        self.decoder = match side.head.framing {
            _ if side.method == Method::Head || matches!(side.head.status, 204 | 304) => Decoder::Done,
            ResponseFraming::Length(length) => Decoder::length(length),
            ResponseFraming::Chunked => Decoder::chunked(trailers),
            ResponseFraming::UntilClose => Decoder::UntilClose,
        };
        let decoded = self.decode(side.input.get(side.body_start..).unwrap_or_default(), pass);
        side.input.truncate(side.body_start);
        decoded
    }

    #[inline]
    pub(super) fn poll_payload(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Vec<u8>,
        room: usize,
        pass: impl FnMut(&[u8]),
    ) -> Poll<Result<usize, PeerFailure>> {
        scratch.clear();
        let read = ready!(self.connection.transport.poll_fill(cx, scratch, room));
        match read {
            Err(_) => Poll::Ready(Err(PeerFailure::Error)),
            Ok(0) if matches!(self.decoder, Decoder::UntilClose) => {
                self.decoder = Decoder::Done;
                self.clean = false;
                Poll::Ready(Ok(0))
            }
            Ok(0) => Poll::Ready(Err(PeerFailure::Error)),
            Ok(count) => Poll::Ready(self.decode(scratch, pass).map(|()| count)),
        }
    }

    /// Passes on the payload in bytes that came.
    #[inline]
    fn decode(&mut self, bytes: &[u8], mut pass: impl FnMut(&[u8])) -> Result<(), PeerFailure> {
        let mut at = 0;
        while at < bytes.len() {
            if self.decoder.is_done() {
                // More than was announced: what it is nobody can know.
                self.clean = false;
                break;
            }
            let rest = bytes.get(at..).unwrap_or_default();
            let step = self.decoder.decode(rest).map_err(|_| PeerFailure::Invalid)?;
            pass(rest.get(step.payload).unwrap_or_default());
            at += step.consumed;
        }
        Ok(())
    }

    #[inline]
    pub(super) fn has_ended(&self) -> bool {
        self.decoder.is_done()
    }

    pub(super) fn trailers(&self) -> Lines {
        let mut kept = Lines::default();
        let trailers = self.decoder.trailers();
        each_trailer(trailers, |field| kept.copied(field, trailers));
        kept
    }

    pub(super) fn is_reusable(&self, side: &UpstreamSide) -> bool {
        let is_over = self.clean && self.decoder.is_done() && self.sender.is_done();
        is_over && self.form == HeadForm::Http && side.head.keeps_alive()
    }
}

/// Reads the head as far as it has come; interim responses are passed over.
fn read_head(side: &mut UpstreamSide) -> Result<bool, ResponseError> {
    loop {
        match side.head.parse(&side.input)? {
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

#[cfg(test)]
mod tests {
    use std::{sync::Arc, task::Waker};

    use keel_lb::{Ask, Attempt, Group};

    use super::*;
    use crate::{
        rig::{self, Rig},
        snapshot::ProtocolKind,
        transport::{Script, Transport},
        upstream::{
            pool::{Counted, MadeFor},
            stream::sender::BodyForm,
        },
    };

    #[test]
    fn a_connection_learns_how_much_to_read_at_once() {
        let rig = Rig::new(|_| {});
        let head = |length: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        let long = head(40_000) + &"x".repeat(40_000);
        let short = head(1) + "x";
        let rest = &long[BUFFER_BYTES..];
        let reads: [(&[&str], usize); 4] = [
            (&[&long], BUFFER_BYTES),
            (&[&long], long.len()),
            (&[&short], short.len()),
            (&[&long[..BUFFER_BYTES], rest], BUFFER_BYTES),
        ];
        let act = async |job: &mut crate::job::Job<'_>| {
            let group = Group::new(&rig::upstream("app"), &job.worker.registry, Arc::new(|_, _| {})).unwrap();
            let now = job.worker.clock.now();
            let ask = Ask { now, client_key: b"", key: b"", tried: &[], attempt: Attempt::First, random: 0 };
            let peer = group.pick(&ask).unwrap().peer().clone();
            let made_for = MadeFor {
                peer,
                protocol: ProtocolKind::Http,
                place: job.place().identity.clone(),
                local: None,
            };
            let transport = Transport::Script(Script::default());
            let mut connection = PeerConnection::new(transport, made_for, now, Counted::new(job.worker));
            let mut cx = Context::from_waker(Waker::noop());
            for (reads, first) in reads {
                let reads: Vec<_> = reads.iter().copied().map(Some).collect();
                connection.transport = Transport::Script(Script::new(&reads));
                let mut h1 =
                    H1::new(connection, Sender::new(job.ex, BodyForm::Plain, false, 0), HeadForm::Http);
                job.ex.upstream.input = Vec::new();
                assert!(matches!(h1.poll_head(&mut cx, &mut job.ex.upstream, 4096), Poll::Ready(Ok(()))));
                assert_eq!(job.ex.upstream.input.len(), first);
                job.ex.upstream.head.clear_at(0);
                connection = h1.connection;
            }
        };
        rig.enter(async || rig.with_job("GET / HTTP/1.1\r\nHost: h\r\n\r\n", act).await);
    }
}
