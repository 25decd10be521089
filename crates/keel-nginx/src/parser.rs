//! Tokens to directives and blocks.
//!
//! Always gives a tree, whatever the text: a missing `;` before `}` ends the directive, a `}` too many is skipped, and
//! a block that never closes ends with the file. Depth is bounded, so that no text can exhaust the stack.

use std::iter::Peekable;

use keel_diag::{Diagnostic, SourceId, Sources, Span};

use crate::{
    ast::{Directive, Word},
    lexer::{Token, lex},
};

/// How deep blocks may stand in each other.
const DEPTH_MAX: usize = 64;

/// Parses a text that is in `sources` already.
pub fn parse(sources: &Sources, source: SourceId) -> (Vec<Directive>, Vec<Diagnostic>) {
    let (tokens, diagnostics) = lex(sources.text(source), source);
    let end = sources.text(source).len();
    let lexer_failed_at_end = diagnostics.iter().any(|found| found.code == "nginx::unexpected-end");
    let mut parser = Parser {
        tokens: tokens.into_iter().peekable(),
        end: Span::new(source, end..end),
        end_reported: lexer_failed_at_end,
        diagnostics,
    };
    let mut directives = parser.block(None, 0);
    while let Some(close) = parser.stray_close() {
        parser.report(
            "nginx::unexpected-brace",
            "unexpected `}`",
            close,
            "closes no block",
            "unexpected \"}\"",
        );
        directives.extend(parser.block(None, 0));
    }
    (directives, parser.diagnostics)
}

struct Parser {
    tokens: Peekable<std::vec::IntoIter<Token>>,
    end: Span,
    end_reported: bool,
    diagnostics: Vec<Diagnostic>,
}

impl Parser {
    /// Reads directives up to the `}` that belongs to `opened_by`, which it takes, or to the end.
    fn block(&mut self, opened_by: Option<Span>, depth: usize) -> Vec<Directive> {
        let mut directives = Vec::new();
        loop {
            match self.tokens.peek() {
                None => {
                    self.unclosed(opened_by);
                    return directives;
                }
                Some(Token::Close(_)) => {
                    if opened_by.is_some() {
                        self.tokens.next();
                    }
                    return directives;
                }
                Some(Token::Semicolon(span)) => {
                    let span = *span;
                    self.tokens.next();
                    self.report(
                        "nginx::unexpected-semicolon",
                        "unexpected `;`",
                        span,
                        "ends nothing",
                        "unexpected \";\"",
                    );
                }
                Some(Token::Open(span)) => {
                    let span = *span;
                    self.tokens.next();
                    self.report(
                        "nginx::unexpected-brace",
                        "unexpected `{`",
                        span,
                        "opens a block without a name",
                        "unexpected \"{\"",
                    );
                    self.inner_block(span, depth);
                }
                Some(Token::Word(_)) => directives.extend(self.directive(depth)),
            }
        }
    }

    fn directive(&mut self, depth: usize) -> Option<Directive> {
        let mut words = Vec::new();
        while let Some(Token::Word(word)) = self.tokens.next_if(|token| matches!(token, Token::Word(_))) {
            words.push(word);
        }
        let mut words = words.into_iter();
        let name = words.next()?;
        let args: Vec<Word> = words.collect();
        let last = args.last().map_or(name.span, |word| word.span);
        let block = match self.tokens.peek() {
            Some(Token::Semicolon(_)) => {
                self.tokens.next();
                None
            }
            Some(Token::Open(span)) => {
                let span = *span;
                self.tokens.next();
                Some(self.inner_block(span, depth))
            }
            Some(Token::Close(close)) => {
                let close = *close;
                self.diagnostics.push(
                    Diagnostic::error("nginx::unexpected-brace", "unexpected `}`")
                        .at(close, "a directive is not finished here")
                        .at(last, "a `;` is missing after this")
                        .nginx("unexpected \"}\""),
                );
                None
            }
            Some(Token::Word(_)) | None => {
                if !std::mem::replace(&mut self.end_reported, true) {
                    self.diagnostics.push(
                        Diagnostic::error("nginx::unexpected-end", "unexpected end of file")
                            .at(last, "a `;` is missing after this")
                            .nginx("unexpected end of file, expecting \";\" or \"}\""),
                    );
                }
                None
            }
        };
        Some(Directive { name, args, block })
    }

    fn inner_block(&mut self, open: Span, depth: usize) -> Vec<Directive> {
        if depth < DEPTH_MAX {
            return self.block(Some(open), depth + 1);
        }
        self.diagnostics.push(
            Diagnostic::error("nginx::too-deep", format!("more than {DEPTH_MAX} blocks inside each other"))
                .at(open, "its contents are skipped"),
        );
        let mut open_blocks = 1usize;
        for token in self.tokens.by_ref() {
            match token {
                Token::Open(_) => open_blocks += 1,
                Token::Close(_) => open_blocks -= 1,
                Token::Word(_) | Token::Semicolon(_) => {}
            }
            if open_blocks == 0 {
                break;
            }
        }
        Vec::new()
    }

    fn unclosed(&mut self, opened_by: Option<Span>) {
        let Some(open) = opened_by else {
            return;
        };
        if !std::mem::replace(&mut self.end_reported, true) {
            self.diagnostics.push(
                Diagnostic::error("nginx::unexpected-end", "unexpected end of file inside a block")
                    .at(self.end, "a `}` is missing")
                    .at(open, "this block is never closed")
                    .nginx("unexpected end of file, expecting \"}\""),
            );
        }
    }

    fn stray_close(&mut self) -> Option<Span> {
        match self.tokens.next() {
            Some(Token::Close(span)) => Some(span),
            _ => None,
        }
    }

    fn report(&mut self, code: &'static str, message: &str, span: Span, label: &str, nginx: &str) {
        self.diagnostics.push(Diagnostic::error(code, message).at(span, label).nginx(nginx));
    }
}
