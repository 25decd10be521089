//! Reports: one document and its pictures as Markdown, HTML, PDF, SVG and PNG.
//!
//! A text is written once, as a [`document::Document`], and set in Markdown, HTML and PDF; a drawing is made once, as a
//! [`picture::Picture`], and drawn alike into SVG, PNG and PDF. Neither needs a network, a clock or the system's fonts:
//! the same document gives the same bytes on every machine. Names and texts may come from a user's files, so each form
//! escapes them. What a report says is not here: the drill and the comparison write their own documents.

#![forbid(unsafe_code)]

pub mod axis;
pub mod bars;
pub mod document;
mod folder;
pub mod font;
mod html;
pub mod machine;
mod markdown;
mod pdf;
pub mod picture;
mod png;
mod svg;
pub mod words;

pub use folder::{Error, Folder};
pub use html::render as html;
pub use markdown::{render as markdown, table as markdown_table};
pub use pdf::render as pdf;
pub use png::{Error as PngError, file as png};
pub use svg::file as svg;
