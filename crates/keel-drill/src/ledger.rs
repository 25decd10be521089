//! What instances noted of the requests they received: the other side of the comparison.
//!
//! The demo app and the drill's own peers append `received ID INSTANCE` to a file on receipt and `answered ID INSTANCE SUM`
//! after answering, each by one write(2), so that a SIGKILL hides nothing. The drill's own peers also note
//! `early ID INSTANCE` of a request that came before they were ready, `closed FROM TO INSTANCE` of a kept connection that
//! they closed unannounced, and `asked ASKER INSTANCE` of another one's healthcheck that came to them. A foreign process
//! notes `foreign ID NAME` of every request that it gets. Of any other app there is what its own output shows of the request's URL.

use std::{collections::HashMap, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::record::{Id, Moment, Record, StepShare};

/// One line of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which request.
    pub id: Id,
    /// Which instance.
    pub instance: String,
    /// What it says.
    pub event: Event,
}

/// What an instance says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its head arrived.
    Received,
    /// It came before the instance was ready.
    Early,
    /// It came to a process that is none of the project's.
    Foreign,
    /// Its answer was written; with the sum of the body that came with the request, where the instance counts that.
    Answered(Option<String>),
}

/// Where the other side of the comparison comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A file that instances write themselves.
    File,
    /// What instances print.
    Output,
    /// Nothing shows what instances received.
    #[default]
    None,
}

/// All that instances noted.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// How it was had.
    pub source: Source,
    /// In the order noted.
    pub entries: Vec<Entry>,
    /// Kept connections that an instance closed unannounced: each was closed at some time between the two moments.
    pub closings: Vec<(Moment, Moment)>,
    /// Healthchecks that another one answered than the instance that they were to check.
    pub mistaken: Vec<Mistaken>,
}

/// A healthcheck that came to the wrong one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistaken {
    /// Whose it was.
    pub asker: String,
    /// Who answered it.
    pub answered_by: String,
}

/// How many lines an app prints of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinesEach {
    pub(crate) get: usize,
    pub(crate) post: usize,
}

impl Ledger {
    /// Reads a ledger file; one that isn't there is empty.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            outcome => outcome?,
        };
        Ok(Self::of_text(&text))
    }

    fn of_text(text: &str) -> Self {
        Self {
            source: Source::File,
            entries: text.lines().filter_map(line).collect(),
            closings: text.lines().filter_map(closing).collect(),
            mistaken: text.lines().filter_map(mistaken).collect(),
        }
    }

    /// Adds what somebody noted elsewhere, in the same words.
    pub(crate) fn add(&mut self, text: &str) {
        let other = Self::of_text(text);
        self.entries.extend(other.entries);
        self.closings.extend(other.closings);
        self.mistaken.extend(other.mistaken);
    }

    /// Takes what instances printed, as `evenkeel logs` gives it: `INSTANCE | LINE`. A line that shows a request's id
    /// says that it was received; one that shows it again within the same line says nothing more.
    pub fn of_output<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let entry = |text: &str| {
            let (instance, rest) = text.split_once(" | ")?;
            let id = shown_id(rest)?;
            Some(Entry { id, instance: instance.trim().to_owned(), event: Event::Received })
        };
        Self { source: Source::Output, entries: lines.filter_map(entry).collect(), ..Self::default() }
    }

    /// Takes an app's lines for what they are, where it prints more than one of each request: so many lines of one
    /// instance are one receipt, and what is left over is one more.
    pub(crate) fn fold(&mut self, each: LinesEach, records: &[Record]) {
        let posts: HashMap<Id, bool> = records.iter().map(|record| (record.id, record.is_post)).collect();
        let mut seen: HashMap<(Id, String), usize> = HashMap::new();
        self.entries.retain(|entry| {
            let each = if posts.get(&entry.id).copied().unwrap_or(false) { each.post } else { each.get };
            let count = seen.entry((entry.id, entry.instance.clone())).or_default();
            *count += 1;
            (*count - 1).is_multiple_of(each.max(1))
        });
    }

    /// Requests that came to instances which weren't ready, each with the instance.
    pub fn early(&self) -> impl Iterator<Item = (Id, &str)> {
        let early = self.entries.iter().filter(|entry| entry.event == Event::Early);
        early.map(|entry| (entry.id, entry.instance.as_str()))
    }

    /// Requests that came to a process which is none of the project's.
    pub fn foreign(&self) -> impl Iterator<Item = Id> {
        self.entries.iter().filter(|entry| entry.event == Event::Foreign).map(|entry| entry.id)
    }

    /// Calls instances as the steps call them. The one instance of a service has the service's name, and becomes the
    /// first of several when there are more; it itself isn't told.
    pub(crate) fn rename(&mut self, steps: &[StepShare]) {
        let expected: HashMap<u32, _> =
            steps.iter().filter_map(|step| Some((step.step, step.expected.as_ref()?))).collect();
        for entry in &mut self.entries {
            let Some(names) = expected.get(&entry.id.step) else { continue };
            let other = match entry.instance.strip_suffix("-1") {
                Some(single) => single.to_owned(),
                None => format!("{}-1", entry.instance),
            };
            if !names.contains_key(&entry.instance) && names.contains_key(&other) {
                entry.instance = other;
            }
        }
    }

    /// Gives, for each request, the instances that received it, in order.
    pub fn receipts(&self) -> HashMap<Id, Vec<&str>> {
        let mut receipts: HashMap<Id, Vec<&str>> = HashMap::new();
        for entry in self.entries.iter().filter(|entry| entry.event == Event::Received) {
            receipts.entry(entry.id).or_default().push(&entry.instance);
        }
        receipts
    }

    /// The sums of request bodies that instances noted when they had answered.
    pub fn sums(&self) -> HashMap<Id, &str> {
        self.entries
            .iter()
            .filter_map(|entry| match &entry.event {
                Event::Answered(Some(sum)) => Some((entry.id, sum.as_str())),
                _ => None,
            })
            .collect()
    }
}

/// Reads one line; lines of healthchecks and of a write that SIGKILL cut short say nothing about the drill's requests.
fn line(text: &str) -> Option<Entry> {
    let mut words = text.split(' ');
    let (event, id, instance) = (words.next()?, words.next()?.parse().ok()?, words.next()?.to_owned());
    let event = match event {
        "received" => Event::Received,
        "early" => Event::Early,
        "foreign" => Event::Foreign,
        "answered" => Event::Answered(words.next().map(str::to_owned)),
        _ => return None,
    };
    Some(Entry { id, instance, event })
}

/// Reads `closed FROM TO INSTANCE`.
fn closing(text: &str) -> Option<(Moment, Moment)> {
    let mut words = text.strip_prefix("closed ")?.split(' ');
    let mut moment = || Some(Moment(words.next()?.parse().ok()?));
    Some((moment()?, moment()?))
}

/// Reads `asked ASKER INSTANCE`.
fn mistaken(text: &str) -> Option<Mistaken> {
    let (asker, answered_by) = text.strip_prefix("asked ")?.split_once(' ')?;
    Some(Mistaken { asker: asker.to_owned(), answered_by: answered_by.to_owned() })
}

/// Finds `drill=ID` in a line of an app's output.
fn shown_id(text: &str) -> Option<Id> {
    let (_, rest) = text.split_once("drill=")?;
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(step: u32, number: u32) -> Id {
        Id { step, number }
    }

    #[test]
    fn reads_what_instances_write() {
        let text = "received d0-1 app1\nanswered d0-1 app1 2-9e83486d\nreceived /health app2\n\
                    answered d0-2 app3\nclosed 70 90 app1\nclosed 70\nrec";
        let ledger = Ledger::of_text(text);
        assert_eq!(ledger.closings, [(Moment(70), Moment(90))]);
        assert_eq!(ledger.receipts(), HashMap::from([(id(0, 1), vec!["app1"])]));
        assert_eq!(ledger.sums(), HashMap::from([(id(0, 1), "2-9e83486d")]));
        assert_eq!(ledger.entries.len(), 3);
    }

    #[test]
    fn reads_what_came_to_the_wrong_one() {
        let mut ledger = Ledger::of_text("asked app2 app1\nasked app2\nreceived d0-1 app1\n");
        ledger.add("foreign d0-2 a-foreign-process\nasked app1 a-foreign-process\n");
        let mistaken = |asker: &str, answered_by: &str| Mistaken {
            asker: asker.to_owned(),
            answered_by: answered_by.to_owned(),
        };
        assert_eq!(ledger.mistaken, [mistaken("app2", "app1"), mistaken("app1", "a-foreign-process")]);
        assert_eq!(ledger.foreign().collect::<Vec<_>>(), [id(0, 2)]);
        // Nobody of the project has received that.
        assert_eq!(ledger.receipts(), HashMap::from([(id(0, 1), vec!["app1"])]));
    }

    #[test]
    fn reads_what_apps_print() {
        let lines = [
            "app1   | 127.0.0.1 - - [22/Nov] \"GET /?drill=d1-17 HTTP/1.1\" 200 -",
            "app2-1 | \"POST /x?a=b&drill=d1-18&c HTTP/1.1\"",
            "app2-1 | listens on 5000",
            "no instance drill=d1-1",
            "app3 | drill=nonsense",
        ];
        let ledger = Ledger::of_output(lines.into_iter());
        let expect = HashMap::from([(id(1, 17), vec!["app1"]), (id(1, 18), vec!["app2-1"])]);
        assert_eq!(ledger.receipts(), expect);
    }

    #[test]
    fn lines_of_one_request_are_one_receipt() {
        let mut ledger = Ledger::of_output(
            ["a | drill=d1-1", "a | drill=d1-1", "b | drill=d1-2", "a | drill=d1-2 x", "b | drill=d1-3"]
                .into_iter(),
        );
        ledger.entries.extend(vec![ledger.entries.last().cloned().unwrap(); 2]);
        ledger.fold(LinesEach { get: 2, post: 1 }, &[]);
        // Of the third there are three lines: somebody received it twice.
        let expect =
            HashMap::from([(id(1, 1), vec!["a"]), (id(1, 2), vec!["b", "a"]), (id(1, 3), vec!["b", "b"])]);
        assert_eq!(ledger.receipts(), expect);
    }
}
