//! The report as one HTML file: no script, nothing fetched, light or dark as the reader has it, fit to print.

use std::fmt::Write;

use crate::{
    document::{Block, Cell, Document, Kind, Level, Link, Table, Tone},
    picture::Ink,
    svg::{self, escape},
};

/// Rules of the page; colours come from the pictures' inks.
const STYLE: &str = include_str!("report.css");

/// Writes a report as HTML.
pub fn render(document: &Document) -> String {
    let mut html = String::new();
    let title = escape(&document.title);
    let _ = write!(
        html,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n:root {{{} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{{} }} }}\n\
         {}body {{ font-family: {} }}\ncode, pre {{ font-family: {} }}\n{STYLE}</style>\n</head>\n<body>\n",
        svg::colours(Ink::light),
        svg::colours(Ink::dark),
        svg::rules(),
        svg::FONT_TEXT,
        svg::FONT_CODE,
    );
    let _ =
        write!(html, "<header>\n<h1>{title}</h1>\n<p class=\"muted\">{}</p>\n", escape(&document.subtitle));
    let verdict = &document.verdict;
    let _ = write!(
        html,
        "<div class=\"verdict {}\">\n<strong>{}</strong>\n",
        class(verdict.tone),
        escape(&verdict.text)
    );
    for line in &verdict.detail {
        let _ = writeln!(html, "<p>{}</p>", escape(line));
    }
    html.push_str("</div>\n</header>\n");
    render_contents(&mut html, document);
    html.push_str("<main>\n");
    for block in &document.blocks {
        render_block(&mut html, block);
    }
    html.push_str("</main>\n</body>\n</html>\n");
    html
}

fn render_contents(html: &mut String, document: &Document) {
    html.push_str("<nav aria-label=\"Contents\"><ul>\n");
    for block in &document.blocks {
        if let Block::Heading { level: Level::Chapter, text, anchor } = block {
            let _ = writeln!(html, "<li><a href=\"#{}\">{}</a></li>", escape(anchor), escape(text));
        }
    }
    html.push_str("</ul></nav>\n");
}

fn render_block(html: &mut String, block: &Block) {
    let _ = match block {
        Block::Heading { level, text, anchor } => {
            let tag = match level {
                Level::Chapter => "h2",
                Level::Section => "h3",
            };
            writeln!(html, "<{tag} id=\"{}\">{}</{tag}>", escape(anchor), escape(text))
        }
        Block::Paragraph { tone, text } => {
            writeln!(html, "<p class=\"{}\">{}</p>", class(*tone), escape(text))
        }
        Block::List(items) => {
            html.push_str("<ul>\n");
            for item in items {
                let _ = writeln!(html, "<li>{}</li>", escape(item));
            }
            writeln!(html, "</ul>")
        }
        Block::Facts(facts) => {
            html.push_str("<dl>\n");
            for (name, value) in facts {
                let _ = writeln!(html, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
            }
            writeln!(html, "</dl>")
        }
        Block::Table(table) => {
            render_table(html, table);
            Ok(())
        }
        Block::Finding { case, what, ids } => render_finding(html, case.as_ref(), what, ids),
        Block::Picture { picture, .. } => writeln!(html, "<figure>\n{}</figure>", svg::inline(picture)),
        Block::Source { name, text, is_folded } => writeln!(
            html,
            "<details{}><summary><code>{}</code></summary>\n<pre>{}</pre></details>",
            if *is_folded { "" } else { " open" },
            escape(name),
            escape(text)
        ),
    };
}

fn render_finding(html: &mut String, case: Option<&Link>, what: &str, ids: &[String]) -> std::fmt::Result {
    html.push_str("<div class=\"finding\">");
    if let Some(case) = case {
        let _ = write!(html, "<a href=\"#{}\">{}</a>: ", escape(&case.anchor), escape(&case.text));
    }
    let _ = write!(html, "<strong>{}</strong>", escape(what));
    if !ids.is_empty() {
        let ids: Vec<_> = ids.iter().map(|id| format!("<code>{}</code>", escape(id))).collect();
        let _ = write!(html, "\n<p class=\"ids\">Requests: {}</p>", ids.join(" "));
    }
    writeln!(html, "</div>")
}

fn render_table(html: &mut String, table: &Table) {
    html.push_str("<div class=\"wide\"><table>\n<thead><tr>");
    for column in &table.columns {
        let _ = write!(html, "<th scope=\"col\"{}>{}</th>", kind(column.kind), escape(&column.title));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        html.push_str("<tr>");
        for (cell, column) in row.iter().zip(&table.columns) {
            render_cell(html, cell, column.kind);
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table></div>\n");
}

fn render_cell(html: &mut String, cell: &Cell, column: Kind) {
    let text = escape(&cell.text);
    let text = match (&cell.anchor, column) {
        (Some(anchor), _) => format!("<a href=\"#{}\">{text}</a>", escape(anchor)),
        (None, Kind::Code) => format!("<code>{text}</code>"),
        (None, _) => text,
    };
    let _ = match cell.tone {
        Tone::Plain => write!(html, "<td{}>{text}</td>", kind(column)),
        tone => write!(html, "<td{}><span class=\"{}\">{text}</span></td>", kind(column), class(tone)),
    };
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Number => " class=\"number\"",
        Kind::Words | Kind::Code => "",
    }
}

fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Plain => "plain",
        Tone::Good => "good",
        Tone::Wrong => "wrong",
        Tone::Muted => "muted",
    }
}
