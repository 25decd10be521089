//! What is counted of a connection's frames, so that one client can't keep a worker busy with frames that ask for nothing.
//!
//! Only heads of frames are looked at, as they come. A connection with too many of a kind in one second closes with
//! ENHANCE_YOUR_CALM.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use super::{FRAME_HEAD_BYTES, PREFACE};
use crate::transport::Transport;

/// The time within which frames are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// Streams that may be reset in one second, at least: a client may leave a page, and the next one, with all that it has begun.
const RESETS_MAX: u32 = 100;

/// The same for each stream that a client may have at once.
const RESETS_PER_STREAM: u32 = 2;

/// Pings in one second.
const PINGS_MAX: u32 = 100;

/// Frames of settings in one second.
const SETTINGS_MAX: u32 = 50;

/// Frames of data in one second that hold none and end no stream.
const EMPTY_DATA_MAX: u32 = 100;

/// Frames that continue a head in one second.
const CONTINUATIONS_MAX: u32 = 20;

/// Frames in one second that widen a window. Who downloads fast sends two for each frame of data.
const WINDOW_UPDATES_MAX: u32 = 200_000;

/// Other frames in one second that carry nothing: priorities, acknowledgements, unknown ones.
const OTHERS_MAX: u32 = 10_000;

/// How much more a peer may send of each kind: its connection is many clients'.
const PEER_FACTOR: u32 = 100;

/// A kind of frame that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flood {
    Resets,
    Pings,
    Settings,
    EmptyData,
    Continuations,
    WindowUpdates,
    Others,
}

/// The kinds and how many of each a client may send, in the order of their counts.
const KINDS: [(Flood, u32); 7] = [
    (Flood::Resets, RESETS_MAX),
    (Flood::Pings, PINGS_MAX),
    (Flood::Settings, SETTINGS_MAX),
    (Flood::EmptyData, EMPTY_DATA_MAX),
    (Flood::Continuations, CONTINUATIONS_MAX),
    (Flood::WindowUpdates, WINDOW_UPDATES_MAX),
    (Flood::Others, OTHERS_MAX),
];

impl Flood {
    /// What is said of it in the log.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Flood::Resets => "http2 flood detected: too many streams reset",
            Flood::Pings => "http2 flood detected: too many PING frames",
            Flood::Settings => "http2 flood detected: too many SETTINGS frames",
            Flood::EmptyData => "http2 flood detected: too many empty DATA frames",
            Flood::Continuations => "http2 flood detected: too many CONTINUATION frames",
            Flood::WindowUpdates => "http2 flood detected: too many WINDOW_UPDATE frames",
            Flood::Others => "http2 flood detected: too many frames",
        }
    }
}

/// Gives the kind of a frame by its head, if it is one that is counted.
fn kind(head: &[u8; FRAME_HEAD_BYTES]) -> Option<Flood> {
    const ACK: u8 = 1;
    const END_STREAM: u8 = 1;
    let [l0, l1, l2, kind, flags, ..] = *head;
    match kind {
        0 if [l0, l1, l2] == [0; 3] && flags & END_STREAM == 0 => Some(Flood::EmptyData),
        3 => Some(Flood::Resets),
        4 if flags & ACK == 0 => Some(Flood::Settings),
        6 if flags & ACK == 0 => Some(Flood::Pings),
        8 => Some(Flood::WindowUpdates),
        9 => Some(Flood::Continuations),
        0 | 1 => None,
        _ => Some(Flood::Others),
    }
}

/// Counts the frames of one connection.
pub(crate) struct Meter {
    /// The head that has begun, and how much of it has come.
    head: [u8; FRAME_HEAD_BYTES],
    head_length: usize,
    /// Bytes before the next head.
    skip: usize,
    counts: [u32; KINDS.len()],
    maxima: [u32; KINDS.len()],
    since: Option<Instant>,
    /// Whether a head of fields has begun that goes on in the next frame.
    in_fields: bool,
}

impl Meter {
    /// Counts what a client sends that may have so many streams at once, its preface first.
    pub(crate) fn of_client(streams_max: u32) -> Self {
        let resets_max = streams_max.saturating_mul(RESETS_PER_STREAM);
        let maxima = KINDS.map(|(kind, max)| if kind == Flood::Resets { max.max(resets_max) } else { max });
        Self { skip: PREFACE.len(), ..Self::new(maxima) }
    }

    /// Counts what a peer sends. It resets no more streams than it was asked for.
    pub(crate) fn of_peer() -> Self {
        Self::new(KINDS.map(|(kind, max)| match kind {
            Flood::Resets => u32::MAX,
            _ => max.saturating_mul(PEER_FACTOR),
        }))
    }

    fn new(maxima: [u32; KINDS.len()]) -> Self {
        Self {
            head: [0; FRAME_HEAD_BYTES],
            head_length: 0,
            skip: 0,
            counts: [0; KINDS.len()],
            maxima,
            since: None,
            in_fields: false,
        }
    }

    /// Whether a frame, or a head of fields, has begun and hasn't ended.
    pub(super) fn is_within(&self) -> bool {
        self.skip > 0 || self.head_length > 0 || self.in_fields
    }

    /// Looks at bytes as they come; gives what there is too much of.
    pub(crate) fn look(&mut self, mut bytes: &[u8], now: Instant) -> Option<Flood> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            self.since = Some(now);
            self.counts = [0; KINDS.len()];
        }
        let mut flood = None;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let slots = self.head.get_mut(self.head_length..).unwrap_or_default();
            let taken = slots.len().min(bytes.len());
            for (slot, byte) in slots.iter_mut().zip(bytes) {
                *slot = *byte;
            }
            self.head_length += taken;
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.head_length == FRAME_HEAD_BYTES {
                let [l0, l1, l2, ..] = self.head;
                self.skip = u32::from_be_bytes([0, l0, l1, l2]) as usize;
                self.head_length = 0;
                self.note_fields();
                flood = flood.or(self.count());
            }
        }
        flood
    }

    fn note_fields(&mut self) {
        const END_HEADERS: u8 = 4;
        let [.., kind, flags, _, _, _, _] = self.head;
        if matches!(kind, 1 | 9) {
            self.in_fields = flags & END_HEADERS == 0;
        }
    }

    fn count(&mut self) -> Option<Flood> {
        let flood = kind(&self.head)?;
        for (((kind, _), max), count) in KINDS.iter().zip(&self.maxima).zip(&mut self.counts) {
            if *kind == flood {
                *count = count.saturating_add(1);
                return (*count > *max).then_some(flood);
            }
        }
        None
    }
}

/// What is known of a connection outside of what carries its bytes.
#[derive(Default)]
pub(crate) struct Gauge {
    flood: Cell<Option<Flood>>,
    blocked_since: Cell<Option<Instant>>,
    within_since: Cell<Option<Instant>>,
    received_at: Cell<Option<Instant>>,
    left: Cell<Option<Transport>>,
}

impl Gauge {
    /// Notes that bytes have come.
    pub(super) fn note_received(&self, meter: &mut Meter, bytes: &[u8], now: Instant) {
        let flood = meter.look(bytes, now);
        self.received_at.set(Some(now));
        if self.flood.get().is_none() {
            self.flood.set(flood);
        }
        let began = self.within_since.get().unwrap_or(now);
        self.within_since.set(meter.is_within().then_some(began));
    }

    /// Notes whether the other side takes bytes.
    pub(super) fn note_sending(&self, blocked: Option<Instant>) {
        let since = blocked.map(|now| self.blocked_since.get().unwrap_or(now));
        self.blocked_since.set(since);
    }

    /// Keeps what carried the bytes.
    pub(super) fn leave(&self, transport: Transport) {
        self.left.set(Some(transport));
    }

    /// What there was too much of.
    pub(crate) fn flood(&self) -> Option<Flood> {
        self.flood.get()
    }

    /// Since when the other side has taken nothing though something was to be sent.
    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since.get()
    }

    /// Since when a frame, or a head of fields, has been on its way.
    pub(crate) fn within_since(&self) -> Option<Instant> {
        self.within_since.get()
    }

    /// When bytes came last.
    pub(crate) fn received_at(&self) -> Option<Instant> {
        self.received_at.get()
    }

    /// Gives what carried the bytes, once nothing does any more.
    pub(crate) fn left(&self) -> Option<Transport> {
        self.left.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        [&head, payload].concat()
    }

    #[test]
    fn each_kind_has_its_limit_in_a_second() {
        let check = |bytes: Vec<u8>, max: u32, expect: Flood| {
            let (mut meter, start) = (Meter::of_client(8), Instant::now());
            assert_eq!(meter.look(PREFACE, start), None);
            for _ in 0..max {
                assert_eq!(meter.look(&bytes, start), None, "{expect:?}");
            }
            let later = start + WINDOW;
            let mut again = Meter { since: meter.since, ..Meter::new(meter.maxima) };
            again.counts = meter.counts;
            assert_eq!(again.look(&bytes, start), Some(expect));
            assert_eq!(meter.look(&bytes, later), None, "{expect:?} of another second");
        };
        check(frame(3, 0, &[0; 4]), RESETS_MAX, Flood::Resets);
        check(frame(6, 0, &[0; 8]), PINGS_MAX, Flood::Pings);
        check(frame(4, 0, &[]), SETTINGS_MAX, Flood::Settings);
        check(frame(0, 0, &[]), EMPTY_DATA_MAX, Flood::EmptyData);
        check(frame(9, 0, b"x"), CONTINUATIONS_MAX, Flood::Continuations);
        check(frame(8, 0, &[1; 4]), WINDOW_UPDATES_MAX, Flood::WindowUpdates);
        for (kind, flags) in [(2, 0), (6, 1), (4, 1), (0xfa, 0)] {
            check(frame(kind, flags, &[0; 5]), OTHERS_MAX, Flood::Others);
        }
    }

    #[test]
    fn a_client_may_leave_all_its_streams_twice_and_a_peer_any_number() {
        let now = Instant::now();
        let reset = frame(3, 0, &[0; 4]);
        let mut meter = Meter::of_client(128);
        meter.look(PREFACE, now);
        assert!((0..256).all(|_| meter.look(&reset, now).is_none()));
        assert_eq!(meter.look(&reset, now), Some(Flood::Resets));
        let mut meter = Meter::of_peer();
        assert!((0..100_000).all(|_| meter.look(&reset, now).is_none()));
    }

    #[test]
    fn what_answers_or_carries_something_is_not_counted() {
        let (mut meter, now) = (Meter::new([100; KINDS.len()]), Instant::now());
        for bytes in [frame(0, 1, &[]), frame(0, 0, b"x"), frame(1, 4, b"x")] {
            for _ in 0..1000 {
                assert_eq!(meter.look(&bytes, now), None);
            }
        }
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let now = Instant::now();
        let bytes: Vec<u8> =
            (0..=PINGS_MAX).flat_map(|_| [frame(0, 0, &[3; 40]), frame(6, 0, &[6; 8])].concat()).collect();
        for cut in 1..12 {
            let mut meter = Meter::new([PINGS_MAX; KINDS.len()]);
            let found: Vec<_> = bytes.chunks(cut).filter_map(|piece| meter.look(piece, now)).collect();
            assert_eq!(found, [Flood::Pings], "{cut}");
        }
    }
}
