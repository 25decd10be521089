//! The driver against an engine that answers late.

use keel_model::Handover;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{
    fake::{FakeEngine, Making},
    *,
};
use crate::supervisor::test_container;

const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    engine: FakeEngine,
    driver: Driver,
    told: UnboundedReceiver<Told>,
    /// Removed with this.
    folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (tell, told) = unbounded_channel();
        let output = Arc::new(Output::new(folder.path().join("logs")).unwrap());
        let driver = Driver::new("shop", folder.path(), output, tell);
        let engine = FakeEngine::start().await;
        driver.0.engine.set(engine.client()).unwrap();
        std::fs::write(folder.path().join(MARK), "").unwrap();
        Self { engine, driver, told, folder }
    }

    fn launch(&self, incarnation: Incarnation, handover: Handover) {
        let spec = Arc::new(test_container("app", 1, handover));
        let birth = Birth { incarnation, name: "app".into(), ordinal: 1, spec };
        self.driver.settle(&birth);
        self.driver.launch(birth);
    }

    /// Gives what is told next about how an instance stands.
    async fn event(&mut self) -> Event {
        loop {
            match within(self.told.recv()).await.expect("the driver lives") {
                Told::Event(event) => return event,
                Told::Noted(_) | Told::Slow { .. } => {}
            }
        }
    }

    fn has_mark(&self) -> bool {
        self.folder.path().join(MARK).exists()
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

#[tokio::test]
async fn nothing_is_left_of_what_was_being_made_when_all_was_ended() {
    let bench = Bench::new().await;
    bench.engine.make(Making::Held);
    bench.launch(1, Handover::Overlap);
    within(bench.engine.hears("POST containers/create", 1)).await;
    let driver = bench.driver.clone();
    let end = tokio::spawn(async move { driver.abandon().await });
    // It has looked what is there, and the container isn't yet.
    within(bench.engine.hears("GET networks", 1)).await;
    assert!(bench.has_mark());
    bench.engine.make(Making::Done);
    within(end).await.unwrap();
    assert_eq!(bench.engine.names(), [""; 0]);
    assert!(!bench.has_mark());
}

#[tokio::test]
async fn nothing_is_made_once_all_is_being_ended() {
    let mut bench = Bench::new().await;
    within(bench.driver.abandon()).await;
    bench.launch(1, Handover::Overlap);
    let event = bench.event().await;
    assert!(matches!(event, Event::StartFailed { incarnation: 1, .. }), "{event:?}");
    assert_eq!(bench.engine.names(), [""; 0]);
}
