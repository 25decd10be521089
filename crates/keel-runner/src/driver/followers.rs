//! Who hears what instances print as they print it.
//!
//! An instance is never held up by a follower: each has a queue, [`QUEUE_BYTES_MAX`] at most. Beyond that lines are left
//! out until half of it is free again, and the follower is given their number in their place.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::Notify;

use super::output::LogLine;

/// Bytes of lines that wait for one follower at most.
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// What a line takes beside its text, about.
const LINE_OVERHEAD_BYTES: usize = 128;

/// What a follower is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogNews {
    /// A line that was printed.
    Line(Arc<LogLine>),
    /// Lines that came faster than they were taken.
    LeftOut {
        /// How many.
        lines: u64,
    },
}

/// Hears lines until it is dropped.
#[derive(Debug)]
pub struct Follower {
    queue: Arc<Queue>,
}

/// All of them. When it is dropped they hear that nothing will come any more.
#[derive(Debug, Default)]
pub(super) struct Followers {
    all: Vec<Weak<Queue>>,
}

struct Queue {
    is_meant: Box<dyn Fn(&LogLine) -> bool + Send + Sync>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    news: VecDeque<LogNews>,
    bytes: usize,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// Lines are left out until there is room again.
    Full,
    /// No line will come any more.
    Ended,
}

impl Followers {
    pub(super) fn add(&mut self, is_meant: impl Fn(&LogLine) -> bool + Send + Sync + 'static) -> Follower {
        let queue = Queue { is_meant: Box::new(is_meant), state: Mutex::default(), changed: Notify::new() };
        let queue = Arc::new(queue);
        self.all.retain(|known| known.strong_count() > 0);
        self.all.push(Arc::downgrade(&queue));
        Follower { queue }
    }

    pub(super) fn tell(&self, line: &Arc<LogLine>) {
        for queue in self.all.iter().filter_map(Weak::upgrade) {
            if (queue.is_meant)(line) {
                queue.lock().take(line);
                queue.changed.notify_one();
            }
        }
    }
}

impl Drop for Followers {
    fn drop(&mut self) {
        for queue in self.all.iter().filter_map(Weak::upgrade) {
            queue.lock().phase = Phase::Ended;
            queue.changed.notify_one();
        }
    }
}

impl Follower {
    /// Waits for what comes next; `None` when nothing will.
    pub async fn recv(&mut self) -> Option<LogNews> {
        loop {
            let changed = self.queue.changed.notified();
            {
                let mut state = self.queue.lock();
                if let Some(news) = state.give() {
                    return Some(news);
                }
                if state.phase == Phase::Ended {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// What waits already, if anything.
    pub fn try_recv(&mut self) -> Option<LogNews> {
        self.queue.lock().give()
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl State {
    fn take(&mut self, line: &Arc<LogLine>) {
        let size = size_of(line);
        if self.phase == Phase::Open && self.bytes + size <= QUEUE_BYTES_MAX {
            self.bytes += size;
            return self.news.push_back(LogNews::Line(Arc::clone(line)));
        }
        self.phase = Phase::Full;
        match self.news.back_mut() {
            Some(LogNews::LeftOut { lines }) => *lines += 1,
            _ => self.news.push_back(LogNews::LeftOut { lines: 1 }),
        }
    }

    fn give(&mut self) -> Option<LogNews> {
        let news = self.news.pop_front()?;
        if let LogNews::Line(line) = &news {
            self.bytes -= size_of(line);
        }
        if self.phase == Phase::Full && self.bytes <= QUEUE_BYTES_MAX / 2 {
            self.phase = Phase::Open;
        }
        Some(news)
    }
}

fn size_of(line: &LogLine) -> usize {
    line.text.len() + LINE_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::driver::output::Stream;

    fn line(text: String) -> Arc<LogLine> {
        let (instance, service) = ("app-1".to_owned(), "app".to_owned());
        Arc::new(LogLine { instance, service, stream: Stream::Stdout, time: SystemTime::now(), text })
    }

    fn number(news: &LogNews) -> u64 {
        match news {
            LogNews::Line(line) => line.text.split(' ').next().unwrap().parse().unwrap(),
            LogNews::LeftOut { .. } => panic!("lines were left out: {news:?}"),
        }
    }

    #[tokio::test]
    async fn a_burst_that_fits_arrives_whole_and_in_order() {
        let mut followers = Followers::default();
        let mut follower = followers.add(|line| line.instance == "app-1");
        for number in 0..20_000 {
            followers.tell(&line(format!("{number}")));
        }
        drop(followers);
        for expect in 0..20_000 {
            assert_eq!(number(&follower.recv().await.unwrap()), expect);
        }
        assert_eq!(follower.recv().await, None);
    }

    #[test]
    fn what_is_left_out_is_counted_in_its_place() {
        let mut followers = Followers::default();
        let mut follower = followers.add(|_| true);
        let mut other = followers.add(|line| line.instance == "other");
        let told = 40_000;
        for number in 0..told {
            followers.tell(&line(format!("{number} {}", "x".repeat(1000))));
        }
        let (mut next, mut gaps) = (0, 0);
        // It goes on taking lines while half of its queue is still to be read.
        while let Some(news) = follower.try_recv() {
            match news {
                LogNews::LeftOut { lines } => (next, gaps) = (next + lines, gaps + 1),
                news => {
                    assert_eq!(number(&news), next);
                    next += 1;
                }
            }
            if next == 10_000 {
                followers.tell(&line(format!("{told}")));
            }
        }
        assert_eq!((next, gaps), (told + 1, 1));
        assert_eq!(other.try_recv(), None);
    }
}
