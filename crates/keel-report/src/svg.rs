//! Pictures as SVG: on their own with both sets of colours, or as part of a page that has the colours.

use std::fmt::Write;

use crate::{
    font::Face,
    picture::{Anchor, Ink, Mark, Pen, Picture, Point},
};

/// Fonts that a viewer probably has, those that the layout was made for first.
pub(crate) const FONT_TEXT: &str =
    "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Liberation Sans', sans-serif";
/// The same for code and addresses.
pub(crate) const FONT_CODE: &str = "'JetBrains Mono', ui-monospace, 'SFMono-Regular', Menlo, Consolas, 'Noto Sans Mono', 'Liberation Mono', monospace";

/// A file of its own, with a ground, readable on light and dark pages.
pub fn file(picture: &Picture) -> String {
    let mut svg = String::new();
    open(&mut svg, picture, " xmlns=\"http://www.w3.org/2000/svg\"");
    let _ = writeln!(svg, "<title>{}</title>", escape(&picture.label));
    let _ = writeln!(svg, "<style>\n{}</style>", style());
    let (width, height) = (number(picture.width), number(picture.height));
    let _ = writeln!(svg, "<rect class=\"f-surface\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>");
    marks(&mut svg, picture);
    svg
}

/// An element for a page that has [`style`]'s rules and the colours as custom properties.
pub(crate) fn inline(picture: &Picture) -> String {
    let mut svg = String::new();
    open(&mut svg, picture, "");
    marks(&mut svg, picture);
    svg
}

/// Rules for the classes of marks in a page that sets the colours as custom properties ([`colours`]).
pub(crate) fn rules() -> String {
    inks(|ink| format!("var(--{})", ink.name())) + &letters()
}

/// The colours as custom properties.
pub(crate) fn colours(of: fn(Ink) -> [u8; 3]) -> String {
    let mut css = String::new();
    for ink in Ink::ALL {
        let _ = write!(css, " --{}: {};", ink.name(), hex(of(ink)));
    }
    css
}

/// Rules for a file of its own: plain colours, since not every viewer of SVG knows custom properties.
fn style() -> String {
    let (light, dark) = (inks(|ink| hex(ink.light())), inks(|ink| hex(ink.dark())));
    format!("{light}{}@media screen and (prefers-color-scheme: dark) {{\n{dark}}}\n", letters())
}

fn inks(value: impl Fn(Ink) -> String) -> String {
    let mut css = String::new();
    for ink in Ink::ALL {
        let (name, value) = (ink.name(), value(ink));
        let _ = writeln!(css, ".f-{name} {{ fill: {value} }} .s-{name} {{ stroke: {value} }}");
    }
    css
}

fn letters() -> String {
    format!(
        ".t {{ font-family: {FONT_TEXT}; font-variant-numeric: tabular-nums }}\n\
         .b {{ font-weight: 600 }} .m {{ font-family: {FONT_CODE} }}\n"
    )
}

fn hex([red, green, blue]: [u8; 3]) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn open(svg: &mut String, picture: &Picture, namespace: &str) {
    let (width, height) = (number(picture.width), number(picture.height));
    let _ = writeln!(
        svg,
        "<svg{namespace} width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"{}\">",
        escape(&picture.label)
    );
}

fn marks(svg: &mut String, picture: &Picture) {
    for mark in &picture.marks {
        match mark {
            Mark::Rectangle { area, radius, fill, line } => {
                let _ = writeln!(
                    svg,
                    "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"{} {}/>",
                    number(area.x),
                    number(area.y),
                    number(area.width),
                    number(area.height),
                    if *radius > 0.0 { format!(" rx=\"{}\"", number(*radius)) } else { String::new() },
                    paint(*fill, *line)
                );
            }
            Mark::Line { points, pen } => {
                let _ = writeln!(
                    svg,
                    "<polyline points=\"{}\" stroke-linejoin=\"round\" {}/>",
                    places(points),
                    paint(None, Some(*pen))
                );
            }
            Mark::Shape { points, fill } => {
                let _ =
                    writeln!(svg, "<polygon points=\"{}\" {}/>", places(points), paint(Some(*fill), None));
            }
            Mark::Dot { centre, radius, fill } => {
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" {}/>",
                    number(centre.x),
                    number(centre.y),
                    number(*radius),
                    paint(Some(*fill), None)
                );
            }
            Mark::Text { at, text, style } => {
                let face = match style.face {
                    Face::Regular => "t",
                    Face::Bold => "t b",
                    Face::Mono => "t m",
                };
                let anchor = match style.anchor {
                    Anchor::Start => "",
                    Anchor::Middle => " text-anchor=\"middle\"",
                    Anchor::End => " text-anchor=\"end\"",
                };
                let _ = writeln!(
                    svg,
                    "<text x=\"{}\" y=\"{}\" class=\"{face} f-{}\" font-size=\"{}\"{anchor}>{}</text>",
                    number(at.x),
                    number(at.y),
                    style.ink.name(),
                    number(style.size),
                    escape(text)
                );
            }
        }
    }
    svg.push_str("</svg>\n");
}

fn paint(fill: Option<Ink>, line: Option<Pen>) -> String {
    let mut classes = Vec::new();
    classes.extend(fill.map(|ink| format!("f-{}", ink.name())));
    classes.extend(line.map(|pen| format!("s-{}", pen.ink.name())));
    let mut paint = format!("class=\"{}\"", classes.join(" "));
    if fill.is_none() {
        paint.push_str(" fill=\"none\"");
    }
    if let Some(pen) = line {
        let _ = write!(paint, " stroke-width=\"{}\"", number(pen.width));
        if pen.dashed {
            paint.push_str(" stroke-dasharray=\"4 3\"");
        }
    }
    paint
}

fn places(points: &[Point]) -> String {
    let places: Vec<_> =
        points.iter().map(|point| format!("{},{}", number(point.x), number(point.y))).collect();
    places.join(" ")
}

/// A coordinate with at most two decimals.
fn number(number: f64) -> String {
    let text = format!("{number:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Text as it stands in XML and HTML, between tags and in quotes. Characters that XML can't hold are shown as `�`.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' | '\r' => escaped.push(character),
            control if control.is_control() || matches!(control, '\u{fffe}' | '\u{ffff}') => {
                escaped.push('\u{fffd}');
            }
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::{Style, at};

    #[test]
    fn text_from_outside_stays_text() {
        assert_eq!(escape("a<b> & \"c\" 'd'"), "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39;");
        assert_eq!(escape("\u{1b}[31m\0"), "\u{fffd}[31m\u{fffd}");
        let mut picture = Picture::new(10.0, "\"><script>".to_owned());
        picture.text(at(1.0, 2.0), "</text><script>", Style::new(10.0, Ink::Text));
        for svg in [file(&picture), inline(&picture)] {
            assert!(!svg.contains("<script"), "{svg}");
        }
    }

    #[test]
    fn coordinates_are_short() {
        assert_eq!(number(1.0), "1");
        assert_eq!(number(10.256), "10.26");
        assert_eq!(number(-0.001), "0");
    }
}
