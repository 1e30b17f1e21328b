// SPDX-License-Identifier: Apache-2.0

use std::net::Ipv4Addr;

use tempfile::TempDir;

use super::*;
use crate::{Credential, CredentialError};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const HOUR: Duration = Duration::from_secs(3600);

fn open(home: &TempDir) -> Registrar {
    Registrar::open(home.path(), NODE_LIFETIME).unwrap()
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// A node with a state directory of its own.
fn node(home: &TempDir, directory: &str, node: &str) -> Credential {
    let token = open(home).token().clone();
    Credential::open(&home.path().join(directory), name(node), token).unwrap()
}

fn join(registrar: &Registrar, credential: &mut Credential, now: SystemTime) -> Result<Peer, Refusal> {
    let chain = registrar.join(credential.node(), &credential.request().unwrap(), HOST, now)?;
    credential.accept(chain.clone()).unwrap();
    Ok(Peer::read(&chain[0]).unwrap())
}

#[test]
fn a_name_belongs_to_the_first_key_until_it_expires() {
    let home = tempfile::tempdir().unwrap();
    let (registrar, now) = (open(&home), SystemTime::now());
    let (mut real, mut thief) = (node(&home, "real", "a"), node(&home, "thief", "a"));
    let peer = join(&registrar, &mut real, now).unwrap();
    assert!(registrar.admits(&peer, now).is_ok());

    let refusal = join(&registrar, &mut thief, now + HOUR).unwrap_err();
    assert!(matches!(refusal, Refusal::Bound { .. }));
    let text = refusal.to_string();
    assert!(text.contains("for 1380 min more") && text.contains("forget-node a"), "{text}");
    assert!(registrar.admits(&peer, now + HOUR).is_ok(), "the attempt changed nothing");
    // Another name is free, and the same node may ask again: its answer may have been lost.
    join(&registrar, &mut node(&home, "other", "b"), now).unwrap();
    join(&registrar, &mut real, now + HOUR).unwrap();

    let later = now + HOUR + NODE_LIFETIME;
    assert!(matches!(registrar.admits(&peer, later), Err(Refusal::Unknown(_))));
    let taken = join(&registrar, &mut thief, later).unwrap();
    assert!(registrar.admits(&taken, later).is_ok());
    assert!(matches!(registrar.admits(&peer, later), Err(Refusal::Bound { .. })));
    assert!(matches!(registrar.renew(&peer, later), Err(Refusal::Bound { .. })));
}

#[test]
fn bindings_outlive_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let mut real = node(&home, "real", "a");
    let peer = join(&open(&home), &mut real, now).unwrap();
    let again = open(&home);
    assert!(again.admits(&peer, now).is_ok());
    let refusal = join(&again, &mut node(&home, "thief", "a"), now).unwrap_err();
    assert!(matches!(refusal, Refusal::Bound { .. }));
    // The node's side of it.
    let restarted = node(&home, "real", "a");
    assert!(restarted.left(now).is_some_and(|left| left > NODE_LIFETIME - HOUR));
    assert_eq!(restarted.left(now + NODE_LIFETIME), None);
    let renamed = node(&home, "real", "b");
    assert_eq!(renamed.left(now), None, "the certificate is for another name");
    for path in ["nodes/a", "real"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(home.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{path}");
    }
}

#[test]
fn a_renewal_keeps_the_key_and_extends_the_binding() {
    let home = tempfile::tempdir().unwrap();
    let (registrar, now) = (open(&home), SystemTime::now());
    let mut real = node(&home, "real", "a");
    let peer = join(&registrar, &mut real, now).unwrap();
    let chain = registrar.renew(&peer, now + 12 * HOUR).unwrap();
    real.accept(chain.clone()).unwrap();
    let renewed = Peer::read(&chain[0]).unwrap();
    assert_eq!((renewed.key, &renewed.node), (peer.key, &peer.node));
    assert!(renewed.expires > peer.expires);
    // A stream that began with the first certificate goes on with the binding.
    assert!(registrar.admits(&peer, now + 30 * HOUR).is_ok());
    assert!(registrar.admits(&peer, now + 37 * HOUR).is_err());
}

#[test]
fn a_forgotten_name_is_free_at_once_and_its_certificate_worthless() {
    let home = tempfile::tempdir().unwrap();
    let (registrar, now) = (open(&home), SystemTime::now());
    let mut real = node(&home, "real", "a");
    let peer = join(&registrar, &mut real, now).unwrap();
    assert!(Registrar::forget(home.path(), &name("a")).unwrap());
    assert!(!Registrar::forget(home.path(), &name("a")).unwrap(), "nobody has it");
    assert!(matches!(registrar.renew(&peer, now), Err(Refusal::Unknown(_))));
    assert_eq!(registrar.sweep(now).unwrap(), 1);
    assert!(matches!(registrar.admits(&peer, now), Err(Refusal::Unknown(_))));
    let next = join(&registrar, &mut node(&home, "replaced", "a"), now).unwrap();
    assert!(registrar.admits(&next, now).is_ok());
}

#[test]
fn expired_names_are_dropped_and_names_are_bounded() {
    let home = tempfile::tempdir().unwrap();
    let (registrar, now) = (open(&home), SystemTime::now());
    let binding = Binding { key: KeyHash([0; 32]), expires: now + HOUR, from: IpAddr::from([10, 0, 0, 2]) };
    let bind = |number| {
        fs::write(registrar.path(&name(&format!("n{number}"))), "").unwrap();
        (name(&format!("n{number}")), binding)
    };
    *registrar.write() = (0..MAX_NAMES).map(bind).collect();
    let request = node(&tempfile::tempdir().unwrap(), "x", "more").request().unwrap();
    assert!(matches!(registrar.join(&name("more"), &request, HOST, now), Err(Refusal::Full)));
    assert!(registrar.join(&name("more"), &request, HOST, now + 2 * HOUR).is_ok(), "the others have expired");
    assert_eq!(registrar.read(BTreeMap::len), 1);
    assert!(!registrar.path(&name("n0")).exists());
}

#[test]
fn of_a_request_only_the_key_is_believed_and_only_when_it_has_signed() {
    let home = tempfile::tempdir().unwrap();
    let (registrar, now) = (open(&home), SystemTime::now());
    let key = rcgen::KeyPair::generate().unwrap();
    let mut wishes = rcgen::CertificateParams::new(["controller.weft.internal".to_owned()]).unwrap();
    wishes.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    wishes.subject_alt_names.push(rcgen::SanType::URI(name("b").spiffe_id().try_into().unwrap()));
    let request = wishes.serialize_request(&key).unwrap().der().to_vec();
    let chain = registrar.join(&name("a"), &request, HOST, now).unwrap();
    let peer = Peer::read(&chain[0]).expect("one name, and nothing else");
    assert_eq!(peer.node, name("a"));
    let (_, parsed) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    assert!(!parsed.is_ca());

    let mut forged = request.clone();
    *forged.last_mut().unwrap() ^= 1;
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let p384 = rcgen::CertificateParams::default().serialize_request(&p384).unwrap().der().to_vec();
    let long = [request.clone(), vec![0; MAX_REQUEST_BYTES]].concat();
    for bad in [forged, p384, long, request[..100].to_vec(), Vec::new(), vec![0x30; 64]] {
        assert!(matches!(registrar.join(&name("c"), &bad, HOST, now), Err(Refusal::Request)));
    }
}

#[test]
fn one_address_cannot_take_all_names() {
    let home = tempfile::tempdir().unwrap();
    let (registrar, now) = (open(&home), SystemTime::now());
    let host = |last: u16| IpAddr::from([0xfd00, 0, 0, 1, 0, 0, 0, last]);
    let binding = |from| Binding { key: KeyHash([0; 32]), expires: now + HOUR, from };
    let from = network(host(1));
    *registrar.write() =
        (0..MAX_NAMES_OF_ADDRESS).map(|at| (name(&format!("n{at}")), binding(from))).collect();
    let request = node(&tempfile::tempdir().unwrap(), "x", "more").request().unwrap();
    let refusal = registrar.join(&name("more"), &request, host(2), now).unwrap_err();
    assert!(matches!(refusal, Refusal::FullForAddress), "the same network: {refusal}");
    assert!(registrar.join(&name("more"), &request, HOST, now).is_ok(), "others still can");
}

/// Whoever has seen a request of another node gets a certificate for that node's key, which is of no use
/// without the key; and no other name.
#[test]
fn a_replayed_request_is_of_no_use() {
    let home = tempfile::tempdir().unwrap();
    let (registrar, now) = (open(&home), SystemTime::now());
    let (mut real, mut thief) = (node(&home, "real", "a"), node(&home, "thief", "a"));
    let seen = real.request().unwrap();
    let peer = join(&registrar, &mut real, now).unwrap();
    let chain = registrar.join(&name("a"), &seen, HOST, now).unwrap();
    assert_eq!(Peer::read(&chain[0]).unwrap().key, peer.key);
    assert!(matches!(thief.accept(chain), Err(CredentialError::NotOurs)));
}

#[test]
fn a_damaged_binding_or_credential_is_named_with_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    drop(node(&home, "real", "a"));
    secret::write(&home.path().join("real"), "nonsense").unwrap();
    let token = open(&home).token().clone();
    let error = Credential::open(&home.path().join("real"), name("a"), token).unwrap_err().to_string();
    assert!(error.contains("remove it") && error.contains("forget-node a"), "{error}");
    secret::write(&home.path().join("nodes/a"), "nonsense").unwrap();
    let error = Registrar::open(home.path(), NODE_LIFETIME).unwrap_err().to_string();
    assert!(error.contains("nodes/a is damaged: remove it"), "{error}");
}
