//! The drill's side of the load generator: starts it, gives it orders, and collects its records.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{
    Error, Stop,
    generator::{Order, Said, Shape, Target},
    record::Record,
};

/// The hidden command that is the generator.
pub const COMMAND: &str = "drill-load";
/// How often a wait looks whether the user wants to end.
const GLANCE: Duration = Duration::from_millis(20);

/// A running load generator. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Load {
    child: Child,
    orders: Option<ChildStdin>,
    reader: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    stop: Stop,
    patience: Duration,
    /// The step that flows, and the one begun last.
    step: Option<u32>,
    last: Option<u32>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    records: Vec<Record>,
    idle: Option<u32>,
    has_ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Load {
    /// Starts a generator: this program, with a hidden command.
    pub(crate) fn start(program: &Path, target: &Target, stop: &Stop) -> Result<Self, Error> {
        let mut child = Command::new(program)
            .arg(COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A group of its own: a terminal's Ctrl-C is the drill's to act on.
            .process_group(0)
            .spawn()
            .map_err(|source| Error::io("the load generator can't be started", source))?;
        let output = child.stdout.take();
        let shared = Arc::new(Shared::default());
        let reader = {
            let shared = shared.clone();
            std::thread::spawn(move || {
                for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()) {
                    let Ok(said) =
                        line.map_err(drop).and_then(|line| serde_json::from_str::<Said>(&line).map_err(drop))
                    else {
                        break;
                    };
                    match said {
                        Said::Record(record) => shared.lock().records.push(record),
                        Said::Idle { step } => shared.lock().idle = Some(step),
                    }
                    shared.changed.notify_all();
                }
                shared.lock().has_ended = true;
                shared.changed.notify_all();
            })
        };
        let orders = child.stdin.take();
        let mut load = Self {
            child,
            orders,
            reader: Some(reader),
            shared,
            stop: stop.clone(),
            patience: target.patience,
            step: None,
            last: None,
        };
        load.order(&Order::Target(target.clone()))?;
        Ok(load)
    }

    /// Begins a step's requests.
    pub(crate) fn begin(
        &mut self,
        step: u32,
        shape: &Shape,
        count: Option<u32>,
        seed: u64,
    ) -> Result<(), Error> {
        (self.step, self.last) = (Some(step), Some(step));
        self.order(&Order::Begin { step, shape: shape.clone(), count, seed })
    }

    /// Sends no more requests of the step, and waits for the answers to those that are under way; there may be no step.
    pub(crate) fn end(&mut self) -> Result<(), Error> {
        if self.step.is_none() {
            let is_idle = self.shared.lock().idle == self.last;
            return if is_idle { Ok(()) } else { Err(Error::TooSlow("requests are under way".to_owned())) };
        }
        self.order(&Order::End)?;
        self.wait_idle(Duration::ZERO)
    }

    /// Waits until all requests of a step that has a count are over; they may take so long beside the client's patience.
    pub(crate) fn wait_idle(&mut self, expected: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + expected + self.patience * 2 + Duration::from_secs(10);
        let step = self.step.take();
        self.wait(deadline, |state| state.idle == step)
    }

    /// Lets time pass under load.
    pub(crate) fn pass(&self, time: Duration) -> Result<(), Error> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.stop.check()?;
            std::thread::sleep(GLANCE.min(end.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    /// The records so far of one step.
    pub(crate) fn records_of(&self, step: u32) -> Vec<Record> {
        self.shared.lock().records.iter().filter(|record| record.id.step == step).cloned().collect()
    }

    /// Ends the generator and gives all records in the order in which requests were sent.
    pub(crate) fn finish(mut self) -> Vec<Record> {
        self.close();
        let mut records = std::mem::take(&mut self.shared.lock().records);
        records.sort_by_key(|record| (record.sent, record.id));
        records
    }

    fn order(&mut self, order: &Order) -> Result<(), Error> {
        let mut line = serde_json::to_vec(order).map_err(|error| Error::io("an order", error.into()))?;
        line.push(b'\n');
        let gone = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let written = self.orders.as_mut().ok_or_else(gone).and_then(|orders| orders.write_all(&line));
        written.map_err(|source| Error::io("the load generator has ended", source))
    }

    fn wait(&self, deadline: Instant, done: impl Fn(&State) -> bool) -> Result<(), Error> {
        let mut state = self.shared.lock();
        while !done(&state) {
            self.stop.check()?;
            if state.has_ended {
                return Err(Error::GeneratorEnded);
            }
            if Instant::now() > deadline {
                return Err(Error::TooSlow("requests didn't end in time".to_owned()));
            }
            let waited = self.shared.changed.wait_timeout(state, GLANCE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    fn close(&mut self) {
        self.orders = None;
        let deadline = Instant::now() + Duration::from_secs(2);
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(2));
        }
        drop(self.child.kill());
        drop(self.child.wait());
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.close();
    }
}
