// SPDX-License-Identifier: Apache-2.0
//! However the objects came to be what they are, what is told of them step by step comes to what one
//! translation of all of them says.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use weft_ir::Resource;

#[path = "support/mesh.rs"]
mod mesh;

use mesh::Mesh;

/// The sources, in whose order of several objects of one name the first is used.
const SOURCES: [&str; 4] = ["a.yaml", "b.yaml", "c.yaml", "d.yaml"];

/// An object with two of everything that others may ask of it.
fn object() -> impl Strategy<Value = String> {
    let name = || prop_oneof![Just("x"), Just("y")];
    let common = (name(), name(), any::<bool>(), 0_u8..3);
    (0_usize..14, common, name(), name()).prop_map(|(kind, (namespace, name, yes, number), other, place)| {
        let metadata = format!("metadata: {{name: {name}, namespace: {namespace}}}");
        match kind {
            0 => format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{team: {other}}}}}"),
            1 => format!(
                "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n\
                 status: {{addresses: [{{type: InternalIP, address: 10.0.0.{number}}}]}}"
            ),
            2 => format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {other}}}}}\n\
                 spec: {{nodeName: {place}}}\nstatus: {{phase: {}, podIP: 10.1.0.{number}}}",
                if yes { "Running" } else { "Failed" }
            ),
            3 => format!(
                "apiVersion: v1\nkind: Service\n{metadata}\nspec: {{clusterIP: 10.2.0.1, ports: [{{name: {other}, port: {}}}]}}",
                80 + u16::from(number)
            ),
            4 => format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, namespace: {namespace}, \
                 labels: {{kubernetes.io/service-name: {other}}}}}\naddressType: IPv4\nendpoints: [{{addresses: [10.1.0.{number}]}}]"
            ),
            5 => format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: {name}}}\n\
                 spec: {{controllerName: {}}}",
                if number > 0 { "weft.dev/gateway-controller" } else { "example.com/other" }
            ),
            6 | 11 => format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n{metadata}\nspec: {{gatewayClassName: {other}, listeners: \
                 [{{name: l{place}, port: {}, protocol: HTTP, allowedRoutes: {{namespaces: {}}}}}]}}",
                80 + u16::from(number),
                if yes { "{from: Selector, selector: {matchLabels: {team: x}}}" } else { "{from: All}" }
            ),
            7 | 8 | 12 => format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n{metadata}\nspec: {{parentRefs: [{{{}name: {other}{}}}], \
                 rules: [{{backendRefs: [{{name: {place}, namespace: {other}, port: {}}}]}}]}}",
                if yes { "" } else { "group: '', kind: Service, " },
                match (yes, number) {
                    (true, 0) => format!(", namespace: {place}, sectionName: l{place}"),
                    (true, _) => format!(", namespace: {place}"),
                    (false, _) => String::new(),
                },
                if number == 2 { "none".to_owned() } else { (80 + u16::from(number)).to_string() }
            ),
            9 => format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\n{metadata}\nspec: {{from: [{{group: \
                 gateway.networking.k8s.io, kind: HTTPRoute, namespace: {other}}}], to: [{{group: '', kind: Service, name: {place}}}]}}"
            ),
            10 => format!(
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n{metadata}\nspec: {{podSelector: {{matchLabels: \
                 {{app: {other}}}}}, ingress: [{{{}: [{{port: {}}}]}}]}}",
                if yes { "ports" } else { "portz" },
                80 + u16::from(number)
            ),
            _ => format!(
                "apiVersion: weft.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {{name: {name}, namespace: {namespace}, \
                 creationTimestamp: '2026-01-0{}T00:00:00Z'}}\nspec: {{targetRef: {{{}, name: {other}}}, \
                 local: {{requests: {number}, interval: 1s}}}}",
                1 + number,
                if yes { "group: '', kind: Service" } else { "group: gateway.networking.k8s.io, kind: HTTPRoute" }
            ),
        }
    })
}

/// Which sources are given what, at what time; no objects stand for a source that is gone.
fn step() -> impl Strategy<Value = (Vec<(usize, Vec<String>)>, u64)> {
    (vec((0..SOURCES.len(), vec(object(), 0..6)), 1..3), prop_oneof![4 => 0_u64..60, 1 => 3_600_u64..4_000])
}

fn kinds(mesh: &Mesh) -> BTreeMap<&'static str, weft_translate::ObjectCounts> {
    mesh.translation.counts()
}

#[test]
fn one_change_tells_of_what_it_concerns_and_of_nothing_else() {
    let pod = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: x}}\n\
             spec: {{nodeName: n}}\nstatus: {{phase: Running, podIP: 10.1.0.1}}\n"
        )
    };
    let keys = |resources: &[Resource]| {
        resources.iter().map(|one| one.key().to_string()).collect::<std::collections::BTreeSet<_>>()
    };
    let mut mesh = Mesh::of([("a.yaml", &*pod("a")), ("b.yaml", &*pod("b"))]);
    mesh.store.apply("c.yaml", &pod("c"));
    let delta = mesh.update(1);
    assert_eq!(keys(&delta.change.upserts).len(), 1, "its identity is known: {delta:?}");
    assert!(delta.identities.is_empty());
    // A label of the namespace is part of the identity of all its pods.
    mesh.store.apply("n.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: x, labels: {a: b}}\n");
    let delta = mesh.update(2);
    assert_eq!(keys(&delta.change.upserts).len(), 4, "{delta:?}");
    assert_eq!(delta.change.removes.len(), 1, "the identity that nobody has any more");
    mesh.store.apply("m.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: y, labels: {a: b}}\n");
    assert!(mesh.update(3).change.upserts.is_empty());
}

/// For each of so many names a Service, its slice, two pods, a route at the one Gateway and a policy, each in
/// a file of its own.
fn cluster(names: u32) -> BTreeMap<String, String> {
    let mut files = BTreeMap::from([(
        "base".to_owned(),
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: weft}\n\
         spec: {controllerName: weft.dev/gateway-controller}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: x}\n\
         spec: {gatewayClassName: weft, listeners: [{name: http, port: 80, protocol: HTTP}]}\n---\n\
         apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n"
            .to_owned(),
    )]);
    for number in 0..names {
        let mut add = |kind: &str, text: String| files.insert(format!("{kind}{number}"), text);
        let metadata = |name: String| format!("metadata: {{name: {name}{number}, namespace: x}}");
        let (s, r) = (metadata("s".into()), metadata("r".into()));
        add(
            "service",
            format!(
                "apiVersion: v1\nkind: Service\n{s}\nspec: {{clusterIP: 10.2.0.1, ports: [{{port: 80}}]}}\n"
            ),
        );
        add(
            "slice",
            format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: e{number}, namespace: x, labels: \
                 {{kubernetes.io/service-name: s{number}}}}}\naddressType: IPv4\nendpoints: [{{addresses: [10.1.0.1]}}]\n"
            ),
        );
        for pod in ["p", "q"] {
            let metadata = metadata(pod.into());
            add(
                pod,
                format!(
                    "apiVersion: v1\nkind: Pod\n{metadata}\nspec: {{nodeName: n}}\n\
                     status: {{phase: Running, podIP: 10.1.0.1}}\n"
                ),
            );
        }
        add(
            "route",
            format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n{r}\nspec: {{parentRefs: [{{name: g}}], \
                 rules: [{{backendRefs: [{{name: s{number}, port: 80}}]}}]}}\n"
            ),
        );
        add(
            "policy",
            format!(
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n{s}\n\
                 spec: {{podSelector: {{}}, ingress: [{{ports: [{{port: 80}}]}}]}}\n"
            ),
        );
    }
    files
}

#[test]
fn a_change_costs_the_same_in_a_cluster_of_any_size() {
    let texts = |names| -> Vec<_> { cluster(names).into_iter().collect() };
    for (file, from, to, expected) in [
        ("p7", "10.1.0.1", "10.1.0.2", 1),
        ("slice7", "10.1.0.1", "10.1.0.2", 1),
        ("policy7", "80", "81", 1),
        // With the route that names it.
        ("service7", "10.2.0.1", "10.2.0.2", 2),
        ("route7", "port: 80", "port: 80, weight: 2", 1),
        // With the Gateway that counts it.
        ("route7", "name: g", "name: none", 2),
    ] {
        for names in [10, 500] {
            let texts = texts(names);
            let mut mesh = Mesh::of(texts.iter().map(|(name, text)| (&**name, &**text)));
            let text = texts.iter().find(|(name, _)| name == file).unwrap().1.replace(from, to);
            mesh.store.apply(file, &text);
            assert_eq!(mesh.update(1).translated, expected, "{file} among {names}: {from} becomes {to}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn step_by_step_comes_to_the_same_as_all_at_once(steps in vec(step(), 1..12)) {
        let mut mesh = Mesh::new(Vec::new());
        let mut texts: BTreeMap<&str, String> = BTreeMap::new();
        let mut now = 0;
        for (changes, later) in steps {
            now += later;
            for (source, objects) in changes {
                match objects.is_empty() {
                    true => drop(texts.remove(SOURCES[source])),
                    false => drop(texts.insert(SOURCES[source], objects.join("\n---\n"))),
                }
            }
            let gone = SOURCES.into_iter().filter(|source| !texts.contains_key(source));
            mesh.store.apply_all(texts.iter().map(|(source, text)| (*source, &**text)), gone);
            mesh.update(now);

            let mut fresh = Mesh::new(mesh.records.clone());
            fresh.store.apply_all(texts.iter().map(|(source, text)| (*source, &**text)), []);
            fresh.update(now);
            prop_assert_eq!(&mesh.resources, &fresh.resources);
            prop_assert_eq!(mesh.told(), fresh.told());
            prop_assert_eq!(&mesh.problems, &fresh.problems);
            prop_assert_eq!(kinds(&mesh), kinds(&fresh));
            let kept: Vec<_> = mesh.translation.statuses().collect();
            prop_assert_eq!(mesh.told(), kept);

            let delta = mesh.update(now);
            prop_assert!(delta.change.upserts.is_empty() && delta.change.removes.is_empty());
            prop_assert!(delta.statuses.is_empty() && delta.problems.is_none() && delta.identities.is_empty());
        }
    }
}
