//! The report as Markdown, with its pictures beside it as files. Columns are aligned in the source too.

use std::fmt::Write;

use crate::document::{Block, Cell, Document, Kind, Level, Table, Tone};

/// Writes a report as Markdown.
pub fn render(document: &Document) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "# {}\n", escape(&document.title));
    let _ = writeln!(text, "{}\n", escape(&document.subtitle));
    let _ = writeln!(
        text,
        "**{}.** {}\n",
        escape(&document.verdict.text),
        escape(&document.verdict.detail.join(" "))
    );
    for block in &document.blocks {
        if matches!(block, Block::Source { is_folded: true, .. }) {
            continue;
        }
        render_block(&mut text, block);
        text.push('\n');
    }
    let kept = text.trim_end().len();
    text.truncate(kept);
    text.push('\n');
    text
}

fn render_block(text: &mut String, block: &Block) {
    let _ = match block {
        Block::Heading { level, text: heading, anchor } => {
            let marks = match level {
                Level::Chapter => "##",
                Level::Section => "###",
            };
            writeln!(text, "<a id=\"{anchor}\"></a>\n\n{marks} {}", escape(heading))
        }
        Block::Paragraph { tone: Tone::Wrong, text: paragraph } => {
            writeln!(text, "**{}**", escape(paragraph))
        }
        Block::Paragraph { text: paragraph, .. } => writeln!(text, "{}", escape(paragraph)),
        Block::List(items) => items.iter().try_for_each(|item| writeln!(text, "- {}", escape(item))),
        Block::Facts(facts) => {
            let width = facts.iter().map(|(name, _)| width(&escape(name))).max().unwrap_or_default();
            let values: Vec<_> = facts.iter().map(|(_, value)| escape(value)).collect();
            let value_width = values.iter().map(|value| self::width(value)).max().unwrap_or_default();
            let _ =
                writeln!(text, "| {} | {} |", pad("", width, Kind::Words), pad("", value_width, Kind::Words));
            let _ = writeln!(text, "|{}|{}|", "-".repeat(width + 2), "-".repeat(value_width + 2));
            facts.iter().zip(&values).try_for_each(|((name, _), value)| {
                let (name, value) =
                    (pad(&escape(name), width, Kind::Words), pad(value, value_width, Kind::Words));
                writeln!(text, "| {name} | {value} |")
            })
        }
        Block::Table(table) => {
            render_table(text, table);
            Ok(())
        }
        Block::Finding { case, what, ids } => {
            let case = case.as_ref().map(|case| format!("[{}](#{}): ", escape(&case.text), case.anchor));
            let ids = if ids.is_empty() {
                String::new()
            } else {
                let ids: Vec<_> = ids.iter().map(|id| escape(id)).collect();
                format!(" Requests: {}", ids.join(", "))
            };
            writeln!(text, "- **{}{}.**{ids}", case.unwrap_or_default(), escape(what.trim_end_matches('.')))
        }
        Block::Picture { file, picture } => writeln!(text, "![{}]({file}.svg)", escape(&picture.label)),
        Block::Source { name, text: source, .. } => {
            let source: String = source.chars().map(|c| if is_shown(c) { c } else { '\u{fffd}' }).collect();
            let fence = "`".repeat(longest_run(&source, '`').max(2) + 1);
            writeln!(text, "### {}\n\n{fence}\n{}\n{fence}", escape(name), source.trim_end_matches('\n'))
        }
    };
}

/// Writes a table as Markdown, its columns aligned for a terminal too.
pub fn table(table: &Table) -> String {
    let mut text = String::new();
    render_table(&mut text, table);
    text
}

fn render_table(text: &mut String, table: &Table) {
    let rows: Vec<Vec<String>> = table.rows.iter().map(|row| row.iter().map(render_cell).collect()).collect();
    let heads: Vec<String> = table.columns.iter().map(|column| escape(&column.title)).collect();
    let widths: Vec<usize> = heads
        .iter()
        .enumerate()
        .map(|(index, head)| {
            let cells = rows.iter().filter_map(|row| row.get(index)).map(|cell| width(cell));
            cells.max().unwrap_or_default().max(width(head)).max(3)
        })
        .collect();
    let mut line = |cells: &[String]| {
        for ((cell, column), width) in cells.iter().zip(&table.columns).zip(&widths) {
            let _ = write!(text, "| {} ", pad(cell, *width, column.kind));
        }
        text.push_str("|\n");
    };
    line(&heads);
    let rules: Vec<String> = table
        .columns
        .iter()
        .zip(&widths)
        .map(|(column, width)| match column.kind {
            Kind::Number => format!("{}:", "-".repeat(width - 1)),
            Kind::Words | Kind::Code => "-".repeat(*width),
        })
        .collect();
    line(&rules);
    for row in &rows {
        line(row);
    }
}

fn render_cell(cell: &Cell) -> String {
    let text = escape(&cell.text);
    let text = match &cell.anchor {
        Some(anchor) => format!("[{text}](#{anchor})"),
        None => text,
    };
    if cell.tone == Tone::Wrong { format!("**{text}**") } else { text }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn pad(text: &str, width: usize, kind: Kind) -> String {
    match kind {
        Kind::Number => format!("{text:>width$}"),
        Kind::Words | Kind::Code => format!("{text:<width$}"),
    }
}

/// Text in which nothing is markup. Lines become one.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '!' => {
                // Within a word neither of these begins anything, and names read better without a backslash.
                let after = escaped.chars().next_back().is_some_and(char::is_alphanumeric);
                let before = characters.peek().is_some_and(|next| next.is_alphanumeric());
                if !(matches!(character, '_' | '#' | '!') && after && before) {
                    escaped.push('\\');
                }
                escaped.push(character);
            }
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\n' | '\r' | '\t' => escaped.push(' '),
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

fn is_shown(character: char) -> bool {
    matches!(character, '\n' | '\t') || !character.is_control()
}

fn longest_run(text: &str, of: char) -> usize {
    let mut longest = 0;
    let mut run = 0;
    for character in text.chars() {
        run = if character == of { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_not_markup() {
        assert_eq!(escape("a_b *c* <script>|x|"), "a_b \\*c\\* &lt;script&gt;\\|x\\|");
        assert_eq!(escape("one\ntwo"), "one two");
    }
}
