//! A body: the same payload however it is cut up; and what we chunk is read back as it was.

#![no_main]

use keel_http::{
    body::{BodyError, Decoder, Trailers},
    encode,
};
use libfuzzer_sys::fuzz_target;

/// Reads a body that arrives in pieces of so many bytes. Gives the payload, and what is left behind its end.
fn read(mut decoder: Decoder, bytes: &[u8], piece: usize) -> Result<(Vec<u8>, Option<usize>), BodyError> {
    let (mut payload, mut start, mut end) = (Vec::new(), 0, 0);
    loop {
        if decoder.is_done() {
            return Ok((payload, Some(start)));
        }
        let step = decoder.decode(&bytes[start..end])?;
        assert!(step.payload.start <= step.payload.end && step.payload.end <= step.consumed);
        assert!(step.consumed <= end - start);
        payload.extend_from_slice(&bytes[start..end][step.payload]);
        start += step.consumed;
        if step.consumed == 0 || start == end {
            if end == bytes.len() && step.consumed == 0 {
                return Ok((payload, None));
            }
            end = (end + piece).min(bytes.len());
        }
    }
}

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (piece, length, bytes) = input;
    let piece = usize::from(piece).max(1);
    for decoder in
        [Decoder::chunked(Trailers::Keep), Decoder::chunked(Trailers::Drop), Decoder::length(length.into())]
    {
        let whole = read(decoder.clone(), bytes, bytes.len().max(1));
        let pieces = read(decoder, bytes, piece);
        assert_eq!(whole, pieces);
    }

    let mut coded = Vec::new();
    for chunk in bytes.chunks(piece) {
        encode::chunk(chunk, &mut coded);
    }
    coded.extend_from_slice(b"0\r\n\r\nnext");
    let end = coded.len() - 4;
    let decoded = read(Decoder::chunked(Trailers::Drop), &coded, usize::from(length).max(1));
    assert_eq!(decoded, Ok((bytes.to_vec(), Some(end))));
});
