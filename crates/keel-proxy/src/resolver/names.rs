//! What is known of names, and who asks for what isn't: one thread for each resolver.
//!
//! Every name is known apart, aliases too, as long as its own records say: an answer holds as long as the shortest of its
//! chain. All who want the same name wait for one question; it is given up once nobody waits. Failures aren't remembered, as in nginx.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    Failure,
    exchange::Servers,
    message::{Kind, NO_SUCH_NAME, Reply},
};

/// Names that are known at one time, aliases included; beyond it those that have expired are forgotten, and then all.
const KNOWN_MAX: usize = 4096;

/// Aliases that one name may lead over, as in nginx.
const ALIASES_MAX: usize = 50;

/// How answers are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) servers: Vec<SocketAddr>,
    /// How long an answer holds, whatever it says itself.
    pub(super) valid: Option<Duration>,
    /// Which addresses are asked for, in this order.
    pub(super) kinds: Vec<Kind>,
}

/// What one name stands for.
#[derive(Clone, Debug)]
enum Step {
    Addresses(Vec<IpAddr>),
    Alias(String),
}

#[derive(Clone, Debug)]
struct Known {
    step: Step,
    until: Instant,
}

type Asked = Option<Result<Known, Failure>>;

enum Node {
    Asking(watch::Receiver<Asked>),
    Known(Known),
}

/// All names of one resolver.
pub(super) struct Names {
    rules: Rules,
    servers: Servers,
    nodes: RefCell<HashMap<String, Node>>,
}

impl Names {
    pub(super) fn new(rules: Rules) -> Rc<Self> {
        Rc::new(Self { servers: Servers::new(rules.servers.clone()), rules, nodes: RefCell::default() })
    }

    /// Finds the addresses of a name, in lower case, and the moment until which they hold.
    pub(super) async fn resolve(self: &Rc<Self>, name: &str) -> Result<(Vec<IpAddr>, Instant), Failure> {
        let mut name = name.to_owned();
        let mut until: Option<Instant> = None;
        for _ in 0..=ALIASES_MAX {
            let known = self.step(&name).await?;
            let until = *until.insert(until.map_or(known.until, |until| until.min(known.until)));
            match known.step {
                Step::Addresses(addresses) => return Ok((addresses, until)),
                Step::Alias(alias) => name = alias,
            }
        }
        Err(Failure::Code(NO_SUCH_NAME))
    }

    /// Finds what a name stands for, from what is known or by a question.
    async fn step(self: &Rc<Self>, name: &str) -> Result<Known, Failure> {
        let now = Instant::now();
        let mut answer = {
            let mut nodes = self.nodes.borrow_mut();
            match nodes.get(name) {
                Some(Node::Known(known)) if known.until > now => return Ok(known.clone()),
                Some(Node::Asking(answer)) if answer.has_changed().is_ok() => answer.clone(),
                _ => {
                    self.make_room(&mut nodes, now);
                    let (sender, answer) = watch::channel(None);
                    nodes.insert(name.to_owned(), Node::Asking(answer.clone()));
                    tokio::task::spawn_local(self.clone().answer(name.to_owned(), sender));
                    answer
                }
            }
        };
        match answer.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(answer)) => answer.clone(),
            Ok(None) | Err(_) => Err(Failure::TimedOut),
        }
    }

    fn make_room(&self, nodes: &mut HashMap<String, Node>, now: Instant) {
        if nodes.len() < KNOWN_MAX {
            return;
        }
        let is_known = |node: &Node| matches!(node, Node::Known(known) if known.until > now);
        nodes.retain(|_, node| is_known(node) || matches!(node, Node::Asking(_)));
        if nodes.len() >= KNOWN_MAX {
            nodes.retain(|_, node| !is_known(node));
        }
    }

    /// Asks for a name until there is an answer or nobody waits for it any more.
    async fn answer(self: Rc<Self>, name: String, sender: watch::Sender<Asked>) {
        // The map holds a receiver of its own, which waits for nothing.
        let asked = async {
            tokio::select! {
                found = self.ask(&name) => Some(found),
                () = nobody_waits(&sender) => None,
            }
        };
        let found = asked.await;
        let mut nodes = self.nodes.borrow_mut();
        match &found {
            Some(Ok(known)) => drop(nodes.insert(name, Node::Known(known.clone()))),
            Some(Err(_)) | None => drop(nodes.remove(&name)),
        }
        sender.send_replace(found);
    }

    async fn ask(&self, name: &str) -> Result<Known, Failure> {
        let first = self.servers.next_turn();
        let (mut v4, mut v6) = (None, None);
        let ask = async |kind, reply: &mut Option<Reply>| {
            if self.rules.kinds.contains(&kind) {
                *reply = self.servers.ask(name, kind, first).await;
            }
        };
        tokio::join!(ask(Kind::A, &mut v4), ask(Kind::Aaaa, &mut v6));
        let replies: Vec<Reply> = v4.into_iter().chain(v6).collect();
        // A name that can't be asked for is one that doesn't exist.
        if replies.len() < self.rules.kinds.len() {
            return Err(Failure::Code(NO_SUCH_NAME));
        }
        let (step, ttl) = merge(replies)?;
        let holds = self.rules.valid.unwrap_or(Duration::from_secs(ttl.into()));
        let now = Instant::now();
        Ok(Known { step, until: now.checked_add(holds).unwrap_or(now) })
    }
}

/// Ends when no request waits for an answer. Looked at every now and then: there is no other who'd say so.
async fn nobody_waits(sender: &watch::Sender<Asked>) {
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        if sender.receiver_count() <= 1 {
            return;
        }
    }
}

/// What the replies to all questions for one name say together. As in nginx: an error in one of them is an error; else all
/// addresses count, and only where there are none, the last reply's alias.
fn merge(mut replies: Vec<Reply>) -> Result<(Step, u32), Failure> {
    if let Some(reply) = replies.iter().find(|reply| reply.code != 0) {
        return Err(Failure::Code(reply.code));
    }
    let ttl = replies.iter().filter_map(|reply| reply.ttl).min().unwrap_or(0);
    let alias = replies.last_mut().and_then(|reply| reply.alias.take());
    let addresses: Vec<IpAddr> = replies.into_iter().flat_map(|reply| reply.addresses).collect();
    match alias {
        _ if !addresses.is_empty() => Ok((Step::Addresses(addresses), ttl)),
        Some(alias) => Ok((Step::Alias(alias), ttl)),
        None => Err(Failure::Code(NO_SUCH_NAME)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_in_one_reply_is_an_error_and_an_alias_counts_without_addresses() {
        let address =
            |last: u8| Reply { addresses: vec![[10, 0, 0, last].into()], ttl: Some(9), ..Reply::default() };
        let alias = |to: &str| Reply { alias: Some(to.into()), ttl: Some(3), ..Reply::default() };
        let error = Reply { code: 2, ..Reply::default() };
        let nothing = Reply::default();
        let check = |replies: [&Reply; 2], expect: &str| {
            let found = match merge(replies.map(Reply::clone).into()) {
                Ok((Step::Addresses(addresses), ttl)) => format!("{addresses:?} {ttl}"),
                Ok((Step::Alias(name), ttl)) => format!("{name} {ttl}"),
                Err(failure) => failure.to_string(),
            };
            assert_eq!(found, expect);
        };
        check([&address(1), &address(2)], "[10.0.0.1, 10.0.0.2] 9");
        check([&address(1), &nothing], "[10.0.0.1] 9");
        check([&address(1), &alias("x")], "[10.0.0.1] 3");
        check([&alias("x"), &alias("y")], "y 3");
        check([&nothing, &alias("y")], "y 3");
        check([&alias("x"), &nothing], "3: Host not found");
        check([&nothing, &nothing], "3: Host not found");
        check([&address(1), &error], "2: Server failure");
        check([&error, &address(1)], "2: Server failure");
    }
}
