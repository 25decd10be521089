//! A shell script cut into statements: lists joined by `;`, `&&` and `||`, pipelines in them, and the texts of heredocs
//! taken out. A condition, loop, group or function is one part, up to its end. Nothing is replaced here.

/// What stands between a statement and the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    /// `;`, `&`, a new line, or the beginning.
    Then,
    And,
    Or,
}

/// A pipeline.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) operator: Operator,
    pub(super) parts: Vec<Part>,
}

/// One command of a pipeline.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) text: String,
    pub(super) heredocs: Vec<Heredoc>,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Simple,
    /// `if`, `for`, `while`, `until`, `case`, `{` or `(`.
    Compound,
    Function {
        name: String,
    },
}

/// The text that a `<<NAME` stands for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heredoc {
    pub(super) text: String,
    /// Whether variables in it are replaced: not where NAME is quoted.
    pub(super) expands: bool,
}

impl Statement {
    pub(super) fn shown(&self) -> String {
        self.parts.iter().map(|part| part.text.as_str()).collect::<Vec<_>>().join(" | ")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Then,
    Background,
    And,
    Or,
    Pipe,
}

#[derive(Debug)]
struct Token {
    text: String,
    heredocs: Vec<Heredoc>,
    end: End,
}

/// Cuts a script.
pub(super) fn statements(script: &str) -> Vec<Statement> {
    let mut found: Vec<Statement> = Vec::new();
    let mut joint = Joint::After(Operator::Then);
    let mut open = Open::default();
    let mut part: Option<(Part, End)> = None;
    for token in tokens(script) {
        let end = token.end;
        let kind = open.read(&token.text);
        let current = match part.take() {
            None => Part { text: token.text, heredocs: token.heredocs, kind },
            Some((mut part, before)) => {
                part.text.push_str(match before {
                    End::Then => "; ",
                    End::Background => " & ",
                    End::And => " && ",
                    End::Or => " || ",
                    End::Pipe => " | ",
                });
                part.text.push_str(&token.text);
                part.heredocs.extend(token.heredocs);
                part
            }
        };
        if !open.closers.is_empty() {
            part = Some((current, end));
            continue;
        }
        push(&mut found, current, joint);
        joint = match end {
            End::Pipe => Joint::Piped,
            End::And => Joint::After(Operator::And),
            End::Or => Joint::After(Operator::Or),
            End::Then | End::Background => Joint::After(Operator::Then),
        };
    }
    if let Some((part, _)) = part {
        push(&mut found, part, joint);
    }
    found
}

/// How a part follows the one before it.
#[derive(Clone, Copy)]
enum Joint {
    /// It reads what that one prints.
    Piped,
    /// It begins a statement.
    After(Operator),
}

fn push(found: &mut Vec<Statement>, part: Part, joint: Joint) {
    let operator = match (joint, found.last_mut()) {
        (Joint::Piped, Some(last)) => return last.parts.push(part),
        (Joint::Piped, None) => Operator::Then,
        (Joint::After(operator), _) => operator,
    };
    found.push(Statement { operator, parts: vec![part] });
}

/// The constructs that are open.
#[derive(Debug, Default)]
struct Open {
    closers: Vec<&'static str>,
}

impl Open {
    /// Notes what a command opens and closes; tells what it begins.
    fn read(&mut self, text: &str) -> Kind {
        let mut kind = if text.starts_with('(') { Kind::Compound } else { Kind::Simple };
        let mut words = text.split_whitespace().peekable();
        while let Some(word) = words.next() {
            let innermost = self.closers.last().copied();
            let opened = match word {
                "{" if innermost == Some("{") => {
                    self.closers.pop();
                    Some("}")
                }
                _ if innermost == Some(word) => {
                    self.closers.pop();
                    continue;
                }
                "if" => Some("fi"),
                "while" | "until" | "for" | "select" => Some("done"),
                "case" => {
                    words.by_ref().find(|word| *word == "in");
                    Some("esac")
                }
                "{" => Some("}"),
                "then" | "else" | "elif" | "do" | "!" => continue,
                _ if innermost == Some("esac") && word.ends_with(')') => continue,
                _ => {
                    let spaced = words.peek() == Some(&"()");
                    let name = match word {
                        "function" => words.next(),
                        _ if spaced => Some(word),
                        _ => word.strip_suffix("()"),
                    };
                    let Some(name) = name else { break };
                    if spaced || words.peek() == Some(&"()") {
                        words.next();
                    }
                    if kind == Kind::Simple {
                        kind = Kind::Function { name: name.trim_end_matches("()").to_owned() };
                    }
                    self.closers.push("{");
                    continue;
                }
            };
            if kind == Kind::Simple {
                kind = Kind::Compound;
            }
            self.closers.extend(opened);
            if matches!(word, "for" | "select") {
                break;
            }
        }
        kind
    }
}

/// What is read of a script at one moment.
struct Lexer<'t> {
    rest: &'t str,
    text: String,
    heredocs: Vec<Heredoc>,
    found: Vec<Token>,
    /// Heredocs whose text begins on the next line: the number of their token and their own in it.
    opened: Vec<Opened>,
}

struct Opened {
    token: usize,
    number: usize,
    name: String,
    strips_tabs: bool,
}

/// Cuts a script at its operators, outside of quotes, substitutions and parentheses. Takes continued lines together,
/// and comments out.
fn tokens(script: &str) -> Vec<Token> {
    let mut lexer = Lexer {
        rest: script,
        text: String::new(),
        heredocs: Vec::new(),
        found: Vec::new(),
        opened: Vec::new(),
    };
    let (mut quote, mut depth, mut before) = (None, 0usize, ' ');
    while let Some(c) = lexer.take() {
        match (quote, c) {
            (Some('\''), '\'') => quote = None,
            (Some('\''), _) => {}
            (_, '\\') => {
                if lexer.escaped() {
                    before = 'x';
                }
                continue;
            }
            (Some(open), _) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"' | '`') => quote = Some(c),
            (None, '#') if before.is_whitespace() || before == ';' => {
                lexer.rest =
                    lexer.rest.get(lexer.rest.find('\n').unwrap_or(lexer.rest.len())..).unwrap_or_default();
                continue;
            }
            (None, '(') if lexer.rest.starts_with('(') && (before == '$' || lexer.text.trim().is_empty()) => {
                lexer.arithmetic();
                before = ')';
                continue;
            }
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            (None, '<') if lexer.rest.starts_with('<') && !lexer.rest.starts_with("<<") && before != '<' => {
                lexer.open_heredoc();
                before = 'x';
                continue;
            }
            (None, '\n') => {
                if depth == 0 {
                    lexer.end(End::Then);
                } else {
                    lexer.text.push('\n');
                }
                lexer.bodies();
                before = '\n';
                continue;
            }
            (None, ';' | '&' | '|') if depth == 0 => {
                let end = lexer.operator(c, before);
                if let Some(end) = end {
                    lexer.end(end);
                    before = ';';
                    continue;
                }
            }
            (None, _) => {}
        }
        lexer.text.push(c);
        before = c;
    }
    lexer.end(End::Then);
    lexer.found
}

impl Lexer<'_> {
    fn take(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = self.rest.get(c.len_utf8()..).unwrap_or_default();
        Some(c)
    }

    /// Takes what an escape stands before; false where that is the end of a line, which both are nothing then.
    fn escaped(&mut self) -> bool {
        match self.take() {
            Some('\n') => false,
            Some('\r') if self.rest.starts_with('\n') => {
                self.take();
                false
            }
            next => {
                self.text.push('\\');
                self.text.extend(next);
                true
            }
        }
    }

    /// Takes `((...))`, of which the first parenthesis is taken: a shift in it is no heredoc.
    fn arithmetic(&mut self) {
        let mut depth = 1;
        self.text.push('(');
        while depth > 0
            && let Some(c) = self.take()
        {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            self.text.push(c);
        }
    }

    /// Tells which operator this is; `None` where it belongs to a redirection.
    fn operator(&mut self, c: char, before: char) -> Option<End> {
        let doubled = self.rest.starts_with(c);
        match c {
            '&' | '|' if matches!(before, '>' | '<') => return None,
            '&' if self.rest.starts_with('>') => return None,
            _ if doubled => {
                self.take();
            }
            '|' if self.rest.starts_with('&') => {
                self.take();
            }
            _ => {}
        }
        Some(match (c, doubled) {
            ('&', true) => End::And,
            ('|', true) => End::Or,
            ('&', false) => End::Background,
            ('|', false) => End::Pipe,
            _ => End::Then,
        })
    }

    fn end(&mut self, end: End) {
        let text = std::mem::take(&mut self.text).trim().to_owned();
        let heredocs = std::mem::take(&mut self.heredocs);
        if !text.is_empty() {
            self.found.push(Token { text, heredocs, end });
        }
    }

    /// Reads `<<NAME`, of which the first `<` is taken.
    fn open_heredoc(&mut self) {
        self.take();
        let strips_tabs = self.rest.starts_with('-');
        if strips_tabs {
            self.take();
        }
        self.rest = self.rest.trim_start_matches([' ', '\t']);
        let ends = |c: char| c.is_whitespace() || ";&|<>()".contains(c);
        let length = self.rest.find(ends).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        let expands = !word.contains(['"', '\'', '\\']);
        let name = word.replace(['"', '\'', '\\'], "");
        self.text.push_str("<< ");
        self.text.push_str(word);
        self.opened.push(Opened { token: self.found.len(), number: self.heredocs.len(), name, strips_tabs });
        self.heredocs.push(Heredoc { text: String::new(), expands });
    }

    /// Takes the texts of the heredocs that the line before has opened.
    fn bodies(&mut self) {
        for opened in std::mem::take(&mut self.opened) {
            let mut text = String::new();
            while !self.rest.is_empty() {
                let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
                self.rest = rest;
                let line = if opened.strips_tabs { line.trim_start_matches('\t') } else { line };
                if line.trim_end_matches('\r') == opened.name {
                    break;
                }
                text.push_str(line);
                text.push('\n');
            }
            let heredocs = match self.found.get_mut(opened.token) {
                Some(token) => &mut token.heredocs,
                None => &mut self.heredocs,
            };
            if let Some(heredoc) = heredocs.get_mut(opened.number) {
                heredoc.text = text;
            }
        }
    }
}

/// The single commands of a text, those within parentheses too.
pub(super) fn pieces(text: &str) -> Vec<String> {
    let opened = text.replace(['(', ')'], " ( ");
    let flat = if text.trim_start().starts_with('(') { opened.replace(" ( ", "\n") } else { text.to_owned() };
    tokens(&flat).into_iter().map(|token| token.text).collect()
}

/// The commands whose output stands for them: `$(...)`, backquotes, `<(...)` and `>(...)`, outermost only.
pub(super) fn substitutions(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    let (mut before, mut is_quoted) = (' ', false);
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
        match c {
            '\\' => rest = rest.get(rest.chars().next().map_or(0, char::len_utf8)..).unwrap_or_default(),
            '\'' if !is_quoted => rest = rest.split_once('\'').map_or("", |(_, after)| after),
            '"' => is_quoted = !is_quoted,
            '`' => {
                let (inner, after) = rest.split_once('`').unwrap_or((rest, ""));
                found.push(inner);
                rest = after;
            }
            '(' if before == '$' || (!is_quoted && matches!(before, '<' | '>')) => {
                let length = closing(rest, '(', ')');
                let inner = rest.get(..length).unwrap_or_default();
                // A sum runs nothing.
                if !(before == '$' && inner.starts_with('(')) {
                    found.push(inner.strip_suffix(')').unwrap_or(inner));
                }
                rest = rest.get(length..).unwrap_or_default();
            }
            _ => {}
        }
        before = c;
    }
    found
}

/// The length of a text up to and with what closes it.
pub(super) fn closing(text: &str, open: char, close: char) -> usize {
    let mut depth = 1;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == open => depth += 1,
            _ if c == close => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + c.len_utf8();
        }
    }
    text.len()
}

/// Takes away what stands before the command proper in a piece of a condition, loop or function.
pub(super) fn bare(text: &str) -> &str {
    let mut rest = text.trim().trim_start_matches('(').trim_start();
    loop {
        let length = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (word, after) = rest.split_at(length);
        let after = after.trim_start();
        rest = match word {
            "if" | "then" | "else" | "elif" | "do" | "while" | "until" | "!" | "{" | "()" => after,
            "for" | "select" | "fi" | "done" | "esac" | "}" | "" => return "",
            "case" => after.split_once(" in ").map_or("", |(_, after)| after.trim_start()),
            "function" => after.split_once(char::is_whitespace).map_or("", |(_, after)| after.trim_start()),
            _ if word.ends_with("()") || (word.ends_with(')') && !word.contains('(')) => after,
            _ => return rest.trim_end_matches(')'),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_run_inside() {
        let check = |text: &str, expect: &[&str]| assert_eq!(substitutions(text), expect, "{text}");
        check(
            "a $(b $(c)) \"`d`\" '$(e)' \\$(f) $((1+2)) <(g) >(h) i) \"<(j)\" $(k",
            &["b $(c)", "d", "g", "h", "k"],
        );
        check("a \"it's $(b)\" 'c", &["b"]);
    }

    #[test]
    fn cuts_where_a_shell_does() {
        let check = |script: &str, expect: &[&str]| {
            let found = statements(script);
            let shown = found.iter().map(|statement| {
                let sign = match statement.operator {
                    Operator::Then => ";",
                    Operator::And => "&&",
                    Operator::Or => "||",
                };
                let texts = statement.parts.iter().flat_map(|part| &part.heredocs);
                let texts: Vec<_> = texts.map(|heredoc| format!(" {:?}", heredoc.text)).collect();
                format!("{sign} {}{}", statement.shown(), texts.concat())
            });
            assert_eq!(shown.collect::<Vec<_>>(), expect, "{script}");
        };
        check("a && b || c; d & e | f", &["; a", "&& b", "|| c", "; d", "; e | f"]);
        check("a \\\n b '\\\n'\n", &["; a  b '\\\n'"]);
        check("a 2>&1 &> x >| y; b # c; d\ne#f", &["; a 2>&1 &> x >| y", "; b", "; e#f"]);
        check("if a; then b || c; fi && d", &["; if a; then b || c; fi", "&& d"]);
        check("f() { a; b; }; f", &["; f() { a; b; }", "; f"]);
        check("f ()\n{\na\n}\nb", &["; f (); {; a; }", "; b"]);
        check(
            "case $1 in\na) if b; then c; fi;;\n*) d;; esac; e",
            &["; case $1 in; a) if b; then c; fi; *) d; esac", "; e"],
        );
        check("while a; do b; done | c\nd", &["; while a; do b; done | c", "; d"]);
        check("cat <<EOF >x; c\nrm a\nEOF\nd", &["; cat << EOF >x \"rm a\\n\"", "; c", "; d"]);
        check("cat <<-'E' | t\n\ta\n\tE\nd", &["; cat << 'E' | t \"a\\n\"", "; d"]);
        check("(a; b) && $(c; d) `e; f` \"g; h\"", &["; (a; b)", "&& $(c; d) `e; f` \"g; h\""]);
        check(
            "echo $((1<<2)) $((a<<(b))); b\n((c<<1)) && d",
            &["; echo $((1<<2)) $((a<<(b)))", "; b", "; ((c<<1))", "&& d"],
        );
        check("$( (a) ); b $((", &["; $( (a) )", "; b $(("]);
        check("cat <<EOF", &["; cat << EOF \"\""]);
    }
}
