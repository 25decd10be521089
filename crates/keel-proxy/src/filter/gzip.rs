//! `gzip`: compresses bodies for clients that accept it.
//!
//! The compressor is zlib-rs: memory-safe where it counts, as fast as the C one, and able to flush at any byte.

use keel_model::GzipScope;
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Status};

use super::{Filter, Settings, content_type::ContentType, encoding};
use crate::{
    answer::{Answer, Special},
    error::CompileError,
    job::Job,
    transform::{Broken, GzipRatio, Transform},
};

/// Bytes of room for what is compressed, at a time.
const ROOM_BYTES: usize = 16 << 10;

/// What says a gzip header, for zlib, beside a window's bits.
const GZIP_HEADER_BITS: i32 = 16;

/// What of a window a body can't use, in bytes.
const WINDOW_OVERHEAD_BYTES: u64 = 262;

/// The smallest window, as zlib counts. It takes 8 for 9.
const WINDOW_BITS_MIN: u32 = 9;

struct Gzip {
    scope: GzipScope,
}

pub(super) fn compile(settings: &Settings<'_>) -> Result<Option<Box<dyn Filter>>, CompileError> {
    let scope = &settings.scope.gzip;
    Ok(scope.enabled.then(|| Box::new(Gzip { scope: scope.clone() }) as Box<dyn Filter>))
}

impl Filter for Gzip {
    fn header(&self, job: &Job<'_>, answer: &mut Answer) -> Result<(), Special> {
        let length = answer.length(job.ex);
        let is_short = length.is_some_and(|length| length < self.scope.min_length.0);
        if !matches!(answer.status, 200 | 403 | 404)
            || is_short
            || answer.encoding(job.ex).is_some()
            || !ContentType::is_listed(&self.scope.types, job, answer)
        {
            return Ok(());
        }
        encoding::say_vary(job, answer);
        if !encoding::accepts_gzip(job, Some(answer)) {
            return Ok(());
        }
        answer.fields.encoding = Some("gzip");
        answer.resize();
        answer.forbid_ranges();
        answer.weaken_etag(job.ex);
        answer.transforms.push_outer(Pack::new(&self.scope, length));
        Ok(())
    }
}

/// The lowest level of the compressor's own. With its 1 bodies are a third longer than with zlib's 1; with its 2 they are
/// shorter, in two thirds of the time (JSON of 10 KB).
const LEVEL_MIN: u32 = 2;

/// Makes the settings of a compressor: a body that is known to be short needs less of a window.
fn config(scope: &GzipScope, length: Option<u64>) -> DeflateConfig {
    let (mut window_bits, mut memory_level) = (scope.window_bits, scope.memory_level);
    if let Some(length @ 1..) = length {
        let is_enough = |bits: u32| length + WINDOW_OVERHEAD_BYTES < 1 << (bits - 1);
        while window_bits > WINDOW_BITS_MIN && is_enough(window_bits) {
            window_bits -= 1;
            memory_level = memory_level.saturating_sub(1).max(1);
        }
    }
    let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    DeflateConfig {
        window_bits: GZIP_HEADER_BITS + number(window_bits),
        mem_level: number(memory_level),
        ..DeflateConfig::new(number(scope.level.max(LEVEL_MIN)))
    }
}

/// Compresses a body.
struct Pack {
    deflate: Box<Deflate>,
    /// Whether something has been taken in since the last flush.
    holds: bool,
    room: Vec<u8>,
}

impl Pack {
    fn new(scope: &GzipScope, length: Option<u64>) -> Self {
        let deflate = Box::new(Deflate::new_with_config(config(scope, length)));
        Self { deflate, holds: false, room: vec![0; ROOM_BYTES] }
    }

    fn run(&mut self, mut input: &[u8], out: &mut Vec<u8>, flush: DeflateFlush) -> Result<(), Broken> {
        loop {
            let (read, written) = (self.deflate.total_in(), self.deflate.total_out());
            let status = self
                .deflate
                .compress(input, &mut self.room, flush)
                .map_err(|error| Broken(format!("deflate() failed: {}", error.as_str())))?;
            let read = usize::try_from(self.deflate.total_in() - read).unwrap_or(usize::MAX);
            let written = usize::try_from(self.deflate.total_out() - written).unwrap_or(0);
            input = input.get(read..).unwrap_or_default();
            out.extend_from_slice(self.room.get(..written).unwrap_or_default());
            // Room that is left says that nothing waits inside.
            if status == Status::StreamEnd || (written < self.room.len() && input.is_empty()) {
                return Ok(());
            }
            if read == 0 && written == 0 {
                return Err(Broken("deflate() failed: no progress".to_owned()));
            }
        }
    }
}

impl Transform for Pack {
    fn piece(&mut self, piece: &mut Vec<u8>) -> Result<(), Broken> {
        let input = std::mem::take(piece);
        self.holds |= !input.is_empty();
        self.run(&input, piece, DeflateFlush::NoFlush)
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        if std::mem::take(&mut self.holds) {
            self.run(&[], out, DeflateFlush::SyncFlush)?;
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        self.run(&[], out, DeflateFlush::Finish)
    }

    fn holds(&self) -> bool {
        self.holds
    }

    fn gzip_ratio(&self) -> Option<GzipRatio> {
        Some(GzipRatio { plain_bytes: self.deflate.total_in(), packed_bytes: self.deflate.total_out() })
    }
}

/// Compresses a whole body.
#[cfg(test)]
pub(super) fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut pack = Pack::new(&GzipScope::default(), None);
    let mut piece = bytes.to_vec();
    pack.piece(&mut piece).unwrap();
    out.append(&mut piece);
    pack.end(&mut out).unwrap();
    out
}

#[cfg(test)]
mod tests {
    use zlib_rs::{Inflate, InflateFlush};

    use super::*;

    fn unpacked(bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 1 << 20];
        let mut inflate = Inflate::new(true, 31);
        inflate.decompress(bytes, &mut out, InflateFlush::NoFlush).unwrap();
        out.truncate(usize::try_from(inflate.total_out()).unwrap());
        out
    }

    fn text(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| b"abcdefgh ijkl"[(at * at / 7) % 13]).collect()
    }

    #[test]
    fn a_body_is_the_same_at_every_level_however_it_is_cut() {
        let body = text(70_000);
        for level in 1..=9 {
            for (size, length) in [(1, None), (777, Some(70_000)), (70_000, Some(70_000))] {
                let scope = GzipScope { level, ..GzipScope::default() };
                let (mut pack, mut out) = (Pack::new(&scope, length), Vec::new());
                for piece in body.chunks(size) {
                    let mut piece = piece.to_vec();
                    pack.piece(&mut piece).unwrap();
                    out.append(&mut piece);
                }
                pack.end(&mut out).unwrap();
                assert!(unpacked(&out) == body, "level {level} in pieces of {size}");
            }
        }
    }

    #[test]
    fn what_is_flushed_can_be_read() {
        let (mut pack, mut out) = (Pack::new(&GzipScope::default(), None), Vec::new());
        for word in ["one ", "two ", "three"] {
            let mut piece = word.as_bytes().to_vec();
            pack.piece(&mut piece).unwrap();
            out.append(&mut piece);
            assert!(pack.holds());
            pack.flush(&mut out).unwrap();
            assert!(!pack.holds());
            assert!(unpacked(&out).ends_with(word.as_bytes()));
        }
        let before = out.len();
        pack.flush(&mut out).unwrap();
        assert_eq!(out.len(), before, "nothing came between");
    }

    #[test]
    fn short_bodies_have_small_windows() {
        let check = |length: Option<u64>, window: i32, memory: i32| {
            let config = config(&GzipScope::default(), length);
            assert_eq!((config.window_bits - 16, config.mem_level), (window, memory), "{length:?}");
        };
        check(None, 15, 8);
        check(Some(0), 15, 8);
        check(Some(1 << 20), 15, 8);
        check(Some(10_000), 14, 7);
        check(Some(20), 9, 2);
        for length in 1..40 {
            let mut pack = Pack::new(&GzipScope::default(), Some(length));
            let mut out = text(usize::try_from(length).unwrap());
            pack.piece(&mut out).unwrap();
            pack.end(&mut out).unwrap();
            assert_eq!(unpacked(&out).len() as u64, length);
        }
    }
}
