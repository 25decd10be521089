//! What a report says, before it is Markdown, HTML or PDF: one text, three forms.

use super::picture::Picture;

/// A report.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Document {
    pub(super) title: String,
    /// Where, when and with what.
    pub(super) subtitle: String,
    pub(super) verdict: Headline,
    pub(super) blocks: Vec<Block>,
}

/// The answer, before anything else.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Headline {
    pub(super) tone: Tone,
    pub(super) text: String,
    pub(super) detail: Vec<String>,
}

/// How something is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Wrong,
    /// Matters less.
    Muted,
}

/// A part of a report.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Block {
    Heading {
        level: Level,
        text: String,
        anchor: String,
    },
    Paragraph {
        tone: Tone,
        text: String,
    },
    List(Vec<String>),
    /// Names and what they stand for.
    Facts(Vec<(String, String)>),
    Table(Table),
    Finding {
        case: Option<Link>,
        what: String,
        ids: Vec<String>,
    },
    Picture {
        file: String,
        picture: Picture,
    },
    /// A file, as it is. One that is folded is on the page alone, to be opened there.
    Source {
        name: String,
        text: String,
        is_folded: bool,
    },
}

/// A heading's rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Chapter,
    Section,
}

/// A name and the anchor of the heading that it leads to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Link {
    pub(super) text: String,
    pub(super) anchor: String,
}

/// A table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Cell>>,
}

/// A column's head.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Column {
    pub(super) title: String,
    pub(super) kind: Kind,
}

/// What a column holds: numbers stand to the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Words,
    Number,
    Code,
}

/// A cell.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) tone: Tone,
    /// The heading that it leads to.
    pub(super) anchor: Option<String>,
}

impl Table {
    pub(super) fn new<const N: usize>(columns: [(&str, Kind); N]) -> Self {
        let columns = columns.map(|(title, kind)| Column { title: title.to_owned(), kind });
        Table { columns: columns.into(), rows: Vec::new() }
    }
}

impl Cell {
    pub(super) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Cell { text: text.into(), tone, anchor: None }
    }

    pub(super) fn link(text: impl Into<String>, anchor: impl Into<String>) -> Self {
        Cell { text: text.into(), tone: Tone::Plain, anchor: Some(anchor.into()) }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Cell::toned(text, Tone::Plain)
    }
}

impl Document {
    pub(super) fn heading(&mut self, level: Level, text: &str, anchor: &str) {
        self.blocks.push(Block::Heading { level, text: text.to_owned(), anchor: anchor.to_owned() });
    }

    pub(super) fn paragraph(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Paragraph { tone: Tone::Plain, text: text.into() });
    }
}
