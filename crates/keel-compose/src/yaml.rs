//! YAML as a small tree in which every key and value knows its place.
//!
//! Built from saphyr-parser's events, because messages must point into the file and the ready-made trees either drop
//! the places or the tags `!reset` and `!override`. Aliases are copied, `<<` is applied here, and both are bounded: a
//! file of a kilobyte can't become a gigabyte. Scalars stay text; the reader of a field decides what it takes.

use std::{borrow::Cow, collections::HashMap, ops::Range};

use indexmap::IndexMap;
use keel_diag::{Diagnostic, SourceId, Span};
use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::indented::Indented;

/// Nodes in one file at most, copies made by aliases included.
pub(crate) const NODES_MAX: usize = 200_000;
/// How deep nodes may be nested, aliases followed.
pub(crate) const DEPTH_MAX: usize = 64;

/// Faults of one file that are said at most, each with its block left out.
const FAULTS_MAX: usize = 8;

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) tag: Tag,
    pub(crate) value: Value,
}

/// What Compose's own tags ask of a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    /// None of its own.
    Plain,
    /// `!reset`: removes what earlier files say.
    Reset,
    /// `!override`: replaces what earlier files say instead of merging.
    Override,
}

/// The three shapes of YAML.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    Mapping(Mapping),
}

/// A scalar, not typed yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Whether it was written without quotes, so that `null` and `3` mean more than their letters.
    pub(crate) plain: bool,
}

/// Keys in the file's order.
pub(crate) type Mapping = IndexMap<String, Entry>;

/// A key's place and its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: Span,
    pub(crate) value: Node,
}

impl Scalar {
    /// Whether it is null in YAML 1.2's core schema.
    pub(crate) fn is_null(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

impl Node {
    /// Makes a scalar at the place of something else.
    pub(crate) fn scalar(span: Span, text: impl Into<String>) -> Self {
        let value = Value::Scalar(Scalar { text: text.into(), plain: false });
        Self { span, tag: Tag::Plain, value }
    }

    /// Makes a null at the place of something else.
    pub(crate) fn null(span: Span) -> Self {
        let value = Value::Scalar(Scalar { text: String::new(), plain: true });
        Self { span, tag: Tag::Plain, value }
    }

    /// Makes a mapping at the place of something else.
    pub(crate) fn mapping(span: Span, entries: Mapping) -> Self {
        Self { span, tag: Tag::Plain, value: Value::Mapping(entries) }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.is_null())
    }

    pub(crate) fn as_mapping(&self) -> Option<&Mapping> {
        match &self.value {
            Value::Mapping(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value under a key of this mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.as_mapping()?.get(key).map(|entry| &entry.value)
    }

    /// Says in a user's words what it is.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar(scalar) if scalar.is_null() => "nothing",
            Value::Scalar(_) => "a single value",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }
}

/// What became of a text.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) documents: Vec<Node>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Whether the documents hold all of the text. Else what they miss may be in the rest.
    pub(crate) is_whole: bool,
}

/// Reads every document of a text. Where it isn't YAML, the block at fault is left out, so that the rest is read and
/// its mistakes are said as well.
pub(crate) fn parse(source: SourceId, text: &str) -> Parsed {
    // The scanner takes NUL for the end of the text; what follows must not vanish.
    if let Some(at) = text.find('\0') {
        let span = Span::new(source, at..at + 1);
        let diagnostic =
            Diagnostic::error("compose::yaml", "a NUL byte is not allowed in YAML").at(span, "stands here");
        return Parsed { diagnostics: vec![diagnostic], ..Parsed::default() };
    }
    let mut text = Cow::Borrowed(text);
    let mut errors: Vec<Diagnostic> = Vec::new();
    let mut left_out = 0..0;
    let mut failed_at = None;
    for round in 0..=FAULTS_MAX {
        let (mut parsed, failed) = attempt(source, &text);
        let Some(failed) = failed else {
            parsed.is_whole = errors.is_empty();
            parsed.diagnostics.splice(0..0, errors);
            return parsed;
        };
        let block = faulty_block(&text, &failed).filter(|_| round < FAULTS_MAX);
        // What stands where something was left out, and names without the block that they are of, are consequences.
        let is_consequence = !errors.is_empty()
            && (block.is_none()
                || failed_at == Some(failed.at)
                || failed.at <= left_out.end
                || failed.reason.contains("anchor"));
        if !is_consequence {
            errors.push(failed.diagnostic);
        }
        let Some(block) = block else {
            parsed.diagnostics.splice(0..0, errors);
            return parsed;
        };
        text = Cow::Owned(without_block(&text, &block));
        (left_out, failed_at) = (block, Some(failed.at));
    }
    Parsed { diagnostics: errors, ..Parsed::default() }
}

/// Why a text isn't YAML.
struct Failed {
    diagnostic: Diagnostic,
    reason: String,
    at: usize,
    /// What was being read.
    inside: Option<Inside>,
}

/// A mapping that was being read.
struct Inside {
    level: Level,
    /// Where it begins.
    mapping: usize,
    /// The key in whose value a bracket is still open.
    key: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// The whole document, of whose keys each is a section.
    Top,
    /// A section.
    Section,
}

fn attempt(source: SourceId, text: &str) -> (Parsed, Option<Failed>) {
    let mut indented = Indented::new(text);
    loop {
        let mut builder = Builder::new(source, &indented);
        let failure = builder.run();
        let failed = failure.map(|failure| Failed {
            diagnostic: builder.scan_error(&failure),
            reason: failure.info().to_owned(),
            at: builder.offset(failure.marker().index()),
            inside: builder.inside(),
        });
        let (documents, diagnostics) = (builder.documents, builder.diagnostics);
        match failed {
            Some(failed) if indented.mend(&failed.reason, failed.at) => {}
            failed => return (Parsed { documents, diagnostics, is_whole: false }, failed),
        }
    }
}

/// Finds the lines of the section, or of what is in it, where the fault lies: a service, mostly.
fn faulty_block(text: &str, failed: &Failed) -> Option<Range<usize>> {
    let inside = failed.inside.as_ref()?;
    let column = inside.mapping - line_of(text, inside.mapping);
    let found = match inside.key {
        Some(key) => Some(line_of(text, key)),
        None => line_above(text, failed.at, column),
    };
    let start = match found {
        Some(start) if inside.level == Level::Section => start,
        // A mapping with an anchor begins there, and no line is indented so far.
        found => innermost(text, found.or_else(|| line_above(text, failed.at, 0))?, failed.at),
    };
    let mut lines = lines_from(text, start);
    let (_, first) = lines.next()?;
    let width = indentation(first);
    let rest = lines.take_while(|(_, line)| !is_content(line) || indentation(line) > width);
    let end = rest.last().map_or(start + first.len(), |(at, line)| at + line.len());
    is_content(first).then_some(start..end)
}

/// Finds what of a section is at fault, by how far the section's first line is indented; the section where none is.
fn innermost(text: &str, section: usize, at: usize) -> usize {
    let below = lines_from(text, section).skip(1).find(|(_, line)| is_content(line));
    let width = below.map(|(_, line)| indentation(line)).filter(|width| *width > 0);
    let inner = width.and_then(|width| line_above(text, at, width));
    inner.filter(|inner| *inner > section).unwrap_or(section)
}

/// The start of the line of a place.
fn line_of(text: &str, at: usize) -> usize {
    at - text.get(..at).map_or(0, |before| line_before(before, at).len())
}

fn lines_from(text: &str, start: usize) -> impl Iterator<Item = (usize, &str)> {
    let mut at = start;
    text.get(start..).unwrap_or_default().split_inclusive('\n').map(move |line| {
        at += line.len();
        (at - line.len(), line)
    })
}

/// Finds the nearest line, this one or above, that is indented so far.
fn line_above(text: &str, at: usize, width: usize) -> Option<usize> {
    let mut at = line_of(text, at);
    loop {
        let (_, line) = lines_from(text, at).next().unwrap_or((at, ""));
        if is_content(line) && indentation(line) == width {
            return Some(at);
        }
        at = line_of(text, at.checked_sub(1)?);
    }
}

/// Tells how far a line is indented: with a tab, deeper than any other.
fn indentation(line: &str) -> usize {
    let content = line.trim_start_matches(' ');
    if content.starts_with('\t') { usize::MAX } else { line.len() - content.len() }
}

fn is_content(line: &str) -> bool {
    !line.trim().is_empty() && !line.trim_start().starts_with('#')
}

/// Puts spaces in the place of a block, so that all places stay.
fn without_block(text: &str, block: &Range<usize>) -> String {
    let mut result = String::with_capacity(text.len());
    result.push_str(text.get(..block.start).unwrap_or_default());
    let cut = text.get(block.clone()).unwrap_or_default();
    result.extend(cut.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
    result.push_str(text.get(block.end..).unwrap_or_default());
    result
}

/// A node whose end has not come yet.
struct OpenNode {
    start: Span,
    anchor: usize,
    tag: Tag,
    nodes_before: usize,
    height: usize,
    open: Open,
}

enum Open {
    Sequence(Vec<Node>),
    Mapping { entries: Mapping, key: Option<Key>, merges: Vec<Node> },
}

struct Key {
    text: String,
    span: Span,
    merge: bool,
}

/// What an alias stands for.
struct Anchored {
    node: Node,
    nodes: usize,
    height: usize,
}

struct Builder<'a> {
    source: SourceId,
    text: &'a str,
    scanned: &'a Indented<'a>,
    /// The byte offset of each character in what is scanned; empty where both are the same.
    offsets: Vec<usize>,
    stack: Vec<OpenNode>,
    anchors: HashMap<usize, Anchored>,
    nodes: usize,
    documents: Vec<Node>,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Builder<'a> {
    fn new(source: SourceId, scanned: &'a Indented<'a>) -> Self {
        let characters = &scanned.scanned;
        let offsets = if characters.is_ascii() {
            Vec::new()
        } else {
            characters.char_indices().map(|(at, _)| at).collect()
        };
        Self {
            source,
            text: scanned.text,
            scanned,
            offsets,
            stack: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            documents: Vec::new(),
            diagnostics: Vec::new(),
        }
    }

    /// Takes all events; gives what the scanner doesn't understand.
    fn run(&mut self) -> Option<saphyr_parser::ScanError> {
        let scanned = self.scanned;
        let mut parser = Parser::new_from_str(&scanned.scanned);
        while let Some(event) = parser.next_event() {
            let outcome = match event {
                Ok((event, span)) => self.event(event, span),
                Err(error) => return Some(error),
            };
            if let Err(diagnostic) = outcome {
                self.diagnostics.push(diagnostic);
                break;
            }
        }
        None
    }

    fn event(&mut self, event: Event<'_>, span: saphyr_parser::Span) -> Result<(), Diagnostic> {
        let span = self.span(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag = self.tag(tag.as_deref(), span);
                let plain = style == ScalarStyle::Plain && !tag.1;
                let span = self.scalar_span(span, &text, style);
                let value = Value::Scalar(Scalar { text: text.into_owned(), plain });
                self.count(1, span)?;
                self.close(Node { span, tag: tag.0, value }, anchor, 1, 1)
            }
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::SequenceStart(anchor, tag) => {
                let tag = self.tag(tag.as_deref(), span).0;
                self.open(span, anchor, tag, Open::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                let tag = self.tag(tag.as_deref(), span).0;
                let open = Open::Mapping { entries: Mapping::new(), key: None, merges: Vec::new() };
                self.open(span, anchor, tag, open)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(&mut self, start: Span, anchor: usize, tag: Tag, open: Open) -> Result<(), Diagnostic> {
        if self.stack.len() >= DEPTH_MAX {
            return Err(too_deep(start));
        }
        let nodes_before = self.nodes;
        self.count(1, start)?;
        self.stack.push(OpenNode { start, anchor, tag, nodes_before, height: 0, open });
        Ok(())
    }

    fn end(&mut self, end: Span) -> Result<(), Diagnostic> {
        let Some(opened) = self.stack.pop() else { return Ok(()) };
        let span = self.trimmed(opened.start.to(end));
        let value = match opened.open {
            Open::Sequence(items) => Value::Sequence(items),
            Open::Mapping { entries, merges, .. } => Value::Mapping(self.merged(entries, merges)),
        };
        let node = Node { span, tag: opened.tag, value };
        self.close(node, opened.anchor, self.nodes - opened.nodes_before, opened.height + 1)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Diagnostic> {
        let Some(anchored) = self.anchors.get(&anchor) else {
            return Err(Diagnostic::error("compose::yaml", "an alias stands inside what it refers to")
                .at(span, "would never end"));
        };
        let (nodes, height) = (anchored.nodes, anchored.height);
        if self.stack.len() + height > DEPTH_MAX {
            return Err(too_deep(span));
        }
        self.count(nodes, span)?;
        let node = self.anchors.get(&anchor).map(|anchored| anchored.node.clone());
        node.map_or(Ok(()), |node| self.close(node, 0, nodes, height))
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Diagnostic> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= NODES_MAX {
            return Ok(());
        }
        let message = format!("the file holds more than {NODES_MAX} values, aliases followed");
        Err(Diagnostic::error("compose::yaml-too-large", message).at(span, "the limit is passed here"))
    }

    /// Takes a finished node: into its parent, or as a document.
    fn close(&mut self, node: Node, anchor: usize, nodes: usize, height: usize) -> Result<(), Diagnostic> {
        if anchor != 0 {
            self.anchors.insert(anchor, Anchored { node: node.clone(), nodes, height });
            // The copy kept for aliases takes memory too.
            self.count(nodes, node.span)?;
        }
        let Some(opened) = self.stack.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        opened.height = opened.height.max(height);
        match &mut opened.open {
            Open::Sequence(items) => items.push(node),
            Open::Mapping { entries, key, merges } => match key.take() {
                None => match node.value {
                    Value::Scalar(scalar) => {
                        let merge = scalar.plain && scalar.text == "<<";
                        *key = Some(Key { text: scalar.text, span: node.span, merge });
                    }
                    _ => {
                        let message = format!("a key can't be {}", node.kind());
                        return Err(
                            Diagnostic::error("compose::yaml", message).at(node.span, "expected a name")
                        );
                    }
                },
                Some(Key { merge: true, .. }) => merges.push(node),
                Some(Key { text, span, .. }) => insert(entries, text, span, node, &mut self.diagnostics),
            },
        }
        Ok(())
    }

    /// Applies `<<` (<https://yaml.org/type/merge.html>): the mapping's own keys win, then the first that is merged.
    fn merged(&mut self, mut entries: Mapping, merges: Vec<Node>) -> Mapping {
        let flat = merges.into_iter().flat_map(|node| match node.value {
            Value::Sequence(items) => items,
            _ => vec![node],
        });
        for node in flat {
            match node.value {
                Value::Mapping(more) => {
                    for (key, entry) in more {
                        entries.entry(key).or_insert(entry);
                    }
                }
                Value::Scalar(ref scalar) if scalar.is_null() => {}
                _ => self.diagnostics.push(
                    Diagnostic::error("compose::yaml", "`<<` merges mappings only")
                        .at(node.span, format!("is {}", node.kind())),
                ),
            }
        }
        entries
    }

    /// What a tag asks for, and whether it makes text of the scalar.
    fn tag(&mut self, tag: Option<&saphyr_parser::Tag>, span: Span) -> (Tag, bool) {
        let Some(tag) = tag else { return (Tag::Plain, false) };
        if tag.is_yaml_core_schema() {
            return (Tag::Plain, tag.suffix == "str");
        }
        match (tag.handle.as_str(), tag.suffix.as_str()) {
            ("!", "reset") => (Tag::Reset, false),
            ("!", "override") => (Tag::Override, false),
            ("!" | "", "" | "!") => (Tag::Plain, true),
            _ => {
                self.diagnostics.push(
                    Diagnostic::warning(
                        "compose::unknown-tag",
                        format!("the tag `{tag}` means nothing here"),
                    )
                    .at(span, "read as if it were not there")
                    .help("Compose knows `!reset` and `!override`"),
                );
                (Tag::Plain, false)
            }
        }
    }

    fn scan_error(&self, error: &saphyr_parser::ScanError) -> Diagnostic {
        let at = self.offset(error.marker().index());
        let end = self.text[at..].chars().next().map_or(at, |c| at + c.len_utf8());
        let message = format!("this is not YAML: {}", error.info());
        let mut diagnostic = Diagnostic::error("compose::yaml", message)
            .at(Span::new(self.source, at..end), "not understood here");
        let is_tab = self.text[at..].starts_with('\t') || line_before(self.text, at).contains('\t');
        if is_tab || error.info().contains("a tab") {
            diagnostic = diagnostic.help("YAML is indented with spaces, never with tabs");
        }
        diagnostic
    }

    /// Says what was being read at the end, two levels deep at most.
    fn inside(&self) -> Option<Inside> {
        let section = self.stack.get(1).filter(|opened| matches!(opened.open, Open::Mapping { .. }));
        let level = if section.is_some() { Level::Section } else { Level::Top };
        let opened = section.or_else(|| self.stack.first())?;
        let Open::Mapping { key, .. } = &opened.open else { return None };
        // The scanner looks ahead, so its key may be over already, unless a bracket is open below it.
        let is_open = self.stack.last().is_some_and(|innermost| {
            self.text.get(innermost.start.start as usize..).is_some_and(|rest| rest.starts_with(['[', '{']))
        });
        let key = key.as_ref().filter(|_| is_open).map(|key| key.span.start as usize);
        Some(Inside { level, mapping: opened.start.start as usize, key })
    }

    /// The byte offset of a character.
    fn offset(&self, index: usize) -> usize {
        let at = if self.offsets.is_empty() {
            index
        } else {
            self.offsets.get(index).copied().unwrap_or(usize::MAX)
        };
        self.scanned.in_text(at)
    }

    fn span(&self, span: saphyr_parser::Span) -> Span {
        let (start, end) = (self.offset(span.start.index()), self.offset(span.end.index()));
        Span::new(self.source, start..end.max(start))
    }

    /// Ends a scalar's span where its text ends: the scanner's end lies on what follows.
    fn scalar_span(&self, span: Span, text: &str, style: ScalarStyle) -> Span {
        let span = self.trimmed(span);
        let start = span.start as usize;
        let exact = style == ScalarStyle::Plain
            && !text.is_empty()
            && self.text.get(start..).is_some_and(|rest| rest.starts_with(text));
        if exact { Span::new(self.source, start..start + text.len()) } else { span }
    }

    fn trimmed(&self, span: Span) -> Span {
        let (start, end) = (span.start as usize, span.end as usize);
        let length = self.text.get(start..end).map_or(end - start, |slice| slice.trim_end().len());
        Span::new(self.source, start..start + length)
    }
}

fn insert(entries: &mut Mapping, key: String, span: Span, value: Node, diagnostics: &mut Vec<Diagnostic>) {
    if let Some(first) = entries.get(&key) {
        diagnostics.push(
            Diagnostic::error("compose::duplicate-key", format!("`{key}` is there twice"))
                .at(span, "given again")
                .at(first.key, "given first"),
        );
        return;
    }
    entries.insert(key, Entry { key: span, value });
}

fn line_before(text: &str, at: usize) -> &str {
    let before = &text[..at];
    &before[before.rfind('\n').map_or(0, |newline| newline + 1)..]
}

fn too_deep(span: Span) -> Diagnostic {
    let message = format!("values are nested more than {DEPTH_MAX} deep");
    Diagnostic::error("compose::yaml-too-large", message).at(span, "the limit is passed here")
}
