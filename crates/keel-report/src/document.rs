//! What a report says, before it is Markdown, HTML or PDF: one text, three forms.

use crate::picture::Picture;

/// A report.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its name.
    pub title: String,
    /// Where, when and with what.
    pub subtitle: String,
    /// The answer.
    pub verdict: Headline,
    /// Everything else, from top to bottom.
    pub blocks: Vec<Block>,
}

/// The answer, before anything else.
#[derive(Clone, Debug, PartialEq)]
pub struct Headline {
    /// Whether it is good news.
    pub tone: Tone,
    /// In a few words.
    pub text: String,
    /// Sentences below it.
    pub detail: Vec<String>,
}

/// How something is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Neither good nor bad.
    Plain,
    /// What was hoped for.
    Good,
    /// What must not be.
    Wrong,
    /// Matters less.
    Muted,
}

/// A part of a report.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// A heading.
    Heading {
        /// Its rank.
        level: Level,
        /// Its words.
        text: String,
        /// What links name.
        anchor: String,
    },
    /// A paragraph.
    Paragraph {
        /// How it is meant.
        tone: Tone,
        /// Its words.
        text: String,
    },
    /// Items with a bullet each.
    List(Vec<String>),
    /// Names and what they stand for.
    Facts(Vec<(String, String)>),
    /// A table.
    Table(Table),
    /// Something that must not be.
    Finding {
        /// The chapter that it belongs to.
        case: Option<Link>,
        /// One sentence.
        what: String,
        /// Names of the requests that it concerns.
        ids: Vec<String>,
    },
    /// A drawing.
    Picture {
        /// The name of its files, without an ending.
        file: String,
        /// The drawing.
        picture: Picture,
    },
    /// A file, as it is. One that is folded is on the page alone, to be opened there.
    Source {
        /// Its name.
        name: String,
        /// All of it.
        text: String,
        /// Whether it is folded.
        is_folded: bool,
    },
}

/// A heading's rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A part of the report.
    Chapter,
    /// A part of a chapter.
    Section,
}

/// A name and the anchor of the heading that it leads to.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// The name.
    pub text: String,
    /// The anchor.
    pub anchor: String,
}

/// A table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Its columns, from the left.
    pub columns: Vec<Column>,
    /// Its rows; a cell for each column.
    pub rows: Vec<Vec<Cell>>,
}

/// A column's head.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its words.
    pub title: String,
    /// What stands below.
    pub kind: Kind,
}

/// What a column holds: numbers stand to the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Words.
    Words,
    /// Numbers.
    Number,
    /// Addresses and names of files.
    Code,
}

/// A cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Its words.
    pub text: String,
    /// How it is meant.
    pub tone: Tone,
    /// The heading that it leads to.
    pub anchor: Option<String>,
}

impl Table {
    /// A table without rows.
    pub fn new<const N: usize>(columns: [(&str, Kind); N]) -> Self {
        let columns = columns.map(|(title, kind)| Column { title: title.to_owned(), kind });
        Table { columns: columns.into(), rows: Vec::new() }
    }
}

impl Cell {
    /// A cell that is meant so.
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Cell { text: text.into(), tone, anchor: None }
    }

    /// A cell that leads to a heading.
    pub fn link(text: impl Into<String>, anchor: impl Into<String>) -> Self {
        Cell { text: text.into(), tone: Tone::Plain, anchor: Some(anchor.into()) }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Cell::toned(text, Tone::Plain)
    }
}

impl Document {
    /// Adds a heading.
    pub fn heading(&mut self, level: Level, text: &str, anchor: &str) {
        self.blocks.push(Block::Heading { level, text: text.to_owned(), anchor: anchor.to_owned() });
    }

    /// Adds a paragraph.
    pub fn paragraph(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Paragraph { tone: Tone::Plain, text: text.into() });
    }
}
