//! Variables and templates of an nginx.conf, worked out for a request: any text with variables, any head.
//!
//! Nothing is asked of peers: a file that would is left out.

#![no_main]

use std::{
    io,
    path::{Path, PathBuf},
};

use keel_diag::Sources;
use keel_nginx::{Files, Options, load};
use keel_proxy::fuzz::Plane;
use libfuzzer_sys::fuzz_target;

/// The one file there is.
struct Text(String);

impl Files for Text {
    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Ok(self.0.clone().into_bytes())
    }

    fn glob(&self, _: &Path) -> Vec<PathBuf> {
        Vec::new()
    }
}

fn configuration(value: &str, template: &str) -> String {
    format!(
        r#"events {{}}
http {{
    access_log off;
    error_log /dev/null;
    map "{value}" $mapped {{ hostnames; default "{template}"; *.example.org 1; ~^/(?<first>\w+) "$first"; }}
    server {{
        listen 80;
        server_name h ~^(?<host_part>\w+)\.org$;
        set $own "{value}";
        add_header X-Own "{template}" always;
        location / {{ return 200 "{template}|$own|$mapped|$host_part"; }}
        location ~ ^/r/(?<rest>.*)$ {{ rewrite ^ "/{value}/$rest" last; }}
        location /if/ {{ if ($mapped ~* "^(.)") {{ return 302 "/$1{template}"; }} return 404; }}
    }}
}}
"#
    )
}

fuzz_target!(|input: (&str, &str, &[u8])| {
    let (value, template, request) = input;
    let files = Text(configuration(value, template));
    let options =
        Options { prefix: "/nonexistent".into(), conf_path: "nginx.conf".into(), globals: Vec::new() };
    let Some(configuration) = load(&options, &files, &mut Sources::default()).configuration else { return };
    if !configuration.upstreams.is_empty() {
        return;
    }
    let Some(plane) = Plane::new(&configuration.plan) else { return };
    let own = [
        &b"GET /%41?a=b&c=%00 HTTP/1.1\r\nHost: www.example.org\r\nCookie: a=b; c\r\n\r\n"[..],
        b"GET /r/x/y?z HTTP/1.1\r\nHost: a.org\r\n\r\n",
        b"HEAD /if/ HTTP/1.0\r\n\r\n",
    ];
    for head in own.into_iter().chain([request]) {
        let Some(response) = plane.answer(head) else { continue };
        assert!(response.is_empty() || response.starts_with(b"HTTP/1."), "{response:?}");
    }
});
