//! Fields as ranges into the bytes they came in.

/// A range of bytes of the buffer that a head was read from. Heads are far below 4 GiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    start: u32,
    end: u32,
}

impl Range {
    /// Makes a range; offsets beyond 4 GiB saturate and so cover nothing. Outside this crate there are only the ranges of
    /// what it has read.
    pub(crate) fn new(start: usize, end: usize) -> Self {
        let clamp = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        Self { start: clamp(start), end: clamp(end) }
    }

    /// The bytes it covers; empty if it lies outside.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// The offset of its first byte.
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// The offset after its last byte.
    pub fn end(self) -> usize {
        self.end as usize
    }

    /// Says whether it covers nothing.
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }
}

macro_rules! names {
    ($($variant:ident = $text:literal),* $(,)?) => {
        /// A field's name, as far as the proxy has a use for it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[expect(missing_docs, reason = "each is the field of that name")]
        pub enum Name {
            $($variant,)*
            /// Any other.
            Other,
        }

        impl Name {
            const TABLE: &[(Name, &str)] = &[$((Name::$variant, $text)),*];
        }
    };
}

names! {
    Host = "host",
    Connection = "connection",
    KeepAlive = "keep-alive",
    ProxyConnection = "proxy-connection",
    TransferEncoding = "transfer-encoding",
    ContentLength = "content-length",
    Te = "te",
    Trailer = "trailer",
    Upgrade = "upgrade",
    Expect = "expect",
    Server = "server",
    Status = "status",
    Date = "date",
    ContentType = "content-type",
    ContentRange = "content-range",
    ContentEncoding = "content-encoding",
    Location = "location",
    Refresh = "refresh",
    Etag = "etag",
    LastModified = "last-modified",
    SetCookie = "set-cookie",
    Cookie = "cookie",
    XForwardedFor = "x-forwarded-for",
    Range = "range",
    IfRange = "if-range",
    IfModifiedSince = "if-modified-since",
    IfUnmodifiedSince = "if-unmodified-since",
    IfMatch = "if-match",
    IfNoneMatch = "if-none-match",
    Authorization = "authorization",
    ProxyAuthorization = "proxy-authorization",
    UserAgent = "user-agent",
    Referer = "referer",
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    AcceptLanguage = "accept-language",
    AcceptRanges = "accept-ranges",
    CacheControl = "cache-control",
    Expires = "expires",
    XPad = "x-pad",
    XAccelExpires = "x-accel-expires",
    XAccelRedirect = "x-accel-redirect",
    XAccelLimitRate = "x-accel-limit-rate",
    XAccelBuffering = "x-accel-buffering",
    XAccelCharset = "x-accel-charset",
    ProxyAuthenticate = "proxy-authenticate",
    WwwAuthenticate = "www-authenticate",
    Link = "link",
    Vary = "vary",
    Via = "via",
}

impl Name {
    /// Recognises a name in any case.
    #[expect(clippy::indexing_slicing, reason = "`ends` is below the table's length")]
    pub fn of(name: &[u8]) -> Self {
        let (Some(first), Some(last)) = (name.first(), name.last()) else { return Name::Other };
        let known = BY_ENDS[ends(name.len(), first.to_ascii_lowercase(), last.to_ascii_lowercase())];
        if is_text(name, known.as_str().as_bytes()) { known } else { Name::Other }
    }

    /// The name in lower case; empty for [`Name::Other`].
    pub fn as_str(self) -> &'static str {
        Self::TABLE.get(self as usize).map_or("", |(_, text)| text)
    }

    /// Says whether the field concerns one connection only and so is never passed on (RFC 9110 §7.6.1).
    pub fn is_hop_by_hop(self) -> bool {
        NameSet::HOP_BY_HOP.contains(self)
    }
}

/// Known names by their length, first and last byte: no two of them have the same place.
#[expect(clippy::indexing_slicing, reason = "worked out by the compiler, which would refuse it")]
static BY_ENDS: [Name; 256] = {
    let mut table = [Name::Other; 256];
    let mut at = 0;
    while at < Name::TABLE.len() {
        let (name, text) = Name::TABLE[at];
        let text = text.as_bytes();
        let place = ends(text.len(), text[0], text[text.len() - 1]);
        assert!(matches!(table[place], Name::Other), "two names in one place: choose other factors");
        table[place] = name;
        at += 1;
    }
    table
};

/// A name's place in [`BY_ENDS`].
const fn ends(length: usize, first: u8, last: u8) -> usize {
    (length + first as usize * 3 + last as usize * 32) & 0xff
}

/// Compares with a text of lower-case letters, digits and `-`, a word at a time; the last word overlaps the one before.
fn is_text(name: &[u8], text: &[u8]) -> bool {
    if name.len() != text.len() {
        return false;
    }
    match name.len() {
        4..8 => {
            is_word::<4>(name.first_chunk(), text.first_chunk())
                && is_word::<4>(name.last_chunk(), text.last_chunk())
        }
        8..=16 => {
            is_word::<8>(name.first_chunk(), text.first_chunk())
                && is_word::<8>(name.last_chunk(), text.last_chunk())
        }
        _ => name.eq_ignore_ascii_case(text),
    }
}

#[expect(clippy::indexing_slicing, reason = "N is 4 or 8")]
fn is_word<const N: usize>(bytes: Option<&[u8; N]>, text: Option<&[u8; N]>) -> bool {
    const LETTERS: u64 = 0x4040_4040_4040_4040;
    let (Some(bytes), Some(text)) = (bytes, text) else { return false };
    let word = |bytes: &[u8; N]| {
        let mut word = [0; 8];
        word[..N].copy_from_slice(bytes);
        u64::from_ne_bytes(word)
    };
    let text = word(text);
    // What tells a letter's cases apart, in the places where the text has a letter.
    let case = (text & LETTERS) >> 1;
    (word(bytes) ^ text) & !case == 0
}

/// A set of known names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameSet(u64);

impl NameSet {
    /// Fields that concern one connection only.
    pub const HOP_BY_HOP: NameSet = NameSet::EMPTY
        .with(Name::Connection)
        .with(Name::KeepAlive)
        .with(Name::ProxyConnection)
        .with(Name::TransferEncoding)
        .with(Name::Te)
        .with(Name::Trailer)
        .with(Name::Upgrade);

    /// No name.
    pub const EMPTY: NameSet = NameSet(0);

    /// The set with `name` in it. [`Name::Other`] is never in a set.
    pub const fn with(self, name: Name) -> Self {
        if matches!(name, Name::Other) { self } else { Self(self.0 | 1 << name as u8) }
    }

    /// The known names that begin with a text in lower case.
    pub fn starting_with(prefix: &str) -> Self {
        let names = Name::TABLE.iter().filter(|(_, text)| text.starts_with(prefix));
        names.fold(NameSet::EMPTY, |set, (name, _)| set.with(*name))
    }

    /// The names in either set.
    pub const fn union(self, other: NameSet) -> Self {
        Self(self.0 | other.0)
    }

    /// Says whether `name` is in it.
    pub const fn contains(self, name: Name) -> bool {
        !matches!(name, Name::Other) && self.0 & (1 << name as u8) != 0
    }
}

/// One field line, as it was read and looked at: nothing in it ends a line early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Field {
    /// What it is called, if the proxy knows it.
    pub known: Name,
    /// Its name as it came.
    pub name: Range,
    /// Its value without white space around it.
    pub value: Range,
}

/// The fields of one head, in the order they came. Reused from message to message.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    list: Vec<Field>,
    present: NameSet,
}

impl Fields {
    /// Forgets all fields and keeps the room.
    pub fn clear(&mut self) {
        self.list.clear();
        self.present = NameSet::EMPTY;
    }

    /// Appends a field.
    pub fn push(&mut self, field: Field) {
        self.present = self.present.with(field.known);
        self.list.push(field);
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Field> {
        self.list.iter()
    }

    /// Counts them.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Says whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Says whether a known field is there.
    pub fn has(&self, name: Name) -> bool {
        self.present.contains(name)
    }

    /// The first field of a known name.
    pub fn first(&self, name: Name) -> Option<&Field> {
        if !self.present.contains(name) {
            return None;
        }
        self.list.iter().find(|field| field.known == name)
    }

    /// All fields of a known name.
    pub fn all(&self, name: Name) -> impl Iterator<Item = &Field> {
        let list = if self.present.contains(name) { self.list.as_slice() } else { &[] };
        list.iter().filter(move |field| field.known == name)
    }

    /// All fields of any name, compared without regard to case.
    pub fn named<'a>(&'a self, bytes: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a Field> {
        self.list.iter().filter(move |field| field.name.of(bytes).eq_ignore_ascii_case(name))
    }
}

impl<'a> IntoIterator for &'a Fields {
    type Item = &'a Field;
    type IntoIter = std::slice::Iter<'a, Field>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognises_every_known_name_in_any_case() {
        for (name, text) in Name::TABLE {
            assert_eq!(Name::of(text.as_bytes()), *name, "{text}");
            assert_eq!(Name::of(text.to_uppercase().as_bytes()), *name, "{text}");
        }
        assert_eq!(Name::of(b"x-other"), Name::Other);
        assert_eq!(Name::of(b"content\x0dlength"), Name::Other, "only letters have two cases");
        assert_eq!(Name::of(b"content-lengtH"), Name::ContentLength);
        assert_eq!(Name::of(b"contant-length"), Name::Other);
        assert_eq!(Name::of(b""), Name::Other);
        assert!(Name::TABLE.len() <= 64, "a set is one word");
    }

    #[test]
    fn a_set_holds_all_names_of_a_beginning() {
        let set = NameSet::starting_with("x-accel-");
        assert!(set.contains(Name::XAccelRedirect) && set.contains(Name::XAccelCharset));
        assert!(!set.contains(Name::XForwardedFor) && NameSet::starting_with("y") == NameSet::EMPTY);
    }

    #[test]
    fn sets_never_hold_other() {
        let set = NameSet::EMPTY.with(Name::Other).with(Name::Host);
        assert!(set.contains(Name::Host) && !set.contains(Name::Other) && !set.contains(Name::Date));
    }
}
