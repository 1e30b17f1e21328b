// SPDX-License-Identifier: Apache-2.0
//! A node's own key and certificate, in one file of its state directory.
//!
//! The key is on disk before anybody hears of it, so that a node whose answer was lost asks again with
//! the same key, to which its name is bound by then.

use std::{
    fmt, fs,
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
    /// The file is another node's.
    #[error(
        "{} is the credential of node {found}, and this is node {node}: give each node a state directory of its own; \
         if this one was renamed or its disk copied, empty the directory, and it joins as {node}", path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The node that it is for.
        found: NodeName,
        /// This node.
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
    notes: Vec<String>,
}

struct Issued {
    chain: Vec<CertificateDer<'static>>,
    expires: SystemTime,
}

impl Credential {
    /// Reads the credential of this file, or makes a key and writes it. A certificate that is damaged or of
    /// another controller than the token's counts as none, and the node joins again with its key; a key
    /// that is damaged is set aside, and another one made. [`Credential::notes`] says so.
    ///
    /// # Errors
    /// When the file cannot be read or written, or is another node's.
    pub fn open(path: &Path, node: NodeName, token: JoinToken) -> Result<Credential, CredentialError> {
        let mut notes = Vec::new();
        let (key, chain) = match secret::read(path)? {
            Some(pem) => {
                notes.extend(pem.exposed.map(|exposed| exposed.to_string()));
                let chain = certificates(&pem.bytes);
                if let Some(found) = chain.iter().flatten().find_map(|one| named(one, &node)) {
                    return Err(CredentialError::Foreign { path: path.to_owned(), found, node });
                }
                match parse_key(&pem.bytes) {
                    Some(key) => {
                        let damaged = chain.is_none().then(|| certificate_is_damaged(path));
                        notes.extend(damaged);
                        (key, chain.unwrap_or_default())
                    }
                    None => {
                        notes.push(replace(path, &node)?);
                        (make_key(path)?, Vec::new())
                    }
                }
            }
            None => (make_key(path)?, Vec::new()),
        };
        let mut credential = Credential { node, token, path: path.to_owned(), key, issued: None, notes };
        credential.issued = credential.check(chain);
        Ok(credential)
    }

    /// What was wrong with the file, one line each with what to do.
    pub fn notes(&self) -> &[String] {
        &self.notes
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

    /// Takes the controller's answer, from which on it holds; [`Credential::keep`] writes it.
    ///
    /// # Errors
    /// When it is not for this node and key.
    pub fn accept(&mut self, chain: Vec<CertificateDer<'static>>) -> Result<(), CredentialError> {
        self.issued = Some(self.check(chain).ok_or(CredentialError::NotOurs)?);
        Ok(())
    }

    /// Writes the file, where it is not as it should be: it is older, or somebody has removed it.
    ///
    /// # Errors
    /// When it cannot be written. The node goes on with what it has in memory.
    pub fn keep(&mut self) -> Result<(), FileError> {
        let chain = self.issued.iter().flat_map(|issued| &issued.chain).map(pem);
        let text = self.key.serialize_pem() + &chain.collect::<String>();
        if fs::read(&self.path).is_ok_and(|found| found == text.as_bytes()) {
            return Ok(());
        }
        self.path.parent().map_or(Ok(()), secret::create_directory)?;
        secret::write(&self.path, &text)?;
        // The file is as it should be now.
        self.notes.clear();
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

/// The certificates of a file; nothing where one is damaged. A file without any has none.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    // Of a file that was cut off, as much as is whole counts as none; so does one that is no certificate.
    let is_whole = chain.first().is_none_or(|own| chain.len() == 2 && Peer::read(own).is_ok());
    is_whole.then_some(chain)
}

/// The node of a certificate, where that is another one.
fn named(certificate: &CertificateDer<'_>, node: &NodeName) -> Option<NodeName> {
    Peer::read(certificate).ok().map(|peer| peer.node).filter(|found| found != node)
}

fn parse_key(pem: &[u8]) -> Option<KeyPair> {
    let key = PrivatePkcs8KeyDer::from_pem_slice(pem).ok()?;
    KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256).ok()
}

fn make_key(path: &Path) -> Result<KeyPair, CredentialError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    secret::write(path, &key.serialize_pem())?;
    Ok(key)
}

fn certificate_is_damaged(path: &Path) -> String {
    format!("the certificate in {} was damaged: the node joins again with its key", path.display())
}

/// Moves a file away whose key is damaged, and says what that means.
fn replace(path: &Path, node: &NodeName) -> Result<String, FileError> {
    let aside = path.with_extension("damaged");
    fs::rename(path, &aside).map_err(FileError::io("move", path))?;
    let (path, aside) = (path.display(), aside.display());
    Ok(format!(
        "the key in {path} was damaged, is now in {aside}, and has another in its place: run `weft-controller \
         forget-node {node}`, so that the node can join with it"
    ))
}
