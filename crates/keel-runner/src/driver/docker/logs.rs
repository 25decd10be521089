//! What a container prints, into the same files and to the same followers as what a process does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keel_engine::{
    Docker,
    api::{container::LogOutput, query_parameters::LogsOptionsBuilder},
};
use tokio_stream::StreamExt;

use super::ContainerDriver;
use crate::{
    driver::output::{Lines, Sink, Stream},
    supervisor::Incarnation,
};

/// When to ask again after the engine broke off.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

impl ContainerDriver {
    /// Takes in what a container prints from its start to its end.
    pub(super) async fn follow_logs(self, docker: Docker, incarnation: Incarnation, id: String, sink: Sink) {
        let mut since = 0;
        loop {
            let options = LogsOptionsBuilder::default().follow(true).stdout(true).stderr(true).since(since);
            let mut output = std::pin::pin!(docker.logs(&id, Some(options.build())));
            let (mut stdout, mut stderr) = (Lines::default(), Lines::default());
            let broken = loop {
                sink.room().await;
                match output.next().await {
                    Some(Ok(LogOutput::StdErr { message })) => {
                        take(&mut stderr, &message, Stream::Stderr, &sink)
                    }
                    Some(Ok(other)) => take(&mut stdout, &other.into_bytes(), Stream::Stdout, &sink),
                    Some(Err(error)) => break Some(error),
                    None => break None,
                }
            };
            for (rest, stream) in [(stdout, Stream::Stdout), (stderr, Stream::Stderr)] {
                sink.take(stream, rest.finish().into_iter().collect());
            }
            let Some(error) = broken.filter(|_| self.has(incarnation)) else { return };
            tracing::debug!("what {id} prints can't be read: {error}");
            // Whole seconds are all that can be asked for: a line or two may come twice.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            since = i32::try_from(now).unwrap_or_default();
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}

fn take(lines: &mut Lines, bytes: &[u8], stream: Stream, sink: &Sink) {
    let whole = lines.push(bytes);
    if !whole.is_empty() {
        sink.take(stream, whole);
    }
}
