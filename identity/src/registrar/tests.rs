// SPDX-License-Identifier: Apache-2.0

use std::{collections::BTreeMap, fs, net::Ipv4Addr, path::PathBuf};

use tempfile::TempDir;

use super::*;
use crate::{Credential, CredentialError, secret};

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
    credential.keep().unwrap();
    Ok(Peer::read(&chain[0]).unwrap())
}

fn file(home: &TempDir, node: &str) -> PathBuf {
    home.path().join(NODES).join(node)
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
        fs::write(file(&home, &format!("n{number}")), "").unwrap();
        (name(&format!("n{number}")), Bound::To(binding))
    };
    registrar.bindings.set((0..MAX_NAMES).map(bind).collect());
    let request = node(&tempfile::tempdir().unwrap(), "x", "more").request().unwrap();
    assert!(matches!(registrar.join(&name("more"), &request, HOST, now), Err(Refusal::Full)));
    assert!(registrar.join(&name("more"), &request, HOST, now + 2 * HOUR).is_ok(), "the others have expired");
    assert_eq!(registrar.bindings.len(), 1);
    assert!(!file(&home, "n0").exists());
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
    let binding = |from| Bound::To(Binding { key: KeyHash([0; 32]), expires: now + HOUR, from });
    let from = network(host(1));
    let names: BTreeMap<_, _> =
        (0..MAX_NAMES_OF_ADDRESS).map(|at| (name(&format!("n{at}")), binding(from))).collect();
    registrar.bindings.set(names);
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
fn a_file_that_cannot_be_read_closes_its_name_and_no_other() {
    let home = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let (mut hurt, mut well) = (node(&home, "hurt", "a"), node(&home, "well", "b"));
    let (of_hurt, of_well) =
        (join(&open(&home), &mut hurt, now).unwrap(), join(&open(&home), &mut well, now).unwrap());
    let whole = fs::read(file(&home, "a")).unwrap();
    for damage in [b"nonsense\n".as_slice(), b"", &whole[..10], &whole[..whole.len() - 3], b"\xff\xfe"] {
        fs::write(file(&home, "a"), damage).unwrap();
        let registrar = open(&home);
        assert!(registrar.admits(&of_well, now).is_ok());
        assert!(matches!(registrar.admits(&of_hurt, now), Err(Refusal::Unreadable(_))));
        assert!(matches!(registrar.renew(&of_hurt, now), Err(Refusal::Unreadable(_))));
        let refusal = join(&registrar, &mut node(&home, "thief", "a"), now).unwrap_err();
        assert!(matches!(refusal, Refusal::Unreadable(_)), "{refusal}");
        let problems = registrar.problems();
        assert_eq!((problems.len(), registrar.unreadable()), (1, 1));
        assert!(problems[0].contains("nodes/a cannot be read") && problems[0].contains("forget-node a"));
        // It is restored while the controller runs.
        fs::write(file(&home, "a"), &whole).unwrap();
        registrar.sweep(now).unwrap();
        assert!(registrar.admits(&of_hurt, now).is_ok());
    }
    // Anything else than a file, and a file that somebody put there.
    fs::remove_file(file(&home, "a")).unwrap();
    fs::create_dir(file(&home, "a")).unwrap();
    fs::write(file(&home, "notes.txt"), "hello").unwrap();
    fs::write(file(&home, "README"), "names no node").unwrap();
    let registrar = open(&home);
    assert!(matches!(registrar.admits(&of_hurt, now), Err(Refusal::Unreadable(_))));
    assert_eq!(registrar.unreadable(), 2);
    assert!(registrar.admits(&of_well, now).is_ok());
    // Forgotten, it is free again.
    assert!(Registrar::forget(home.path(), &name("notes.txt")).unwrap());
    registrar.sweep(now).unwrap();
    assert_eq!(registrar.unreadable(), 1);
}

#[test]
fn what_is_removed_while_it_runs_is_written_again_unless_it_was_forgotten() {
    let home = tempfile::tempdir().unwrap();
    let (registrar, now) = (open(&home), SystemTime::now());
    let (mut a, mut b) = (node(&home, "a", "a"), node(&home, "b", "b"));
    let (of_a, of_b) = (join(&registrar, &mut a, now).unwrap(), join(&registrar, &mut b, now).unwrap());
    let lost: [&dyn Fn(); 4] = [
        &|| fs::remove_file(file(&home, "a")).unwrap(),
        &|| fs::remove_dir_all(home.path().join(NODES)).unwrap(),
        // Another directory in its place, as when a backup is put back.
        &|| {
            fs::rename(home.path().join(NODES), home.path().join("old")).unwrap();
            fs::create_dir(home.path().join(NODES)).unwrap();
            fs::write(file(&home, "a"), "AAAA 1 10.0.0.1\n").unwrap();
        },
        &|| fs::remove_dir_all(home.path().join(NODES)).unwrap(),
    ];
    for (index, lose) in lost.iter().enumerate() {
        let before = registrar.rewritten();
        lose();
        // Noticed by the next look, or the next write.
        if index < 3 {
            registrar.sweep(now).map(drop).unwrap()
        } else {
            drop(registrar.renew(&of_a, now).unwrap())
        }
        assert!(registrar.rewritten() > before, "{index}");
        let thief = join(&registrar, &mut node(&home, "thief", "a"), now);
        assert!(matches!(thief, Err(Refusal::Bound { .. })), "{index}");
        let restarted = open(&home);
        assert!(restarted.admits(&of_a, now).is_ok() && restarted.admits(&of_b, now).is_ok(), "{index}");
    }
    let before = registrar.rewritten();
    assert!(Registrar::forget(home.path(), &name("a")).unwrap());
    assert_eq!(registrar.sweep(now).unwrap(), 1);
    assert_eq!(registrar.rewritten(), before);
    assert!(matches!(open(&home).admits(&of_a, now), Err(Refusal::Unknown(_))));
    assert!(open(&home).admits(&of_b, now).is_ok());
}

#[test]
fn names_that_cannot_be_written_are_told_until_they_can() {
    let home = tempfile::tempdir().unwrap();
    let (registrar, now) = (open(&home), SystemTime::now());
    let mut a = node(&home, "a", "a");
    let peer = join(&registrar, &mut a, now).unwrap();
    // A file in the place of the directory: nothing can be made there.
    fs::rename(home.path().join(NODES), home.path().join("away")).unwrap();
    fs::write(home.path().join(NODES), "").unwrap();
    let refusal = registrar.renew(&peer, now).unwrap_err();
    assert!(matches!(refusal, Refusal::File(_)), "{refusal}");
    let problems = registrar.problems();
    assert!(problems.len() == 1 && problems[0].contains("nodes get no certificate"), "{problems:?}");
    assert!(problems[0].contains("/nodes"), "{problems:?}");
    assert!(registrar.admits(&peer, now).is_ok(), "what is bound stays bound");
    fs::remove_file(home.path().join(NODES)).unwrap();
    registrar.sweep(now).unwrap();
    assert!(registrar.problems().is_empty());
    assert!(open(&home).admits(&peer, now).is_ok());
    // The directory can be read, and this name not be written: no look makes that well.
    fs::remove_file(file(&home, "a")).unwrap();
    fs::create_dir(file(&home, "a")).unwrap();
    assert!(registrar.renew(&peer, now).is_err());
    registrar.sweep(now).unwrap();
    assert!(registrar.problems()[0].contains("nodes/a"), "{:?}", registrar.problems());
    fs::remove_dir(file(&home, "a")).unwrap();
    registrar.renew(&peer, now).unwrap();
    assert!(registrar.problems().is_empty());
}

#[test]
fn the_longest_name_can_be_forgotten() {
    let home = tempfile::tempdir().unwrap();
    let (registrar, now) = (open(&home), SystemTime::now());
    let long = "a".repeat(253);
    join(&registrar, &mut node(&home, "long", &long), now).unwrap();
    assert!(Registrar::forget(home.path(), &name(&long)).unwrap());
    // Stopped before it noticed, it notices at its next start.
    assert!(join(&open(&home), &mut node(&home, "next", &long), now).is_ok());
}

#[test]
fn a_damaged_certificate_costs_a_join_and_a_damaged_key_a_new_key() {
    let home = tempfile::tempdir().unwrap();
    let (registrar, now) = (open(&home), SystemTime::now());
    let path = home.path().join("real");
    let peer = join(&registrar, &mut node(&home, "real", "a"), now).unwrap();
    let whole = fs::read_to_string(&path).unwrap();
    let key_end = whole.find("-----BEGIN CERTIFICATE").unwrap();
    let cut = |end: usize| whole[..end].to_owned();
    let broken = whole.replacen("-----BEGIN CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\n!", 1);
    for damaged in [cut(key_end + 100), cut(whole.len() - 40), cut(whole.len() - 400), broken] {
        secret::write(&path, &damaged).unwrap();
        let mut again = node(&home, "real", "a");
        assert_eq!((again.left(now), again.notes().len()), (None, 1), "{damaged}");
        let joined = join(&registrar, &mut again, now).unwrap();
        assert_eq!(joined.key, peer.key, "with the same key, to which the name is bound");
        assert_eq!(node(&home, "real", "a").notes(), [] as [String; 0]);
    }
    for damaged in [cut(0), cut(20), cut(key_end / 2), whole.replacen("BEGIN PRIVATE", "BEGIN PRIVAT3", 1)] {
        secret::write(&path, &damaged).unwrap();
        let mut again = node(&home, "real", "a");
        let notes = again.notes().join("");
        assert!(notes.contains("real.damaged") && notes.contains("forget-node a"), "{damaged}: {notes}");
        assert_eq!(fs::read_to_string(path.with_extension("damaged")).unwrap(), damaged);
        assert!(matches!(join(&registrar, &mut again, now), Err(Refusal::Bound { .. })));
        Registrar::forget(home.path(), &name("a")).unwrap();
        assert_eq!(registrar.sweep(now).unwrap(), 1);
        let mut after = node(&home, "real", "a");
        assert!(after.notes().is_empty(), "the new key was kept");
        join(&registrar, &mut after, now).unwrap();
    }
}

#[test]
fn a_credential_of_another_node_is_refused_with_both_names() {
    let home = tempfile::tempdir().unwrap();
    let registrar = open(&home);
    join(&registrar, &mut node(&home, "real", "a"), SystemTime::now()).unwrap();
    let token = registrar.token().clone();
    let error =
        Credential::open(&home.path().join("real"), name("b"), token.clone()).unwrap_err().to_string();
    assert!(error.contains("credential of node a") && error.contains("this is node b"), "{error}");
    assert!(error.contains("empty the directory"), "{error}");
    // Also when its key is damaged, or of it only the certificate is left.
    let whole = fs::read_to_string(home.path().join("real")).unwrap();
    let certificates = &whole[whole.find("-----BEGIN CERTIFICATE").unwrap()..];
    secret::write(&home.path().join("real"), certificates).unwrap();
    let error = Credential::open(&home.path().join("real"), name("b"), token).unwrap_err();
    assert!(matches!(error, CredentialError::Foreign { .. }));
    assert!(home.path().join("real").exists(), "nothing was touched");
}

#[test]
fn a_certificate_that_cannot_be_written_holds_all_the_same_until_it_can() {
    let home = tempfile::tempdir().unwrap();
    let (registrar, now) = (open(&home), SystemTime::now());
    fs::create_dir(home.path().join("dir")).unwrap();
    let mut real = node(&home, "dir/real", "a");
    let chain = registrar.join(real.node(), &real.request().unwrap(), HOST, now).unwrap();
    // Nothing can be written where a directory has the name.
    fs::remove_file(home.path().join("dir/real")).unwrap();
    fs::create_dir(home.path().join("dir/real")).unwrap();
    real.accept(chain).unwrap();
    assert!(real.keep().unwrap_err().to_string().contains("dir/real"));
    assert!(real.left(now).is_some());
    // The whole directory is gone.
    fs::remove_dir_all(home.path().join("dir")).unwrap();
    real.keep().unwrap();
    assert!(node(&home, "dir/real", "a").left(now).is_some());
}

#[test]
fn a_name_that_is_proven_goes_to_who_proves_it_and_the_key_before_loses_it() {
    let home = tempfile::tempdir().unwrap();
    let (registrar, now) = (open(&home), SystemTime::now());
    let before = join(&registrar, &mut node(&home, "before", "a"), now).unwrap();
    let mut after = node(&home, "after", "a");
    let chain = registrar.join_proven(after.node(), &after.request().unwrap(), HOST, now).unwrap();
    after.accept(chain.clone()).unwrap();
    let peer = Peer::read(&chain[0]).unwrap();
    assert!(registrar.admits(&peer, now).is_ok() && open(&home).admits(&peer, now).is_ok());
    assert!(matches!(registrar.admits(&before, now), Err(Refusal::Bound { .. })));
    // By the token alone nobody takes it back.
    let refusal = join(&registrar, &mut node(&home, "before", "a"), now).unwrap_err();
    assert!(matches!(refusal, Refusal::Bound { .. }));
}
