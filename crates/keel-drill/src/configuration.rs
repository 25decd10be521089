//! nginx.conf as a case needs it: the user's own, with time-outs that end within the case.

use std::{collections::BTreeMap, net::SocketAddr};

use keel_nginx::{Directive, Word};

/// What a case changes in nginx.conf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tuning {
    /// Directives that hold in the whole of `http`: name and arguments. They take the place of the user's.
    pub(crate) directives: Vec<(&'static str, String)>,
    /// Parameters that every server of the upstream gets, such as `max_conns=8`.
    pub(crate) server_parameters: Vec<(&'static str, String)>,
    /// The port of every server of the upstream, where it isn't the project's.
    pub(crate) port: Option<u16>,
}

/// A configuration with these changes.
pub(crate) fn tuned(configuration: &[Directive], upstream: &str, tuning: &Tuning) -> Vec<Directive> {
    let mut changed = configuration.to_vec();
    let is_tuned =
        |directive: &Directive| tuning.directives.iter().any(|(name, _)| directive.name.text == *name);
    remove(&mut changed, &is_tuned);
    for http in changed.iter_mut().filter(|directive| directive.name.text == "http") {
        let Some(block) = &mut http.block else { continue };
        let added = tuning
            .directives
            .iter()
            .map(|(name, arguments)| made(&http.name, name, arguments.split_ascii_whitespace()));
        block.splice(0..0, added);
        let named =
            |directive: &&mut Directive| directive.name.text == "upstream" && directive.arg(0) == upstream;
        for server in block.iter_mut().filter(named).flat_map(|one| one.block.iter_mut().flatten()) {
            if server.name.text == "server" {
                add_parameters(server, &tuning.server_parameters);
                if let (Some(port), Some(address)) = (tuning.port, server.args.first_mut()) {
                    let name = address.text.split(':').next().unwrap_or_default();
                    address.text = format!("{name}:{port}");
                }
            }
        }
    }
    changed
}

/// Prints a configuration.
pub(crate) fn text(configuration: &[Directive]) -> String {
    configuration.iter().map(Directive::to_string).collect()
}

/// Makes a directive; it gets the place of another one, since it stands in no file.
pub(crate) fn made<'a>(like: &Word, name: &str, arguments: impl IntoIterator<Item = &'a str>) -> Directive {
    let word = |text: &str| Word { text: text.to_owned(), span: like.span };
    Directive { name: word(name), args: arguments.into_iter().map(word).collect(), block: None }
}

/// Removes directives, all the way down.
pub(crate) fn remove(directives: &mut Vec<Directive>, which: &impl Fn(&Directive) -> bool) {
    directives.retain(|directive| !which(directive));
    for block in directives.iter_mut().filter_map(|directive| directive.block.as_mut()) {
        remove(block, which);
    }
}

/// Puts the `listen` lines of every server on these addresses, by the port that they name; each port once for a server.
pub(crate) fn place_listens(configuration: &mut [Directive], listeners: &BTreeMap<u16, SocketAddr>) {
    let blocks = configuration.iter_mut().filter(|one| one.name.text == "http");
    let within = blocks.flat_map(|http| http.block.iter_mut().flatten());
    for server in within.filter(|one| one.name.text == "server").filter_map(|server| server.block.as_mut()) {
        let mut seen = Vec::new();
        server.retain_mut(|one| {
            if one.name.text != "listen" {
                return true;
            }
            let port = one.arg(0).rsplit(':').next().and_then(|text| text.parse::<u16>().ok()).unwrap_or(80);
            let Some(address) = listeners.get(&port).filter(|_| !seen.contains(&port)) else {
                return false;
            };
            seen.push(port);
            if let Some(first) = one.args.first_mut() {
                first.text = address.to_string();
            }
            true
        });
    }
}

fn add_parameters(server: &mut Directive, parameters: &[(&'static str, String)]) {
    for (name, value) in parameters {
        let is_this = |word: &Word| word.text.split_once('=').is_some_and(|(key, _)| key == *name);
        server.args.retain(|word| !is_this(word));
        server.args.push(Word { text: format!("{name}={value}"), span: server.name.span });
    }
}

#[cfg(test)]
mod tests {
    use keel_diag::Sources;

    use super::*;

    fn parsed(text: &str) -> Vec<Directive> {
        let mut sources = Sources::default();
        let id = sources.add("nginx.conf", text);
        let (directives, problems) = keel_nginx::parse(&sources, id);
        assert!(problems.is_empty());
        directives
    }

    #[test]
    fn listens_where_nobody_else_does() {
        let mut directives = parsed(
            "http { server { listen 0.0.0.0:8080; listen [::]:8080; listen 81 default_server; } server { listen 9; } }",
        );
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        place_listens(&mut directives, &BTreeMap::from([(8080, at(7001)), (81, at(7002))]));
        let expect = "http {\n    server {\n        listen 127.0.0.1:7001;\n        \
                      listen 127.0.0.1:7002 default_server;\n    }\n    server {\n    }\n}\n";
        assert_eq!(text(&directives), expect);
    }

    #[test]
    fn changes_what_is_asked_and_nothing_else() {
        let directives = parsed(
            "events { }\nhttp {\n    proxy_read_timeout 9s;\n    upstream app { server a:1 max_conns=1; server b:1 weight=2; }\n    \
             upstream other { server c:1; }\n    server { listen 80; location / { proxy_read_timeout 8s; proxy_pass http://app; } }\n}\n",
        );
        let tuning = Tuning {
            directives: vec![
                ("proxy_read_timeout", "1s".into()),
                ("proxy_next_upstream", "error timeout".into()),
            ],
            server_parameters: vec![("max_conns", "8".into())],
            port: None,
        };
        let changed = text(&tuned(&directives, "app", &tuning));
        let expect = "events {\n}\nhttp {\n    proxy_read_timeout 1s;\n    proxy_next_upstream error timeout;\n    \
             upstream app {\n        server a:1 max_conns=8;\n        server b:1 weight=2 max_conns=8;\n    }\n    \
             upstream other {\n        server c:1;\n    }\n    server {\n        listen 80;\n        location / {\n            \
             proxy_pass http://app;\n        }\n    }\n}\n";
        assert_eq!(changed, expect);
        let moved = Tuning { port: Some(7001), ..Tuning::default() };
        let changed = text(&tuned(&directives, "app", &moved));
        assert!(
            changed.contains("server a:7001 max_conns=1;") && changed.contains("server c:1;"),
            "{changed}"
        );
    }
}
