//! Variables: their names, and text that holds them.
//!
//! A name is looked up among those the configuration defines (`map`), then among nginx's own, then it must be a named
//! group of some regular expression; that last is known only when everything is read, so such names are kept and
//! checked at the end.

use std::collections::{HashMap, HashSet};

use keel_diag::{Diagnostic, Span, suggest};
use keel_model::{
    DefinedVariable, Part, Pattern, ProxyTlv, SslVariable, Template, Variable, VariableId, VariableSource,
};

use crate::{
    ast::{Directive, Word},
    pattern::{self, PatternError},
    reader::Reader,
};

/// Names that the configuration defines, in lower case.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Those that a block defines anywhere in `http`, above its use or below.
    pub(crate) blocks: HashSet<String>,
    /// The list for the plan: each name that a block defines or that is used.
    pub(crate) defined: Vec<DefinedVariable>,
    /// What `set` gives them, in the file's order.
    pub(crate) set: Vec<(VariableId, Template)>,
    ids: HashMap<String, VariableId>,
    /// Named groups of regular expressions.
    pub(crate) groups: HashSet<String>,
    /// Names that a directive reported already would have defined.
    pub(crate) excused: HashSet<String>,
    /// Names used so far that only a named group can define, with where.
    pending: Vec<(String, Span)>,
}

impl Names {
    /// Gives the variable of a name that the configuration defines, in lower case; until a block says more it has the
    /// values that are written into it.
    pub(crate) fn define(&mut self, name: &str) -> Variable {
        if let Some(id) = self.ids.get(name) {
            return Variable::Defined(*id);
        }
        let id = VariableId(u32::try_from(self.defined.len()).unwrap_or(u32::MAX));
        self.ids.insert(name.to_owned(), id);
        self.defined.push(DefinedVariable { name: name.to_owned(), source: VariableSource::Written });
        Variable::Defined(id)
    }

    /// Notes the names that blocks and `set` define in an `http` block, before anything of it is read: they may be used above
    /// their definition.
    pub(crate) fn note_blocks(&mut self, block: &[Directive]) {
        for directive in block {
            let name = match (directive.name.text.as_str(), directive.args.as_slice()) {
                ("map" | "split_clients", [_, name]) | ("geo", [.., name]) | ("set", [name, _]) => Some(name),
                _ => None,
            };
            let name = name.and_then(|name| name.text.strip_prefix('$')).map(str::to_ascii_lowercase);
            self.blocks.extend(name.filter(|name| !is_builtin(name)));
            self.note_blocks(directive.block.as_deref().unwrap_or_default());
        }
    }

    /// Notes that a `set` gives a variable its value, unless a block does so before.
    pub(crate) fn note_set(&mut self, id: VariableId) {
        if let Some(variable) = self.defined.get_mut(id.0 as usize)
            && variable.source == VariableSource::Written
        {
            variable.source = VariableSource::Set;
        }
    }

    /// Says what gives a variable its value. The last block of a name holds.
    pub(crate) fn define_as(&mut self, name: &str, source: VariableSource) {
        self.define(name);
        let id = self.ids.get(name).map(|id| id.0 as usize);
        if let Some(variable) = id.and_then(|id| self.defined.get_mut(id)) {
            variable.source = source;
        }
    }
}

/// What is known of one of nginx's variables.
enum Known {
    /// It has a value here.
    Value(Variable),
    /// It never has one here, and nginx wouldn't give it one either in what is configured.
    Absent,
    /// Its value would differ from nginx's.
    Unsupported,
}

/// Variables without a parameter in their name.
#[rustfmt::skip]
const FIXED: &[(&str, Variable)] = &[
    ("args", Variable::Args), ("binary_remote_addr", Variable::BinaryRemoteAddr),
    ("body_bytes_sent", Variable::BodyBytesSent), ("bytes_sent", Variable::BytesSent),
    ("connection", Variable::Connection), ("connection_requests", Variable::ConnectionRequests),
    ("connection_time", Variable::ConnectionTime), ("connections_active", Variable::ConnectionsActive),
    ("connections_reading", Variable::ConnectionsReading), ("connections_waiting", Variable::ConnectionsWaiting),
    ("connections_writing", Variable::ConnectionsWriting), ("content_length", Variable::ContentLength),
    ("content_type", Variable::ContentType), ("document_root", Variable::DocumentRoot),
    ("document_uri", Variable::Uri), ("fastcgi_path_info", Variable::FastCgiPathInfo),
    ("fastcgi_script_name", Variable::FastCgiScriptName), ("gzip_ratio", Variable::GzipRatio), ("host", Variable::Host),
    ("hostname", Variable::Hostname), ("http2", Variable::Http2),
    ("https", Variable::Https), ("invalid_referer", Variable::InvalidReferer), ("is_args", Variable::IsArgs), ("is_request_port", Variable::IsRequestPort),
    ("limit_conn_status", Variable::LimitConnStatus), ("limit_rate", Variable::LimitRate),
    ("limit_req_status", Variable::LimitReqStatus), ("msec", Variable::Msec), ("msie", Variable::Msie), ("nginx_version", Variable::NginxVersion),
    ("pid", Variable::Pid), ("pipe", Variable::Pipe),
    ("proxy_add_x_forwarded_for", Variable::ProxyAddXForwardedFor), ("proxy_host", Variable::ProxyHost),
    ("proxy_port", Variable::ProxyPort), ("proxy_protocol_addr", Variable::ProxyProtocolAddr),
    ("proxy_protocol_port", Variable::ProxyProtocolPort),
    ("proxy_protocol_server_addr", Variable::ProxyProtocolServerAddr),
    ("proxy_protocol_server_port", Variable::ProxyProtocolServerPort), ("query_string", Variable::Args),
    ("realip_remote_addr", Variable::RealipRemoteAddr), ("realip_remote_port", Variable::RealipRemotePort),
    ("realpath_root", Variable::RealpathRoot), ("remote_addr", Variable::RemoteAddr),
    ("remote_port", Variable::RemotePort), ("remote_user", Variable::RemoteUser),
    ("request", Variable::Request), ("request_body", Variable::RequestBody),
    ("request_body_file", Variable::RequestBodyFile), ("request_completion", Variable::RequestCompletion),
    ("request_filename", Variable::RequestFilename), ("request_id", Variable::RequestId),
    ("request_length", Variable::RequestLength), ("request_method", Variable::RequestMethod),
    ("request_port", Variable::RequestPort), ("request_time", Variable::RequestTime),
    ("request_uri", Variable::RequestUri), ("scheme", Variable::Scheme), ("secure_link", Variable::SecureLink),
    ("secure_link_expires", Variable::SecureLinkExpires), ("server_addr", Variable::ServerAddr),
    ("server_name", Variable::ServerName), ("server_port", Variable::ServerPort),
    ("server_protocol", Variable::ServerProtocol), ("status", Variable::Status),
    ("tcpinfo_rcv_space", Variable::TcpinfoRcvSpace), ("tcpinfo_rtt", Variable::TcpinfoRtt),
    ("tcpinfo_rttvar", Variable::TcpinfoRttvar), ("tcpinfo_snd_cwnd", Variable::TcpinfoSndCwnd),
    ("time_iso8601", Variable::TimeIso8601), ("time_local", Variable::TimeLocal),
    ("upstream_addr", Variable::UpstreamAddr), ("upstream_bytes_received", Variable::UpstreamBytesReceived),
    ("upstream_bytes_sent", Variable::UpstreamBytesSent), ("upstream_connect_time", Variable::UpstreamConnectTime),
    ("upstream_header_time", Variable::UpstreamHeaderTime), ("upstream_instance", Variable::UpstreamInstance),
    ("upstream_response_length", Variable::UpstreamResponseLength),
    ("upstream_response_time", Variable::UpstreamResponseTime), ("upstream_status", Variable::UpstreamStatus),
    ("uid_got", Variable::UidGot), ("uid_set", Variable::UidSet), ("uri", Variable::Uri),
];

/// Makes a variable from the rest of its name.
type MakeVariable = fn(String) -> Variable;

/// Variables whose name ends in a parameter; the longest prefix that fits decides.
const PREFIXED: &[(&str, MakeVariable)] = &[
    ("http_", Variable::RequestHeader),
    ("sent_http_", Variable::SentHeader),
    ("sent_trailer_", Variable::SentTrailer),
    ("upstream_http_", Variable::UpstreamHeader),
    ("upstream_trailer_", Variable::UpstreamTrailer),
    ("upstream_cookie_", Variable::UpstreamCookie),
    ("cookie_", Variable::Cookie),
    ("arg_", Variable::Arg),
];

/// What stands behind `ssl_` in variables of a client's TLS.
#[rustfmt::skip]
const SSL: &[(&str, SslVariable)] = &[
    ("alpn_protocol", SslVariable::AlpnProtocol), ("cipher", SslVariable::Cipher), ("ciphers", SslVariable::Ciphers),
    ("client_cert", SslVariable::ClientCert), ("client_escaped_cert", SslVariable::ClientEscapedCert),
    ("client_fingerprint", SslVariable::ClientFingerprint), ("client_i_dn", SslVariable::ClientIDn),
    ("client_i_dn_legacy", SslVariable::ClientIDnLegacy), ("client_raw_cert", SslVariable::ClientRawCert),
    ("client_s_dn", SslVariable::ClientSDn), ("client_s_dn_legacy", SslVariable::ClientSDnLegacy),
    ("client_serial", SslVariable::ClientSerial), ("client_v_end", SslVariable::ClientVEnd),
    ("client_v_remain", SslVariable::ClientVRemain), ("client_v_start", SslVariable::ClientVStart),
    ("client_verify", SslVariable::ClientVerify), ("session_id", SslVariable::SessionId),
    ("curve", SslVariable::Curve), ("curves", SslVariable::Curves), ("protocol", SslVariable::Protocol),
    ("server_name", SslVariable::ServerName), ("session_reused", SslVariable::SessionReused),
];

/// Types of the values of a PROXY header (proxy-protocol.txt §2.2).
#[rustfmt::skip]
const PROXY_TLVS: &[(&str, u8)] =
    &[("alpn", 0x01), ("authority", 0x02), ("unique_id", 0x05), ("ssl", 0x20), ("netns", 0x30)];

/// Types of those among them that are about the client's TLS.
#[rustfmt::skip]
const PROXY_SSL_TLVS: &[(&str, u8)] =
    &[("version", 0x21), ("cn", 0x22), ("cipher", 0x23), ("sig_alg", 0x24), ("key_alg", 0x25)];

/// Variables that have no value while what gives them one isn't configured, or is reported where it is.
#[rustfmt::skip]
const ABSENT: &[&str] = &[
    "http3", "quic", "session_log_binary_id", "session_log_id", "session_time",
    "uid_reset", "upstream_cache_age", "upstream_cache_etag", "upstream_cache_last_modified",
    "upstream_cache_status", "upstream_queue_time",
];

/// Variables of modules that are not there.
#[rustfmt::skip]
const UNSUPPORTED: &[&str] = &[
    "ancient_browser", "connections_active", "connections_reading", "connections_waiting", "connections_writing",
    "date_gmt", "date_local", "jwt_payload", "memcached_key",
    "ancient_browser",
    "date_gmt", "date_local", "fastcgi_path_info", "fastcgi_script_name", "jwt_payload", "memcached_key",
    "modern_browser", "slice_range", "upstream_last_addr", "upstream_last_server_name",
];

fn known(name: &str) -> Option<Known> {
    if let Some((_, variable)) = FIXED.iter().find(|(fixed, _)| *fixed == name) {
        return Some(Known::Value(variable.clone()));
    }
    if let Some(name) = name.strip_prefix("ssl_") {
        let found = SSL.iter().find(|(known, _)| *known == name);
        return Some(found.map_or(Known::Absent, |(_, variable)| Known::Value(Variable::Ssl(*variable))));
    }
    if ABSENT.contains(&name) {
        return Some(Known::Absent);
    }
    if let Some(tlv) = name.strip_prefix("proxy_protocol_tlv_") {
        // As in nginx, a name that it doesn't know is one that no header has.
        return Some(
            proxy_tlv(tlv).map_or(Known::Absent, |tlv| Known::Value(Variable::ProxyProtocolTlv(tlv))),
        );
    }
    if UNSUPPORTED.contains(&name) || name.starts_with("geoip_") || name.starts_with("jwt_") {
        return Some(Known::Unsupported);
    }
    PREFIXED
        .iter()
        .find_map(|(prefix, make)| name.strip_prefix(prefix).map(|rest| Known::Value(make(rest.to_owned()))))
}

/// Reads the rest of a `$proxy_protocol_tlv_` name: one of nginx's, or a type in hexadecimal.
fn proxy_tlv(name: &str) -> Option<ProxyTlv> {
    let in_hex = |text: &str| u8::try_from(u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()?).ok();
    let of = |names: &[(&str, u8)], name: &str| {
        let named = names.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
        named.or_else(|| in_hex(name))
    };
    match name.strip_prefix("ssl_") {
        Some("verify") => Some(ProxyTlv::SslVerify),
        Some(name) => of(PROXY_SSL_TLVS, name).map(ProxyTlv::Ssl),
        None => of(PROXY_TLVS, name).map(ProxyTlv::Kind),
    }
}

/// Tells whether nginx itself defines a variable, so that a `map` can't.
pub(crate) fn is_builtin(name: &str) -> bool {
    FIXED.iter().any(|(fixed, _)| *fixed == name)
}

/// Tells whether a variable stands in a text.
pub(crate) fn has_variables(text: &str) -> bool {
    text.contains('$')
}

impl Reader<'_> {
    /// Reads a word with variables in it; reports and gives `None` if it can't be.
    pub(crate) fn template(&mut self, word: &Word) -> Option<Template> {
        self.template_text(&word.text, word)
    }

    /// Reads the template of an argument.
    pub(crate) fn template_arg(&mut self, directive: &Directive) -> Option<Template> {
        self.template(directive.args.first()?)
    }

    /// Reads `text`, which comes from `word`, as a template.
    pub(crate) fn template_text(&mut self, text: &str, word: &Word) -> Option<Template> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        let mut valid = true;
        while let Some(at) = rest.find('$') {
            let (before, from_dollar) = rest.split_at(at);
            literal.push_str(before);
            match cut_name(from_dollar) {
                Ok((name, after)) => {
                    rest = after;
                    match self.variable(name, word) {
                        Some(variable) => {
                            if !literal.is_empty() {
                                parts.push(Part::Literal(std::mem::take(&mut literal)));
                            }
                            parts.push(Part::Variable(variable));
                        }
                        None => valid = false,
                    }
                }
                Err((message, nginx)) => {
                    let span = self.variable_span(word, from_dollar.get(..1).unwrap_or("$"));
                    self.error("nginx::invalid-variable-name", message, span, nginx);
                    return None;
                }
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        valid.then_some(Template { parts })
    }

    /// Reads the name that a block defines; reports and gives `None` where it can't.
    pub(crate) fn defined_name(&mut self, directive: &Directive, word: &Word) -> Option<String> {
        let Some(name) = word.text.strip_prefix('$').filter(|name| !name.is_empty()) else {
            let nginx = format!("invalid variable name \"{}\"", word.text);
            self.invalid(directive, word, nginx, "a variable such as `$name`");
            return None;
        };
        let name = name.to_ascii_lowercase();
        if is_builtin(&name) {
            let nginx = format!("the duplicate \"{name}\" variable");
            let message = format!("`${name}` is nginx's own variable");
            self.error("nginx::duplicate-variable", message, word.span, nginx);
            return None;
        }
        Some(name)
    }

    /// Reads the variable that `set` and its like give a value: `$args`, one of a block, or a new one.
    pub(crate) fn settable(&mut self, directive: &Directive, word: &Word) -> Option<Variable> {
        match word.text.to_ascii_lowercase().as_str() {
            "$args" => return Some(Variable::Args),
            "$limit_rate" => return Some(Variable::LimitRate),
            _ => {}
        }
        let name = self.defined_name(directive, word)?;
        let variable = self.http.names.define(&name);
        self.http.names.groups.insert(name.clone());
        let family = PREFIXED.iter().find(|(prefix, _)| name.starts_with(prefix));
        if let (Some((prefix, make)), Variable::Defined(id)) = (family, &variable)
            && let Some(defined) = self.http.names.defined.get_mut(id.0 as usize)
            && defined.source == VariableSource::Written
        {
            let own = make(name.strip_prefix(prefix).unwrap_or_default().to_owned());
            defined.source = VariableSource::Builtin(own);
        }
        Some(variable)
    }

    /// Reads the variable that an `if` tests, without its `$`.
    pub(crate) fn tested(&mut self, name: &str, word: &Word) -> Option<Variable> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        // The whole word is the name here, so that an argument or a cookie may have any.
        let is_free = || {
            let lower = name.to_ascii_lowercase();
            lower.starts_with("arg_") || lower.starts_with("cookie_")
        };
        let is_plain = name.chars().all(is_name) && !name.starts_with(|c: char| c.is_ascii_digit());
        if is_plain || is_free() {
            return self.variable(name, word);
        }
        let message = format!("`${name}` can't be tested");
        let nginx = format!("unknown \"{name}\" variable");
        self.error("nginx::unknown-variable", message, word.span, nginx);
        None
    }

    /// Finds the variable of a name.
    pub(crate) fn variable(&mut self, name: &str, word: &Word) -> Option<Variable> {
        if let Ok(group @ 1..=9) = name.parse::<u8>() {
            return Some(Variable::Capture(group));
        }
        let lower = name.to_ascii_lowercase();
        if self.http.names.blocks.contains(&lower) {
            return Some(self.http.names.define(&lower));
        }
        match known(&lower) {
            Some(Known::Value(variable)) => Some(variable),
            // A name that no group sets has no value.
            Some(Known::Absent) => Some(self.http.names.define(&lower)),
            Some(Known::Unsupported) => {
                let span = self.variable_span(word, name);
                self.diagnostics.push(
                    Diagnostic::error(
                        "nginx::unsupported-variable",
                        format!("the variable `${name}` is not supported yet"),
                    )
                    .at(span, "nginx would put a value here")
                    .help("leave it out"),
                );
                None
            }
            None => {
                let span = self.variable_span(word, name);
                let variable = self.http.names.define(&lower);
                self.http.names.pending.push((lower, span));
                Some(variable)
            }
        }
    }

    /// Finds a variable inside its word; the whole word if escapes hide it.
    fn variable_span(&self, word: &Word, name: &str) -> Span {
        let raw = self.sources.slice(word.span);
        let plain = raw.find(&format!("${name}")).map(|at| (at, name.len() + 1));
        let braced = || raw.find(&format!("${{{name}}}")).map(|at| (at, name.len() + 3));
        match plain.or_else(braced) {
            Some((at, length)) => {
                let start = word.span.start as usize + at;
                Span::new(word.span.source, start..start + length)
            }
            None => word.span,
        }
    }

    /// Reports names that nothing defines. To be called when everything is read.
    pub(crate) fn check_pending_variables(&mut self) {
        for (name, span) in std::mem::take(&mut self.http.names.pending) {
            let names = &self.http.names;
            if names.groups.contains(&name) || names.excused.contains(&name) {
                continue;
            }
            let fixed = FIXED.iter().map(|(fixed, _)| *fixed);
            let defined = names.blocks.iter().chain(&names.groups).map(String::as_str);
            let mut found =
                Diagnostic::error("nginx::unknown-variable", format!("unknown variable `${name}`"))
                    .at(span, "nothing defines it")
                    .nginx(format!("unknown \"{name}\" variable"));
            if let Some(near) = suggest(&name, fixed.chain(defined)) {
                found = found.help(format!("did you mean `${near}`?"));
            }
            self.diagnostics.push(found);
        }
    }

    /// Reads a regular expression, notes its named groups, and reports what is wrong with it.
    pub(crate) fn pattern(&mut self, pcre: &str, span: Span, ignore_case: bool) -> Option<Pattern> {
        match pattern::translate(pcre, ignore_case) {
            Ok(translated) => {
                let names = translated.names.iter().map(|name| name.to_ascii_lowercase());
                self.http.names.groups.extend(names);
                if translated.groups > 9 {
                    self.diagnostics.push(
                        Diagnostic::warning("nginx::many-groups", "more than nine groups in one expression")
                            .at(span, "only `$1` to `$9` can be used"),
                    );
                }
                Some(translated.pattern)
            }
            Err(PatternError::Unsupported(what)) => {
                self.diagnostics.push(
                    Diagnostic::error(
                        "nginx::unsupported-regex",
                        format!("{what} isn't supported in a regular expression"),
                    )
                    .at(span, "no engine here can match it")
                    .help("match more than is meant here and sort out the rest in a location or `map` entry of its own"),
                );
                None
            }
            Err(PatternError::Invalid(text)) => {
                self.error(
                    "nginx::invalid-regex",
                    format!("invalid regular expression: {text}"),
                    span,
                    format!("pcre2_compile() failed: {text} in \"{pcre}\""),
                );
                None
            }
        }
    }
}

/// Cuts `$name`, `${name}` or `$1` off the front; a failure is a message and nginx's text for it.
fn cut_name(from_dollar: &str) -> Result<(&str, &str), (String, String)> {
    let after = from_dollar.get(1..).unwrap_or_default();
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let invalid = || ("`$` without a variable's name".to_owned(), "invalid variable name".to_owned());
    if let Some(braced) = after.strip_prefix('{') {
        let end = braced.find(|c| !in_name(c)).unwrap_or(braced.len());
        let (name, rest) = braced.split_at(end);
        let Some(rest) = rest.strip_prefix('}') else {
            let nginx = format!("the closing bracket in \"{name}\" variable is missing");
            return Err((format!("`${{{name}` lacks its closing bracket"), nginx));
        };
        return if name.is_empty() { Err(invalid()) } else { Ok((name, rest)) };
    }
    if after.starts_with(|c: char| ('1'..='9').contains(&c)) {
        return Ok(after.split_at(1));
    }
    let end = after.find(|c| !in_name(c)).unwrap_or(after.len());
    if end == 0 { Err(invalid()) } else { Ok(after.split_at(end)) }
}
