//! A certificate together with its private key.

use std::sync::Arc;

use keel_model::CertifiedPair;
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};

use crate::certificate::{Certificate, Unreadable};

/// A certificate and a key don't make a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// The certificate can't be read.
    #[error(transparent)]
    Certificate(#[from] Unreadable),
    /// The key is of a kind that isn't there, or broken.
    #[error("the key is of a kind that can't be used")]
    Key,
    /// The key is of another certificate.
    #[error("the key is not the certificate's")]
    Mismatch,
}

/// Makes a pair ready to sign with.
///
/// # Errors
/// When they don't belong together, or one can't be read.
pub fn certified_key(pair: &CertifiedPair) -> Result<Arc<CertifiedKey>, PairError> {
    let first = pair.chain.first().ok_or(Unreadable)?;
    let public_key = Certificate::read(&first.0)?.public_key().to_vec();
    let key = PrivateKeyDer::try_from(pair.key.reveal().to_vec()).map_err(|_| PairError::Key)?;
    let key = any_supported_type(&key).map_err(|_| PairError::Key)?;
    // A key that can't tell its public half is taken at its word, as rustls does.
    if key.public_key().is_some_and(|own| own.as_ref() != public_key) {
        return Err(PairError::Mismatch);
    }
    let chain = pair.chain.iter().map(|der| CertificateDer::from(der.0.clone())).collect();
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}

#[cfg(test)]
mod tests {
    use keel_model::{Der, Secret};

    use super::*;

    fn pair(algorithm: &'static rcgen::SignatureAlgorithm) -> CertifiedPair {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["h".to_owned()]).unwrap().self_signed(&key).unwrap();
        CertifiedPair { chain: vec![Der(certificate.der().to_vec())], key: Secret::new(key.serialize_der()) }
    }

    #[test]
    fn a_key_of_another_certificate_is_none() {
        let ecdsa = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        let (rsa, other) = (pair(&rcgen::PKCS_RSA_SHA256), pair(&rcgen::PKCS_ECDSA_P256_SHA256));
        let check = |chain: &CertifiedPair, key: &CertifiedPair, expect| {
            let mixed = CertifiedPair { chain: chain.chain.clone(), key: key.key.clone() };
            assert_eq!(certified_key(&mixed).map(drop), expect);
        };
        check(&ecdsa, &ecdsa, Ok(()));
        check(&rsa, &rsa, Ok(()));
        check(&ecdsa, &other, Err(PairError::Mismatch));
        check(&ecdsa, &rsa, Err(PairError::Mismatch));
        let broken = CertifiedPair { chain: vec![Der(vec![0])], key: ecdsa.key.clone() };
        check(&broken, &ecdsa, Err(PairError::Certificate(Unreadable)));
        let broken = CertifiedPair { chain: ecdsa.chain.clone(), key: Secret::new(vec![1, 2]) };
        check(&ecdsa, &broken, Err(PairError::Key));
    }
}
