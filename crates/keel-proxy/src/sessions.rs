//! Sessions of TLS that clients resume, in tickets that they keep or in a cache that workers share.
//!
//! The keys of tickets come from a seed that the supervisor has made, so that all workers have the same, and so has a data
//! plane that takes another's place. They change with time: one is used for as long as a session may be resumed, and is
//! known for as long again. Where the configuration names files with keys, those are used instead.
//!
//! What is resumed belongs to one certificate: a session of one site is none of another.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

use std::{
    cell::Cell,
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest, hmac, rand,
};
use keel_model::Secret;
use rustls::server::{ProducesTickets, StoresServerSessions};

use crate::stores::Named;

/// Bytes of a key's name, which stands in front of a ticket, as OpenSSL has it.
const NAME_BYTES: usize = 16;

/// Bytes that a session of a cache takes besides what is in it.
const ENTRY_BYTES: usize = 128;

/// A number by which logs tell sessions apart (`$ssl_session_id`).
pub(crate) type SessionId = [u8; 32];

/// What says whose sessions these are.
pub(crate) type Site = [u8; 32];

thread_local! {
    /// The session of the handshake that this thread is at.
    static CURRENT: Cell<SessionId> = const { Cell::new([0; 32]) };
}

/// Goes on with a handshake whose session has this id; gives what the session's id is then: another one where the client
/// resumes an older session.
pub(crate) fn within<T>(id: SessionId, handshake: impl FnOnce() -> T) -> (T, SessionId) {
    CURRENT.set(id);
    let result = handshake();
    (result, CURRENT.get())
}

/// Makes the id of a new session.
pub(crate) fn new_id() -> SessionId {
    let mut id = [0; 32];
    // Without randomness there is no TLS either.
    let _ = rand::fill(&mut id);
    id
}

/// Tells one site from others by its certificates.
pub(crate) fn site<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Site {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    }
    let mut site = [0; 32];
    site.copy_from_slice(context.finish().as_ref());
    site
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Where keys of tickets come from.
pub(crate) enum TicketKeys {
    /// Keys that change, made of this.
    Seed(Secret),
    /// `ssl_session_ticket_key`: the first makes tickets.
    Fixed(Vec<Secret>),
}

/// Makes tickets and reads them.
pub(crate) struct Tickets {
    keys: TicketKeys,
    site: Site,
    /// How long a session may be resumed.
    lifetime: Duration,
}

impl Tickets {
    pub(crate) fn new(keys: TicketKeys, site: Site, lifetime: Duration) -> Self {
        Self { keys, site, lifetime }
    }

    /// The keys that tickets may have been made with, the one for new ones first.
    fn keys(&self) -> Vec<([u8; NAME_BYTES], LessSafeKey)> {
        match &self.keys {
            TicketKeys::Fixed(keys) => keys.iter().filter_map(|key| derive(key.reveal(), 0)).collect(),
            TicketKeys::Seed(seed) => {
                let era = now().as_secs() / self.lifetime.as_secs().max(1);
                [era, era.saturating_sub(1)]
                    .into_iter()
                    .filter_map(|era| derive(seed.reveal(), era))
                    .collect()
            }
        }
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

fn derive(secret: &[u8], era: u64) -> Option<([u8; NAME_BYTES], LessSafeKey)> {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let of = |what: &[u8]| hmac::sign(&secret, &[what, &era.to_be_bytes()].concat());
    let mut name = [0; NAME_BYTES];
    name.copy_from_slice(of(b"name").as_ref().get(..NAME_BYTES)?);
    let key = UnboundKey::new(&AES_256_GCM, of(b"key").as_ref()).ok()?;
    Some((name, LessSafeKey::new(key)))
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.lifetime.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let (name, key) = self.keys().into_iter().next()?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut content = pack(plain, self.lifetime);
        let nonce_bytes = nonce;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(self.site), &mut content)
            .ok()?;
        Some([&name[..], &nonce_bytes, &content].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME_BYTES)?;
        let (nonce, content) = rest.split_at_checked(NONCE_LEN)?;
        let (_, key) = self.keys().into_iter().find(|(known, _)| known == name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut content = content.to_vec();
        let plain = key.open_in_place(nonce, Aad::from(self.site), &mut content).ok()?;
        unpack(plain)
    }
}

/// Puts in front of a session that is kept its id, and when it ends.
fn pack(plain: &[u8], lifetime: Duration) -> Vec<u8> {
    let until = u64::try_from(now().saturating_add(lifetime).as_millis()).unwrap_or(u64::MAX);
    [&CURRENT.get()[..], &until.to_be_bytes(), plain].concat()
}

/// Gives a session that was kept, unless its time is up; the handshake's session is that one then.
fn unpack(bytes: &[u8]) -> Option<Vec<u8>> {
    let (id, rest) = bytes.split_first_chunk::<32>()?;
    let (until, plain) = rest.split_first_chunk::<8>()?;
    if u128::from(u64::from_be_bytes(*until)) < now().as_millis() {
        return None;
    }
    CURRENT.set(*id);
    Some(plain.to_vec())
}

/// Sessions of `ssl_session_cache shared:name:size`, of all workers.
pub(crate) struct SessionCache {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    sessions: HashMap<Vec<u8>, Vec<u8>>,
    /// In the order in which they came.
    order: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Kept {
    fn remove(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let session = self.sessions.remove(key)?;
        self.bytes = self.bytes.saturating_sub(size(key, &session));
        Some(session)
    }
}

fn size(key: &[u8], session: &[u8]) -> usize {
    2 * key.len() + session.len() + ENTRY_BYTES
}

impl Named for SessionCache {
    type Settings = usize;

    fn new(bytes_max: &usize) -> Self {
        Self { bytes_max: *bytes_max, kept: Mutex::default() }
    }

    fn settings(&self) -> &usize {
        &self.bytes_max
    }
}

impl SessionCache {
    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        act(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, key: Vec<u8>, session: Vec<u8>) -> bool {
        let bytes = size(&key, &session);
        if bytes > self.bytes_max {
            return false;
        }
        self.with(|kept| {
            kept.remove(&key);
            // Keys of sessions that were taken stay in the order until it is their turn.
            while kept.bytes + bytes > self.bytes_max || kept.order.len() > 2 * kept.sessions.len() + 16 {
                let Some(oldest) = kept.order.pop_front() else { break };
                kept.remove(&oldest);
            }
            kept.bytes += bytes;
            kept.order.push_back(key.clone());
            kept.sessions.insert(key, session);
            true
        })
    }
}

/// The sessions of one site in a cache.
pub(crate) struct CachedSessions {
    cache: Arc<SessionCache>,
    site: Site,
    lifetime: Duration,
}

impl CachedSessions {
    pub(crate) fn new(cache: Arc<SessionCache>, site: Site, lifetime: Duration) -> Self {
        Self { cache, site, lifetime }
    }

    fn key(&self, key: &[u8]) -> Vec<u8> {
        [self.site.get(..8).unwrap_or_default(), key].concat()
    }
}

impl fmt::Debug for CachedSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CachedSessions")
    }
}

impl StoresServerSessions for CachedSessions {
    fn put(&self, key: Vec<u8>, session: Vec<u8>) -> bool {
        self.cache.put(self.key(&key), pack(&session, self.lifetime))
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let session = self.cache.with(|kept| kept.sessions.get(&self.key(key)).cloned())?;
        unpack(&session)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let session = self.cache.with(|kept| kept.remove(&self.key(key)))?;
        unpack(&session)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeded(seed: &[u8], site: u8) -> Tickets {
        let keys = TicketKeys::Seed(Secret::new(seed.to_vec()));
        Tickets::new(keys, [site; 32], Duration::from_secs(300))
    }

    #[test]
    fn tickets_are_of_a_seed_and_a_site() {
        let id = new_id();
        let (ticket, _) = within(id, || seeded(b"seed", 1).encrypt(b"session").unwrap());
        let resumed = within(new_id(), || seeded(b"seed", 1).decrypt(&ticket));
        assert_eq!(resumed, (Some(b"session".to_vec()), id));
        assert_eq!(seeded(b"other", 1).decrypt(&ticket), None);
        assert_eq!(seeded(b"seed", 2).decrypt(&ticket), None);
        let mut changed = ticket.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(seeded(b"seed", 1).decrypt(&changed), None);
        assert!((0..ticket.len()).all(|length| seeded(b"seed", 1).decrypt(&ticket[..length]).is_none()));
    }

    #[test]
    fn tickets_of_an_older_key_are_read() {
        let fixed = |keys: &[&[u8]]| {
            let keys = keys.iter().map(|key| Secret::new(key.to_vec())).collect();
            Tickets::new(TicketKeys::Fixed(keys), [0; 32], Duration::from_secs(300))
        };
        let ticket = fixed(&[b"old"]).encrypt(b"x").unwrap();
        assert_eq!(fixed(&[b"new", b"old"]).decrypt(&ticket), Some(b"x".to_vec()));
        assert_eq!(fixed(&[b"new"]).decrypt(&ticket), None);
        assert_ne!(fixed(&[b"new", b"old"]).encrypt(b"x").unwrap()[..NAME_BYTES], ticket[..NAME_BYTES]);
    }

    #[test]
    fn sessions_end_and_caches_are_bounded() {
        let cache = Arc::new(SessionCache::new(&2000));
        let of = |lifetime| CachedSessions::new(cache.clone(), [0; 32], lifetime);
        let long = of(Duration::from_secs(300));
        for number in 0..100u8 {
            assert!(long.put(vec![number], vec![number; 100]));
        }
        assert!(cache.with(|kept| kept.bytes <= 2000 && kept.order.len() < 50));
        assert_eq!((long.get(&[0]), long.get(&[99])), (None, Some(vec![99; 100])));
        assert_eq!((long.take(&[99]), long.take(&[99])), (Some(vec![99; 100]), None));
        assert!(!long.put(vec![1], vec![0; 3000]));
        let other = CachedSessions::new(cache.clone(), [1; 32], Duration::from_secs(300));
        assert_eq!(other.get(&[98]), None, "a session of another site");
        // One that has ended is none.
        let entry = [&[0; 32][..], &1u64.to_be_bytes(), b"x"].concat();
        assert_eq!(unpack(&entry), None);
    }
}
