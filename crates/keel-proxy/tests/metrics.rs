//! What is counted of servers, locations and peers, and the text in which a location says it.

mod support;

use keel_model::*;
use support::{DataPlane, ScriptedPeer, balance, proxy_location};

/// The value of the one line that begins so.
fn value<'a>(text: &'a str, series: &str) -> &'a str {
    let mut found = text.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = found.next().unwrap_or_else(|| panic!("{series} isn't in\n{text}"));
    assert_eq!(found.next(), None, "{series} stands twice");
    value
}

fn metrics(plan: &mut Plan) {
    let mut location = proxy_location("/metrics", "u");
    location.scope.content = Content::Prometheus;
    plan.servers[0].locations.push(location);
}

#[test]
fn requests_are_counted_by_server_location_and_peer() {
    let peer = ScriptedPeer::start(|seen| {
        let status = if seen.head.contains("/gone") { "404 Not Found" } else { "200 OK" };
        Some(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nhi").into_bytes())
    });
    let mut plane = DataPlane::start(|plan| {
        balance(plan, &[peer.address]);
        metrics(plan);
        let mut counted = proxy_location("/counted", "u");
        counted.scope.core.status_zone = Some("extra".into());
        plan.servers[0].locations.push(counted);
    });
    let mut client = plane.client();
    for path in ["/", "/gone", "/counted"] {
        client.get(path);
    }
    client.send("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.response(false).status, 200);
    let response = client.get("/metrics");
    assert_eq!(
        response.field("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    let text = response.text();
    let zone = "server_zone=\"localhost\"";
    let check = |series: String, expect: &str| assert_eq!(value(text, &series), expect, "{series}");
    check(format!("evenkeel_server_zone_requests_total{{{zone}}}"), "4");
    check(format!("evenkeel_server_zone_responses_total{{{zone},code=\"2xx\"}}"), "3");
    check(format!("evenkeel_server_zone_responses_total{{{zone},code=\"4xx\"}}"), "1");
    check("evenkeel_server_zone_requests_total{server_zone=\"extra\"}".into(), "1");
    let labels = format!("upstream=\"u\",server=\"{}\",service_instance=\"\"", peer.address);
    check(format!("evenkeel_upstream_server_requests_total{{{labels}}}"), "3");
    check(format!("evenkeel_upstream_server_responses_total{{{labels},code=\"4xx\"}}"), "1");
    check(format!("evenkeel_upstream_server_response_duration_seconds_count{{{labels}}}"), "3");
    check(format!("evenkeel_upstream_server_active{{{labels}}}"), "0");
    check("evenkeel_http_requests_total".into(), "5");
    let sent: u64 = value(text, &format!("evenkeel_server_zone_sent_bytes_total{{{zone}}}")).parse().unwrap();
    assert!(sent > 200, "{sent}");

    // Counts go on through a reload.
    plane.load(|plan| {
        balance(plan, &[peer.address]);
        metrics(plan);
    });
    client.get("/");
    let response = client.get("/metrics");
    let text = response.text();
    assert_eq!(value(text, &format!("evenkeel_server_zone_requests_total{{{zone}}}")), "6");
    assert!(!text.contains("extra"), "a zone that no configuration names is gone");
}

#[test]
fn only_reading_is_answered() {
    let plane = DataPlane::start(metrics);
    let mut client = plane.client();
    client.send("POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response(true).status, 405);
}
