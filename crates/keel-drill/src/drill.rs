//! A whole drill: the cases one after another, each judged and told as it ends.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    Error, Options,
    cases::{CASES, Case},
    ledger::Source,
    record::Record,
    results::{self, Finding, Machine, Results, Seconds},
    seed::Seed,
    stage::{Context, Known, Played, unplayed},
    subject::Subject,
    system::Ground,
    timeline,
    verdict::{Verdict, judge},
    work::Work,
};

/// A request that was begun so much later than intended was late by the generator's own fault.
const LATE: Duration = Duration::from_millis(10);

/// A drill that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Of the cases that were played.
    pub results: Results,
    /// Why it ended before the last one, where it did.
    pub error: Option<Error>,
}

/// Plays all cases of the options. `told` hears what a case came to, as soon as it has ended.
///
/// # Errors
/// When the project can't be tried at all. What a case finds is no error but a result; and where a drill breaks off, or the
/// user ends it, there are results of the cases before.
pub fn run(options: &Options, mut told: impl FnMut(CaseNews<'_>)) -> Result<Ended, Error> {
    let began = Instant::now();
    let subject = Subject::read(options.project.clone())?;
    let work = Work::new(&options.project.cache)?;
    let ground = Ground::of(options, &work);
    let known = Known::default();
    let mut results = Results {
        schema: results::SCHEMA,
        project: subject.joined.name.clone(),
        started_at: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        seed: options.seed,
        proxy: match &options.nginx {
            Some(nginx) => nginx.name()?,
            None => format!("Evenkeel {}", env!("CARGO_PKG_VERSION")),
        },
        driver: subject.driver().to_owned(),
        machine: Machine::read(),
        files: project_files(&subject),
        ..Results::default()
    };
    let mut ended = Ok(());
    for (number, case) in chosen(options)?.into_iter().enumerate() {
        told(CaseNews::Begins(case));
        match play(case, number, &subject, options, &ground, &known, &mut results) {
            Ok(played) => {
                told(CaseNews::Ended(&played));
                results.cases.push(played);
            }
            Err(error) => {
                results.ended_early = Some(format!("{}: {}", case.name, keel_control::chain(&error)));
                ended = Err(error);
                break;
            }
        }
    }
    results.took = Seconds::from(began.elapsed());
    Ok(Ended { results, error: ended.err() })
}

/// What is told of a drill as it runs.
#[derive(Debug)]
pub enum CaseNews<'a> {
    /// A case begins.
    Begins(&'static Case),
    /// A case has ended.
    Ended(&'a results::Case),
}

/// The cases that were asked for, in the order of the list.
fn chosen(options: &Options) -> Result<Vec<&'static Case>, Error> {
    for name in &options.cases {
        if CASES.iter().all(|case| case.name != name) {
            return Err(Error::Project(format!(
                "there is no case `{name}`; `evenkeel drill --list` shows them"
            )));
        }
    }
    let wanted =
        |case: &&Case| options.cases.is_empty() || options.cases.iter().any(|name| name == case.name);
    Ok(CASES.iter().copied().filter(wanted).collect())
}

fn play(
    case: &'static Case,
    number: usize,
    subject: &Subject,
    options: &Options,
    ground: &Ground,
    known: &Known,
    results: &mut Results,
) -> Result<results::Case, Error> {
    let began = Instant::now();
    let blank =
        results::Case { name: case.name.to_owned(), what: case.what.to_owned(), ..results::Case::default() };
    let seed = Seed::new(options.seed).split(case.name);
    let context = Context { subject, options, ground, known, seed, number };
    if let Err(why) = (case.fits)(&context) {
        return Ok(results::Case { skipped: Some(why), ..blank });
    }
    match case.play(&context) {
        Ok(mut played) => {
            if results.system.instances.is_empty() {
                results.system = std::mem::take(&mut played.system);
            }
            let prefix = case.name;
            results.files.extend(
                std::mem::take(&mut played.files)
                    .into_iter()
                    .map(|(name, text)| (format!("{prefix}/{name}"), text)),
            );
            let mut told = account(played, blank);
            told.took = Seconds::from(began.elapsed());
            Ok(told)
        }
        Err(error @ (Error::Interrupted | Error::Project(_))) => Err(error),
        Err(error) => {
            let finding = Finding { what: unplayed(&error), ids: Vec::new() };
            Ok(results::Case { findings: vec![finding], took: Seconds::from(began.elapsed()), ..blank })
        }
    }
}

/// Judges what a case left behind and puts it into the form of the results.
fn account(played: Played, blank: results::Case) -> results::Case {
    let Played { records, ledger, steps, observations, allowed, events, mut load, findings, .. } = played;
    let Verdict { count, shares, findings: judged } = judge(&records, &ledger, &allowed, &steps);
    let start = records.iter().map(|record| record.intended).min().unwrap_or_default();
    note_limits(&records, &mut load);
    let has_ledger = ledger.source != Source::None;
    let mut words: Vec<String> = allowed.iter().map(|one| one.words.to_owned()).collect();
    words.sort();
    words.dedup();
    results::Case {
        allowed: words,
        steps: steps
            .into_iter()
            .zip(shares)
            .map(|(step, received)| results::Step {
                observation: observations.get(&step.step).cloned().unwrap_or_default(),
                condition: step.condition,
                received: if has_ledger { received } else { served(&records, step.step) },
                expected: step.expected,
            })
            .collect(),
        load,
        source: ledger.source,
        count,
        latency: timeline::latency(&records),
        events: events
            .into_iter()
            .map(|(at, what)| results::Event { at: Seconds::from(at.since(start)), what })
            .collect(),
        timeline: timeline::slices(&records, start),
        findings: judged.into_iter().chain(findings).collect(),
        ..blank
    }
}

/// Says where the generator could not do what was asked.
fn note_limits(records: &[Record], load: &mut results::Load) {
    let late = records.iter().filter(|record| record.lag() > LATE).count();
    load.late = late as u64;
    if late > 0 {
        load.limits.push(format!(
            "the generator was behind: {late} of {} requests were begun more than {} ms late",
            records.len(),
            LATE.as_millis()
        ));
    }
    let waited = records.iter().filter(|record| record.queued() > LATE).count();
    if waited > 0 {
        load.limits.push(format!(
            "{waited} requests waited more than {} ms for one of the {} connections; their latency counts that",
            LATE.as_millis(),
            load.connections
        ));
    }
}

/// Who says to have answered, where nobody notes what was received.
fn served(records: &[Record], step: u32) -> BTreeMap<String, u64> {
    let mut served = BTreeMap::new();
    for name in
        records.iter().filter(|record| record.id.step == step).filter_map(|record| record.instance.as_ref())
    {
        *served.entry(name.clone()).or_default() += 1;
    }
    served
}

/// The project's own files, by name.
fn project_files(subject: &Subject) -> BTreeMap<String, String> {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let read = |path: &PathBuf| Some((name(path)?, std::fs::read_to_string(path).ok()?));
    let mut files: BTreeMap<String, String> = subject.files().iter().filter_map(read).collect();
    files.insert("nginx.conf".to_owned(), subject.configuration_text.clone());
    files
}
