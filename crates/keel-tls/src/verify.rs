//! Verifying a certificate against roots that are trusted (RFC 5280 §6), with OpenSSL's words for what is wrong.
//!
//! Private authorities are often made with a few calls of `openssl`: their certificates are of version 1, have a name only
//! in the subject, or are authorities and ends at once. webpki refuses all of those. The path is looked for here,
//! from the end up to a root that signed itself; signatures are rustls's matter. What isn't understood is refused:
//! critical extensions that are unknown, and constraints on names.

use rustls::{
    SignatureScheme,
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs},
    pki_types::SignatureVerificationAlgorithm,
};
use x509_parser::{
    asn1_rs::FromDer,
    extensions::ParsedExtension,
    prelude::{CertificateRevocationList, X509Certificate, X509Version},
};

use keel_model::Der;

/// Certificates in a path at most, whatever the configuration says.
const PATH_MAX: usize = 16;

/// Who is trusted, and how far.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Roots, and certificates that lead to them.
    pub certificates: Vec<Der>,
    /// Lists of revoked certificates. With any, each certificate of a path needs one.
    pub revoked: Vec<Der>,
    /// Certificates between an end and its root at most.
    pub depth: u32,
}

/// What a certificate is shown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A client shows it.
    Client,
    /// A server shows it.
    Server,
}

/// Why a certificate isn't to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each has OpenSSL's text")]
pub enum Untrusted {
    NoIssuer,
    NoRevocationList,
    BadSignature,
    NotYetValid,
    Expired,
    RevocationListExpired,
    SelfSigned,
    SelfSignedInChain,
    NoLocalIssuer,
    NoFirstIssuer,
    TooLong,
    Revoked,
    InvalidAuthority,
    PathTooLong,
    WrongPurpose,
    UnhandledExtension,
    Unreadable,
}

impl Untrusted {
    /// OpenSSL's number and text.
    pub fn words(self) -> (u16, &'static str) {
        match self {
            Self::NoIssuer => (2, "unable to get issuer certificate"),
            Self::NoRevocationList => (3, "unable to get certificate CRL"),
            Self::BadSignature => (7, "certificate signature failure"),
            Self::NotYetValid => (9, "certificate is not yet valid"),
            Self::Expired => (10, "certificate has expired"),
            Self::RevocationListExpired => (12, "CRL has expired"),
            Self::SelfSigned => (18, "self-signed certificate"),
            Self::SelfSignedInChain => (19, "self-signed certificate in certificate chain"),
            Self::NoLocalIssuer => (20, "unable to get local issuer certificate"),
            Self::NoFirstIssuer => (21, "unable to verify the first certificate"),
            Self::TooLong => (22, "certificate chain too long"),
            Self::Revoked => (23, "certificate revoked"),
            Self::PathTooLong => (25, "path length constraint exceeded"),
            Self::WrongPurpose => (26, "unsuitable certificate purpose"),
            Self::UnhandledExtension => (34, "unhandled critical extension"),
            Self::InvalidAuthority => (79, "invalid CA certificate"),
            Self::Unreadable => (1, "unspecified certificate verification error"),
        }
    }

    /// Whether only the root isn't known, which `ssl_verify_client optional_no_ca` lets pass.
    pub fn is_of_root(self) -> bool {
        matches!(self, Self::SelfSigned | Self::SelfSignedInChain | Self::NoLocalIssuer | Self::NoFirstIssuer)
    }
}

/// Verifies a certificate with those that came with it, at a time in seconds since 1970.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(chain: &[&[u8]], trust: &Trust, purpose: Purpose, now: i64) -> Result<(), Untrusted> {
    let trusted: Vec<Parsed<'_>> =
        trust.certificates.iter().filter_map(|der| Parsed::read(&der.0).ok()).collect();
    let mut given = chain.iter();
    let end = Parsed::read(given.next().ok_or(Untrusted::Unreadable)?)?;
    let given: Vec<Parsed<'_>> = given.filter_map(|der| Parsed::read(der).ok()).collect();
    let path = path(&end, &given, &trusted, trust.depth)?;
    end.check_purpose(purpose)?;
    let mut below = 0;
    let mut revocation = Ok(());
    for (at, certificate) in path.iter().enumerate() {
        certificate.check_time(now)?;
        certificate.check_extensions()?;
        if at > 0 {
            certificate.check_authority(below)?;
            if !certificate.is_self_issued() {
                below += 1;
            }
        }
        if !trust.revoked.is_empty() {
            let issuer = path.get(at + 1).unwrap_or(certificate);
            // What is wrong nearest to the root counts.
            revocation =
                check_revocation(certificate, issuer, &trust.revoked, now).err().map_or(revocation, Err);
        }
    }
    revocation
}

/// Finds the way from an end to a root that is trusted, each signed by the next.
fn path<'p, 'a>(
    end: &'p Parsed<'a>,
    given: &'p [Parsed<'a>],
    trusted: &'p [Parsed<'a>],
    depth: u32,
) -> Result<Vec<&'p Parsed<'a>>, Untrusted> {
    let mut path = vec![end];
    let length_max = (depth as usize).saturating_add(1).min(PATH_MAX);
    loop {
        let Some(last) = path.last().copied() else { return Err(Untrusted::Unreadable) };
        if last.is_self_issued() && last.is_signed_by(last) {
            return if trusted.iter().any(|root| root.der == last.der) {
                Ok(path)
            } else if path.len() == 1 {
                Err(Untrusted::SelfSigned)
            } else {
                Err(Untrusted::SelfSignedInChain)
            };
        }
        if path.len() > length_max {
            return Err(Untrusted::TooLong);
        }
        let is_issuer = |other: &&Parsed<'_>| {
            other.names_issuer_of(last) && !path.iter().any(|known| known.der == other.der)
        };
        let mut candidates = trusted.iter().chain(given).filter(is_issuer).peekable();
        if candidates.peek().is_none() {
            return Err(if path.len() == 1 { Untrusted::NoFirstIssuer } else { Untrusted::NoLocalIssuer });
        }
        let issuer = candidates.find(|issuer| last.is_signed_by(issuer)).ok_or(Untrusted::BadSignature)?;
        path.push(issuer);
    }
}

/// A certificate, read.
struct Parsed<'a> {
    der: &'a [u8],
    inner: X509Certificate<'a>,
}

impl<'a> Parsed<'a> {
    fn read(der: &'a [u8]) -> Result<Self, Untrusted> {
        match X509Certificate::from_der(der) {
            Ok(([], inner)) => Ok(Self { der, inner }),
            _ => Err(Untrusted::Unreadable),
        }
    }

    fn is_self_issued(&self) -> bool {
        self.inner.subject().as_raw() == self.inner.issuer().as_raw()
    }

    fn names_issuer_of(&self, other: &Parsed<'_>) -> bool {
        self.inner.subject().as_raw() == other.inner.issuer().as_raw()
    }

    fn is_signed_by(&self, issuer: &Parsed<'_>) -> bool {
        let signed = self.inner.tbs_certificate.as_ref();
        is_signed(self.der, signed, &self.inner.signature_value.data, issuer.inner.public_key().raw)
    }

    fn check_time(&self, now: i64) -> Result<(), Untrusted> {
        let validity = self.inner.validity();
        if validity.not_before.timestamp() > now {
            return Err(Untrusted::NotYetValid);
        }
        if validity.not_after.timestamp() < now {
            return Err(Untrusted::Expired);
        }
        Ok(())
    }

    fn check_extensions(&self) -> Result<(), Untrusted> {
        for extension in self.inner.extensions() {
            match extension.parsed_extension() {
                // Nothing here says which names are within them.
                ParsedExtension::NameConstraints(_) => return Err(Untrusted::UnhandledExtension),
                ParsedExtension::ParseError { .. } => return Err(Untrusted::Unreadable),
                ParsedExtension::KeyUsage(_)
                | ParsedExtension::ExtendedKeyUsage(_)
                | ParsedExtension::BasicConstraints(_)
                | ParsedExtension::SubjectAlternativeName(_)
                | ParsedExtension::CertificatePolicies(_) => {}
                _ if extension.critical => return Err(Untrusted::UnhandledExtension),
                _ => {}
            }
        }
        Ok(())
    }

    /// Checks that it may certify others, with so many authorities between it and the end.
    fn check_authority(&self, below: u32) -> Result<(), Untrusted> {
        let constraints = self.inner.basic_constraints().map_err(|_| Untrusted::Unreadable)?;
        match constraints {
            Some(constraints) if constraints.value.ca => {
                if constraints.value.path_len_constraint.is_some_and(|most| below > most) {
                    return Err(Untrusted::PathTooLong);
                }
            }
            // A root of version 1 can't say so.
            None if self.inner.version() == X509Version::V1 && self.is_self_issued() => {}
            _ => return Err(Untrusted::InvalidAuthority),
        }
        match self.inner.key_usage().map_err(|_| Untrusted::Unreadable)? {
            Some(usage) if !usage.value.key_cert_sign() => Err(Untrusted::InvalidAuthority),
            _ => Ok(()),
        }
    }

    fn check_purpose(&self, purpose: Purpose) -> Result<(), Untrusted> {
        if let Some(usage) = self.inner.extended_key_usage().map_err(|_| Untrusted::Unreadable)? {
            let fits = match purpose {
                Purpose::Client => usage.value.client_auth,
                Purpose::Server => usage.value.server_auth,
            };
            if !fits && !usage.value.any {
                return Err(Untrusted::WrongPurpose);
            }
        }
        if let Some(usage) = self.inner.key_usage().map_err(|_| Untrusted::Unreadable)? {
            let fits = usage.value.digital_signature()
                || usage.value.key_agreement()
                || (purpose == Purpose::Server && usage.value.key_encipherment());
            if !fits {
                return Err(Untrusted::WrongPurpose);
            }
        }
        Ok(())
    }
}

fn check_revocation(
    certificate: &Parsed<'_>,
    issuer: &Parsed<'_>,
    lists: &[Der],
    now: i64,
) -> Result<(), Untrusted> {
    let of_issuer = lists.iter().filter_map(|der| {
        let (_, list) = CertificateRevocationList::from_der(&der.0).ok()?;
        (list.issuer().as_raw() == issuer.inner.subject().as_raw()).then_some((der, list))
    });
    let mut found = Err(Untrusted::NoRevocationList);
    for (der, list) in of_issuer {
        let signed = list.tbs_cert_list.as_ref();
        if !is_signed(&der.0, signed, &list.signature_value.data, issuer.inner.public_key().raw) {
            return Err(Untrusted::BadSignature);
        }
        let serial = certificate.inner.raw_serial();
        if list.iter_revoked_certificates().any(|revoked| revoked.raw_serial() == serial) {
            return Err(Untrusted::Revoked);
        }
        let is_current = list.next_update().is_none_or(|next| next.timestamp() >= now);
        found = match found {
            Ok(()) => Ok(()),
            Err(_) if is_current => Ok(()),
            Err(_) => Err(Untrusted::RevocationListExpired),
        };
    }
    found
}

/// Whether a structure that is signed (a certificate, a list) is so by the owner of a key.
fn is_signed(der: &[u8], signed: &[u8], signature: &[u8], public_key: &[u8]) -> bool {
    let Some(algorithm) = signature_algorithm(der) else { return false };
    let Some((key_algorithm, key)) = split_key(public_key) else { return false };
    algorithms().all.iter().any(|known| {
        known.signature_alg_id().as_ref() == algorithm
            && known.public_key_alg_id().as_ref() == key_algorithm
            && known.verify_signature(key, signed, signature).is_ok()
    })
}

/// Whether the owner of a certificate has signed a message of a handshake.
pub fn has_signed(certificate: &[u8], scheme: SignatureScheme, message: &[u8], signature: &[u8]) -> bool {
    let Ok(parsed) = Parsed::read(certificate) else { return false };
    let Some((key_algorithm, key)) = split_key(parsed.inner.public_key().raw) else { return false };
    let fits = |known: &&dyn SignatureVerificationAlgorithm| {
        known.public_key_alg_id().as_ref() == key_algorithm
            && known.verify_signature(key, message, signature).is_ok()
    };
    let known = algorithms().mapping.iter().find(|(known, _)| *known == scheme);
    known.is_some_and(|(_, algorithms)| algorithms.iter().any(fits))
}

/// Schemes of signatures that can be verified.
pub fn signature_schemes() -> Vec<SignatureScheme> {
    algorithms().supported_schemes()
}

/// The inside of a certificate's subject, in DER.
pub fn raw_subject(der: &[u8]) -> Option<Vec<u8>> {
    let parsed = Parsed::read(der).ok()?;
    Some(element(parsed.inner.subject().as_raw())?.0.to_vec())
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    aws_lc_rs::default_provider().signature_verification_algorithms
}

/// Gives the inside of the algorithm that a structure says it is signed with: its second part.
fn signature_algorithm(der: &[u8]) -> Option<&[u8]> {
    let (whole, _) = element(der)?;
    let (_, rest) = element(whole)?;
    Some(element(rest)?.0)
}

/// Gives the inside of a key's algorithm, and the key.
fn split_key(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (whole, _) = element(der)?;
    let (algorithm, rest) = element(whole)?;
    let (bits, _) = element(rest)?;
    // A string of bits begins with how many of its last byte don't count.
    let (0, key) = bits.split_first().map(|(unused, key)| (*unused, key))? else { return None };
    Some((algorithm, key))
}

/// Gives the inside of the first element in DER, and what stands behind it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        length @ 0..=0x7f => (usize::from(*length), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
        ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
        SerialNumber,
    };

    use super::*;

    const NOW: i64 = 1_800_000_000;

    struct Made {
        der: Der,
        params: CertificateParams,
        key: KeyPair,
    }

    fn made(name: &str, issuer: Option<&Made>, adjust: impl FnOnce(&mut CertificateParams)) -> Made {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
        adjust(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = match issuer {
            Some(issuer) => {
                params.signed_by(&key, &Issuer::from_params(&issuer.params, &issuer.key)).unwrap()
            }
            None => params.self_signed(&key).unwrap(),
        };
        Made { der: Der(certificate.der().to_vec()), params, key }
    }

    fn authority(params: &mut CertificateParams) {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }

    fn check(chain: &[&Made], trusted: &[&Made], depth: u32) -> Result<(), Untrusted> {
        let certificates = trusted.iter().map(|made| made.der.clone()).collect();
        let trust = Trust { certificates, revoked: Vec::new(), depth };
        let chain: Vec<&[u8]> = chain.iter().map(|made| made.der.0.as_slice()).collect();
        verify(&chain, &trust, Purpose::Client, NOW)
    }

    #[test]
    fn paths_lead_to_roots_that_are_trusted() {
        let root = made("root", None, authority);
        let middle = made("middle", Some(&root), authority);
        let end = made("end", Some(&middle), |_| {});
        let direct = made("direct", Some(&root), |_| {});
        assert_eq!(check(&[&direct], &[&root], 0), Ok(()));
        assert_eq!(check(&[&end, &middle], &[&root], 1), Ok(()));
        assert_eq!(check(&[&end], &[&root, &middle], 1), Ok(()));
        assert_eq!(check(&[&root], &[&root], 0), Ok(()));
        assert_eq!(check(&[&end, &middle], &[&root], 0), Err(Untrusted::TooLong));
        assert_eq!(check(&[&end], &[&root], 1), Err(Untrusted::NoFirstIssuer));
        assert_eq!(check(&[&end, &middle], &[], 1), Err(Untrusted::NoLocalIssuer));
        // Only a root ends a path.
        assert_eq!(check(&[&end], &[&middle], 1), Err(Untrusted::NoLocalIssuer));
        assert_eq!(check(&[&root], &[], 1), Err(Untrusted::SelfSigned));
        assert_eq!(check(&[&direct, &root], &[], 1), Err(Untrusted::SelfSignedInChain));
        // Another root of the same name has not signed it.
        let other = made("root", None, authority);
        assert_eq!(check(&[&direct], &[&other], 1), Err(Untrusted::BadSignature));
        assert_eq!(check(&[&direct], &[&other, &root], 1), Ok(()));
    }

    #[test]
    fn what_a_certificate_says_of_itself_holds() {
        let root = made("root", None, authority);
        let none = made("none", Some(&root), |_| {});
        assert_eq!(
            check(&[&made("end", Some(&none), |_| {}), &none], &[&root], 5),
            Err(Untrusted::InvalidAuthority)
        );
        let of =
            |adjust: fn(&mut CertificateParams)| check(&[&made("end", Some(&root), adjust)], &[&root], 1);
        assert_eq!(of(|params| params.not_after = rcgen::date_time_ymd(2021, 1, 1)), Err(Untrusted::Expired));
        assert_eq!(
            of(|params| params.not_before = rcgen::date_time_ymd(2039, 1, 1)),
            Err(Untrusted::NotYetValid)
        );
        let server = |params: &mut CertificateParams| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        };
        assert_eq!(of(server), Err(Untrusted::WrongPurpose));
        assert_eq!(
            of(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]),
            Err(Untrusted::WrongPurpose)
        );
        let unknown = |params: &mut CertificateParams| {
            let mut extension = rcgen::CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0]);
            extension.set_criticality(true);
            params.custom_extensions = vec![extension];
        };
        assert_eq!(of(unknown), Err(Untrusted::UnhandledExtension));
        let short =
            made("short", Some(&root), |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
        let below = made("below", Some(&short), authority);
        let end = made("end", Some(&below), |_| {});
        assert_eq!(check(&[&made("one", Some(&short), |_| {}), &short], &[&root], 5), Ok(()));
        assert_eq!(check(&[&end, &below, &short], &[&root], 5), Err(Untrusted::PathTooLong));
    }

    #[test]
    fn revoked_ones_are_not_trusted() {
        let root = made("root", None, |params| {
            authority(params);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        });
        let one = made("one", Some(&root), |params| params.serial_number = Some(SerialNumber::from(7u64)));
        let two = made("two", Some(&root), |params| params.serial_number = Some(SerialNumber::from(8u64)));
        let list = |until: i32| {
            let revoked = RevokedCertParams {
                serial_number: SerialNumber::from(7u64),
                revocation_time: rcgen::date_time_ymd(2022, 1, 1),
                reason_code: None,
                invalidity_date: None,
            };
            let params = CertificateRevocationListParams {
                this_update: rcgen::date_time_ymd(2022, 1, 1),
                next_update: rcgen::date_time_ymd(until, 1, 1),
                crl_number: SerialNumber::from(1u64),
                issuing_distribution_point: None,
                revoked_certs: vec![revoked],
                key_identifier_method: KeyIdMethod::Sha256,
            };
            let list = params.signed_by(&Issuer::from_params(&root.params, &root.key)).unwrap();
            Der(list.der().to_vec())
        };
        let check = |made: &Made, lists: Vec<Der>, expect| {
            let trust = Trust { certificates: vec![root.der.clone()], revoked: lists, depth: 1 };
            assert_eq!(verify(&[&made.der.0], &trust, Purpose::Client, NOW), expect);
        };
        check(&one, vec![], Ok(()));
        check(&one, vec![list(2039)], Err(Untrusted::Revoked));
        check(&two, vec![list(2039)], Ok(()));
        check(&two, vec![list(2023)], Err(Untrusted::RevocationListExpired));
        check(&two, vec![Der(vec![0])], Err(Untrusted::NoRevocationList));
    }
}
