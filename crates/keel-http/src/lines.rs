//! The lines of a head or of trailers that the proxy writes.
//!
//! [`Lines`] is the only way to a [`Message`], and a message is what peers and clients are sent. So nothing that a
//! request, a variable or the configuration brings can end a line early: a URI is escaped as it is appended, and a field
//! that would hold CR, LF or NUL makes the whole message unwritable, which is noticed at its end and can't be
//! overlooked. What was read from a head has been looked at there and isn't looked at again.

use crate::{Field, Name, ResponseHead, encode, line, uri};

/// Why a message can't be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// A value holds CR, LF or NUL.
    #[error("the field \"{0}\" holds a line end or NUL")]
    Value(Box<str>),
    /// A name holds what no name may.
    #[error("a field has the invalid name \"{0}\"")]
    Name(Box<str>),
    /// The method isn't one.
    #[error("the request has the invalid method \"{0}\"")]
    Method(Box<str>),
}

/// The version of a request that the proxy sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestVersion {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// What stands in the status line of a response.
#[derive(Clone, Copy, Debug)]
pub enum Status<'a> {
    /// A status with nginx's text for it, if it has one.
    Own(u16),
    /// What a peer's status line said; the bytes are those that the head was read from.
    Copied(&'a ResponseHead, &'a [u8]),
}

/// A field's name from the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldName {
    text: Box<[u8]>,
    known: Name,
}

impl FieldName {
    /// Takes visible ASCII. That is more than RFC 9110 §5.1 allows, as nginx passes such names on, but nothing that ends
    /// a line or a name early.
    ///
    /// # Errors
    /// When it is empty or holds another byte.
    pub fn new(name: &str) -> Result<Self, Unwritable> {
        if !is_name(name.as_bytes()) {
            return Err(Unwritable::Name(shown(name.as_bytes())));
        }
        Ok(Self { text: name.as_bytes().into(), known: Name::of(name.as_bytes()) })
    }

    /// Gives it as written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// Which of the known ones it is.
    pub fn known(&self) -> Name {
        self.known
    }
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(u8::is_ascii_graphic)
}

fn shown(bytes: &[u8]) -> Box<str> {
    bytes.escape_ascii().to_string().into()
}

/// Gives a text of the configuration as one line: a line break in it, with the blanks around, becomes a space, as is done
/// with folded fields (RFC 9112 §5.2); so does any other control character.
pub fn unfolded(text: &str) -> String {
    let is_control = |letter: char| letter.is_ascii_control() && letter != '\t';
    let mut out = String::with_capacity(text.len());
    for piece in text.split(is_control) {
        if out.is_empty() {
            out.push_str(piece);
            continue;
        }
        let piece = piece.trim_start_matches([' ', '\t']);
        if !piece.is_empty() {
            out.truncate(out.trim_end_matches([' ', '\t']).len());
            out.push(' ');
            out.push_str(piece);
        }
    }
    out
}

/// Lines being written.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    unwritable: Option<Unwritable>,
}

impl Lines {
    /// Begins in a buffer that has been used before.
    pub fn in_buffer(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self { bytes: buffer, unwritable: None }
    }

    /// What has been written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Says whether there is no line.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets all of them and keeps the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.unwritable = None;
    }

    /// Appends a request line. `write_target` appends the target, of which what may not stand in one is escaped.
    ///
    /// False when the target is empty; the line is then useless.
    pub fn request_line(
        &mut self,
        method: &[u8],
        version: RequestVersion,
        write_target: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        if method.is_empty() || !method.iter().all(|byte| line::is_token(*byte)) {
            self.refuse(Unwritable::Method(shown(method)));
        }
        self.bytes.extend_from_slice(method);
        self.bytes.push(b' ');
        let start = self.bytes.len();
        write_target(&mut self.bytes);
        uri::escape_tail(&mut self.bytes, start, uri::Part::RequestLine);
        let has_target = self.bytes.len() > start;
        self.bytes.extend_from_slice(match version {
            RequestVersion::Http10 => b" HTTP/1.0\r\n",
            RequestVersion::Http11 => b" HTTP/1.1\r\n",
        });
        has_target
    }

    /// Appends a status line.
    pub fn status_line(&mut self, status: Status<'_>) {
        self.bytes.extend_from_slice(b"HTTP/1.1 ");
        match status {
            Status::Own(status) => match encode::status_line(status) {
                Some(text) => self.bytes.extend_from_slice(text.as_bytes()),
                None => {
                    // Three digits, also of the odd ones that `return` takes.
                    let zeros: &[u8] = if status < 10 {
                        b"00"
                    } else if status < 100 {
                        b"0"
                    } else {
                        b""
                    };
                    self.bytes.extend_from_slice(zeros);
                    encode::decimal(status.into(), &mut self.bytes);
                    self.bytes.push(b' ');
                }
            },
            Status::Copied(head, bytes) => self.bytes.extend_from_slice(head.status_line.of(bytes)),
        }
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Appends a field whose name this program chooses.
    pub fn field(&mut self, name: &'static str, value: &[u8]) {
        self.value(name.as_bytes(), |out| out.extend_from_slice(value));
    }

    /// Appends a field with a number.
    pub fn number(&mut self, name: &'static str, number: u64) {
        self.begin(name.as_bytes());
        encode::decimal(number, &mut self.bytes);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Appends lines that are known when this program is compiled, each with its CRLF.
    pub fn fixed(&mut self, lines: &'static str) {
        self.bytes.extend_from_slice(lines.as_bytes());
    }

    /// Appends a field of the configuration. `write` appends its value; of an empty one there is no line.
    pub fn named(&mut self, name: &FieldName, write: impl FnOnce(&mut Vec<u8>)) {
        if matches!(name.known, Name::Location) {
            let mut value = Vec::new();
            write(&mut value);
            if !value.is_empty() {
                self.uri(&name.text, b"", &value);
            }
            return;
        }
        let start = self.bytes.len();
        let value_at = self.value(&name.text, write);
        if self.bytes.len() == value_at + 2 {
            self.bytes.truncate(start);
        }
    }

    /// Appends a field as it was read. The bytes are those that its head was read from.
    pub fn copied(&mut self, field: &Field, bytes: &[u8]) {
        let (name, value) = (field.name.of(bytes), field.value.of(bytes));
        debug_assert!(!ends_line(value) && !ends_line(name));
        // Nearly every line stands there as it is written here.
        let (start, value_at, end) = (field.name.start(), field.value.start(), field.value.end());
        if bytes.get(field.name.end()..value_at) == Some(b": ")
            && bytes.get(end..end.wrapping_add(2)) == Some(b"\r\n")
            && let Some(line) = bytes.get(start..end.wrapping_add(2))
        {
            self.bytes.extend_from_slice(line);
            return;
        }
        self.begin(name);
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Appends fields as they were read. The bytes are those that their head was read from.
    pub fn copied_all<'a>(&mut self, fields: impl Iterator<Item = &'a Field>, bytes: &[u8]) {
        // Lines that stand one behind the other as they are written here are copied together.
        let (mut start, mut end) = (0, 0);
        for field in fields {
            let (name, value) = (field.name, field.value);
            let is_canonical = bytes.get(name.end()..value.start()) == Some(b": ")
                && bytes.get(value.end()..value.end().wrapping_add(2)) == Some(b"\r\n");
            if is_canonical && name.start() == end {
                end = value.end() + 2;
                continue;
            }
            self.bytes.extend_from_slice(bytes.get(start..end).unwrap_or_default());
            (start, end) = if is_canonical { (name.start(), value.end() + 2) } else { (0, 0) };
            if !is_canonical {
                self.copied(field, bytes);
            }
        }
        self.bytes.extend_from_slice(bytes.get(start..end).unwrap_or_default());
    }

    /// Appends a field whose value is a URI, behind something that isn't: `Location`, and `Refresh` with its seconds.
    pub fn uri(&mut self, name: &[u8], before: &[u8], uri: &[u8]) {
        if !is_name(name) {
            self.refuse(Unwritable::Name(shown(name)));
        }
        self.value(name, |out| {
            out.extend_from_slice(before);
            let start = out.len();
            out.extend_from_slice(uri);
            uri::escape_tail(out, start, uri::Part::Field);
        });
    }

    /// Appends lines that were written before.
    pub fn append(&mut self, lines: &Lines) {
        self.bytes.extend_from_slice(&lines.bytes);
        if let Some(unwritable) = &lines.unwritable {
            self.refuse(unwritable.clone());
        }
    }

    /// Takes out the lines of a field.
    pub fn remove(&mut self, name: &FieldName) {
        self.remove_text(&name.text);
    }

    /// Takes out the lines of a known field.
    pub fn remove_known(&mut self, name: Name) {
        self.remove_text(name.as_str().as_bytes());
    }

    /// The values of a known field, in the lines' order.
    pub fn values(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        let lines = self.bytes.split(|byte| *byte == b'\n');
        lines.filter_map(move |line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let colon = memchr::memchr(b':', line)?;
            let is_it = Name::of(line.get(..colon)?) == name;
            is_it.then(|| line.get(colon + 1..).unwrap_or_default().trim_ascii())
        })
    }

    fn remove_text(&mut self, name: &[u8]) {
        let mut start = 0;
        while let Some(length) = memchr::memchr(b'\n', self.bytes.get(start..).unwrap_or_default()) {
            let end = start + length + 1;
            let line = self.bytes.get(start..end).unwrap_or_default();
            let is_it = line.get(..name.len()).is_some_and(|text| text.eq_ignore_ascii_case(name))
                && line.get(name.len()) == Some(&b':');
            if is_it {
                self.bytes.drain(start..end);
            } else {
                start = end;
            }
        }
    }

    /// Says what can't be written, if anything.
    ///
    /// # Errors
    /// The first such thing.
    pub fn check(&self) -> Result<(), Unwritable> {
        self.unwritable.clone().map_or(Ok(()), Err)
    }

    /// Ends a head.
    ///
    /// # Errors
    /// When something in it can't be written.
    pub fn end(mut self) -> Result<Message, Unwritable> {
        match self.unwritable {
            Some(unwritable) => Err(unwritable),
            None => {
                self.bytes.extend_from_slice(b"\r\n");
                let head_length = self.bytes.len();
                Ok(Message { bytes: self.bytes, head_length })
            }
        }
    }

    /// Appends the chunk that ends a body, with these lines as its trailers; without them where they can't be written.
    pub fn write_last_chunk(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"0\r\n");
        if self.unwritable.is_none() {
            out.extend_from_slice(&self.bytes);
        }
        out.extend_from_slice(b"\r\n");
    }

    fn begin(&mut self, name: &[u8]) {
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(b": ");
    }

    /// Appends a line with a value that is looked at; gives where that begins.
    fn value(&mut self, name: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> usize {
        self.begin(name);
        let start = self.bytes.len();
        write(&mut self.bytes);
        if ends_line(self.bytes.get(start..).unwrap_or_default()) {
            self.refuse(Unwritable::Value(shown(name)));
        }
        self.bytes.extend_from_slice(b"\r\n");
        start
    }

    fn refuse(&mut self, unwritable: Unwritable) {
        self.unwritable.get_or_insert(unwritable);
    }
}

/// Says whether it holds CR, LF or NUL.
fn ends_line(bytes: &[u8]) -> bool {
    memchr::memchr3(b'\r', b'\n', 0, bytes).is_some()
}

/// A head that has been written to its end, and as much of the body as goes with it.
#[derive(Clone, Debug, Default)]
pub struct Message {
    bytes: Vec<u8>,
    head_length: usize,
}

impl Message {
    /// Takes a request in another protocol than HTTP, as far as it goes before its body.
    pub fn of_gateway(bytes: Vec<u8>) -> Self {
        let head_length = bytes.len();
        Self { bytes, head_length }
    }

    /// All of it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Counts the bytes of the head.
    pub fn head_length(&self) -> usize {
        self.head_length
    }

    /// Appends bytes of the body, with the framing that the head announces.
    pub fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Forgets it and keeps the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.head_length = 0;
    }

    /// The buffer with the head alone.
    pub fn into_head(mut self) -> Vec<u8> {
        self.bytes.truncate(self.head_length);
        self.bytes
    }

    /// The buffer, for the body that follows.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: Lines) -> String {
        String::from_utf8(lines.end().unwrap().into_bytes()).unwrap()
    }

    #[test]
    fn writes_a_request() {
        let mut lines = Lines::default();
        assert!(lines.request_line(b"GET", RequestVersion::Http11, |out| out.extend(b"/a?b=c")));
        lines.field("Host", b"h");
        lines.number("Content-Length", 12);
        lines.fixed("Connection: close\r\n");
        let text = text(lines);
        assert_eq!(text, "GET /a?b=c HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\nConnection: close\r\n\r\n");
    }

    #[test]
    fn fields_are_copied_together_as_they_are_one_by_one() {
        let bytes = b"GET / HTTP/1.1\r\nA: 1\r\nB:2\r\nC: 3\r\nD: 4 \r\nE: 5\nHost: 6\r\nG:\t7\r\nH: 8\r\nI:\r\nJ: \r\n\r\n";
        let mut head = crate::RequestHead::default();
        head.parse(bytes, &crate::Rules::default()).unwrap();
        let fields: Vec<Field> = head.fields.iter().copied().collect();
        for passing in 0..1_u32 << fields.len() {
            let passing = fields.iter().enumerate().filter(|(at, _)| passing & (1 << at) != 0);
            let passing: Vec<Field> = passing.map(|(_, field)| *field).collect();
            let (mut together, mut singly) = (Lines::default(), Lines::default());
            together.copied_all(passing.iter(), bytes);
            passing.iter().for_each(|field| singly.copied(field, bytes));
            assert_eq!(text(together), text(singly));
        }
    }

    #[test]
    fn a_target_ends_no_line_and_has_no_fragment() {
        let check = |target: &[u8], expect: &str| {
            let mut lines = Lines::default();
            lines.request_line(b"GET", RequestVersion::Http10, |out| out.extend(target));
            assert_eq!(text(lines), format!("GET {expect} HTTP/1.0\r\n\r\n"), "{}", target.escape_ascii());
        };
        check(b"/a HTTP/1.1\r\nX: y\r\n\r\n", "/a%20HTTP/1.1%0D%0AX:%20y%0D%0A%0D%0A");
        check(b"/a\0b\tc\x7f#d", "/a%00b%09c%7F%23d");
        check("/é%41|{}\"".as_bytes(), "/%C3%A9%41|{}%22");
    }

    #[test]
    fn a_location_ends_no_line_and_is_left_as_it_is_otherwise() {
        let mut lines = Lines::default();
        lines.uri(b"Location", b"", "http://h/a\r\nSet-Cookie: b#c é".as_bytes());
        lines.uri(b"Refresh", b"5; url=", b"/a b");
        let name = FieldName::new("location").unwrap();
        lines.named(&name, |out| out.extend(b"/\n"));
        assert_eq!(
            text(lines),
            "Location: http://h/a%0D%0ASet-Cookie: b#c é\r\nRefresh: 5; url=/a b\r\nlocation: /%0A\r\n\r\n"
        );
    }

    #[test]
    fn a_field_that_ends_its_line_makes_the_message_unwritable() {
        for value in [b"a\rb".as_slice(), b"a\nb", b"a\0b", b"long enough for words\n"] {
            let mut lines = Lines::default();
            lines.field("X", value);
            lines.field("Y", b"fine");
            assert_eq!(lines.end().unwrap_err(), Unwritable::Value("X".into()), "{}", value.escape_ascii());
        }
        let mut lines = Lines::default();
        lines.field("X", "tab\t, \x02 and é are no line ends".as_bytes());
        assert!(lines.end().is_ok());
        let mut outer = Lines::default();
        let mut inner = Lines::default();
        inner.named(&FieldName::new("X-Y").unwrap(), |out| out.extend(b"\r"));
        outer.append(&inner);
        assert!(outer.check().is_err() && outer.end().is_err());
        let mut out = Vec::new();
        inner.write_last_chunk(&mut out);
        assert_eq!(out, b"0\r\n\r\n");
    }

    #[test]
    fn refuses_names_and_methods_that_are_none() {
        for name in ["", "a b", "a\r\nb", "a\tb", "é"] {
            assert!(FieldName::new(name).is_err(), "{name:?}");
        }
        assert!(FieldName::new("X-XSS-Protection:").is_ok());
        for method in [b"".as_slice(), b"GET /", b"GET\r\n", b"G\0T"] {
            let mut lines = Lines::default();
            lines.request_line(method, RequestVersion::Http11, |out| out.push(b'/'));
            assert!(lines.end().is_err());
        }
    }

    #[test]
    fn an_empty_value_of_the_configuration_is_no_line() {
        let mut lines = Lines::default();
        let name = FieldName::new("X").unwrap();
        lines.named(&name, |_| {});
        assert!(lines.is_empty());
        lines.named(&name, |out| out.push(b'1'));
        lines.field("Y", b"2");
        lines.remove(&name);
        assert_eq!(lines.as_bytes(), b"Y: 2\r\n");
    }

    #[test]
    fn line_breaks_of_the_configuration_become_spaces() {
        assert_eq!(unfolded("default-src 'self';\n      img-src *;\r\n"), "default-src 'self'; img-src *;");
        assert_eq!(unfolded("a\tb"), "a\tb");
    }
}
