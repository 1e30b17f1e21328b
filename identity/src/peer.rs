// SPDX-License-Identifier: Apache-2.0
//! What a certificate of a node says, once its signature has been verified.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest;
use rustls_pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::{FromDer as _, ParsedExtension},
};

use crate::NodeName;

/// The SHA-256 of a public key, as certificates carry it (SubjectPublicKeyInfo).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHash(pub(crate) [u8; 32]);

/// The node of a certificate, its key, and how long it may speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The node.
    pub node: NodeName,
    /// Its public key.
    pub key: KeyHash,
    /// When the certificate stops being good.
    pub expires: SystemTime,
    pub(crate) public_key: Vec<u8>,
}

/// A certificate is not one of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate is not one of a node")]
pub struct NotANode;

impl KeyHash {
    pub(crate) fn of(public_key: &[u8]) -> KeyHash {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, public_key).as_ref());
        KeyHash(hash)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Peer {
    /// Reads a certificate. Whether it is to be believed is decided before, by the TLS handshake.
    ///
    /// # Errors
    /// When it does not name exactly one node (SPIFFE X509-SVID: one URI SAN and no other).
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Peer, NotANode> {
        let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|_malformed| NotANode)?;
        let names: Vec<&GeneralName<'_>> = parsed
            .extensions()
            .iter()
            .filter_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
                _ => None,
            })
            .flatten()
            .collect();
        let [GeneralName::URI(id)] = *names.as_slice() else { return Err(NotANode) };
        let node = NodeName::from_spiffe_id(id).filter(|_| rest.is_empty()).ok_or(NotANode)?;
        let expires =
            u64::try_from(parsed.validity().not_after.timestamp()).map_err(|_before_1970| NotANode)?;
        let public_key = parsed.public_key().raw.to_vec();
        let expires = UNIX_EPOCH + Duration::from_secs(expires);
        Ok(Peer { node, key: KeyHash::of(&public_key), expires, public_key })
    }
}
