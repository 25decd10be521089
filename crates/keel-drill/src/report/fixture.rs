//! Results for tests: a clean case, one with findings, one with allowed failures, and one that was skipped.

use std::collections::BTreeMap;

use crate::results::{
    Case, Count, Event, Finding, Instance, Latency, Listener, Load, Machine, Results, SCHEMA, Seconds, Slice,
    Source, Step, System, Upstream,
};

/// A drill with a finding and a skipped case.
pub(super) fn with_findings() -> Results {
    let mut results = clean();
    results.proxy = "nginx 1.31.5, files as they are".to_owned();
    results.cases.insert(2, kill_one_lost());
    results.cases.push(Case {
        name: "frozen".to_owned(),
        what: "An instance is stopped with SIGSTOP while it holds requests.".to_owned(),
        skipped: Some("the driver can't freeze an instance".to_owned()),
        ..Case::default()
    });
    results
}

/// A drill without findings.
pub(super) fn clean() -> Results {
    Results {
        schema: SCHEMA,
        project: "shop".to_owned(),
        started_at: "2026-03-01T09:30:00Z".to_owned(),
        took: Seconds(96.4),
        seed: 7,
        proxy: "Evenkeel 0.1.0".to_owned(),
        driver: "process".to_owned(),
        machine: Machine {
            kernel: "Linux 6.18.3".to_owned(),
            processor: "Example Processor 9000".to_owned(),
            cores: 4,
            memory: 16 << 30,
        },
        system: system(),
        files: BTreeMap::from([
            ("even/override.yaml".to_owned(), "# of the first case\n".to_owned()),
            ("stop-one/override.yaml".to_owned(), "# of the second case\n".to_owned()),
            (
            "nginx.conf".to_owned(),
            "upstream app {\n    server app1:5000;\n    server app2:5000;\n    server app3:5000;\n}\n\nserver {\n    \
             listen 80;\n    location / {\n        proxy_pass http://app;  # <all> of it\n    }\n}\n"
                .to_owned(),
        )]),
        cases: vec![even(), stopped(), overload()],
        ended_early: None,
    }
}

fn system() -> System {
    let instance = |name: &str, service: &str, address: &str, networks: &[&str]| Instance {
        name: name.to_owned(),
        service: service.to_owned(),
        address: address.to_owned(),
        networks: networks.iter().map(|network| (*network).to_owned()).collect(),
    };
    let listener = |address: &str, listen: &str, upstreams: &[&str]| Listener {
        address: address.to_owned(),
        listen: listen.to_owned(),
        upstreams: upstreams.iter().map(|upstream| (*upstream).to_owned()).collect(),
    };
    let upstream = |name: &str, policy: &str, instances: &[&str]| Upstream {
        name: name.to_owned(),
        policy: policy.to_owned(),
        instances: instances.iter().map(|instance| (*instance).to_owned()).collect(),
    };
    System {
        listeners: vec![
            listener("127.0.0.1:8080", "80", &["app", "api"]),
            listener("127.0.0.1:8443", "8443", &["api"]),
        ],
        upstreams: vec![
            upstream("app", "round robin", &["app1", "app2", "app3"]),
            upstream("api", "least_conn", &["api-1", "api-2"]),
        ],
        instances: vec![
            instance("app1", "app1", "127.83.7.2:5000", &["web"]),
            instance("app2", "app2", "127.83.7.3:5000", &["web"]),
            instance("app3", "app3", "127.83.7.4:5000", &["web"]),
            instance("api-1", "api", "127.83.7.5:9000", &["web", "data"]),
            instance("api-2", "api", "127.83.7.6:9000", &["web", "data"]),
            instance("db", "db", "127.83.7.7:5432", &["data"]),
        ],
        networks: vec!["web".to_owned(), "data".to_owned()],
    }
}

fn shares(shares: &[(&str, u64)]) -> BTreeMap<String, u64> {
    shares.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect()
}

fn step(
    condition: &str,
    received: &[(&str, u64)],
    expected: Option<&[(&str, u64)]>,
    observation: &str,
) -> Step {
    Step {
        condition: condition.to_owned(),
        received: shares(received),
        expected: expected.map(shares),
        observation: observation.to_owned(),
    }
}

fn even() -> Case {
    let third: &[_] = &[("app1", 4), ("app2", 4), ("app3", 4)];
    let many: &[_] = &[("app1", 4_000), ("app2", 4_000), ("app3", 4_000)];
    Case {
        name: "even".to_owned(),
        what: "Nothing is done: 12 requests, then 12,000.".to_owned(),
        steps: vec![
            step("12 requests", third, Some(third), "in turn"),
            step("12,000 requests", many, Some(many), "in turn"),
        ],
        source: Source::File,
        load: Load { connections: 16, ..Load::default() },
        count: Count { sent: 12_012, answered: 12_012, ..Count::default() },
        latency: Latency { p50: 0.412, p99: 1.08, p999: 2.31, max: 4.9 },
        took: Seconds(2.1),
        timeline: timeline(2.0, |_| (6_000.0, 0, Some(1.1))),
        ..Case::default()
    }
}

fn stopped() -> Case {
    let all: &[_] = &[("app1", 2_000), ("app2", 2_000), ("app3", 2_000)];
    let two: &[_] = &[("app1", 3_000), ("app2", 0), ("app3", 3_000)];
    Case {
        name: "stop-one".to_owned(),
        what: "One instance is stopped and started again while requests come in.".to_owned(),
        steps: vec![
            step("all run", all, Some(all), "in turn"),
            step("app2 stopped", two, Some(two), "none lost while app2 left"),
            step("app2 back", all, Some(all), "joined after its first answer"),
        ],
        source: Source::File,
        load: Load {
            rate: Some(3_000.0),
            connections: 32,
            requests_per_connection: Some(100),
            posts: 0.25,
            ..Load::default()
        },
        count: Count { sent: 18_000, sent_posts: 4_500, answered: 18_000, repeated: 3, ..Count::default() },
        latency: Latency { p50: 0.51, p99: 2.7, p999: 8.4, max: 21.3 },
        events: vec![
            Event { at: Seconds(2.0), what: "stop app2".to_owned() },
            Event { at: Seconds(4.0), what: "start app2".to_owned() },
        ],
        took: Seconds(6.2),
        timeline: timeline(6.0, |t| (3_000.0 + 40.0 * (t * 5.0).sin(), 0, Some(2.0 + (t * 3.0).sin().abs()))),
        ..Case::default()
    }
}

fn kill_one_lost() -> Case {
    Case {
        name: "kill-one".to_owned(),
        what: "One instance is killed with SIGKILL while it holds requests.".to_owned(),
        steps: vec![
            step(
                "all run",
                &[("app1", 2_000), ("app2", 2_000), ("app3", 2_000)],
                Some(&[("app1", 2_000), ("app2", 2_000), ("app3", 2_000)]),
                "in turn",
            ),
            step(
                "app2 killed",
                &[("app1", 3_117), ("app2", 11), ("app3", 2_872)],
                Some(&[("app1", 3_000), ("app2", 0), ("app3", 3_000)]),
                "11 went to an instance that was gone",
            ),
        ],
        source: Source::File,
        load: Load {
            rate: Some(3_000.0),
            connections: 32,
            posts: 0.5,
            late: 41,
            limits: vec!["41 requests were late by up to 3 ms".to_owned()],
            ..Load::default()
        },
        count: Count {
            sent: 12_000,
            sent_posts: 6_000,
            answered: 11_986,
            lost: 14,
            doubled: 3,
            torn: 1,
            ..Count::default()
        },
        latency: Latency { p50: 0.6, p99: 38.2, p999: 1_004.0, max: 1_012.5 },
        events: vec![
            Event { at: Seconds(2.0), what: "kill -9 app2".to_owned() },
            Event { at: Seconds(2.05), what: "app2 is seen to be gone".to_owned() },
            Event { at: Seconds(3.2), what: "start app2".to_owned() },
            Event {
                at: Seconds(3.9),
                what: "app2 answers its first health check and joins the pool".to_owned(),
            },
        ],
        timeline: timeline(4.0, |t| {
            let is_gap = (2.0..2.2).contains(&t);
            let errors = if is_gap { 7 } else { 0 };
            (
                if is_gap { 900.0 } else { 2_990.0 },
                errors,
                (!(2.1..2.2).contains(&t)).then_some(if is_gap { 1_004.0 } else { 2.2 }),
            )
        }),
        took: Seconds(4.3),
        findings: vec![
            Finding {
                what: "14 requests were lost".to_owned(),
                ids: (0..14).map(|index| format!("k1-{:06}", 6_001 + index * 3)).collect(),
            },
            Finding {
                what: "3 POSTs were received twice".to_owned(),
                ids: vec!["k1-006004".to_owned(), "k1-006010".to_owned(), "k1-006031".to_owned()],
            },
            Finding {
                what: "After the kill, app1 and app3 differ by 245 requests".to_owned(),
                ids: Vec::new(),
            },
        ],
        ..Case::default()
    }
}

fn overload() -> Case {
    Case {
        name: "overload".to_owned(),
        what: "Twice as many requests come as the instances can answer.".to_owned(),
        allowed: vec!["503 with Retry-After".to_owned()],
        steps: vec![step(
            "twice the capacity",
            &[("app1", 1_001), ("app2", 1_000), ("app3", 1_000)],
            None,
            "2,999 were refused at once",
        )],
        source: Source::File,
        load: Load { rate: Some(1_500.0), connections: 256, ..Load::default() },
        count: Count { sent: 6_000, answered: 3_001, allowed: 2_999, ..Count::default() },
        latency: Latency { p50: 88.0, p99: 121.0, p999: 140.0, max: 163.0 },
        took: Seconds(4.1),
        timeline: timeline(4.0, |t| (750.0, if t < 0.3 { 0 } else { 80 }, Some(90.0 + 5.0 * t))),
        ..Case::default()
    }
}

/// Slices of a tenth of a second.
fn timeline(end: f64, at: impl Fn(f64) -> (f64, u64, Option<f64>)) -> Vec<Slice> {
    (0..1_000)
        .map(|index| f64::from(index) / 10.0)
        .take_while(|from| *from < end - 0.01)
        .map(|from| {
            let (rate, errors, p99) = at(from);
            let (rate, p99) = (rate.round(), p99.map(|p99| (p99 * 10.0).round() / 10.0));
            Slice { from: Seconds(from), length: Seconds(0.1), rate, errors, p99 }
        })
        .collect()
}
