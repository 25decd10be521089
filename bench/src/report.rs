//! What was measured, as raw data and as text.

use std::{fmt, fmt::Write as _, fs};

use serde::{Deserialize, Serialize};

use crate::{
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

/// Where it was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cpus: usize,
    pub(crate) kernel: String,
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
    /// Gives CPU time for each request, in microseconds.
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

impl Machine {
    pub(crate) fn read() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let processor = read("/proc/cpuinfo").lines().find_map(|line| {
            line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.to_owned())
        });
        Self {
            processor: processor.unwrap_or_else(|| "unknown".into()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
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

    /// Gives the CPU time of one proxy for each request in parts of another's in the same round.
    pub(crate) fn cpu_ratio(&self, one: &str, other: &str, work: Work) -> Option<Median> {
        median(self.of(one, work).filter_map(|sample| {
            let same_round = self.of(other, work).find(|other| other.round == sample.round)?;
            Some(sample.cpu_us_per_request() / same_round.cpu_us_per_request())
        }))
    }
}

/// Gives the report.
pub(crate) fn text(record: &Record) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = write_text(record, &mut text);
    text
}

fn write_text(record: &Record, text: &mut String) -> fmt::Result {
    let Machine { processor, cpus, kernel } = &record.machine;
    let connections = record.connections;
    let network = if record.own_network { "a network of its own" } else { "the machine's network" };
    writeln!(
        text,
        "{cpus} × {processor}, Linux {kernel}; one worker each, {connections} connections, {network}"
    )?;
    for ProxyInfo { name, version } in &record.proxies {
        writeln!(text, "  {name}: {version}")?;
    }
    let Some(first) = record.proxies.first() else { return Ok(()) };
    for work in record.works() {
        writeln!(text, "\n{}", work.title())?;
        let columns = ["CPU µs/request", "requests/s", "p50 µs", "p99 µs", "p99.9 µs", "errors"];
        write!(text, "  {:<18}", "")?;
        columns.iter().try_for_each(|column| write!(text, "{column:>16}"))?;
        writeln!(text, "  {} CPU by round (median, 95 %)", first.name)?;
        for proxy in &record.proxies {
            write_row(record, &proxy.name, work, text)?;
            match record.cpu_ratio(&first.name, &proxy.name, work).filter(|_| proxy.name != first.name) {
                Some(Median { median, low, high }) => {
                    writeln!(text, "  {median:.3} of it ({low:.3} to {high:.3})")?;
                }
                None => writeln!(text)?,
            }
        }
    }
    if !record.idle.is_empty() {
        writeln!(text, "\nMemory, idle connections after one request each")?;
        for idle in &record.idle {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let [before, after] = idle.pss;
            writeln!(
                text,
                "  {:<18}{:>10.0} bytes each ({} connections, PSS {:.1} to {:.1} MiB)",
                idle.proxy,
                idle.bytes_per_connection(),
                idle.connections,
                mib(before),
                mib(after),
            )?;
        }
    }
    Ok(())
}

fn write_row(record: &Record, proxy: &str, work: Work, text: &mut String) -> fmt::Result {
    write!(text, "  {proxy:<18}")?;
    let median = |value: &dyn Fn(&Sample) -> f64| {
        record.median(proxy, work, value).map_or(f64::NAN, |median| median.median)
    };
    write!(text, "{:>16.1}", median(&Sample::cpu_us_per_request))?;
    write!(text, "{:>16.0}", median(&|sample| sample.result.requests_per_second()))?;
    write!(text, "{:>16.0}", median(&|sample| sample.result.p50_us as f64))?;
    write!(text, "{:>16.0}", median(&|sample| sample.result.p99_us as f64))?;
    write!(text, "{:>16.0}", median(&|sample| sample.result.p999_us as f64))?;
    write!(text, "{:>16}", record.of(proxy, work).map(|sample| sample.result.errors()).sum::<u64>())
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
            machine: Machine { processor: "abacus".into(), cpus: 2, kernel: "6".into() },
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
        let text = text(&record());
        assert!(text.contains("0.700 of it (0.667 to 1.100)"), "{text}");
        assert!(text.contains("2097 bytes each"), "{text}");
    }

    #[test]
    fn raw_data_is_read_back() {
        let written = serde_json::to_string(&record()).unwrap();
        let read: Record = serde_json::from_str(&written).unwrap();
        assert_eq!(text(&read), text(&record()));
    }
}
