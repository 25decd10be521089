//! Converting text from one charset to another, by the maps of the configuration (`charset_map`).

use std::{collections::HashMap, sync::Arc};

use keel_model::CharsetMap;

use crate::transform::{Broken, Transform};

/// What stands for a character that the other charset lacks.
const UNKNOWN: u8 = b'?';

/// The longest character of UTF-8, in bytes.
const UTF8_BYTES_MAX: usize = 4;

/// The maps of a configuration, made ready.
#[derive(Default)]
pub(crate) struct Charsets {
    /// From, to, and how.
    tables: Vec<(String, String, Arc<Table>)>,
    /// Names that the configuration has anywhere, besides those.
    names: Vec<String>,
}

/// How one charset is written in another.
pub(crate) enum Table {
    /// Byte by byte.
    Bytes(Vec<u8>),
    /// Each byte as a character of UTF-8.
    ToUtf8(Vec<Vec<u8>>),
    /// Characters of UTF-8 as bytes.
    FromUtf8(HashMap<char, u8>),
}

impl Charsets {
    pub(crate) fn compile(maps: &[CharsetMap], names: Vec<String>) -> Self {
        let both = |map: &CharsetMap| {
            let (from, to) = (map.from.clone(), map.to.clone());
            let [there, back] = tables(map);
            [(from.clone(), to.clone(), Arc::new(there)), (to, from, Arc::new(back))]
        };
        Self { tables: maps.iter().flat_map(both).collect(), names }
    }

    /// Whether there is any map.
    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Finds how one charset is written in another.
    pub(crate) fn find(&self, from: &[u8], to: &[u8]) -> Option<Arc<Table>> {
        let is = |name: &str, text: &[u8]| name.as_bytes().eq_ignore_ascii_case(text);
        let found = self.tables.iter().find(|(first, second, _)| is(first, from) && is(second, to));
        found.map(|(_, _, table)| table.clone())
    }

    /// Says whether the configuration names a charset anywhere.
    pub(crate) fn is_named(&self, name: &[u8]) -> bool {
        let of_tables = self.tables.iter().map(|(from, ..)| from);
        of_tables.chain(&self.names).any(|known| known.as_bytes().eq_ignore_ascii_case(name))
    }
}

/// Makes the tables of a map, there and back. ASCII is the same in all charsets.
fn tables(map: &CharsetMap) -> [Table; 2] {
    let put = |table: &mut Vec<u8>, at: u8, byte: u8| {
        if let Some(slot) = table.get_mut(usize::from(at)) {
            *slot = byte;
        }
    };
    if map.is_utf8() {
        let mut there: Vec<Vec<u8>> =
            (0..=u8::MAX).map(|byte| vec![if byte.is_ascii() { byte } else { UNKNOWN }]).collect();
        let mut back = HashMap::new();
        for (byte, character) in &map.pairs {
            if let Some(slot) = there.get_mut(usize::from(*byte)) {
                slot.clone_from(character);
            }
            if let Some(character) = std::str::from_utf8(character).ok().and_then(|text| text.chars().next())
            {
                back.insert(character, *byte);
            }
        }
        return [Table::ToUtf8(there), Table::FromUtf8(back)];
    }
    let ascii =
        || (0..=u8::MAX).map(|byte| if byte.is_ascii() { byte } else { UNKNOWN }).collect::<Vec<u8>>();
    let (mut there, mut back) = (ascii(), ascii());
    for (byte, other) in &map.pairs {
        for other in other {
            put(&mut there, *byte, *other);
            put(&mut back, *other, *byte);
        }
    }
    [Table::Bytes(there), Table::Bytes(back)]
}

impl Table {
    /// Whether a text may have another length afterwards.
    pub(crate) fn resizes(&self) -> bool {
        !matches!(self, Table::Bytes(_))
    }
}

/// Converts a body.
pub(crate) struct Recode {
    table: Arc<Table>,
    /// The beginning of a character.
    held: Vec<u8>,
}

impl Recode {
    pub(crate) fn new(table: Arc<Table>) -> Self {
        Self { table, held: Vec::new() }
    }
}

impl Transform for Recode {
    fn piece(&mut self, piece: &mut Vec<u8>) -> Result<(), Broken> {
        match &*self.table {
            Table::Bytes(table) => {
                for byte in piece {
                    *byte = table.get(usize::from(*byte)).copied().unwrap_or(UNKNOWN);
                }
            }
            Table::ToUtf8(table) => {
                let input = std::mem::take(piece);
                for byte in input {
                    match table.get(usize::from(byte)) {
                        Some(character) => piece.extend_from_slice(character),
                        None => piece.push(UNKNOWN),
                    }
                }
            }
            Table::FromUtf8(table) => {
                let mut input = std::mem::take(&mut self.held);
                input.append(piece);
                from_utf8(table, &input, piece, &mut self.held);
            }
        }
        Ok(())
    }
}

/// Writes UTF-8 in another charset; the beginning of a character at its end goes to `held`.
fn from_utf8(table: &HashMap<char, u8>, mut input: &[u8], out: &mut Vec<u8>, held: &mut Vec<u8>) {
    use std::io::Write;
    while !input.is_empty() {
        let plain = input.iter().take_while(|byte| byte.is_ascii()).count();
        let (ascii, rest) = input.split_at(plain);
        out.extend_from_slice(ascii);
        let Some(first) = rest.first() else { break };
        let length = match first {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => UTF8_BYTES_MAX,
            _ => 1,
        };
        let Some((character, behind)) = rest.split_at_checked(length) else {
            let goes_on = rest.iter().skip(1).all(|byte| (0x80..0xc0).contains(byte));
            if goes_on {
                held.extend_from_slice(rest);
                break;
            }
            out.push(UNKNOWN);
            input = rest.get(1..).unwrap_or_default();
            continue;
        };
        match std::str::from_utf8(character).ok().and_then(|text| text.chars().next()) {
            Some(character) => {
                input = behind;
                match table.get(&character) {
                    Some(byte) => out.push(*byte),
                    None => {
                        let written = write!(out, "&#{};", u32::from(character));
                        debug_assert!(written.is_ok(), "writing to memory doesn't fail");
                    }
                }
            }
            None => {
                out.push(UNKNOWN);
                input = rest.get(1..).unwrap_or_default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(charsets: &Charsets, from: &str, to: &str, body: &[u8], expect: &[u8]) {
        for size in 1..=body.len() {
            let mut recode = Recode::new(charsets.find(from.as_bytes(), to.as_bytes()).unwrap());
            let mut out = Vec::new();
            for piece in body.chunks(size) {
                let mut piece = piece.to_vec();
                recode.piece(&mut piece).unwrap();
                out.append(&mut piece);
            }
            assert_eq!(out, expect, "{from} {to} {} in pieces of {size}", body.escape_ascii());
        }
    }

    #[test]
    fn text_is_converted_there_and_back_however_it_is_cut() {
        let map = |from: &str, to: &str, pairs: &[(u8, &[u8])]| CharsetMap {
            from: from.into(),
            to: to.into(),
            pairs: pairs.iter().map(|(byte, bytes)| (*byte, bytes.to_vec())).collect(),
        };
        let charsets = Charsets::compile(
            &[
                map("koi", "win", &[(0xc1, &[0xe0]), (0x58, &[0x59])]),
                map("koi", "UTF-8", &[(0xc1, "а".as_bytes()), (0x80, "─".as_bytes())]),
            ],
            vec!["latin".into()],
        );
        check(&charsets, "KOI", "win", b"aX\xc1\xff", b"aY\xe0?");
        check(&charsets, "win", "koi", b"aY\xe0\xc1", b"aX\xc1?");
        check(&charsets, "koi", "utf-8", b"a\xc1\x80\xff.", "aа─?.".as_bytes());
        check(&charsets, "utf-8", "koi", "aа─ж€😀.".as_bytes(), b"a\xc1\x80&#1078;&#8364;&#128512;.");
        check(&charsets, "utf-8", "koi", b"a\xd0\xd0\xb0\xff\xb0z", b"a?\xc1??z");
        assert!(charsets.find(b"win", b"utf-8").is_none());
        assert!(charsets.is_named(b"WIN") && charsets.is_named(b"Latin") && !charsets.is_named(b"x"));
    }
}
