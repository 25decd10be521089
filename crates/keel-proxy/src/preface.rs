//! What comes on a connection before its protocol: the header of the PROXY protocol, then TLS, where `listen` asks for them.
//!
//! Nothing here reads from a socket: [`crate::downstream`] does, under the rules that hold for heads of requests.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

use std::rc::Rc;

use keel_http::{
    Progress,
    proxy_header::{self, Addresses, Broken, Tlvs, V1_BYTES_MAX},
};

use keel_tls::Untrusted;

use crate::transport::{Agreed, Offer};

/// What a connection begins with. Only one that begins with anything has this.
#[derive(Clone, Default)]
pub(crate) struct Preface {
    /// The header of the PROXY protocol, where the listener asks for one.
    pub(crate) proxy_header: Option<ProxyHeader>,
    pub(crate) tls: Security,
}

/// Whether a connection speaks TLS.
#[derive(Clone, Default)]
pub(crate) enum Security {
    /// Its listener doesn't ask for it.
    #[default]
    None,
    /// It has yet to begin.
    Awaited,
    /// It is to, and doesn't: its requests are refused.
    Missing,
    /// It does.
    Tls(Rc<TlsFacts>),
}

/// What is known of a client's TLS.
pub(crate) struct TlsFacts {
    pub(crate) agreed: Agreed,
    pub(crate) offer: Offer,
    /// What is wrong with the client's certificate, if there is one and clients are asked for it.
    pub(crate) untrusted: Option<Untrusted>,
}

/// The header of a connection whose listener asks for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProxyHeader {
    /// It has yet to be read.
    Awaited,
    /// It has been read.
    Taken {
        /// `None` where it tells of nobody (`UNKNOWN`, `LOCAL`).
        addresses: Option<Addresses>,
        tlvs: Box<[u8]>,
    },
}

impl ProxyHeader {
    /// Takes the header from the beginning of `input`; what comes behind it stays. False while it isn't whole.
    ///
    /// # Errors
    ///
    /// The connection is to close.
    pub(crate) fn take(&mut self, input: &mut Vec<u8>) -> Result<bool, Broken> {
        let (progress, header) = proxy_header::parse(input)?;
        let Progress::Complete(end) = progress else { return Ok(false) };
        *self = Self::Taken { addresses: header.addresses, tlvs: header.tlvs.as_bytes().into() };
        input.drain(..end);
        Ok(true)
    }

    /// Gives both ends of the connection that the header is about.
    pub(crate) fn addresses(&self) -> Option<&Addresses> {
        match self {
            Self::Awaited => None,
            Self::Taken { addresses, .. } => addresses.as_ref(),
        }
    }

    /// Gives the header's other values.
    pub(crate) fn tlvs(&self) -> Tlvs<'_> {
        match self {
            Self::Awaited => Tlvs::default(),
            Self::Taken { tlvs, .. } => Tlvs::new(tlvs),
        }
    }
}

/// Says in nginx's words why a header can't be taken.
pub(crate) fn complaint(error: Broken, input: &[u8]) -> String {
    if error != Broken::Syntax {
        return error.to_string();
    }
    let bounded = input.get(..V1_BYTES_MAX).unwrap_or(input);
    let line = bounded.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    format!("{error}: \"{}\"", String::from_utf8_lossy(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_behind_stays() {
        let mut header = ProxyHeader::Awaited;
        let mut input = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2".to_vec();
        assert_eq!((header.take(&mut input), header.addresses()), (Ok(false), None));
        input.extend_from_slice(b"\r\nGET /");
        assert_eq!(header.take(&mut input), Ok(true));
        let addresses = header.addresses().map(|both| (both.client.to_string(), both.server.to_string()));
        assert_eq!(addresses, Some(("192.0.2.1:1".to_owned(), "192.0.2.2:2".to_owned())));
        assert_eq!((input.as_slice(), header.tlvs()), (&b"GET /"[..], Tlvs::default()));
    }

    #[test]
    fn complaints_show_one_line() {
        let check = |input: &[u8], expect: &str| {
            let error = ProxyHeader::Awaited.take(&mut input.to_vec()).expect_err("broken");
            assert_eq!(complaint(error, input), expect);
        };
        check(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "broken header: \"GET / HTTP/1.1\"");
        check(&[b'x'; 300], &format!("broken header: \"{}\"", "x".repeat(V1_BYTES_MAX)));
        check(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", "header is too large");
    }
}
