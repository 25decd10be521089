//! A configuration out of memory.

#![allow(dead_code, reason = "each test file uses what it needs")]

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use keel_diag::{Color, Format, Sources};
use keel_model::{Location, LocationMatcher, VirtualServer};
use keel_nginx::{Configuration, Files, Loaded, Options};

/// Files by their paths. Not root, and every host name is 127.0.0.1 unless it ends in `.invalid`.
#[derive(Default)]
pub(crate) struct Memory(pub(crate) BTreeMap<PathBuf, Vec<u8>>);

impl Files for Memory {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.get(path).cloned().ok_or_else(|| io::Error::from_raw_os_error(2))
    }

    fn glob(&self, pattern: &Path) -> Vec<PathBuf> {
        let pattern = pattern.to_string_lossy();
        let (before, after) = pattern.split_once('*').unwrap_or((&pattern, ""));
        let fits = |path: &&PathBuf| {
            let path = path.to_string_lossy();
            path.starts_with(before) && path.ends_with(after)
        };
        self.0.keys().filter(fits).cloned().collect()
    }

    fn resolve(&self, host: &str) -> io::Result<Vec<std::net::IpAddr>> {
        match host.ends_with(".invalid") {
            true => Err(io::Error::other("no such host")),
            false => Ok(vec![[127, 0, 0, 1].into()]),
        }
    }

    fn is_root(&self) -> bool {
        false
    }
}

/// Reads files; the first is the configuration.
pub(crate) fn load_files(files: &[(&str, &str)]) -> (Loaded, Sources) {
    let mut memory = Memory::default();
    for (path, text) in files {
        memory.0.insert(Path::new("/etc/nginx").join(path), text.as_bytes().to_vec());
    }
    let options = Options { prefix: "/etc/nginx".into(), conf_path: files[0].0.into(), globals: Vec::new() };
    let mut sources = Sources::default();
    let loaded = keel_nginx::load(&options, &memory, &mut sources);
    (loaded, sources)
}

/// Reads one text.
pub(crate) fn load(text: &str) -> (Loaded, Sources) {
    load_files(&[("nginx.conf", text)])
}

/// Gives nginx's words for what is wrong, without paths.
pub(crate) fn short(text: &str) -> String {
    let (loaded, sources) = load(text);
    let text = keel_diag::render(&loaded.diagnostics, &sources, Format::Short, Color::None);
    text.replace(" in /etc/nginx/nginx.conf", "").replace("nginx: ", "")
}

/// Gives what people are shown.
pub(crate) fn human(files: &[(&str, &str)]) -> String {
    let (loaded, sources) = load_files(files);
    keel_diag::render(&loaded.diagnostics, &sources, Format::Human, Color::None)
}

/// Reads a text that must have no error.
pub(crate) fn configuration(text: &str) -> Configuration {
    let (loaded, sources) = load(text);
    let said = keel_diag::render(&loaded.diagnostics, &sources, Format::Short, Color::None);
    loaded.configuration.unwrap_or_else(|| panic!("{said}"))
}

/// Reads the inside of a `server` that must have no error.
pub(crate) fn server(inside: &str) -> VirtualServer {
    let text = format!("events {{}} http {{ server {{ listen 127.0.0.1:80; {inside} }} }}");
    configuration(&text).plan.servers.remove(0)
}

/// Finds a location by its prefix, exact path, expression or name.
pub(crate) fn location<'a>(server: &'a VirtualServer, name: &str) -> &'a Location {
    fn find<'a>(locations: &'a [Location], name: &str) -> Option<&'a Location> {
        locations.iter().find_map(|location| {
            let own = match &location.matcher {
                LocationMatcher::Exact(text)
                | LocationMatcher::Prefix(text)
                | LocationMatcher::PrefixFinal(text)
                | LocationMatcher::Named(text) => text,
                LocationMatcher::Regex(pattern) => &pattern.source,
            };
            if own == name { Some(location) } else { find(&location.locations, name) }
        })
    }
    find(&server.locations, name).unwrap_or_else(|| panic!("no location {name}"))
}
