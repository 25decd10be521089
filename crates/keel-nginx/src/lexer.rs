//! Words, `;`, `{` and `}`, as nginx's `ngx_conf_read_token` tells them apart.
//!
//! A backslash keeps the next byte from ending a word; it vanishes before quotes and backslashes and makes a control
//! character with `t`, `r` and `n`, and stays before everything else, so that regular expressions need no doubling.
//! `${` doesn't open a block. After an error the lexer goes on with the next word.

use keel_diag::{Diagnostic, SourceId, Span};

use crate::ast::Word;

/// A piece of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A word.
    Word(Word),
    /// `;`.
    Semicolon(Span),
    /// `{`.
    Open(Span),
    /// `}`.
    Close(Span),
}

/// Cuts a text into tokens, and says what is wrong with it.
pub(crate) fn lex(text: &str, source: SourceId) -> (Vec<Token>, Vec<Diagnostic>) {
    let mut lexer =
        Lexer { text, bytes: text.as_bytes(), source, at: 0, tokens: Vec::new(), diagnostics: Vec::new() };
    while lexer.step() {}
    (lexer.tokens, lexer.diagnostics)
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    source: SourceId,
    at: usize,
    tokens: Vec<Token>,
    diagnostics: Vec<Diagnostic>,
}

impl Lexer<'_> {
    /// Reads one token or skips one blank or comment; false at the end.
    fn step(&mut self) -> bool {
        let Some(&byte) = self.bytes.get(self.at) else {
            return false;
        };
        let span = self.span(self.at, self.at + 1);
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
            b'#' => self.skip_comment(),
            b';' => self.punctuation(Token::Semicolon(span)),
            b'{' => self.punctuation(Token::Open(span)),
            b'}' => self.punctuation(Token::Close(span)),
            b'"' | b'\'' => self.quoted(byte),
            _ => self.bare(),
        }
        true
    }

    fn punctuation(&mut self, token: Token) {
        self.at += 1;
        self.tokens.push(token);
    }

    fn skip_comment(&mut self) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        self.at += rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
    }

    fn bare(&mut self) {
        let start = self.at;
        let mut after_dollar = false;
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b'{' if after_dollar => after_dollar = false,
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' => break,
                b'\\' => {
                    self.at += 1;
                    after_dollar = false;
                }
                b'$' => after_dollar = true,
                _ => after_dollar = false,
            }
            self.at += 1;
        }
        self.at = self.at.min(self.bytes.len());
        self.word(start..self.at, start..self.at);
    }

    fn quoted(&mut self, quote: u8) {
        let start = self.at;
        self.at += 1;
        loop {
            match self.bytes.get(self.at) {
                None => return self.unterminated(start, quote),
                Some(b'\\') => self.at += 2,
                Some(&byte) if byte == quote => break,
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        self.word(start..self.at, start + 1..self.at - 1);
        match self.bytes.get(self.at) {
            None | Some(b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' | b')') => {}
            Some(_) => self.glued(),
        }
    }

    fn unterminated(&mut self, start: usize, quote: u8) {
        self.at = self.bytes.len();
        let line_end = self.text.get(start..).and_then(|rest| rest.find('\n')).map_or(self.at, |n| start + n);
        let quote = char::from(quote);
        self.diagnostics.push(
            Diagnostic::error("nginx::unexpected-end", "unexpected end of file inside a quoted word")
                .at(self.span(start, line_end), "opened here and never closed")
                .help(format!("close it with `{quote}`, or write `\\{quote}` for the character itself"))
                .nginx("unexpected end of file, expecting \";\" or \"}\""),
        );
    }

    /// Something other than a blank follows a closing quote.
    fn glued(&mut self) {
        let Some(c) = self.text.get(self.at..).and_then(|rest| rest.chars().next()) else {
            return;
        };
        self.diagnostics.push(
            Diagnostic::error("nginx::unexpected-character", format!("unexpected `{c}` after a quoted word"))
                .at(self.span(self.at, self.at + c.len_utf8()), "a blank, `;` or `{` must follow the quote")
                .help("put the whole word into quotes")
                .nginx(format!("unexpected \"{c}\"")),
        );
    }

    fn word(&mut self, outer: std::ops::Range<usize>, inner: std::ops::Range<usize>) {
        let span = self.span(outer.start, outer.end);
        let text = unescape(self.text.get(inner).unwrap_or_default());
        if text.contains('\u{fffd}') {
            self.diagnostics.push(
                Diagnostic::error("nginx::not-utf-8", "a word that is not UTF-8")
                    .at(span, "holds bytes that are not UTF-8")
                    .help("save the file as UTF-8"),
            );
        }
        self.tokens.push(Token::Word(Word { text, span }));
    }

    fn span(&self, start: usize, end: usize) -> Span {
        Span::new(self.source, start..end)
    }
}

/// Takes the escapes away that nginx takes away.
fn unescape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut chars = raw.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        let replacement = match chars.peek() {
            Some(&escaped @ ('"' | '\'' | '\\')) => Some(escaped),
            Some('t') => Some('\t'),
            Some('r') => Some('\r'),
            Some('n') => Some('\n'),
            _ => None,
        };
        match replacement {
            Some(replacement) => {
                chars.next();
                text.push(replacement);
            }
            None => text.push('\\'),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use keel_diag::Sources;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut sources = Sources::default();
        let source = sources.add("nginx.conf", text);
        let (tokens, diagnostics) = lex(sources.text(source), source);
        let mut out: Vec<String> = tokens
            .into_iter()
            .map(|token| match token {
                Token::Word(word) => format!("<{}>", word.text),
                Token::Semicolon(_) => ";".into(),
                Token::Open(_) => "{".into(),
                Token::Close(_) => "}".into(),
            })
            .collect();
        out.extend(diagnostics.into_iter().filter_map(|diagnostic| diagnostic.nginx_text));
        out
    }

    fn check(text: &str, expect: &[&str]) {
        assert_eq!(words(text), expect, "for {text:?}");
    }

    #[test]
    fn cuts_as_nginx_does() {
        check("a b;", &["<a>", "<b>", ";"]);
        check("a{b c;}", &["<a>", "{", "<b>", "<c>", ";", "}"]);
        check("a # b;\nc;", &["<a>", "<c>", ";"]);
        check("a b#c;", &["<a>", "<b#c>", ";"]);
        check("a \"b ; c\" 'd\"e';", &["<a>", "<b ; c>", "<d\"e>", ";"]);
        check(r#"a "b\"c\\d\n" \.php$;"#, &["<a>", "<b\"c\\d\n>", "<\\.php$>", ";"]);
        check("a ${b}c;", &["<a>", "<${b}c>", ";"]);
        check("a $b{", &["<a>", "<$b>", "{"]);
        check(r"a b\;c\ d;", &["<a>", r"<b\;c\ d>", ";"]);
        check("a ('b');", &["<a>", "<('b')>", ";"]);
        check("a 'b');", &["<a>", "<b>", "<)>", ";"]);
        check("a '';", &["<a>", "<>", ";"]);
        check("a b}", &["<a>", "<b}>"]);
    }

    #[test]
    fn goes_on_after_an_error() {
        check("a 'b'c; d;", &["<a>", "<b>", "<c>", ";", "<d>", ";", "unexpected \"c\""]);
        check("a 'b", &["<a>", "unexpected end of file, expecting \";\" or \"}\""]);
        check("a b\\", &["<a>", "<b\\>"]);
    }
}
