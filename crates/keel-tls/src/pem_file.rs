//! Files with certificates and keys (RFC 7468), as OpenSSL writes them.

use keel_model::{Der, Secret};
use pem::Pem;
use pkcs8::EncryptedPrivateKeyInfoRef;

/// A file holds no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCertificates {
    /// It isn't PEM, or is broken.
    #[error("it can't be read as PEM")]
    Broken,
    /// It holds something else.
    #[error("no certificate is in it")]
    None,
}

/// A private key can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It isn't PEM, or is broken.
    #[error("it can't be read as PEM")]
    Broken,
    /// It holds something else.
    #[error("no private key is in it")]
    None,
    /// It is encrypted, and there is no password.
    #[error("it is encrypted, and no password is given")]
    Encrypted,
    /// It is encrypted, and no password fits.
    #[error("it is encrypted, and no password fits")]
    WrongPassword,
    /// It is encrypted in a way that is too weak.
    #[error("it is encrypted in the old way of OpenSSL, which hardly protects it")]
    OldEncryption,
}

/// Gives all certificates of a file, in its order.
///
/// # Errors
/// When there is none, or what is there is broken.
pub fn read_certificates(text: &[u8]) -> Result<Vec<Der>, NoCertificates> {
    let sections = pem::parse_many(text).map_err(|_| NoCertificates::Broken)?;
    let certificates = sections.into_iter().filter_map(|section| match section.tag() {
        "CERTIFICATE" | "X509 CERTIFICATE" => Some(Der(section.into_contents())),
        // Behind the certificate stands what OpenSSL is to trust it for.
        "TRUSTED CERTIFICATE" => first_element(section.contents()).map(|der| Der(der.to_vec())),
        _ => None,
    });
    let certificates: Vec<Der> = certificates.collect();
    if certificates.is_empty() { Err(NoCertificates::None) } else { Ok(certificates) }
}

/// Gives all lists of revoked certificates of a file.
///
/// # Errors
/// When there is none, or what is there is broken.
pub fn read_lists(text: &[u8]) -> Result<Vec<Der>, NoCertificates> {
    let sections = pem::parse_many(text).map_err(|_| NoCertificates::Broken)?;
    let lists = sections.into_iter().filter(|section| section.tag() == "X509 CRL");
    let lists: Vec<Der> = lists.map(|section| Der(section.into_contents())).collect();
    if lists.is_empty() { Err(NoCertificates::None) } else { Ok(lists) }
}

/// Gives the private key of a file, decrypted with one of the passwords if need be.
///
/// # Errors
/// When there is none, or it can't be read.
pub fn read_key(text: &[u8], passwords: &[Secret]) -> Result<Secret, KeyError> {
    let sections = pem::parse_many(text).map_err(|_| KeyError::Broken)?;
    for section in sections {
        match section.tag() {
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => return plain_key(section),
            "ENCRYPTED PRIVATE KEY" => return decrypted(section.contents(), passwords),
            _ => {}
        }
    }
    Err(KeyError::None)
}

fn plain_key(section: Pem) -> Result<Secret, KeyError> {
    if section.headers().get("DEK-Info").is_some() {
        return Err(KeyError::OldEncryption);
    }
    Ok(Secret::new(section.into_contents()))
}

fn decrypted(der: &[u8], passwords: &[Secret]) -> Result<Secret, KeyError> {
    let info = EncryptedPrivateKeyInfoRef::try_from(der).map_err(|_| KeyError::Broken)?;
    if passwords.is_empty() {
        return Err(KeyError::Encrypted);
    }
    let fits = |password: &Secret| info.decrypt(password.reveal()).ok();
    let key = passwords.iter().find_map(fits).ok_or(KeyError::WrongPassword)?;
    Ok(Secret::new(key.as_bytes().to_vec()))
}

/// Gives the first structure in DER, without what stands behind it.
fn first_element(der: &[u8]) -> Option<&[u8]> {
    let (rest, _) = x509_parser::parse_x509_certificate(der).ok()?;
    der.get(..der.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_found_among_others() {
        let of = |tag: &str, der: &[u8]| pem::encode(&Pem::new(tag, der));
        let text = format!(
            "words\n{}{}{}",
            of("CERTIFICATE", b"a"),
            of("PRIVATE KEY", b"k"),
            of("CERTIFICATE", b"b")
        );
        let certificates = read_certificates(text.as_bytes()).unwrap();
        assert_eq!(certificates, [Der(b"a".to_vec()), Der(b"b".to_vec())]);
        assert_eq!(read_key(text.as_bytes(), &[]).unwrap().reveal(), b"k");
        assert_eq!(read_certificates(b""), Err(NoCertificates::None));
        assert_eq!(read_certificates(b"-----BEGIN CERTIFICATE-----\n"), Err(NoCertificates::None));
        assert_eq!(read_key(of("CERTIFICATE", b"a").as_bytes(), &[]), Err(KeyError::None));
    }

    #[test]
    fn what_is_encrypted_in_the_old_way_is_named() {
        let text = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n\
                    -----END RSA PRIVATE KEY-----\n";
        assert_eq!(read_key(text.as_bytes(), &[]), Err(KeyError::OldEncryption));
    }
}
