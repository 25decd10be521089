//! What the proxy writes: nothing that a request brings ends a line of it early.

mod support;

use keel_model::*;
use support::{DataPlane, ScriptedPeer, balance, proxy_location};

fn template(literal: &str, variable: Variable) -> Template {
    Template { parts: vec![Part::Literal(literal.into()), Part::Variable(variable)] }
}

const CRLF: &str = "/x%20HTTP/1.1%0d%0aX-Admin:%201%0d%0a%0d%0aGET%20/smuggled";

#[test]
fn a_line_end_in_a_uri_is_escaped_in_a_location() {
    let plane = DataPlane::start(|plan| {
        let text = template("http://www.example.com", Variable::Uri);
        plan.servers[0].rewrite = Return { status: 301, text: Some(text) }.into();
    });
    let response = plane.client().get("/go/%0d%0aSet-Cookie:%20sid=evil");
    assert_eq!(response.status, 301);
    let expect = "http://www.example.com/go/%0D%0ASet-Cookie: sid=evil";
    assert_eq!(response.field("location"), Some(expect));
    assert_eq!(response.field("set-cookie"), None);
}

#[test]
fn a_line_end_in_a_field_ends_the_request_with_500() {
    let peer = ScriptedPeer::saying("yes");
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        let set = &mut plan.servers[0].locations[0].scope.proxy.set_headers;
        set.push(("X-Path".into(), Template::variable(Variable::Uri)));
        let mut answer = plan.servers[0].locations[0].clone();
        answer.matcher = LocationMatcher::Prefix("/answer".into());
        answer.rewrite = Return { status: 200, text: Some(Template::literal("hi")) }.into();
        let add = |name: &str, value| AddHeader { name: name.into(), value, always: true };
        answer.scope.headers.add = vec![
            add("X-Uri", Template::variable(Variable::Uri)),
            add("Content-Security-Policy", Template::literal("default-src 'self';\n    img-src *")),
        ];
        let mut passed = proxy_location("/passed", "u");
        passed.scope.headers.add = vec![add("X-Uri", Template::variable(Variable::Uri))];
        plan.servers[0].locations.extend([answer, passed]);
    });
    for path in ["/set/%0d%0aX-Admin:%201", "/answer/%0aX:%20y", "/passed/%0dX", "/set/%0aX"] {
        let response = plane.client().get(path);
        assert_eq!(response.status, 500, "{path}");
        assert!(response.field("x").is_none() && response.field("x-uri").is_none(), "{}", response.head);
    }
    let sent = peer.requests();
    assert!(sent.iter().all(|request| request.head.starts_with("GET /passed/%0dX ")), "{sent:?}");
    // Other control characters are no line ends, and a line break of the configuration is a space.
    let response = plane.client().get("/answer/%02");
    assert_eq!((response.status, response.field("x-uri")), (200, Some("/answer/\u{2}")));
    assert_eq!(response.field("content-security-policy"), Some("default-src 'self'; img-src *"));
}

#[test]
fn an_evaluated_address_sends_its_own_host_and_one_line() {
    let peer = ScriptedPeer::saying("yes");
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        let mut evaluated = |prefix: &str, variable: Variable| {
            let mut location = proxy_location(prefix, "u");
            let target = template("http://u", variable);
            location.scope.content = Content::Proxy(ProxyPass {
                target: ProxyTarget::Evaluated(target.clone()),
                host: target,
                port: String::new(),
                uri: None,
            });
            plan.servers[0].locations.push(location);
        };
        evaluated("/raw", Variable::RequestUri);
        evaluated("/x", Variable::Uri);
    });
    let mut client = plane.client();
    assert_eq!(client.get("/raw/a?c=1").status, 200);
    assert_eq!(client.get(CRLF).status, 200);
    let heads: Vec<String> = peer.requests().into_iter().map(|request| request.head).collect();
    let smuggled = "/x%20HTTP/1.1%0D%0AX-Admin:%201%0D%0A%0D%0AGET%20/smuggled";
    let line = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: u\r\n");
    assert_eq!(heads, [line("/raw/a?c=1"), line(smuggled)]);
}

#[test]
fn a_family_of_fields_can_be_left_out() {
    let peer = ScriptedPeer::saying("yes");
    let plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        let set = &mut plan.servers[0].locations[0].scope.proxy.set_headers;
        set.insert(0, ("Host".into(), Template::literal("first")));
        set.push(("X-Forwarded*".into(), Template::default()));
        set.push(("X-Forwarded-For".into(), Template::variable(Variable::RemoteAddr)));
        set.push(("X-A".into(), Template::literal("1")));
        set.push(("X-A".into(), Template::literal("2")));
    });
    let mut client = plane.client();
    client.send(
        "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 6.6.6.6\r\nx-forwarded-port: 1\r\nX-FORWARDED: a\r\n\
         X_Forwarded_For: 6\r\nX.Forwarded.For: 6\r\nX-Forward: b\r\n\r\n",
    );
    assert_eq!(client.response(true).status, 200);
    let head = &peer.requests()[0].head;
    // Of two `Host` the last is sent, as in nginx, of other fields both.
    assert_eq!(
        head,
        "GET / HTTP/1.1\r\nHost: u\r\nX-Forwarded-For: 127.0.0.1\r\nX-A: 1\r\nX-A: 2\r\nX-Forward: b\r\n"
    );
}
