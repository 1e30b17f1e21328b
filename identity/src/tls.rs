// SPDX-License-Identifier: Apache-2.0
//! The TLS configurations. TLS 1.3 only, on both ends.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    ServerConfig, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{
    Credential, Registrar,
    authority::{Authority, AuthorityError, CONTROLLER_NAME, SERVER_LIFETIME, ServerIdentity},
    token::JoinToken,
};

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// rustls refused the parts.
    #[error("cannot set up TLS")]
    Rustls(#[from] Error),
    /// The authority could not issue the certificate.
    #[error("cannot issue the controller's certificate")]
    Authority(#[from] AuthorityError),
}

/// The configuration of the controller's end of the control stream. It renews its certificate by
/// itself, for as long as the process runs. A client without a certificate is let in, to join; one with
/// a certificate that is expired or not of this authority is not.
///
/// # Errors
/// When the first certificate cannot be made.
pub fn controller_server(registrar: &Registrar) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let authority = registrar.authority().clone();
    let current = Current::new(authority.issue_server(SystemTime::now())?, &provider)?;
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone())?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    let resolver = Renewing { authority, provider: provider.clone(), current: Mutex::new(current) };
    server(provider, clients, Arc::new(resolver))
}

/// The configuration of a node's end of the control stream: it trusts only the controller whose CA
/// certificate has the fingerprint of the token, and shows its own certificate where it has one.
///
/// # Errors
/// When rustls refuses the parts.
pub fn controller_client(credential: &Credential) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Pinned { token: credential.token().clone(), provider: provider.clone() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match credential.identity() {
        Some((chain, key)) => config.with_client_auth_cert(chain, key)?,
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would not ask for the certificate again.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The name that a node asks for, whatever address it dials.
pub fn controller_name() -> ServerName<'static> {
    ServerName::try_from(CONTROLLER_NAME).expect("invariant: the constant is a valid DNS name")
}

/// What it means that a node and its controller come to no connection, and what to do; nothing where `error`
/// says so itself.
pub fn explain(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let in_io = |error: &(dyn std::error::Error + 'static)| {
        error.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<Error>().cloned()
    };
    Some(match error.downcast_ref::<Error>().cloned().or_else(|| in_io(error))? {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "it is not the controller that wrote this node's join token: give the address of that one, or the token \
             of this one"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => {
            "its certificate is not valid yet by the clock of this machine: set that clock, or the controller's"
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired by the clock of this machine: set that clock, or the controller's"
        }
        Error::InvalidMessage(_) => {
            "what answers there does not speak TLS: is it the address of the controller's --listen?"
        }
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "by its clock, this node's certificate is expired or not valid yet: set the clock of this machine, or the \
             controller's"
        }
        Error::AlertReceived(AlertDescription::UnknownCA | AlertDescription::DecryptError) => {
            "this node's certificate is of another controller, and the node has to join again"
        }
        _ => return None,
    })
}

fn server(
    provider: Arc<CryptoProvider>,
    clients: Arc<dyn ClientCertVerifier>,
    resolver: Arc<dyn ResolvesServerCert>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session has the certificate of the first one, however long ago that expired.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Accepts a chain only when it has the pinned CA certificate and is signed by it.
#[derive(Debug)]
struct Pinned {
    token: JoinToken,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = intermediates.iter().find(|certificate| self.token.is_for(certificate));
        let Some(ca) = pinned else {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        };
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("the control stream needs TLS 1.3".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Serves a certificate, and issues the next one when a third of its life is left.
struct Renewing {
    authority: Arc<Authority>,
    provider: Arc<CryptoProvider>,
    current: Mutex<Current>,
}

struct Current {
    key: Arc<CertifiedKey>,
    renew_at: SystemTime,
}

/// After a failure to renew, the next try waits this long.
const RENEW_PAUSE: Duration = Duration::from_secs(60);

impl Current {
    fn new(identity: ServerIdentity, provider: &CryptoProvider) -> Result<Current, Error> {
        let key = CertifiedKey::from_der(identity.chain, identity.key, provider)?;
        Ok(Current { key: Arc::new(key), renew_at: identity.expires - SERVER_LIFETIME / 3 })
    }
}

impl Renewing {
    fn at(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= current.renew_at {
            let next = self.authority.issue_server(now).ok();
            match next.and_then(|identity| Current::new(identity, &self.provider).ok()) {
                Some(next) => *current = next,
                None => current.renew_at = now + RENEW_PAUSE,
            }
        }
        current.key.clone()
    }
}

impl ResolvesServerCert for Renewing {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(SystemTime::now()))
    }
}

impl fmt::Debug for Renewing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewing").field("authority", &self.authority).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
