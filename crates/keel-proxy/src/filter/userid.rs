//! `userid`: a cookie that tells clients apart.
//!
//! It is four numbers: the service, the time, a number of this process and one that counts. Version 2 has them in the order of
//! the network, version 1 in that of this machine.

use std::{
    net::IpAddr,
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, alphabet, engine};
use keel_http::{Name, date};
use keel_model::{LogLevel, UseridExpires, UseridFlag, UseridMode, UseridScope};

use super::{Filter, Settings};
use crate::{
    answer::{Answer, Special},
    error::CompileError,
    job::Job,
    variables::{Lookup, cookie},
};

/// Bytes of a cookie.
const BYTES: usize = 16;

/// Characters that they are written with, in base64 without what fills it up.
const CHARACTERS: usize = 22;

/// What a number grows by from cookie to cookie, and where those of version 2 begin.
const STEP: u32 = 0x100;
const FIRST_OF_V2: u32 = 0x0303_0302;

/// When a cookie ends that is kept as long as can be.
const MAX: &str = "; expires=Thu, 31-Dec-37 23:55:55 GMT";

const LENIENT: engine::GeneralPurpose = engine::GeneralPurpose::new(
    &alphabet::STANDARD,
    engine::GeneralPurposeConfig::new()
        .with_decode_padding_mode(engine::DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

static SEQUENCE: AtomicU32 = AtomicU32::new(1);

/// A number of this process: when it began, and which it is.
static START: LazyLock<u32> = LazyLock::new(|| {
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ((began.subsec_micros() / 20) << 16) | (std::process::id() & 0xffff)
});

struct Userid {
    scope: UseridScope,
}

pub(super) fn compile(settings: &Settings<'_>) -> Result<Option<Box<dyn Filter>>, CompileError> {
    let scope = &settings.scope.userid;
    let sends = matches!(scope.mode, UseridMode::V1 | UseridMode::On);
    Ok(sends.then(|| Box::new(Userid { scope: scope.clone() }) as Box<dyn Filter>))
}

/// The cookies of one request.
#[derive(Debug, Default)]
pub(crate) struct Uid {
    /// What came.
    got: Option<[u8; BYTES]>,
    /// What is sent.
    set: Option<[u8; BYTES]>,
    /// Which value the sent one has, as far as it isn't made of that.
    text: Option<Vec<u8>>,
}

impl Uid {
    /// Looks at the cookie that came, and makes another where that is to be.
    pub(crate) fn of(lookup: Lookup<'_>) -> Self {
        let scope = &lookup.ex.place(lookup.view).scope.userid;
        let mut uid = Self::default();
        if scope.mode == UseridMode::Off {
            return uid;
        }
        let input = &lookup.ex.received.input;
        let fields = lookup.ex.received.head.fields.all(Name::Cookie).map(|field| field.value.of(input));
        let value = cookie(fields, scope.name.as_bytes());
        uid.got = value.and_then(|value| parse(lookup, value));
        if scope.mode == UseridMode::Log {
            return uid;
        }
        let (Some(got), Some(value)) = (uid.got, value) else {
            uid.set = Some(make(lookup, scope));
            return uid;
        };
        let mut reset = Vec::new();
        if let Some(variable) = &scope.reset {
            lookup.append(variable, &mut reset);
        }
        if reset.is_empty() || reset == b"0" {
            let Some(mark) = scope.mark else { return uid };
            let is_marked = value.get(CHARACTERS) == Some(&mark) && value.get(CHARACTERS + 1) == Some(&b'=');
            if !is_marked {
                uid.set = Some(got);
                uid.text = value.get(..CHARACTERS).map(|text| [text, &[mark, b'=']].concat());
            }
            return uid;
        }
        if reset == b"log" {
            let text = format!("userid cookie \"{}={}\" was reset", scope.name, shown(&got));
            lookup.client.log(lookup.worker, lookup.ex, LogLevel::Notice, &text);
        }
        uid.set = Some(make(lookup, scope));
        uid
    }

    /// Appends `$uid_got`.
    pub(crate) fn append_got(&self, name: &str, out: &mut Vec<u8>) -> bool {
        append(self.got, name, out)
    }

    /// Appends `$uid_set`.
    pub(crate) fn append_set(&self, name: &str, out: &mut Vec<u8>) -> bool {
        append(self.set, name, out)
    }
}

fn append(uid: Option<[u8; BYTES]>, name: &str, out: &mut Vec<u8>) -> bool {
    let Some(uid) = uid else { return false };
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    out.extend_from_slice(shown(&uid).as_bytes());
    true
}

/// Writes it as four numbers of this machine, as nginx does.
fn shown(uid: &[u8; BYTES]) -> String {
    let numbers = uid.chunks_exact(4).filter_map(|bytes| bytes.try_into().ok());
    numbers.map(|bytes| format!("{:08X}", u32::from_ne_bytes(bytes))).collect()
}

/// Reads the cookie that came. One that ends in zeros is none.
fn parse(lookup: Lookup<'_>, value: &[u8]) -> Option<[u8; BYTES]> {
    let complain = |what: &str| {
        let text = format!("client sent {what} userid cookie \"{}\"", String::from_utf8_lossy(value));
        lookup.client.log_error(lookup.worker, lookup.ex, &text);
    };
    let Some(text) = value.get(..CHARACTERS) else {
        complain("too short");
        return None;
    };
    let Some(uid) = LENIENT.decode(text).ok().and_then(|bytes| <[u8; BYTES]>::try_from(bytes).ok()) else {
        complain("invalid");
        return None;
    };
    uid.last_chunk::<4>().is_some_and(|last| *last != [0; 4]).then_some(uid)
}

fn make(lookup: Lookup<'_>, scope: &UseridScope) -> [u8; BYTES] {
    let now = u32::try_from(lookup.worker.clock.unix().as_secs()).unwrap_or(u32::MAX);
    let sequence = SEQUENCE.fetch_add(STEP, Relaxed);
    let numbers = if scope.mode == UseridMode::V1 {
        [scope.service.unwrap_or(0), now, *START, sequence].map(u32::to_ne_bytes)
    } else {
        let service = match scope.service {
            Some(service) => service.to_be_bytes(),
            None => match lookup.client.local_address().map(|address| address.ip().to_canonical()) {
                Some(IpAddr::V4(address)) => address.octets(),
                Some(IpAddr::V6(address)) => address.octets().last_chunk().copied().unwrap_or_default(),
                None => [0; 4],
            },
        };
        let sequence = FIRST_OF_V2.wrapping_add(sequence - 1).max(FIRST_OF_V2);
        [service, now.to_be_bytes(), START.to_be_bytes(), sequence.to_be_bytes()]
    };
    let mut uid = [0; BYTES];
    for (to, from) in uid.chunks_exact_mut(4).zip(numbers) {
        to.copy_from_slice(&from);
    }
    uid
}

impl Filter for Userid {
    fn header(&self, job: &Job<'_>, answer: &mut Answer) -> Result<(), Special> {
        let uid = job.lookup_with(answer).uid();
        let Some(set) = uid.set else { return Ok(()) };
        let text = uid.text.clone().unwrap_or_else(|| {
            let mut text = base64::engine::general_purpose::STANDARD.encode(set).into_bytes();
            if let (Some(mark), Some(slot)) = (self.scope.mark, text.get_mut(CHARACTERS)) {
                *slot = mark;
            }
            text
        });
        let mut value = [self.scope.name.as_bytes(), b"=", &text].concat();
        match self.scope.expires {
            UseridExpires::Off => {}
            UseridExpires::Max => value.extend_from_slice(MAX.as_bytes()),
            UseridExpires::After(seconds) => {
                let now = i64::try_from(job.worker.clock.unix().as_secs()).unwrap_or(0);
                let ends_at = date::cookie(now.saturating_add(seconds));
                value.extend_from_slice(format!("; expires={ends_at}").as_bytes());
            }
        }
        if let Some(domain) = &self.scope.domain {
            value.extend_from_slice(format!("; domain={domain}").as_bytes());
        }
        value.extend_from_slice(format!("; path={}", self.scope.path).as_bytes());
        for flag in &self.scope.flags {
            value.extend_from_slice(match flag {
                UseridFlag::Secure => b"; secure",
                UseridFlag::Httponly => b"; httponly",
                UseridFlag::SamesiteStrict => b"; samesite=strict",
                UseridFlag::SamesiteLax => b"; samesite=lax",
                UseridFlag::SamesiteNone => b"; samesite=none",
            });
        }
        answer.fields.lines.field("Set-Cookie", &value);
        if let Some(p3p) = &self.scope.p3p {
            answer.fields.lines.field("P3P", p3p.as_bytes());
        }
        Ok(())
    }
}
