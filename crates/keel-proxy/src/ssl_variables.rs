//! The values of variables about a client's TLS.

use std::{fmt::Write, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use keel_model::SslVariable;
use keel_tls::Certificate;
use rustls::ProtocolVersion;

use crate::preface::TlsFacts;

/// Characters of a line in PEM.
const PEM_LINE: usize = 64;

const DAY_S: i64 = 86_400;

/// Appends a value, at a time since 1970; false where there is none.
pub(crate) fn append(variable: SslVariable, facts: &TlsFacts, now: Duration, out: &mut Vec<u8>) -> bool {
    let TlsFacts { agreed, offer, untrusted } = facts;
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
        SslVariable::SessionId => {
            let mut text = String::with_capacity(2 * agreed.session_id.len());
            for byte in agreed.session_id {
                // Writing to a text never fails.
                let _ = write!(text, "{byte:02x}");
            }
            out.extend_from_slice(text.as_bytes());
        }
        SslVariable::ClientVerify => match (untrusted, agreed.certificates.is_empty()) {
            (_, true) => out.extend_from_slice(b"NONE"),
            (None, false) => out.extend_from_slice(b"SUCCESS"),
            (Some(why), false) => {
                out.extend_from_slice(b"FAILED:");
                out.extend_from_slice(why.words().1.as_bytes());
            }
        },
        of_client => {
            let Some(der) = agreed.certificates.first() else { return false };
            out.extend_from_slice(client(of_client, der, now).unwrap_or_default().as_bytes());
        }
    }
    out.len() > before
}

/// Gives a value of the client's certificate.
fn client(variable: SslVariable, der: &[u8], now: Duration) -> Option<String> {
    let certificate = Certificate::read(der).ok()?;
    Some(match variable {
        SslVariable::ClientRawCert => pem(der),
        // nginx folds the lines, and who reads a folded field takes each fold for a space (RFC 9112 §5.2).
        SslVariable::ClientCert => pem(der).trim_end().replace('\n', " "),
        SslVariable::ClientEscapedCert => escaped(&pem(der)),
        SslVariable::ClientFingerprint => certificate.fingerprint(),
        SslVariable::ClientSerial => certificate.serial(),
        SslVariable::ClientSDn => certificate.subject(),
        SslVariable::ClientIDn => certificate.issuer(),
        SslVariable::ClientSDnLegacy => certificate.subject_legacy(),
        SslVariable::ClientIDnLegacy => certificate.issuer_legacy(),
        SslVariable::ClientVStart => certificate.valid_from_text(),
        SslVariable::ClientVEnd => certificate.valid_until_text(),
        SslVariable::ClientVRemain => {
            let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            (certificate.valid_until().saturating_sub(now).max(0) / DAY_S).to_string()
        }
        _ => return None,
    })
}

fn pem(der: &[u8]) -> String {
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let encoded = STANDARD.encode(der);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, behind) = rest.split_at(rest.len().min(PEM_LINE));
        text.push_str(line);
        text.push('\n');
        rest = behind;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// Escapes what doesn't stand for itself in a part of a URI.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
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
        let facts = TlsFacts { agreed: Agreed::default(), offer, untrusted: None };
        let text = |variable| {
            let mut out = Vec::new();
            append(variable, &facts, Duration::ZERO, &mut out).then(|| String::from_utf8(out).unwrap())
        };
        assert_eq!(text(SslVariable::Curves).as_deref(), Some("X25519MLKEM768:X25519:0x2a2a"));
        assert_eq!(text(SslVariable::Ciphers).as_deref(), Some("TLS_AES_128_GCM_SHA256"));
        assert_eq!(text(SslVariable::SessionReused).as_deref(), Some("."));
        assert_eq!((text(SslVariable::Cipher), text(SslVariable::ServerName)), (None, None));
        assert_eq!(text(SslVariable::ClientVerify).as_deref(), Some("NONE"));
        assert_eq!((text(SslVariable::ClientSDn), text(SslVariable::ClientCert)), (None, None));
    }
}
