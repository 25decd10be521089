//! What was measured, as raw data and as text.

use std::fmt;

use keel_report::{
    document::{Block, Column, Document, Headline, Kind, Level, Table, Tone},
    machine::Machine,
    words,
};
use serde::{Deserialize, Serialize};

use crate::{
    chart,
    idle::Idle,
    statistics::{Median, median},
    work::Work,
    wrk::WrkResult,
};

/// The raw data of a comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) machine: Machine,
    /// Whether it was measured in a network namespace of its own.
    #[serde(default)]
    pub(crate) own_network: bool,
    /// Connections that `wrk` kept open.
    pub(crate) connections: u32,
    /// The first one is compared with the others.
    pub(crate) proxies: Vec<ProxyInfo>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) idle: Vec<Idle>,
}

/// A proxy that was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ProxyInfo {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) proxy: String,
    pub(crate) work: Work,
    pub(crate) round: u32,
    /// CPU time that all threads of the proxy used.
    pub(crate) cpu_ns: u64,
    #[serde(flatten)]
    pub(crate) result: WrkResult,
}

impl Sample {
    /// CPU time for each request, in microseconds.
    pub(crate) fn cpu_us_per_request(&self) -> f64 {
        self.cpu_ns as f64 / 1e3 / self.result.requests.max(1) as f64
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { proxy, work, result, .. } = self;
        let cpu = self.cpu_us_per_request();
        write!(f, "{:<16} {:<16} {cpu:6.1} µs CPU/request, {}", work.title(), proxy, result.describe())
    }
}

impl Record {
    pub(crate) fn works(&self) -> Vec<Work> {
        Work::ALL.into_iter().filter(|work| self.samples.iter().any(|sample| sample.work == *work)).collect()
    }

    fn of<'a>(&'a self, proxy: &'a str, work: Work) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.proxy == proxy && sample.work == work)
    }

    pub(crate) fn median(&self, proxy: &str, work: Work, value: impl Fn(&Sample) -> f64) -> Option<Median> {
        median(self.of(proxy, work).map(value))
    }

    /// The CPU time of one proxy for each request in parts of another's in the same round.
    pub(crate) fn cpu_ratio(&self, one: &str, other: &str, work: Work) -> Option<Median> {
        median(self.of(one, work).filter_map(|sample| {
            let same_round = self.of(other, work).find(|other| other.round == sample.round)?;
            Some(sample.cpu_us_per_request() / same_round.cpu_us_per_request())
        }))
    }
}

/// The report.
pub(crate) fn document(record: &Record) -> Document {
    let Machine { processor, cores, kernel, .. } = &record.machine;
    let connections = record.connections;
    let network = if record.own_network { "a network of its own" } else { "the machine's network" };
    let mut document = Document {
        title: "Evenkeel beside other proxies".to_owned(),
        subtitle: format!(
            "{cores} × {processor}, {kernel}; one worker each, {connections} connections, {network}"
        ),
        verdict: Headline {
            tone: Tone::Plain,
            text: "CPU time of the proxy for each request".to_owned(),
            detail: vec!["Medians over all rounds; proxies take turns within each round.".to_owned()],
        },
        blocks: Vec::new(),
    };
    let versions = record.proxies.iter().map(|proxy| (proxy.name.clone(), proxy.version.clone()));
    document.blocks.push(Block::Facts(versions.collect()));
    document.blocks.push(Block::Picture { file: CHART.to_owned(), picture: chart::draw(record) });
    for work in record.works() {
        document.heading(Level::Chapter, work.title(), &words::slug(work.title()));
        document.blocks.push(Block::Table(table(record, work)));
    }
    if !record.idle.is_empty() {
        document.heading(Level::Chapter, "Memory, idle connections after one request each", "idle");
        document.blocks.push(Block::Table(idle_table(&record.idle)));
    }
    document
}

/// Name of the chart's files in a report.
const CHART: &str = "cpu-per-request";

/// The report's text and tables, for a terminal.
pub(crate) fn text(document: &Document) -> String {
    let mut text = format!("{}\n", document.subtitle);
    for block in &document.blocks {
        match block {
            Block::Heading { text: heading, .. } => text += &format!("\n{heading}\n"),
            Block::Facts(facts) => {
                text.extend(facts.iter().map(|(name, value)| format!("  {name}: {value}\n")));
            }
            Block::Table(table) => text += &keel_report::markdown_table(table),
            _ => {}
        }
    }
    text
}

fn table(record: &Record, work: Work) -> Table {
    let mut table = Table::new([
        ("Proxy", Kind::Words),
        ("CPU µs/request", Kind::Number),
        ("requests/s", Kind::Number),
        ("p50 µs", Kind::Number),
        ("p99 µs", Kind::Number),
        ("p99.9 µs", Kind::Number),
        ("errors", Kind::Number),
    ]);
    let Some(first) = record.proxies.first() else { return table };
    let title = format!("{} CPU by round (median, 95 %)", first.name);
    table.columns.push(Column { title, kind: Kind::Words });
    for ProxyInfo { name, .. } in &record.proxies {
        let median = |value: &dyn Fn(&Sample) -> f64| {
            record.median(name, work, value).map_or(f64::NAN, |median| median.median)
        };
        let errors = record.of(name, work).map(|sample| sample.result.errors()).sum::<u64>();
        let ratio = record.cpu_ratio(&first.name, name, work).filter(|_| *name != first.name);
        table.rows.push(vec![
            name.as_str().into(),
            format!("{:.1}", median(&Sample::cpu_us_per_request)).into(),
            format!("{:.0}", median(&|sample| sample.result.requests_per_second())).into(),
            format!("{:.0}", median(&|sample| sample.result.p50_us as f64)).into(),
            format!("{:.0}", median(&|sample| sample.result.p99_us as f64)).into(),
            format!("{:.0}", median(&|sample| sample.result.p999_us as f64)).into(),
            errors.to_string().into(),
            ratio
                .map(|Median { median, low, high }| format!("{median:.3} of it ({low:.3} to {high:.3})"))
                .unwrap_or_default()
                .into(),
        ]);
    }
    table
}

fn idle_table(idle: &[Idle]) -> Table {
    let mut table = Table::new([
        ("Proxy", Kind::Words),
        ("bytes each", Kind::Number),
        ("connections", Kind::Number),
        ("PSS before, MiB", Kind::Number),
        ("PSS after, MiB", Kind::Number),
    ]);
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    table.rows.extend(idle.iter().map(|idle| {
        let [before, after] = idle.pss;
        vec![
            idle.proxy.as_str().into(),
            format!("{:.0}", idle.bytes_per_connection()).into(),
            idle.connections.to_string().into(),
            mib(before).into(),
            mib(after).into(),
        ]
    }));
    table
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Three rounds in which one proxy takes 20, 21 and 22 µs where the other takes 30, 30 and 20.
    pub(crate) fn record() -> Record {
        let sample = |proxy: &str, round, cpu_us: u64| Sample {
            proxy: proxy.into(),
            work: Work::Body100,
            round,
            cpu_ns: cpu_us * 1000 * 10,
            result: WrkResult {
                duration_us: 1_000_000,
                requests: 10,
                bytes: 1000,
                socket_errors: 0,
                status_errors: 0,
                timeouts: 0,
                p50_us: 5,
                p99_us: 6,
                p999_us: 7,
                max_us: 8,
            },
        };
        let proxy = |name: &str| ProxyInfo { name: name.into(), version: name.into() };
        Record {
            machine: Machine {
                processor: "abacus".into(),
                cores: 2,
                kernel: "Linux 6".into(),
                memory: 1 << 30,
            },
            own_network: true,
            connections: 64,
            proxies: vec![proxy("evenkeel 0.1.0"), proxy("nginx 1.31.5")],
            samples: [20, 21, 22]
                .into_iter()
                .zip([30, 30, 20])
                .zip(0..)
                .flat_map(|((one, other), round)| {
                    [sample("evenkeel 0.1.0", round, one), sample("nginx 1.31.5", round, other)]
                })
                .collect(),
            idle: vec![Idle {
                proxy: "evenkeel 0.1.0".into(),
                connections: 1000,
                pss: [1 << 20, 3 << 20],
                anonymous: [0, 0],
            }],
        }
    }

    #[test]
    fn compares_round_by_round() {
        let ratio = record().cpu_ratio("evenkeel 0.1.0", "nginx 1.31.5", Work::Body100).unwrap();
        assert_eq!((ratio.median, ratio.low, ratio.high), (0.7, 20.0 / 30.0, 1.1));
        let text = text(&document(&record()));
        assert!(text.contains("0.700 of it (0.667 to 1.100)"), "{text}");
        assert!(text.contains(" 2097 |"), "{text}");
    }

    #[test]
    fn raw_data_is_read_back() {
        let written = serde_json::to_string(&record()).unwrap();
        let read: Record = serde_json::from_str(&written).unwrap();
        assert_eq!(text(&document(&read)), text(&document(&record())));
    }
}
