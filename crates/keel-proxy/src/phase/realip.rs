//! The phases `post-read` and `preaccess`: the client's address as somebody who is believed tells it.
//!
//! The first place on a request's way that believes its connection's client decides (the server, then the location); what
//! has been decided stays for the whole request.

use std::net::{IpAddr, SocketAddr};

use keel_http::{Name, proxy_header::Addresses};
use keel_model::{Clients, RealIpHeader, RealIpScope};

use super::access;
use crate::{exchange::Remote, job::Job, preface::ProxyHeader};

/// Finds the address, unless it has been found or nobody is believed here.
pub(super) fn run(job: &mut Job<'_>) {
    if job.ex.received.real_ip.is_none() && !job.place().scope.real_ip.from.is_empty() {
        job.ex.received.real_ip = find(job);
    }
}

fn find(job: &Job<'_>) -> Option<Remote> {
    let settings = &job.place().scope.real_ip;
    let (ex, connection) = (&job.ex, job.client.connection.remote);
    match &settings.header {
        RealIpHeader::ProxyProtocol => {
            let told = job.client.connection.proxy_header().and_then(ProxyHeader::addresses);
            told.filter(|_| is_believed(settings, connection))
                .map(|Addresses { client, .. }| Remote::Tcp(*client))
        }
        RealIpHeader::ForwardedFor => {
            let lists = ex
                .received
                .head
                .fields
                .all(Name::XForwardedFor)
                .map(|field| field.value.of(&ex.received.input));
            forwarded(settings, connection, lists.collect())
        }
        RealIpHeader::Field(name) => {
            let named = |field: &&keel_http::Field| {
                field.name.of(&ex.received.input).eq_ignore_ascii_case(name.as_bytes())
            };
            let field = ex.received.head.fields.iter().find(named)?;
            forwarded(settings, connection, vec![field.value.of(&ex.received.input)])
        }
    }
}

fn is_believed(settings: &RealIpScope, client: Remote) -> bool {
    settings.from.iter().any(|believed: &Clients| access::matches(*believed, client))
}

/// Follows lists of addresses from their end, for as long as who tells the next is believed. One that can't be read ends
/// it: whoever told it is the last who is known.
pub(crate) fn forwarded(settings: &RealIpScope, connection: Remote, mut lists: Vec<&[u8]>) -> Option<Remote> {
    let mut found = None;
    let mut left = lists.pop()?;
    loop {
        if !is_believed(settings, found.unwrap_or(connection)) {
            return found;
        }
        let (before, last) = split_last(left);
        let Some(address) = parse(last) else { return found };
        found = Some(Remote::Tcp(address));
        if !settings.recursive {
            return found;
        }
        left = match before {
            Some(before) => before,
            None => match lists.pop() {
                Some(list) => list,
                None => return found,
            },
        };
    }
}

/// Cuts the last address off a list: gives what is before it, if anything is, and the address.
fn split_last(list: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let is_separator = |byte: &u8| matches!(byte, b' ' | b',');
    let end = list.iter().rposition(|byte| !is_separator(byte)).map_or(0, |at| at + 1);
    let list = list.get(..end).unwrap_or_default();
    match list.iter().rposition(is_separator) {
        Some(at) => (list.get(..at), list.get(at + 1..).unwrap_or_default()),
        None => (None, list),
    }
}

/// Reads an address with or without a port, which is 0 then; one of IPv6 stands in brackets where it has a port.
fn parse(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let alone = text.parse().ok().map(|address: IpAddr| SocketAddr::new(address, 0));
    alone.or_else(|| text.parse().ok().filter(|address: &SocketAddr| address.port() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(recursive: bool, lists: &[&str], expect: Option<&str>) {
        let network = |address: &str, prefix| Clients::Network { address: address.parse().unwrap(), prefix };
        let from = vec![network("127.0.0.1", 32), network("10.0.0.0", 8), network("fd00::", 8)];
        let settings = RealIpScope { from, recursive, ..RealIpScope::default() };
        let connection = Remote::Tcp("127.0.0.1:5".parse().unwrap());
        let got = forwarded(&settings, connection, lists.iter().map(|list| list.as_bytes()).collect());
        let got = got.map(|remote| match remote {
            Remote::Tcp(address) => address.to_string(),
            Remote::Unix => unreachable!("no list tells of one"),
        });
        assert_eq!(got.as_deref(), expect, "{lists:?}");
    }

    #[test]
    fn the_last_address_counts() {
        check(false, &[], None);
        check(false, &["192.0.2.1"], Some("192.0.2.1:0"));
        check(false, &["192.0.2.1, 10.0.0.1"], Some("10.0.0.1:0"));
        check(false, &["192.0.2.1", "10.0.0.1 , "], Some("10.0.0.1:0"));
        check(false, &["192.0.2.1:80"], Some("192.0.2.1:80"));
        check(false, &["2001:db8::1"], Some("[2001:db8::1]:0"));
        check(false, &["[2001:db8::1]:80"], Some("[2001:db8::1]:80"));
        for unreadable in
            ["", ",", "unknown", "unix:", "192.0.2.1:", "192.0.2.1:0", "[2001:db8::1]", "192.0.2.1 x"]
        {
            check(false, &[unreadable], None);
            check(true, &["192.0.2.1", unreadable], None);
        }
    }

    #[test]
    fn addresses_that_are_believed_are_skipped() {
        check(true, &["192.0.2.7, 192.0.2.1, 10.0.0.1,10.0.0.2"], Some("192.0.2.1:0"));
        check(true, &["192.0.2.1", "10.0.0.1", "127.0.0.1"], Some("192.0.2.1:0"));
        check(true, &["10.0.0.2", "10.0.0.1"], Some("10.0.0.2:0"));
        check(true, &["10.0.0.2", "192.0.2.1"], Some("192.0.2.1:0"));
        // What can't be read hides what was told before it.
        check(true, &["192.0.2.1, x, 10.0.0.1"], Some("10.0.0.1:0"));
        check(true, &["192.0.2.1", ",10.0.0.1"], Some("10.0.0.1:0"));
        check(true, &["192.0.2.1", "fd00::1"], Some("192.0.2.1:0"));
    }

    #[test]
    fn who_is_not_believed_tells_nothing() {
        let settings = RealIpScope { from: vec![Clients::Unix], ..RealIpScope::default() };
        let told = |connection| forwarded(&settings, connection, vec![b"192.0.2.1"]).is_some();
        assert_eq!((told(Remote::Tcp("127.0.0.1:5".parse().unwrap())), told(Remote::Unix)), (false, true));
    }
}
