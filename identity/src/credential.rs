// SPDX-License-Identifier: Apache-2.0
//! A node's own key and certificate, in one file of its state directory.
//!
//! The key is on disk before anybody hears of it, so that a node whose answer was lost asks again with
//! the same key, to which its name is bound by then.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};

use crate::{
    JoinToken, NodeName,
    peer::{KeyHash, Peer},
    secret::{self, FileError},
};

/// Why a node has no credential.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not what the node wrote.
    #[error("{} is damaged: remove it, and run `weft-controller forget-node {node}`, so that the node can join again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The node that it was for.
        node: NodeName,
    },
    /// The controller's answer is no certificate for this node and key.
    #[error("the controller's certificate is not for this node")]
    NotOurs,
    /// A key cannot be made.
    #[error("cannot make a key")]
    Key(#[from] rcgen::Error),
}

/// A node's own key, and its certificate once it has one. `Debug` shows no key.
pub struct Credential {
    node: NodeName,
    token: JoinToken,
    path: PathBuf,
    key: KeyPair,
    issued: Option<Issued>,
}

struct Issued {
    chain: Vec<CertificateDer<'static>>,
    expires: SystemTime,
}

impl Credential {
    /// Reads the credential of this file, or makes a key and writes it. A certificate of another name or
    /// of another controller than the token's counts as none.
    ///
    /// # Errors
    /// When the file cannot be read or written, is damaged, or others can read it.
    pub fn open(path: &Path, node: NodeName, token: JoinToken) -> Result<Credential, CredentialError> {
        let damaged = || CredentialError::Damaged { path: path.to_owned(), node: node.clone() };
        let (key, chain) = match secret::read(path)? {
            Some(pem) => parse(&pem).ok_or_else(damaged)?,
            None => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                secret::write(path, &key.serialize_pem())?;
                (key, Vec::new())
            }
        };
        let mut credential = Credential { node, token, path: path.to_owned(), key, issued: None };
        credential.issued = credential.check(chain);
        Ok(credential)
    }

    /// The node.
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// The token that the node joins with, and by which it knows its controller.
    pub fn token(&self) -> &JoinToken {
        &self.token
    }

    /// A request for a certificate, signed by the key. It names nobody: the controller decides who asks.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn request(&self) -> Result<Vec<u8>, CredentialError> {
        Ok(CertificateParams::default().serialize_request(&self.key)?.der().to_vec())
    }

    /// Takes the controller's answer, and writes it.
    ///
    /// # Errors
    /// When it is not for this node and key, or cannot be written.
    pub fn accept(&mut self, chain: Vec<CertificateDer<'static>>) -> Result<(), CredentialError> {
        let issued = self.check(chain).ok_or(CredentialError::NotOurs)?;
        let chain: String = issued.chain.iter().map(pem).collect();
        secret::write(&self.path, &(self.key.serialize_pem() + &chain))?;
        self.issued = Some(issued);
        Ok(())
    }

    /// The controller does not take the certificate: the node has to join again.
    pub fn forget(&mut self) {
        self.issued = None;
    }

    /// How long the certificate is good for; nothing where the node has to join first.
    pub fn left(&self, now: SystemTime) -> Option<Duration> {
        self.issued.as_ref()?.expires.duration_since(now).ok()
    }

    /// The certificate, then that of the controller's CA, and the key.
    pub(crate) fn identity(&self) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let chain = self.issued.as_ref()?.chain.clone();
        Some((chain, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))))
    }

    fn check(&self, chain: Vec<CertificateDer<'static>>) -> Option<Issued> {
        let [certificate, authority] = chain.as_slice() else { return None };
        let peer = Peer::read(certificate).ok()?;
        let own = KeyHash::of(&rcgen::PublicKeyData::subject_public_key_info(&self.key));
        let ours = peer.node == self.node && peer.key == own && self.token.is_for(authority);
        ours.then_some(Issued { expires: peer.expires, chain })
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expires = self.issued.as_ref().map(|issued| issued.expires);
        f.debug_struct("Credential")
            .field("node", &self.node)
            .field("expires", &expires)
            .finish_non_exhaustive()
    }
}

/// A certificate as text (RFC 7468).
fn pem(certificate: &CertificateDer<'static>) -> String {
    let base64 = STANDARD.encode(certificate);
    let lines = base64.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
    format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
}

fn parse(pem: &str) -> Option<(KeyPair, Vec<CertificateDer<'static>>)> {
    let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).ok()?;
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256).ok()?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    Some((key, chain.ok()?))
}
