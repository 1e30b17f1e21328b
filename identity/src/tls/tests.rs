// SPDX-License-Identifier: Apache-2.0

use rustls::{AlertDescription, ClientConnection, ServerConnection};

use tempfile::TempDir;

use super::*;
use crate::{NODE_LIFETIME, NodeName, NotANode, Peer};

/// Serves one identity for ever, whatever its age.
#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// A controller, and what its nodes keep.
struct Site {
    home: TempDir,
    registrar: Registrar,
}

impl Site {
    fn new() -> Site {
        let home = tempfile::tempdir().unwrap();
        let registrar = Registrar::open(home.path(), NODE_LIFETIME).unwrap();
        Site { home, registrar }
    }

    /// What a node with this token has before it joins.
    fn stranger(&self, token: &JoinToken) -> Credential {
        let node: NodeName = "a".parse().unwrap();
        Credential::open(&self.home.path().join("credential"), node, token.clone()).unwrap()
    }

    fn client(&self) -> Arc<ClientConfig> {
        controller_client(&self.stranger(self.registrar.token())).unwrap()
    }

    /// A node that joined then.
    fn member(&self, then: SystemTime) -> Credential {
        let mut credential = self.stranger(self.registrar.token());
        let request = credential.request().unwrap();
        let chain = self.registrar.join(credential.node(), &request, [127, 0, 0, 1].into(), then).unwrap();
        credential.accept(chain).unwrap();
        credential
    }

    fn server(&self) -> Arc<ServerConfig> {
        controller_server(&self.registrar).unwrap()
    }

    fn issue(&self, now: SystemTime) -> ServerIdentity {
        self.registrar.authority().issue_server(now).unwrap()
    }
}

fn serve(identity: ServerIdentity) -> Arc<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let key = CertifiedKey::from_der(identity.chain, identity.key, &provider).unwrap();
    server(provider, WebPkiClientVerifier::no_client_auth(), Arc::new(Fixed(Arc::new(key)))).unwrap()
}

/// Runs a handshake in memory: what the client thinks of it.
fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<(), Error> {
    connect(client, server).map(drop)
}

/// Runs a handshake in memory: the certificate that the client has shown.
fn connect(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> Result<Option<CertificateDer<'static>>, Error> {
    let mut client = ClientConnection::new(client, controller_name()).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            let _refused = server.process_new_packets();
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
        if !client.is_handshaking() && !server.is_handshaking() {
            assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
            let shown = server.peer_certificates().and_then(<[_]>::first);
            return Ok(shown.map(|certificate| certificate.clone().into_owned()));
        }
    }
    panic!("the handshake does not end");
}

#[test]
fn a_node_with_the_token_trusts_the_controller() {
    let site = Site::new();
    assert_eq!(connect(site.client(), site.server()), Ok(None));
}

#[test]
fn a_token_with_another_fingerprint_refuses_the_controller() {
    let site = Site::new();
    let result = handshake(site.client(), Site::new().server());
    assert_eq!(result, Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)));
}

#[test]
fn a_member_shows_its_certificate_at_every_connection() {
    let site = Site::new();
    let client = controller_client(&site.member(SystemTime::now())).unwrap();
    for _ in 0..2 {
        let shown = connect(client.clone(), site.server()).unwrap().expect("not only at the first");
        assert_eq!(Peer::read(&shown).unwrap().node, "a".parse().unwrap());
    }
}

#[test]
fn a_certificate_that_is_expired_or_of_another_controller_is_refused() {
    let site = Site::new();
    let long_ago = SystemTime::now() - NODE_LIFETIME - Duration::from_secs(60);
    let expired = controller_client(&site.member(long_ago)).unwrap();
    let result = connect(expired, site.server());
    assert_eq!(result, Err(Error::AlertReceived(AlertDescription::CertificateExpired)));

    // It trusts this controller, and shows what another has issued.
    let (chain, key) = Site::new().member(SystemTime::now()).identity().unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Pinned { token: site.registrar.token().clone(), provider });
    let foreign = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key)
        .unwrap();
    let result = connect(Arc::new(foreign), site.server());
    assert!(matches!(result, Err(Error::AlertReceived(_))), "{result:?}");
}

/// The controller's own certificate is one of this authority too.
#[test]
fn the_certificate_of_a_controller_is_none_of_a_node() {
    let identity = Site::new().issue(SystemTime::now());
    assert_eq!(Peer::read(&identity.chain[0]), Err(NotANode));
    assert_eq!(Peer::read(&identity.chain[1]), Err(NotANode));
}

/// The CA certificate is public: sending it proves nothing without its signature.
#[test]
fn a_stranger_that_shows_the_right_ca_is_refused() {
    let (real, stranger) = (Site::new(), Site::new());
    let ca = real.issue(SystemTime::now()).chain[1].clone();
    let mut identity = stranger.issue(SystemTime::now());
    identity.chain[1] = ca;
    let result = handshake(real.client(), serve(identity));
    assert!(matches!(result, Err(Error::InvalidCertificate(_))), "{result:?}");
}

/// The real chain without the real key.
#[test]
fn a_stranger_with_a_copied_chain_is_refused() {
    let real = Site::new();
    let provider = aws_lc_rs::default_provider();
    let chain = real.issue(SystemTime::now()).chain;
    let other = real.issue(SystemTime::now()).key;
    let signing = provider.key_provider.load_private_key(other).unwrap();
    let key = Fixed(Arc::new(CertifiedKey::new(chain, signing)));
    let config = server(Arc::new(provider), WebPkiClientVerifier::no_client_auth(), Arc::new(key)).unwrap();
    let result = handshake(real.client(), config);
    assert_eq!(result, Err(Error::InvalidCertificate(CertificateError::BadSignature)));
}

#[test]
fn an_expired_certificate_of_the_controller_is_refused() {
    let site = Site::new();
    let long_ago = SystemTime::now() - SERVER_LIFETIME - Duration::from_secs(60);
    let result = handshake(site.client(), serve(site.issue(long_ago)));
    assert!(
        matches!(result, Err(Error::InvalidCertificate(CertificateError::ExpiredContext { .. }))),
        "{result:?}"
    );
}

#[test]
fn the_server_renews_its_certificate_before_it_expires() {
    let site = Site::new();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let start = SystemTime::now();
    let current = Current::new(site.issue(start), &provider).unwrap();
    let authority = site.registrar.authority().clone();
    let renewing = Renewing { authority, provider, current: Mutex::new(current) };
    let first = renewing.at(start);
    assert_eq!(first.cert, renewing.at(start + SERVER_LIFETIME / 2).cert);
    assert_ne!(first.cert, renewing.at(start + SERVER_LIFETIME * 3 / 4).cert);
}

#[test]
fn what_a_failed_handshake_means_is_said_with_what_to_do() {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_000));
    let later = UnixTime::since_unix_epoch(Duration::from_secs(2_000));
    let alert = Error::AlertReceived;
    for (error, hint) in [
        (CertificateError::UnknownIssuer.into(), "the token of this one"),
        (CertificateError::NotValidYet.into(), "not valid yet by the clock of this machine"),
        (CertificateError::NotValidYetContext { time: now, not_before: later }.into(), "set that clock"),
        (CertificateError::Expired.into(), "expired by the clock of this machine"),
        (CertificateError::ExpiredContext { time: later, not_after: now }.into(), "set that clock"),
        (Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType), "does not speak TLS"),
        (alert(AlertDescription::CertificateExpired), "set the clock"),
        (alert(AlertDescription::UnknownCA), "has to join again"),
    ] {
        let in_io = io::Error::other::<Error>(error);
        assert!(explain(&in_io).is_some_and(|text| text.contains(hint)), "{in_io}");
    }
    assert_eq!(explain(&io::Error::other("anything else")), None);
}
