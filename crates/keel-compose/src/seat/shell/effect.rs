//! Whether a command that isn't followed would change something, judged by its text alone.

use super::LIMITS;
use crate::seat::script::{bare, pieces, substitutions};

/// Programs that change nothing that counts for a balancer's configuration.
pub(super) const HARMLESS: &[&str] = &[
    "chmod", "chown", "sleep", "wait", "trap", "apk", "apt", "apt-get", "umask", "addgroup", "adduser",
    "useradd", "groupadd", "usermod", "ls", "date", "setcap", "yum", "dnf", "id", "pwd", "hostname", "uname",
    "whoami", "kill",
];
/// Programs that are asked a question: the answer isn't known here.
pub(super) const TESTS: &[&str] = &[
    "[", "[[", "test", "grep", "egrep", "fgrep", "which", "type", "hash", "pgrep", "getent", "nc", "ping",
    "false",
];
/// Programs that write what they find to their output and change nothing.
const PRINTERS: &[&str] = &[
    "env",
    "printenv",
    "awk",
    "gawk",
    "mawk",
    "sed",
    "cut",
    "tr",
    "sort",
    "uniq",
    "head",
    "tail",
    "wc",
    "nproc",
    "ip",
    "ifconfig",
    "dig",
    "nslookup",
    "host",
    "basename",
    "dirname",
    "readlink",
    "realpath",
    "expr",
    "seq",
    "envsubst",
    "base64",
    "md5sum",
    "sha256sum",
    "find",
    "jq",
    "arch",
    "paste",
    "rev",
    "getconf",
    "stat",
    "tac",
];
/// Whether a command that isn't run would change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It wouldn't.
    None,
    /// It would, or may.
    Changes,
}

/// Whether what isn't run would change something, as far as its text shows.
pub(super) fn effect(text: &str) -> Effect {
    effect_within(text, 0)
}

fn effect_within(text: &str, depth: usize) -> Effect {
    let quiet = |text: &str| {
        let text = bare(text);
        let mut words =
            text.split_whitespace().skip_while(|word| word.contains('=') && !word.starts_with('['));
        let name = words.next().unwrap_or_default();
        let known = matches!(
            name,
            "" | ":"
                | "true"
                | "echo"
                | "printf"
                | "cat"
                | "exit"
                | "return"
                | "break"
                | "continue"
                | "cd"
                | "sleep"
                | "local"
                | "!"
        ) || (name == "set"
            && words.clone().next().is_some_and(|word| word.starts_with(['-', '+']) && word != "--"))
            || (name == "command" && words.clone().next() == Some("-v"))
            || HARMLESS.contains(&name)
            || TESTS.contains(&name);
        let text = unquoted(text);
        let writes = text.match_indices('>').any(|(at, _)| {
            let target = text.get(at + 1..).unwrap_or_default().trim_start_matches(['>', '|', ' ']);
            !target.starts_with('&') && !target.starts_with("/dev/")
        });
        // A variable that is set decides on what follows.
        let assigns = !text.is_empty() && name.is_empty();
        known && !writes && !assigns
    };
    match pieces(text).iter().all(|piece| quiet(piece)) {
        true => effect_inside(text, depth),
        false => Effect::Changes,
    }
}

/// Whether the commands whose output stands for them would change something.
pub(super) fn effect_inside(text: &str, depth: usize) -> Effect {
    let changes = substitutions(text).into_iter().any(|inner| {
        let changes = |piece: &String| {
            let quiet = as_printed(piece).unwrap_or_else(|| piece.clone());
            effect_within(&quiet, depth + 1) == Effect::Changes
        };
        depth >= LIMITS.depth || pieces(inner).iter().any(changes)
    });
    if changes { Effect::Changes } else { Effect::None }
}

/// A command that only writes what it finds as one that writes its arguments.
fn as_printed(command: &str) -> Option<String> {
    let name = bare(command).split_whitespace().next().unwrap_or_default();
    let program = name.rsplit('/').next().unwrap_or_default();
    let writes = match program {
        "sed" => command.split_whitespace().any(|word| word.starts_with("-i")),
        "find" => ["-exec", "-delete", "-fprint", "-ok"].iter().any(|word| command.contains(word)),
        "awk" | "gawk" | "mawk" => {
            command.contains("> \"") || command.contains(">\"") || command.contains("system(")
        }
        _ => false,
    };
    (PRINTERS.contains(&program) && !writes).then(|| command.replacen(name, "echo", 1))
}

/// A text without what is quoted in it.
fn unquoted(text: &str) -> String {
    let mut quote = None;
    let is_outside = |c: &char| match quote {
        Some(open) => {
            quote = quote.filter(|_| *c != open);
            false
        }
        None => {
            quote = Some(*c).filter(|c| matches!(c, '\'' | '"'));
            quote.is_none()
        }
    };
    text.chars().filter(is_outside).collect()
}
