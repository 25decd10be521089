//! A picture as marks on a plane, drawn alike into SVG, PNG and PDF.
//!
//! Marks name an ink, not a colour: SVG has a light and a dark colour for each, PNG and PDF are light. Inks were chosen so
//! that people who see red and green alike can tell them apart, and red is for what is wrong alone.

use crate::font::Face;

/// What a mark is drawn with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// Behind everything.
    Surface,
    /// Behind a part.
    Panel,
    /// Text.
    Text,
    /// Text that matters less.
    Muted,
    /// Lines that guide the eye.
    Grid,
    /// What was measured.
    Data,
    /// The area below what was measured.
    DataSoft,
    /// What asks for attention and is not wrong: events, failures that a case allows.
    Notice,
    /// What is wrong.
    Wrong,
    /// What is right.
    Good,
}

impl Ink {
    pub(crate) const ALL: [Ink; 10] = [
        Ink::Surface,
        Ink::Panel,
        Ink::Text,
        Ink::Muted,
        Ink::Grid,
        Ink::Data,
        Ink::DataSoft,
        Ink::Notice,
        Ink::Wrong,
        Ink::Good,
    ];

    /// Its name in style sheets.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Ink::Surface => "surface",
            Ink::Panel => "panel",
            Ink::Text => "text",
            Ink::Muted => "muted",
            Ink::Grid => "grid",
            Ink::Data => "data",
            Ink::DataSoft => "data-soft",
            Ink::Notice => "notice",
            Ink::Wrong => "wrong",
            Ink::Good => "good",
        }
    }

    /// Red, green and blue on a light ground.
    pub fn light(self) -> [u8; 3] {
        match self {
            Ink::Surface => [0xff, 0xff, 0xff],
            Ink::Panel => [0xf3, 0xf5, 0xf8],
            Ink::Text => [0x1a, 0x20, 0x27],
            Ink::Muted => [0x5a, 0x65, 0x70],
            Ink::Grid => [0xd6, 0xdc, 0xe2],
            Ink::Data => [0x0b, 0x67, 0xb2],
            Ink::DataSoft => [0xd3, 0xe5, 0xf5],
            Ink::Notice => [0x98, 0x59, 0x00],
            Ink::Wrong => [0xc4, 0x28, 0x28],
            Ink::Good => [0x00, 0x72, 0x63],
        }
    }

    /// Red, green and blue on a dark ground.
    pub(crate) fn dark(self) -> [u8; 3] {
        match self {
            Ink::Surface => [0x14, 0x18, 0x1d],
            Ink::Panel => [0x1d, 0x23, 0x2a],
            Ink::Text => [0xe7, 0xeb, 0xef],
            Ink::Muted => [0x9c, 0xa7, 0xb3],
            Ink::Grid => [0x37, 0x40, 0x4a],
            Ink::Data => [0x5c, 0xb0, 0xf2],
            Ink::DataSoft => [0x1e, 0x39, 0x52],
            Ink::Notice => [0xf0, 0xb3, 0x4a],
            Ink::Wrong => [0xff, 0x7a, 0x72],
            Ink::Good => [0x52, 0xc7, 0xad],
        }
    }
}

/// A place, in picture units from the top left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// From the left.
    pub x: f64,
    /// From the top.
    pub y: f64,
}

/// A place from its two coordinates.
pub fn at(x: f64, y: f64) -> Point {
    Point { x, y }
}

/// A rectangle, by its top left corner.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Area {
    /// From the left.
    pub x: f64,
    /// From the top.
    pub y: f64,
    /// To the right.
    pub width: f64,
    /// Down.
    pub height: f64,
}

/// Which part of a text stands at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Its begin.
    Start,
    /// Its middle.
    Middle,
    /// Its end.
    End,
}

/// A line's ink and width.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pen {
    /// The ink.
    pub ink: Ink,
    /// In picture units.
    pub width: f64,
    /// Whether the line is dashed.
    pub dashed: bool,
}

impl Pen {
    /// A whole line.
    pub fn new(ink: Ink, width: f64) -> Self {
        Pen { ink, width, dashed: false }
    }

    /// A dashed line.
    pub fn dashed(ink: Ink, width: f64) -> Self {
        Pen { ink, width, dashed: true }
    }
}

/// How a text looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Style {
    /// The font.
    pub face: Face,
    /// In picture units.
    pub size: f64,
    /// The ink.
    pub ink: Ink,
    /// What stands at the text's place.
    pub anchor: Anchor,
}

impl Style {
    /// Regular text that begins at its place.
    pub fn new(size: f64, ink: Ink) -> Self {
        Style { face: Face::Regular, size, ink, anchor: Anchor::Start }
    }

    /// The same, bold.
    pub fn bold(self) -> Self {
        Style { face: Face::Bold, ..self }
    }

    /// The same, as code.
    pub fn mono(self) -> Self {
        Style { face: Face::Mono, ..self }
    }

    /// The same, with another part at its place.
    pub fn anchored(self, anchor: Anchor) -> Self {
        Style { anchor, ..self }
    }
}

/// One thing that is drawn; later marks lie above earlier ones.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// A rectangle, with round corners where it has a radius.
    Rectangle {
        /// Where.
        area: Area,
        /// Of its corners.
        radius: f64,
        /// What it is filled with.
        fill: Option<Ink>,
        /// The line around it.
        line: Option<Pen>,
    },
    /// A line through points.
    Line {
        /// At least two.
        points: Vec<Point>,
        /// How it is drawn.
        pen: Pen,
    },
    /// An area between points.
    Shape {
        /// At least three.
        points: Vec<Point>,
        /// What it is filled with.
        fill: Ink,
    },
    /// A filled circle.
    Dot {
        /// Where.
        centre: Point,
        /// In picture units.
        radius: f64,
        /// What it is filled with.
        fill: Ink,
    },
    /// A line of text.
    Text {
        /// Where, on the line that letters stand on.
        at: Point,
        /// The words.
        text: String,
        /// How it looks.
        style: Style,
    },
}

/// A picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// In picture units.
    pub width: f64,
    /// In picture units.
    pub height: f64,
    /// What it shows, for those who can't see it.
    pub label: String,
    /// What is drawn, from the lowest.
    pub marks: Vec<Mark>,
}

impl Picture {
    /// An empty picture of this width; its height grows with what is drawn.
    pub fn new(width: f64, label: String) -> Self {
        Picture { width, height: 0.0, label, marks: Vec::new() }
    }

    /// Adds a rectangle.
    pub fn rectangle(&mut self, area: Area, radius: f64, fill: Option<Ink>, line: Option<Pen>) {
        self.marks.push(Mark::Rectangle { area, radius, fill, line });
    }

    /// Adds a line.
    pub fn line(&mut self, points: Vec<Point>, pen: Pen) {
        self.marks.push(Mark::Line { points, pen });
    }

    /// Adds a line of text.
    pub fn text(&mut self, at: Point, text: impl Into<String>, style: Style) {
        self.marks.push(Mark::Text { at, text: text.into(), style });
    }

    /// An arrow that ends at its last point.
    pub fn arrow(&mut self, points: Vec<Point>, pen: Pen) {
        if let [.., from, to] = *points.as_slice() {
            let (dx, dy) = (to.x - from.x, to.y - from.y);
            let length = dx.hypot(dy).max(f64::MIN_POSITIVE);
            let (dx, dy) = (dx / length * ARROW_LENGTH, dy / length * ARROW_LENGTH);
            let back = at(to.x - dx, to.y - dy);
            let head = vec![
                to,
                at(back.x - dy * 0.45, back.y + dx * 0.45),
                at(back.x + dy * 0.45, back.y - dx * 0.45),
            ];
            self.marks.push(Mark::Shape { points: head, fill: pen.ink });
        }
        self.line(points, pen);
    }
}

/// How long the head of an arrow is.
const ARROW_LENGTH: f64 = 7.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// Contrast of two colours (WCAG 2.2, "contrast ratio").
    fn contrast(a: [u8; 3], b: [u8; 3]) -> f64 {
        let luminance = |colour: [u8; 3]| {
            let [red, green, blue] = colour.map(|part| {
                let part = f64::from(part) / 255.0;
                if part <= 0.040_45 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
            });
            0.2126 * red + 0.7152 * green + 0.0722 * blue
        };
        let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
        a.max(b) / a.min(b)
    }

    #[test]
    fn inks_of_text_can_be_read_in_light_and_dark() {
        for ink in [Ink::Text, Ink::Muted, Ink::Data, Ink::Notice, Ink::Wrong, Ink::Good] {
            for ground in [Ink::Surface, Ink::Panel] {
                assert!(contrast(ink.light(), ground.light()) >= 4.5, "{ink:?} on {ground:?}, light");
                assert!(contrast(ink.dark(), ground.dark()) >= 4.5, "{ink:?} on {ground:?}, dark");
            }
        }
    }
}
