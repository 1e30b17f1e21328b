// SPDX-License-Identifier: Apache-2.0
//! The certificate authority of the control stream, kept in a directory of the controller.
//!
//! `ca.pem` holds the private key and the certificate in one file, so that no crash leaves half of
//! them; `token` holds the join token. Both have mode 0600 in a directory with mode 0700. Removing
//! `token` makes the next start write a new one; removing `ca.pem` makes every token worthless.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};

use crate::{
    NodeName,
    secret::{self, Exposed, FileError},
    token::{JoinToken, TokenError},
};

/// The name that the controller's certificates carry. Nodes ask for it whatever address they dial.
pub(crate) const CONTROLLER_NAME: &str = "controller.weft.internal";

/// A server certificate is good for this long; the server renews it when a third is left.
pub(crate) const SERVER_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);

/// The CA is good for ten years: nodes know it by its fingerprint, so a new one needs new tokens.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Certificates are good from this long before they are made, for clocks that run behind.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// Why there is no certificate authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not what the controller wrote.
    #[error("{} is damaged: restore it, or remove it and give every node a new token", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The token file holds no token, or the token of another authority.
    #[error("{} does not belong to this authority: remove it to have a new token written", path.display())]
    ForeignToken {
        /// The file.
        path: PathBuf,
    },
    /// A key or certificate cannot be made.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// A token cannot be made.
    #[error("cannot make a join token")]
    Token(#[from] TokenError),
}

/// A certificate authority. `Debug` shows no key.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    token: JoinToken,
    /// The files that others can read.
    exposed: Vec<Exposed>,
}

/// A certificate for the controller's end of the stream, with its key.
pub(crate) struct ServerIdentity {
    /// The certificate, then that of the CA, by which nodes find the fingerprint.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The private key.
    pub(crate) key: PrivateKeyDer<'static>,
    /// When it stops being good.
    pub(crate) expires: SystemTime,
}

impl Authority {
    /// Opens the authority in a directory, and makes what is missing.
    ///
    /// # Errors
    /// When the directory cannot be read or written, or a file is damaged.
    pub(crate) fn open(directory: &Path) -> Result<Authority, AuthorityError> {
        secret::create_directory(directory)?;
        let mut exposed = Vec::new();
        let ca_path = directory.join("ca.pem");
        let (key, certificate) = match secret::read(&ca_path)? {
            Some(pem) => {
                exposed.extend(pem.exposed);
                parse_ca(&pem.bytes).ok_or(AuthorityError::Damaged { path: ca_path })?
            }
            None => {
                let (key, certificate) = make_ca(SystemTime::now())?;
                secret::write(&ca_path, &(key.serialize_pem() + &certificate.pem()))?;
                (key, certificate.der().clone())
            }
        };
        let token_path = directory.join("token");
        let token = match secret::read(&token_path)? {
            Some(text) => {
                exposed.extend(text.exposed);
                match String::from_utf8_lossy(&text.bytes).parse::<JoinToken>() {
                    Ok(token) if token.is_for(&certificate) => token,
                    _ => return Err(AuthorityError::ForeignToken { path: token_path }),
                }
            }
            None => {
                let token = JoinToken::generate(&certificate)?;
                secret::write(&token_path, &(token.expose() + "\n"))?;
                token
            }
        };
        let issuer = Issuer::new(ca_params(SystemTime::now()), key);
        Ok(Authority { issuer, certificate, token, exposed })
    }

    /// The files with secrets that others can read.
    pub(crate) fn exposed(&self) -> &[Exposed] {
        &self.exposed
    }

    /// The token that nodes must bring.
    pub(crate) fn token(&self) -> &JoinToken {
        &self.token
    }

    /// The certificate by which everybody knows this authority.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A certificate that makes whoever holds the key this node, good from `now` on.
    pub(crate) fn issue_node(
        &self,
        node: &NodeName,
        key: &impl PublicKeyData,
        now: SystemTime,
        expires: SystemTime,
    ) -> Result<CertificateDer<'static>, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = expires.into();
        params.distinguished_name = name("weft node");
        params.subject_alt_names = vec![SanType::URI(node.spiffe_id().try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer)?.der().clone())
    }

    /// A new certificate for the controller, good from `now` on.
    ///
    /// # Errors
    /// When the key or the signature cannot be made.
    pub(crate) fn issue_server(&self, now: SystemTime) -> Result<ServerIdentity, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new([CONTROLLER_NAME.to_owned()])?;
        let expires = now + SERVER_LIFETIME;
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = expires.into();
        params.distinguished_name = name("weft controller");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&key, &self.issuer)?;
        Ok(ServerIdentity {
            chain: vec![leaf.der().clone(), self.certificate.clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            expires,
        })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("token", &self.token).finish_non_exhaustive()
    }
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerIdentity").field("expires", &self.expires).finish_non_exhaustive()
    }
}

fn ca_params(now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + CA_LIFETIME).into();
    params.distinguished_name = name("weft control CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn make_ca(now: SystemTime) -> Result<(KeyPair, rcgen::Certificate), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = ca_params(now).self_signed(&key)?;
    Ok((key, certificate))
}

fn parse_ca(pem: &[u8]) -> Option<(KeyPair, CertificateDer<'static>)> {
    let certificate = CertificateDer::from_pem_slice(pem).ok()?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(pem).ok()?;
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256).ok()?;
    Some((key, certificate))
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn the_authority_is_the_same_after_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("pki");
        let first = Authority::open(&directory).unwrap();
        let second = Authority::open(&directory).unwrap();
        assert_eq!(first.token(), second.token());
        assert_eq!(first.certificate, second.certificate);
        for (path, mode) in [("", 0o700), ("ca.pem", 0o600), ("token", 0o600)] {
            let found = fs::metadata(directory.join(path)).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{path}");
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_used_and_named() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(Authority::open(home.path()).unwrap().exposed(), []);
        fs::set_permissions(home.path().join("ca.pem"), fs::Permissions::from_mode(0o644)).unwrap();
        let exposed = Authority::open(home.path()).unwrap().exposed().to_vec();
        assert_eq!(exposed.len(), 1);
        assert!(exposed[0].to_string().contains("ca.pem has mode 0644"), "{}", exposed[0]);
    }

    #[test]
    fn a_damaged_key_is_an_error_and_never_replaced() {
        let home = tempfile::tempdir().unwrap();
        Authority::open(home.path()).unwrap();
        fs::write(home.path().join("ca.pem"), "nonsense").unwrap();
        assert!(matches!(Authority::open(home.path()), Err(AuthorityError::Damaged { .. })));
        assert_eq!(fs::read_to_string(home.path().join("ca.pem")).unwrap(), "nonsense");
    }

    #[test]
    fn a_removed_token_is_written_anew_and_a_foreign_one_refused() {
        let home = tempfile::tempdir().unwrap();
        let first = Authority::open(home.path()).unwrap();
        fs::remove_file(home.path().join("token")).unwrap();
        let second = Authority::open(home.path()).unwrap();
        assert_ne!(first.token(), second.token());
        let foreign = JoinToken::generate(b"another").unwrap();
        fs::write(home.path().join("token"), foreign.expose()).unwrap();
        assert!(matches!(Authority::open(home.path()), Err(AuthorityError::ForeignToken { .. })));
    }
}
