//! What is said about faulty configurations.

mod support;

use insta::assert_snapshot;
use support::{human, short};

/// Most of the texts have no listener, of which a warning says so last: that one has a test of its own.
const NO_LISTENER: &str = "[warn] /etc/nginx/nginx.conf has no listener: nobody can connect";

fn check(text: &str, expect: &[&str]) {
    let got = short(text);
    let got: Vec<&str> = got.lines().filter(|line| *line != NO_LISTENER).collect();
    assert_eq!(got, expect, "for {text}");
}

#[test]
fn a_configuration_without_any_listener_is_named() {
    let has = |text: &str| short(text).lines().any(|line| line == NO_LISTENER);
    assert!(has("events {}") && has("events {} http { upstream u { server a; } }"));
    assert!(!has("events {} http { server { listen 80; } }"));
    // An error comes first.
    assert!(!has("events {} http { foo; }"));
}

/// Checks what stands in `http`, which begins on line 2.
fn check_http(inside: &str, expect: &[&str]) {
    check(&format!("events {{}}\nhttp {{ {inside}\n}}"), expect);
}

/// Checks what stands in a `server`, which begins on line 2.
fn check_server(inside: &str, expect: &[&str]) {
    check_http(&format!("server {{ listen 127.0.0.1:8080; {inside} }}"), expect);
}

#[test]
fn grammar() {
    check("events {}", &[]);
    check("", &["[emerg] no \"events\" section in configuration"]);
    check("events {} }", &["[emerg] unexpected \"}\":1"]);
    check("events {", &["[emerg] unexpected end of file, expecting \"}\":1"]);
    check(
        "events {}\nfoo",
        &[
            "[emerg] unexpected end of file, expecting \";\" or \"}\":2",
            "[emerg] unknown directive \"foo\":2",
        ],
    );
    check("events {};", &["[emerg] unexpected \";\":1"]);
    check("events {} { pid x; }", &["[emerg] unexpected \"{\":1"]);
    check("events {}\nhttp { sendfile on }", &["[emerg] unexpected \"}\":2"]);
    check(
        "events {}\npid 'a'b;",
        &["[emerg] invalid number of arguments in \"pid\" directive:2", "[emerg] unexpected \"b\":2"],
    );
    check("events {}\nhttp;", &["[emerg] directive \"http\" has no opening \"{\":2"]);
    check("events {}\npid a {}", &["[emerg] directive \"pid\" is not terminated by \";\":2"]);
}

#[test]
fn one_run_reports_all() {
    let text = "events {}\nfoo;\nhttp {\n  sendfile maybe;\n  server {\n    listen 0;\n    bar;\n  }\n  }\n}\npid a b;\n";
    check(
        text,
        &[
            "[emerg] unknown directive \"foo\":2",
            "[emerg] invalid value \"maybe\" in \"sendfile\" directive, it must be \"on\" or \"off\":4",
            "[emerg] invalid port in \"0\" of the \"listen\" directive:6",
            "[emerg] unknown directive \"bar\":7",
            "[emerg] unexpected \"}\":10",
            "[emerg] invalid number of arguments in \"pid\" directive:11",
        ],
    );
}

#[test]
fn places_and_duplicates() {
    check_http("timeout 5s;", &["[emerg] \"timeout\" directive is not allowed here:2"]);
    check("events {}\nlisten 80;", &["[emerg] \"listen\" directive is not allowed here:2"]);
    check("events {}\npid a; pid b;", &["[emerg] \"pid\" directive is duplicate:2"]);
    check_server("root a; root b;", &["[emerg] \"root\" directive is duplicate:2"]);
    check_server(
        "location / { root a; alias b; }",
        &["[emerg] \"alias\" directive is duplicate, \"root\" directive was specified earlier:2"],
    );
    check_http("log_format a b; log_format a b;", &["[emerg] duplicate \"log_format\" name \"a\":2"]);
    check_http("upstream u { server a; } upstream U { server a; }", &["[emerg] duplicate upstream \"U\":2"]);
}

#[test]
fn locations() {
    check_server("location /a {} location ^~ /a {}", &["[emerg] duplicate location \"/a\":2"]);
    check_server("location /a {} location = /a {}", &[]);
    check_server("location x /a {}", &["[emerg] invalid location modifier \"x\":2"]);
    check_server("location /a { location /b {} }", &["[emerg] location \"/b\" is outside location \"/a\":2"]);
    check_server(
        "location = /a { location /a/b {} }",
        &["[emerg] location \"/a/b\" cannot be inside the exact location \"/a\":2"],
    );
    check_server(
        "location /a { location @b {} }",
        &["[emerg] named location \"@b\" can be on the server level only:2"],
    );
    check_server(
        "location @a { location /b {} }",
        &["[emerg] location \"/b\" cannot be inside the named location \"@a\":2"],
    );
}

#[test]
fn listeners() {
    check_http("server { listen 127.0.0.1:80 foo; }", &["[emerg] invalid parameter \"foo\":2"]);
    check_http("server { listen 80; listen 80; }", &["[emerg] a duplicate listen 0.0.0.0:80:2"]);
    check_http(
        "server { listen 80 default_server; } server { listen 80 default_server; server_name b; }",
        &["[emerg] a duplicate default server for 0.0.0.0:80:2"],
    );
    check_http(
        "server { listen 80 backlog=1; } server { listen 80 backlog=1; server_name b; }",
        &["[emerg] duplicate listen options for 0.0.0.0:80:2"],
    );
    check_http(
        "server { listen 80; server_name a; } server { listen 80; server_name A; }",
        &["[warn] conflicting server name \"a\" on 0.0.0.0:80, ignored:2"],
    );
    check_http(
        "server { listen nosuch.invalid:80; }",
        &["[emerg] host not found in \"nosuch.invalid:80\" of the \"listen\" directive:2"],
    );
    check_server("server_name *a.b;", &["[emerg] server name \"*a.b\" is invalid:2"]);
}

#[test]
fn a_worker_needs_more_connections_than_there_are_listeners() {
    let with = |count: &str| {
        format!("events {{ worker_connections {count}; }}\nhttp {{ server {{ listen 80; listen 81; }} }}")
    };
    check(&with("3"), &[]);
    check(&with("2"), &["[emerg] 2 worker_connections are not enough for 2 listening sockets:1"]);
    check(&with("0"), &["[emerg] 0 worker_connections are not enough for 2 listening sockets:1"]);
    check(
        "events { worker_connections 0; }",
        &["[emerg] 0 worker_connections are not enough for 0 listening sockets:1"],
    );
}

#[test]
fn listeners_of_http3_are_skipped_as_long_as_another_serves() {
    let warning = "[warn] HTTP/3 is not there yet; `443` stays closed:2";
    check_http("server { listen 80; listen 443 quic; }", &[warning]);
    check_http(
        "server { listen 443 quic; }",
        &["[emerg] no listener of this server can be opened:2", warning],
    );
    check_http("server { listen 80; return 301 https://$host; } server { listen 443 quic; }", &[warning]);
    let said = human(&[(
        "nginx.conf",
        "events {} http { server { listen 80; listen 444 quic; } server { listen 443 quic; } }",
    )]);
    assert_eq!(said.matches("so this server is left out").count(), 1, "{said}");
    assert!(!said.contains("end TLS in front"), "{said}");
}

#[test]
fn tls() {
    let none =
        |name: &str| format!("[emerg] no \"{name}\" is defined for the \"listen ... ssl\" directive:2");
    check_http("server { listen 443 ssl; }", &[&none("ssl_certificate")]);
    check_http("server { listen 443 ssl; ssl_reject_handshake on; }", &[]);
    let old = "[warn] nginx has no directive `ssl` any more:2";
    check_http("server { listen 443; ssl on; }", &[&none("ssl_certificate"), old]);
    check_http("ssl on; server { listen 80; ssl off; ssl_reject_handshake on; }", &[old]);
    check_http(
        "server { listen 443 ssl; ssl_reject_handshake on; } server { listen 443; server_name b; }",
        &[&none("ssl_certificate")],
    );
    check_server(
        "ssl_certificate a.crt;",
        &["[emerg] no \"ssl_certificate_key\" is defined for certificate \"a.crt\":2"],
    );
    check_server("ssl_protocols TLSv1 TLSv1.2; ssl_ecdh_curve auto;", &["[warn] `TLSv1` is never spoken:2"]);
    check_server(
        "ssl_protocols SSLv3;",
        &["[emerg] no version of TLS is left that is spoken:2", "[warn] `SSLv3` is never spoken:2"],
    );
    check_server(
        "ssl_ciphers ECDHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES128-SHA;",
        &["[warn] these ciphers are not there: `DHE-RSA-AES128-SHA`:2"],
    );
    check_server(
        "ssl_ciphers AES128-SHA;",
        &["[emerg] SSL_CTX_set_cipher_list(\"AES128-SHA\") failed (SSL: no cipher match):2"],
    );
    check_server("ssl_ecdh_curve x;", &["[emerg] SSL_CTX_set1_curves_list(\"x\") failed:2"]);
    check_server("ssl_verify_client x;", &["[emerg] invalid value \"x\":2"]);
    check_server(
        "ssl_reject_handshake on; ssl_verify_client on;",
        &["[emerg] no ssl_client_certificate for ssl_verify_client:2"],
    );
}

/// A self-signed certificate and its key in PEM.
#[expect(clippy::unwrap_used, reason = "a test ends at the first thing that goes wrong")]
fn certificate(until: i32) -> (String, String) {
    let mut params = rcgen::CertificateParams::new(vec!["h".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn certificates_are_looked_at_and_keys_are_not_shown() {
    let (one, key) = certificate(4000);
    let (old, old_key) = certificate(2001);
    let said = |certificate: &str, key_file: &str| {
        let conf = format!(
            "events {{}} http {{ ssl_certificate {certificate}; ssl_certificate_key {key_file};
             server {{ listen 443 ssl; }} server {{ listen 443; server_name b; }} }}"
        );
        let files = [
            ("nginx.conf", conf.as_str()),
            ("a.crt", &one),
            ("a.key", &key),
            ("old.crt", &old),
            ("old.key", &old_key),
        ];
        human(&files)
    };
    assert_eq!(said("a.crt", "a.key"), "");
    let all = [
        said("none.crt", "a.key"),
        said("a.key", "a.key"),
        said("a.crt", "a.crt"),
        said("a.crt", "old.key"),
        said("old.crt", "old.key"),
        said("a.crt", "$name"),
        said("a.crt", &format!("\"data:{}\"", old_key.trim_end())),
    ];
    let expect = [
        "the certificate `none.crt` can't be read",
        "the certificate `a.key` can't be used",
        "the certificate key `a.crt` can't be used",
        "the key `old.key` isn't that of `a.crt`",
        "the certificate `old.crt` has expired",
        "a certificate key with variables is not supported yet",
        "the key `data:...` isn't that of `a.crt`",
    ];
    for (said, expect) in all.iter().zip(expect) {
        assert!(said.contains(expect), "{expect:?} isn't in:\n{said}");
        assert_eq!(said.matches("nginx::").count(), 1, "said once for both servers:\n{said}");
    }
    for secret in key.lines().chain(old_key.lines()).filter(|line| !line.starts_with('-')) {
        assert!(all.iter().all(|said| !said.contains(secret)), "a key is shown");
    }
}

#[test]
fn resolvers() {
    let upstream = "upstream u { server app:80 resolve; }";
    check_http(&format!("resolver 127.0.0.11 valid=5s ipv6=off; resolver_timeout 5s; {upstream}"), &[]);
    check_http("upstream u { resolver system; resolver_timeout 1s; server app:80 resolve; }", &[]);
    check_http("upstream u { server 127.0.0.1:80 resolve; }", &[]);
    // Whether somebody resolves it is known where names are.
    check_http(upstream, &[]);
    check_http(
        "resolver 127.0.0.11; resolver 127.0.0.1;",
        &["[emerg] \"resolver\" directive is duplicate:2"],
    );
    check_http("resolver valid=5s;", &["[emerg] no resolvers defined:2"]);
    check_http("resolver 127.0.0.11 valid=soon;", &["[emerg] invalid parameter: valid=soon:2"]);
    check_http("resolver 127.0.0.11:0;", &["[emerg] invalid port in resolver \"127.0.0.11:0\":2"]);
}

#[test]
fn upstreams() {
    check_http("upstream u { }", &["[emerg] no servers are inside upstream:2"]);
    check_http("upstream u { server a weight=0; }", &["[emerg] invalid parameter \"weight=0\":2"]);
    check_http("upstream u { server a:b; }", &["[emerg] invalid port in upstream \"a:b\":2"]);
    check_http(
        "upstream u { server a; least_conn; ip_hash; }",
        &["[warn] load balancing method redefined:2"],
    );
    check_http(
        "upstream u { server a; } server { listen 80; location / { proxy_pass http://u:81; } }",
        &["[emerg] upstream \"u\" may not have port 81:2"],
    );
    check_server("location / { proxy_pass u; }", &["[emerg] invalid URL prefix:2"]);
    check_server("location / { proxy_pass https://u; }", &["[emerg] TLS to peers is not there yet:2"]);
}

#[test]
fn variables() {
    check_server("return 200 $nope;", &["[emerg] unknown \"nope\" variable:2"]);
    check_server("return 200 ${uri;", &["[emerg] the closing bracket in \"uri\" variable is missing:2"]);
    check_server("return 200 a$;", &["[emerg] invalid variable name:2"]);
    check_server("server_name ~^(?<sub>.+)\\.a$; return 200 $sub$http_x$arg_y$cookie_z$1;", &[]);
    check_server("set $a b; return 200 $a;", &[]);
    check_server("return 200 $ssl_protocol$gzip_ratio;", &[]);
    check_server(
        "return 200 $modern_browser;",
        &["[emerg] the variable `$modern_browser` is not supported yet:2"],
    );
}

#[test]
fn what_stands_in_blocks_without_effect_is_checked() {
    check_server("location / { limit_except get POST { allow 10.0.0.0/8; deny all; } }", &[]);
    check_server(
        "location / { limit_except GET { return 403; } }",
        &["[emerg] \"return\" directive is not allowed here:2"],
    );
    check_server("location / { limit_except FOO { deny all; } }", &["[emerg] invalid method \"FOO\":2"]);
    check_server("proxy_timeout 1s;", &["[emerg] \"proxy_timeout\" directive is not allowed here:2"]);
}

#[test]
fn what_has_no_effect_is_named_with_what_that_means() {
    let (loaded, sources) = support::load(
        "events {} http { brotli on; brotli_types a; proxy_cache off; server { listen 80; slice 1m; } }",
    );
    let named: Vec<String> = loaded
        .diagnostics
        .iter()
        .map(|found| {
            let label = &found.labels[0];
            format!("{:?} {}: {}", found.severity, sources.slice(label.span), label.text)
        })
        .collect();
    assert_eq!(
        named,
        [
            "Warning brotli on: responses are sent uncompressed",
            "Error slice 1m: responses would have another body",
        ]
    );
}

#[test]
fn arguments_of_what_has_no_effect_are_checked_as_nginx_checks_them() {
    let check_main = |text: &str, expect: &[&str]| check(&format!("{text}\nevents {{}}"), expect);
    let flag = |name: &str| {
        format!("[emerg] invalid value \"x\" in \"{name}\" directive, it must be \"on\" or \"off\":2")
    };
    check("events { use nosuch; }", &["[emerg] invalid event type \"nosuch\":1"]);
    check("events { use epoll; multi_accept on; accept_mutex off; }", &[]);
    check("events { use epoll; use epoll; }", &["[emerg] \"use\" directive is duplicate:1"]);
    check_main("pcre_jit on; worker_cpu_affinity auto; timer_resolution 100ms;", &[]);
    check_main("worker_cpu_affinity 012;", &["[emerg] invalid character \"2\" in \"worker_cpu_affinity\":1"]);
    check_main("gzip on;", &["[emerg] \"gzip\" directive is not allowed here:1"]);
    check_main("thread_pool a;", &["[emerg] invalid number of arguments in \"thread_pool\" directive:1"]);
    check_main("thread_pool a max_queue=1;", &["[emerg] \"a\" must have \"threads\" parameter:1"]);
    check_http("gzip_vary x;", &[&flag("gzip_vary")]);
    check_http("gzip_vary on; gzip_vary off;", &["[emerg] \"gzip_vary\" directive is duplicate:2"]);
    check_http("gzip_vary on {}", &["[emerg] directive \"gzip_vary\" is not terminated by \";\":2"]);
    check_http("gzip_proxied expired nonsense;", &["[emerg] invalid value \"nonsense\":2"]);
    check_http(
        "gzip_window 5k;",
        &["[emerg] \"gzip_window\" directive must be 512, 1k, 2k, 4k, 8k, 16k, 32k:2"],
    );
    check_http("gzip_comp_level 10;", &["[emerg] value must be equal to or less than 9:2"]);
    check_http("types_hash_max_size x;", &["[emerg] \"types_hash_max_size\" directive invalid number:2"]);
    check_http("types_hash_max_size 2048; server_names_hash_bucket_size 64;", &[]);
    check_http("ssl_session_timeout x;", &["[emerg] \"ssl_session_timeout\" directive invalid value:2"]);
    check_http("ssl_session_cache shared:SSL:10m; ssl_protocols TLSv1.2 TLSv1.3;", &[]);
    check_http("ssl_session_cache shared:SSL;", &["[emerg] invalid session cache \"shared:SSL\":2"]);
    check_http(
        "proxy_cache_path;",
        &["[emerg] invalid number of arguments in \"proxy_cache_path\" directive:2"],
    );
    check_http(
        "proxy_cache_path /c levels=1:2;",
        &["[emerg] \"proxy_cache_path\" must have \"keys_zone\" parameter:2"],
    );
    check_server("resolver 127.0.0.1 ipv6=maybe;", &["[emerg] invalid parameter: ipv6=maybe:2"]);
    check_server("location / { proxy_bind nowhere; }", &["[emerg] invalid address \"nowhere\":2"]);
    check_server("location / { keepalive 5; }", &["[emerg] \"keepalive\" directive is not allowed here:2"]);
    check_server(
        "location / { client_body_temp_path b 0; }",
        &["[emerg] \"client_body_temp_path\" directive invalid value:2"],
    );
    check_http("proxy_cache_path /c keys_zone=a:8k;", &[]);
    check_http(
        "proxy_cache_path /c keys_zone=a:4k;",
        &["[emerg] keys zone \"keys_zone=a:4k\" is too small:2"],
    );
    // These may be repeated.
    let unsupported = "[emerg] `more_set_headers` is not supported yet:2";
    check_server("more_set_headers a; more_set_headers b;", &[unsupported, unsupported]);
    // Directives of other modules aren't nginx's to check.
    check_http("more_set_headers;", &["[emerg] `more_set_headers` is not supported yet:2"]);
}

#[test]
fn limits_are_checked_as_nginx_checks_them() {
    check_http("limit_req_zone $arg_a zone=a:1m rate=1r/s; limit_conn_zone $arg_a zone=b:32k;", &[]);
    check_http("limit_req_zone $arg_a zone=a:1m rate=x;", &["[emerg] invalid rate \"rate=x\":2"]);
    check_http(
        "limit_req_zone $arg_a rate=1r/s b;",
        &["[emerg] \"limit_req_zone\" must have \"zone\" parameter:2", "[emerg] invalid parameter \"b\":2"],
    );
    check_http("limit_conn_zone $arg_a zone=a:1k;", &["[emerg] zone \"zone=a:1k\" is too small:2"]);
    check_http("limit_conn_zone $arg_a zone=a;", &["[emerg] invalid zone size \"zone=a\":2"]);
    check_http("limit_req_status 200;", &["[emerg] value must be equal to or greater than 400:2"]);
    check_http("limit_conn_status 600;", &["[emerg] value must be equal to or less than 599:2"]);
    let zones = "limit_req_zone $uri zone=r:1m rate=1r/s; limit_conn_zone $uri zone=c:1m;";
    let check = |text: &str, expect: &[&str]| check_http(&format!("{zones} {text}"), expect);
    check(
        "limit_req zone=r burst=2 delay=1; limit_req zone=s nodelay; limit_req_zone $uri zone=s:1m rate=9r/m;",
        &[],
    );
    check("limit_req zone=r; limit_req zone=r;", &["[emerg] \"limit_req\" directive is duplicate:2"]);
    check("limit_req zone=r burst=0;", &["[emerg] invalid burst value \"burst=0\":2"]);
    check("limit_req burst=1;", &["[emerg] \"limit_req\" must have \"zone\" parameter:2"]);
    check("limit_req zone=x;", &["[emerg] zero size shared memory zone \"x\":2"]);
    check("limit_conn c 0;", &["[emerg] invalid number of connections \"0\":2"]);
    check("limit_conn c 70000;", &["[emerg] connection limit must be less 65536:2"]);
    check("limit_conn c 1; limit_conn c 2;", &["[emerg] \"limit_conn\" directive is duplicate:2"]);
    let other = "[emerg] the shared memory zone \"r\" is already declared for a different use:2";
    check("limit_conn r 1;", &[other]);
    check("limit_conn_zone $uri zone=r:1m;", &[other]);
    check(
        "limit_req_zone $uri zone=r:1m rate=1r/s;",
        &["[emerg] limit_req_zone \"r\" is already bound to another key:2"],
    );
}

#[test]
fn links_and_referers_are_checked_as_nginx_checks_them() {
    check_server("secure_link $arg_a,$arg_b; secure_link_md5 secret$uri;", &[]);
    let mixed =
        "[emerg] \"secure_link_secret\" cannot be mixed with \"secure_link\" and \"secure_link_md5\":2";
    check_server("secure_link $arg_a; secure_link_secret a;", &[mixed]);
    check_server("secure_link_secret a; secure_link_md5 a;", &[mixed]);
    check_server("secure_link_secret a; location / { secure_link $arg_a; secure_link_md5 a; }", &[]);
    check_server("valid_referers none blocked server_names *.a.org b.* c.org/x ~\\.d\\.; ", &[]);
    check_server("valid_referers a*;", &["[emerg] invalid hostname or wildcard \"a*\":2"]);
    check_server("valid_referers a.org A.org;", &["[emerg] conflicting parameter \"a.org\":2"]);
    check_server("valid_referers \"\";", &["[emerg] invalid referer \"\":2"]);
    check_server(
        "valid_referers none;",
        &[
            "[emerg] the \"none\" or \"blocked\" referers are specified in the \"valid_referers\" directive without any valid referer:2",
        ],
    );
}

#[test]
fn zones_of_caches_must_be_defined() {
    let path = "proxy_cache_path /c keys_zone=one:1m;";
    let unused = "[warn] `proxy_cache` has no effect:2";
    check_http(&format!("{path} server {{ listen 127.0.0.1:1; proxy_cache one; }}"), &[unused]);
    check_http(
        &format!("{path} server {{ listen 127.0.0.1:1; proxy_cache two; }}"),
        &[unused, "[emerg] \"proxy_cache\" zone \"two\" is unknown:2"],
    );
    check_http(&format!("proxy_cache off; {path}"), &[]);
}

#[test]
fn zones_of_upstreams_have_one_size() {
    let upstream =
        |name: &str, zone: &str| format!("upstream {name} {{ server 127.0.0.1:1; zone {zone}; }} ");
    let check = |zones: [&str; 2], expect: &[&str]| {
        check_http(&(upstream("u", zones[0]) + &upstream("v", zones[1])), expect);
    };
    check(["a 64k", "a"], &[]);
    check(["a", "a 64k"], &[]);
    check(["a", "b 64k"], &["[emerg] zero size shared memory zone \"a\":2"]);
    check(
        ["a 64k", "a 1m"],
        &[
            "[emerg] the size 1048576 of shared memory zone \"a\" conflicts with already declared size 65536:2",
        ],
    );
}

#[test]
fn what_concerns_many_places_is_said_once() {
    let text = "events {} http { server { listen 80; http3 on; listen 443 quic; listen 444 quic; }
        server { listen 80; http3 on; listen 443 quic; resolver 127.0.0.1; server_name a; } 
        server { listen 80; resolver 127.0.0.1; server_name b; } }";
    let said = human(&[("nginx.conf", text)]);
    let count = |what: &str| said.matches(what).count();
    assert_eq!(count("HTTP/3 is not there yet\n"), 1, "{said}");
    assert_eq!(count("clients are answered without it; the same holds at one more place"), 1, "{said}");
    assert_eq!(count("`443` stays closed"), 1, "{said}");
    assert_eq!(count("nothing listens here; the same holds at one more place"), 1, "{said}");
    assert_eq!(count("`444` stays closed"), 1, "{said}");
}

#[test]
fn nobody_is_told_to_open_a_site_without_tls() {
    let said = human(&[(
        "nginx.conf",
        "events {} http { server { listen 443 quic; } server { listen 444 quic; } }",
    )]);
    assert!(!said.contains("listen 80"), "{said}");
    assert_eq!(said.matches("end TLS in front of Evenkeel").count(), 1, "{said}");
}

#[test]
fn expressions_that_no_engine_can_match_are_refused() {
    check_server("location ~ /\\.(?!well-known).* {}", &[]);
    check_http("map $uri $a { ~(a)\\1 b; }", &[]);
    check_http(
        "map $uri $a { ~(a)(?R) b; }",
        &["[emerg] recursion isn't supported in a regular expression:2"],
    );
}

#[test]
fn for_people() {
    let text = "\
events {}
http {
    upstream app {
        server app1:5000 wieght=2;
    }
    server {
        listen 8080;
        server_name a
        root /srv;
        location / {
            proxy_pass http://app:80;
            proxy_read_timout 5s;
            proxy_set_header X-Name $remote_adr;
        }
    }
}
";
    assert_snapshot!(human(&[("nginx.conf", text)]), @r#"
    error[nginx::invalid-parameter]: `server` has no parameter `wieght=2`
     --> /etc/nginx/nginx.conf:4:26
      |
    4 |         server app1:5000 wieght=2;
      |                          ^^^^^^^^
    help: did you mean `weight`?

    warning[nginx::missing-semicolon]: `root` is an argument of `server_name` here
     --> /etc/nginx/nginx.conf:8:9
      |
    8 |         server_name a
      |         ^^^^^^^^^^^^^ a `;` seems to be missing after this
    9 |         root /srv;
      |         ---- this looks like another directive

    warning[nginx::suspicious-name]: server name `/srv` holds a `/`
     --> /etc/nginx/nginx.conf:9:14
      |
    9 |         root /srv;
      |              ^^^^ no request's host does
    help: a server's name is a host, without scheme and path

    error[nginx::upstream-port]: the upstream `app` has no port of its own
      --> /etc/nginx/nginx.conf:11:13
       |
     3 |     upstream app {
       |     ------------ its peers have theirs
    ...
    11 |             proxy_pass http://app:80;
       |             ^^^^^^^^^^^^^^^^^^^^^^^^ leave `:80` out

    error[nginx::unknown-directive]: unknown directive `proxy_read_timout`
      --> /etc/nginx/nginx.conf:12:13
       |
    12 |             proxy_read_timout 5s;
       |             ^^^^^^^^^^^^^^^^^ not a directive Evenkeel knows
    help: did you mean `proxy_read_timeout`?

    error[nginx::unknown-variable]: unknown variable `$remote_adr`
      --> /etc/nginx/nginx.conf:13:37
       |
    13 |             proxy_set_header X-Name $remote_adr;
       |                                     ^^^^^^^^^^^ nothing defines it
    help: did you mean `$remote_addr`?
    "#);
}

#[test]
fn in_several_files() {
    let main = "events {}\nhttp {\n    include conf.d/*.conf;\n    include missing.conf;\n}\n";
    let one = "server {\n    listen 80 default_server;\n}\n";
    let two = "server {\n    listen 80 default_server;\n    server_name two;\n}\n";
    let files = [("nginx.conf", main), ("conf.d/one.conf", one), ("conf.d/two.conf", two)];
    assert_snapshot!(human(&files), @r#"
    error[nginx::unreadable-file]: can't read /etc/nginx/missing.conf
     --> /etc/nginx/nginx.conf:4:13
      |
    4 |     include missing.conf;
      |             ^^^^^^^^^^^^ No such file or directory

    error[nginx::duplicate-default-server]: a second default server for 0.0.0.0:80
     --> /etc/nginx/conf.d/two.conf:2:5
      |
    2 |     listen 80 default_server;
      |     ^^^^^^^^^^^^^^^^^^^^^^^^ again here
      |
     ::: /etc/nginx/conf.d/one.conf:2:5
      |
    2 |     listen 80 default_server;
      |     ------------------------ first here
    "#);
}

#[test]
fn bytes_that_are_not_text() {
    let mut memory = support::Memory::default();
    let text = b"events {} # \xff is nothing here\nhttp { server { listen 80; return 200 \xff; } }";
    memory.0.insert("/n.conf".into(), text.to_vec());
    let options =
        keel_nginx::Options { prefix: "/".into(), conf_path: "/n.conf".into(), globals: Vec::new() };
    let loaded = keel_nginx::load(&options, &memory, &mut keel_diag::Sources::default());
    let codes: Vec<&str> = loaded.diagnostics.iter().map(|found| found.code).collect();
    assert_eq!(codes, ["nginx::not-utf-8"]);
}

#[test]
fn files_that_include_each_other_end() {
    let (loaded, _) = support::load("events {} include nginx.conf; include nginx.conf;");
    let loops = loaded.diagnostics.iter().filter(|found| found.code == "nginx::include-loop");
    assert_eq!(loops.count(), 1);
    assert_eq!(loaded.dump.len(), 1);
}

#[test]
fn names_of_fields() {
    check_http("add_header X-XSS-Protection: 1; proxy_set_header X-A b;", &[]);
    check_http("add_header 'X A' b;", &["[emerg] invalid field name \"X A\":2"]);
    check_http("add_trailer 'X\nA' b;", &["[emerg] invalid field name \"X\\nA\":2"]);
    check_http("proxy_set_header '' b;", &["[emerg] invalid field name \"\":2"]);
}

#[test]
fn logs_to_syslog() {
    let refused = |log: &str, expect: &str| {
        check_server(&format!("access_log {log};"), &[&format!("[emerg] {expect}:2")]);
    };
    refused("syslog:tag=a", "no syslog server specified");
    refused("syslog:server=a,server=b", "duplicate syslog \"server\"");
    refused("syslog:server=a:x", "invalid port in syslog server \"a:x\"");
    refused("syslog:server=unix:", "no path in the unix domain socket in syslog server \"unix:\"");
    refused("syslog:server=a,facility=local8", "unknown syslog facility \"local8\"");
    refused("syslog:server=a,severity=warning", "unknown syslog severity \"warning\"");
    refused("syslog:server=a,tag=a-b", "syslog \"tag\" only allows alphanumeric characters and underscore");
    refused(&format!("syslog:server=a,tag={}", "x".repeat(33)), "syslog tag length exceeds 32");
    refused("syslog:server=a,port=1", "unknown syslog parameter \"port=1\"");
    refused("syslog:server=127.0.0.1 combined buffer=4k", "logs to syslog cannot be buffered");
}

#[test]
fn text_that_is_replaced() {
    check_server("sub_filter a b; sub_filter $arg_a '$uri b'; sub_filter_once off; sub_filter_types *;", &[]);
    check_server("sub_filter '' b;", &["[emerg] empty search pattern:2"]);
    let many = "sub_filter a b;".repeat(256);
    check_server(&many, &["[emerg] number of search patterns exceeds 255:2"]);
}

#[test]
fn bodies_that_would_need_another_charset() {
    let refused = "[emerg] no \"charset_map\" between the charsets \"koi8-r\" and \"utf-8\":2";
    check_server("charset utf-8; source_charset koi8-r;", &[refused]);
    check_server("charset utf-8; location / { source_charset koi8-r; location /a {} }", &[refused]);
    check_server("charset off; source_charset koi8-r;", &[]);
    check_server("charset UTF-8; source_charset utf-8;", &[]);
    check_server("charset $arg_a; source_charset utf-8;", &[]);
    check_http(
        "charset utf-8; source_charset koi8-r; server { listen 127.0.0.1:80; location / {} }",
        &[refused],
    );
    check_http("charset utf-8; source_charset koi8-r; charset_map koi8-r utf-8 { C0 D18E; 80 E28094; }", &[]);
    check_http("charset koi8-r; source_charset UTF-8; charset_map koi8-r utf-8 { C0 D18E; }", &[]);
    check_http("charset a; source_charset b; charset_map a b { 58 59; }", &[]);
    check_http(
        "charset_map a A { }",
        &["[emerg] \"charset_map\" between the same charsets \"a\" and \"A\":2"],
    );
    check_http(
        "charset_map utf-8 a { }",
        &["[emerg] \"charset_map\" with \"utf-8\" charset should be given in the second column:2"],
    );
    check_http(
        "charset_map a b { } charset_map B a { }",
        &["[emerg] duplicate \"charset_map\" between \"B\" and \"a\":2"],
    );
    check_http("charset_map a b { 1ff 00; }", &["[emerg] invalid value \"1ff\":2"]);
    check_http("charset_map a b { 58 x; }", &["[emerg] invalid value \"x\":2"]);
    check_http("charset_map a utf-8 { 80 F09F9880; }", &["[emerg] invalid value \"F09F9880\":2"]);
    check_http("charset_map a b { 58; }", &["[emerg] invalid parameters number:2"]);
    check_server("charset_types a/b A/b;", &["[warn] duplicate MIME type \"a/b\":2"]);
    check_server("charset utf-8; charset koi8-r;", &["[emerg] \"charset\" directive is duplicate:2"]);
}
