//! The letters of pictures and PDF, which are part of the program so that output is the same on every machine.
//!
//! Text is set glyph by glyph with its own width: no kerning, no ligatures, no scripts that join or run to the left. A
//! character that the fonts lack is drawn as the box that says so. `fonts/README.md` says where they come from.

use std::sync::LazyLock;

use ttf_parser::GlyphId;

/// How much wider than ours the letters may be that a viewer of SVG or HTML has instead.
pub const OTHER_FONT: f64 = 1.17;

/// A font that the program has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// For text.
    Regular,
    /// For heads.
    Bold,
    /// For addresses and code.
    Mono,
}

static REGULAR: LazyLock<ttf_parser::Face<'static>> = LazyLock::new(|| parse(Face::Regular));
static BOLD: LazyLock<ttf_parser::Face<'static>> = LazyLock::new(|| parse(Face::Bold));
static MONO: LazyLock<ttf_parser::Face<'static>> = LazyLock::new(|| parse(Face::Mono));

#[expect(clippy::expect_used, reason = "the bytes are part of the program, and a test parses them")]
fn parse(face: Face) -> ttf_parser::Face<'static> {
    ttf_parser::Face::parse(face.file(), 0).expect("a built-in font is whole")
}

impl Face {
    #[cfg(test)]
    pub(crate) const ALL: [Face; 3] = [Face::Regular, Face::Bold, Face::Mono];

    /// The font file.
    pub(crate) fn file(self) -> &'static [u8] {
        match self {
            Face::Regular => include_bytes!("fonts/Inter-Regular.otf"),
            Face::Bold => include_bytes!("fonts/Inter-SemiBold.otf"),
            Face::Mono => include_bytes!("fonts/JetBrainsMono-Regular.ttf"),
        }
    }

    pub(crate) fn parsed(self) -> &'static ttf_parser::Face<'static> {
        match self {
            Face::Regular => &REGULAR,
            Face::Bold => &BOLD,
            Face::Mono => &MONO,
        }
    }

    /// The glyph of a character; glyph 0, a box, where the font has none.
    pub(crate) fn glyph(self, character: char) -> GlyphId {
        let known = match character {
            '\t' | '\u{2007}' | '\u{2009}' | '\u{202f}' => ' ',
            '\u{2011}' | '\u{2012}' => '-',
            other => other,
        };
        self.parsed().glyph_index(known).unwrap_or(GlyphId(0))
    }

    /// The width of a glyph as a part of the font's size.
    pub(crate) fn advance(self, glyph: GlyphId) -> f64 {
        let parsed = self.parsed();
        f64::from(parsed.glyph_hor_advance(glyph).unwrap_or_default()) / f64::from(parsed.units_per_em())
    }

    /// The width of a text set in this size.
    pub fn width(self, text: &str, size: f64) -> f64 {
        text.chars().map(|character| self.advance(self.glyph(character))).sum::<f64>() * size
    }

    /// The text if it fits, else as much of it as does, with an ellipsis.
    pub fn fit(self, text: &str, size: f64, width_max: f64) -> String {
        if self.width(text, size) <= width_max {
            return text.to_owned();
        }
        let mut kept = String::new();
        let mut used = self.width("…", size);
        for character in text.chars() {
            used += self.advance(self.glyph(character)) * size;
            if used > width_max {
                break;
            }
            kept.push(character);
        }
        format!("{}…", kept.trim_end())
    }

    /// The text in lines that fit, broken at spaces but not before `%`, and within a word only where it alone is too long.
    pub fn wrap(self, text: &str, size: f64, width_max: f64) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = String::new();
        for word in words(text) {
            let longer = if line.is_empty() { word.clone() } else { format!("{line} {word}") };
            if self.width(&longer, size) <= width_max {
                line = longer;
                continue;
            }
            if !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            for character in word.chars() {
                line.push(character);
                if self.width(&line, size) > width_max && line.chars().nth(1).is_some() {
                    line.pop();
                    lines.push(std::mem::take(&mut line));
                    line.push(character);
                }
            }
        }
        if !line.is_empty() || lines.is_empty() {
            lines.push(line);
        }
        lines
    }
}

/// Words, a per cent sign with the number before it, and what a no-break space holds together.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split([' ', '\n', '\t']).filter(|word| !word.is_empty()) {
        match words.last_mut() {
            Some(number) if word.starts_with('%') => {
                number.push(' ');
                number.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_face_has_the_letters_that_reports_use() {
        for face in Face::ALL {
            for character in "AZaz09 \u{a0}äéßПжα→–…%/<>|{}✓×≤".chars() {
                assert_ne!(face.glyph(character), GlyphId(0), "{face:?} lacks {character:?}");
            }
        }
    }

    #[test]
    fn digits_stand_in_columns() {
        for face in Face::ALL {
            let widths: Vec<_> = ('0'..='9').map(|digit| face.advance(face.glyph(digit))).collect();
            for width in &widths {
                assert!((width - widths[0]).abs() < 0.002, "{face:?}: {widths:?}");
            }
        }
    }

    #[test]
    fn long_text_is_cut_or_broken() {
        let face = Face::Regular;
        assert_eq!(face.fit("app1", 12.0, 100.0), "app1");
        let cut = face.fit("a very long condition of a step", 12.0, 60.0);
        assert!(cut.ends_with('…') && face.width(&cut, 12.0) <= 60.0, "{cut}");
        let lines = face.wrap("one two three 0123456789012345678901234567890123456789", 10.0, 60.0);
        assert!(lines.len() > 3, "{lines:?}");
        for line in &lines {
            assert!(face.width(line, 10.0) <= 60.0, "{line}");
        }
        assert_eq!(face.wrap("", 10.0, 60.0), [""]);
        assert_eq!(face.wrap("0 of 1,000 lost: 25 %.", 10.0, 95.0), ["0 of 1,000 lost:", "25 %."]);
        let held = face.wrap("app1\u{a0}333, app2\u{a0}333", 10.0, 75.0);
        assert_eq!(held, ["app1\u{a0}333,", "app2\u{a0}333"]);
    }
}
