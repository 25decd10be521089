//! `sub_filter`: replaces text in bodies, also where it is cut in pieces on its way.
//!
//! Only what may be the beginning of a text is held back, and nothing else: what a peer sends in small pieces passes in small
//! pieces.

use keel_model::SubScope;

use super::{Filter, Settings, content_type::ContentType};
use crate::{
    answer::{Answer, Special},
    error::CompileError,
    job::Job,
    transform::{Broken, Transform},
};

struct Sub {
    scope: SubScope,
}

pub(super) fn compile(settings: &Settings<'_>) -> Result<Option<Box<dyn Filter>>, CompileError> {
    let scope = &settings.scope.sub;
    Ok((!scope.pairs.is_empty()).then(|| Box::new(Sub { scope: scope.clone() }) as Box<dyn Filter>))
}

impl Filter for Sub {
    fn acts_within(&self) -> bool {
        true
    }

    fn header(&self, job: &Job<'_>, answer: &mut Answer) -> Result<(), Special> {
        if answer.length(job.ex) == Some(0) || !ContentType::is_listed(&self.scope.types, job, answer) {
            return Ok(());
        }
        let lookup = job.lookup_with(answer);
        let texts = self.scope.pairs.iter().filter_map(|pair| {
            let text = lookup.text(&pair.text).to_ascii_lowercase();
            (!text.is_empty()).then(|| Text::new(text, lookup.text(&pair.replacement)))
        });
        let texts: Vec<Text> = texts.collect();
        if texts.is_empty() {
            return Ok(());
        }
        answer.transforms.push(Replace::new(texts, self.scope.once));
        if job.ex.routed.depth == 0 {
            answer.resize();
            if self.scope.last_modified {
                answer.weaken_etag(job.ex);
            } else {
                answer.forget_modified();
                answer.forget_etag();
            }
        }
        Ok(())
    }
}

/// A text that is looked for.
struct Text {
    /// In lower case.
    text: Vec<u8>,
    replacement: Vec<u8>,
    /// Whether it needn't be looked for any more.
    is_done: bool,
}

impl Text {
    fn new(text: Vec<u8>, replacement: Vec<u8>) -> Self {
        Self { text, replacement, is_done: false }
    }

    fn compare(&self, bytes: &[u8]) -> Compared {
        let length = bytes.len().min(self.text.len());
        let (Some(bytes), Some(text)) = (bytes.get(..length), self.text.get(..length)) else {
            return Compared::Differs;
        };
        if !bytes.eq_ignore_ascii_case(text) {
            Compared::Differs
        } else if length == self.text.len() {
            Compared::Same
        } else {
            Compared::Begins
        }
    }
}

/// What some bytes are to a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compared {
    Differs,
    /// They are its beginning, as far as they go.
    Begins,
    Same,
}

/// Replaces texts in a body.
struct Replace {
    texts: Vec<Text>,
    once: bool,
    /// Which bytes a text begins with.
    begins: [bool; 256],
    /// What may be the beginning of a text.
    held: Vec<u8>,
}

impl Replace {
    fn new(texts: Vec<Text>, once: bool) -> Self {
        let mut replace = Self { texts, once, begins: [false; 256], held: Vec::new() };
        replace.note_beginnings();
        replace
    }

    fn note_beginnings(&mut self) {
        let firsts = self.texts.iter().filter(|text| !text.is_done).filter_map(|text| text.text.first());
        let mut begins = [false; 256];
        for first in firsts {
            for byte in [first.to_ascii_lowercase(), first.to_ascii_uppercase()] {
                if let Some(begins) = begins.get_mut(usize::from(byte)) {
                    *begins = true;
                }
            }
        }
        self.begins = begins;
    }

    /// Finds what begins at the front of some bytes: the first in order that is there, or may be.
    fn look(&self, bytes: &[u8]) -> Option<(usize, Compared)> {
        let texts = self.texts.iter().enumerate().filter(|(_, text)| !text.is_done);
        let mut compared = texts.map(|(at, text)| (at, text.compare(bytes)));
        compared.find(|(_, compared)| *compared != Compared::Differs)
    }
}

impl Transform for Replace {
    fn piece(&mut self, piece: &mut Vec<u8>) -> Result<(), Broken> {
        let mut bytes = std::mem::take(&mut self.held);
        let input = if bytes.is_empty() {
            std::mem::take(piece)
        } else {
            bytes.append(piece);
            bytes
        };
        let out = piece;
        let mut rest = input.as_slice();
        loop {
            let begins = |byte: &u8| self.begins.get(usize::from(*byte)).copied().unwrap_or(false);
            let at = rest.iter().position(begins).unwrap_or(rest.len());
            let (before, from) = rest.split_at(at);
            out.extend_from_slice(before);
            let Some((first, behind)) = from.split_first() else { break };
            match self.look(from) {
                None | Some((_, Compared::Differs)) => {
                    out.push(*first);
                    rest = behind;
                }
                Some((_, Compared::Begins)) => {
                    self.held = from.to_vec();
                    break;
                }
                Some((at, Compared::Same)) => {
                    let Some(text) = self.texts.get_mut(at) else { break };
                    out.extend_from_slice(&text.replacement);
                    rest = from.get(text.text.len()..).unwrap_or_default();
                    if self.once {
                        text.is_done = true;
                        self.note_beginnings();
                    }
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        out.append(&mut self.held);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replaces in a body that comes in pieces of every size.
    fn check(pairs: &[(&str, &str)], once: bool, body: &str, expect: &str) {
        for size in 1..=body.len() {
            let text = |(text, replacement): &(&str, &str)| {
                Text::new(text.as_bytes().to_vec(), (*replacement).into())
            };
            let mut replace = Replace::new(pairs.iter().map(text).collect(), once);
            let mut out = Vec::new();
            for piece in body.as_bytes().chunks(size) {
                let mut piece = piece.to_vec();
                replace.piece(&mut piece).unwrap();
                out.append(&mut piece);
            }
            replace.end(&mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expect, "{body} in pieces of {size}");
        }
    }

    #[test]
    fn texts_are_replaced_however_the_body_is_cut() {
        check(&[("foo", "bar")], true, "foofoo", "barfoo");
        check(&[("foo", "bar")], false, "xFOOfoFoo", "xbarfobar");
        check(&[("abac", "_")], false, "ababacabaabac", "ab_aba_");
        check(&[("aab", "_")], false, "aaaabaa", "aa_aa");
        check(&[("a", "b")], false, "caac", "cbbc");
        check(&[("x", "")], false, "xaxbx", "ab");
        check(&[("x", "xx")], false, "xax", "xxaxx");
    }

    #[test]
    fn of_several_the_first_place_and_then_the_first_text_counts() {
        check(&[("aabb", "+"), ("aaabb", "-")], false, "aabbaaabbaabb", "+-+");
        check(&[("ab", "1"), ("abc", "2")], false, "abcab", "1c1");
        check(&[("abc", "2"), ("ab", "1")], false, "abcabd", "21d");
        check(&[("aab", "+"), ("yyz", "-")], true, "yyzyyzaabaab", "-yyz+aab");
    }

    #[test]
    fn only_what_may_begin_a_text_is_held_back() {
        let mut replace = Replace::new(vec![Text::new(b"za".to_vec(), b"ZA".to_vec())], true);
        let mut piece = b"xyz".to_vec();
        replace.piece(&mut piece).unwrap();
        assert_eq!(piece, b"xy");
        let mut piece = b"xyy".to_vec();
        replace.piece(&mut piece).unwrap();
        assert_eq!(piece, b"zxyy");
    }
}
