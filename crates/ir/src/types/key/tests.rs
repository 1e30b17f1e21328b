// SPDX-License-Identifier: Apache-2.0

use proptest::prelude::*;

use super::*;
use crate::Snapshot;

fn name(namespace: &str, name: &str) -> ObjectName {
    ObjectName::new(namespace, name)
}

/// Texts that are names, and some that only look like parts of a key.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z0-9]{1,3}",
        1 => "[a-z0-9]{1,2}[-./][a-z0-9]{1,2}",
        1 => "[a-z/.]{0,4}",
        1 => any::<String>(),
    ]
}

fn object() -> impl Strategy<Value = ObjectName> {
    (text(), text()).prop_map(|(namespace, object)| name(&namespace, &object))
}

fn any_key() -> impl Strategy<Value = ResourceKey> {
    prop_oneof![
        Just(ResourceKey::MeshDefaults),
        text().prop_map(|name| ResourceKey::Node(name.into())),
        any::<u32>().prop_map(|number| ResourceKey::Identity(IdentityNumber(number))),
        object().prop_map(ResourceKey::Workload),
        object().prop_map(ResourceKey::Service),
        object().prop_map(ResourceKey::Endpoints),
        object().prop_map(ResourceKey::RateLimit),
        (prop::sample::select(&ListenerParentKind::ALL[..]), object(), text()).prop_map(
            |(kind, name, listener)| ResourceKey::Listener {
                parent: ListenerParent { kind, name },
                listener: listener.into()
            }
        ),
        (prop::sample::select(&RouteKind::ALL[..]), object(), any::<u32>())
            .prop_map(|(kind, origin, rule)| ResourceKey::Route { kind, origin, rule }),
        (prop::sample::select(&PolicyKind::ALL[..]), object(), 0..3u32)
            .prop_map(|(kind, name, index)| ResourceKey::Policy { kind, name, index }),
        (prop::sample::select(&PolicyKind::ALL[..]), text(), 0..3u32)
            .prop_map(|(kind, text, index)| { ResourceKey::Policy { kind, name: name("", &text), index } }),
        text().prop_map(|text| ResourceKey::parse(&text)),
    ]
}

#[test]
fn the_text_names_kind_group_and_object() {
    let route = |kind| ResourceKey::Route { kind, origin: name("shop", "checkout"), rule: 0 };
    let listener = |kind| ResourceKey::Listener {
        parent: ListenerParent { kind, name: name("shop", "edge") },
        listener: "http".into(),
    };
    let policy = |kind, namespace| ResourceKey::Policy { kind, name: name(namespace, "x"), index: 2 };
    for (key, text) in [
        (ResourceKey::MeshDefaults, "meshdefaults"),
        (ResourceKey::Node("n1".into()), "node/n1"),
        (ResourceKey::Identity(IdentityNumber(256)), "identity/256"),
        (ResourceKey::Workload(name("shop", "a.b")), "pod/shop/a.b"),
        (ResourceKey::Service(name("shop", "a")), "service/shop/a"),
        (ResourceKey::Endpoints(name("shop", "a-1")), "endpointslice.discovery.k8s.io/shop/a-1"),
        (ResourceKey::RateLimit(name("shop", "a")), "ratelimitpolicy.weft.dev/shop/a"),
        (route(RouteKind::HttpRoute), "httproute.gateway.networking.k8s.io/shop/checkout/0"),
        (route(RouteKind::GrpcRoute), "grpcroute.gateway.networking.k8s.io/shop/checkout/0"),
        (listener(ListenerParentKind::Gateway), "gateway.gateway.networking.k8s.io/shop/edge/http"),
        (listener(ListenerParentKind::ListenerSet), "listenerset.gateway.networking.k8s.io/shop/edge/http"),
        (policy(PolicyKind::NetworkPolicy, "shop"), "networkpolicy.networking.k8s.io/shop/x/2"),
        (policy(PolicyKind::CiliumNetworkPolicy, "shop"), "ciliumnetworkpolicy.cilium.io/shop/x/2"),
        (
            policy(PolicyKind::CiliumClusterwideNetworkPolicy, ""),
            "ciliumclusterwidenetworkpolicy.cilium.io/x/2",
        ),
    ] {
        assert_eq!((key.to_string(), key.text_len()), (text.to_owned(), text.len()));
        assert_eq!(ResourceKey::parse(text), key);
    }
}

#[test]
fn a_text_that_is_nearly_a_key_is_unknown() {
    for text in [
        "",
        "/",
        "pod",
        "pod/shop",
        "pod/shop/",
        "pod//a",
        "pod/shop/a/b",
        "pod/Shop/a",
        "service/shop/a.b",
        "identity/+1",
        "identity/01",
        "identity/4294967296",
        "httproute.gateway.networking.k8s.io/shop/a",
        "httproute.gateway.networking.k8s.io/shop/a/x",
        "httproute/shop/a/0",
        "ciliumnetworkpolicy.cilium.io/x/0",
        "ciliumclusterwidenetworkpolicy.cilium.io/shop/x/0",
        "meshdefaults/",
    ] {
        let key = ResourceKey::parse(text);
        assert!(matches!(key, ResourceKey::Unknown(_)), "{text}");
        assert_eq!(key.to_string(), text);
    }
}

#[test]
fn namespaces_and_names_do_not_run_together() {
    let (a, b) = (ResourceKey::Workload(name("x", "y/z")), ResourceKey::Workload(name("x/y", "z")));
    assert_eq!(a.to_string(), b.to_string());
    assert!(a != b && !a.is_valid() && !b.is_valid(), "so neither is read or published");
    assert!(matches!(ResourceKey::parse(&a.to_string()), ResourceKey::Unknown(_)));
}

proptest! {
    #[test]
    fn every_key_that_can_be_read_has_a_text_of_its_own(a in any_key(), b in any_key()) {
        prop_assert_eq!(a.text_len(), a.to_string().len());
        if a.is_valid() {
            prop_assert_eq!(&ResourceKey::parse(&a.to_string()), &a);
        }
        let read = [ResourceKey::parse(&a.to_string()), ResourceKey::parse(&b.to_string())];
        prop_assert_eq!(read[0].to_string(), a.to_string());
        prop_assert_eq!(read[0] == read[1], a.to_string() == b.to_string());
        if a.is_valid() && b.is_valid() {
            prop_assert_eq!(a == b, a.to_string() == b.to_string());
        }
    }

    #[test]
    fn keys_of_one_kind_are_neighbours(keys in prop::collection::btree_set(any_key(), 0..40)) {
        let mut kinds: Vec<_> = keys.iter().map(std::mem::discriminant).collect();
        kinds.dedup();
        let distinct: std::collections::HashSet<_> = kinds.iter().collect();
        prop_assert_eq!(distinct.len(), kinds.len());
        let snapshot = Snapshot::default();
        prop_assert_eq!(snapshot.policies().count(), 0);
    }
}
