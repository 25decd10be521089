//! The driver against an engine that answers late, or never.

use std::time::Instant;

use keel_model::Handover;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{
    fake::{FakeEngine, Making, client_of},
    *,
};
use crate::supervisor::{EngineWord, test_container};

const NONE: [&str; 0] = [];
const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    engine: FakeEngine,
    driver: ContainerDriver,
    told: UnboundedReceiver<DriverNews>,
    /// Removed with this.
    folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let engine = FakeEngine::start().await;
        let client = engine.client();
        Self::with(engine, client)
    }

    fn with(engine: FakeEngine, client: Docker) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (tell, told) = unbounded_channel();
        let output = Arc::new(Output::new(folder.path().join("logs")).unwrap());
        let driver = ContainerDriver::new("shop", folder.path(), output, tell);
        driver.0.engine.set(client).unwrap();
        std::fs::write(folder.path().join(MARK), "").unwrap();
        Self { engine, driver, told, folder }
    }

    fn launch(&self, incarnation: Incarnation, handover: Handover) {
        let spec = Arc::new(test_container("app", 1, handover));
        let birth = Birth { incarnation, name: "app".into(), ordinal: 1, spec };
        self.driver.settle(&birth);
        self.driver.launch(birth);
    }

    /// What is told next about how an instance stands, but for what others did to it: it has no network here.
    async fn event(&mut self) -> Event {
        loop {
            match within(self.told.recv()).await.expect("the driver lives") {
                DriverNews::Event(event) if !matches!(event, Event::Judged { .. }) => return event,
                DriverNews::Event(_)
                | DriverNews::Noted(_)
                | DriverNews::Remark(..)
                | DriverNews::Obstacle(..)
                | DriverNews::Slow { .. } => {}
            }
        }
    }

    /// What is said next of a container.
    async fn verdict(&mut self) -> EngineWord {
        loop {
            if let DriverNews::Event(Event::Judged { verdict, .. }) = within(self.told.recv()).await.unwrap()
            {
                return verdict;
            }
        }
    }

    /// What has been said of containers.
    fn verdicts(&mut self) -> Vec<EngineWord> {
        let told = std::iter::from_fn(|| self.told.try_recv().ok());
        let verdict = |told| match told {
            DriverNews::Event(Event::Judged { verdict, .. }) => Some(verdict),
            _ => None,
        };
        told.filter_map(verdict).collect()
    }

    async fn names_become(&self, names: &[&str]) {
        let end = Instant::now() + PATIENCE;
        while self.engine.names() != names {
            assert!(Instant::now() < end, "{:?} is there", self.engine.names());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn has_mark(&self) -> bool {
        self.folder.path().join(MARK).exists()
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// What the engine says of a container that runs, and where.
fn seen(address: Option<&str>, is_paused: bool) -> keel_engine::api::models::ContainerInspectResponse {
    let networks = address.map(|address| json!({ "shop_default": { "IPAddress": address } }));
    let state = json!({ "Running": true, "Paused": is_paused });
    let networks = networks.unwrap_or_else(|| json!({}));
    serde_json::from_value(json!({ "State": state, "NetworkSettings": { "Networks": networks } })).unwrap()
}

#[tokio::test]
async fn a_container_s_address_is_followed_from_its_start_and_while_it_is_paused() {
    let mut bench = Bench::new().await;
    let mut spec = test_container("app", 1, Handover::Overlap);
    let keel_model::Run::Container(container) = &mut spec.run else { panic!("it is one") };
    container.networks =
        vec![keel_model::ContainerNetwork { name: "shop_default".into(), key: None, aliases: Vec::new() }];
    let birth = Birth { incarnation: 1, name: "app".into(), ordinal: 1, spec: Arc::new(spec) };
    bench.driver.settle(&birth);
    bench.driver.note_start(&birth, "id1", &seen(None, false));
    let steps = [
        (seen(Some("172.30.0.2"), true), &[EngineWord::Connected][..]),
        (seen(Some("172.30.0.2"), false), &[]),
        (seen(Some("172.30.0.3"), false), &[EngineWord::CutOff, EngineWord::Connected]),
        (seen(None, true), &[EngineWord::CutOff]),
    ];
    assert_eq!(bench.verdicts(), [EngineWord::CutOff]);
    for (look, (container, expect)) in (2..).zip(steps) {
        bench.driver.place(1, look, &container);
        assert_eq!(bench.verdicts(), expect);
    }
    // Asked before that, and answered after it.
    bench.driver.place(1, 1, &seen(Some("172.30.0.3"), false));
    assert_eq!(bench.verdicts(), []);
}

/// What an engine tells of the first container that it made.
fn happened(action: &str) -> keel_engine::Event {
    keel_engine::Event::read(&message(action)).expect("is one that counts")
}

/// The same, as the engine puts it.
fn message(action: &str) -> keel_engine::api::models::EventMessage {
    let actor = match action {
        "connect" | "disconnect" => json!({ "ID": "net1", "Attributes": { "container": "id1" } }),
        _ => json!({ "ID": "id1", "Attributes": { "exitCode": "137" } }),
    };
    let is_of_network = matches!(action, "connect" | "disconnect");
    let typ = if is_of_network { "network" } else { "container" };
    serde_json::from_value(json!({ "Type": typ, "Action": action, "Actor": actor })).unwrap()
}

#[tokio::test]
async fn an_engine_slow_to_describe_a_container_keeps_no_event_back() {
    const LOOK: &str = "GET containers/id1/json";
    let mut bench = Bench::new().await;
    let docker = bench.engine.client();
    bench.launch(1, Handover::Overlap);
    let event = bench.event().await;
    assert!(matches!(event, Event::Started { incarnation: 1 }), "{event:?}");
    bench.verdicts();
    let before = bench.engine.heard(LOOK);
    bench.engine.hold_descriptions(true);
    for action in ["disconnect", "connect", "disconnect", "pause"] {
        bench.driver.take(&docker, &happened(action));
    }
    assert_eq!(bench.verdicts(), [EngineWord::Paused]);
    within(bench.engine.hears(LOOK, before + 1)).await;
    bench.driver.take(&docker, &happened("connect"));
    bench.engine.hold_descriptions(false);
    // All that came meanwhile is one look more.
    within(bench.engine.hears(LOOK, before + 2)).await;
    bench.driver.take(&docker, &happened("die"));
    let event = bench.event().await;
    assert!(matches!(event, Event::Exited { incarnation: 1, exit: Exit::Status(137) }), "{event:?}");
    bench.names_become(&NONE).await;
    assert_eq!(bench.engine.heard(LOOK), before + 2);
}

#[tokio::test]
async fn what_has_died_serves_no_longer_while_it_is_removed() {
    let mut bench = Bench::new().await;
    let docker = bench.engine.client();
    bench.launch(1, Handover::OneAtATime);
    let event = bench.event().await;
    assert!(matches!(event, Event::Started { incarnation: 1 }), "{event:?}");
    bench.driver.take(&docker, &happened("die"));
    let event = bench.event().await;
    assert!(matches!(event, Event::Deaf { incarnation: 1 }), "{event:?}");
    let event = bench.event().await;
    assert!(matches!(event, Event::Exited { incarnation: 1, exit: Exit::Status(137) }), "{event:?}");
    assert_eq!(bench.engine.names(), NONE);
}

#[tokio::test]
async fn what_happened_before_it_was_looked_at_again_is_no_news() {
    let mut bench = Bench::new().await;
    bench.launch(1, Handover::Overlap);
    let event = bench.event().await;
    assert!(matches!(event, Event::Started { incarnation: 1 }), "{event:?}");
    bench.verdicts();
    let watching = tokio::spawn(watch::watch(bench.driver.clone(), bench.engine.client()));
    within(bench.engine.hears("GET events", 1)).await;
    for (action, verdict) in [("pause", EngineWord::Paused), ("unpause", EngineWord::Resumed)] {
        bench.engine.happen(&message(action));
        assert_eq!(bench.verdict().await, verdict);
    }
    bench.engine.break_off();
    // Nobody hears of it, and it is over before the container is looked at.
    bench.engine.happen(&message("pause"));
    bench.engine.happen(&message("unpause"));
    within(bench.engine.hears("GET events", 2)).await;
    bench.engine.happen(&message("health_status: unhealthy"));
    assert_eq!(bench.verdict().await, EngineWord::Resumed, "as it was seen");
    assert_eq!(bench.verdict().await, EngineWord::Ill);
    watching.abort();
}

#[tokio::test]
async fn one_that_does_not_run_yet_is_not_looked_at() {
    let bench = Bench::new().await;
    let spec = Arc::new(test_container("app", 1, Handover::Overlap));
    bench.driver.settle(&Birth { incarnation: 1, name: "app".into(), ordinal: 1, spec });
    bench.driver.change(1, |living| living.stage = Stage::Created { id: "id1".into(), ended: None });
    bench.driver.take(&bench.engine.client(), &happened("connect"));
    assert!(lock(&bench.driver.0.looks.under_way).is_empty());
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
    assert_eq!(bench.engine.names(), NONE);
    assert!(!bench.has_mark());
}

#[tokio::test]
async fn nothing_is_made_once_all_is_being_ended() {
    let mut bench = Bench::new().await;
    within(bench.driver.abandon()).await;
    bench.launch(1, Handover::Overlap);
    let event = bench.event().await;
    assert!(matches!(event, Event::StartFailed { incarnation: 1, .. }), "{event:?}");
    assert_eq!(bench.engine.names(), NONE);
}

#[tokio::test]
async fn what_was_made_without_a_word_is_removed() {
    let mut bench = Bench::new().await;
    bench.engine.make(Making::Unsaid);
    bench.launch(1, Handover::Overlap);
    let event = bench.event().await;
    assert!(matches!(event, Event::StartUnasked { incarnation: 1, .. }), "{event:?}");
    bench.engine.make(Making::Done);
    bench.launch(2, Handover::Overlap);
    let event = bench.event().await;
    assert!(matches!(event, Event::Started { incarnation: 2 }), "{event:?}");
    // In the end it has the name, too.
    bench.names_become(&["shop_app_1"]).await;
}

#[tokio::test]
async fn it_is_removed_before_the_next_try_where_two_cannot_be_at_once() {
    let mut bench = Bench::new().await;
    bench.engine.make(Making::Unsaid);
    bench.launch(1, Handover::OneAtATime);
    let event = bench.event().await;
    assert!(matches!(event, Event::StartUnasked { incarnation: 1, .. }), "{event:?}");
    assert_eq!(bench.engine.names(), NONE);
}

#[tokio::test]
async fn what_was_made_late_is_not_in_the_way() {
    let mut bench = Bench::new().await;
    bench.engine.make(Making::Undone);
    bench.launch(1, Handover::OneAtATime);
    let event = bench.event().await;
    assert!(matches!(event, Event::StartUnasked { incarnation: 1, .. }), "{event:?}");
    bench.engine.put("shop_app_1", json!({ PROJECT_LABEL: "shop", INCARNATION_LABEL: "1" }));
    bench.engine.make(Making::Done);
    bench.launch(2, Handover::OneAtATime);
    let event = bench.event().await;
    assert!(matches!(event, Event::Started { incarnation: 2 }), "{event:?}");
    assert_eq!(bench.engine.names(), ["shop_app_1"]);
}

#[tokio::test]
async fn what_nobody_was_asked_for_is_not_looked_for() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut bench = Bench::with(FakeEngine::start().await, client_of(gone));
    for (incarnation, handover) in [(1, Handover::Overlap), (2, Handover::OneAtATime)] {
        bench.launch(incarnation, handover);
        let event = bench.event().await;
        assert!(
            matches!(event, Event::StartUnasked { incarnation: of, .. } if of == incarnation),
            "{event:?}"
        );
        assert_eq!(lock(&bench.driver.0.strays).len(), 0);
    }
}

#[tokio::test]
async fn all_that_was_made_without_a_word_is_looked_for_together() {
    const TRIES: usize = 20;
    let mut bench = Bench::new().await;
    bench.engine.make(Making::Undone);
    for incarnation in 1..=TRIES {
        bench.launch(incarnation as u64, Handover::Overlap);
        let event = bench.event().await;
        assert!(matches!(event, Event::StartUnasked { .. }), "{event:?}");
    }
    let before = bench.engine.heard("GET containers/json");
    within(bench.engine.hears("GET containers/json", before + 2)).await;
    // It is made late after all.
    bench.engine.put("shop_app_1_7", json!({ PROJECT_LABEL: "shop", INCARNATION_LABEL: "7" }));
    bench.engine.put("shop_app_1_8", json!({ PROJECT_LABEL: "other", INCARNATION_LABEL: "8" }));
    bench.names_become(&["shop_app_1_8"]).await;
    let looks = bench.engine.heard("GET");
    assert!(looks < TRIES, "{TRIES} tries are looked for {looks} times");
}

#[tokio::test]
async fn what_others_made_under_the_name_stays() {
    let mut bench = Bench::new().await;
    for labels in [json!({}), json!({ PROJECT_LABEL: "other", INCARNATION_LABEL: "1" })] {
        bench.engine.make(Making::Undone);
        bench.engine.put("shop_app_1", labels);
        bench.launch(1, Handover::OneAtATime);
        let event = bench.event().await;
        assert!(matches!(event, Event::StartUnasked { incarnation: 1, .. }), "{event:?}");
        bench.engine.make(Making::Done);
        bench.launch(2, Handover::OneAtATime);
        let Event::StartFailed { why, .. } = bench.event().await else { panic!("the name is taken") };
        assert!(why.contains("`docker rm -f shop_app_1`"), "{why}");
        assert_eq!(bench.engine.names(), ["shop_app_1"]);
    }
}
