//! ngx_http_geo_module: a value from an address.
//!
//! nginx's binary bases (`include file` beside a `file.bin`) are not read: the text of the file is.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use keel_diag::Diagnostic;
use keel_model::{Clients, Geo, GeoNetwork, GeoPlaces, GeoRange, VariableSource};

use crate::{
    ast::{Directive, Word},
    directives::http_access::network,
    reader::Reader,
    registry::{Arity, Contexts, Row, Setter},
};

/// The module's directives.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "geo",
    syntax: "[$address] $variable { ... }",
    contexts: Contexts::HTTP,
    arity: Arity::Take(1, 2),
    default: None,
    doc: "Defines a variable by the client's address, or by the one in `$address`: lines of a network and its value, of which \
          the narrowest decides, or after `ranges` of `first-last` and a value. `default`, `delete`, `include`, `proxy` \
          (who is believed in `X-Forwarded-For`), `proxy_recursive`, `volatile`.",
    set: Setter::Block(geo),
}];

fn geo(reader: &mut Reader<'_>, directive: &Directive, block: &[Directive]) {
    let (address, name) = match directive.args.as_slice() {
        [name] => (None, name),
        [address, name] => (Some(address), name),
        _ => return,
    };
    let address = match address {
        None => None,
        Some(word) => match word.text.strip_prefix('$') {
            Some(name) => reader.tested(name, word),
            None => {
                let nginx = format!("invalid variable name \"{}\"", word.text);
                return reader.invalid(directive, word, nginx, "a variable such as `$remote_addr`");
            }
        },
    };
    let defined = reader.defined_name(directive, name);
    let mut lines = Lines::default();
    for line in block {
        lines.read(reader, line);
    }
    if let Some(defined) = defined {
        reader.http.names.define_as(&defined, VariableSource::Geo(lines.lower(address)));
    }
}

/// What the lines of a block say.
#[derive(Default)]
struct Lines {
    default: Option<String>,
    networks: Vec<GeoNetwork>,
    ranges: Option<Ranges>,
    proxies: Vec<Clients>,
    proxy_recursive: bool,
    volatile: bool,
}

impl Lines {
    fn read(&mut self, reader: &mut Reader<'_>, line: &Directive) {
        if line.block.is_some() {
            let message = "no block is allowed in `geo`";
            return reader.error("nginx::unexpected-block", message, line.span(), "unexpected \"{\"");
        }
        match (line.name.text.as_str(), line.args.as_slice()) {
            ("ranges", []) => self.begin_ranges(reader, line),
            ("proxy_recursive", []) => self.proxy_recursive = true,
            ("volatile", []) => self.volatile = true,
            ("proxy", [word]) => self.proxies.extend(read_network(reader, line, word)),
            ("default", [value]) => {
                if let Some(old) = self.default.replace(value.text.clone()) {
                    let range = if self.ranges.is_some() { " geo range" } else { " network" };
                    let nginx =
                        format!("duplicate default{range} value: \"{}\", old value: \"{old}\"", value.text);
                    warn(reader, line, "`default` is set again", nginx);
                }
            }
            ("delete", [word]) => self.delete(reader, line, word),
            (_, [value]) => self.add(reader, line, &value.text),
            _ => {
                let message = "a line of `geo` has a network and a value";
                let nginx = "invalid number of the geo parameters";
                reader.error("nginx::invalid-number-of-arguments", message, line.span(), nginx);
            }
        }
    }

    fn begin_ranges(&mut self, reader: &mut Reader<'_>, line: &Directive) {
        if !self.networks.is_empty() || self.default.is_some() && self.ranges.is_none() {
            let nginx = "the \"ranges\" directive must be the first directive inside \"geo\" block";
            let message = "`ranges` must stand before all networks";
            reader.error("nginx::misplaced-directive", message, line.span(), nginx);
        }
        self.ranges.get_or_insert_default();
    }

    fn delete(&mut self, reader: &mut Reader<'_>, line: &Directive, word: &Word) {
        if let Some(ranges) = &mut self.ranges {
            let Some((first, last)) = read_range(reader, line, word) else { return };
            if !ranges.delete(first, last) {
                let nginx = format!("no address range \"{}\" to delete", word.text);
                warn(reader, line, "there is no such range", nginx);
            }
            return;
        }
        let Some((address, prefix)) = read_network(reader, line, word).and_then(cidr) else { return };
        let before = self.networks.len();
        self.networks.retain(|known| (known.address, known.prefix) != (address, prefix));
        if self.networks.len() == before {
            warn(reader, line, "there is no such network", format!("no network \"{}\" to delete", word.text));
        }
    }

    fn add(&mut self, reader: &mut Reader<'_>, line: &Directive, value: &str) {
        let word = &line.name;
        if let Some(ranges) = &mut self.ranges {
            let Some((first, last)) = read_range(reader, line, word) else { return };
            match ranges.add(first, last, value) {
                Added::New => {}
                Added::Instead(old) => {
                    let nginx = format!(
                        "duplicate range \"{}\", value: \"{value}\", old value: \"{old}\"",
                        word.text
                    );
                    warn(reader, line, "this range has a value already", nginx);
                }
                Added::Overlap(from, to) => {
                    let nginx = format!("range \"{}\" overlaps \"{from}-{to}\"", word.text);
                    let message = format!("this range overlaps {from}-{to} without lying in it");
                    reader.error("nginx::overlapping-range", message, word.span, nginx);
                }
            }
            return;
        }
        let Some((address, prefix)) = read_network(reader, line, word).and_then(cidr) else { return };
        let network = GeoNetwork { address, prefix, value: value.to_owned() };
        let known = self.networks.iter_mut().find(|known| (known.address, known.prefix) == (address, prefix));
        let Some(known) = known else { return self.networks.push(network) };
        let old = std::mem::replace(&mut known.value, network.value);
        let nginx = format!("duplicate network \"{}\", value: \"{value}\", old value: \"{old}\"", word.text);
        warn(reader, line, "this network has a value already", nginx);
    }

    fn lower(self, address: Option<keel_model::Variable>) -> Geo {
        Geo {
            address,
            places: match self.ranges {
                Some(ranges) => GeoPlaces::Ranges(ranges.lower()),
                None => GeoPlaces::Networks(self.networks),
            },
            default: self.default.unwrap_or_default(),
            proxies: self.proxies,
            proxy_recursive: self.proxy_recursive,
            volatile: self.volatile,
        }
    }
}

fn warn(reader: &mut Reader<'_>, line: &Directive, message: &str, nginx: String) {
    let found = Diagnostic::warning("nginx::geo", message).at(line.span(), "the last one counts");
    reader.diagnostics.push(found.nginx(nginx));
}

fn cidr(clients: Clients) -> Option<(IpAddr, u8)> {
    match clients {
        Clients::Network { address, prefix } => Some((address, prefix)),
        Clients::All | Clients::Unix => None,
    }
}

fn read_network(reader: &mut Reader<'_>, line: &Directive, word: &Word) -> Option<Clients> {
    let found = network(reader, word);
    if found.is_none() {
        let nginx = format!("invalid network \"{}\"", word.text);
        reader.invalid(line, word, nginx, "an address or a network such as `10.0.0.0/8`");
    }
    found
}

fn read_range(reader: &mut Reader<'_>, line: &Directive, word: &Word) -> Option<(u32, u32)> {
    let address = |text: &str| text.parse::<Ipv4Addr>().ok().map(Ipv4Addr::to_bits);
    let range = word.text.split_once('-').and_then(|(first, last)| Some((address(first)?, address(last)?)));
    let range = range.filter(|(first, last)| first <= last);
    if range.is_none() {
        let nginx = format!("invalid range \"{}\"", word.text);
        reader.invalid(line, word, nginx, "a range such as `10.0.0.0-10.0.255.255`");
    }
    range
}

/// Ranges of IPv4. As nginx does, each block of 65,536 addresses is looked at alone: within one a range may lie in another,
/// which it then splits, but not overlap it.
#[derive(Default)]
struct Ranges(BTreeMap<u32, Vec<Piece>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    first: u32,
    last: u32,
    value: String,
}

/// What became of a range.
#[derive(Debug, PartialEq, Eq)]
enum Added {
    New,
    /// It was there, with this value.
    Instead(String),
    /// It overlaps this one.
    Overlap(Ipv4Addr, Ipv4Addr),
}

/// Cuts a range at the borders of blocks.
fn pieces(first: u32, last: u32) -> impl Iterator<Item = (u32, u32)> {
    (first >> 16..=last >> 16).map(move |block| (first.max(block << 16), last.min(block << 16 | 0xffff)))
}

impl Ranges {
    fn add(&mut self, first: u32, last: u32, value: &str) -> Added {
        let mut added = Added::New;
        for (first, last) in pieces(first, last) {
            let block = self.0.entry(first >> 16).or_default();
            let piece = Piece { first, last, value: value.to_owned() };
            let at = block.partition_point(|known| known.last < first);
            match block.get(at).cloned() {
                Some(known) if known.first <= last => {
                    if known.first > first || known.last < last {
                        return Added::Overlap(known.first.into(), known.last.into());
                    }
                    let before = (known.first < first).then(|| Piece { last: first - 1, ..known.clone() });
                    let after = (known.last > last).then(|| Piece { first: last + 1, ..known.clone() });
                    if before.is_none() && after.is_none() {
                        added = Added::Instead(known.value);
                    }
                    block.splice(at..=at, before.into_iter().chain([piece]).chain(after));
                }
                _ => block.insert(at, piece),
            }
        }
        added
    }

    /// Takes a range out; tells whether it was there.
    fn delete(&mut self, first: u32, last: u32) -> bool {
        let mut found = true;
        for (first, last) in pieces(first, last) {
            let block = self.0.entry(first >> 16).or_default();
            let before = block.len();
            block.retain(|piece| (piece.first, piece.last) != (first, last));
            found &= block.len() < before;
        }
        found
    }

    fn lower(self) -> Vec<GeoRange> {
        let mut ranges: Vec<GeoRange> = Vec::new();
        for piece in self.0.into_values().flatten() {
            match ranges.last_mut() {
                Some(before) if before.last.to_bits() + 1 == piece.first && before.value == piece.value => {
                    before.last = piece.last.into();
                }
                _ => ranges.push(GeoRange {
                    first: piece.first.into(),
                    last: piece.last.into(),
                    value: piece.value,
                }),
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(text: &str) -> u32 {
        text.parse::<Ipv4Addr>().expect("an address").to_bits()
    }

    fn shown(ranges: Ranges) -> String {
        let shown =
            ranges.lower().into_iter().map(|range| format!("{}-{} {}", range.first, range.last, range.value));
        shown.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_range_within_another_splits_it() {
        let mut ranges = Ranges::default();
        assert_eq!(ranges.add(bits("10.0.0.0"), bits("10.1.255.255"), "a"), Added::New);
        assert_eq!(ranges.add(bits("10.0.5.0"), bits("10.0.5.9"), "b"), Added::New);
        assert_eq!(ranges.add(bits("10.1.0.0"), bits("10.1.0.9"), "c"), Added::New);
        assert_eq!(ranges.add(bits("10.1.255.0"), bits("10.1.255.255"), "d"), Added::New);
        assert_eq!(
            shown(ranges),
            "10.0.0.0-10.0.4.255 a, 10.0.5.0-10.0.5.9 b, 10.0.5.10-10.0.255.255 a, 10.1.0.0-10.1.0.9 c, \
             10.1.0.10-10.1.254.255 a, 10.1.255.0-10.1.255.255 d"
        );
    }

    #[test]
    fn ranges_that_overlap_are_refused_and_equal_ones_replaced() {
        let mut ranges = Ranges::default();
        ranges.add(bits("10.0.0.10"), bits("10.0.0.20"), "a");
        let overlap = Added::Overlap([10, 0, 0, 10].into(), [10, 0, 0, 20].into());
        assert_eq!(ranges.add(bits("10.0.0.15"), bits("10.0.0.25"), "b"), overlap);
        assert_eq!(ranges.add(bits("10.0.0.5"), bits("10.0.0.25"), "b"), overlap);
        assert_eq!(ranges.add(bits("10.0.0.10"), bits("10.0.0.20"), "b"), Added::Instead("a".into()));
        assert!(!ranges.delete(bits("10.0.0.10"), bits("10.0.0.19")));
        assert!(ranges.delete(bits("10.0.0.10"), bits("10.0.0.20")));
        ranges.add(0, u32::MAX, "all");
        assert_eq!(shown(ranges), "0.0.0.0-255.255.255.255 all");
    }
}
