//! Compares what clients sent with what instances received, and says what is wrong.
//!
//! Pure: records, ledger and expectations in, counts and findings out. Nothing here asks the balancer anything.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use crate::{
    ledger::{Ledger, Source},
    record::{Body, Break, Id, Moment, Outcome, Record, StepShare},
    results::{Count, Finding},
};

/// An outcome beside success that a case counts as right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// In words: `503 under overload`.
    pub words: &'static str,
    /// Which outcome.
    pub outcome: Allowed,
    /// Of which requests.
    pub methods: Methods,
    /// Only of requests that came so far. Not asked where nobody notes what was received.
    pub reached: Reached,
    /// Only of requests that were under way at some time between these two moments.
    pub during: Option<(Moment, Moment)>,
    /// Only of requests that took so long from their first byte on: a time-out takes its time.
    pub took_min: Duration,
    /// So many requests at most.
    pub at_most: u64,
}

/// How far a request may have come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// To anybody.
    Anybody,
    /// To no instance.
    Nobody,
    /// To no instance but these.
    NobodyBut(BTreeSet<String>),
    /// To no instance, and while it was under way an instance closed a connection; each such end is an excuse for one
    /// request.
    Closed,
}

/// How long after a connection was closed its other side may not have heard of it: on one machine as long as the kernel
/// lets a packet lie when all processors are taken.
const UNHEARD_MAX: Duration = Duration::from_millis(20);

/// Which outcome is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// A response with one of these statuses.
    Status(&'static [u16]),
    /// No response: the connection was closed, or broke within it.
    Broken,
}

/// Which requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Methods {
    /// All.
    All,
    /// Those that must not be repeated.
    Posts,
}

/// What came of the comparison.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// The counts.
    pub count: Count,
    /// What each step's instances received for the first time, in the steps' order.
    pub shares: Vec<BTreeMap<String, u64>>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl Default for Allowance {
    /// Allows nothing that is broken, of any request; a base for what a case says.
    fn default() -> Self {
        Self {
            words: "",
            outcome: Allowed::Status(&[]),
            methods: Methods::All,
            reached: Reached::Anybody,
            during: None,
            took_min: Duration::ZERO,
            at_most: u64::MAX,
        }
    }
}

impl Allowance {
    /// Whether it is such an outcome of such a request, apart from where that was received.
    fn covers(&self, record: &Record) -> bool {
        let outcome = match (self.outcome, record.outcome) {
            (Allowed::Status(allowed), Outcome::Answered { status, .. }) => allowed.contains(&status),
            (Allowed::Broken, Outcome::Broken(Break::BeforeHead | Break::Within | Break::Connect)) => true,
            _ => false,
        };
        outcome
            && (self.methods == Methods::All || record.is_post)
            && self.during.is_none_or(|(from, to)| record.overlaps(from, to))
            && record.ended.since(record.sent) >= self.took_min
    }
}

/// What is allowed, as far as it wasn't used up.
struct Leave<'a> {
    allowed: Vec<(&'a Allowance, u64)>,
    source: Source,
    /// By their end.
    closings: Vec<(Moment, Moment)>,
}

impl<'a> Leave<'a> {
    fn new(allowed: &'a [Allowance], ledger: &Ledger) -> Self {
        let mut closings = ledger.closings.clone();
        closings.sort_unstable_by_key(|(from, to)| (*to, *from));
        Self {
            allowed: allowed.iter().map(|one| (one, one.at_most)).collect(),
            source: ledger.source,
            closings,
        }
    }

    /// Takes leave for a request that these instances received; says what was against it where there is none.
    fn take(&mut self, record: &Record, received: &[&str]) -> Result<(), Option<String>> {
        let mut against = None;
        for (allowance, left) in self.allowed.iter_mut().filter(|(one, _)| one.covers(record)) {
            let closing = match (&allowance.reached, self.source) {
                (_, Source::None) | (Reached::Anybody, _) => None,
                (Reached::NobodyBut(names), _) => {
                    let other = received.iter().find(|name| !names.iter().any(|one| is_same(one, name)));
                    if let Some(other) = other {
                        against = Some(format!("received by {other}"));
                        continue;
                    }
                    None
                }
                (Reached::Nobody | Reached::Closed, _) if !received.is_empty() => {
                    against = Some("received by an instance".to_owned());
                    continue;
                }
                (Reached::Nobody, _) => None,
                (Reached::Closed, _) => {
                    let is_excuse =
                        |(from, to): &(Moment, Moment)| record.overlaps(*from, to.after(UNHEARD_MAX));
                    let found = self.closings.iter().position(is_excuse);
                    if found.is_none() {
                        against = Some("though no connection was closed then".to_owned());
                        continue;
                    }
                    found
                }
            };
            if *left == 0 {
                against = Some(format!("more than the {} that can be", allowance.at_most));
                continue;
            }
            *left -= 1;
            if let Some(at) = closing {
                self.closings.remove(at);
            }
            return Ok(());
        }
        Err(against)
    }
}

/// Whether two names are of one instance: the only one of a service is `app` or `app-1`, as there are more or not.
fn is_same(one: &str, other: &str) -> bool {
    let single = |name: &'_ str| name.strip_suffix("-1").unwrap_or(name).to_owned();
    one == other || single(one) == single(other)
}

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    Allowed,
    Lost,
    Torn,
}

/// Judges a case.
pub fn judge(records: &[Record], ledger: &Ledger, allowed: &[Allowance], steps: &[StepShare]) -> Verdict {
    let receipts = ledger.receipts();
    let mut verdict = Verdict::default();
    let mut problems = Problems::default();
    let sums = ledger.sums();
    let mut leave = Leave::new(allowed, ledger);
    for record in records {
        let by = receipts.get(&record.id).map_or(&[][..], Vec::as_slice);
        let received = by.len();
        verdict.count.sent += 1;
        verdict.count.sent_posts += u64::from(record.is_post);
        match fate(record, by, &sums, &mut leave, &mut problems) {
            Fate::Answered => {
                verdict.count.answered += 1;
                if received == 0 && ledger.source == Source::File {
                    problems.add("answered, though no instance received it", record.id);
                }
            }
            Fate::Allowed => verdict.count.allowed += 1,
            Fate::Lost => verdict.count.lost += 1,
            Fate::Torn => verdict.count.torn += 1,
        }
        if received > 1 && record.is_post {
            verdict.count.doubled += 1;
            problems.add("a POST received more than once", record.id);
        } else if received > 1 {
            verdict.count.repeated += 1;
        }
    }
    for (id, instance) in ledger.early() {
        problems.add(format!("received by {instance} before it was ready"), id);
    }
    for id in ledger.foreign() {
        problems.add("passed to a process that is none of the project's", id);
    }
    problems.strangers(records, &receipts);
    verdict.shares = steps.iter().map(|step| share(step.step, &receipts)).collect();
    verdict.findings = problems.findings();
    verdict.findings.extend(mistaken_findings(ledger));
    for (step, share) in steps.iter().zip(&verdict.shares) {
        verdict.findings.extend(share_finding(step, share, &receipts));
    }
    verdict
}

fn fate(
    record: &Record,
    received: &[&str],
    sums: &HashMap<Id, &str>,
    leave: &mut Leave<'_>,
    problems: &mut Problems,
) -> Fate {
    let torn = match record.outcome {
        Outcome::Answered { body: Body::Torn, .. } => {
            Some("complete to the client, and not what the instance announced")
        }
        Outcome::Answered { body: Body::Foreign, .. } => {
            Some("answered with the response to another request")
        }
        _ if sums.get(&record.id).is_some_and(|sum| *sum != record.body_sum) => {
            Some("complete to the instance, and not what the client sent")
        }
        _ => None,
    };
    if let Some(what) = torn {
        problems.add(what, record.id);
        return Fate::Torn;
    }
    if record.outcome.is_success() {
        return Fate::Answered;
    }
    let Err(against) = leave.take(record, received) else { return Fate::Allowed };
    let method = if record.is_post { "POST" } else { "GET" };
    let against = against.map(|against| format!(", {against}")).unwrap_or_default();
    problems.add(format!("a {method} lost: {}{against}", record.outcome.words()), record.id);
    Fate::Lost
}

/// Problems by kind, with the requests that have them.
#[derive(Default)]
struct Problems(BTreeMap<String, BTreeSet<Id>>);

impl Problems {
    fn add(&mut self, what: impl Into<String>, id: Id) {
        self.0.entry(what.into()).or_default().insert(id);
    }

    /// Notes what instances received that the client never sent.
    fn strangers(&mut self, records: &[Record], receipts: &HashMap<Id, Vec<&str>>) {
        let sent: BTreeSet<Id> = records.iter().map(|record| record.id).collect();
        for id in receipts.keys().filter(|id| !sent.contains(id)) {
            self.add("received, though the client has no record of it", *id);
        }
    }

    fn findings(self) -> Vec<Finding> {
        let finding = |(what, ids): (String, BTreeSet<Id>)| Finding {
            what: format!("{} × {what}", ids.len()),
            ids: ids.iter().take(Finding::IDS_MAX).map(Id::to_string).collect(),
        };
        self.0.into_iter().map(finding).collect()
    }
}

/// Finds healthchecks that said of one instance what was true of another. A name alone doesn't tell an instance from the
/// one that it replaces; those are let pass.
fn mistaken_findings(ledger: &Ledger) -> Vec<Finding> {
    let mut count: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for one in ledger.mistaken.iter().filter(|one| !is_same(&one.asker, &one.answered_by)) {
        *count.entry((&one.asker, &one.answered_by)).or_default() += 1;
    }
    let finding = |((asker, by), count): ((&str, &str), u64)| Finding {
        what: format!("{count} × a healthcheck of {asker} answered by {by}"),
        ids: Vec::new(),
    };
    count.into_iter().map(finding).collect()
}

/// Counts first receipts of one step by instance.
fn share(step: u32, receipts: &HashMap<Id, Vec<&str>>) -> BTreeMap<String, u64> {
    let mut share = BTreeMap::new();
    for (_, instances) in receipts.iter().filter(|(id, _)| id.step == step) {
        if let Some(first) = instances.first() {
            *share.entry((*first).to_owned()).or_default() += 1;
        }
    }
    share
}

fn share_finding(
    step: &StepShare,
    share: &BTreeMap<String, u64>,
    receipts: &HashMap<Id, Vec<&str>>,
) -> Option<Finding> {
    let expected = step.expected.as_ref()?;
    let of = |counts: &BTreeMap<String, u64>, name: &String| counts.get(name).copied().unwrap_or(0);
    let names: BTreeSet<&String> = expected.keys().chain(share.keys()).collect();
    let off: Vec<String> = names
        .iter()
        .filter(|name| of(share, name) != of(expected, name))
        .map(|name| format!("{name} received {} instead of {}", of(share, name), of(expected, name)))
        .collect();
    if off.is_empty() {
        return None;
    }
    // Of those who had too many: which requests these were.
    let too_many: BTreeSet<&str> =
        names.iter().filter(|name| of(share, name) > of(expected, name)).map(|name| name.as_str()).collect();
    let mut ids: Vec<Id> = receipts
        .iter()
        .filter(|(id, at)| id.step == step.step && at.first().is_some_and(|first| too_many.contains(first)))
        .map(|(id, _)| *id)
        .collect();
    ids.sort_unstable();
    Some(Finding {
        what: format!("shares are off, {}: {}", step.condition, off.join(", ")),
        ids: ids.iter().take(Finding::IDS_MAX).map(Id::to_string).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Entry, Event, Mistaken};

    const OK: Outcome = Outcome::Answered { status: 200, body: Body::Whole };

    fn record(number: u32, is_post: bool, outcome: Outcome) -> Record {
        Record {
            id: Id { step: 0, number },
            is_post,
            intended: Moment(u64::from(number) * 100),
            begun: Moment(u64::from(number) * 100),
            free: Moment(u64::from(number) * 100),
            sent: Moment(u64::from(number) * 100),
            ended: Moment(u64::from(number) * 100 + 50),
            is_reused: true,
            body_sum: "0-00000000".into(),
            instance: None,
            outcome,
        }
    }

    fn entry(number: u32, instance: &str, event: Event) -> Entry {
        Entry { id: Id { step: 0, number }, instance: instance.into(), event }
    }

    fn received(number: u32, instance: &str) -> Entry {
        entry(number, instance, Event::Received)
    }

    /// Judges and shows counts as `sent answered allowed lost doubled torn repeated`, and the findings.
    #[track_caller]
    fn check(
        records: &[Record],
        entries: &[Entry],
        allowed: &[Allowance],
        counts: [u64; 7],
        findings: &[&str],
    ) {
        let ledger = Ledger { source: Source::File, entries: entries.to_vec(), ..Ledger::default() };
        let Verdict { count: c, findings: found, .. } = judge(records, &ledger, allowed, &[]);
        assert_eq!([c.sent, c.answered, c.allowed, c.lost, c.doubled, c.torn, c.repeated], counts);
        let found: Vec<String> =
            found.iter().map(|finding| format!("{} ({})", finding.what, finding.ids.join(" "))).collect();
        assert_eq!(found, findings);
    }

    #[test]
    fn says_what_became_of_each_request() {
        let (get, post) = (|outcome| record(1, false, outcome), |outcome| record(1, true, outcome));
        let once = [received(1, "app1"), entry(1, "app1", Event::Answered(Some("0-00000000".into())))];
        let twice = [received(1, "app1"), received(1, "app2")];
        let status = |status| Outcome::Answered { status, body: Body::Unannounced };
        let broken = Outcome::Broken(Break::Within);

        check(&[get(OK)], &once, &[], [1, 1, 0, 0, 0, 0, 0], &[]);
        check(&[post(OK)], &once, &[], [1, 1, 0, 0, 0, 0, 0], &[]);
        check(&[get(OK)], &twice, &[], [1, 1, 0, 0, 0, 0, 1], &[]);
        check(
            &[post(OK)],
            &twice,
            &[],
            [1, 1, 0, 0, 1, 0, 0],
            &["1 × a POST received more than once (d0-1)"],
        );
        check(&[get(status(502))], &once, &[], [1, 0, 0, 1, 0, 0, 0], &["1 × a GET lost: 502 (d0-1)"]);
        check(
            &[post(broken)],
            &[],
            &[],
            [1, 0, 0, 1, 0, 0, 0],
            &["1 × a POST lost: cut off within the response (d0-1)"],
        );
        check(
            &[get(OK)],
            &[],
            &[],
            [1, 1, 0, 0, 0, 0, 0],
            &["1 × answered, though no instance received it (d0-1)"],
        );
        check(
            &[get(Outcome::Answered { status: 200, body: Body::Torn })],
            &once,
            &[],
            [1, 0, 0, 0, 0, 1, 0],
            &["1 × complete to the client, and not what the instance announced (d0-1)"],
        );
        check(
            &[get(Outcome::Answered { status: 200, body: Body::Foreign })],
            &once,
            &[],
            [1, 0, 0, 0, 0, 1, 0],
            &["1 × answered with the response to another request (d0-1)"],
        );
        check(
            &[post(OK)],
            &[received(1, "app1"), entry(1, "app1", Event::Answered(Some("3-12345678".into())))],
            &[],
            [1, 0, 0, 0, 0, 1, 0],
            &["1 × complete to the instance, and not what the client sent (d0-1)"],
        );
        check(
            &[],
            &[received(7, "app1")],
            &[],
            [0; 7],
            &["1 × received, though the client has no record of it (d0-7)"],
        );
    }

    #[test]
    fn allows_what_a_case_allows_and_nothing_else() {
        let once = [received(1, "app1")];
        let allow =
            |outcome, methods, during| vec![Allowance { outcome, methods, during, ..Allowance::default() }];
        let status = |status| Outcome::Answered { status, body: Body::Unannounced };
        let (fine, lost) = ([1, 0, 1, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0, 0]);
        let one = |is_post, outcome| [record(1, is_post, outcome)];

        let posts = allow(Allowed::Status(&[504]), Methods::Posts, None);
        check(&one(true, status(504)), &once, &posts, fine, &[]);
        check(&one(false, status(504)), &once, &posts, lost, &["1 × a GET lost: 504 (d0-1)"]);
        check(&one(true, status(502)), &once, &posts, lost, &["1 × a POST lost: 502 (d0-1)"]);
        // Under way from 100 to 150.
        for (from, to, expect) in [(150, 160, fine), (90, 100, fine), (0, 99, lost), (151, 200, lost)] {
            let during = allow(Allowed::Broken, Methods::All, Some((Moment(from), Moment(to))));
            let findings: &[&str] =
                if expect == lost { &["1 × a GET lost: closed without a response (d0-1)"] } else { &[] };
            check(&one(false, Outcome::Broken(Break::BeforeHead)), &once, &during, expect, findings);
        }
        let broken = allow(Allowed::Broken, Methods::All, None);
        let timed_out = one(false, Outcome::Broken(Break::TimedOut));
        check(&timed_out, &once, &broken, lost, &["1 × a GET lost: no end in time (d0-1)"]);
        let torn = one(true, Outcome::Answered { status: 504, body: Body::Torn });
        check(
            &torn,
            &once,
            &posts,
            [1, 0, 0, 0, 0, 1, 0],
            &["1 × complete to the client, and not what the instance announced (d0-1)"],
        );
    }

    /// Says what is found of POSTs, 10 ms long each and one every 10 ms, answered with 502, under one allowance.
    #[track_caller]
    fn check_posts(reached: Reached, entries: &[Entry], closings: &[(u64, u64)], expect: &[&str]) {
        let status = Outcome::Answered { status: 502, body: Body::Unannounced };
        let at = |number: u32| Moment(u64::from(number) * 10_000);
        let records: Vec<Record> = (0..3)
            .map(|number| Record { sent: at(number), ended: at(number + 1), ..record(number, true, status) })
            .collect();
        let closings = closings.iter().map(|(from, to)| (Moment(*from), Moment(*to))).collect();
        let ledger =
            Ledger { source: Source::File, entries: entries.to_vec(), closings, ..Ledger::default() };
        let allowance = Allowance {
            outcome: Allowed::Status(&[502]),
            methods: Methods::Posts,
            reached,
            took_min: Duration::from_millis(10),
            at_most: 2,
            ..Allowance::default()
        };
        let verdict = judge(&records, &ledger, std::slice::from_ref(&allowance), &[]);
        let found: Vec<String> =
            verdict.findings.iter().map(|one| format!("{} ({})", one.what, one.ids.join(" "))).collect();
        assert_eq!(found, expect);
        assert_eq!(verdict.count.allowed + verdict.count.lost, 3);
        // Where nobody notes what was received, what is left are times and numbers.
        let blind = judge(&records, &Ledger::default(), std::slice::from_ref(&allowance), &[]);
        assert_eq!((blind.count.allowed, blind.count.lost), (2, 1));
        let slow = Allowance { took_min: Duration::from_millis(11), ..allowance };
        assert_eq!(judge(&records, &ledger, &[slow], &[]).count.lost, 3);
    }

    #[test]
    fn allows_what_the_faulty_instance_can_have_caused() {
        let only = |name: &str| Reached::NobodyBut(BTreeSet::from([name.to_owned()]));
        let too_many = "1 × a POST lost: 502, more than the 2 that can be (d0-2)";
        check_posts(Reached::Anybody, &[received(0, "app1")], &[], &[too_many]);
        check_posts(Reached::Nobody, &[], &[], &[too_many]);
        check_posts(
            Reached::Nobody,
            &[received(1, "app1")],
            &[],
            &["1 × a POST lost: 502, received by an instance (d0-1)"],
        );
        check_posts(
            only("app1"),
            &[received(1, "app2"), received(2, "app1-1")],
            &[],
            &["1 × a POST lost: 502, received by app2 (d0-1)"],
        );
        check_posts(
            only("app1"),
            &[received(1, "app1"), received(1, "app2"), received(0, "app2")],
            &[],
            &[
                "2 × a POST lost: 502, received by app2 (d0-0 d0-1)",
                "1 × a POST received more than once (d0-1)",
            ],
        );
        // The second of two ends is an excuse for the second request, and there is none for the third.
        check_posts(
            Reached::Closed,
            &[],
            &[(9_000, 9_500), (200, 300)],
            &["1 × a POST lost: 502, though no connection was closed then (d0-2)"],
        );
        check_posts(
            Reached::Closed,
            &[],
            &[(70_000, 80_000)],
            &["3 × a POST lost: 502, though no connection was closed then (d0-0 d0-1 d0-2)"],
        );
    }

    #[test]
    fn finds_what_came_too_early() {
        check(
            &[record(1, false, OK)],
            &[received(1, "app1"), entry(1, "app1", Event::Early)],
            &[],
            [1, 1, 0, 0, 0, 0, 0],
            &["1 × received by app1 before it was ready (d0-1)"],
        );
    }

    #[test]
    fn finds_what_came_to_the_wrong_one() {
        check(
            &[record(1, false, OK)],
            &[entry(1, "a-foreign-process", Event::Foreign)],
            &[],
            [1, 1, 0, 0, 0, 0, 0],
            &[
                "1 × answered, though no instance received it (d0-1)",
                "1 × passed to a process that is none of the project's (d0-1)",
            ],
        );
        let asked = |asker: &str, answered_by: &str| Mistaken {
            asker: asker.to_owned(),
            answered_by: answered_by.to_owned(),
        };
        let mistaken = vec![asked("app-2", "app-1"), asked("app-2", "app-1"), asked("app-1", "app")];
        let ledger = Ledger { source: Source::File, mistaken, ..Ledger::default() };
        let found: Vec<String> =
            judge(&[], &ledger, &[], &[]).findings.into_iter().map(|finding| finding.what).collect();
        assert_eq!(found, ["2 × a healthcheck of app-2 answered by app-1"]);
    }

    #[test]
    fn shares_count_first_receipts() {
        let entries = [received(0, "app1"), received(1, "app2"), received(2, "app1"), received(2, "app2")];
        let ledger = Ledger { source: Source::File, entries: entries.to_vec(), ..Ledger::default() };
        let records: Vec<Record> = (0..3).map(|number| record(number, false, OK)).collect();
        let expect = |counts: &[(&str, u64)]| -> BTreeMap<String, u64> {
            counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
        };
        let step = |expected: &[(&str, u64)]| StepShare {
            step: 0,
            condition: "all ready".into(),
            expected: Some(expect(expected)),
        };
        let verdict = judge(&records, &ledger, &[], &[step(&[("app1", 2), ("app2", 1)])]);
        assert_eq!((verdict.shares, verdict.findings), (vec![expect(&[("app1", 2), ("app2", 1)])], vec![]));
        let verdict = judge(&records, &ledger, &[], &[step(&[("app1", 1), ("app2", 1), ("app3", 1)])]);
        let finding = verdict.findings.first().unwrap();
        assert_eq!(
            finding.what,
            "shares are off, all ready: app1 received 2 instead of 1, app3 received 0 instead of 1"
        );
        assert_eq!(finding.ids, ["d0-0", "d0-2"]);
    }
}
