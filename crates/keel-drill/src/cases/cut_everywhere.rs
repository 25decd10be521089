//! A connection to a peer breaks after each byte of a request and of a response in turn, by FIN and by RST, for GET and
//! POST, on new and on kept connections: exhaustive.
//!
//! It needs peers that know what they are asked to do, so it runs on a balancer alone and not on the project.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use super::{Case, Way, any};
use crate::{
    Error,
    cutter::{Cut, Cutters, How, Made, Manner, Side},
    front::Front,
    generator::{Pace, Shape, Target},
    load::Load,
    record::{Moment, Record},
    results,
    stage::{Context, PATIENCE, Played},
    system::free_addresses,
    verdict::{Allowance, Allowed, Methods, StepShare},
};

pub(super) const CASE: Case = Case {
    name: "cut-everywhere",
    what: "a peer's connection breaks after each byte of request and response in turn; nothing is torn or arrives twice",
    allows: "502 for a POST; a response that has begun breaks off",
    fits: any,
    way: Way::Own(play),
};

/// Ordinary requests before each cut: kept connections to all peers, and what a balancer wants to see before it tries
/// again and again.
const ORDINARY: u32 = 4;
/// In the short form only every so many bytes are cut at.
const SHORT_STRIDE: usize = 13;

fn play(context: &Context<'_>) -> Result<Played, Error> {
    let io = |source| Error::io("the peers can't be started", source);
    let cutters = Cutters::start(2).map_err(io)?;
    let listen = match context.options.listen {
        Some(address) => address,
        None => {
            free_addresses(1)?.first().copied().ok_or_else(|| io(std::io::ErrorKind::AddrInUse.into()))?
        }
    };
    let text = configuration(listen, &cutters.addresses);
    let _front = Front::start(&context.program(), &text, &context.ground.stop)?;
    let target = Target {
        address: context.options.via.unwrap_or(listen),
        host: "drill".to_owned(),
        path: "/".to_owned(),
        patience: PATIENCE,
    };
    let load = Load::start(&context.ground.program, &target, &context.ground.stop)?;
    let stride = if context.options.is_short { SHORT_STRIDE } else { 1 };
    let first = usize::try_from(context.seed.split("first").next() % stride as u64).unwrap_or(0);
    let mut cutting = Cutting {
        cutters,
        load,
        step: 0,
        seed: context.seed.split("load").next(),
        stride,
        first,
        played: Played::default(),
    };
    cutting.all()?;
    let Cutting { cutters, load, mut played, .. } = cutting;
    played.records = load.finish();
    played.ledger = cutters.ledger();
    played.files = BTreeMap::from([("nginx.conf".to_owned(), text)]);
    played.load = results::Load { connections: 1, posts: 0.5, ..results::Load::default() };
    Ok(played)
}

fn configuration(listen: SocketAddr, peers: &[SocketAddr]) -> String {
    let servers: String = peers.iter().map(|peer| format!(" server {peer} max_fails=0;")).collect();
    let (preamble, folders) = (Front::preamble(), Front::folders());
    format!(
        "{preamble}worker_processes 1;\nevents {{}}\nhttp {{\n    {folders}    upstream app {{{servers} keepalive 8; }}\n    \
         server {{\n        listen {listen};\n        location / {{\n            proxy_pass http://app;\n            \
         proxy_http_version 1.1;\n            proxy_set_header Connection \"\";\n            proxy_read_timeout 5s;\n        \
         }}\n    }}\n}}\n"
    )
}

struct Cutting {
    cutters: Cutters,
    load: Load,
    step: u32,
    seed: u64,
    stride: usize,
    first: usize,
    played: Played,
}

/// One series of cuts.
#[derive(Clone, Copy)]
struct Series {
    side: Side,
    how: How,
    is_post: bool,
    manner: Manner,
}

impl Cutting {
    fn all(&mut self) -> Result<(), Error> {
        let mut cuts = 0;
        for keeps in [true, false] {
            for (side, chunked) in [(Side::Request, false), (Side::Response, false), (Side::Response, true)] {
                for how in [How::Fin, How::Rst] {
                    for is_post in [false, true] {
                        cuts +=
                            self.series(Series { side, how, is_post, manner: Manner { chunked, keeps } })?;
                    }
                }
            }
        }
        let step = StepShare { step: u32::MAX, condition: format!("{cuts} cuts"), expected: None };
        self.played.steps.push(step);
        Ok(())
    }

    /// Cuts after each byte of a message, until the message is over; gives how often.
    fn series(&mut self, series: Series) -> Result<u32, Error> {
        self.cutters.set_manner(series.manner);
        let mut cuts = 0;
        for at in (self.first..).step_by(self.stride) {
            let begin = Moment::now();
            self.send(ORDINARY, false)?;
            let Series { side, how, .. } = series;
            self.cutters.arm(Cut { side, at, how });
            let step = self.send(1, series.is_post)?;
            match self.cutters.disarm() {
                Made::Yes { in_head } => self.allow(series, in_head, step),
                Made::TooLate => break,
                Made::No => {
                    let what = format!("a request never came to a peer ({side:?}, byte {at}, {how:?})");
                    let ids = self.load.records_of(step).iter().map(|record| record.id.to_string()).collect();
                    self.played.findings.push(results::Finding { what, ids });
                    if self.played.findings.len() > 3 {
                        break;
                    }
                }
            }
            if cuts == 0 {
                let Series { is_post, manner, .. } = series;
                let method = if is_post { "POST" } else { "GET" };
                let connection = if manner.keeps { "kept" } else { "new" };
                self.played
                    .events
                    .push((begin, format!("{method}, {side:?} by {how:?}, {connection} connection")));
            }
            cuts += 1;
        }
        Ok(cuts)
    }

    fn send(&mut self, count: u32, is_post: bool) -> Result<u32, Error> {
        let shape = Shape {
            pace: Pace::InTurn,
            connections: 1,
            requests_per_connection: None,
            think: Duration::ZERO,
            posts: if is_post { 1.0 } else { 0.0 },
            body_bytes_max: 40,
        };
        let step = self.step;
        self.step += 1;
        self.load.begin(step, &shape, Some(count), self.seed)?;
        self.load.wait_idle(Duration::from_secs(10))?;
        Ok(step)
    }

    /// Allows what may become of this one request.
    fn allow(&mut self, series: Series, in_head: bool, step: u32) {
        let during: Option<(Moment, Moment)> =
            self.load.records_of(step).first().map(|record: &Record| (record.sent, record.ended));
        let mut allow = |words, outcome, methods| {
            self.played.allowed.push(Allowance { words, outcome, methods, during });
        };
        if series.is_post {
            allow("502 for a POST", Allowed::Status(&[502]), Methods::Posts);
        }
        if series.side == Side::Response && !in_head {
            allow("a response that has begun breaks off", Allowed::Broken, Methods::All);
        }
    }
}
