// SPDX-License-Identifier: Apache-2.0

use super::{entry::Content, *};

const GOOD: &str =
    "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\nspec:\n  ports:\n  - port: 80\n";
const OTHER: &str = "apiVersion: v1\nkind: Service\nmetadata:\n  name: b\n  namespace: shop\nspec: {}\n";

fn texts(store: &Store) -> Vec<String> {
    store.problems().map(ToString::to_string).collect()
}

fn names(store: &Store) -> Vec<String> {
    store
        .objects()
        .iter()
        .filter(|(_, entry)| entry.good().is_some())
        .map(|(key, _)| key.to_string())
        .collect()
}

#[test]
fn an_object_that_breaks_is_refused_at_once_and_others_go_on() {
    let mut store = Store::default();
    store.apply("f.yaml", &format!("{GOOD}---\n{OTHER}"));
    assert_eq!(names(&store), ["Service shop/a", "Service shop/b"]);
    store.apply("f.yaml", &format!("{}---\n{OTHER}", GOOD.replace("80", "80000")));
    assert_eq!(names(&store), ["Service shop/b"]);
    assert_eq!(store.objects().len(), 2, "what is refused is still there to be closed");
    let expected =
        "f.yaml:6: Service shop/a: spec.ports[0].port: invalid value: integer `80000`, expected u16";
    assert_eq!(texts(&store), [expected]);
    store.apply("f.yaml", OTHER);
    assert_eq!((names(&store), store.objects().len()), (vec!["Service shop/b".to_owned()], 1));
    assert_eq!(texts(&store), [""; 0]);
}

#[test]
fn a_document_that_is_not_recognized_keeps_what_its_source_had() {
    let good = format!("{GOOD}---\n{OTHER}");
    let broken = [
        "spec: [\n".to_owned(),
        GOOD.replace("spec:", "spec: ["),
        GOOD.replace("name: a", "name: 5"),
        GOOD.replace("name: a", "name: ''"),
        GOOD.replace("kind: Service", "kind: [Service]"),
        GOOD.replace("apiVersion: v1\n", ""),
        GOOD.replace("apiVersion: v1", "apiVersion: apps/v1"),
        GOOD.replace("kind: Service", "kind: Srevice"),
        "apiVersion: v1\nkind: list\nitems: []\n".to_owned(),
        // As far as a writer has come.
        "apiVersion: networking.k8s.io/v1\nkind: N\n".to_owned(),
        "apiVersion: v1\nkind: Se\n".to_owned(),
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTP\nmetadata:\n".to_owned(),
        "apiVersion: networking.k8s.io/v2\nkind: NetworkPolicyList\nitems: []\n".to_owned(),
        "apiVersion: networking.k8s.io/v1\nkind: NetPolicy\nmetadata: {name: a}\n".to_owned(),
        GOOD.replace("name: a", "name: A"),
        GOOD.replace("name: a", &format!("name: {}", "a".repeat(5 << 20))),
        GOOD.replace("namespace: shop", "namespace: 5"),
        GOOD.replace("namespace: shop", "namspace: shop"),
        GOOD.replace("namespace: shop", "NameSpace: shop"),
        GOOD.replace("namespace: shop", "namespace: shop, name_space: other"),
        GOOD.replace("namespace: shop}", "ns: shop}"),
        GOOD.replace(", namespace: shop}", "}\nnamespace: shop"),
        GOOD.replace(", namespace: shop}", "}").replace("spec:\n", "spec:\n  namespace: shop\n"),
        format!("apiVersion: v1\nkind: List\nitem: [{}]\n", "{}"),
        format!(
            "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {}\n",
            "{name: 5}"
        ),
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: List, items: []}\n".to_owned(),
        "a: &a [x]\nb: *c\n".to_owned(),
        "not an object\n".to_owned(),
    ];
    for broken in broken {
        let mut store = Store::default();
        store.apply("f.yaml", &good);
        store.take_changes();
        // Another change of the same source is made all the same.
        store.apply("f.yaml", &format!("{broken}---\n{}", GOOD.replace("name: a", "name: c")));
        assert_eq!(names(&store), ["Service shop/a", "Service shop/b", "Service shop/c"], "{broken}");
        assert_eq!(store.take_changes().len(), 1);
        let problem =
            store.problems().find(|problem| problem.severity == Severity::Unrecognized).unwrap().to_string();
        assert!(problem.ends_with("; what was read before stays"), "{problem}");
        store.apply("f.yaml", &broken);
        assert_eq!(names(&store).len(), 3, "however often it is read");
        store.apply("f.yaml", OTHER);
        assert_eq!(names(&store), ["Service shop/b"]);
        assert_eq!(store.problems().count(), 0);
    }
}

#[test]
fn a_field_of_metadata_that_is_not_known_refuses_what_grants_and_is_noted_elsewhere() {
    for (api_version, kind, spec) in [
        ("networking.k8s.io/v1", "NetworkPolicy", "{podSelector: {}}"),
        ("cilium.io/v2", "CiliumNetworkPolicy", "{endpointSelector: {}, ingress: [{}]}"),
        (
            "weft.dev/v1alpha1",
            "RateLimitPolicy",
            "{targetRef: {group: '', kind: Service, name: a}, local: {requests: 1, interval: 1s}}",
        ),
        ("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", "{from: [], to: []}"),
    ] {
        let text = |metadata: &str| {
            format!(
                "apiVersion: {api_version}\nkind: {kind}\nmetadata:\n  name: p\n  {metadata}\nspec: {spec}\n"
            )
        };
        let mut store = Store::default();
        store.apply("f.yaml", &text("namespace: prod"));
        assert_eq!(texts(&store), [""; 0], "{kind}");
        store.apply("f.yaml", &text("lables: {a: b}"));
        let expected = format!("f.yaml:5: {kind} default/p: metadata.lables: is not known");
        assert_eq!(texts(&store), [expected]);
    }
    let mut store = Store::default();
    store.apply("f.yaml", &OTHER.replace("  name: b\n", "  name: b\n  lables: {a: b}\n"));
    assert_eq!(names(&store), ["Service shop/b"]);
    let problem = store.problems().next().unwrap();
    let expected = (Severity::Note, "has no effect: metadata.lables (it is not known)");
    assert_eq!((problem.severity, &*problem.message), expected);
}

#[test]
fn a_change_and_a_move_are_told_once() {
    let key = |name: &str| ObjectKey { kind: Kind::Service, namespace: "shop".into(), name: name.into() };
    let mut store = Store::default();
    store.apply("f.yaml", &format!("{GOOD}---\n{OTHER}"));
    assert_eq!(store.take_changes(), [key("a"), key("b")].into());
    assert!(store.take_changes().is_empty());
    store.apply("f.yaml", &format!("{GOOD}---\n# higher\n{OTHER}"));
    assert_eq!(store.take_changes(), [key("b")].into(), "what is wrong with it is at another line now");
    store.apply_all([("e.yaml", OTHER), ("f.yaml", GOOD)], []);
    assert_eq!(store.take_changes(), [key("b")].into());
    store.apply_all([("e.yaml", OTHER), ("f.yaml", GOOD)], []);
    assert!(store.take_changes().is_empty());
    store.apply("f.yaml", &GOOD.replace("80", "80000"));
    assert_eq!(store.take_changes(), [key("a")].into());
    store.apply("f.yaml", &GOOD.replace("80", "90000"));
    assert_eq!(store.take_changes(), [key("a")].into(), "refused for another value");
    store.remove("e.yaml");
    assert_eq!(store.take_changes(), [key("b")].into());
}

#[test]
fn of_two_objects_with_one_name_the_first_is_used() {
    let mut store = Store::default();
    store.apply("b.yaml", GOOD);
    store.apply("a.yaml", &format!("{GOOD}---\n{GOOD}"));
    assert_eq!(
        texts(&store),
        [
            "a.yaml:8: Service shop/a: is also at a.yaml:1, which is used",
            "b.yaml:1: Service shop/a: is also at a.yaml:1, which is used"
        ]
    );
}

#[test]
fn a_list_holds_objects() {
    let mut store = Store::default();
    let list =
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n";
    store.apply("f.yaml", list);
    assert_eq!(names(&store), ["Service default/a"]);
}

#[test]
fn what_no_node_would_take_is_refused_before_it_is_sent() {
    for (text, expected) in [
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  nodeName: No_Node\n".to_owned(),
            "f:5: Pod default/a: spec.nodeName: `No_Node` is no name of a node",
        ),
        (
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: a\n  labels:\n    \
             kubernetes.io/service-name: a.b\naddressType: IPv4\n"
                .to_owned(),
            "f:6: EndpointSlice default/a: metadata.labels[kubernetes.io/service-name]: `a.b` is no name of a \
             Service",
        ),
        (
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: a}\nspec:\n  \
             gatewayClassName: weft\n  listeners:\n  - {name: A/b, port: 80, protocol: HTTP}\n"
                .to_owned(),
            "f:7: Gateway default/a: spec.listeners[0].name: must be a DNS subdomain (RFC 1123)",
        ),
        (
            GOOD.replace("spec:", &format!("spec:\n  clusterIP: {}", "x".repeat(100))),
            &format!("f:5: Service shop/a: spec.clusterIPs: `{}` is no IP address", "x".repeat(64)),
        ),
    ] {
        let mut store = Store::default();
        store.apply("f", &text);
        assert_eq!((texts(&store), names(&store)), (vec![expected.to_owned()], vec![]));
    }
}

#[test]
fn of_a_list_with_an_item_that_is_not_recognized_nothing_is_used() {
    let item = |name: &str| format!("- {{apiVersion: v1, kind: Service, metadata: {{name: {name}}}}}\n");
    let list = |items: &[&str]| {
        let items: String = items.iter().map(|name| item(name)).collect();
        format!("apiVersion: v1\nkind: List\nitems:\n{items}")
    };
    let mut store = Store::default();
    store.apply("f.yaml", &list(&["a", "b"]));
    store.apply("f.yaml", &list(&["c", "5"]));
    assert_eq!(names(&store), ["Service default/a", "Service default/b"]);
    assert_eq!(texts(&store).len(), 1, "{:?}", texts(&store));
    store.apply("f.yaml", &list(&["b", "c"]));
    assert_eq!(names(&store), ["Service default/b", "Service default/c"]);
}

#[test]
fn a_file_with_too_many_documents_keeps_what_it_had() {
    let mut store = Store::default();
    store.apply("f.yaml", GOOD);
    store.apply("f.yaml", &"apiVersion: apps/v1\nkind: X\n---\n".repeat(crate::yaml::MAX_DOCUMENTS + 1));
    assert_eq!(names(&store), ["Service shop/a"]);
    let problem =
        "f.yaml:150000: has more than 50000 documents: what follows is not read; what was read before stays";
    assert_eq!(texts(&store), [problem]);
}

#[test]
fn the_generation_is_what_the_object_says_and_else_that_of_an_object_just_made() {
    for value in ["80", "80000"] {
        let mut store = Store::default();
        store.apply("f.yaml", &GOOD.replace("80", value));
        store.apply("f.yaml", &GOOD.replace("80", value).replace("name: a,", "name: a, labels: {x: y},"));
        assert!(store.objects().values().all(|entry| entry.generation() == 1));
        store.apply("f.yaml", &GOOD.replace("80", value).replace("name: a,", "name: a, generation: 7,"));
        assert!(store.objects().values().all(|entry| entry.generation() == 7));
    }
}

#[test]
fn many_sources_together_are_what_they_are_one_by_one() {
    let files: Vec<(String, String)> = (0..20)
        .map(|number| (format!("{number}.yaml"), OTHER.replace("name: b", &format!("name: b{}", number / 2))))
        .collect();
    let (mut together, mut one_by_one) = (Store::default(), Store::default());
    together.apply_all(files.iter().map(|(name, text)| (&**name, &**text)), []);
    for (name, text) in &files {
        one_by_one.apply(name, text);
    }
    assert_eq!(names(&together), names(&one_by_one));
    assert_eq!(texts(&together), texts(&one_by_one));
    assert_eq!(together.problems().count(), 10, "every object is there twice");
}

/// Numbers that look random and are the same at every run (Knuth, MMIX).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A text with a few of a few objects; some are there twice, in one source or in several, some are refused,
/// and some documents cannot be recognized.
fn some_objects(numbers: &mut Numbers) -> String {
    let mut text = String::new();
    for _ in 0..numbers.below(5) {
        let (name, value) = (numbers.below(6), numbers.below(3));
        let namespace = format!("n{}", name % 2);
        text += &match numbers.below(10) {
            0 => format!(
                "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}, labels: {{x: v{value}}}}}\n"
            ),
            1 => format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: s{name}, namespace: n0}}\nspec: {{clusterIP: 10.0.0.{value}00}}\n"
            ),
            2 => format!(
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: k{name}, namespace: {namespace}}}\n\
                 spec: {{podSelector: {{matchLabels: {{app: a{value}}}}}, {}: []}}\n",
                ["ingress", "egress", "ingres"][usize::try_from(value).unwrap()]
            ),
            3 => format!(
                "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: c{name}, namespace: {namespace}}}\n\
                 spec: {{endpointSelector: {{}}, ingress: [{{toPorts: [{{ports: [{{port: \"{value}0000\", protocol: TCP}}]}}]}}]}}\n"
            ),
            4 => format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r{name}, namespace: n0}}\n\
                 spec: {{parentRefs: [{{name: s{value}, kind: Service, group: ''}}], rules: [{{backendRefs: [{{name: s0, port: {value}0000}}]}}]}}\n"
            ),
            5 => format!(
                "apiVersion: weft.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {{name: l{name}, namespace: n0}}\n\
                 spec: {{targetRef: {{kind: Service, name: s{name}}}, local: {{requests: {value}, interval: 1s}}}}\n"
            ),
            6 if value < 2 => "spec: [\n".to_owned(),
            _ => format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{name}, namespace: {namespace}, labels: {{app: a{value}}}}}\n\
                 spec: {{nodeName: one}}\nstatus: {{phase: Running, podIP: 10.1.0.{name}}}\n",
            ),
        };
        text += "---\n";
    }
    text
}

/// What a store holds, without its history.
fn content(store: &Store) -> Vec<(ObjectKey, Content, (Arc<str>, u32))> {
    let entry =
        |(key, entry): (&ObjectKey, &Entry)| (key.clone(), entry.content.clone(), entry.place.clone());
    store.objects().iter().map(entry).collect()
}

/// A directory, and three stores that follow it: one sees each change, one several changes at once, file by
/// file and in another order, and one is made anew as by a restart.
#[test]
fn the_state_depends_on_the_texts_and_not_on_their_history() {
    let mut numbers = Numbers(7);
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    let (mut first, mut second) = (Store::default(), Store::default());
    let (mut seen, mut told) = (BTreeMap::<String, Option<String>>::new(), BTreeMap::new());
    let (mut equal, mut kept) = (0, 0);
    for round in 0..400 {
        let mut changes = BTreeMap::new();
        for _ in 0..=numbers.below(2) {
            let text = (numbers.below(4) > 0).then(|| some_objects(&mut numbers));
            changes.insert(format!("{}.yaml", numbers.below(5)), text);
        }
        let named_before = |source: &str| -> Vec<ObjectKey> {
            first.sources.get(source).map(|source| source.found.keys().cloned().collect()).unwrap_or_default()
        };
        let before: Vec<_> = changes.keys().map(|source| (source.clone(), named_before(source))).collect();
        let new = changes.iter().filter_map(|(name, text)| Some((&**name, text.as_deref()?)));
        let gone = changes.iter().filter(|(_, text)| text.is_none()).map(|(name, _)| &**name);
        first.apply_all(new, gone);
        for (source, keys) in before {
            if first.sources.get(&*source).is_some_and(|source| source.unrecognized > 0) {
                assert!(keys.iter().all(|key| first.objects.contains_key(key)), "round {round}: {source}");
                kept += keys.len();
            }
        }
        for key in first.take_changes() {
            match first.objects.get(&key) {
                Some(entry) => told.insert(key, entry.content.clone()),
                None => told.remove(&key),
            };
        }
        let now: BTreeMap<_, _> =
            content(&first).into_iter().map(|(key, content, _)| (key, content)).collect();
        assert_eq!(told, now, "round {round}: every change was told");
        for (source, text) in changes {
            match &text {
                Some(text) => files.insert(source.clone(), text.clone()),
                None => files.remove(&source),
            };
            seen.insert(source, text);
        }
        let mut fresh = Store::default();
        fresh.apply_all(files.iter().map(|(name, text)| (&**name, &**text)), []);
        // A controller that starts now would publish nothing.
        let stops = fresh.problems().any(|problem| problem.severity == Severity::Unrecognized);
        if stops && round % 3 > 0 {
            continue;
        }
        for (source, text) in std::mem::take(&mut seen).iter().rev() {
            match text {
                Some(text) => second.apply(source, text),
                None => second.remove(source),
            }
        }
        if stops {
            continue;
        }
        for (name, store) in [("each change", &first), ("few changes", &second)] {
            assert_eq!(content(store), content(&fresh), "round {round}: {name}");
            assert!(store.claims.values().all(|claims| !claims.is_empty()), "nothing is left behind");
        }
        equal += 1;
    }
    assert!(equal > 50 && kept > 50, "both happened: {equal} {kept}");
}

#[test]
fn whether_anything_would_be_left_is_known_before() {
    let mut store = Store::default();
    let foreign = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    let nobody = || [("", ""); 0];
    assert!(store.would_be_empty(nobody(), []) && store.would_be_empty([("a.yaml", foreign)], []));
    assert!(!store.would_be_empty([("a.yaml", "# nothing\n"), ("b.yaml", GOOD)], []));
    store.apply_all([("a.yaml", GOOD), ("b.yaml", OTHER), ("c.yaml", foreign)], []);
    assert!(!store.would_be_empty(nobody(), ["a.yaml"]));
    assert!(!store.would_be_empty([("a.yaml", "")], ["c.yaml"]));
    assert!(store.would_be_empty([("a.yaml", "# nothing\n")], ["b.yaml", "gone.yaml"]));
    assert!(store.would_be_empty(nobody(), ["a.yaml", "b.yaml", "b.yaml"]));
    assert!(!store.would_be_empty([("a.yaml", "spec: [\n")], ["b.yaml"]), "what it names may be kept");
    assert!(!store.would_be_empty([("d.yaml", GOOD)], ["a.yaml", "b.yaml", "c.yaml"]));
    store.apply_all(nobody(), ["a.yaml", "b.yaml"]);
    assert!(store.objects().is_empty() && store.would_be_empty(nobody(), []));
}

#[test]
fn what_is_kept_of_an_earlier_text_gives_way_to_whoever_names_it_now() {
    let mut store = Store::default();
    store.apply_all([("a.yaml", GOOD), ("c.yaml", OTHER)], []);
    store.apply("a.yaml", "spec: [\n");
    assert_eq!(names(&store), ["Service shop/a", "Service shop/b"]);
    store.keep_all(["c.yaml"]);
    assert_eq!(names(&store), ["Service shop/a", "Service shop/b"]);
    // Each moves to another file, with a port that is none.
    let moved = [GOOD.replace("80", "80000"), OTHER.replace("{}", "{ports: 1}")].join("---\n");
    store.apply("d.yaml", &moved);
    assert_eq!(names(&store), [""; 0], "the texts of now are used");
    assert!(!texts(&store).iter().any(|text| text.contains("is also at")), "{:?}", texts(&store));
    store.remove("d.yaml");
    assert_eq!(names(&store), ["Service shop/a", "Service shop/b"]);
    store.apply("c.yaml", OTHER);
    store.apply("b.yaml", OTHER);
    assert!(texts(&store).iter().any(|text| text.contains("is also at b.yaml:1")), "{:?}", texts(&store));
}

#[test]
fn an_object_of_a_server_is_what_the_same_text_is() {
    let json = |text: &str| -> Value { serde_saphyr::from_str(text).unwrap() };
    let (mut of_files, mut of_server) = (Store::default(), Store::default());
    let broken = OTHER.replace("{}", "{ports: [{port: 80000}]}");
    of_files.apply_all([("a", GOOD), ("b", &broken)], []);
    of_server.apply_objects([("a", json(GOOD)), ("b", json(&broken))], []);
    let content = |store: &Store| -> Vec<_> {
        store.objects().iter().map(|(key, entry)| (key.clone(), entry.good().is_some())).collect()
    };
    assert_eq!(content(&of_server), content(&of_files));
    let refused = "b: Service shop/b: spec.ports[0].port: invalid value: integer `80000`, expected u16";
    assert_eq!(texts(&of_server), [refused]);
    of_server.apply_objects([("b", json(OTHER))], ["a"]);
    assert_eq!((names(&of_server), texts(&of_server)), (vec!["Service shop/b".to_owned()], vec![]));
    // What nobody can name changes nothing of what its source had.
    of_server.apply_objects([("b", serde_json::json!({"kind": "Service"}))], []);
    assert_eq!(names(&of_server), ["Service shop/b"]);
    assert_eq!(texts(&of_server).len(), 1);
}
