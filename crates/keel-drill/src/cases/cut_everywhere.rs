//! A connection to a peer breaks after each byte of a request and of a response in turn, by FIN and by RST, for GET and
//! POST, on new and on kept connections: exhaustive.
//!
//! It needs peers that know what they are asked to do, so it runs on a balancer alone and not on the project.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use super::{Case, Way, any};
use crate::{
    Error,
    cutter::{Cut, CutIn, Cutters, How, Made, Manner, Side},
    front::Front,
    generator::{Pace, Shape, Target},
    load::Load,
    port::free_ports,
    record::{Moment, Record, StepShare},
    results,
    stage::{Context, PATIENCE, Played, unplayed},
    verdict::{Allowance, Allowed, Methods},
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
/// Findings after which a series is given up.
const NEVER_CAME_MAX: usize = 3;

fn play(context: &Context<'_>) -> Result<Played, Error> {
    let io = |source| Error::io("the peers can't be started", source);
    let cutters = Cutters::start(2).map_err(io)?;
    let held = free_ports(1)?;
    let free = held.first().map(|port| port.address);
    let listen = context.options.listen.or(free).ok_or_else(|| io(std::io::ErrorKind::AddrInUse.into()))?;
    let text = configuration(listen, &cutters.addresses);
    let _front = Front::start(&context.program(), &text, context.ground)?;
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
    if let Err(error) = cutting.all() {
        if matches!(error, Error::Interrupted) || cutting.load.end().is_err() {
            return Err(error);
        }
        let finding = results::Finding { what: unplayed(&error), ids: Vec::new() };
        cutting.played.findings.push(finding);
    }
    let Cutting { cutters, load, mut played, .. } = cutting;
    played.records = load.finish();
    played.ledger = cutters.ledger();
    played.files = BTreeMap::from([("nginx.conf".to_owned(), text)]);
    let posts = played.records.iter().filter(|record| record.is_post).count() as f64;
    let posts = posts / played.records.len().max(1) as f64;
    played.load = results::Load { connections: 1, posts, ..results::Load::default() };
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
    method: Method,
    manner: Manner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Get,
    Post,
}

impl std::fmt::Display for Series {
    /// `POST response cut by RST, kept`: short, since it stands below a chart.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let method = match self.method {
            Method::Get => "GET",
            Method::Post => "POST",
        };
        let message = match self.side {
            Side::Request => "request",
            Side::Response if self.manner.chunked => "chunks",
            Side::Response => "response",
        };
        let how = match self.how {
            How::Fin => "FIN",
            How::Rst => "RST",
        };
        let connection = if self.manner.keeps { "kept" } else { "new" };
        write!(f, "{method} {message} cut by {how}, {connection}")
    }
}

impl Cutting {
    fn all(&mut self) -> Result<(), Error> {
        let mut cuts = 0;
        for keeps in [true, false] {
            for (side, chunked) in [(Side::Request, false), (Side::Response, false), (Side::Response, true)] {
                for how in [How::Fin, How::Rst] {
                    for method in [Method::Get, Method::Post] {
                        let manner = Manner { chunked, keeps };
                        cuts += self.series(Series { side, how, method, manner })?;
                    }
                }
            }
        }
        let step = StepShare { step: u32::MAX, condition: format!("{cuts} cuts"), expected: None };
        self.played.steps.push(step);
        Ok(())
    }

    fn find(&mut self, what: String, step: Option<u32>) {
        let records = step.map(|step| self.load.records_of(step)).unwrap_or_default();
        let ids = records.iter().map(|record| record.id.to_string()).collect();
        self.played.findings.push(results::Finding { what, ids });
    }

    /// Cuts after each byte of a message, until the message is over; gives how often.
    fn series(&mut self, series: Series) -> Result<u32, Error> {
        self.cutters.set_manner(series.manner);
        let mut cuts = 0;
        for at in (self.first..).step_by(self.stride) {
            let begin = Moment::now();
            self.send(ORDINARY, Method::Get)?;
            let Series { side, how, .. } = series;
            self.cutters.arm(Cut { side, at, how });
            let step = self.send(1, series.method)?;
            match self.cutters.disarm() {
                Made::Yes { place } => self.allow(series, place, step),
                Made::TooLate => break,
                Made::No => {
                    self.find(format!("a request never came to a peer ({series}, byte {at})"), Some(step));
                    if self.played.findings.len() > NEVER_CAME_MAX {
                        break;
                    }
                }
            }
            if cuts == 0 {
                self.played.events.push((begin, series.to_string()));
            }
            cuts += 1;
        }
        if cuts == 0 {
            self.find(format!("nothing was cut: {series}"), None);
        }
        Ok(cuts)
    }

    fn send(&mut self, count: u32, method: Method) -> Result<u32, Error> {
        let shape = Shape {
            pace: Pace::InTurn,
            connections: 1,
            requests_per_connection: None,
            think: Duration::ZERO,
            posts: if method == Method::Post { 1.0 } else { 0.0 },
            // At least one, so that there is a body to be cut.
            body_bytes_min: 1,
            body_bytes_max: 40,
        };
        let step = self.step;
        self.step += 1;
        self.load.begin(step, &shape, Some(count), self.seed)?;
        self.load.wait_idle(Duration::from_secs(10))?;
        Ok(step)
    }

    /// Allows what may become of this one request.
    fn allow(&mut self, series: Series, place: CutIn, step: u32) {
        let during: Option<(Moment, Moment)> =
            self.load.records_of(step).first().map(|record: &Record| (record.sent, record.ended));
        let mut allow = |words, outcome, methods| {
            let only = Allowance { during, at_most: 1, ..Allowance::default() };
            self.played.allowed.push(Allowance { words, outcome, methods, ..only });
        };
        if series.method == Method::Post {
            allow("502 for a POST", Allowed::Status(&[502]), Methods::Posts);
        }
        if series.side == Side::Response && place == CutIn::Body {
            allow("a response that has begun breaks off", Allowed::Broken, Methods::All);
        }
    }
}
