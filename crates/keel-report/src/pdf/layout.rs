//! Blocks of a report on pages, from top to bottom.

use super::{
    canvas::{Canvas, Letters, PAGE_HEIGHT, PAGE_WIDTH},
    table,
};
use crate::{
    document::{Block, Document, Headline, Level, Link, Tone},
    font::Face,
    picture::{Anchor, Area, Ink, Pen, Picture, Style, at},
};

pub(super) const MARGIN: f64 = 52.0;
pub(super) const WIDTH: f64 = PAGE_WIDTH - 2.0 * MARGIN;
const TOP: f64 = 50.0;
const BOTTOM: f64 = PAGE_HEIGHT - 58.0;
const TEXT: f64 = 9.5;
const LEADING: f64 = 13.8;
const SOURCE: f64 = 7.6;
const SOURCE_LEADING: f64 = 10.4;
/// A heading is not left alone at the foot of a page.
const HEADING_KEEPS: f64 = 84.0;
/// How much of the page's width a picture takes: less than all, so that a case fits a page more often.
const PICTURE: f64 = 0.88;
/// What is no higher than this isn't torn apart.
pub(super) const KEPT_MAX: f64 = 200.0;
/// More of a file than this is left to `results.json`.
const SOURCE_LINES_MAX: usize = 500;

/// A page.
pub(super) struct Page {
    pub(super) canvas: Canvas,
    pub(super) links: Vec<PageLink>,
}

/// An area of a page that leads elsewhere.
pub(super) struct PageLink {
    pub(super) area: Area,
    pub(super) anchor: String,
}

/// A heading, for the outline.
pub(super) struct Entry {
    pub(super) level: Level,
    pub(super) text: String,
    pub(super) anchor: String,
    pub(super) page: usize,
    pub(super) y: f64,
}

/// A whole report on pages.
pub(super) struct Pages {
    pub(super) pages: Vec<Page>,
    pub(super) entries: Vec<Entry>,
    pub(super) letters: Letters,
}

/// Where the next block goes.
pub(super) struct Layout {
    done: Vec<Page>,
    pub(super) page: Page,
    entries: Vec<Entry>,
    pub(super) letters: Letters,
    pub(super) y: f64,
}

/// Puts a report on pages.
pub(super) fn lay_out(document: &Document) -> Pages {
    let mut layout = Layout {
        done: Vec::new(),
        page: Page { canvas: Canvas::new(), links: Vec::new() },
        entries: Vec::new(),
        letters: Letters::default(),
        y: TOP,
    };
    layout.title(document);
    for block in &document.blocks {
        layout.block(block);
    }
    layout.done.push(layout.page);
    let total = layout.done.len();
    for (index, page) in layout.done.iter_mut().enumerate() {
        let foot = Style::new(8.0, Ink::Muted);
        let y = PAGE_HEIGHT - 32.0;
        let title = format!("{} · {}", document.title, document.subtitle);
        let title = Face::Regular.fit(&title, 8.0, WIDTH - 80.0);
        page.canvas.text(&mut layout.letters, at(MARGIN, y), &title, foot);
        let number = format!("page {} of {total}", index + 1);
        page.canvas.text(
            &mut layout.letters,
            at(PAGE_WIDTH - MARGIN, y),
            &number,
            foot.anchored(Anchor::End),
        );
    }
    Pages { pages: layout.done, entries: layout.entries, letters: layout.letters }
}

/// The ink of a tone.
pub(super) fn ink(tone: Tone) -> Ink {
    match tone {
        Tone::Plain => Ink::Text,
        Tone::Good => Ink::Good,
        Tone::Wrong => Ink::Wrong,
        Tone::Muted => Ink::Muted,
    }
}

/// The style of running text in a tone.
pub(super) fn style(tone: Tone, size: f64) -> Style {
    let style = Style::new(size, ink(tone));
    if matches!(tone, Tone::Good | Tone::Wrong) { style.bold() } else { style }
}

impl Layout {
    /// Begins a new page unless so much room is left.
    pub(super) fn room(&mut self, height: f64) {
        if self.y + height > BOTTOM && self.y > TOP {
            let page = std::mem::replace(&mut self.page, Page { canvas: Canvas::new(), links: Vec::new() });
            self.done.push(page);
            self.y = TOP;
        }
    }

    pub(super) fn text(&mut self, x: f64, y: f64, text: &str, style: Style) {
        self.page.canvas.text(&mut self.letters, at(x, y), text, style);
    }

    fn title(&mut self, document: &Document) {
        self.y += 20.0;
        for line in Face::Bold.wrap(&document.title, 22.0, WIDTH) {
            self.text(MARGIN, self.y, &line, Style::new(22.0, Ink::Text).bold());
            self.y += 26.0;
        }
        self.y -= 8.0;
        for line in Face::Regular.wrap(&document.subtitle, TEXT, WIDTH) {
            self.text(MARGIN, self.y, &line, Style::new(TEXT, Ink::Muted));
            self.y += LEADING;
        }
        self.verdict(&document.verdict);
    }

    fn verdict(&mut self, verdict: &Headline) {
        let inner = WIDTH - 28.0;
        let lines: Vec<String> =
            verdict.detail.iter().flat_map(|text| Face::Regular.wrap(text, TEXT, inner)).collect();
        let height = 34.0 + lines.len() as f64 * LEADING;
        self.bar(height, ink(verdict.tone));
        let mut y = self.y + 21.0;
        self.text(MARGIN + 16.0, y, &verdict.text, Style::new(14.0, ink(verdict.tone)).bold());
        for line in lines {
            y += LEADING + 1.0;
            self.text(MARGIN + 16.0, y, &line, Style::new(TEXT, Ink::Text));
        }
        self.y += height + 10.0;
    }

    /// A panel with a coloured bar at its left.
    fn bar(&mut self, height: f64, ink: Ink) {
        let area = Area { x: MARGIN, y: self.y, width: WIDTH, height };
        self.page.canvas.rectangle(area, 3.0, Some(Ink::Panel), None);
        self.page.canvas.rectangle(Area { width: 3.5, ..area }, 0.0, Some(ink), None);
    }

    fn block(&mut self, block: &Block) {
        match block {
            Block::Heading { level, text, anchor } => self.heading(*level, text, anchor),
            Block::Paragraph { tone, text } => self.paragraph(*tone, text),
            Block::List(items) => self.list(items),
            Block::Facts(facts) => self.facts(facts),
            Block::Table(table) => table::draw(self, table),
            Block::Finding { case, what, ids } => self.finding(case.as_ref(), what, ids),
            Block::Picture { picture, .. } => self.picture(picture),
            Block::Source { is_folded: true, .. } => {}
            Block::Source { name, text, .. } => self.source(name, text),
        }
    }

    fn heading(&mut self, level: Level, text: &str, anchor: &str) {
        let (size, before, after) = match level {
            Level::Chapter => (15.0, 22.0, 12.0),
            Level::Section => (11.5, 16.0, 6.0),
        };
        self.room(before + size + HEADING_KEEPS);
        if self.y > TOP {
            self.y += before;
        }
        let page = self.done.len();
        self.entries.push(Entry {
            level,
            text: text.to_owned(),
            anchor: anchor.to_owned(),
            page,
            y: self.y - 8.0,
        });
        self.y += size * 0.9;
        let text = Face::Bold.fit(text, size, WIDTH);
        self.text(MARGIN, self.y, &text, Style::new(size, Ink::Text).bold());
        if level == Level::Chapter {
            let y = self.y + 6.5;
            self.page.canvas.line(at(MARGIN, y), at(MARGIN + WIDTH, y), Pen::new(Ink::Grid, 0.8));
            self.y += 4.0;
        }
        self.y += after;
    }

    fn paragraph(&mut self, tone: Tone, text: &str) {
        let size = if tone == Tone::Muted { TEXT - 1.0 } else { TEXT };
        let style = style(tone, size);
        for line in style.face.wrap(text, size, WIDTH) {
            self.line(MARGIN, &line, style);
        }
        self.y += 5.0;
    }

    fn line(&mut self, x: f64, line: &str, style: Style) {
        self.room(LEADING);
        self.y += LEADING;
        self.text(x, self.y - 3.0, line, style);
    }

    fn list(&mut self, items: &[String]) {
        for item in items {
            for (index, line) in Face::Regular.wrap(item, TEXT, WIDTH - 12.0).iter().enumerate() {
                self.line(MARGIN + 12.0, line, Style::new(TEXT, Ink::Text));
                if index == 0 {
                    self.text(MARGIN + 1.0, self.y - 3.0, "•", Style::new(TEXT, Ink::Muted));
                }
            }
            self.y += 2.0;
        }
        self.y += 4.0;
    }

    fn facts(&mut self, facts: &[(String, String)]) {
        let size = 9.0;
        let names = facts.iter().map(|(name, _)| Face::Regular.width(name, size));
        let left = names.fold(0.0, f64::max).min(WIDTH / 3.0) + 14.0;
        self.y += 2.0;
        let facts: Vec<_> =
            facts.iter().map(|(name, value)| (name, Face::Regular.wrap(value, size, WIDTH - left))).collect();
        let lines: usize = facts.iter().map(|(_, lines)| lines.len()).sum();
        self.room((lines as f64 * LEADING).min(KEPT_MAX));
        for (name, lines) in &facts {
            for (index, line) in lines.iter().enumerate() {
                self.line(MARGIN + left, line, Style::new(size, Ink::Text));
                if index == 0 {
                    let name = Face::Regular.fit(name, size, left - 8.0);
                    self.text(MARGIN, self.y - 3.0, &name, Style::new(size, Ink::Muted));
                }
            }
        }
        self.y += 8.0;
    }

    fn finding(&mut self, case: Option<&Link>, what: &str, ids: &[String]) {
        let inner = WIDTH - 28.0;
        let case = case.map(|case| format!("{}: ", case.text)).unwrap_or_default();
        let title = Face::Bold.wrap(&format!("{case}{what}"), TEXT, inner);
        let ids = if ids.is_empty() { Vec::new() } else { Face::Mono.wrap(&ids.join("  "), 7.8, inner) };
        let height = 12.0 + title.len() as f64 * LEADING + ids.len() as f64 * 10.5;
        self.room(height + 6.0);
        self.bar(height, Ink::Wrong);
        let mut y = self.y + 3.0;
        for line in title {
            y += LEADING;
            self.text(MARGIN + 16.0, y, &line, Style::new(TEXT, Ink::Wrong).bold());
        }
        y += 3.0;
        for line in ids {
            y += 10.5;
            self.text(MARGIN + 16.0, y, &line, Style::new(7.8, Ink::Text).mono());
        }
        self.y += height + 6.0;
    }

    fn picture(&mut self, picture: &Picture) {
        let room = BOTTOM - TOP - 12.0;
        let scale = (PICTURE * WIDTH / picture.width).min(room / picture.height);
        let (width, height) = (picture.width * scale, picture.height * scale);
        self.room(height + 12.0);
        self.y += 4.0;
        let left = MARGIN;
        let frame = Area { x: left, y: self.y, width, height };
        self.page.canvas.rectangle(frame, 4.0, None, Some(Pen::new(Ink::Grid, 0.8)));
        self.page.canvas.picture(&mut self.letters, picture, at(left, self.y), scale);
        self.y += height + 10.0;
    }

    fn source(&mut self, name: &str, text: &str) {
        self.room(LEADING * 5.0);
        self.line(MARGIN, name, Style::new(TEXT, Ink::Text).bold());
        self.y += 4.0;
        let mut left = text.lines().count();
        for line in text.lines().take(SOURCE_LINES_MAX) {
            left -= 1;
            for part in pieces(line) {
                self.room(SOURCE_LEADING);
                let area = Area { x: MARGIN, y: self.y, width: WIDTH, height: SOURCE_LEADING + 0.2 };
                self.page.canvas.rectangle(area, 0.0, Some(Ink::Panel), None);
                self.y += SOURCE_LEADING;
                self.text(MARGIN + 8.0, self.y - 2.8, &part, Style::new(SOURCE, Ink::Text).mono());
            }
        }
        if left > 0 {
            self.line(
                MARGIN,
                &format!("… {left} more lines are in results.json"),
                Style::new(TEXT, Ink::Muted),
            );
        }
        self.y += 10.0;
    }
}

/// A line of code in pieces that fit; a tab is four spaces.
fn pieces(line: &str) -> Vec<String> {
    let room = ((WIDTH - 16.0) / Face::Mono.width("m", SOURCE)).floor() as usize;
    let line: Vec<char> = line.replace('\t', "    ").chars().collect();
    if line.is_empty() {
        return vec![String::new()];
    }
    line.chunks(room.max(1)).map(|piece| piece.iter().collect()).collect()
}
