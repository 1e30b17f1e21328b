// SPDX-License-Identifier: Apache-2.0

use rustls::{ClientConnection, ServerConnection};

use super::*;

/// Serves one identity for ever, whatever its age.
#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

fn authority() -> Authority {
    Authority::open(tempfile::tempdir().unwrap().path()).unwrap()
}

fn serve(identity: ServerIdentity) -> Arc<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let key = CertifiedKey::from_der(identity.chain, identity.key, &provider).unwrap();
    server(provider, Arc::new(Fixed(Arc::new(key)))).unwrap()
}

/// Runs a handshake in memory: what the client thinks of it.
fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<(), Error> {
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
            return Ok(());
        }
    }
    panic!("the handshake does not end");
}

#[test]
fn a_node_with_the_token_trusts_the_controller() {
    let authority = authority();
    let client = controller_client(authority.token()).unwrap();
    assert_eq!(handshake(client, controller_server(authority).unwrap()), Ok(()));
}

#[test]
fn a_token_with_another_fingerprint_refuses_the_controller() {
    let client = controller_client(authority().token()).unwrap();
    let result = handshake(client, controller_server(authority()).unwrap());
    assert_eq!(result, Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)));
}

/// The CA certificate is public: sending it proves nothing without its signature.
#[test]
fn a_stranger_that_shows_the_right_ca_is_refused() {
    let (real, stranger) = (authority(), authority());
    let client = controller_client(real.token()).unwrap();
    let ca = real.issue_server(SystemTime::now()).unwrap().chain[1].clone();
    let mut identity = stranger.issue_server(SystemTime::now()).unwrap();
    identity.chain[1] = ca;
    let result = handshake(client, serve(identity));
    assert!(matches!(result, Err(Error::InvalidCertificate(_))), "{result:?}");
}

/// The real chain without the real key.
#[test]
fn a_stranger_with_a_copied_chain_is_refused() {
    let real = authority();
    let client = controller_client(real.token()).unwrap();
    let provider = aws_lc_rs::default_provider();
    let chain = real.issue_server(SystemTime::now()).unwrap().chain;
    let other = real.issue_server(SystemTime::now()).unwrap().key;
    let signing = provider.key_provider.load_private_key(other).unwrap();
    let key = Arc::new(CertifiedKey::new(chain, signing));
    let config = server(Arc::new(provider), Arc::new(Fixed(key))).unwrap();
    let result = handshake(client, config);
    assert_eq!(result, Err(Error::InvalidCertificate(CertificateError::BadSignature)));
}

#[test]
fn an_expired_certificate_is_refused() {
    let authority = authority();
    let long_ago = SystemTime::now() - SERVER_LIFETIME - Duration::from_secs(60);
    let identity = authority.issue_server(long_ago).unwrap();
    let client = controller_client(authority.token()).unwrap();
    let result = handshake(client, serve(identity));
    assert!(
        matches!(result, Err(Error::InvalidCertificate(CertificateError::ExpiredContext { .. }))),
        "{result:?}"
    );
}

#[test]
fn the_server_renews_its_certificate_before_it_expires() {
    let authority = authority();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let start = SystemTime::now();
    let current = Current::new(authority.issue_server(start).unwrap(), &provider).unwrap();
    let renewing = Renewing { authority, provider, current: Mutex::new(current) };
    let first = renewing.at(start);
    assert_eq!(first.cert, renewing.at(start + SERVER_LIFETIME / 2).cert);
    assert_ne!(first.cert, renewing.at(start + SERVER_LIFETIME * 3 / 4).cert);
}
