//! `fastcgi_pass`, `uwsgi_pass`, `scgi_pass` and what belongs to them.

mod support;

use keel_model::*;
use keel_nginx::UpstreamOrigin;
use support::{configuration, location, server, short};

fn upstream(name: &str) -> ProxyTarget {
    ProxyTarget::Upstream(UpstreamName(name.into()))
}

#[test]
fn they_name_upstreams_services_and_addresses() {
    let configuration = configuration(
        "http { upstream app { server 127.0.0.1:1; }
            server { listen 80;
                location /f { fastcgi_pass app; }
                location /u { uwsgi_pass uwsgi://web:3031; }
                location /s { scgi_pass unix:/s.sock; }
                location /v { fastcgi_pass $host:9000; }
                location /i { fastcgi_pass php:9000; if ($host) { } if ($args) { proxy_pass http://app; } }
                location /l { proxy_pass http://app; fastcgi_pass php:9000; }
                location /r { fastcgi_pass php:9000; proxy_pass http://app; }
                location /e { fastcgi_pass php:9000; limit_except GET { deny all; } } } }
         events {}",
    );
    let server = &configuration.plan.servers[0];
    let content = |name: &str| &location(server, name).scope.content;
    assert_eq!(*content("/f"), Content::FastCgi(upstream("app")));
    assert_eq!(*content("/u"), Content::Uwsgi(upstream("web:3031")));
    assert_eq!(*content("/s"), Content::Scgi(upstream("unix:/s.sock")));
    assert!(matches!(content("/v"), Content::FastCgi(ProxyTarget::Evaluated(_))));
    let scopes = location(server, "/i").rewrite.scopes();
    assert_eq!(scopes[0].content, Content::FastCgi(upstream("php:9000")));
    assert!(matches!(scopes[1].content, Content::Proxy(_)));
    // The last that stands there answers.
    assert_eq!(*content("/l"), Content::FastCgi(upstream("php:9000")));
    assert!(matches!(content("/r"), Content::Proxy(_)));
    let except = location(server, "/e").scope.core.limit_except.as_ref().unwrap();
    assert_eq!(except.scope.content, Content::FastCgi(upstream("php:9000")));
    let made: Vec<_> =
        configuration.upstreams.iter().filter(|source| source.origin == UpstreamOrigin::Address).collect();
    let names: Vec<_> = made.iter().map(|source| source.name.0.as_str()).collect();
    assert_eq!(names, ["web:3031", "unix:/s.sock", "php:9000"]);
}

#[test]
fn parameters_are_inherited_whole() {
    let server = server(
        "fastcgi_param A a; fastcgi_param B $uri if_not_empty; fastcgi_index index.php; uwsgi_modifier1 7;
         location /in { fastcgi_keep_conn on; fastcgi_split_path_info ^(.+\\.php)(.*)$; }
         location /own { fastcgi_param C c; uwsgi_modifier1 255; fastcgi_hide_header X; }",
    );
    let fastcgi = |name: &str| &location(&server, name).scope.fastcgi;
    let names =
        |name| fastcgi(name).params.iter().map(|param| param.name.as_str()).collect::<Vec<_>>().join(" ");
    assert_eq!((names("/in"), names("/own")), ("A B".to_owned(), "C".to_owned()));
    assert_eq!(fastcgi("/in").params[1].empty, EmptyParam::LeftOut);
    assert!(fastcgi("/in").keep_conn && fastcgi("/in").split_path_info.is_some());
    assert_eq!((fastcgi("/own").index.as_str(), fastcgi("/own").keep_conn), ("index.php", false));
    assert_eq!(location(&server, "/own").scope.uwsgi.modifier1, 255);
    let hidden =
        "status x-accel-expires x-accel-redirect x-accel-limit-rate x-accel-buffering x-accel-charset x";
    assert_eq!(fastcgi("/own").upstream.hide_headers.join(" "), hidden);
    assert_eq!(fastcgi("/in").upstream.temp_path.to_str(), Some("/etc/nginx/fastcgi_temp"));
}

#[test]
fn the_files_of_every_installation_are_there() {
    let text = "http { server { listen 80;
            location ~ \\.php$ { include snippets/fastcgi-php.conf; fastcgi_pass php:9000; }
            location /f { include fastcgi_params; } location /g { include fastcgi.conf; }
            location /u { include uwsgi_params; } location /s { include scgi_params; } } } events {}";
    let plan = configuration(text).plan;
    let scopes: Vec<_> = plan.servers[0].locations.iter().map(|location| &location.scope).collect();
    let has = |params: &[GatewayParam], name: &str| params.iter().any(|param| param.name == name);
    assert!(has(&scopes[0].fastcgi.params, "PATH_INFO") && has(&scopes[0].fastcgi.params, "SCRIPT_FILENAME"));
    assert!(scopes[0].fastcgi.split_path_info.is_some() && scopes[0].fastcgi.index == "index.php");
    assert!(
        has(&scopes[1].fastcgi.params, "QUERY_STRING") && !has(&scopes[1].fastcgi.params, "SCRIPT_FILENAME")
    );
    assert!(has(&scopes[2].fastcgi.params, "SCRIPT_FILENAME"));
    assert!(has(&scopes[3].uwsgi.params, "PATH_INFO") && has(&scopes[4].scgi.params, "SCGI"));
}

#[test]
fn what_nginx_refuses_is_refused_in_its_words() {
    let check = |directives: &str, expect: &str| {
        let text = format!("http {{ server {{ listen 80; location / {{ {directives} }} }} }} events {{}}");
        let shown = short(&text);
        assert!(shown.contains(expect), "{directives}: {shown}");
    };
    check("fastcgi_pass php;", "no port in upstream \"php\"");
    check("fastcgi_pass http://php:9000;", "invalid port in upstream");
    check("fastcgi_pass php:9000/x;", "invalid host in upstream");
    check("fastcgi_pass a:1; fastcgi_pass b:2;", "\"fastcgi_pass\" directive is duplicate");
    check("fastcgi_param A b if_empty;", "invalid parameter \"if_empty\"");
    check("fastcgi_split_path_info ^(.+)$;", "pattern \"^(.+)$\" must have 2 captures");
    check("fastcgi_next_upstream http_502;", "invalid value \"http_502\"");
    check("fastcgi_buffers 1 4k;", "there must be at least 2 \"fastcgi_buffers\"");
    check("uwsgi_modifier1 256;", "value must be equal to or less than 255");
    check("uwsgi_pass suwsgi://a:1;", "TLS");
}
