//! `gunzip`: unpacks what is in the encoding gzip, for clients that don't accept that.

use zlib_rs::{Inflate, InflateFlush, Status};

use super::{Filter, Settings, encoding};
use crate::{
    answer::{Answer, Special},
    error::CompileError,
    job::Job,
    transform::{Broken, Transform},
};

/// Bytes that are unpacked at a time. They may become a thousand times as many.
const INPUT_BYTES_MAX: usize = 4 << 10;

/// Bytes of room that is made at a time.
const ROOM_BYTES: usize = 16 << 10;

/// What says a window of 32 KiB and a gzip header, for zlib.
const WINDOW_BITS: u8 = 16 + 15;

struct Gunzip;

pub(super) fn compile(settings: &Settings<'_>) -> Result<Option<Box<dyn Filter>>, CompileError> {
    Ok(settings.scope.gunzip.enabled.then(|| Box::new(Gunzip) as Box<dyn Filter>))
}

impl Filter for Gunzip {
    fn acts_within(&self) -> bool {
        true
    }

    fn header(&self, job: &Job<'_>, answer: &mut Answer) -> Result<(), Special> {
        if !answer.encoding(job.ex).is_some_and(|encoding| encoding.eq_ignore_ascii_case(b"gzip")) {
            return Ok(());
        }
        encoding::say_vary(job, answer);
        if encoding::accepts_gzip(job, Some(answer)) {
            return Ok(());
        }
        answer.forget_encoding();
        answer.resize();
        answer.forbid_ranges();
        answer.weaken_etag(job.ex);
        answer.transforms.push(Unpack::new());
        Ok(())
    }
}

/// Unpacks members of gzip, one behind the other (RFC 1952 §2.2).
struct Unpack {
    inflate: Box<Inflate>,
    /// Whether a member has ended, and no other has begun.
    has_ended: bool,
}

impl Unpack {
    fn new() -> Self {
        Self { inflate: Box::new(Inflate::new(true, WINDOW_BITS)), has_ended: false }
    }
}

impl Transform for Unpack {
    fn piece(&mut self, piece: &mut Vec<u8>) -> Result<(), Broken> {
        let mut out = Vec::new();
        let mut input = piece.as_slice();
        loop {
            if self.has_ended {
                if input.is_empty() {
                    break;
                }
                *self.inflate = Inflate::new(true, WINDOW_BITS);
                self.has_ended = false;
            }
            let at = out.len();
            out.resize(at + ROOM_BYTES, 0);
            let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
            let room = out.get_mut(at..).unwrap_or_default();
            let status = self
                .inflate
                .decompress(input, room, InflateFlush::NoFlush)
                .map_err(|error| Broken(format!("inflate() failed: {}", error.as_str())))?;
            let read = usize::try_from(self.inflate.total_in() - read).unwrap_or(usize::MAX);
            let written = usize::try_from(self.inflate.total_out() - written).unwrap_or(0);
            input = input.get(read..).unwrap_or_default();
            out.truncate(at + written);
            self.has_ended = status == Status::StreamEnd;
            if !self.has_ended && written < ROOM_BYTES {
                break;
            }
        }
        *piece = out;
        Ok(())
    }

    fn end(&mut self, _out: &mut Vec<u8>) -> Result<(), Broken> {
        if self.has_ended {
            return Ok(());
        }
        Err(Broken("inflate() failed on response end: the compressed body is cut off".to_owned()))
    }

    fn input_bytes_max(&self) -> usize {
        INPUT_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::gzip::packed;

    /// Unpacks pieces of this size.
    fn unpacked(bytes: &[u8], size: usize) -> Result<Vec<u8>, Broken> {
        let (mut unpack, mut out) = (Unpack::new(), Vec::new());
        for piece in bytes.chunks(size) {
            let mut piece = piece.to_vec();
            unpack.piece(&mut piece)?;
            out.append(&mut piece);
        }
        unpack.end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn members_become_one_body_however_they_are_cut() {
        let text: Vec<u8> = (0..200_000u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
        let both = [packed(&text), packed(b""), packed(b"tail")].concat();
        for size in [1, 1000, both.len()] {
            assert!(unpacked(&both, size).unwrap() == [&text, b"tail".as_slice()].concat(), "{size}");
        }
        assert_eq!(unpacked(&packed(b""), 5).unwrap(), b"");
    }

    #[test]
    fn what_is_broken_or_cut_off_is_no_body() {
        let mut bytes = packed(b"some text, some text");
        assert!(unpacked(&bytes[..bytes.len() - 1], 3).is_err());
        assert!(unpacked(b"", 3).is_err());
        bytes[12] ^= 0xff;
        assert!(unpacked(&bytes, 3).is_err());
        assert!(unpacked(b"plain text", 100).is_err());
    }
}
