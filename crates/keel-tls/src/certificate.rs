//! What stands in a certificate (RFC 5280), as nginx's variables show it.

use std::fmt::Write;

use x509_parser::{asn1_rs::FromDer, prelude::X509Certificate, time::ASN1Time, x509::X509Name};

/// Bytes are no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate can't be read")]
pub struct Unreadable;

/// A certificate that has been read.
pub struct Certificate<'a> {
    der: &'a [u8],
    inner: X509Certificate<'a>,
}

impl<'a> Certificate<'a> {
    /// Reads one in DER.
    ///
    /// # Errors
    /// When it is none, or something stands behind it.
    pub fn read(der: &'a [u8]) -> Result<Self, Unreadable> {
        match X509Certificate::from_der(der) {
            Ok(([], inner)) => Ok(Self { der, inner }),
            _ => Err(Unreadable),
        }
    }

    /// The public key with its algorithm, in DER.
    pub fn public_key(&self) -> &[u8] {
        self.inner.public_key().raw
    }

    /// The last second in which it is valid, since 1970.
    pub fn valid_until(&self) -> i64 {
        self.inner.validity().not_after.timestamp()
    }

    /// The first second in which it is valid, since 1970.
    pub fn valid_from(&self) -> i64 {
        self.inner.validity().not_before.timestamp()
    }

    /// The beginning of its validity, as OpenSSL prints it: `Jan  2 15:04:05 2026 GMT`.
    pub fn valid_from_text(&self) -> String {
        time_text(self.inner.validity().not_before)
    }

    /// The end of its validity, likewise.
    pub fn valid_until_text(&self) -> String {
        time_text(self.inner.validity().not_after)
    }

    /// The subject in the form of RFC 2253: `CN=name,O=org`, the most specific part first.
    pub fn subject(&self) -> String {
        rfc2253(self.inner.subject())
    }

    /// The issuer in the form of RFC 2253.
    pub fn issuer(&self) -> String {
        rfc2253(self.inner.issuer())
    }

    /// The subject in OpenSSL's old form: `/O=org/CN=name`.
    pub fn subject_legacy(&self) -> String {
        oneline(self.inner.subject())
    }

    /// The issuer in OpenSSL's old form.
    pub fn issuer_legacy(&self) -> String {
        oneline(self.inner.issuer())
    }

    /// The serial number in hexadecimal, whole bytes.
    pub fn serial(&self) -> String {
        let bytes = self.inner.raw_serial();
        let from = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len().saturating_sub(1));
        hex(bytes.get(from..).unwrap_or_default(), "%X")
    }

    /// The SHA-1 of the whole in hexadecimal.
    pub fn fingerprint(&self) -> String {
        use sha1::Digest;
        hex(sha1::Sha1::digest(self.der).as_slice(), "%x")
    }
}

fn hex(bytes: &[u8], form: &str) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a text never fails.
        let _ = if form == "%X" { write!(text, "{byte:02X}") } else { write!(text, "{byte:02x}") };
    }
    text
}

fn time_text(time: ASN1Time) -> String {
    let time = time.to_datetime();
    let month = time.month().to_string();
    format!(
        "{} {:>2} {:02}:{:02}:{:02} {} GMT",
        month.get(..3).unwrap_or_default(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.year()
    )
}

/// OpenSSL's short names of what stands in names, by their identifiers.
const ATTRIBUTES: [(&str, &str); 21] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.13", "description"),
    ("2.5.4.15", "businessCategory"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.41", "name"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.46", "dnQualifier"),
    ("2.5.4.97", "organizationIdentifier"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
];

/// One part of a name: OpenSSL's short name or the identifier, and the value.
fn parts<'n>(name: &'n X509Name<'_>) -> impl Iterator<Item = Vec<(String, Vec<u8>)>> + 'n {
    name.iter_rdn().map(|rdn| {
        let part = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            let identifier = attribute.attr_type().to_id_string();
            let known = ATTRIBUTES.iter().find(|(known, _)| *known == identifier);
            let short = known.map_or(identifier, |(_, short)| (*short).to_owned());
            let value = match attribute.as_str() {
                Ok(text) => text.as_bytes().to_vec(),
                Err(_) => attribute.as_slice().to_vec(),
            };
            (short, value)
        };
        rdn.iter().map(part).collect()
    })
}

fn rfc2253(name: &X509Name<'_>) -> String {
    let parts: Vec<String> = parts(name)
        .map(|rdn| {
            let values: Vec<String> =
                rdn.iter().rev().map(|(short, value)| format!("{short}={}", escaped(value))).collect();
            values.join("+")
        })
        .collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

/// Escapes a value as RFC 2253 §2.4 asks, and as OpenSSL does what isn't ASCII.
fn escaped(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.iter().enumerate() {
        let special = matches!(byte, b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';')
            || (at == 0 && matches!(byte, b'#' | b' '))
            || (at == last && *byte == b' ');
        let _ = match byte {
            _ if special => write!(text, "\\{}", *byte as char),
            b' '..=b'~' => write!(text, "{}", *byte as char),
            _ => write!(text, "\\{byte:02X}"),
        };
    }
    text
}

fn oneline(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    for (short, value) in parts(name).flatten() {
        let _ = write!(text, "/{short}=");
        for byte in value {
            let _ = match byte {
                b' '..=b'~' => write!(text, "{}", byte as char),
                _ => write!(text, "\\x{byte:02X}"),
            };
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{DnType, DnValue};

    use super::*;

    #[test]
    fn it_is_shown_as_openssl_does() {
        let mut params = rcgen::CertificateParams::default();
        params.serial_number = Some(rcgen::SerialNumber::from(vec![0x0a, 0xbc]));
        params.not_before = rcgen::date_time_ymd(2026, 1, 2);
        params.not_after = rcgen::date_time_ymd(2036, 11, 12);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "a, b");
        params.distinguished_name.push(DnType::CommonName, DnValue::Utf8String("ä +".into()));
        let key = rcgen::KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let certificate = Certificate::read(&der).unwrap();
        assert_eq!(certificate.subject(), r"CN=\C3\A4 \+,O=a\, b");
        assert_eq!(certificate.issuer_legacy(), r"/O=a, b/CN=\xC3\xA4 +");
        assert_eq!(certificate.serial(), "0ABC");
        assert_eq!(certificate.valid_from_text(), "Jan  2 00:00:00 2026 GMT");
        assert_eq!(certificate.valid_until_text(), "Nov 12 00:00:00 2036 GMT");
        assert_eq!(certificate.valid_until(), 2_110_060_800);
        assert_eq!(certificate.fingerprint().len(), 40);
        assert!(Certificate::read(&[&der[..], &[0]].concat()).is_err());
    }
}
