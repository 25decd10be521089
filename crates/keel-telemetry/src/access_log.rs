//! A line of an access log in nginx's format language (`log_format`).

use keel_model::{LogEscape, LogFormat, Part, Variable};

use crate::escape::escape_tail;

/// Where the values of variables come from: the request that is logged.
pub trait Values {
    /// Appends a variable's value as it is, unescaped. Gives false, and appends nothing, if there is none.
    fn append(&self, variable: &Variable, out: &mut Vec<u8>) -> bool;
}

/// A format, ready to write lines.
#[derive(Clone, Debug)]
pub struct Format {
    escape: LogEscape,
    parts: Vec<Part>,
}

impl Format {
    /// Makes it out of its configuration.
    pub fn new(format: &LogFormat) -> Self {
        Self { escape: format.escape, parts: format.line.parts.clone() }
    }

    /// Appends a line with its end.
    pub fn append_line(&self, values: &impl Values, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Variable(variable) => self.append_value(variable, values, out),
            }
        }
        out.push(b'\n');
    }

    fn append_value(&self, variable: &Variable, values: &impl Values, out: &mut Vec<u8>) {
        let start = out.len();
        if values.append(variable, out) {
            escape_tail(self.escape, out, start);
        } else if self.escape == LogEscape::Default {
            out.push(b'-');
        }
    }
}

#[cfg(test)]
mod tests {
    use keel_model::Template;

    use super::*;

    struct Request;

    impl Values for Request {
        fn append(&self, variable: &Variable, out: &mut Vec<u8>) -> bool {
            let value: &[u8] = match variable {
                Variable::RemoteAddr => b"192.0.2.7",
                Variable::Uri => b"/\"\x01",
                Variable::Args => b"",
                _ => return false,
            };
            out.extend_from_slice(value);
            true
        }
    }

    fn check(escape: LogEscape, expect: &str) {
        let variable = |variable| Part::Variable(variable);
        let literal = |text: &str| Part::Literal(text.into());
        let line = Template {
            parts: vec![
                variable(Variable::RemoteAddr),
                literal(" "),
                variable(Variable::RemoteUser),
                literal(" ["),
                variable(Variable::Uri),
                literal("?"),
                variable(Variable::Args),
                literal("]"),
            ],
        };
        let mut out = b"before\n".to_vec();
        Format::new(&LogFormat { name: "x".into(), escape, line }).append_line(&Request, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("before\n{expect}\n"));
    }

    #[test]
    fn writes_lines_as_nginx() {
        check(LogEscape::Default, r"192.0.2.7 - [/\x22\x01?]");
        check(LogEscape::Json, r#"192.0.2.7  [/\"\u0001?]"#);
        check(LogEscape::None, "192.0.2.7  [/\"\x01?]");
    }
}
