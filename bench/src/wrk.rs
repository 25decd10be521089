//! Runs `wrk` and reads what it measured.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::work::Work;

/// Makes `wrk` print a [`WrkResult`] at the end.
const SCRIPT: &str = r#"done = function(summary, latency, requests)
    local e = summary.errors
    local values = {
        duration_us = summary.duration, requests = summary.requests, bytes = summary.bytes,
        socket_errors = e.connect + e.read + e.write, status_errors = e.status, timeouts = e.timeout,
        p50_us = latency:percentile(50), p99_us = latency:percentile(99), p999_us = latency:percentile(99.9),
        max_us = latency.max,
    }
    local members = {}
    for name, value in pairs(values) do
        members[#members + 1] = string.format('"%s":%d', name, value)
    end
    io.write("RESULT {" .. table.concat(members, ",") .. "}\n")
end
"#;

/// Runs `wrk` with one thread.
pub(crate) struct Wrk {
    script: PathBuf,
    connections: u32,
    seconds: u32,
}

/// What it measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WrkResult {
    pub(crate) duration_us: u64,
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) socket_errors: u64,
    pub(crate) status_errors: u64,
    pub(crate) timeouts: u64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
    pub(crate) max_us: u64,
}

impl Wrk {
    pub(crate) fn new(folder: &Path, connections: u32, seconds: u32) -> anyhow::Result<Self> {
        let script = folder.join("result.lua");
        std::fs::write(&script, SCRIPT)?;
        Ok(Self { script, connections, seconds })
    }

    pub(crate) fn run(&self, url: String, work: Work, seconds: Option<u32>) -> anyhow::Result<WrkResult> {
        let seconds = seconds.unwrap_or(self.seconds);
        let mut command = Command::new("wrk");
        command.arg("-t1").arg(format!("-c{}", self.connections)).arg("-s").arg(&self.script);
        command.arg(format!("-d{seconds}s"));
        for (name, value) in work.fields() {
            command.arg("-H").arg(format!("{name}: {value}"));
        }
        let output = command.arg(&url).output().context("wrk can't be run: is it installed?")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "wrk failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        parse(&text).with_context(|| format!("wrk says something else: {text}"))
    }
}

fn parse(text: &str) -> anyhow::Result<WrkResult> {
    let result = text.lines().find_map(|line| line.strip_prefix("RESULT ")).context("no result")?;
    Ok(serde_json::from_str(result)?)
}

impl WrkResult {
    pub(crate) fn requests_per_second(&self) -> f64 {
        self.requests as f64 / (self.duration_us as f64 / 1e6)
    }

    pub(crate) fn errors(&self) -> u64 {
        self.socket_errors + self.status_errors + self.timeouts
    }

    pub(crate) fn describe(&self) -> String {
        let mut text = format!("{:.0} requests/s", self.requests_per_second());
        if self.errors() > 0 {
            // Writing to a String can't fail.
            let _ = write!(text, ", {} errors", self.errors());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_result_line() {
        let line = r#"RESULT {"p50_us":700,"duration_us":2000000,"requests":80000,"bytes":9,"socket_errors":0,
            "status_errors":1,"timeouts":2,"p99_us":1500,"p999_us":3000,"max_us":9000}"#;
        let result = parse(&format!("Running 2s test\n{}\n", line.replace('\n', ""))).unwrap();
        assert_eq!(result.requests_per_second(), 40_000.0);
        assert_eq!(result.describe(), "40000 requests/s, 3 errors");
        assert_eq!(result.p999_us, 3000);
        assert!(parse("RESULT {}").is_err() && parse("").is_err());
    }
}
