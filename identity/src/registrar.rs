// SPDX-License-Identifier: Apache-2.0
//! Who is which node: the join token is exchanged for a certificate, and a name belongs to one key.
//!
//! The controller keeps one file for each name in `nodes/` of its state directory: the hash of the key
//! that the name is bound to, and until when. A name is free again when its certificate has expired, or
//! when an operator removes the file ([`Registrar::forget`]). Of a request nothing is believed but the
//! public key, whose owner has signed it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, File},
    io,
    net::{IpAddr, Ipv6Addr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{CertificateSigningRequestParams, PKCS_ECDSA_P256_SHA256, PublicKeyData, SubjectPublicKeyInfo};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};

use crate::{
    JoinToken, NodeName,
    authority::{Authority, AuthorityError},
    peer::{KeyHash, Peer},
    secret::{self, FileError},
};

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
    directory: PathBuf,
    lifetime: Duration,
    /// Held by whoever changes a file, here or in another process.
    lock: Mutex<File>,
    bindings: RwLock<BTreeMap<NodeName, Binding>>,
}

/// A name belongs to this key until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Binding {
    key: KeyHash,
    expires: SystemTime,
    /// The network that the name was first asked for from.
    from: IpAddr,
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
    /// A file of a binding is not what the controller wrote.
    #[error("{} is damaged: remove it, and the node joins again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
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
    #[error("the controller cannot keep the binding")]
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
        let directory = directory.join("nodes");
        secret::create_directory(&directory)?;
        let lock = Mutex::new(lock_file(&directory)?);
        let registrar = Registrar { authority, directory, lifetime, lock, bindings: RwLock::default() };
        let mut bindings = BTreeMap::new();
        for name in registrar.names()? {
            let path = registrar.path(&name);
            if let Some(text) = secret::read(&path)? {
                let binding = Binding::parse(&text).ok_or(RegistrarError::Damaged { path })?;
                bindings.insert(name, binding);
            }
        }
        *registrar.write() = bindings;
        Ok(registrar)
    }

    /// Makes a name free, whoever has it; false when nobody had. Works beside a running controller, which
    /// notices at its next [`Registrar::sweep`].
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn forget(directory: &Path, node: &NodeName) -> Result<bool, FileError> {
        let directory = directory.join("nodes");
        if !directory.is_dir() {
            return Ok(false);
        }
        let lock = lock_file(&directory)?;
        lock.lock().map_err(FileError::io("lock", &directory))?;
        remove(&directory.join(&**node.shared()))
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
        let key = requested_key(request).ok_or(Refusal::Request)?;
        let (key_hash, changing) = (KeyHash::of(&key.subject_public_key_info()), self.changing()?);
        let from = match self.kept(node, now) {
            Some(binding) if binding.key != key_hash => return Err(binding.refusal(node, now)),
            Some(binding) => binding.from,
            None => self.room_for(network(from), now)?,
        };
        self.issue(node, &key, Binding { key: key_hash, expires: now + self.lifetime, from }, now, changing)
    }

    /// A new certificate for the key of a node that has shown a good one.
    ///
    /// # Errors
    /// When the name is bound to that key no longer.
    pub fn renew(&self, peer: &Peer, now: SystemTime) -> Result<Vec<CertificateDer<'static>>, Refusal> {
        let changing = self.changing()?;
        let binding = check(peer, self.kept(&peer.node, now), now)?;
        let key = SubjectPublicKeyInfo::from_der(&peer.public_key)?;
        self.issue(&peer.node, &key, Binding { expires: now + self.lifetime, ..binding }, now, changing)
    }

    /// Whether a node with this certificate may speak for its name. Asks no disk.
    ///
    /// # Errors
    /// When the name is bound to another key, or to none.
    pub fn admits(&self, peer: &Peer, now: SystemTime) -> Result<(), Refusal> {
        check(peer, self.live(&peer.node, now), now).map(drop)
    }

    /// Drops the names whose certificate has expired, and those whose file is gone. Returns how many.
    ///
    /// # Errors
    /// When the directory cannot be read, or an expired file not be removed.
    pub fn sweep(&self, now: SystemTime) -> Result<usize, FileError> {
        let _changing = self.changing()?;
        self.sweep_unlocked(now)
    }

    fn sweep_unlocked(&self, now: SystemTime) -> Result<usize, FileError> {
        let there = self.names()?;
        let is_gone =
            |(node, binding): &(&NodeName, &Binding)| binding.expires <= now || !there.contains(*node);
        let gone: Vec<NodeName> =
            self.read(|all| all.iter().filter(is_gone).map(|(node, _)| node.clone()).collect());
        for node in &gone {
            remove(&self.path(node))?;
            self.write().remove(node);
        }
        Ok(gone.len())
    }

    /// Whether this network may have one more name.
    fn room_for(&self, from: IpAddr, now: SystemTime) -> Result<IpAddr, Refusal> {
        if self.read(BTreeMap::len) >= MAX_NAMES && self.sweep_unlocked(now)? == 0 {
            return Err(Refusal::Full);
        }
        let of_address =
            self.read(|all| all.values().filter(|one| one.from == from && one.expires > now).count());
        if of_address >= MAX_NAMES_OF_ADDRESS { Err(Refusal::FullForAddress) } else { Ok(from) }
    }

    fn issue(
        &self,
        node: &NodeName,
        key: &impl PublicKeyData,
        binding: Binding,
        now: SystemTime,
        changing: Changing<'_>,
    ) -> Result<Vec<CertificateDer<'static>>, Refusal> {
        let certificate = self.authority.issue_node(node, key, now, binding.expires)?;
        // The file comes first: what a node was told holds after a crash.
        secret::write(&self.path(node), &binding.to_string())?;
        self.write().insert(node.clone(), binding);
        drop(changing);
        Ok(vec![certificate, self.authority.certificate().clone()])
    }

    /// Nobody else changes the files until this is dropped.
    fn changing(&self) -> Result<Changing<'_>, FileError> {
        let file = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        file.lock().map_err(FileError::io("lock", &self.directory))?;
        Ok(Changing(file))
    }

    /// The binding of a name, as far as memory knows.
    fn live(&self, node: &NodeName, now: SystemTime) -> Option<Binding> {
        self.read(|bindings| bindings.get(node).copied()).filter(|binding| binding.expires > now)
    }

    /// The binding of a name that nobody has forgotten.
    fn kept(&self, node: &NodeName, now: SystemTime) -> Option<Binding> {
        self.live(node, now).filter(|_| self.path(node).exists())
    }

    /// The names that have a file.
    fn names(&self) -> Result<BTreeSet<NodeName>, FileError> {
        let entries = fs::read_dir(&self.directory).map_err(FileError::io("read", &self.directory))?;
        let mut names = BTreeSet::new();
        for entry in entries {
            let name = entry.map_err(FileError::io("read", &self.directory))?.file_name();
            // The lock and a file that was not finished are no names, since these begin with a dot.
            names.extend(name.to_str().and_then(|name| name.parse().ok()));
        }
        Ok(names)
    }

    fn path(&self, node: &NodeName) -> PathBuf {
        self.directory.join(&**node.shared())
    }

    fn read<T>(&self, of: impl FnOnce(&BTreeMap<NodeName, Binding>) -> T) -> T {
        of(&self.bindings.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<NodeName, Binding>> {
        self.bindings.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registrar").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// The right to change files; gives it back when it is dropped.
struct Changing<'a>(MutexGuard<'a, File>);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        // Closing the file would do it as well; nothing is lost when it fails.
        drop(self.0.unlock());
    }
}

/// Whether the name of a certificate is bound to its key.
fn check(peer: &Peer, binding: Option<Binding>, now: SystemTime) -> Result<Binding, Refusal> {
    match binding {
        Some(binding) if binding.key == peer.key => Ok(binding),
        Some(binding) => Err(binding.refusal(&peer.node, now)),
        None => Err(Refusal::Unknown(peer.node.clone())),
    }
}

impl Binding {
    fn refusal(&self, node: &NodeName, now: SystemTime) -> Refusal {
        Refusal::Bound { node: node.clone(), left: self.expires.duration_since(now).unwrap_or_default() }
    }

    fn parse(text: &str) -> Option<Binding> {
        let mut fields = text.trim_end().split(' ');
        let (key, expires, from) = (fields.next()?, fields.next()?, fields.next()?);
        let key = KeyHash(URL_SAFE_NO_PAD.decode(key).ok()?.try_into().ok()?);
        let expires = UNIX_EPOCH.checked_add(Duration::from_secs(expires.parse().ok()?))?;
        Some(Binding { key, expires, from: from.parse().ok()? })
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expires = self.expires.duration_since(UNIX_EPOCH).unwrap_or_default();
        writeln!(f, "{} {} {}", URL_SAFE_NO_PAD.encode(self.key.0), expires.as_secs(), self.from)
    }
}

fn lock_file(directory: &Path) -> Result<File, FileError> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(directory.join(".lock")).map_err(FileError::io("open", directory))
}

/// Who counts as one: an IPv4 address, or the 64 bits that one host has all addresses of (RFC 4291 §2.5.4).
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

/// Whether there was something to remove.
fn remove(path: &Path) -> Result<bool, FileError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(FileError::io("remove", path)(error)),
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
