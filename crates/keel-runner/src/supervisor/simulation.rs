//! The machine under random commands and a driver that misbehaves, over virtual time.
//!
//! 256 seeds; `KEEL_SEED=N cargo test -p keel-runner simulation` replays one. The machine checks its own invariants
//! after every event; here it is checked that after any sequence it comes to rest in the state that was asked for.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    tests::{container, service},
    *,
};
use crate::InstanceState;

const MS: Duration = Duration::from_millis(1);
/// How long a container may be in the pool whose healthcheck fails: twice the interval, and the probes themselves.
const NOTICED_WITHIN: Duration = Duration::from_secs(4);

/// SplitMix64: enough for choices, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn ms(&mut self, end: u64) -> Duration {
        Duration::from_millis(self.below(end))
    }
}

struct World {
    machine: Supervisor,
    now: Instant,
    dice: Dice,
    /// What will happen, by time and order of being planned.
    agenda: BTreeMap<(Instant, u64), Event>,
    planned: u64,
    /// Processes that run.
    alive: BTreeSet<Incarnation>,
    places: BTreeMap<Incarnation, SlotId>,
    /// Containers that the engine called unhealthy last.
    ill: BTreeSet<Incarnation>,
    /// Those of them whose healthcheck passed and won't again, of which the engine has nothing new to say; since when.
    sick: BTreeMap<Incarnation, Instant>,
    /// Containers that are in none of their networks, and those that are paused.
    cut_off: BTreeSet<Incarnation>,
    paused: BTreeSet<Incarnation>,
    /// Whether processes still crash, hang and refuse.
    calm: bool,
    unfinished: BTreeSet<CommandId>,
    pools: BTreeMap<ServiceName, Vec<Incarnation>>,
    /// What the last word about an instance was; nothing where something else may have decided since.
    words: BTreeMap<SlotId, Word>,
}

/// What is to become of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Up,
    Down,
    Gone,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            machine: Supervisor::new(Duration::from_secs(2)),
            now: Instant::now(),
            dice: Dice(seed),
            agenda: BTreeMap::new(),
            planned: 0,
            alive: BTreeSet::new(),
            places: BTreeMap::new(),
            ill: BTreeSet::new(),
            sick: BTreeMap::new(),
            cut_off: BTreeSet::new(),
            paused: BTreeSet::new(),
            calm: false,
            unfinished: BTreeSet::new(),
            pools: BTreeMap::new(),
            words: BTreeMap::new(),
        }
    }

    fn plan(&mut self, delay: Duration, event: Event) {
        self.planned += 1;
        self.agenda.insert((self.now + delay, self.planned), event);
    }

    fn mischief(&mut self, percent: u64) -> bool {
        !self.calm && self.dice.percent(percent)
    }

    fn feed(&mut self, event: Event) {
        match &event {
            Event::Started { incarnation } => drop(self.alive.insert(*incarnation)),
            // A process ends once.
            Event::Exited { incarnation, .. } if !self.alive.remove(incarnation) => return,
            // The engine may be quicker with that than with the answer that it runs.
            Event::Judged { incarnation, verdict: EngineWord::CutOff } => {
                self.cut_off.insert(*incarnation);
            }
            Event::Judged { incarnation, verdict: EngineWord::Connected } => {
                self.cut_off.remove(incarnation);
            }
            Event::Probed { incarnation, .. }
            | Event::Listening { incarnation }
            | Event::Deaf { incarnation }
            | Event::Moved { incarnation }
            | Event::Judged { incarnation, .. }
                if !self.alive.contains(incarnation) =>
            {
                return;
            }
            _ => {}
        }
        if let Event::StartFailed { incarnation, .. } = &event
            && let Some(slot) = self.places.get(incarnation)
        {
            // It isn't tried again.
            self.words.remove(slot);
        }
        match event {
            Event::Judged { incarnation, verdict: EngineWord::Ill } => drop(self.ill.insert(incarnation)),
            Event::Judged { incarnation, verdict: EngineWord::Paused } => {
                self.paused.insert(incarnation);
            }
            Event::Judged { incarnation, verdict: EngineWord::Resumed } => {
                self.paused.remove(&incarnation);
            }
            Event::Judged { incarnation, verdict: EngineWord::Well } => {
                self.ill.remove(&incarnation);
                self.sick.remove(&incarnation);
            }
            _ => {}
        }
        for action in self.machine.handle(self.now, event) {
            self.act(action);
        }
        for (service, pool) in &self.pools {
            assert!(pool.iter().all(|life| self.machine.slot_of(*life).is_some()), "{service}: {pool:?}");
            let sick = |life| self.sick.get(life).is_some_and(|since| self.now > *since + NOTICED_WITHIN);
            assert!(!pool.iter().any(sick), "{service}: {pool:?} has failing ones of {:?}", self.sick);
            for out in [&self.cut_off, &self.paused] {
                assert!(
                    !pool.iter().any(|life| out.contains(life)),
                    "{service}: {pool:?} has some of {out:?}"
                );
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Start { incarnation, slot, spec } => {
                let others =
                    self.places.iter().filter(|(life, at)| **at == slot && self.alive.contains(life));
                let others: Vec<_> = others.map(|(life, _)| *life).collect();
                assert!(!takes_turns(&spec) || others.is_empty(), "{incarnation} starts beside {others:?}");
                self.places.insert(incarnation, slot);
                let delay = self.dice.ms(50);
                if self.mischief(3) {
                    self.plan(delay, Event::StartFailed { incarnation, why: "refused".into() });
                    return;
                }
                if self.mischief(5) {
                    self.plan(delay, Event::StartUnasked { incarnation, why: "out of reach".into() });
                    return;
                }
                self.plan(delay, Event::Started { incarnation });
                if !self.mischief(10) {
                    let listens = delay + self.dice.ms(500);
                    self.plan(listens, Event::Listening { incarnation });
                    if self.mischief(20) {
                        // It restarts in place.
                        let deaf = listens + self.dice.ms(5_000);
                        let again = deaf + self.dice.ms(500);
                        self.plan(deaf, Event::Deaf { incarnation });
                        self.plan(again, Event::Moved { incarnation });
                        self.plan(again, Event::Listening { incarnation });
                    }
                }
                if matches!(spec.run, Run::Container(_)) {
                    self.judge(incarnation, delay, &spec);
                }
                let job = spec.restart.condition == RestartCondition::Never;
                if job || self.mischief(30) {
                    let ends = delay + self.dice.ms(20_000);
                    let status = i32::from(!job && self.dice.percent(50));
                    self.plan(ends, Event::Exited { incarnation, exit: Exit::Status(status) });
                }
            }
            Action::Probe { incarnation, number } => {
                let delay = self.dice.ms(100);
                let passed = !self.mischief(30) && !self.sick.contains_key(&incarnation);
                if passed && self.ill.contains(&incarnation) && self.dice.percent(50) {
                    self.sick.insert(incarnation, self.now + delay);
                }
                self.plan(delay, Event::Probed { incarnation, number, passed });
            }
            Action::Signal { incarnation, .. } => {
                if !self.mischief(20) {
                    let delay = self.dice.ms(500);
                    self.plan(delay, Event::Exited { incarnation, exit: Exit::Signal(15) });
                }
            }
            Action::KillAll { incarnation } => {
                let delay = self.dice.ms(5);
                self.plan(delay, Event::Exited { incarnation, exit: Exit::Signal(9) });
            }
            Action::Drain { incarnation, .. } => {
                if !self.mischief(30) {
                    let delay = self.dice.ms(3_000);
                    self.plan(delay, Event::Drained { incarnation });
                }
            }
            Action::Publish { service, ready, .. } => drop(self.pools.insert(service, ready)),
            Action::Finished { id, .. } => assert!(self.unfinished.remove(&id), "command {id} ends twice"),
            Action::WatchExternal { .. }
            | Action::Status { .. }
            | Action::Gone { .. }
            | Action::Slow { .. } => {}
        }
    }

    /// What the engine may say of a container: a paused one is resumed, one taken out of a network comes back, one that
    /// is sent a signal ends or ignores it. One that flaps it calls unhealthy once.
    fn judge(&mut self, incarnation: Incarnation, delay: Duration, spec: &Service) {
        let is_checked = spec.healthcheck.is_some();
        if is_checked && self.mischief(15) {
            let at = delay + self.dice.ms(5_000);
            self.plan(at, Event::Judged { incarnation, verdict: EngineWord::Ill });
        }
        let pairs = [
            (EngineWord::Paused, EngineWord::Resumed),
            (EngineWord::Ill, EngineWord::Well),
            (EngineWord::Well, EngineWord::Leaving),
        ];
        let mut at = Duration::ZERO;
        while self.mischief(40) {
            let early = self.dice.percent(50);
            at += self.dice.ms(if early { 100 } else { 5_000 });
            self.plan(at, Event::Judged { incarnation, verdict: EngineWord::CutOff });
            at += self.dice.ms(5_000);
            self.plan(at, Event::Judged { incarnation, verdict: EngineWord::Connected });
        }
        for (first, then) in pairs {
            if (is_checked || first != EngineWord::Ill) && self.mischief(15) {
                let at = delay + self.dice.ms(5_000);
                let later = at + self.dice.ms(5_000);
                self.plan(at, Event::Judged { incarnation, verdict: first });
                self.plan(later, Event::Judged { incarnation, verdict: then });
                if then == EngineWord::Leaving && self.dice.percent(60) {
                    self.plan(later + MS, Event::Exited { incarnation, exit: Exit::Status(143) });
                }
            }
        }
    }

    fn command(&mut self, id: CommandId, command: Command) {
        self.unfinished.insert(id);
        self.note_words(&command);
        self.feed(Event::Command { id, asked: id - 1, command });
    }

    /// Notes what a command says of each instance of `app` and `db`.
    fn note_words(&mut self, command: &Command) {
        match command {
            Command::Apply { services, .. } => {
                self.words.values_mut().for_each(|word| *word = Word::Gone);
                for spec in services.iter().filter(|spec| spec.name.0 != "job") {
                    self.words.extend(slots(&spec.name, spec.replicas).map(|slot| (slot, Word::Up)));
                }
            }
            Command::Scale { service, replicas } => {
                let stopped = |slot: &Slot| slot.wanted == Wanted::Down && !slot.removed;
                if self.machine.slots_of(service).any(|(_, slot)| stopped(slot)) {
                    // It depends on the others whether it is started.
                    self.words.retain(|slot, _| slot.service != *service);
                } else if self.machine.service(service).is_some() {
                    let beyond = self.words.iter_mut().filter(|(slot, _)| slot.service == *service);
                    beyond.for_each(|(_, word)| *word = Word::Gone);
                    self.words.extend(slots(service, *replicas).map(|slot| (slot, Word::Up)));
                }
            }
            Command::Down { .. } => self.words.values_mut().for_each(|word| *word = Word::Gone),
            Command::Start { names } => {
                self.say(names, Word::Up);
                // It starts what it depends on, unless that has done its work.
                self.words.retain(|slot, word| *word == Word::Up || slot.service.0 != "db");
            }
            Command::Restart { names, .. } => self.say(names, Word::Up),
            Command::Stop { names, .. } | Command::Kill { names, signal: 9 } => self.say(names, Word::Down),
            Command::Kill { .. } => {}
        }
    }

    fn say(&mut self, names: &[String], word: Word) {
        let found: Vec<SlotId> = names.iter().flat_map(|name| self.machine.find(name)).collect();
        for id in found.into_iter().filter(|id| id.service.0 != "job") {
            if self.machine.slots.get(&id).is_some_and(|slot| !slot.removed) {
                self.words.insert(id, word);
            }
        }
        // A service that has none yet is begun.
        self.words
            .retain(|slot, word| *word != Word::Gone || names.iter().all(|name| *name != slot.service.0));
    }

    fn check_words(&self) {
        for (id, word) in &self.words {
            let slot = self.machine.slots.get(id).map(|slot| slot.wanted);
            let expect = match word {
                Word::Up => Some(Wanted::Up),
                Word::Down => Some(Wanted::Down),
                Word::Gone => None,
            };
            assert_eq!(slot, expect, "{id:?}: the last word was {word:?}");
        }
    }

    fn any_services(&mut self) -> Vec<Arc<Service>> {
        let mut services = Vec::new();
        for name in ["app", "db", "job"] {
            if self.dice.percent(85) {
                let replicas = u32::try_from(self.dice.below(4)).unwrap();
                let mut spec = service(name, replicas);
                spec.digest = self.dice.below(2).to_string();
                self.shape(&mut spec);
                services.push(Arc::new(spec));
            }
        }
        services
    }

    fn shape(&mut self, spec: &mut Service) {
        if self.dice.percent(40) {
            let handover = if self.dice.percent(50) { Handover::Overlap } else { Handover::OneAtATime };
            spec.run = container("", 1, handover).run;
        }
        if spec.name.0 == "job" {
            spec.ports.clear();
            spec.restart.condition = RestartCondition::Never;
        }
        if spec.name.0 == "app" {
            spec.depends_on = vec![keel_model::Dependency {
                service: ServiceName("db".into()),
                condition: keel_model::DependencyCondition::Healthy,
                required: false,
                restart: self.dice.percent(50),
            }];
        }
        if self.dice.percent(30) {
            spec.healthcheck = Some(keel_model::Healthcheck {
                argv: vec!["check".into()],
                interval: Duration::from_secs(1),
                timeout: Duration::from_secs(1),
                retries: 2,
                start_period: Duration::ZERO,
                start_interval: None,
            });
        }
    }

    fn any_command(&mut self) -> Command {
        let all = ["app", "db", "job", "app-1", "db-2", "nobody"];
        let names = vec![all[usize::try_from(self.dice.below(6)).unwrap()].to_owned()];
        match self.dice.below(8) {
            0 | 1 => {
                let recreate = if self.dice.percent(20) { Recreate::All } else { Recreate::Changed };
                Command::Apply { services: self.any_services(), only: None, recreate }
            }
            2 => Command::Start { names },
            3 => Command::Stop { names, ending: Ending::default() },
            4 => Command::Restart { names, ending: Ending::default() },
            5 => Command::Kill { names, signal: if self.dice.percent(70) { 9 } else { 1 } },
            6 => {
                let replicas = u32::try_from(self.dice.below(5)).unwrap();
                Command::Scale { service: ServiceName("app".into()), replicas }
            }
            _ => Command::Down { ending: Ending::default() },
        }
    }

    /// Lets everything happen that is planned or due until then.
    fn run_until(&mut self, end: Instant) {
        const EVENTS_MAX: u32 = 1_000_000;
        for _ in 0..EVENTS_MAX {
            let planned = self.agenda.keys().next().map(|(at, _)| *at);
            let next = planned.into_iter().chain(self.machine.next_deadline()).min();
            let Some(at) = next.filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(at);
            let due = self.agenda.first_entry().filter(|entry| entry.key().0 <= self.now);
            let event = due.map_or(Event::Tick, |entry| entry.remove());
            self.feed(event);
        }
        panic!("time stands still");
    }
}

fn slots(service: &ServiceName, replicas: u32) -> impl Iterator<Item = SlotId> {
    (1..=replicas).map(|ordinal| SlotId { service: service.clone(), ordinal })
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for id in 1..=40 {
        let command = world.any_command();
        world.command(id, command);
        let pause = world.dice.ms(3_000);
        world.run_until(world.now + pause);
    }
    world.calm = true;
    world.run_until(world.now + Duration::from_secs(600));
    assert!(world.unfinished.is_empty(), "commands {:?} never end", world.unfinished);
    world.check_words();
    for id in world.machine.slot_ids() {
        let views = world.machine.views(id);
        assert_eq!(views.len(), 1, "{views:?}");
        let rests = |state| matches!(state, InstanceState::Ready | InstanceState::Exited);
        // What was made never to listen before the calm stays as it is.
        let deaf =
            |note: &Option<String>| note.as_ref().is_some_and(|note| note.starts_with("it doesn't listen"));
        let stuck = world.machine.waits_for(id).is_some();
        assert!(views.iter().all(|view| rests(view.state) || stuck || deaf(&view.note)), "{views:?}");
    }
    let ready: BTreeSet<_> = world.pools.values().flatten().copied().collect();
    assert!(ready.is_subset(&world.alive), "the pools {ready:?} hold dead ones");
}

#[test]
fn comes_to_rest_whatever_happened() {
    if let Ok(seed) = std::env::var("KEEL_SEED") {
        run(seed.parse().expect("KEEL_SEED is a number"));
        return;
    }
    for seed in 0..256 {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("replay with KEEL_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// While nothing fails, a rolling restart never has fewer ready instances than wanted.
#[test]
fn a_rolling_restart_keeps_the_number() {
    for seed in 0..64 {
        let mut world = World::new(seed);
        world.calm = true;
        let services = vec![Arc::new(service("app", 3))];
        world.command(1, Command::Apply { services, only: None, recreate: Recreate::Changed });
        world.run_until(world.now + Duration::from_secs(5));
        world.command(2, Command::Restart { names: vec!["app".into()], ending: Ending::default() });
        let end = world.now + Duration::from_secs(60);
        while world.now < end {
            world.run_until(world.now + Duration::from_millis(1));
            assert_eq!(world.pools.values().map(Vec::len).sum::<usize>(), 3, "seed {seed}");
        }
        assert!(world.unfinished.is_empty());
        assert_eq!(world.alive.iter().copied().collect::<Vec<_>>(), [4, 5, 6]);
    }
}

/// The last command for an instance decides what becomes of it; earlier ones that are under way don't.
#[test]
fn the_last_word_counts_for_every_pair_of_commands() {
    type Make = fn() -> Command;
    type Then = fn(Word) -> Word;
    fn named() -> Vec<String> {
        vec!["app-2".into()]
    }
    fn unless_gone(before: Word, word: Word) -> Word {
        if before == Word::Gone { before } else { word }
    }
    fn apply(digest: &str) -> Command {
        let mut spec = service("app", 3);
        spec.digest = digest.into();
        Command::Apply { services: vec![Arc::new(spec)], only: None, recreate: Recreate::Changed }
    }
    fn scale(replicas: u32) -> Command {
        Command::Scale { service: ServiceName("app".into()), replicas }
    }
    let commands: [(&str, Make, Then); 10] = [
        (
            "restart",
            || Command::Restart { names: vec!["app".into()], ending: Ending::default() },
            |before| unless_gone(before, Word::Up),
        ),
        (
            "stop",
            || Command::Stop { names: named(), ending: Ending::default() },
            |b| unless_gone(b, Word::Down),
        ),
        ("kill", || Command::Kill { names: named(), signal: 9 }, |b| unless_gone(b, Word::Down)),
        ("kill -s HUP", || Command::Kill { names: named(), signal: 1 }, |before| before),
        ("start", || Command::Start { names: named() }, |b| unless_gone(b, Word::Up)),
        ("scale to 1", || scale(1), |_| Word::Gone),
        ("scale to 3", || scale(3), |_| Word::Up),
        ("down", || Command::Down { ending: Ending::default() }, |_| Word::Gone),
        ("up", || apply("1"), |_| Word::Up),
        ("reload after a change", || apply("2"), |_| Word::Up),
    ];
    for (first_name, first, first_word) in &commands {
        for (second_name, second, second_word) in &commands {
            for (seed, delay_ms) in [0, 1, 30, 300, 600, 900, 1_500, 3_000, 9_000].into_iter().enumerate() {
                let mut world = World::new(u64::try_from(seed).unwrap());
                world.calm = true;
                world.command(1, apply("1"));
                world.run_until(world.now + Duration::from_secs(5));
                world.command(2, first());
                world.run_until(world.now + Duration::from_millis(delay_ms));
                world.command(3, second());
                world.run_until(world.now + Duration::from_secs(120));
                let case = format!("{first_name}, after {delay_ms} ms {second_name}");
                assert!(world.unfinished.is_empty(), "{case}: {:?} never end", world.unfinished);
                let id = SlotId { service: ServiceName("app".into()), ordinal: 2 };
                let state = world.machine.views(&id).first().map(|view| view.state);
                let expect = match second_word(first_word(Word::Up)) {
                    Word::Up => Some(InstanceState::Ready),
                    Word::Down => Some(InstanceState::Exited),
                    Word::Gone => None,
                };
                assert_eq!(state, expect, "{case}");
            }
        }
    }
}
