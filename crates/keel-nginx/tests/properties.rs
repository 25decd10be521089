//! What holds for any text.

mod support;

use keel_diag::{Color, Format, Sources};
use keel_nginx::{Directive, parse};
use proptest::prelude::*;

fn parsed(text: &str) -> (Vec<Directive>, usize) {
    let mut sources = Sources::default();
    let source = sources.add("nginx.conf", text);
    let (directives, diagnostics) = parse(&sources, source);
    (directives, diagnostics.len())
}

fn printed(directives: &[Directive]) -> String {
    directives.iter().map(ToString::to_string).collect()
}

/// Names, arguments and blocks without their places.
fn shape(directives: &[Directive]) -> String {
    directives
        .iter()
        .map(|directive| {
            let args: Vec<&str> = directive.args.iter().map(|word| word.text.as_str()).collect();
            let block =
                directive.block.as_deref().map_or(";".to_owned(), |block| format!("{{{}}}", shape(block)));
            format!("{:?} {args:?} {block}\n", directive.name.text)
        })
        .collect()
}

/// Texts that are nearly configurations: real words and punctuation in any order.
fn soup() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "events",
        "http",
        "server",
        "location",
        "upstream",
        "map",
        "types",
        "listen",
        "80",
        "127.0.0.1:80",
        "[::]:80",
        "/",
        "~",
        "^~",
        "=",
        "@a",
        "/a",
        "proxy_pass",
        "http://a",
        "http://$host/b",
        "$uri",
        "${arg_a}",
        "$",
        "return",
        "200",
        "root",
        "alias",
        "error_page",
        "404",
        "try_files",
        "=404",
        "include",
        "nginx.conf",
        "access_log",
        "log_format",
        "a",
        "b",
        "keepalive",
        "zone",
        "expires",
        "@1h",
        "1h",
        "8k",
        "off",
        "on",
        "server_name",
        "*.a",
        "~(",
        "{",
        "{",
        "}",
        "}",
        ";",
        ";",
        ";",
        "\"",
        "'",
        "\\",
        "#",
        "\n",
        "default",
        "hostnames",
        "proxy_redirect",
        "if",
        "set",
        "ssl",
    ]);
    prop::collection::vec(words, 0..60).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn printed_and_read_again_is_the_same(text in soup()) {
        let (first, _) = parsed(&text);
        let (second, faults) = parsed(&printed(&first));
        prop_assert_eq!(shape(&first), shape(&second));
        prop_assert_eq!(faults, 0);
    }

    #[test]
    fn any_word_can_be_printed(words in prop::collection::vec("[^\u{fffd}]{0,12}", 1..5)) {
        let mut sources = Sources::default();
        let source = sources.add("nginx.conf", "");
        let word = |text: &String| keel_nginx::Word { text: text.clone(), span: keel_diag::Span::new(source, 0..0) };
        let directive = Directive {
            name: word(&words[0]),
            args: words[1..].iter().map(word).collect(),
            block: None,
        };
        let (again, faults) = parsed(&directive.to_string());
        prop_assert_eq!(faults, 0, "{}", directive);
        prop_assert_eq!(shape(&again), shape(&[directive]));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut memory = support::Memory::default();
        memory.0.insert("/n.conf".into(), bytes);
        let options = keel_nginx::Options { prefix: "/".into(), conf_path: "/n.conf".into(), globals: Vec::new() };
        let mut sources = Sources::default();
        let loaded = keel_nginx::load(&options, &memory, &mut sources);
        prop_assert_eq!(loaded.configuration.is_some(), loaded.diagnostics.iter().all(|found| found.severity != keel_diag::Severity::Error));
        for format in [Format::Human, Format::Short, Format::Json] {
            keel_diag::render(&loaded.diagnostics, &sources, format, Color::None);
        }
    }

    #[test]
    fn no_near_configuration_makes_it_panic(inside in soup(), place in 0..4) {
        let text = match place {
            0 => inside,
            1 => format!("events {{}} http {{ {inside} }}"),
            2 => format!("events {{}} http {{ server {{ {inside} }} }}"),
            _ => format!("events {{}} http {{ upstream a {{ {inside} }} map $uri $a {{ {inside} }} }}"),
        };
        let (loaded, sources) = support::load(&text);
        keel_diag::render(&loaded.diagnostics, &sources, Format::Human, Color::Ansi);
    }
}

#[test]
fn depth_is_bounded() {
    let deep = "a {".repeat(100_000);
    let (directives, faults) = parsed(&deep);
    assert_eq!(directives.len(), 1);
    assert!(faults > 0);
}
