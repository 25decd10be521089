//! A page's content: marks and text, placed from the top left as in pictures.

use std::collections::BTreeMap;

use pdf_writer::{Content, Name, Str};

use crate::{
    font::Face,
    picture::{Anchor, Area, Ink, Mark, Pen, Picture, Point, Style},
};

/// A4, in points.
pub(super) const PAGE_WIDTH: f64 = 595.28;
/// A4, in points.
pub(super) const PAGE_HEIGHT: f64 = 841.89;
/// How far from a corner the ends of its curve's handles lie, so that it is round (4/3 · (√2 - 1)).
const ROUND: f64 = 0.552_285;

/// Which glyphs of each face were used, and for which character.
#[derive(Default)]
pub(super) struct Letters {
    pub(super) regular: BTreeMap<u16, char>,
    pub(super) bold: BTreeMap<u16, char>,
    pub(super) mono: BTreeMap<u16, char>,
}

impl Letters {
    pub(super) fn of(&mut self, face: Face) -> &mut BTreeMap<u16, char> {
        match face {
            Face::Regular => &mut self.regular,
            Face::Bold => &mut self.bold,
            Face::Mono => &mut self.mono,
        }
    }
}

/// The name of a face in a page's resources.
pub(super) fn resource(face: Face) -> Name<'static> {
    match face {
        Face::Regular => Name(b"Regular"),
        Face::Bold => Name(b"Bold"),
        Face::Mono => Name(b"Mono"),
    }
}

/// Where pictures stand on the page: moved, then made smaller.
#[derive(Clone, Copy)]
struct Placement {
    x: f64,
    y: f64,
    scale: f64,
}

/// A page that is being drawn.
pub(super) struct Canvas {
    content: Content,
    place: Placement,
}

impl Canvas {
    pub(super) fn new() -> Self {
        Canvas { content: Content::new(), place: Placement { x: 0.0, y: 0.0, scale: 1.0 } }
    }

    /// The finished content stream.
    pub(super) fn finish(self) -> Vec<u8> {
        self.content.finish().into_vec()
    }

    fn x(&self, x: f64) -> f32 {
        (self.place.x + x * self.place.scale) as f32
    }

    fn y(&self, y: f64) -> f32 {
        (PAGE_HEIGHT - self.place.y - y * self.place.scale) as f32
    }

    fn length(&self, length: f64) -> f32 {
        (length * self.place.scale) as f32
    }

    /// Draws a picture with its top left corner there.
    pub(super) fn picture(&mut self, letters: &mut Letters, picture: &Picture, at: Point, scale: f64) {
        self.place = Placement { x: at.x, y: at.y, scale };
        for mark in &picture.marks {
            self.mark(letters, mark);
        }
        self.place = Placement { x: 0.0, y: 0.0, scale: 1.0 };
    }

    fn mark(&mut self, letters: &mut Letters, mark: &Mark) {
        match mark {
            Mark::Rectangle { area, radius, fill, line } => self.rectangle(*area, *radius, *fill, *line),
            Mark::Line { points, pen } => {
                self.points(points);
                self.stroke(*pen);
            }
            Mark::Shape { points, fill } => {
                self.points(points);
                self.content.close_path();
                self.fill(*fill);
            }
            Mark::Dot { centre, radius, fill } => {
                let area = Area {
                    x: centre.x - radius,
                    y: centre.y - radius,
                    width: 2.0 * radius,
                    height: 2.0 * radius,
                };
                self.rectangle(area, *radius, Some(*fill), None);
            }
            Mark::Text { at, text, style } => self.text(letters, *at, text, *style),
        }
    }

    fn points(&mut self, points: &[Point]) {
        for (index, point) in points.iter().enumerate() {
            let (x, y) = (self.x(point.x), self.y(point.y));
            if index == 0 {
                self.content.move_to(x, y)
            } else {
                self.content.line_to(x, y)
            };
        }
    }

    /// A line between two points.
    pub(super) fn line(&mut self, from: Point, to: Point, pen: Pen) {
        self.points(&[from, to]);
        self.stroke(pen);
    }

    pub(super) fn rectangle(&mut self, area: Area, radius: f64, fill: Option<Ink>, line: Option<Pen>) {
        if let Some(ink) = fill {
            self.outline(area, radius);
            self.fill(ink);
        }
        if let Some(pen) = line {
            self.outline(area, radius);
            self.stroke(pen);
        }
    }

    fn outline(&mut self, area: Area, radius: f64) {
        let Area { x: left, y: top, width, height } = area;
        let (right, bottom) = (left + width, top + height);
        let radius = radius.min(width / 2.0).min(height / 2.0).max(0.0);
        if radius == 0.0 {
            let (x, y) = (self.x(left), self.y(bottom));
            self.content.rect(x, y, self.length(width), self.length(height));
            return;
        }
        let handle = radius * (1.0 - ROUND);
        self.content.move_to(self.x(left + radius), self.y(top));
        self.content.line_to(self.x(right - radius), self.y(top));
        self.curve([(right - handle, top), (right, top + handle), (right, top + radius)]);
        self.content.line_to(self.x(right), self.y(bottom - radius));
        self.curve([(right, bottom - handle), (right - handle, bottom), (right - radius, bottom)]);
        self.content.line_to(self.x(left + radius), self.y(bottom));
        self.curve([(left + handle, bottom), (left, bottom - handle), (left, bottom - radius)]);
        self.content.line_to(self.x(left), self.y(top + radius));
        self.curve([(left, top + handle), (left + handle, top), (left + radius, top)]);
        self.content.close_path();
    }

    fn curve(&mut self, [one, two, end]: [(f64, f64); 3]) {
        self.content.cubic_to(
            self.x(one.0),
            self.y(one.1),
            self.x(two.0),
            self.y(two.1),
            self.x(end.0),
            self.y(end.1),
        );
    }

    fn fill(&mut self, ink: Ink) {
        let [red, green, blue] = ink.light().map(part);
        self.content.set_fill_rgb(red, green, blue).fill_nonzero();
    }

    fn stroke(&mut self, pen: Pen) {
        let [red, green, blue] = pen.ink.light().map(part);
        let width = self.length(pen.width);
        self.content.set_stroke_rgb(red, green, blue).set_line_width(width);
        let dashes = [self.length(4.0), self.length(3.0)];
        self.content.set_dash_pattern(if pen.dashed { dashes.to_vec() } else { Vec::new() }, 0.0).stroke();
    }

    /// Sets text on a line; its place is on the base line.
    pub(super) fn text(&mut self, letters: &mut Letters, at: Point, text: &str, style: Style) {
        let x = match style.anchor {
            Anchor::Start => at.x,
            Anchor::Middle => at.x - style.face.width(text, style.size) / 2.0,
            Anchor::End => at.x - style.face.width(text, style.size),
        };
        let mut glyphs = Vec::with_capacity(text.len() * 2);
        let used = letters.of(style.face);
        for character in text.chars() {
            let glyph = style.face.glyph(character).0;
            // What the font lacks is read as a replacement character, not as the last one that it lacked.
            used.entry(glyph).or_insert(if glyph == 0 { '\u{fffd}' } else { character });
            glyphs.extend(glyph.to_be_bytes());
        }
        let [red, green, blue] = style.ink.light().map(part);
        let (x, y, size) = (self.x(x), self.y(at.y), self.length(style.size));
        self.content
            .begin_text()
            .set_fill_rgb(red, green, blue)
            .set_font(resource(style.face), size)
            .next_line(x, y)
            .show(Str(&glyphs))
            .end_text();
    }
}

fn part(part: u8) -> f32 {
    f32::from(part) / 255.0
}
