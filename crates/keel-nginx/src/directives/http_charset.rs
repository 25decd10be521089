//! ngx_http_charset_module: the charset that responses are in.

use keel_diag::Diagnostic;
use keel_model::{CharsetMap, CharsetScope, Template};

use crate::{
    arguments::{flag, media_types},
    ast::{Directive, Word},
    reader::{Frame, Reader},
    registry::{Arity, Contexts, Row, Setter},
};

/// How many bytes a character of UTF-8 in a `charset_map` has at most, as in nginx.
const UTF8_BYTES_MAX: usize = 3;

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "charset_map",
        syntax: "charset1 charset2 { ... }",
        contexts: Contexts::HTTP,
        arity: Arity::TWO,
        default: None,
        doc: "How text in one charset is written in another, in both directions: a byte of the first and what it is in the \
              second, in hexadecimal, for each character beyond ASCII. Only the second may be `utf-8`. A character that has none \
              becomes `?`, or `&#number;` where it comes from UTF-8.",
        set: Setter::Block(map),
    },
    Row {
        name: "charset",
        syntax: "charset | off",
        contexts: Contexts::HTTP_ALL_IF,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "The charset that `Content-Type` gets, for the types of `charset_types` and where it has none, except in \
              redirects with 301 and 302. Bodies in another charset are converted by a `charset_map`. Variables are allowed. \
              `X-Accel-Charset` of a peer takes its place, if a `charset_map`, `charset` or `source_charset` names that one.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.charset.charset, charset);
        }),
    },
    Row {
        name: "source_charset",
        syntax: "charset",
        contexts: Contexts::HTTP_ALL_IF,
        arity: Arity::ONE,
        default: None,
        doc: "The charset that bodies are in. Where `charset` is another one there must be a `charset_map` between them, else the \
              configuration is refused, or with variables the field stays as it is and the error log says so.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.charset.source, Reader::template_arg);
        }),
    },
    Row {
        name: "override_charset",
        syntax: "on | off",
        contexts: Contexts::HTTP_ALL_IF,
        arity: Arity::ONE,
        default: Some("off"),
        doc: "Whether `charset` also holds for responses of peers that name a charset: they are converted from that one.",
        set: Setter::Simple(|reader, directive| {
            reader.once(directive, |frame| &mut frame.scope.charset.overrides, flag);
        }),
    },
    Row {
        name: "charset_types",
        syntax: "mime-type ...",
        contexts: Contexts::HTTP_ALL,
        arity: Arity::AtLeast(1),
        default: Some(
            "text/html text/xml text/plain text/vnd.wap.wml application/javascript application/rss+xml",
        ),
        doc: "The media types that `charset` is for, besides `text/html`; `*` for all.",
        set: Setter::Simple(|reader, directive| {
            media_types(reader, directive, |frame| &mut frame.scope.charset.types);
        }),
    },
];

fn charset(reader: &mut Reader<'_>, directive: &Directive) -> Option<Option<Template>> {
    if directive.arg(0) == "off" {
        return Some(None);
    }
    reader.template_arg(directive).map(Some)
}

fn map(reader: &mut Reader<'_>, directive: &Directive, block: &[Directive]) {
    let [from, to] = directive.args.as_slice() else { return };
    let mut map = CharsetMap { from: from.text.clone(), to: to.text.clone(), pairs: Vec::new() };
    let names = format!("\"{}\" and \"{}\"", map.from, map.to);
    if map.from.eq_ignore_ascii_case(&map.to) {
        let nginx = format!("\"charset_map\" between the same charsets {names}");
        return reader.invalid(directive, to, nginx, "another charset than the first");
    }
    if map.from.eq_ignore_ascii_case("utf-8") {
        let nginx = "\"charset_map\" with \"utf-8\" charset should be given in the second column".to_owned();
        return reader.invalid(directive, from, nginx, "a charset of one byte for each character");
    }
    if reader.http.charset_maps.iter().any(|known| known.is_between(&map.from, &map.to)) {
        let message = format!("a second `charset_map` between {names}");
        let nginx = format!("duplicate \"charset_map\" between {names}");
        return reader.error("nginx::duplicate", message, directive.span(), nginx);
    }
    for line in block {
        match line.args.as_slice() {
            [character] if line.block.is_none() => {
                let Some(byte) = byte(&line.name.text) else {
                    invalid_character(reader, line, &line.name);
                    continue;
                };
                match self::character(&map, &character.text) {
                    Some(bytes) => map.pairs.push((byte, bytes)),
                    None => invalid_character(reader, line, character),
                }
            }
            _ => {
                let nginx = "invalid parameters number".to_owned();
                let message = "a line of `charset_map` has two characters in hexadecimal";
                reader.error("nginx::invalid-value", message, line.span(), nginx);
            }
        }
    }
    reader.http.charset_maps.push(map);
}

fn invalid_character(reader: &mut Reader<'_>, line: &Directive, word: &Word) {
    let nginx = format!("invalid value \"{}\"", word.text);
    reader.invalid(line, word, nginx, "a character in hexadecimal");
}

/// Reads a number of one byte.
fn byte(text: &str) -> Option<u8> {
    let is_number = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    u8::try_from(u64::from_str_radix(text, 16).ok().filter(|_| is_number)?).ok()
}

/// Reads a character of the second column.
fn character(map: &CharsetMap, text: &str) -> Option<Vec<u8>> {
    if !map.is_utf8() {
        return byte(text).map(|byte| vec![byte]);
    }
    let pairs = text.as_bytes().chunks(2).map(|pair| byte(std::str::from_utf8(pair).ok()?));
    let bytes = pairs.collect::<Option<Vec<u8>>>()?;
    let is_one = std::str::from_utf8(&bytes).is_ok_and(|text| text.chars().count() == 1);
    Some(bytes).filter(|bytes| is_one && bytes.len() <= UTF8_BYTES_MAX && text.len().is_multiple_of(2))
}

/// Refuses what would need a conversion that no `charset_map` describes, once all blocks around `frame` have been laid together.
pub(crate) fn check(reader: &mut Reader<'_>, frame: &Frame, settled: &CharsetScope) {
    let literal = |charset: Option<&Template>| charset?.as_literal().map(str::to_owned);
    let (from, to) = (literal(settled.source.as_ref()), literal(settled.charset.as_ref()));
    let Some((from, to)) = from.zip(to) else { return };
    let is_mapped = reader.http.charset_maps.iter().any(|map| map.is_between(&from, &to));
    if from.eq_ignore_ascii_case(&to) || is_mapped {
        return;
    }
    // A block that inherits both says nothing: they are reported where they are set.
    let set = ["source_charset", "charset"].into_iter().find_map(|name| frame.seen.get(name).copied());
    let Some(place) = set else { return };
    reader.diagnostics.push(
        Diagnostic::error(
            "nginx::unsupported-charset",
            "nothing says how one charset is written in the other",
        )
        .at(place, format!("from `{from}` to `{to}`"))
        .help(format!("add a `charset_map {from} {to} {{ ... }}` to `http`"))
        .nginx(format!("no \"charset_map\" between the charsets \"{from}\" and \"{to}\"")),
    );
}
