//! nginx 1.31.5's directives that have no effect here, a line each: what that means, where it may stand, how many
//! arguments it takes, whether it may stand twice, and what its arguments may be.

mod companions;
mod effects;
mod gateways;

use super::{
    Group, Known,
    signatures::{Repeats, Signature, Value},
};
use crate::registry::{Arity, Contexts};

/// All of them, in the order of the reference.
pub(super) const TABLES: [&[Group]; 3] = [effects::GROUPS, companions::GROUPS, gateways::GROUPS];

const EVENTS: Contexts = Contexts::EVENTS;
const HTTP: Contexts = Contexts::HTTP;
const HTTP_ALL: Contexts = Contexts::HTTP_ALL;
const HTTP_SERVER: Contexts = Contexts::HTTP_SERVER;
const LIMIT_EXCEPT: Contexts = Contexts::LIMIT_EXCEPT;
const LOCATION: Contexts = Contexts::LOCATION;
const LOCATION_IF: Contexts = Contexts::LOCATION_IF;
const MAIL_ALL: Contexts = Contexts::MAIL_ALL;
const MAIL_SERVER: Contexts = Contexts::MAIL_SERVER;
const MAIN: Contexts = Contexts::MAIN;
const SERVER_LOCATION: Contexts = Contexts::SERVER_LOCATION;
const STREAM_ALL: Contexts = Contexts::STREAM_ALL;
const STREAM_SERVER: Contexts = Contexts::STREAM_SERVER;
const UPSTREAM: Contexts = Contexts::UPSTREAM;

const NONE: Arity = Arity::NONE;
const ONE: Arity = Arity::ONE;
const TWO: Arity = Arity::TWO;
const UP_TO_ONE: Arity = Arity::Take(0, 1);

const TLS_PROTOCOLS: Value = Value::Keywords(&["SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]);

/// A directive that ends in `;`.
const fn line(name: &'static str, contexts: Contexts, arity: Arity, repeats: Repeats, value: Value) -> Known {
    Known { name, signature: Some(Signature { contexts, arity, repeats, value }) }
}

/// A directive of a module that nginx doesn't come with: taken as it is.
const fn foreign(name: &'static str) -> Known {
    Known { name, signature: None }
}
