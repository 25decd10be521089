//! Which virtual server answers for a host name: exact, then the longest wildcard at the head, then at the tail, then
//! regular expressions in order, then the default one.

use std::collections::HashMap;

use keel_model::{ServerId, ServerName, VirtualServer};
use keel_regex::Regex;

use crate::error::CompileError;

/// The names behind one listener.
pub(crate) struct ServerNames {
    default: usize,
    exact: HashMap<Box<[u8]>, usize>,
    /// `.example.org` for `*.example.org`, longest first.
    heads: Vec<(Box<[u8]>, usize)>,
    /// `www.example.` for `www.example.*`, longest first.
    tails: Vec<(Box<[u8]>, usize)>,
    regexes: Vec<(Regex, usize)>,
    only_default: bool,
}

/// The server of a host, and the expression that matched, whose groups are variables.
#[derive(Clone, Copy)]
pub(crate) struct NameMatch<'a> {
    pub(crate) server: usize,
    pub(crate) regex: Option<&'a Regex>,
}

impl ServerNames {
    pub(super) fn compile(
        servers: &[VirtualServer],
        default: ServerId,
        ids: &[ServerId],
    ) -> Result<Self, CompileError> {
        let dangling = || CompileError::Dangling { what: "a server".into() };
        let mut names = Self {
            default: default.0 as usize,
            exact: HashMap::new(),
            heads: Vec::new(),
            tails: Vec::new(),
            regexes: Vec::new(),
            only_default: false,
        };
        servers.get(names.default).ok_or_else(dangling)?;
        for id in ids {
            let server = id.0 as usize;
            for name in &servers.get(server).ok_or_else(dangling)?.names {
                match name {
                    ServerName::Exact(text) => {
                        names.exact.entry(text.as_bytes().into()).or_insert(server);
                    }
                    ServerName::Dot(text) => {
                        let bare = text.strip_prefix('.').unwrap_or(text);
                        names.exact.entry(bare.as_bytes().into()).or_insert(server);
                        names.heads.push((format!(".{bare}").into_bytes().into(), server));
                    }
                    ServerName::WildcardHead(text) => {
                        let tail = text.strip_prefix('*').unwrap_or(text);
                        names.heads.push((tail.as_bytes().into(), server));
                    }
                    ServerName::WildcardTail(text) => {
                        let head = text.strip_suffix('*').unwrap_or(text);
                        names.tails.push((head.as_bytes().into(), server));
                    }
                    ServerName::Regex(pattern) => names.regexes.push((super::regex(pattern)?, server)),
                }
            }
        }
        names.heads.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        names.tails.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        names.only_default = names.regexes.is_empty() && ids.iter().all(|id| id.0 as usize == names.default);
        Ok(names)
    }

    /// Gives the server that answers before a host is known.
    pub(crate) fn default_server(&self) -> usize {
        self.default
    }

    /// Finds the server for a host in lower case, without port.
    pub(crate) fn find(&self, host: &[u8]) -> NameMatch<'_> {
        let plain = |server| NameMatch { server, regex: None };
        if self.only_default {
            return plain(self.default);
        }
        if host.is_empty() {
            return plain(self.exact.get(host).copied().unwrap_or(self.default));
        }
        if let Some(server) = self.exact.get(host) {
            return plain(*server);
        }
        let head = |(text, _): &&(Box<[u8]>, usize)| host.len() > text.len() && host.ends_with(text);
        if let Some((_, server)) = self.heads.iter().find(head) {
            return plain(*server);
        }
        let tail = |(text, _): &&(Box<[u8]>, usize)| host.len() > text.len() && host.starts_with(text);
        if let Some((_, server)) = self.tails.iter().find(tail) {
            return plain(*server);
        }
        for (regex, server) in &self.regexes {
            // Of one that takes too many steps nobody knows. Taking its groups fails, too, and ends the request.
            if regex.is_match(host).unwrap_or(true) {
                return NameMatch { server: *server, regex: Some(regex) };
            }
        }
        plain(self.default)
    }
}

#[cfg(test)]
mod tests {
    use keel_model::{Return, ServerId, ServerName, Template};

    use crate::rig::Rig;

    #[test]
    fn a_request_without_a_host_is_for_the_server_without_a_name() {
        let rig = Rig::new(|plan| {
            let mut unnamed = plan.servers[0].clone();
            unnamed.names = vec![ServerName::Exact(String::new())];
            for (server, text) in [(&mut plan.servers[0], "named"), (&mut unnamed, "unnamed")] {
                server.rewrite = Return { status: 200, text: Some(Template::literal(text)) }.into();
            }
            plan.servers.push(unnamed);
            plan.listeners[0].servers.push(ServerId(1));
        });
        let check = |request: &str, expect: &str| {
            let got = rig.request(request);
            assert!(got.ends_with(&format!("\r\n\r\n{expect}")), "{request}: {got}");
        };
        check("GET / HTTP/1.0\r\n\r\n", "unnamed");
        check("GET / HTTP/1.0\r\nHost: h\r\n\r\n", "named");
        check("GET / HTTP/1.0\r\nHost: other\r\n\r\n", "named");
    }
}
