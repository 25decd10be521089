//! The nginx.conf reader: any text, in files divided by NUL, of which the first may include the others (`a`, `b`, ...).

#![no_main]

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use keel_diag::Sources;
use keel_fuzz::{check_diagnostics, has_error};
use keel_nginx::{Files, Options, load};
use libfuzzer_sys::fuzz_target;

struct Memory<'a> {
    texts: Vec<&'a [u8]>,
}

impl Files for Memory<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let index = match name.as_bytes() {
            b"nginx.conf" => 0,
            [letter] if letter.is_ascii_lowercase() => usize::from(letter - b'a') + 1,
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        self.texts.get(index).map(|text| text.to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn glob(&self, pattern: &Path) -> Vec<PathBuf> {
        let count = u8::try_from(self.texts.len().saturating_sub(1)).unwrap_or(0).min(26);
        (0..count).map(|number| pattern.with_file_name(char::from(b'a' + number).to_string())).collect()
    }

    fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Ok(vec![[127, 0, 0, 1].into(), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)])
    }

    fn is_root(&self) -> bool {
        true
    }
}

fuzz_target!(|bytes: &[u8]| {
    let files = Memory { texts: bytes.split(|byte| *byte == 0).collect() };
    let mut sources = Sources::default();
    let options = Options {
        prefix: "/prefix".into(),
        conf_path: "nginx.conf".into(),
        globals: vec!["daemon off;".into()],
    };
    let loaded = load(&options, &files, &mut sources);
    check_diagnostics(&loaded.diagnostics, &sources);
    assert_eq!(loaded.configuration.is_none(), has_error(&loaded.diagnostics));
    let mut again = Sources::default();
    assert_eq!(load(&options, &files, &mut again).configuration, loaded.configuration);
    if let Some(configuration) = loaded.configuration {
        let count = configuration.plan.servers.len();
        for listener in &configuration.plan.listeners {
            assert!(listener.servers.iter().all(|server| (server.0 as usize) < count), "{listener:?}");
            assert!((listener.default_server.0 as usize) < count, "{listener:?}");
        }
        assert_eq!(configuration.upstreams.len(), configuration.plan.upstreams.len());
    }
});
