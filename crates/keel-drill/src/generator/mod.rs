//! The load generator: a process of its own that sends requests at intended moments and says what became of each.
//!
//! Open loop: a request is due when the schedule says, whether or not earlier ones have been answered, and its latency
//! counts from then on; a slow system can't slow down what it is asked (coordinated omission). Orders come as lines of
//! JSON on standard input, records go as lines of JSON to standard output; at the end of input everything ends. Nothing
//! is ever sent again here: what a client might retry is the balancer's to get right, and is counted as it is.

mod client;

use std::{
    io::{self, BufRead, Write},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Semaphore, mpsc},
    task::LocalSet,
    time::{Instant, sleep_until},
};

use crate::{
    record::{Id, Moment, Record},
    seed::Seed,
};
use client::{Client, Request, Times};

/// Where requests go.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// The address to connect to.
    pub address: SocketAddr,
    /// What the `Host` field says.
    pub host: String,
    /// The path; `drill=ID` is added to its query.
    pub path: String,
    /// How long a request may take before the client gives up.
    pub patience: Duration,
}

/// The load of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// When requests are due.
    pub pace: Pace,
    /// Connections at most.
    pub connections: u32,
    /// Requests on one connection before it is closed; `None` for as many as it lasts.
    pub requests_per_connection: Option<u32>,
    /// How long a connection rests after a response before it is used again.
    pub think: Duration,
    /// Share of POSTs, 0 to 1.
    pub posts: f64,
    /// Bytes in the body of a POST at least.
    pub body_bytes_min: u32,
    /// Bytes in the body of a POST at most; each has a length of its own between the two.
    pub body_bytes_max: u32,
}

/// When requests are due.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Pace {
    /// One after another: each when the one before is over.
    InTurn,
    /// So many each second, evenly spaced.
    Rate(f64),
    /// So many at once, then a pause that differs by a share of itself each time.
    Bursts {
        /// Requests at once.
        size: u32,
        /// From one burst to the next.
        pause: Duration,
        /// How much a pause may differ, 0 to 1.
        jitter: f64,
    },
}

/// What the generator is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// First of all.
    Target(Target),
    /// Send requests.
    Begin {
        step: u32,
        shape: Shape,
        /// How many; without it until [`Order::End`].
        count: Option<u32>,
        seed: u64,
    },
    /// Send no more of this step.
    End,
}

/// What the generator says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Said {
    /// A request is over.
    Record(Record),
    /// All requests of a step are over.
    Idle { step: u32 },
}

/// Requests under way at most, whatever the schedule says: beyond that the generator is behind and says so.
const UNDER_WAY_MAX: usize = 20_000;
/// Orders that wait to be obeyed: the drill gives one, and the next when it knows what came of it.
const ORDERS_MAX: usize = 16;
/// Records that wait to be written. A request that can't hand in its record is still under way, so that nothing else grows.
const SAID_MAX: usize = 4096;

/// Runs the generator to the end of its input. The body of a hidden command.
///
/// # Errors
/// When standard input or output fails.
pub fn run() -> io::Result<()> {
    let (orders, inbox) = mpsc::channel(ORDERS_MAX);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(order) = line.map_err(drop).and_then(|line| serde_json::from_str(&line).map_err(drop))
            else {
                return;
            };
            if orders.blocking_send(order).is_err() {
                return;
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = LocalSet::new().block_on(&runtime, obey(inbox));
    runtime.shutdown_background();
    outcome
}

async fn obey(mut inbox: mpsc::Receiver<Order>) -> io::Result<()> {
    let Some(Order::Target(target)) = inbox.recv().await else { return Ok(()) };
    let client = Rc::new(Client::new(target));
    let (said, mut heard) = mpsc::channel(SAID_MAX);
    let writer = tokio::task::spawn_local(async move {
        let mut lines = Vec::new();
        while let Some(first) = heard.recv().await {
            lines.clear();
            serde_json::to_writer(&mut lines, &first)?;
            lines.push(b'\n');
            while let Ok(next) = heard.try_recv() {
                serde_json::to_writer(&mut lines, &next)?;
                lines.push(b'\n');
            }
            // The reader is the drill, which reads at once: this doesn't hold requests up.
            io::stdout().write_all(&lines)?;
        }
        Ok(())
    });
    while let Some(order) = inbox.recv().await {
        if let Order::Begin { step, shape, count, seed } = order {
            let step = Step { number: step, shape, count, seed: Seed::new(seed), said: said.clone() };
            step.play(client.clone(), &mut inbox).await;
        }
    }
    drop((said, client));
    writer.await?
}

struct Step {
    number: u32,
    shape: Shape,
    count: Option<u32>,
    seed: Seed,
    said: mpsc::Sender<Said>,
}

impl Step {
    /// Sends the step's requests until there are enough or an order ends it, and waits for them.
    async fn play(mut self, client: Rc<Client>, inbox: &mut mpsc::Receiver<Order>) {
        let connections = Rc::new(Semaphore::new(self.shape.connections.max(1) as usize));
        let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        let start = Instant::now();
        let start_moment = Moment::now();
        let mut due = start;
        let mut in_burst = 0;
        for number in 0..self.count.unwrap_or(u32::MAX) {
            tokio::select! {
                biased;
                // An end, or the end of everything.
                _ = inbox.recv() => break,
                () = self.wait(due, &under_way) => {}
            }
            let Ok(permit) = under_way.clone().acquire_owned().await else { break };
            let request = self.request(Id { step: self.number, number });
            let intended = match self.shape.pace {
                Pace::InTurn => Moment::now(),
                _ => start_moment.after(due.duration_since(start)),
            };
            let (client, connections, said) = (client.clone(), connections.clone(), self.said.clone());
            let (think, requests_max) = (self.shape.think, self.shape.requests_per_connection);
            tokio::task::spawn_local(async move {
                let times = Times { intended, begun: Moment::now() };
                let Ok(connection) = connections.acquire().await else { return };
                let record = client.send(request, times, requests_max).await;
                // Nobody to tell: the drill is gone, and so will this process be.
                drop(said.send(Said::Record(record)).await);
                drop(permit);
                if !think.is_zero() {
                    tokio::time::sleep(think).await;
                }
                drop(connection);
            });
            due = self.next_due(start, due, number, &mut in_burst);
        }
        // Everything is over when all permits are back.
        drop(under_way.acquire_many(u32::try_from(UNDER_WAY_MAX).unwrap_or(u32::MAX)).await);
        drop(self.said.send(Said::Idle { step: self.number }).await);
    }

    async fn wait(&self, due: Instant, under_way: &Semaphore) {
        match self.shape.pace {
            Pace::InTurn => {
                drop(under_way.acquire_many(u32::try_from(UNDER_WAY_MAX).unwrap_or(u32::MAX)).await);
            }
            _ => sleep_until(due).await,
        }
    }

    fn next_due(&mut self, start: Instant, due: Instant, number: u32, in_burst: &mut u32) -> Instant {
        match self.shape.pace {
            Pace::InTurn => due,
            // From the start, not from the last one: errors don't add up.
            Pace::Rate(rate) => start + Duration::from_secs_f64(f64::from(number + 1) / rate.max(0.001)),
            Pace::Bursts { size, pause, jitter } => {
                *in_burst += 1;
                if *in_burst < size {
                    return due;
                }
                *in_burst = 0;
                due + pause.mul_f64(1.0 + jitter * (2.0 * self.seed.unit() - 1.0))
            }
        }
    }

    fn request(&mut self, id: Id) -> Request {
        let is_post = self.seed.unit() < self.shape.posts;
        let Shape { body_bytes_min: min, body_bytes_max: max, .. } = self.shape;
        let range = u64::from(max.saturating_sub(min)) + 1;
        let length = if is_post { u64::from(min) + self.seed.below(range) } else { 0 };
        let letter = b'a' + u8::try_from(id.number % 26).unwrap_or(0);
        Request { id, is_post, body: vec![letter; usize::try_from(length).unwrap_or(0)] }
    }
}
