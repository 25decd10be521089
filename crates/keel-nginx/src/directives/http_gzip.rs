//! ngx_http_gzip_module: compressing responses.

use keel_model::GzipProxied;

use crate::{
    arguments::{buffers, flag, keyword, keywords, media_types, number_in, size, size_of_list},
    ast::Directive,
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
};

/// The sizes that windows and hash tables may have, in bytes. The first is that of 9 bits, and of zlib's memory level 1.
const SIZES: [u64; 9] = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131_072];

/// The base-2 logarithm of the first.
const FIRST_BITS: u32 = 9;

/// How many of them a window may have.
const WINDOWS: usize = 7;

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "gzip",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL_IF,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether responses with status 200, 403 and 404 are compressed for clients that accept it. What a peer has sent \
              leaves at the latest when the peer pauses, so that streams of events pass compressed.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.gzip.enabled, flag);
        }),
    },
    Row {
        name: "gzip_types",
        syntax: "mime-type ...",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::AtLeast(1),
        default: Some("text/html"),
        doc: "The media types that are compressed, besides `text/html`; `*` for all.",
        set: Setter::Simple(|reader, directive| {
            media_types(reader, directive, |frame| &mut frame.scope.gzip.types);
        }),
    },
    Row {
        name: "gzip_comp_level",
        syntax: "level",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("1"),
        doc: "How hard it is tried, from 1 to 9.",
        set: Setter::Simple(|reader, directive| {
            let read = |reader: &mut Reader<'_>, directive: &Directive| number_in(reader, directive, 1..=9);
            reader.once(directive, |frame| &mut frame.scope.gzip.level, read);
        }),
    },
    Row {
        name: "gzip_min_length",
        syntax: "length",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("20"),
        doc: "Bodies whose length is known and less than this are left alone.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.gzip.min_length, size);
        }),
    },
    Row {
        name: "gzip_window",
        syntax: "size",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("32k"),
        doc: "How far back repetitions are looked for. A body that is known to be shorter gets a smaller one.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.gzip.window_bits, window);
        }),
    },
    Row {
        name: "gzip_hash",
        syntax: "size",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("64k"),
        doc: "How much memory is used besides.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.gzip.memory_level, hash);
        }),
    },
    Row {
        name: "gzip_vary",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether responses that are compressed for some clients say `Vary: Accept-Encoding`, with `gzip`, `gunzip` and \
              `gzip_static`.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.gzip.vary, flag);
        }),
    },
    Row {
        name: "gzip_http_version",
        syntax: "1.0 | 1.1",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: Some("1.1"),
        doc: "The oldest version of HTTP whose clients get compressed responses.",
        set: Setter::Simple(|reader, directive| {
            let read = |reader: &mut Reader<'_>, directive: &Directive| {
                keyword(reader, directive, &[("1.0", true), ("1.1", false)])
            };
            reader.once(directive, |frame| &mut frame.scope.gzip.http10, read);
        }),
    },
    Row {
        name: "gzip_proxied",
        syntax: "off | expired | no-cache | no-store | private | no_last_modified | no_etag | auth | any ...",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::AtLeast(1),
        default: Some("off"),
        doc: "Which responses are compressed for requests that a proxy passed on, which their `Via` says.",
        set: Setter::Simple(proxied),
    },
    Row {
        name: "gzip_disable",
        syntax: "regex ...",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::AtLeast(1),
        default: None,
        doc: "Clients that get no compressed responses, by expressions for `User-Agent`; `msie6` stands for old versions of \
              Internet Explorer.",
        set: Setter::Simple(disable),
    },
    Row {
        name: "gzip_buffers",
        syntax: "number size",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::TWO,
        default: None,
        doc: "Accepted; buffers are of a fixed size here.",
        set: Setter::Checked(|reader, directive| {
            buffers(reader, directive);
        }),
    },
    Row {
        name: "gzip_no_buffer",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: None,
        doc: "Accepted; what is compressed is sent as soon as nothing more is at hand.",
        set: Setter::Checked(|reader, directive| {
            flag(reader, directive);
        }),
    },
    Row {
        name: "postpone_gzipping",
        syntax: "size",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::ONE,
        default: None,
        doc: "Accepted; compression begins with the first byte.",
        set: Setter::Checked(|reader, directive| {
            size(reader, directive);
        }),
    },
];

fn window(reader: &mut Reader<'_>, directive: &Directive) -> Option<u32> {
    let place = size_of_list(reader, directive, SIZES.get(..WINDOWS).unwrap_or_default())?;
    u32::try_from(place).ok().map(|place| FIRST_BITS + place)
}

fn hash(reader: &mut Reader<'_>, directive: &Directive) -> Option<u32> {
    let place = size_of_list(reader, directive, &SIZES)?;
    u32::try_from(place).ok().map(|place| 1 + place)
}

fn proxied(reader: &mut Reader<'_>, directive: &Directive) {
    let choices = [
        ("off", GzipProxied::Off),
        ("expired", GzipProxied::Expired),
        ("no-cache", GzipProxied::NoCache),
        ("no-store", GzipProxied::NoStore),
        ("private", GzipProxied::Private),
        ("no_last_modified", GzipProxied::NoLastModified),
        ("no_etag", GzipProxied::NoEtag),
        ("auth", GzipProxied::Auth),
        ("any", GzipProxied::Any),
    ];
    let words = keywords(reader, directive, &choices);
    let proxied = reader.frame.scope.gzip.proxied.get_or_insert_default();
    proxied.extend(words.iter().filter(|word| !proxied.contains(word)).copied().collect::<Vec<_>>());
}

fn disable(reader: &mut Reader<'_>, directive: &Directive) {
    for word in &directive.args {
        if word.text == "msie6" {
            reader.frame.scope.gzip.disable.get_or_insert_default().msie6 = true;
        } else if let Some(pattern) = reader.pattern(&word.text, word.span, true) {
            reader.frame.scope.gzip.disable.get_or_insert_default().patterns.push(pattern);
        }
    }
}
