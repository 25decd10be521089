//! Diagnostics as text: for people, in nginx's own words, or as JSON.
//!
//! Always all of them, sorted by file and place. What comes from outside — a file's text, a path, a message that quotes
//! either — is escaped before it reaches a terminal: control characters never get there.

use std::{borrow::Cow, collections::HashSet, fmt::Write};

use annotate_snippets::{AnnotationKind, Element, Group, Level, Renderer, Snippet};
use serde::Serialize;

use crate::{COMMAND_LINE, Diagnostic, Label, Severity, SourceId, Sources};

/// In which form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// With the lines of the file, labels and help.
    #[default]
    Human,
    /// nginx's own text, a line each: `nginx: [emerg] unknown directive "foo" in /etc/nginx/nginx.conf:3`.
    Short,
    /// An object on a line each: `severity`, `code`, `message`, `file`, `line`, `column`, `labels`, `help`.
    Json,
}

/// Whether with colours. The caller knows the terminal and `NO_COLOR`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Color {
    /// Plain text.
    #[default]
    None,
    /// ANSI escape sequences.
    Ansi,
}

/// Renders diagnostics, each ending in a line feed; nothing for none. People read a remedy once for each code, at the
/// first place.
pub fn render(diagnostics: &[Diagnostic], sources: &Sources, format: Format, color: Color) -> String {
    let mut sorted: Vec<&Diagnostic> = diagnostics.iter().collect();
    sorted.sort_by_key(|diagnostic| (diagnostic.span(), diagnostic.severity));
    let one: fn(&Diagnostic, &Sources, Color) -> String = match format {
        Format::Human => human,
        Format::Short => short,
        Format::Json => json,
    };
    let mut said = HashSet::new();
    let mut out = String::new();
    for diagnostic in sorted {
        let mut shown = diagnostic.clone();
        if format == Format::Human {
            let new = diagnostic.help.iter().filter(|help| said.insert((diagnostic.code, help.as_str())));
            shown.help = new.cloned().collect();
        }
        out.push_str(&one(&shown, sources, color));
    }
    out
}

fn human(diagnostic: &Diagnostic, sources: &Sources, color: Color) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(escape(&diagnostic.message)).id(diagnostic.code);
    let mut files: Vec<SourceId> = Vec::new();
    for label in &diagnostic.labels {
        if !files.contains(&label.span.source) {
            files.push(label.span.source);
        }
    }
    let snippets = files.iter().map(|&file| Element::from(snippet(diagnostic, file, sources)));
    let mut groups = vec![Group::with_title(title).elements(snippets)];
    for help in &diagnostic.help {
        // A remedy may be lines to paste.
        let lines: Vec<_> = help.split('\n').map(escape).collect();
        groups.push(Group::with_title(Level::HELP.secondary_title(lines.join("\n"))));
    }
    let renderer = match color {
        Color::None => Renderer::plain(),
        Color::Ansi => Renderer::styled(),
    };
    let mut text = String::new();
    for line in renderer.render(&groups).lines() {
        // The bar under a snippet leads nowhere when the next group is a help line.
        if without_styles(line).starts_with("help:") {
            let end = text.trim_end_matches('\n').rfind('\n').map_or(0, |at| at + 1);
            let last = text.get(end..).unwrap_or_default();
            if without_styles(last).trim() == "|" {
                text.truncate(end);
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push('\n');
    text
}

/// Takes the escape sequences of colours away.
fn without_styles(line: &str) -> String {
    let mut pieces = line.split('\x1b');
    let first = pieces.next().unwrap_or_default();
    let rest = pieces.map(|piece| piece.split_once('m').map_or("", |(_, after)| after));
    std::iter::once(first).chain(rest).collect()
}

fn snippet<'a>(
    diagnostic: &'a Diagnostic,
    file: SourceId,
    sources: &'a Sources,
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let text = sources.text(file);
    let primary = diagnostic.labels.first();
    let labels = diagnostic.labels.iter().filter(move |label| label.span.source == file);
    let annotations = labels.map(move |label| {
        let kind = match primary {
            Some(first) if std::ptr::eq(first, label) => AnnotationKind::Primary,
            _ => AnnotationKind::Context,
        };
        let start = floor(text, (label.span.start as usize).min(text.len()));
        let end = floor(text, (label.span.end as usize).min(text.len())).max(start);
        let annotation = kind.span(start..end);
        if label.text.is_empty() { annotation } else { annotation.label(escape(&label.text)) }
    });
    Snippet::source(without_c1(text))
        .path(escape(&sources.path(file).to_string_lossy()).into_owned())
        .annotations(annotations)
}

/// Replaces the control characters beyond ASCII, which the renderer would pass on: a terminal may take U+009B for the
/// beginning of an escape sequence. Every offset stays as it is.
fn without_c1(text: &str) -> Cow<'_, str> {
    let is_c1 = |c: char| matches!(c, '\u{80}'..='\u{9f}');
    if text.contains(is_c1) { Cow::Owned(text.replace(is_c1, "\u{b7}")) } else { Cow::Borrowed(text) }
}

/// The nearest character boundary at or below an offset.
fn floor(text: &str, offset: usize) -> usize {
    (0..=offset).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

fn short(diagnostic: &Diagnostic, sources: &Sources, _: Color) -> String {
    let level = match diagnostic.severity {
        Severity::Error => "emerg",
        Severity::Warning => "warn",
    };
    let text = diagnostic.nginx_text.as_ref().unwrap_or(&diagnostic.message);
    let mut line = format!("nginx: [{level}] {}", escape(text));
    if let Some(span) = diagnostic.span() {
        match sources.path(span.source).to_string_lossy() {
            path if path == COMMAND_LINE => line.push_str(" in command line"),
            path => {
                let _ = write!(line, " in {}:{}", escape(&path), sources.position(span).line);
            }
        }
    }
    line.push('\n');
    line
}

#[derive(Serialize)]
struct JsonDiagnostic<'a> {
    severity: &'static str,
    code: &'static str,
    message: &'a str,
    #[serde(flatten)]
    place: Option<JsonPlace<'a>>,
    labels: Vec<JsonLabel<'a>>,
    help: &'a [String],
}

#[derive(Serialize)]
struct JsonPlace<'a> {
    file: Cow<'a, str>,
    line: u32,
    column: u32,
}

#[derive(Serialize)]
struct JsonLabel<'a> {
    #[serde(flatten)]
    place: JsonPlace<'a>,
    text: &'a str,
}

fn json(diagnostic: &Diagnostic, sources: &Sources, _: Color) -> String {
    let place = |label: &Label| {
        let position = sources.position(label.span);
        let file = sources.path(label.span.source).to_string_lossy();
        JsonPlace { file, line: position.line, column: position.column }
    };
    let object = JsonDiagnostic {
        severity: match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        code: diagnostic.code,
        message: &diagnostic.message,
        place: diagnostic.labels.first().map(place),
        labels: diagnostic
            .labels
            .iter()
            .map(|label| JsonLabel { place: place(label), text: &label.text })
            .collect(),
        help: &diagnostic.help,
    };
    serde_json::to_string(&object).map_or_else(|_| String::new(), |line| line + "\n")
}

/// Writes control characters, and those that change the direction of text, as escapes.
pub fn escape(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            c if harmful(c) => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::Span;

    fn sample() -> (Vec<Diagnostic>, Sources) {
        let mut sources = Sources::default();
        let text = "http {\n    server {\n        proxy_read_timout 5s;\n    }\n}\n";
        let nginx = sources.add("nginx.conf", text);
        let compose = sources.add("docker-compose.yml", "services:\n  app1: {}\n");
        let at = |source: SourceId, text: &str, word: &str| {
            let start = text.find(word).expect("is there");
            Span::new(source, start..start + word.len())
        };
        let unknown = Diagnostic::error("nginx::unknown-directive", "unknown directive `proxy_read_timout`")
            .at(at(nginx, text, "proxy_read_timout"), "not a directive Evenkeel knows")
            .help("did you mean `proxy_read_timeout`?")
            .nginx("unknown directive \"proxy_read_timout\"");
        let both = Diagnostic::warning("plan::unused-service", "nothing sends requests to `app1`")
            .at(Span::new(compose, 12..16), "no `server` line names it")
            .at(at(nginx, text, "server"), "all servers are here");
        let nowhere = Diagnostic::error("nginx::missing-events", "no `events` block");
        (vec![both, unknown, nowhere], sources)
    }

    #[test]
    fn a_remedy_is_said_once_for_each_code() {
        let hint = |code| Diagnostic::warning(code, "has no effect").help("leave it out");
        let all = [hint("a::one"), hint("a::one"), hint("a::two")];
        let text = render(&all, &Sources::default(), Format::Human, Color::None);
        assert_eq!(text.matches("help: leave it out").count(), 2, "{text}");
        let text = render(&all, &Sources::default(), Format::Json, Color::None);
        assert_eq!(text.matches("leave it out").count(), 3, "{text}");
    }

    #[test]
    fn for_people() {
        let (diagnostics, sources) = sample();
        assert_snapshot!(render(&diagnostics, &sources, Format::Human, Color::None), @r#"
        error[nginx::missing-events]: no `events` block

        error[nginx::unknown-directive]: unknown directive `proxy_read_timout`
         --> nginx.conf:3:9
          |
        3 |         proxy_read_timout 5s;
          |         ^^^^^^^^^^^^^^^^^ not a directive Evenkeel knows
        help: did you mean `proxy_read_timeout`?

        warning[plan::unused-service]: nothing sends requests to `app1`
         --> docker-compose.yml:2:3
          |
        2 |   app1: {}
          |   ^^^^ no `server` line names it
          |
         ::: nginx.conf:2:5
          |
        2 |     server {
          |     ------ all servers are here
        "#);
    }

    #[test]
    fn colours_change_nothing_else() {
        let (diagnostics, sources) = sample();
        let plain = render(&diagnostics, &sources, Format::Human, Color::None);
        let styled = render(&diagnostics, &sources, Format::Human, Color::Ansi);
        assert_ne!(styled, plain);
        let stripped: Vec<String> =
            styled.lines().map(|line| without_styles(line).trim_end().to_owned()).collect();
        assert_eq!(stripped, plain.lines().collect::<Vec<_>>());
    }

    #[test]
    fn in_nginx_words() {
        let (diagnostics, sources) = sample();
        assert_snapshot!(render(&diagnostics, &sources, Format::Short, Color::None), @r#"
        nginx: [emerg] no `events` block
        nginx: [emerg] unknown directive "proxy_read_timout" in nginx.conf:3
        nginx: [warn] nothing sends requests to `app1` in docker-compose.yml:2
        "#);
    }

    #[test]
    fn as_json() {
        let (diagnostics, sources) = sample();
        assert_snapshot!(render(&diagnostics, &sources, Format::Json, Color::None), @r#"
        {"severity":"error","code":"nginx::missing-events","message":"no `events` block","labels":[],"help":[]}
        {"severity":"error","code":"nginx::unknown-directive","message":"unknown directive `proxy_read_timout`","file":"nginx.conf","line":3,"column":9,"labels":[{"file":"nginx.conf","line":3,"column":9,"text":"not a directive Evenkeel knows"}],"help":["did you mean `proxy_read_timeout`?"]}
        {"severity":"warning","code":"plan::unused-service","message":"nothing sends requests to `app1`","file":"docker-compose.yml","line":2,"column":3,"labels":[{"file":"docker-compose.yml","line":2,"column":3,"text":"no `server` line names it"},{"file":"nginx.conf","line":2,"column":5,"text":"all servers are here"}],"help":[]}
        "#);
    }

    #[test]
    fn escapes_what_comes_from_outside() {
        let mut sources = Sources::default();
        let source = sources.add("a\x1b[31m.conf", "foo\x1b]0;x\x07 \u{202e}bar\u{9b}2J;\n");
        let diagnostic = Diagnostic::error("nginx::unknown-directive", "unknown directive `\x1b`")
            .at(Span::new(source, 0..3), "here\x1b")
            .help("a\nb");
        for format in [Format::Human, Format::Short, Format::Json] {
            let text = render(std::slice::from_ref(&diagnostic), &sources, format, Color::None);
            // A reader of JSON is no terminal: there, only control characters are escaped.
            let bad = |c: char| c.is_control() && c != '\n' || c == '\u{202e}' && format != Format::Json;
            assert!(!text.contains(bad), "{format:?}: {text:?}");
        }
    }

    #[test]
    fn a_span_outside_its_text_is_no_panic() {
        let mut sources = Sources::default();
        let source = sources.add("a", "é");
        for range in [0..1, 1..2, 1..9, 7..9, 2..2] {
            let diagnostic = Diagnostic::error("a::b", "c").at(Span::new(source, range), "");
            assert!(render(&[diagnostic], &sources, Format::Human, Color::Ansi).contains("a::b"));
        }
    }
}
