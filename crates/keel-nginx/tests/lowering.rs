//! What configurations mean.

mod support;

use std::time::Duration;

use insta::assert_snapshot;
use keel_model::*;
use keel_nginx::{ServerAddress, UpstreamOrigin, WorkerProcesses};
use support::{configuration, load_files, location, server};

fn literal(text: &str) -> Template {
    Template::literal(text)
}

fn proxy(location: &Location) -> &ProxyPass {
    match &location.scope.content {
        Content::Proxy(pass) => pass,
        other => panic!("no proxy_pass: {other:?}"),
    }
}

/// Gives the `return` of a place that has nothing else.
fn answer(rewrite: &Rewrite) -> Return {
    match rewrite.steps.as_slice() {
        [RewriteStep::Return(answer)] => answer.clone(),
        steps => panic!("{steps:?}"),
    }
}

/// Shows listeners in one line each: address, default server, servers, and those told apart by the local address.
fn listeners(text: &str) -> String {
    let plan = configuration(text).plan;
    let ids = |ids: &[ServerId]| ids.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(",");
    let lines = plan.listeners.iter().map(|listener| {
        let folded = listener.by_local_address.iter();
        let folded = folded
            .map(|(address, default, servers)| format!(" | {address} {} [{}]", default.0, ids(servers)));
        let default = listener.default_server.0;
        format!("{} {default} [{}]{}", listener.address, ids(&listener.servers), folded.collect::<String>())
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_demo() {
    let configuration = configuration(
        "user www www-data; worker_processes 2; pid run/x.pid; env A; env B=c;
         events { worker_connections 64; }
         http {
            upstream app { least_conn; server app:5000 weight=3 max_fails=0 fail_timeout=1m; server unix:/a.sock backup;
                           server 10.0.0.1 down max_conns=7; keepalive 8; zone z 64k; }
            server { listen 8080; location / { proxy_pass http://app; } }
         }",
    );
    let main = &configuration.main;
    let user = main.user.as_ref().map(|user| (user.name.as_str(), user.group.as_deref()));
    assert_eq!(user, Some(("www", Some("www-data"))));
    assert_eq!(main.worker_processes, WorkerProcesses::Count(2));
    assert_eq!(main.pid.to_str(), Some("/etc/nginx/run/x.pid"));
    assert_eq!(main.env, [("A".to_owned(), None), ("B".to_owned(), Some("c".to_owned()))]);
    assert!(main.daemon && main.master_process && main.error_logs.is_empty());
    let plan = &configuration.plan;
    assert_eq!((plan.process.workers, plan.process.worker_connections), (2, 64));
    let upstream = &plan.upstreams[0];
    assert_eq!((upstream.name.0.as_str(), upstream.policy.name.as_str()), ("app", "least_conn"));
    assert_eq!((upstream.keepalive.connections, upstream.zone.as_deref()), (8, Some("z")));
    assert_eq!(upstream.peers, PeerSet::default());
    let servers = &configuration.upstreams[0].servers;
    let addresses: Vec<_> = servers.iter().map(|server| server.address.clone()).collect();
    assert_eq!(
        addresses,
        [
            ServerAddress::Name { host: "app".into(), port: 5000 },
            ServerAddress::Unix("/a.sock".into()),
            ServerAddress::Ip("10.0.0.1:80".parse().expect("an address")),
        ]
    );
    let first = &servers[0].peer;
    assert_eq!((first.weight, first.max_fails, first.fail_timeout), (3, 0, Duration::from_secs(60)));
    assert!(servers[1].peer.backup && servers[2].peer.down);
    assert_eq!(servers[2].peer.max_conns, 7);
    let pass = proxy(&plan.servers[0].locations[0]);
    assert_eq!(pass.target, ProxyTarget::Upstream(UpstreamName("app".into())));
    assert_eq!((&pass.host, pass.port.as_str(), &pass.uri), (&literal("app"), "80", &None));
}

#[test]
fn listeners_of_all_forms() {
    assert_snapshot!(listeners("events {} http { server { } }"), @r#"0.0.0.0:8000 0 [0]"#);
    assert_snapshot!(
        listeners(
            "events {} http {
                server { listen 80; listen [::]:80; listen unix:/s; listen 127.0.0.1:81-82; listen localhost:83; }
                server { listen 80 default_server; server_name b; }
             }"
        ), @r#"
    0.0.0.0:80 1 [0,1]
    [::]:80 0 [0]
    unix:/s 0 [0]
    127.0.0.1:81 0 [0]
    127.0.0.1:82 0 [0]
    127.0.0.1:83 0 [0]
    "#
    );
    // A single address beside all of them needs no socket, unless it has parameters of its own.
    assert_snapshot!(
        listeners(
            "events {} http {
                server { listen 127.0.0.1:80; listen 127.0.0.2:80 bind; listen 127.0.0.3:81; }
                server { listen *:80; } server { listen 127.0.0.1:80; server_name c; }
             }"
        ), @r#"
    127.0.0.2:80 0 [0]
    127.0.0.3:81 0 [0]
    0.0.0.0:80 1 [1] | 127.0.0.1:80 0 [0,2]
    "#
    );
}

#[test]
fn the_proxy_protocol_belongs_to_an_address() {
    let shown = |text: &str| {
        let plan = configuration(&format!("events {{}} http {{ {text} }}")).plan;
        let one = |listener: &Listener| format!("{} {}", listener.address, listener.proxy_protocol);
        plan.listeners.iter().map(one).collect::<Vec<_>>()
    };
    // One `listen` that has it has it for all of an address.
    let both =
        "server { listen 1.1.1.1:80 proxy_protocol; } server { listen 1.1.1.1:80 bind; server_name b; }";
    assert_eq!(shown(both), ["1.1.1.1:80 true"]);
    let later =
        "server { listen 1.1.1.1:80; } server { listen 1.1.1.1:80 bind proxy_protocol; server_name b; }";
    assert_eq!(shown(later), ["1.1.1.1:80 true"]);
    // An address that differs from all others of its port has a socket of its own.
    let differs =
        "server { listen 80 proxy_protocol; listen 127.0.0.1:80; listen 127.0.0.2:80 proxy_protocol; }";
    assert_eq!(shown(differs), ["0.0.0.0:80 true", "127.0.0.1:80 false"]);
}

#[test]
fn who_is_believed_about_addresses() {
    let server = server(
        "set_real_ip_from 10.0.0.0/8; set_real_ip_from unix:; real_ip_header X-Forwarded-For; real_ip_recursive on;
         location /same { }
         location /own { set_real_ip_from localhost; real_ip_header X-Client-IP; real_ip_recursive off; }
         location /proxy { real_ip_header proxy_protocol; }",
    );
    let network = |octets: [u8; 4], prefix| Clients::Network { address: octets.into(), prefix };
    let outer = RealIpScope {
        from: vec![network([10, 0, 0, 0], 8), Clients::Unix],
        header: RealIpHeader::ForwardedFor,
        recursive: true,
    };
    assert_eq!(server.scope.real_ip, outer);
    assert_eq!(location(&server, "/same").scope.real_ip, outer);
    let own = RealIpScope {
        from: vec![network([127, 0, 0, 1], 32)],
        header: RealIpHeader::Field("x-client-ip".into()),
        recursive: false,
    };
    assert_eq!(location(&server, "/own").scope.real_ip, own);
    let proxy = RealIpScope { header: RealIpHeader::ProxyProtocol, ..outer };
    assert_eq!(location(&server, "/proxy").scope.real_ip, proxy);
}

#[test]
fn values_of_the_proxy_protocol_by_name_and_type() {
    let server = server(
        "return 200 $proxy_protocol_tlv_alpn$proxy_protocol_tlv_0x000ae$proxy_protocol_tlv_ssl_cn\
$proxy_protocol_tlv_ssl_0x21$proxy_protocol_tlv_ssl_verify$proxy_protocol_tlv_ssl$proxy_protocol_tlv_x;",
    );
    let text = answer(&server.rewrite).text.expect("a text");
    let tlv = |tlv| Part::Variable(Variable::ProxyProtocolTlv(tlv));
    let named = [
        ProxyTlv::Kind(1),
        ProxyTlv::Kind(0xae),
        ProxyTlv::Ssl(0x22),
        ProxyTlv::Ssl(0x21),
        ProxyTlv::SslVerify,
        ProxyTlv::Kind(0x20),
    ];
    let absent = Part::Variable(Variable::Defined(VariableId(0)));
    assert_eq!(text.parts, named.into_iter().map(tlv).chain([absent]).collect::<Vec<_>>());
}

#[test]
fn socket_options() {
    let text =
        "events {} http { server { listen 127.0.0.1:80 backlog=7 reuseport rcvbuf=4k sndbuf=1m deferred
                so_keepalive=30m::10 fastopen=5 ipv6only=off; } }";
    let options = configuration(text).plan.listeners[0].options.clone();
    let expect = SocketOptions {
        backlog: 7,
        reuseport: true,
        ipv6only: false,
        receive_buffer: Some(4096),
        send_buffer: Some(1 << 20),
        keepalive: TcpKeepalive::On { idle_s: Some(1800), interval_s: None, probes: Some(10) },
        deferred: true,
        fastopen: Some(5),
    };
    assert_eq!(options, expect);
}

#[test]
fn server_names() {
    let names = server("server_name Example.org *.a.b a.* .c ~^www\\. '';").names;
    let regex = Pattern { source: "^www\\.".into(), ignore_case: false, engine: PatternEngine::Linear };
    assert_eq!(
        names,
        [
            ServerName::Exact("example.org".into()),
            ServerName::WildcardHead("*.a.b".into()),
            ServerName::WildcardTail("a.*".into()),
            ServerName::Dot(".c".into()),
            ServerName::Regex(regex),
            ServerName::Exact(String::new()),
        ]
    );
    assert_eq!(server("").names, [ServerName::Exact(String::new())]);
    for (first, expect) in
        [("Example.org", "example.org"), (".c", "c"), ("*.a", "*.a"), ("~^WWW\\.", "~^WWW\\."), ("''", "")]
    {
        assert_eq!(server(&format!("server_name {first} other;")).primary_name(), expect);
    }
}

#[test]
fn defaults_are_nginx_own() {
    let server = server("location /a {}");
    assert_eq!(server.client, ClientSettings::default());
    let scope = &location(&server, "/a").scope;
    let mut expect = Scope::default();
    expect.core.root = Root::Root(literal("/etc/nginx/html"));
    expect.core.client_body_temp_path = "/etc/nginx/client_body_temp".into();
    for (module, settings) in expect.all_peer_settings() {
        // A response in gRPC never waits on the disk, and so has no folder of its own there.
        let module = if module == "grpc" { "proxy" } else { module };
        settings.temp_path = format!("/etc/nginx/{module}_temp").into();
    }
    expect.log.logs[0].destination = LogDestination::File(literal("/etc/nginx/logs/access.log"));
    assert_eq!(*scope, expect);
    let set: Vec<_> = scope.proxy.set_headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(set, ["Host", "Connection"]);
    let hidden = "date server x-pad x-accel-expires x-accel-redirect x-accel-limit-rate x-accel-buffering x-accel-charset";
    assert_eq!(scope.proxy.upstream.hide_headers.join(" "), hidden);
}

#[test]
fn what_is_unset_is_inherited_and_lists_only_whole() {
    let server = server(
        "client_max_body_size 2m; proxy_read_timeout 5s; add_header A a; add_header B b; proxy_set_header X x;
         error_page 404 /404; allow 10.0.0.0/8; deny all; index i;
         location /same { }
         location /own { client_max_body_size 0; add_header C c; proxy_set_header Host h; error_page 500 /500; index j k;
                         allow all; proxy_read_timeout 1h; }
         location /merge { add_header_inherit merge; add_header C c; location /merge/in { } }",
    );
    let same = &location(&server, "/same").scope;
    assert_eq!(same.core.client_max_body_size, ByteSize::mib(2));
    assert_eq!(same.proxy.upstream.read_timeout, Duration::from_secs(5));
    let names =
        |scope: &Scope| scope.headers.add.iter().map(|add| add.name.clone()).collect::<Vec<_>>().join(" ");
    assert_eq!(names(same), "A B");
    let set = |scope: &Scope| {
        scope.proxy.set_headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(set(same), "X Host Connection");
    assert_eq!((same.core.error_pages.len(), same.access.rules.len()), (1, 2));
    let own = &location(&server, "/own").scope;
    assert_eq!(own.core.client_max_body_size, ByteSize(0));
    assert_eq!((names(own), set(own)), ("C".into(), "Host Connection".into()));
    assert_eq!(own.proxy.upstream.read_timeout, Duration::from_secs(3600));
    assert_eq!(own.core.error_pages[0].status, 500);
    assert_eq!((own.core.error_pages.len(), own.access.rules.len(), own.index.names.len()), (1, 1, 2));
    assert_eq!(names(&location(&server, "/merge").scope), "C A B");
    assert_eq!(names(&location(&server, "/merge/in").scope), "C A B");
}

#[test]
fn buffers_of_sockets_to_peers() {
    let server = server("proxy_socket_rcvbuf 16k; location /a { proxy_socket_sndbuf 32k; } location /b { }");
    let sizes = |name| {
        let upstream = &location(&server, name).scope.proxy.upstream;
        (upstream.socket_rcvbuf, upstream.socket_sndbuf)
    };
    assert_eq!(sizes("/a"), (ByteSize::kib(16), ByteSize::kib(32)));
    assert_eq!(sizes("/b"), (ByteSize::kib(16), ByteSize(0)));
}

#[test]
fn proxy_pass_of_all_forms() {
    let server = server(
        "location /u { proxy_pass http://127.0.0.1:8081/x; }
         location = /v { proxy_pass http://app; }
         location /w/ { proxy_pass http://unix:/s.sock:/y; }
         location ~ z { proxy_pass http://$host:80/a/$1; }
         location /s { proxy_pass $scheme://b$request_uri; }",
    );
    let check = |name: &str, target: ProxyTarget, host: &str, port: &str, uri: Option<&str>| {
        let pass = proxy(location(&server, name));
        assert_eq!(pass.target, target, "{name}");
        assert_eq!((pass.host.as_literal(), pass.port.as_str()), (Some(host), port), "{name}");
        assert_eq!(pass.uri, uri.map(literal), "{name}");
    };
    let named = |name: &str| ProxyTarget::Upstream(UpstreamName(name.into()));
    check("/u", named("127.0.0.1:8081"), "127.0.0.1:8081", "8081", Some("/x"));
    check("/v", named("app"), "app", "80", None);
    check("/w/", named("unix:/s.sock"), "localhost", "", Some("/y"));
    let lit = |text: &str| Part::Literal(text.into());
    let evaluated = proxy(location(&server, "z"));
    let authority = Template { parts: vec![lit("http://"), Part::Variable(Variable::Host), lit(":80")] };
    assert_eq!(evaluated.target, ProxyTarget::Evaluated(authority));
    let uri = Template { parts: vec![lit("/a/"), Part::Variable(Variable::Capture(1))] };
    assert_eq!(evaluated.uri, Some(uri));
    let scheme = proxy(location(&server, "/s"));
    let parts = vec![Part::Variable(Variable::Scheme), lit("://b"), Part::Variable(Variable::RequestUri)];
    assert_eq!((&scheme.target, &scheme.uri), (&ProxyTarget::Evaluated(Template { parts }), &None));
}

#[test]
fn proxy_redirect_follows_from_proxy_pass() {
    let server = server(
        "location /a/ { proxy_pass http://u/x/; }
         location /b { proxy_pass http://u; }
         location /c { proxy_pass http://u; proxy_redirect off; }
         location /d { proxy_pass http://u; proxy_redirect default; proxy_redirect ~*^http://x(.*) $1; }
         location /e { proxy_pass http://$host; }",
    );
    let prefix = |from: &str, to: &str| ProxyRedirect::Prefix { from: literal(from), to: literal(to) };
    let check =
        |name, expect: &[ProxyRedirect]| assert_eq!(location(&server, name).scope.proxy.redirects, expect);
    check("/a/", &[prefix("http://u/x/", "/a/")]);
    check("/b", &[prefix("http://u/", "/")]);
    check("/c", &[]);
    let from = Pattern { source: "^http://x(.*)".into(), ignore_case: true, engine: PatternEngine::Linear };
    let regex = ProxyRedirect::Regex { from, to: Template::variable(Variable::Capture(1)) };
    check("/d", &[prefix("http://u/", "/"), regex]);
    check("/e", &[]);
}

#[test]
fn implicit_upstreams_come_after_named_ones_and_once() {
    let configuration = configuration(
        "events {} http { server { listen 80; location / { proxy_pass http://a:81; }
            location /b { proxy_pass http://a:81/; } location /c { proxy_pass http://named; } }
         upstream named { server b; } }",
    );
    let names: Vec<_> =
        configuration.plan.upstreams.iter().map(|upstream| upstream.name.0.as_str()).collect();
    assert_eq!(names, ["named", "a:81"]);
    let implicit: Vec<_> =
        configuration.upstreams.iter().map(|source| (source.name.0.as_str(), source.origin)).collect();
    assert_eq!(implicit, [("named", UpstreamOrigin::Block), ("a:81", UpstreamOrigin::Address)]);
    assert_eq!(
        configuration.upstreams[1].servers[0].address,
        ServerAddress::Name { host: "a".into(), port: 81 }
    );
}

#[test]
fn maps() {
    let configuration = configuration(
        "events {} http {
            server { listen 80; return 200 $late; }
            map $http_x$uri $late { volatile; hostnames; default d$uri; *.a b; \\default e; ~*^/(?<Id>\\d+)$ $id; }
         }",
    );
    let [late, id] = configuration.plan.variables.as_slice() else { panic!("two variables are defined") };
    let VariableSource::Map(map) = &late.source else { panic!("{late:?} is a map") };
    assert!(map.volatile && map.hostnames);
    assert_eq!((late.name.as_str(), map.source.parts.len()), ("late", 2));
    assert_eq!((id.name.as_str(), &id.source), ("id", &VariableSource::Written));
    let keys: Vec<_> = map.entries.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["*.a", "default"]);
    let (pattern, result) = &map.regexes[0];
    assert_eq!((pattern.source.as_str(), pattern.ignore_case), ("^/(?P<id>\\d+)$", true));
    assert_eq!(*result, Template::variable(Variable::Defined(VariableId(1))));
    assert_eq!(map.default.parts.len(), 2);
    let text = Some(Template::variable(Variable::Defined(VariableId(0))));
    assert_eq!(answer(&configuration.plan.servers[0].rewrite), Return { status: 200, text });
}

#[test]
fn answers_errors_and_files() {
    let server = server(
        "location /r { return https://a$request_uri; }
         location /e { error_page 404 497 =200 /a?b; error_page 500 502 = @f; error_page 503 http://x/; }
         location /t { try_files $uri $uri/ =404; } location /n { try_files $uri @f; }
         location /x { expires -1; } location /y { expires modified +1d; } location /z { expires @15h30m; }
         location @f { root /srv/; } location /l/ { alias data/; }",
    );
    let answer = answer(&location(&server, "/r").rewrite);
    assert_eq!((answer.status, answer.text.expect("is there").parts.len()), (302, 2));
    let pages = &location(&server, "/e").scope.core.error_pages;
    let pages: Vec<_> = pages.iter().map(|page| (page.status, page.response)).collect();
    let fixed = ErrorPageStatus::Fixed(200);
    let from_page = ErrorPageStatus::FromPage;
    assert_eq!(
        pages,
        [(404, fixed), (497, fixed), (500, from_page), (502, from_page), (503, ErrorPageStatus::Keep)]
    );
    let tries = location(&server, "/t").scope.core.try_files.clone().expect("is there");
    let kinds: Vec<_> = tries.candidates.iter().map(|candidate| candidate.kind).collect();
    assert_eq!(
        (kinds, tries.fallback),
        (vec![FileKind::File, FileKind::Folder], TryFilesFallback::Status(404))
    );
    assert!(tries.candidates.iter().all(|candidate| candidate.path == Template::variable(Variable::Uri)));
    let tries = location(&server, "/n").scope.core.try_files.clone().expect("is there");
    assert_eq!(tries.fallback, TryFilesFallback::Uri(literal("@f")));
    let expires = |name| location(&server, name).scope.headers.expires.clone();
    assert_eq!(expires("/x"), Expires::Access(-1));
    assert_eq!(expires("/y"), Expires::Modified(86_400));
    assert_eq!(expires("/z"), Expires::Daily(55_800));
    assert_eq!(location(&server, "@f").scope.core.root, Root::Root(literal("/srv")));
    assert_eq!(location(&server, "/l/").scope.core.root, Root::Alias(literal("/etc/nginx/data/")));
}

#[test]
fn access_logs() {
    let server = server(
        "access_log /dev/stdout; access_log logs/$host.log; access_log x combined buffer=4k flush=5s if=$arg_log;
         location /off { access_log off; }",
    );
    let logs = &server.scope.log.logs;
    assert_eq!(logs[0].destination, LogDestination::Stdout);
    let parts = vec![
        Part::Literal("/etc/nginx/logs/".into()),
        Part::Variable(Variable::Host),
        Part::Literal(".log".into()),
    ];
    assert_eq!(logs[1].destination, LogDestination::File(Template { parts }));
    assert_eq!((logs[2].buffer, logs[2].flush), (Some(ByteSize::kib(4)), Some(Duration::from_secs(5))));
    assert_eq!(logs[2].condition, Some(Template::variable(Variable::Arg("log".into()))));
    assert_eq!(location(&server, "/off").scope.log.logs, []);
}

#[test]
fn logs_to_syslog() {
    let server = server(
        "access_log syslog:server=[::1],facility=cron,severity=warn,tag=a_1,nohostname;
         access_log syslog:server=unix:/dev/log; access_log syslog:server=Logs.test:5140 combined if=$arg_log;
         error_log syslog:server=192.0.2.1:1514 crit;",
    );
    let syslog = |server| Syslog {
        server,
        facility: 23,
        severity: LogLevel::Info,
        tag: "nginx".into(),
        has_hostname: true,
    };
    let udp = |text: &str| SyslogServer::Udp(text.parse().unwrap());
    let logs = server.scope.log.logs.iter().map(|log| log.destination.clone());
    let first = Syslog {
        facility: 15,
        severity: LogLevel::Warn,
        tag: "a_1".into(),
        has_hostname: false,
        ..syslog(udp("[::1]:514"))
    };
    let named = SyslogServer::Name { host: "Logs.test".into(), port: 5140 };
    let expect = [first, syslog(SyslogServer::Unix("/dev/log".into())), syslog(named)];
    assert_eq!(logs.collect::<Vec<_>>(), expect.map(LogDestination::Syslog));
    let destination = ErrorDestination::Syslog(syslog(udp("192.0.2.1:1514")));
    assert_eq!(server.scope.core.error_logs, [ErrorLog { destination, level: LogLevel::Crit }]);
}

#[test]
fn includes_and_globals() {
    let main = "events {} http { include mime.types; include conf.d/*.conf; }";
    let site = "server { listen 80; location / { include proxy_params; proxy_pass http://a; } }";
    let (loaded, _) =
        load_files(&[("nginx.conf", main), ("conf.d/b.conf", site), ("conf.d/c.txt", "nonsense")]);
    let paths: Vec<_> = loaded.dump.iter().map(|(path, _)| path.to_string_lossy().into_owned()).collect();
    let expect = ["nginx.conf", "mime.types", "conf.d/b.conf", "proxy_params"]
        .map(|name| format!("/etc/nginx/{name}"));
    assert_eq!(paths, expect);
    let plan = loaded.configuration.expect("no error").plan;
    let scope = &plan.servers[0].locations[0].scope;
    assert!(scope.core.types.iter().any(|(ending, media)| ending == "svg" && media == "image/svg+xml"));
    assert!(scope.proxy.set_headers.iter().any(|(name, _)| name == "X-Real-IP"));

    let mut memory = support::Memory::default();
    memory.0.insert("/n.conf".into(), b"events {}".to_vec());
    let globals = vec!["daemon off;".to_owned(), "worker_processes 3; pid /p;".to_owned()];
    let options = keel_nginx::Options { prefix: "/".into(), conf_path: "n.conf".into(), globals };
    let loaded = keel_nginx::load(&options, &memory, &mut keel_diag::Sources::default());
    let configuration = loaded.configuration.expect("no error");
    assert!(!configuration.main.daemon);
    assert_eq!(configuration.plan.process.workers, 3);
}

#[test]
fn the_image_of_nginx_is_built_in() {
    let (loaded, _) = load_files(&[
        ("nginx.conf", keel_nginx::IMAGE_NGINX_CONF),
        ("conf.d/default.conf", "server { listen 80; location / { root /usr/share/nginx/html; } }"),
    ]);
    assert_eq!(loaded.diagnostics, []);
    assert_eq!(loaded.configuration.expect("no error").plan.listeners.len(), 1);
}

#[test]
fn the_reference_has_every_directive_once_by_name_and_place() {
    let reference = keel_nginx::reference();
    for name in ["proxy_pass", "least_conn", "keepalive", "listen"] {
        assert!(reference.contains(&format!("\n### {name}\n")), "{name}");
        assert!(keel_nginx::explain(name).is_some_and(|text| text.starts_with("### ")), "{name}");
    }
    assert!(keel_nginx::explain("auth_jwt").is_some_and(|text| text.contains("clients without credentials")));
    assert_eq!(keel_nginx::explain("proxy_past"), None);
    let headings: Vec<_> = reference.lines().filter(|line| line.starts_with("### ")).collect();
    for (name, times) in [("### server", 2), ("### keepalive_timeout", 2), ("### root", 1)] {
        assert_eq!(headings.iter().filter(|heading| **heading == name).count(), times, "{name}");
    }
}

#[test]
fn resolvers_of_upstreams() {
    let configuration = configuration(
        "events {}
         http {
            resolver 127.0.0.11 valid=10s ipv6=off; resolver_timeout 7s;
            upstream a { server x:1 resolve; server y:2; }
            upstream b { resolver [::1]:5353; server x:1 resolve; }
            server { listen 8080; location / { proxy_pass http://z:3; } }
         }",
    );
    let server = |host: &str, port| ResolverSource::Servers(vec![NameServer { host: host.into(), port }]);
    let of_http = Resolver {
        valid: Some(Duration::from_secs(10)),
        ipv6: false,
        timeout: Duration::from_secs(7),
        ..Resolver::new(server("127.0.0.11", 53))
    };
    let own = Resolver { timeout: Duration::from_secs(7), ..Resolver::new(server("::1", 5353)) };
    let resolvers: Vec<_> = configuration.upstreams.iter().map(|source| source.resolver.clone()).collect();
    assert_eq!(resolvers, [Some(of_http.clone()), Some(own), Some(of_http)]);
    let resolve: Vec<_> = configuration.upstreams[0].servers.iter().map(|server| server.resolve).collect();
    assert_eq!(resolve, [true, false]);
}

#[test]
fn charsets() {
    let server = server(
        "charset utf-8; charset_types text/Foo;
         location /a { charset off; charset_types *; }
         location /b { charset $arg_c; }",
    );
    let of = |name: &str| location(&server, name).scope.charset.clone();
    assert_eq!(server.scope.charset.charset, Some(literal("utf-8")));
    assert_eq!(server.scope.charset.types, MediaTypes::These(vec!["text/html".into(), "text/foo".into()]));
    assert_eq!((of("/a").charset, of("/a").types), (None, MediaTypes::All));
    assert_eq!(of("/b").charset, Some(Template::variable(Variable::Arg("c".into()))));
    assert_eq!(of("/b").types, server.scope.charset.types);
}
