//! Reads nginx.conf.
//!
//! [`load`] reads a configuration file and everything it includes into a [`Configuration`], in the words of
//! `keel-model`, and says in one run everything that is wrong with it. A directive is one row of a table in the file of
//! its nginx module; [`reference`](fn@reference) and [`explain`] are made from those rows. Judge of what a file means
//! is nginx 1.31.
//!
//! Names of peers are not resolved here: [`UpstreamSource`] holds them as written.

#![forbid(unsafe_code)]

mod address;
mod arguments;
mod ast;
mod builtin;
mod configuration;
mod directives;
mod files;
mod include;
mod known;
mod lexer;
mod lowering;
mod parser;
mod pattern;
mod reader;
mod reference;
mod registry;
mod value;
mod variables;

pub use ast::{Directive, Word};
pub use builtin::{IMAGE_DEFAULT_CONF, IMAGE_ERROR_PAGE, IMAGE_NGINX_CONF, IMAGE_PAGE};
pub use configuration::{
    Configuration, Loaded, MainSettings, Options, ServerAddress, ServerEntry, UpstreamOrigin, UpstreamSource,
    WorkerProcesses, load,
};
pub use directives::{core::UserText, http_ssl::EXPIRED, resolver::parse_resolver, syslog::SyslogName};
pub use files::{Files, HostFiles};
pub use parser::parse;
pub use reference::{explain, reference};
pub use registry::is_honoured;
