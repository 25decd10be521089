//! ngx_http_rewrite_module: `if`.

use keel_diag::{Diagnostic, Span};
use keel_model::{FileTest, Test};

use crate::{
    ast::{Directive, Word},
    directives::http_rewrite::{self, Step},
    reader::{Frame, Reader},
    registry::{Arity, Contexts, Row, Setter},
};

/// The directives.
pub(crate) const ROWS: &[Row] = &[Row {
    name: "if",
    syntax: "(condition) { ... }",
    contexts: Contexts::SERVER.or(Contexts::LOCATION),
    arity: Arity::AtLeast(1),
    default: None,
    doc: "Does what stands in its block where the condition holds: `$variable` is neither empty nor `0`, `=` and `!=` compare \
          with a text, `~`, `~*`, `!~` and `!~*` with an expression, `-f`, `-d`, `-e` and `-x`, each also with `!`, look \
          for a file, a folder, either, something executable. In a location the block is one of its own that takes the \
          location's place: it inherits all but `try_files`, and of several the last holds.",
    set: Setter::Block(read),
}];

fn read(reader: &mut Reader<'_>, directive: &Directive, block: &[Directive]) {
    let condition = condition(reader, directive);
    let context = if reader.frame.context.meets(Contexts::SERVER.or(Contexts::SERVER_IF)) {
        Contexts::SERVER_IF
    } else {
        Contexts::LOCATION_IF
    };
    let mut frame = Frame::new(context, Some(directive.name.span));
    frame.matcher.clone_from(&reader.frame.matcher);
    let inside = Box::new(reader.inside(frame, block));
    if let Some(Condition { test, wants }) = condition {
        reader.frame.steps.push(Step::If { test, wants, inside });
    }
}

/// Warns of what the `if` blocks of a location take away.
pub(crate) fn traps(location: &Frame) -> Vec<Diagnostic> {
    let is_own = |name: &str| http_rewrite::ROWS.iter().chain(ROWS).any(|row| row.name == name);
    let blocks = location.steps.iter().filter_map(|step| match step {
        Step::If { inside, .. } if inside.seen.keys().any(|name| !is_own(name)) => inside.opened,
        _ => None,
    });
    let blocks: Vec<Span> = blocks.collect();
    let trap = |message: &str| Diagnostic::warning("nginx::if-in-location", message);
    let mut found = Vec::new();
    if let (Some(opened), Some(try_files)) = (blocks.first(), location.seen.get("try_files")) {
        found.push(
            trap("where this `if` holds, the location's `try_files` doesn't")
                .at(*opened, "its block takes the location's place")
                .at(*try_files, "not looked at then")
                .help(
                    "let the `if` only `return`, or `rewrite ... last` to a location that has what differs",
                ),
        );
    }
    if let [first, .., last] = blocks.as_slice() {
        found.push(
            trap("where several of these `if` hold, only the last one's directives do")
                .at(*first, "without effect where the other holds, too")
                .at(*last, "this one takes its place")
                .help("give a `map` the conditions, and use its variable in one directive outside `if`"),
        );
    }
    found
}

/// A condition as read.
struct Condition {
    test: Test,
    wants: bool,
}

/// One word of a condition, without the parentheses around all of it.
struct Term<'a> {
    text: &'a str,
    word: &'a Word,
}

fn condition(reader: &mut Reader<'_>, directive: &Directive) -> Option<Condition> {
    let terms = match terms(directive) {
        Ok(terms) => terms,
        Err(word) => return refuse(reader, directive, word),
    };
    match terms.as_slice() {
        [name, rest @ ..] if name.text.len() > 1 && name.text.starts_with('$') => {
            of_variable(reader, directive, name, rest)
        }
        [operator, path] if operator.text.starts_with('-') || operator.text.starts_with("!-") => {
            let (letter, wants) = match operator.text.strip_prefix('!') {
                Some(text) => (text, false),
                None => (operator.text, true),
            };
            let test = match letter {
                "-f" => FileTest::Plain,
                "-d" => FileTest::Folder,
                "-e" => FileTest::Exists,
                "-x" => FileTest::Executable,
                _ => return refuse(reader, directive, operator.word),
            };
            let path = reader.template_text(path.text, path.word)?;
            Some(Condition { test: Test::File(test, path), wants })
        }
        [first, ..] => refuse(reader, directive, first.word),
        [] => refuse(reader, directive, directive.args.first()?),
    }
}

/// Takes the parentheses off; an error is the word that lacks one.
fn terms(directive: &Directive) -> Result<Vec<Term<'_>>, &Word> {
    let mut terms: Vec<Term<'_>> =
        directive.args.iter().map(|word| Term { text: &word.text, word }).collect();
    if let Some(first) = terms.first_mut() {
        first.text = first.text.strip_prefix('(').ok_or(first.word)?;
    }
    if let Some(last) = terms.last_mut() {
        last.text = last.text.strip_suffix(')').ok_or(last.word)?;
    }
    // A parenthesis that stands alone is no term.
    let is_alone = |term: &Term<'_>, sign: &str| term.text.is_empty() && term.word.text == sign;
    if terms.first().is_some_and(|term| is_alone(term, "(")) {
        terms.remove(0);
    }
    if terms.last().is_some_and(|term| is_alone(term, ")")) {
        terms.pop();
    }
    Ok(terms)
}

fn of_variable(
    reader: &mut Reader<'_>,
    directive: &Directive,
    name: &Term<'_>,
    rest: &[Term<'_>],
) -> Option<Condition> {
    let (operator, operand) = match rest {
        [] => (None, None),
        [operator, operand] => (Some(operator), Some(operand)),
        _ => return refuse(reader, directive, name.word),
    };
    let variable = reader.tested(name.text.trim_start_matches('$'), name.word)?;
    let (Some(operator), Some(operand)) = (operator, operand) else {
        return Some(Condition { test: Test::Holds(variable), wants: true });
    };
    let wants = !operator.text.starts_with('!');
    let test = match operator.text {
        "=" | "!=" => Test::Equals(variable, reader.template_text(operand.text, operand.word)?),
        "~" | "~*" | "!~" | "!~*" => {
            let pattern = reader.pattern(operand.text, operand.word.span, operator.text.ends_with('*'))?;
            Test::Matches { variable, pattern, written: operand.text.to_owned() }
        }
        text => {
            let nginx = format!("unexpected \"{text}\" in condition");
            reader.invalid(directive, operator.word, nginx, "`=`, `!=`, `~`, `~*`, `!~` or `!~*`");
            return None;
        }
    };
    Some(Condition { test, wants })
}

fn refuse(reader: &mut Reader<'_>, directive: &Directive, word: &Word) -> Option<Condition> {
    let nginx = format!("invalid condition \"{}\"", word.text);
    let expected =
        "a condition such as `($variable)`, `($variable = text)`, `($variable ~ expression)` or `(-f path)`";
    reader.invalid(directive, word, nginx, expected);
    None
}
