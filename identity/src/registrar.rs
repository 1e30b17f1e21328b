// SPDX-License-Identifier: Apache-2.0
//! Who is which node: the join token is exchanged for a certificate, and a name belongs to one key.
//!
//! The controller keeps one file for each name in `nodes/` of its state directory: the hash of the key
//! that the name is bound to, and until when. A name is free again when its certificate has expired, or
//! when an operator says so ([`Registrar::forget`]). Of a request nothing is believed but the public key,
//! whose owner has signed it.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{CertificateSigningRequestParams, PKCS_ECDSA_P256_SHA256, PublicKeyData, SubjectPublicKeyInfo};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};

use crate::{
    JoinToken, NodeName,
    authority::{Authority, AuthorityError},
    bindings::{Binding, Bindings, Bound, Changing},
    peer::{KeyHash, Peer},
    secret::FileError,
};

/// The names of nodes, in the controller's state directory.
const NODES: &str = "nodes";

/// A node's certificate is good for this long, and renewed at half of it: as with Istio's workloads, a
/// stolen one is worthless the next day, and a controller may be away for half a day before nodes with
/// a certificate are refused.
pub const NODE_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Names that are bound at once: twice the 5,000 nodes that Kubernetes supports in a cluster.
const MAX_NAMES: usize = 10_000;

/// Names that one address may have of them: a whole cluster may be behind one (NAT), and half of the
/// places are left to others.
const MAX_NAMES_OF_ADDRESS: usize = MAX_NAMES / 2;

/// The largest request for a certificate, in bytes. One with a P-256 key and no extensions has 200.
pub const MAX_REQUEST_BYTES: usize = 4096;

/// Issues certificates to nodes, and remembers which key has which name.
pub struct Registrar {
    authority: Arc<Authority>,
    lifetime: Duration,
    bindings: Bindings,
}

/// Why the registrar cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RegistrarError {
    /// There is no authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The bindings cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Why a node is given no certificate, or may not speak. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Another key has the name.
    #[error(
        "node {node} is bound to another key for {} more: use that node's state directory, wait, or run \
         `weft-controller forget-node {node}`", minutes(.left)
    )]
    Bound {
        /// The name.
        node: NodeName,
        /// How long the binding holds if nobody renews it.
        left: Duration,
    },
    /// Nobody can tell which key has the name.
    #[error(
        "the controller cannot read to which key node {0} is bound: restore `nodes/{0}` of its state directory, or \
         run `weft-controller forget-node {0}`"
    )]
    Unreadable(NodeName),
    /// The name is bound to no key.
    #[error("node {0} has to join again: its certificate was forgotten or has expired")]
    Unknown(NodeName),
    /// No more names.
    #[error(
        "{MAX_NAMES} nodes are bound: run `weft-controller forget-node NAME` for some, or wait until they expire"
    )]
    Full,
    /// No more names for one address.
    #[error(
        "{MAX_NAMES_OF_ADDRESS} nodes are bound that joined from the same address: forget some, or wait until they expire"
    )]
    FullForAddress,
    /// The request cannot be read, or not signed by the key that it names.
    #[error("the request for a certificate is not one with a P-256 key that has signed it")]
    Request,
    /// The binding cannot be written.
    #[error("the controller cannot write the name of the node to its disk, as its log and status say")]
    File(#[from] FileError),
    /// The certificate cannot be made.
    #[error("the controller cannot make the certificate")]
    Certificate(#[from] rcgen::Error),
}

fn minutes(left: &Duration) -> String {
    format!("{} min", left.as_secs().div_ceil(60))
}

impl Registrar {
    /// Opens the authority of this directory and the bindings in it. Certificates of nodes are good for
    /// `lifetime`.
    ///
    /// # Errors
    /// When something cannot be read or written, or is damaged.
    pub fn open(directory: &Path, lifetime: Duration) -> Result<Registrar, RegistrarError> {
        let authority = Arc::new(Authority::open(directory)?);
        let bindings = Bindings::open(directory.join(NODES))?;
        Ok(Registrar { authority, lifetime, bindings })
    }

    /// Makes a name free, whoever has it; false when nobody had. Works beside a running controller, which
    /// notices at its next [`Registrar::sweep`].
    ///
    /// # Errors
    /// When a file cannot be written or removed.
    pub fn forget(directory: &Path, node: &NodeName) -> Result<bool, FileError> {
        Bindings::forget(&directory.join(NODES), node)
    }

    /// What somebody should look into, one line each.
    pub fn problems(&self) -> Vec<String> {
        let unreadable = self.bindings.unreadable().into_iter().map(|(node, path, why)| {
            let path = path.display();
            format!(
                "nobody can be node {node}, since {path} cannot be read ({why}): restore it, or run `weft-controller \
                 forget-node {node}`"
            )
        });
        let trouble = self.bindings.why_not().map(|why| {
            format!("nodes get no certificate, and lose their streams when the present one ends: {why}")
        });
        let exposed = self.authority.exposed().iter().map(ToString::to_string);
        trouble.into_iter().chain(exposed).chain(unreadable).collect()
    }

    /// How many names nobody can have, since their files cannot be read.
    pub fn unreadable(&self) -> usize {
        self.bindings.unreadable().len()
    }

    /// How many names were written again since the start, because somebody had removed their files.
    pub fn rewritten(&self) -> u64 {
        self.bindings.rewritten()
    }

    /// What nodes must bring to join.
    pub fn token(&self) -> &JoinToken {
        self.authority.token()
    }

    /// Whose certificates these are.
    pub(crate) fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Gives the name to the key of the request, for whoever has shown the join token. The answer is the
    /// certificate and that of the authority.
    ///
    /// # Errors
    /// When another key has the name, there are too many names, or the request is none.
    pub fn join(
        &self,
        node: &NodeName,
        request: &[u8],
        from: IpAddr,
        now: SystemTime,
    ) -> Result<Vec<CertificateDer<'static>>, Refusal> {
        self.give(node, request, from, now, false)
    }

    /// Gives the name to the key of the request, whoever had it: somebody who knows has said that the node asks.
    /// The answer is the certificate and that of the authority.
    ///
    /// # Errors
    /// When there are too many names, or the request is none.
    pub fn join_proven(
        &self,
        node: &NodeName,
        request: &[u8],
        from: IpAddr,
        now: SystemTime,
    ) -> Result<Vec<CertificateDer<'static>>, Refusal> {
        self.give(node, request, from, now, true)
    }

    fn give(
        &self,
        node: &NodeName,
        request: &[u8],
        from: IpAddr,
        now: SystemTime,
        proven: bool,
    ) -> Result<Vec<CertificateDer<'static>>, Refusal> {
        let key = requested_key(request).ok_or(Refusal::Request)?;
        let (key_hash, changing) = (KeyHash::of(&key.subject_public_key_info()), self.bindings.changing()?);
        let from = match self.bindings.kept(node, now, &changing) {
            Some(Bound::To(binding)) if proven || binding.key == key_hash => binding.from,
            Some(bound) if !proven => return Err(refusal(bound, node, now)),
            _ => self.room_for(network(from), now, &changing)?,
        };
        self.issue(node, &key, Binding { key: key_hash, expires: now + self.lifetime, from }, now, &changing)
    }

    /// A new certificate for the key of a node that has shown a good one.
    ///
    /// # Errors
    /// When the name is bound to that key no longer.
    pub fn renew(&self, peer: &Peer, now: SystemTime) -> Result<Vec<CertificateDer<'static>>, Refusal> {
        let changing = self.bindings.changing()?;
        let binding = check(peer, self.bindings.kept(&peer.node, now, &changing), now)?;
        let key = SubjectPublicKeyInfo::from_der(&peer.public_key)?;
        self.issue(&peer.node, &key, Binding { expires: now + self.lifetime, ..binding }, now, &changing)
    }

    /// Whether a node with this certificate may speak for its name. Asks no disk.
    ///
    /// # Errors
    /// When the name is bound to another key, or to none.
    pub fn admits(&self, peer: &Peer, now: SystemTime) -> Result<(), Refusal> {
        check(peer, self.bindings.of(&peer.node, now), now).map(drop)
    }

    /// Drops the names whose certificate has expired and those that were forgotten, and writes those again
    /// whose files somebody has removed. Returns how many names are free now.
    ///
    /// # Errors
    /// When the directory cannot be read, or a file not be written or removed.
    pub fn sweep(&self, now: SystemTime) -> Result<usize, FileError> {
        self.bindings.sweep(now, &self.bindings.changing()?)
    }

    /// Whether this network may have one more name.
    fn room_for(&self, from: IpAddr, now: SystemTime, changing: &Changing<'_>) -> Result<IpAddr, Refusal> {
        if self.bindings.len() >= MAX_NAMES && self.bindings.sweep(now, changing)? == 0 {
            return Err(Refusal::Full);
        }
        let is_full = self.bindings.of_network(from, now) >= MAX_NAMES_OF_ADDRESS;
        if is_full { Err(Refusal::FullForAddress) } else { Ok(from) }
    }

    fn issue(
        &self,
        node: &NodeName,
        key: &impl PublicKeyData,
        binding: Binding,
        now: SystemTime,
        changing: &Changing<'_>,
    ) -> Result<Vec<CertificateDer<'static>>, Refusal> {
        let certificate = self.authority.issue_node(node, key, now, binding.expires)?;
        self.bindings.bind(node, binding, changing)?;
        Ok(vec![certificate, self.authority.certificate().clone()])
    }
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registrar").field("bindings", &self.bindings).finish_non_exhaustive()
    }
}

/// Whether the name of a certificate is bound to its key.
fn check(peer: &Peer, bound: Option<Bound>, now: SystemTime) -> Result<Binding, Refusal> {
    match bound {
        Some(Bound::To(binding)) if binding.key == peer.key => Ok(binding),
        Some(bound) => Err(refusal(bound, &peer.node, now)),
        None => Err(Refusal::Unknown(peer.node.clone())),
    }
}

/// The name is not free.
fn refusal(bound: Bound, node: &NodeName, now: SystemTime) -> Refusal {
    let node = node.clone();
    match bound {
        Bound::To(binding) => {
            Refusal::Bound { node, left: binding.expires.duration_since(now).unwrap_or_default() }
        }
        Bound::Unreadable(_) => Refusal::Unreadable(node),
    }
}

/// Who counts as one: an IPv4 address, or the 64 bits that one host has all addresses of (RFC 4291 §2.5.4).
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

/// The public key of a request that its owner has signed; the rest of the request is ignored.
fn requested_key(request: &[u8]) -> Option<impl PublicKeyData + use<>> {
    if request.len() > MAX_REQUEST_BYTES {
        return None;
    }
    let request =
        CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request)).ok()?;
    let key = request.public_key;
    // An uncompressed point; other curves sign with the same algorithm.
    let is_p256 = key.algorithm() == &PKCS_ECDSA_P256_SHA256 && key.der_bytes().len() == 65;
    is_p256.then_some(key)
}

#[cfg(test)]
mod tests;
