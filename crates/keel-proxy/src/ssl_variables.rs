//! The values of variables about a client's TLS.

use keel_model::SslVariable;
use rustls::ProtocolVersion;

use crate::preface::TlsFacts;

/// Appends a value; false where there is none.
pub(crate) fn append(variable: SslVariable, facts: &TlsFacts, out: &mut Vec<u8>) -> bool {
    let TlsFacts { agreed, offer } = facts;
    let before = out.len();
    match variable {
        SslVariable::Protocol => {
            let name = match agreed.protocol {
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "",
            };
            out.extend_from_slice(name.as_bytes());
        }
        SslVariable::Cipher => append_cipher(agreed.cipher.map(u16::from), out),
        SslVariable::Ciphers => join(&offer.ciphers, out, |number, out| append_cipher(Some(number), out)),
        SslVariable::Curve => append_group(agreed.group, out),
        SslVariable::Curves => join(&offer.groups, out, |number, out| append_group(Some(number), out)),
        SslVariable::ServerName => {
            out.extend_from_slice(offer.server_name.as_deref().unwrap_or_default().as_bytes());
        }
        SslVariable::AlpnProtocol => out.extend_from_slice(agreed.alpn.as_deref().unwrap_or_default()),
        SslVariable::SessionReused => out.push(if agreed.is_resumed { b'r' } else { b'.' }),
    }
    out.len() > before
}

fn append_cipher(number: Option<u16>, out: &mut Vec<u8>) {
    append_number(number, keel_tls::cipher_name, out);
}

fn append_group(number: Option<u16>, out: &mut Vec<u8>) {
    append_number(number, keel_tls::group_name, out);
}

fn append_number(number: Option<u16>, name: fn(u16) -> Option<&'static str>, out: &mut Vec<u8>) {
    let Some(number) = number else { return };
    match name(number) {
        Some(name) => out.extend_from_slice(name.as_bytes()),
        None => out.extend_from_slice(format!("0x{number:04x}").as_bytes()),
    }
}

fn join(numbers: &[u16], out: &mut Vec<u8>, append: impl Fn(u16, &mut Vec<u8>)) {
    for (at, number) in numbers.iter().enumerate() {
        if at > 0 {
            out.push(b':');
        }
        append(*number, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Agreed, Offer};

    #[test]
    fn what_has_no_name_is_a_number() {
        let offer =
            Offer { groups: [0x11ec, 0x1d, 0x2a2a].into(), ciphers: [0x1301].into(), ..Offer::default() };
        let facts = TlsFacts { agreed: Agreed::default(), offer };
        let text = |variable| {
            let mut out = Vec::new();
            append(variable, &facts, &mut out).then(|| String::from_utf8(out).unwrap())
        };
        assert_eq!(text(SslVariable::Curves).as_deref(), Some("X25519MLKEM768:X25519:0x2a2a"));
        assert_eq!(text(SslVariable::Ciphers).as_deref(), Some("TLS_AES_128_GCM_SHA256"));
        assert_eq!(text(SslVariable::SessionReused).as_deref(), Some("."));
        assert_eq!((text(SslVariable::Cipher), text(SslVariable::ServerName)), (None, None));
    }
}
