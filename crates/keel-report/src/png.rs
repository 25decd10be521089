//! Pictures as PNG, at twice their size, in light colours on a light ground: readable on any page.

use tiny_skia::{
    Color, FillRule, Paint, Path, PathBuilder, Pixmap, PixmapMut, Rect, Stroke, StrokeDash, Transform,
};
use ttf_parser::OutlineBuilder;

use crate::picture::{Anchor, Area, Ink, Mark, Pen, Picture, Point, Style};

/// Pixels per unit of a picture.
const SCALE: f64 = 2.0;
/// A picture that is higher would need more than 64 MiB.
const HEIGHT_MAX: f64 = 5_000.0;
/// How far from a corner the ends of its curve's handles lie, so that it is round (4/3 · (√2 - 1)).
const ROUND: f32 = 0.552_285;

/// Why there is no PNG.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It would be larger than any reader expects.
    #[error("the picture is too large")]
    TooLarge,
    /// It could not be encoded.
    #[error("can't encode the picture: {0}")]
    Encode(String),
}

/// Draws a picture as PNG.
///
/// # Errors
///
/// [`Error`].
pub fn file(picture: &Picture) -> Result<Vec<u8>, Error> {
    if picture.height > HEIGHT_MAX {
        return Err(Error::TooLarge);
    }
    let (width, height) = size(picture);
    let mut pixmap = Pixmap::new(width, height).ok_or(Error::TooLarge)?;
    pixmap.fill(colour(Ink::Surface));
    for mark in &picture.marks {
        draw(&mut pixmap.as_mut(), mark);
    }
    pixmap.encode_png().map_err(|error| Error::Encode(error.to_string()))
}

/// Width and height in pixels.
pub(crate) fn size(picture: &Picture) -> (u32, u32) {
    ((picture.width * SCALE).ceil() as u32, (picture.height * SCALE).ceil() as u32)
}

fn colour(ink: Ink) -> Color {
    let [red, green, blue] = ink.light();
    Color::from_rgba8(red, green, blue, 255)
}

fn paint(ink: Ink) -> Paint<'static> {
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color(colour(ink));
    paint
}

fn scale() -> Transform {
    Transform::from_scale(SCALE as f32, SCALE as f32)
}

fn draw(pixmap: &mut PixmapMut<'_>, mark: &Mark) {
    match mark {
        Mark::Rectangle { area, radius, fill: ink, line } => {
            let path = rectangle(area, *radius as f32);
            fill(pixmap, path.as_ref(), *ink);
            stroke(pixmap, path.as_ref(), *line);
        }
        Mark::Line { points, pen } => stroke(pixmap, polygon(points, Ends::Open).as_ref(), Some(*pen)),
        Mark::Shape { points, fill: ink } => {
            fill(pixmap, polygon(points, Ends::Closed).as_ref(), Some(*ink));
        }
        Mark::Dot { centre, radius, fill: ink } => {
            let path = PathBuilder::from_circle(centre.x as f32, centre.y as f32, *radius as f32);
            fill(pixmap, path.as_ref(), Some(*ink));
        }
        Mark::Text { at, text, style } => draw_text(pixmap, *at, text, style),
    }
}

fn fill(pixmap: &mut PixmapMut<'_>, path: Option<&Path>, ink: Option<Ink>) {
    if let (Some(path), Some(ink)) = (path, ink) {
        pixmap.fill_path(path, &paint(ink), FillRule::Winding, scale(), None);
    }
}

fn stroke(pixmap: &mut PixmapMut<'_>, path: Option<&Path>, pen: Option<Pen>) {
    if let (Some(path), Some(pen)) = (path, pen) {
        let dash = if pen.dashed { StrokeDash::new(vec![4.0, 3.0], 0.0) } else { None };
        let stroke = Stroke { width: pen.width as f32, dash, ..Stroke::default() };
        pixmap.stroke_path(path, &paint(pen.ink), &stroke, scale(), None);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Ends {
    Open,
    Closed,
}

fn polygon(points: &[Point], ends: Ends) -> Option<Path> {
    let mut path = PathBuilder::new();
    for (index, point) in points.iter().enumerate() {
        let (x, y) = (point.x as f32, point.y as f32);
        if index == 0 { path.move_to(x, y) } else { path.line_to(x, y) }
    }
    if ends == Ends::Closed {
        path.close();
    }
    path.finish()
}

fn rectangle(area: &Area, radius: f32) -> Option<Path> {
    let (left, top) = (area.x as f32, area.y as f32);
    let (right, bottom) = (left + area.width as f32, top + area.height as f32);
    let radius = radius.min((right - left) / 2.0).min((bottom - top) / 2.0);
    if radius <= 0.0 {
        return Rect::from_ltrb(left, top, right, bottom).map(PathBuilder::from_rect);
    }
    let handle = radius * (1.0 - ROUND);
    let mut path = PathBuilder::new();
    path.move_to(left + radius, top);
    path.line_to(right - radius, top);
    path.cubic_to(right - handle, top, right, top + handle, right, top + radius);
    path.line_to(right, bottom - radius);
    path.cubic_to(right, bottom - handle, right - handle, bottom, right - radius, bottom);
    path.line_to(left + radius, bottom);
    path.cubic_to(left + handle, bottom, left, bottom - handle, left, bottom - radius);
    path.line_to(left, top + radius);
    path.cubic_to(left, top + handle, left + handle, top, left + radius, top);
    path.close();
    path.finish()
}

fn draw_text(pixmap: &mut PixmapMut<'_>, at: Point, text: &str, style: &Style) {
    let face = style.face;
    let size = style.size / f64::from(face.parsed().units_per_em());
    let mut x = match style.anchor {
        Anchor::Start => at.x,
        Anchor::Middle => at.x - face.width(text, style.size) / 2.0,
        Anchor::End => at.x - face.width(text, style.size),
    };
    let mut letters = Letters { path: PathBuilder::new(), size: size as f32, x: 0.0, y: at.y as f32 };
    for character in text.chars() {
        let glyph = face.glyph(character);
        letters.x = x as f32;
        // A glyph without an outline is a space.
        let _ = face.parsed().outline_glyph(glyph, &mut letters);
        x += face.advance(glyph) * style.size;
    }
    fill(pixmap, letters.path.finish().as_ref(), Some(style.ink));
}

/// Puts outlines of glyphs where they stand; a font's y grows upwards.
struct Letters {
    path: PathBuilder,
    size: f32,
    x: f32,
    y: f32,
}

impl Letters {
    fn place(&self, x: f32, y: f32) -> (f32, f32) {
        (self.x + x * self.size, self.y - y * self.size)
    }
}

impl OutlineBuilder for Letters {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.place(x, y);
        self.path.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.place(x, y);
        self.path.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.place(x1, y1), self.place(x, y));
        self.path.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2), (x, y)) = (self.place(x1, y1), self.place(x2, y2), self.place(x, y));
        self.path.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.path.close();
    }
}
