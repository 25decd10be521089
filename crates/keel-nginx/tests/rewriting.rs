//! What `rewrite`, `if`, `set`, `geo` and `split_clients` mean, and what is said about faulty ones.

mod support;

use insta::assert_snapshot;
use keel_model::*;
use support::{configuration, human, location, server, short};

const NO_LISTENER: &str = "[warn] /etc/nginx/nginx.conf has no listener: nobody can connect\n";

/// Gives nginx's words for what is wrong with the inside of a `server`.
fn said(inside: &str) -> String {
    short(&format!("events {{}} http {{ server {{ listen 127.0.0.1:80; {inside} }} }}")).trim_end().to_owned()
}

/// The same of the inside of `http`.
fn said_http(inside: &str) -> String {
    short(&format!("events {{}} http {{ {inside} }}")).replace(NO_LISTENER, "").trim_end().to_owned()
}

/// Shows steps in one line each.
fn steps(steps: &[RewriteStep]) -> String {
    let text = |template: &Template| {
        let parts = template.parts.iter().map(|part| match part {
            Part::Literal(text) => text.clone(),
            Part::Variable(variable) => format!("{{{variable:?}}}"),
        });
        parts.collect::<String>()
    };
    let lines = steps.iter().map(|step| match step {
        RewriteStep::Set { variable, value } => format!("set {variable:?} \"{}\"", text(value)),
        RewriteStep::Break => "break".to_owned(),
        RewriteStep::Return(answer) => format!("return {}", answer.status),
        RewriteStep::Rewrite(rule) => format!(
            "rewrite \"{}\" \"{}\" args {:?} {:?} {:?}",
            rule.pattern.source,
            text(&rule.replacement),
            rule.args.as_ref().map(text),
            rule.own_args,
            rule.then
        ),
        RewriteStep::If(inside) => {
            let test = match &inside.test {
                Test::Holds(variable) => format!("{variable:?}"),
                Test::Equals(variable, value) => format!("{variable:?} = \"{}\"", text(value)),
                Test::Matches { variable, pattern, .. } => {
                    format!("{variable:?} ~ \"{}\" {}", pattern.source, pattern.ignore_case)
                }
                Test::File(test, path) => format!("{test:?} \"{}\"", text(path)),
            };
            let scope = if inside.scope.is_some() { " of a location" } else { "" };
            format!(
                "if {} {test}{scope} {{ {} }}",
                inside.wants,
                self::steps(&inside.steps).replace('\n', "; ")
            )
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn rewrites_and_their_flags() {
    let server = server(
        r#"rewrite ^/a /b; rewrite ^/a(.*) /b$1?x=$1 last; rewrite ^/a /b? break; rewrite a /b?c? redirect;
           rewrite a /b permanent; rewrite a http://b/$1; rewrite a $scheme://b last; rewrite "^/a{2}" "/b c";
           set $x "1 $host"; set $args ""; break; return 204;"#,
    );
    assert_snapshot!(steps(&server.rewrite.steps), @r#"
    rewrite "^/a" "/b" args None Append Next
    rewrite "^/a(.*)" "/b{Capture(1)}" args Some("x={Capture(1)}") Append Last
    rewrite "^/a" "/b" args None Drop Break
    rewrite "a" "/b?c" args None Drop Redirect(302)
    rewrite "a" "/b" args None Append Redirect(301)
    rewrite "a" "http://b/{Capture(1)}" args None Append Redirect(302)
    rewrite "a" "{Scheme}://b" args None Append Redirect(302)
    rewrite "^/a{2}" "/b c" args None Append Next
    set Defined(VariableId(0)) "1 {Host}"
    set Args ""
    break
    return 204
    "#);
}

#[test]
fn conditions_of_all_forms() {
    let server = server(
        r#"set $x 1;
           if ($x) { break; } if ( $x ) { break; } if ($http_a = "b c") { break; } if ($host != "") { break; }
           if ($uri ~ ^/a(.)\.b$) { return 403; } if ($uri ~* "^/b{2}") { break; } if ($uri !~ a) { break; }
           if ($uri !~* a) { break; } if (-f $request_filename) { break; } if (!-d /a) { break; }
           if (-e "/a b") { break; } if (!-x /a/$host) { break; }
           location / { if ($x) { set $y 2; return 200 $y; } }"#,
    );
    assert_snapshot!(steps(&server.rewrite.steps), @r#"
    set Defined(VariableId(0)) "1"
    if true Defined(VariableId(0)) { break }
    if true Defined(VariableId(0)) { break }
    if true RequestHeader("a") = "b c" { break }
    if false Host = "" { break }
    if true Uri ~ "^/a(.)\.b$" false { return 403 }
    if true Uri ~ "^/b{2}" true { break }
    if false Uri ~ "a" false { break }
    if false Uri ~ "a" true { break }
    if true Plain "{RequestFilename}" { break }
    if false Folder "/a" { break }
    if true Exists "/a b" { break }
    if false Executable "/a/{Host}" { break }
    "#);
    let inside = steps(&location(&server, "/").rewrite.steps);
    assert_snapshot!(inside, @r#"if true Defined(VariableId(0)) of a location { set Defined(VariableId(1)) "2"; return 200 }"#);
}

#[test]
fn an_if_in_a_location_inherits_what_answers() {
    let server = server(
        "location /a/ { proxy_pass http://127.0.0.1:1/b/; try_files /x =404; add_header A 1;
                        if ($args) { add_header B 2; } if ($host) { proxy_pass http://127.0.0.1:2; root /r; } }",
    );
    let place = location(&server, "/a/");
    let scopes = place.rewrite.scopes();
    let [first, second] = scopes.as_slice() else { panic!("two blocks: {scopes:?}") };
    assert_eq!(first.content, place.scope.content);
    assert_eq!(first.proxy.redirects, place.scope.proxy.redirects);
    assert_eq!((first.headers.add[0].name.as_str(), first.core.try_files.is_none()), ("B", true));
    assert_eq!((second.headers.add[0].name.as_str(), place.scope.core.try_files.is_some()), ("A", true));
    let Content::Proxy(pass) = &second.content else { panic!("{second:?}") };
    assert_eq!(pass.target, ProxyTarget::Upstream(UpstreamName("127.0.0.1:2".into())));
    assert_eq!(second.core.root, Root::Root(Template::literal("/r")));
}

#[test]
fn variables_have_the_source_that_defines_them() {
    let configuration = configuration(
        "events {} http { log_format l '$late $http_set $http_other $group';
            server { listen 127.0.0.1:80; if ($uri ~ (?<Group>.)) { set $Late 1; set $http_set 2; set $mapped 3; }
                     access_log x l; }
            map $uri $mapped { default 1; } }",
    );
    let sources: Vec<_> = configuration
        .plan
        .variables
        .iter()
        .map(|known| (known.name.as_str(), known.source.clone()))
        .collect();
    let find =
        |name: &str| sources.iter().find(|(known, _)| *known == name).map(|(_, source)| source.clone());
    assert_eq!(find("late"), Some(VariableSource::Set));
    assert_eq!(find("http_set"), Some(VariableSource::Builtin(Variable::RequestHeader("set".into()))));
    assert_eq!(find("group"), Some(VariableSource::Written));
    assert!(matches!(find("mapped"), Some(VariableSource::Map(_))));
    assert_eq!(find("http_other"), None);
}

#[test]
fn faulty_rewrites() {
    for (inside, expect) in [
        ("rewrite a \"\";", "empty replacement"),
        ("rewrite a /b foo;", "invalid parameter \"foo\""),
        ("rewrite ( /b;", "pcre2_compile() failed: unclosed group in \"(\""),
        ("set x 1;", "invalid variable name \"x\""),
        ("set $ 1;", "invalid variable name \"$\""),
        ("set $uri 1;", "the duplicate \"uri\" variable"),
        ("if $x { }", "invalid condition \"$x\""),
        ("if ($host { }", "invalid condition \"($host\""),
        ("if (a = b) { }", "invalid condition \"(a\""),
        ("if ($host = a b) { }", "invalid condition \"($host\""),
        ("if ($host == a) { }", "unexpected \"==\" in condition"),
        ("if ($1) { }", "unknown \"1\" variable"),
        ("if ($nothing) { }", "unknown \"nothing\" variable"),
        ("if (-z a) { }", "invalid condition \"(-z\""),
        ("if ($host) { root /; }", "\"root\" directive is not allowed here"),
        ("if ($host) { location / { } }", "\"location\" directive is not allowed here"),
        ("location / { if ($host) { location / { } } }", "\"location\" directive is not allowed here"),
        ("location / { if ($host) { try_files a b; } }", "\"try_files\" directive is not allowed here"),
        (
            "location / { if ($host) { proxy_pass http://127.0.0.1:1/x; } }",
            "\"proxy_pass\" cannot have URI part in location given by regular expression, or inside named location, \
             or inside \"if\" statement, or inside \"limit_except\" block",
        ),
        ("return 1000;", "invalid return code \"1000\""),
        ("break 1;", "invalid number of arguments in \"break\" directive"),
    ] {
        assert_eq!(said(inside), format!("[emerg] {expect}:1"), "for {inside}");
    }
}

#[test]
fn traps_are_named_and_nothing_else_is() {
    assert_snapshot!(
        human(&[(
            "nginx.conf",
            "events {} http { server { listen 127.0.0.1:80; server_name a;
  location / { try_files $uri /x;
    if ($args) { add_header A b; }
    if ($host) { root /; } }
  location /r { return 301 https://a$uri; }
} }"
        )]),
        @r#"
    warning[nginx::if-in-location]: where this `if` holds, the location's `try_files` doesn't
     --> /etc/nginx/nginx.conf:3:5
      |
    2 |   location / { try_files $uri /x;
      |                ----------------- not looked at then
    3 |     if ($args) { add_header A b; }
      |     ^^ its block takes the location's place
    help: let the `if` only `return`, or `rewrite ... last` to a location that has what differs

    warning[nginx::if-in-location]: where several of these `if` hold, only the last one's directives do
     --> /etc/nginx/nginx.conf:3:5
      |
    3 |     if ($args) { add_header A b; }
      |     ^^ without effect where the other holds, too
    4 |     if ($host) { root /; } }
      |     -- this one takes its place
    help: give a `map` the conditions, and use its variable in one directive outside `if`

    warning[nginx::decoded-uri]: the decoded path in a redirect
     --> /etc/nginx/nginx.conf:5:28
      |
    5 |   location /r { return 301 https://a$uri; }
      |                            ^^^^^^^^^^^^^ `$uri` holds what the client had escaped, line ends and `?` too
    help: redirect to `$request_uri`, which is as the client sent it, query included
    "#
    );
    for right in [
        "location / { try_files $uri /x; if ($args) { return 403; } }",
        "location / { if ($args) { add_header A b; } if ($host) { set $x 1; } }",
        "return 301 https://a$request_uri;",
        "return 200 $uri;",
        "rewrite ^ /b$uri last;",
    ] {
        assert_eq!(said(right), "", "for {right}");
    }
}

#[test]
fn geo_by_networks_and_ranges() {
    let geo = |inside: &str| {
        let mut configuration = configuration(&format!("events {{}} http {{ geo {inside} }}"));
        let source = configuration.plan.variables.remove(0).source;
        let VariableSource::Geo(geo) = source else { panic!("{source:?}") };
        geo
    };
    let networks = geo(
        "$x { default a; 10.0.0.0/8 b; 10.1.2.3 \"c d\"; ::1 e; 11.0.0.0/8 f; delete 11.0.0.0/8; proxy 192.0.2.0/24; \
         proxy_recursive; volatile; }",
    );
    let GeoPlaces::Networks(places) = &networks.places else { panic!("{networks:?}") };
    let shown: Vec<_> =
        places.iter().map(|place| format!("{}/{} {}", place.address, place.prefix, place.value)).collect();
    assert_eq!(shown, ["10.0.0.0/8 b", "10.1.2.3/32 c d", "::1/128 e"]);
    assert_eq!((networks.default.as_str(), networks.address), ("a", None));
    assert!(networks.proxy_recursive && networks.volatile && networks.proxies.len() == 1);
    let ranges = geo("$arg_ip $x { ranges; 10.0.0.0-10.0.0.9 a; 10.0.0.5-10.0.0.5 b; default c; }");
    assert_eq!(ranges.address, Some(Variable::Arg("ip".into())));
    let GeoPlaces::Ranges(places) = &ranges.places else { panic!("{ranges:?}") };
    let shown: Vec<_> =
        places.iter().map(|range| format!("{}-{} {}", range.first, range.last, range.value)).collect();
    assert_eq!(shown, ["10.0.0.0-10.0.0.4 a", "10.0.0.5-10.0.0.5 b", "10.0.0.6-10.0.0.9 a"]);
    for (inside, expect) in [
        ("geo x { }", "[emerg] invalid variable name \"x\":1"),
        ("geo $uri { }", "[emerg] the duplicate \"uri\" variable:1"),
        ("geo $x { a b; }", "[emerg] invalid network \"a\":1"),
        ("geo $x { 10.0.0.0/8; }", "[emerg] invalid number of the geo parameters:1"),
        ("geo $x { ranges; 10.0.0.0/8 a; }", "[emerg] invalid range \"10.0.0.0/8\":1"),
        (
            "geo $x { 10.0.0.0/8 a; ranges; }",
            "[emerg] the \"ranges\" directive must be the first directive inside \"geo\" block:1",
        ),
        (
            "geo $x { 10.0.0.0/8 a; 10.0.0.0/8 b; }",
            "[warn] duplicate network \"10.0.0.0/8\", value: \"b\", old value: \"a\":1",
        ),
        ("geo $x { delete 10.0.0.0/8; }", "[warn] no network \"10.0.0.0/8\" to delete:1"),
        (
            "geo $x { ranges; 10.0.0.1-10.0.0.3 a; 10.0.0.2-10.0.0.4 b; }",
            "[emerg] range \"10.0.0.2-10.0.0.4\" overlaps \"10.0.0.1-10.0.0.3\":1",
        ),
    ] {
        assert_eq!(said_http(inside), expect, "for {inside}");
    }
}

#[test]
fn split_clients_by_hundredths() {
    let mut configuration =
        configuration("events {} http { split_clients $remote_addr $x { 0.5% a; 50% b; * c; } }");
    let source = configuration.plan.variables.remove(0).source;
    let VariableSource::SplitClients(split) = source else { panic!("{source:?}") };
    let parts: Vec<_> = split.parts.iter().map(|part| (part.below, part.value.as_str())).collect();
    assert_eq!(parts, [(Some(21_474_836), "a"), (Some(2_168_958_483), "b"), (None, "c")]);
    for (inside, expect) in [
        ("split_clients a $x { 1 a; }", "invalid percent value \"1\""),
        ("split_clients a $x { 0% a; }", "invalid percent value \"0%\""),
        ("split_clients a $x { 60% a; 50% b; }", "percent total is greater than 100%"),
    ] {
        assert_eq!(said_http(inside), format!("[emerg] {expect}:1"), "for {inside}");
    }
}

#[test]
fn what_the_variables_of_a_proxy_pass_may_come_to_is_followed() {
    let upstreams = |inside: &str| {
        let text = format!(
            "events {{}} http {{ map $host $by_host {{ a one; default two:81; }} upstream u {{ server 127.0.0.1; }}
             server {{ listen 127.0.0.1:80; location / {{ {inside} }} }} }}"
        );
        let upstreams = configuration(&text).upstreams.into_iter().skip(1);
        let shown = upstreams.map(|source| {
            let followed = source.servers.iter().all(|server| server.resolve);
            format!("{} {:?} {followed} {}", source.name, source.origin, source.resolver.is_some())
        });
        shown.collect::<Vec<_>>().join(", ")
    };
    for (inside, expect) in [
        ("set $x app:5000; proxy_pass http://$x;", "app:5000 Variables true false"),
        ("resolver 127.0.0.11; set $x app; proxy_pass http://$x:5000/a;", "app:5000 Variables true true"),
        ("set $x http://app:5000/a; proxy_pass $x;", "app:5000 Variables true false"),
        ("proxy_pass http://$by_host;", "one Variables true false, two:81 Variables true false"),
        ("set $x u; proxy_pass http://$x;", ""),
        ("set $x 127.0.0.1:81; proxy_pass http://$x;", ""),
        ("set $x $arg_a; proxy_pass http://$x;", ""),
        ("set $x a; proxy_pass http://$x; if ($host) { proxy_pass http://a; }", "a Address false false"),
    ] {
        assert_eq!(upstreams(inside), expect, "for {inside}");
    }
}

#[test]
fn an_argument_of_any_name_can_be_tested() {
    let rewrite = server("if ($arg_go-get = 1) { return 200; }").rewrite;
    let Some(RewriteStep::If { .. }) = rewrite.steps.first() else { panic!("{rewrite:?}") };
}
