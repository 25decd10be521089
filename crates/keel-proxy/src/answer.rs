//! What a request is answered with, before a byte of it is written.
//!
//! Phases, error pages, files and peers each make an [`Answer`]; [`send`](crate::send) is the one way out for all of them.
//! The fields that a peer sent stay in the exchange, where they were read; an answer only says which of them filters have
//! replaced.

use std::fs::File;

use keel_http::{Lines, Name, NameSet, ResponseFraming, date};
use keel_lb::Pick;

use crate::{
    exchange::{Exchange, Method},
    transform::Transforms,
    upstream::{Exchanged, Retries, Target},
};

/// A response.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    pub(crate) source: Source,
    /// What filters do to the body on its way.
    pub(crate) transforms: Transforms,
    /// What is put before the body and behind it.
    pub(crate) around: Option<Box<Around>>,
}

/// Paths whose responses are put before a body and behind it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Around {
    pub(crate) before: Option<String>,
    pub(crate) after: Option<String>,
}

impl Answer {
    /// Makes one of a status, without fields of its own.
    pub(crate) fn new(status: u16, source: Source) -> Box<Self> {
        Self::with(status, Fields::default(), source)
    }

    /// Makes one with fields.
    pub(crate) fn with(status: u16, fields: Fields, source: Source) -> Box<Self> {
        Box::new(Self { status, fields, source, transforms: Transforms::default(), around: None })
    }

    /// Makes one with a text of that media type.
    pub(crate) fn text(status: u16, content_type: &str, text: Vec<u8>) -> Box<Self> {
        let content_type =
            Some(content_type.as_bytes().to_vec()).filter(|content_type| !content_type.is_empty());
        let fields = Fields { content_type, ..Fields::default() };
        Self::with(status, fields, Source::Bytes(text))
    }

    /// Length of the body in bytes, where it is known before the body has been read.
    pub(crate) fn length(&self, ex: &Exchange) -> Option<u64> {
        match &self.source {
            _ if self.fields.resized => None,
            Source::Empty => Some(0),
            Source::Bytes(bytes) => Some(bytes.len() as u64),
            Source::File(file) => Some(file.length()),
            Source::Peer(peer) => match ex.upstream.head.framing {
                _ if let Some((start, end)) = peer.slice => Some(end - start),
                // A peer's 204 or 304 has no body, whatever status it is sent with.
                _ if matches!(ex.upstream.head.status, 204 | 304) => Some(0),
                // Neither has what answers a HEAD that stands for the client's GET.
                _ if ex.upstream.method == Method::Head && !ex.is_head() => Some(0),
                ResponseFraming::Length(length) => Some(length),
                ResponseFraming::Chunked | ResponseFraming::UntilClose => None,
            },
        }
    }

    /// The validator `ETag`, as it stands so far.
    pub(crate) fn etag<'a>(&'a self, ex: &'a Exchange) -> Option<&'a [u8]> {
        self.fields.etag.as_deref().or_else(|| self.of_peer(ex, Name::Etag))
    }

    /// `Content-Type` as it stands so far; an empty one is none.
    pub(crate) fn content_type<'a>(&'a self, ex: &'a Exchange) -> Option<&'a [u8]> {
        let own = self.fields.content_type.as_deref();
        own.or_else(|| self.of_peer(ex, Name::ContentType)).filter(|value| !value.is_empty())
    }

    /// The date of the last change in Unix seconds, as it stands so far.
    pub(crate) fn modified(&self, ex: &Exchange) -> Option<i64> {
        self.fields.modified.or_else(|| self.of_peer(ex, Name::LastModified).and_then(date::parse_http))
    }

    /// `Content-Encoding` as it stands so far; an empty one is none.
    pub(crate) fn encoding<'a>(&'a self, ex: &'a Exchange) -> Option<&'a [u8]> {
        let own = self.fields.encoding.map(str::as_bytes);
        own.or_else(|| self.of_peer(ex, Name::ContentEncoding)).filter(|value| !value.is_empty())
    }

    /// Values of a field as it stands so far: what filters have written, and else what the peer sent.
    pub(crate) fn values<'a>(&'a self, ex: &'a Exchange, name: Name) -> impl Iterator<Item = &'a [u8]> {
        let lines = [&self.fields.lines, &self.fields.added, &ex.sent.carried];
        let own = lines.into_iter().flat_map(move |lines| lines.values(name));
        let side = &ex.upstream;
        let is_peers = matches!(self.source, Source::Peer(_)) && !self.fields.dropped.contains(name);
        let came = is_peers.then(|| side.head.fields.all(name)).into_iter().flatten();
        own.chain(came.map(|field| field.value.of(&side.input)))
    }

    /// Says that the body that is sent has another length than its source, which nobody knows before.
    pub(crate) fn resize(&mut self) {
        self.fields.resized = true;
    }

    /// Says that no part of the body can be asked for.
    pub(crate) fn forbid_ranges(&mut self) {
        self.fields.ranges = Ranges::No;
        self.fields.dropped = self.fields.dropped.with(Name::AcceptRanges);
    }

    /// Makes the validator a weak one: the body means the same as before, in other bytes. One that can't be is taken out.
    pub(crate) fn weaken_etag(&mut self, ex: &Exchange) {
        let weak = match self.etag(ex) {
            None => return,
            Some(etag) if etag.starts_with(b"W/") => return,
            Some(etag) => etag.starts_with(b"\"").then(|| [b"W/", etag].concat()),
        };
        self.take_out(Name::Etag);
        if let Some(weak) = &weak {
            self.fields.lines.field("ETag", weak);
        }
        self.fields.etag = weak;
    }

    /// Takes out what says when the content was changed: it depends on more than that.
    pub(crate) fn forget_modified(&mut self) {
        self.take_out(Name::LastModified);
        self.fields.modified = None;
    }

    /// Takes out the validator `ETag`.
    pub(crate) fn forget_etag(&mut self) {
        self.take_out(Name::Etag);
        self.fields.etag = None;
    }

    /// Takes out `Content-Encoding`.
    pub(crate) fn forget_encoding(&mut self) {
        self.take_out(Name::ContentEncoding);
        self.fields.encoding = None;
    }

    /// Takes out a field, whoever wrote it.
    fn take_out(&mut self, name: Name) {
        self.fields.dropped = self.fields.dropped.with(name);
        self.fields.lines.remove_known(name);
        self.fields.added.remove_known(name);
    }

    /// The first field of that name that came from a peer and that no filter has replaced.
    fn of_peer<'a>(&self, ex: &'a Exchange, name: Name) -> Option<&'a [u8]> {
        if !matches!(self.source, Source::Peer(_)) || self.fields.dropped.contains(name) {
            return None;
        }
        let side = &ex.upstream;
        side.head.fields.first(name).map(|field| field.value.of(&side.input))
    }
}

/// The fields of an answer that aren't a peer's.
#[derive(Default)]
pub(crate) struct Fields {
    /// `Content-Type`; a peer's stands in its place, where it has one.
    pub(crate) content_type: Option<Vec<u8>>,
    pub(crate) location: Option<Vec<u8>>,
    /// `Last-Modified`, in Unix seconds.
    pub(crate) modified: Option<i64>,
    pub(crate) etag: Option<Vec<u8>>,
    /// `Content-Encoding`.
    pub(crate) encoding: Option<&'static str>,
    /// Further lines that stand before `Connection`.
    pub(crate) lines: Lines,
    /// Lines of the configuration, which stand behind all others.
    pub(crate) added: Lines,
    /// Fields of the peer, and those above, that filters have taken out or replaced.
    pub(crate) dropped: NameSet,
    pub(crate) ranges: Ranges,
    /// Whether filters append fields behind the body.
    pub(crate) trailers: bool,
    /// Whether filters change the body's length, so that nobody knows it before it has been sent.
    pub(crate) resized: bool,
    /// Whether the answer is another one to clients that accept other encodings.
    pub(crate) varies: bool,
}

/// Which parts of an answer may be asked for by `Range`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ranges {
    /// None.
    #[default]
    No,
    /// One part.
    One,
    /// As many as `max_ranges` allows.
    Many,
}

/// Where an answer's body comes from.
pub(crate) enum Source {
    /// There is none.
    Empty,
    /// Memory.
    Bytes(Vec<u8>),
    /// A file, or parts of it.
    File(FileParts),
    /// A peer, whose response's head is in the exchange.
    Peer(PeerAnswer),
}

/// Parts of a file, each with what goes before it.
pub(crate) struct FileParts {
    pub(crate) file: File,
    pub(crate) parts: Vec<FilePart>,
    /// What follows the last part.
    pub(crate) after: Vec<u8>,
}

/// A range of a file in bytes, the end not included, and what goes before it.
pub(crate) struct FilePart {
    pub(crate) before: Vec<u8>,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl FileParts {
    /// Takes a whole file of that length in bytes.
    pub(crate) fn whole(file: File, length: u64) -> Self {
        let parts = vec![FilePart { before: Vec::new(), start: 0, end: length }];
        Self { file, parts, after: Vec::new() }
    }

    /// Counts the bytes that are sent.
    pub(crate) fn length(&self) -> u64 {
        let of = |part: &FilePart| part.before.len() as u64 + part.end - part.start;
        self.parts.iter().map(of).sum::<u64>() + self.after.len() as u64
    }
}

/// A response whose head has come from a peer and whose body follows, with what it takes to ask another peer if this one
/// breaks off before a byte of it was sent.
pub(crate) struct PeerAnswer {
    pub(crate) exchanged: Box<Exchanged>,
    pub(crate) pick: Pick,
    pub(crate) target: Target,
    pub(crate) retries: Retries,
    /// The part of the body that the client gets, in bytes, the end not included; `None` for all of it.
    pub(crate) slice: Option<(u64, u64)>,
}

/// A response that says nothing but its status: `error_page` may replace it, else it gets nginx's built-in page.
#[derive(Clone, Debug, Default)]
pub(crate) struct Special {
    pub(crate) status: u16,
    pub(crate) location: Option<Vec<u8>>,
    /// Further fields.
    pub(crate) fields: Lines,
}

impl Special {
    /// Makes a redirect to a URL.
    pub(crate) fn moved(status: u16, location: Vec<u8>) -> Self {
        Self { status, location: Some(location), fields: Lines::default() }
    }
}

impl From<u16> for Special {
    fn from(status: u16) -> Self {
        Self { status, ..Self::default() }
    }
}
