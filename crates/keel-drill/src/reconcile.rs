//! One case with two load generators: the drill's own, and `wrk` (Will Glozer), which is independent of the drill.
//!
//! The drill counts with its own generator. This plays the same case with another one and compares its count of responses
//! with what instances noted, request by request: `wrk` runs a script that gives each request an id and writes down the id
//! of each response. `wrk` stops with a request on each connection under way. Instances received those, and `wrk` never
//! counts them; the comparison checks that there are no more of them than connections.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Signal, kill_process};

use crate::{
    Error, Options,
    ledger::{Ledger, Source},
    record::Id,
    seed::Seed,
    stage::{Context, Known, Stage},
    subject::Subject,
    system::{Ground, Setup, pid},
    work::Work,
};

/// How long `wrk` sends at most; it is told to end before.
const WRK_TIME_MAX: Duration = Duration::from_secs(600);
/// How long it may take until it has ended then.
const WRK_ENDS_WITHIN: Duration = Duration::from_secs(60);
/// Threads of `wrk`.
const THREADS: u32 = 2;
/// Ids of `wrk`'s requests have steps from here on, one for each thread: no step of the drill's own load comes so far.
const STEP_MIN: u32 = 1_000_000;
/// How long `wrk` sends before instances are restarted, and after.
const MARGIN: Duration = Duration::from_millis(500);

/// What one generator counted, and what instances noted of its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// The generator, with its version.
    pub generator: String,
    /// Responses of success that it counts.
    pub answered: u64,
    /// Failures that it counts: other responses, and connections that broke or timed out.
    pub failed: u64,
    /// Requests that instances received.
    pub received: u64,
    /// Of these, received more than once: a GET may be.
    pub repeated: u64,
    /// Received, and never counted by the generator as answered.
    pub uncounted: u64,
    /// Requests that may be under way when the generator ends.
    pub uncounted_max: u64,
    /// Counted as answered, and received by nobody.
    pub unreceived: u64,
    /// What each instance received for the first time.
    pub shares: BTreeMap<String, u64>,
    /// What is wrong beside these numbers.
    pub wrong: Vec<String>,
}

impl Side {
    /// Compares the ids of responses with what instances noted of requests that the generator sent.
    fn compare(answered: &BTreeSet<Id>, ledger: &Ledger, is_ours: impl Fn(&Id) -> bool) -> Self {
        let receipts: HashMap<Id, Vec<&str>> =
            ledger.receipts().into_iter().filter(|(id, _)| is_ours(id)).collect();
        let mut side = Self { answered: answered.len() as u64, ..Self::default() };
        for (id, instances) in &receipts {
            side.received += 1;
            side.repeated += u64::from(instances.len() > 1);
            side.uncounted += u64::from(!answered.contains(id));
            if let Some(first) = instances.first() {
                *side.shares.entry((*first).to_owned()).or_default() += 1;
            }
        }
        side.unreceived = answered.iter().filter(|id| !receipts.contains_key(id)).count() as u64;
        side
    }

    /// Whether both counts agree and nothing failed.
    pub fn agrees(&self) -> bool {
        let Self { answered, failed, uncounted, uncounted_max, unreceived, wrong, .. } = self;
        *answered > 0 && *failed == 0 && *unreceived == 0 && uncounted <= uncounted_max && wrong.is_empty()
    }
}

/// The same case with both generators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconciled {
    /// The project.
    pub project: String,
    /// The drill's own generator.
    pub own: Side,
    /// `wrk`.
    pub wrk: Side,
}

impl Reconciled {
    /// Whether both agree with what instances noted.
    pub fn agrees(&self) -> bool {
        self.own.agrees() && self.wrk.agrees()
    }

    /// Writes it down, as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "# One case, two load generators: {}\n\n`evenkeel drill --reconcile` restarts all instances, one at a time, \
             under load: once under the drill's own load generator, once under `wrk`, which knows nothing of the drill. \
             Instances note each request with its id before they answer it; both generators note the ids of what was \
             answered. Nothing is taken from the balancer.\n\n| | {} | {} |\n|---|---:|---:|\n",
            self.project, self.own.generator, self.wrk.generator
        );
        let mut row = |what: &str, number: &dyn Fn(&Side) -> String| {
            // Writing to a String can't fail.
            _ = writeln!(text, "| {what} | {} | {} |", number(&self.own), number(&self.wrk));
        };
        row("responses that it counts", &|side| side.answered.to_string());
        row("failures that it counts", &|side| side.failed.to_string());
        row("requests that instances received", &|side| side.received.to_string());
        row("of these under way when it ended", &|side| {
            format!("{} (at most {})", side.uncounted, side.uncounted_max)
        });
        row("of these received more than once", &|side| side.repeated.to_string());
        row("counted, and received by nobody", &|side| side.unreceived.to_string());
        let names: BTreeSet<&String> = self.own.shares.keys().chain(self.wrk.shares.keys()).collect();
        for name in names {
            row(&format!("received by {name}"), &|side| {
                side.shares.get(name).copied().unwrap_or_default().to_string()
            });
        }
        for side in [&self.own, &self.wrk] {
            for wrong in &side.wrong {
                _ = writeln!(text, "\n{}: {wrong}", side.generator);
            }
        }
        text.push_str(if self.agrees() {
            "\nBoth agree with the instances: received is what was counted and what was under way at the end.\n"
        } else {
            "\nThey do not agree.\n"
        });
        text
    }
}

/// Plays the case with both generators.
///
/// # Errors
/// When the project can't be tried, its instances don't note what they receive, or `wrk` can't be run.
pub fn run(options: &Options, wrk: &Path) -> Result<Reconciled, Error> {
    let version = wrk_version(wrk)?;
    let subject = Subject::read(options.project.clone())?;
    let work = Work::new(&options.project.cache)?;
    let (ground, known) = (Ground::of(options, &work), Known::default());
    let seed = Seed::new(options.seed).split("reconcile");
    let context = |number| Context {
        subject: &subject,
        options,
        ground: &ground,
        known: &known,
        seed: seed.clone(),
        number,
    };
    let own = own_side(&mut Stage::set(&context(0), &Setup::default())?)?;
    let second = context(1);
    let mut stage = Stage::set(&second, &Setup::default())?;
    let wrk = wrk_side(&mut stage, wrk, &ground)?;
    Ok(Reconciled {
        project: subject.joined.name.clone(),
        own: Side { generator: "the drill's own".to_owned(), ..own },
        wrk: Side { generator: version, ..wrk },
    })
}

fn own_side(stage: &mut Stage<'_>) -> Result<Side, Error> {
    let names = stage.names()?;
    stage.posts(0.0);
    let step = stage.under_load(|stage| stage.restart(&names))?;
    let records = stage.records_of(step);
    let answered = records.iter().filter(|record| record.outcome.is_success()).map(|record| record.id);
    let mut side = Side::compare(&answered.collect(), &noted(stage)?, |id| id.step == step);
    side.failed = records.len() as u64 - side.answered;
    Ok(side)
}

fn wrk_side(stage: &mut Stage<'_>, wrk: &Path, ground: &Ground) -> Result<Side, Error> {
    let io = |source| Error::io("wrk can't be run", source);
    let folder = ground.work.join("wrk");
    std::fs::create_dir_all(&folder).map_err(io)?;
    let script = folder.join("reconcile.lua");
    std::fs::write(&script, lua(&stage.target.host, &stage.target.path, &folder)).map_err(io)?;
    let connections = stage.shape.connections.max(THREADS);
    let said = folder.join("said");
    let names = stage.names()?;
    let child = Command::new(wrk)
        .args(["--threads", &THREADS.to_string(), "--connections", &connections.to_string()])
        .args(["--duration", &format!("{}s", WRK_TIME_MAX.as_secs())])
        .args(["--timeout", &format!("{}s", stage.target.patience.as_secs()), "--script"])
        .arg(&script)
        .arg(format!("http://{}{}", stage.target.address, stage.target.path))
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&said).map_err(io)?)
        .spawn();
    let mut running = Running(child.map_err(io)?);
    stage.load.pass(MARGIN)?;
    stage.restart(&names)?;
    stage.load.pass(MARGIN)?;
    let was_under_load = matches!(running.0.try_wait(), Ok(None));
    if let Some(pid) = pid(running.0.id()).filter(|_| was_under_load) {
        // It then says what it has counted, as it does at its own end.
        kill_process(pid, Signal::INT).map_err(|error| io(error.into()))?;
    }
    let deadline = Instant::now() + WRK_ENDS_WITHIN;
    while matches!(running.0.try_wait(), Ok(None)) {
        if Instant::now() > deadline {
            return Err(Error::TooSlow("wrk doesn't end".to_owned()));
        }
        stage.load.pass(Duration::from_millis(10))?;
    }
    let mut answered = BTreeSet::new();
    let mut wrong = Vec::new();
    for number in 0..THREADS {
        let text = std::fs::read_to_string(answers(&folder, number)).map_err(io)?;
        for line in text.lines() {
            match line.parse() {
                Ok(id) if answered.insert(id) => {}
                Ok(id) => wrong.push(format!("{id} was answered twice")),
                Err(()) => wrong.push(format!("a response names no request: {line:?}")),
            }
        }
    }
    let said = std::fs::read_to_string(&said).map_err(io)?;
    let Some(counts) = Counts::read(&said) else {
        return Err(Error::Fault(format!("wrk doesn't say what it counted: {}", said.trim())));
    };
    let mut side = Side::compare(&answered, &noted(stage)?, |id| id.step >= STEP_MIN);
    side.failed = counts.failed;
    side.uncounted_max = u64::from(connections);
    if counts.responses != answered.len() as u64 + counts.refused {
        wrong.push(format!("it counts {} responses, and noted {}", counts.responses, answered.len()));
    }
    if !was_under_load {
        wrong.push("it had ended before all instances were restarted".to_owned());
    }
    side.wrong = wrong;
    Ok(side)
}

/// What instances noted; they must do it themselves.
fn noted(stage: &Stage<'_>) -> Result<Ledger, Error> {
    let ledger = stage.ledger()?;
    match ledger.source {
        Source::File => Ok(ledger),
        Source::Output | Source::None => Err(Error::Project(
            "the instances don't write down what they receive (LEDGER), so there is nothing to compare with"
                .to_owned(),
        )),
    }
}

/// A running `wrk`. Ended when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What `wrk` counted.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    /// Responses, whatever their status.
    responses: u64,
    /// Responses with a status of 400 or more.
    refused: u64,
    /// These, and connections that failed.
    failed: u64,
}

impl Counts {
    /// Reads the line that the script prints at the end.
    fn read(said: &str) -> Option<Self> {
        let line = said.lines().find_map(|line| line.strip_prefix("reconcile "))?;
        let numbers: Vec<u64> = line.split(' ').map_while(|word| word.parse().ok()).collect();
        let [responses, refused, rest @ ..] = numbers.as_slice() else { return None };
        (rest.len() == 4).then(|| Self {
            responses: *responses,
            refused: *refused,
            failed: refused + rest.iter().sum::<u64>(),
        })
    }
}

fn answers(folder: &Path, thread: u32) -> PathBuf {
    folder.join(format!("answered-{thread}"))
}

/// Writes the script: an id for each request, and the ids of what was answered, one a line and one file for each thread.
fn lua(host: &str, path: &str, folder: &Path) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    let quoted = |text: &str| format!("{:?}", text);
    format!(
        r#"local threads = 0
function setup(thread)
    thread:set("number", threads)
    threads = threads + 1
end

function init(args)
    sent = 0
    answered = io.open({folder} .. "/answered-" .. number, "w")
    answered:setvbuf("line")
end

function request()
    -- wrk asks once for a request of nobody's, to see what they look like.
    local id = string.format("d%d-%d", {STEP_MIN} + (number or 999), sent or 0)
    sent = (sent or 0) + 1
    return wrk.format("GET", {target} .. id, {{["Host"] = {host}, ["X-Request-Id"] = id}})
end

function response(status, headers, body)
    if status < 400 then
        answered:write(headers["X-Request-Id"] or "none", "\n")
    end
end

function done(summary, latency, requests)
    local e = summary.errors
    print(string.format("reconcile %d %d %d %d %d %d",
        summary.requests, e.status, e.connect, e.read, e.write, e.timeout))
end
"#,
        folder = quoted(&folder.to_string_lossy()),
        target = quoted(&format!("{path}{separator}drill=")),
        host = quoted(host),
    )
}

fn wrk_version(wrk: &Path) -> Result<String, Error> {
    let output = Command::new(wrk).arg("--version").stdin(Stdio::null()).output();
    let output = output.map_err(|source| Error::io(format!("{} can't be run", wrk.display()), source))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // `wrk debian/4.1.0-3+b2 [epoll] Copyright (C) 2012 Will Glozer`
    Ok(said.split(" [").next().unwrap_or("wrk").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Entry, Event};

    fn id(number: u32) -> Id {
        Id { step: STEP_MIN, number }
    }

    /// Compares what was answered with what was received, at most one request being under way at the end.
    #[track_caller]
    fn check(answered: &[u32], received: &[u32], expect: (u64, u64, u64, bool)) {
        let entry = |number: &u32| Entry { id: id(*number), instance: "app1".into(), event: Event::Received };
        let strange =
            Entry { id: Id { step: 0, number: 0 }, instance: "app1".into(), event: Event::Received };
        let entries = received.iter().map(entry).chain([strange]).collect();
        let ledger = Ledger { source: Source::File, entries, ..Ledger::default() };
        let answered = answered.iter().map(|number| id(*number)).collect();
        let mut side = Side::compare(&answered, &ledger, |id| id.step >= STEP_MIN);
        side.uncounted_max = 1;
        assert_eq!((side.uncounted, side.unreceived, side.repeated, side.agrees()), expect);
    }

    #[test]
    fn counts_agree_or_do_not() {
        check(&[1, 2], &[1, 2], (0, 0, 0, true));
        check(&[1, 2], &[1, 2, 2, 3], (1, 0, 1, true));
        check(&[1, 2], &[1, 2, 3, 4], (2, 0, 0, false));
        check(&[1, 2], &[1], (0, 1, 0, false));
        check(&[], &[], (0, 0, 0, false));
    }

    #[test]
    fn reads_what_wrk_counted() {
        let said = "Running 4s test\n  2 threads\nreconcile 700 3 0 1 0 2\n";
        assert_eq!(Counts::read(said), Some(Counts { responses: 700, refused: 3, failed: 6 }));
        assert_eq!(Counts::read("reconcile 700 3"), None);
    }
}
