use proptest::prelude::*;

use super::*;

/// Reads `text` in pieces of `step` bytes; gives the payload, the rest and the trailers.
fn read(text: &[u8], step: usize) -> Result<(Vec<u8>, usize, Vec<u8>, bool), BodyError> {
    let mut decoder = Decoder::chunked(Trailers::Keep);
    let mut payload = Vec::new();
    let (mut at, mut end) = (0, 0);
    while end < text.len() && !decoder.is_done() {
        end = (end + step).min(text.len());
        while at < end && !decoder.is_done() {
            let found = decoder.decode(&text[at..end])?;
            payload.extend_from_slice(&text[at..end][found.payload.clone()]);
            at += found.consumed;
        }
    }
    Ok((payload, at, decoder.trailers().to_vec(), decoder.is_done()))
}

#[test]
fn reads_chunks_extensions_and_trailers() {
    let text = b"5;a=\"b\"\r\nhello\r\n006 ;x\r\n world\r\n0\r\nA: b\r\nC: d\r\n\r\nnext";
    for step in 1..=text.len() {
        let (payload, used, trailers, done) = read(text, step).unwrap();
        assert_eq!(payload, b"hello world");
        assert_eq!(trailers, b"A: b\r\nC: d\r\n");
        assert_eq!(&text[used..], b"next");
        assert!(done);
    }
}

#[test]
fn refuses_chunk_tricks() {
    for text in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloo\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "\r\n",
        ";\r\n",
        "10000000000000000\r\nx",
        "fffffffffffffffff\r\nx",
        "0\r\nA: b\n\r\n",
        "0\r\n\nx",
    ] {
        assert!(read(text.as_bytes(), text.len()).is_err(), "{text:?}");
    }
}

#[test]
fn lines_and_trailers_are_bounded() {
    let long = format!("5;{}\r\n", "x".repeat(CHUNK_LINE_BYTES_MAX));
    assert_eq!(read(long.as_bytes(), 100), Err(BodyError::TooLong));
    let zeros = "0".repeat(SIZE_DIGITS_MAX + 1);
    assert_eq!(read(zeros.as_bytes(), 100), Err(BodyError::Chunk));
    let trailers = format!("0\r\n{}", "A: b\r\n".repeat(TRAILER_BYTES_MAX / 4 + 1));
    assert_eq!(read(trailers.as_bytes(), 100), Err(BodyError::TooLong));
}

#[test]
fn counts_a_length_down() {
    let mut decoder = Decoder::length(5);
    assert_eq!(decoder.decode(b"abc"), Ok(Step { consumed: 3, payload: 0..3 }));
    assert!(!decoder.is_done());
    assert_eq!(decoder.decode(b"defg"), Ok(Step { consumed: 2, payload: 0..2 }));
    assert!(decoder.is_done());
    assert!(Decoder::length(0).is_done());
}

#[test]
fn a_trailer_is_a_field() {
    for (trailers, taken) in [
        ("X-T: a\tb \u{e9}\r\n", true),
        ("X-T:\r\n", true),
        ("X-T\r\n", false),
        ("X-T : a\r\n", false),
        (": a\r\n", false),
        ("X-T: a\r\n b\r\n", false),
        ("X-T: a\u{1}\r\n", false),
        ("X@T: a\r\n", false),
    ] {
        let mut decoder = Decoder::chunked(Trailers::Drop);
        let text = format!("0\r\n{trailers}\r\n");
        assert_eq!(decoder.decode(text.as_bytes()).is_ok(), taken, "{trailers:?}");
        assert_eq!(decoder.is_done(), taken, "{trailers:?}");
    }
}

#[test]
fn trailers_that_frame_or_route_are_left_out() {
    let mut seen = Vec::new();
    let text = b"A: b\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\nHost: y\r\nC: d\r\n";
    each_trailer(text, |field| {
        seen.push((field.name.of(text).to_vec(), field.value.of(text).to_vec()));
    });
    assert_eq!(seen, [(b"A".to_vec(), b"b".to_vec()), (b"C".to_vec(), b"d".to_vec())]);
}

proptest! {
    #[test]
    fn what_is_written_reads_back(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..5)) {
        let mut text = Vec::new();
        for piece in &pieces {
            crate::encode::chunk(piece, &mut text);
        }
        text.extend_from_slice(crate::encode::LAST_CHUNK);
        for step in 1..7 {
            let (payload, used, _, done) = read(&text, step).unwrap();
            prop_assert_eq!(&payload, &pieces.concat());
            prop_assert_eq!((used, done), (text.len(), true));
        }
    }

    #[test]
    fn any_bytes_are_survived_alike(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let whole = read(&bytes, 1000);
        prop_assert_eq!(read(&bytes, 1), whole);
    }
}
