//! Reads requests: HTTP/1.0 and 1.1, bodies by length or chunked. Strict enough for a demo, not for the Internet.

use std::io::{self, BufRead, Read, Write};

use crate::checksum::Checksum;

/// The longest head and the longest line of a chunked body.
const HEAD_BYTES_MAX: u64 = 64 * 1024;

pub(crate) struct Request {
    /// Method, target and version as they came.
    pub(crate) line: String,
    pub(crate) method: String,
    /// The target, query included.
    pub(crate) target: String,
    pub(crate) id: Option<String>,
    pub(crate) keep_alive: bool,
    expect_continue: bool,
    body: Body,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    Length(u64),
    Chunked,
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Request {
    /// Reads a head. `None` when the client has closed between requests.
    pub(crate) fn read(input: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut head = input.take(HEAD_BYTES_MAX);
        let line = read_line(&mut head)?;
        if line.is_empty() {
            return Ok(None);
        }
        let mut words = line.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(bad("not a request"));
        };
        let mut request = Self {
            method: method.to_owned(),
            target: target.to_owned(),
            id: None,
            keep_alive: version == "HTTP/1.1",
            expect_continue: false,
            body: Body::Length(0),
            line: String::new(),
        };
        request.line = line;
        loop {
            let field = read_line(&mut head)?;
            if field.is_empty() {
                return Ok(Some(request));
            }
            let (name, value) = field.split_once(':').ok_or(bad("not a field"))?;
            request.apply(&name.to_ascii_lowercase(), value.trim())?;
        }
    }

    fn apply(&mut self, name: &str, value: &str) -> io::Result<()> {
        match name {
            "x-request-id" => self.id = Some(value.to_owned()),
            "connection" if value.eq_ignore_ascii_case("close") => self.keep_alive = false,
            "connection" if value.eq_ignore_ascii_case("keep-alive") => self.keep_alive = true,
            "expect" if value.eq_ignore_ascii_case("100-continue") => self.expect_continue = true,
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => self.body = Body::Chunked,
            "transfer-encoding" => return Err(bad("a transfer coding other than chunked")),
            "content-length" if self.body != Body::Chunked => {
                self.body = Body::Length(value.parse().map_err(|_| bad("not a length"))?);
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads the body away and gives its sum.
    pub(crate) fn read_body(
        &self,
        input: &mut impl BufRead,
        output: &mut impl Write,
    ) -> io::Result<Checksum> {
        let mut sum = Checksum::default();
        if self.expect_continue && self.body != Body::Length(0) {
            output.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        match self.body {
            Body::Length(length) => skip(input, length, &mut sum)?,
            Body::Chunked => {
                loop {
                    let line = read_line(&mut input.take(HEAD_BYTES_MAX))?;
                    let digits = line.split(';').next().unwrap_or_default().trim();
                    let length = u64::from_str_radix(digits, 16).map_err(|_| bad("not a chunk"))?;
                    if length == 0 {
                        break;
                    }
                    skip(input, length, &mut sum)?;
                    if !read_line(&mut input.take(HEAD_BYTES_MAX))?.is_empty() {
                        return Err(bad("a chunk without an end"));
                    }
                }
                while !read_line(&mut input.take(HEAD_BYTES_MAX))?.is_empty() {}
            }
        }
        Ok(sum)
    }

    /// The path, without the query.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A parameter of the query as a number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        let (_, query) = self.target.split_once('?')?;
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse().ok())
    }
}

/// Reads a line and gives it without its end; an empty one at the end of input.
fn read_line(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line)?;
    if line.last().is_some_and(|last| *last != b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    String::from_utf8(line).map(|line| line.trim_end().to_owned()).map_err(|_| bad("not UTF-8"))
}

fn skip(input: &mut impl BufRead, length: u64, sum: &mut Checksum) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        let here = input.fill_buf()?;
        let part = here.get(..usize::try_from(left).unwrap_or(usize::MAX)).unwrap_or(here);
        if part.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        sum.add(part);
        let length = part.len();
        input.consume(length);
        left -= length as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_heads_and_bodies() {
        let check = |text: &str, expect: Result<(&str, u64, bool), &str>| {
            let input = &mut text.as_bytes();
            let got = Request::read(input).and_then(|request| {
                let request = request.ok_or(bad("nothing"))?;
                let body = request.read_body(input, &mut io::sink())?.length;
                Ok((request.path().to_owned(), body, request.keep_alive))
            });
            let got = got.map_err(|error| error.to_string());
            let expect =
                expect.map(|(path, body, alive)| (path.to_owned(), body, alive)).map_err(String::from);
            assert_eq!(got, expect, "{text:?}");
        };
        check("GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n", Ok(("/a", 0, true)));
        check("GET / HTTP/1.0\r\n\r\n", Ok(("/", 0, false)));
        check("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", Ok(("/", 0, true)));
        check("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", Ok(("/", 0, false)));
        check("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", Ok(("/", 5, true)));
        check(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nA: b\r\n\r\n",
            Ok(("/", 5, true)),
        );
        check("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhell", Err("unexpected end of file"));
        check("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", Err("not a chunk"));
        check("GET / HT", Err("unexpected end of file"));
        check("", Err("nothing"));
        check("hello\r\n", Err("not a request"));
    }

    #[test]
    fn finds_numbers_in_the_query() {
        let input = &mut &b"GET /slow?a=b&ms=70 HTTP/1.1\r\n\r\n"[..];
        let request = Request::read(input).unwrap().unwrap();
        assert_eq!(request.number("ms"), Some(70));
        assert_eq!(request.number("s"), None);
    }
}
