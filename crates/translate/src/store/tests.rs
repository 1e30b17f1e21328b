// SPDX-License-Identifier: Apache-2.0

use super::*;

const GOOD: &str =
    "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\nspec:\n  ports:\n  - port: 80\n";
const OTHER: &str = "apiVersion: v1\nkind: Service\nmetadata:\n  name: b\n  namespace: shop\nspec: {}\n";

fn texts(store: &Store) -> Vec<String> {
    store.problems().iter().map(ToString::to_string).collect()
}

fn names(store: &Store) -> Vec<String> {
    store.objects().iter().filter(|(_, entry)| entry.good.is_some()).map(|(key, _)| key.to_string()).collect()
}

#[test]
fn an_object_that_breaks_keeps_its_last_good_version() {
    let mut store = Store::default();
    store.apply("f.yaml", &format!("{GOOD}---\n{OTHER}"));
    assert_eq!(names(&store), ["Service shop/a", "Service shop/b"]);
    store.apply("f.yaml", &format!("{}---\n{OTHER}", GOOD.replace("80", "80000")));
    assert_eq!(names(&store), ["Service shop/a", "Service shop/b"]);
    let expected = "f.yaml:6: Service shop/a: spec.ports[0].port: invalid value: integer `80000`, expected u16; \
                    the last good version stays";
    assert_eq!(texts(&store), [expected]);
    store.apply("f.yaml", OTHER);
    assert_eq!(names(&store), ["Service shop/b"]);
    assert!(store.problems().is_empty());
}

#[test]
fn an_object_that_never_was_good_holds_nothing() {
    let mut store = Store::default();
    store.apply("f.yaml", &format!("{}---\n{OTHER}", GOOD.replace("80", "80000")));
    assert_eq!(names(&store), ["Service shop/b"]);
    assert_eq!(store.problems().len(), 1);
}

#[test]
fn a_text_that_is_no_yaml_keeps_what_its_file_had() {
    let mut store = Store::default();
    store.apply("f.yaml", &format!("{GOOD}---\n{OTHER}"));
    store.apply("f.yaml", &format!("spec: [\n---\n{OTHER}"));
    assert_eq!(names(&store), ["Service shop/a", "Service shop/b"]);
    assert!(store.problems().iter().any(|problem| problem.unreadable && problem.object.is_none()));
    assert!(texts(&store)[0].ends_with("; the last good version stays"), "{:?}", texts(&store));
    store.apply("f.yaml", &OTHER.replace("spec: {}", "spec: {"));
    assert_eq!(names(&store), ["Service shop/b"]);
    assert!(store.problems()[0].unreadable && store.problems()[0].object.is_some());
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
fn kinds_of_our_groups_are_named_and_those_of_others_are_not() {
    let mut store = Store::default();
    let text = "apiVersion: weft.dev/v1alpha1\nkind: RateLimit\nmetadata: {name: x}\n---\n\
                apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n---\nmetadata: {name: x}\n";
    store.apply("f.yaml", text);
    assert_eq!(
        texts(&store),
        [
            "f.yaml:1: RateLimit of weft.dev/v1alpha1 is not supported",
            "f.yaml:9: apiVersion and kind are required"
        ]
    );
    let foreign = Foreign { line: 5, api_version: "apps/v1".into(), kind: "Deployment".into() };
    assert_eq!(store.foreign("f.yaml"), [foreign]);
    assert!(store.foreign("other.yaml").is_empty());
}

#[test]
fn a_list_holds_objects_and_a_change_counts_a_generation() {
    let mut store = Store::default();
    let list =
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n";
    store.apply("f.yaml", list);
    assert_eq!(names(&store), ["Service default/a"]);
    store.apply("f.yaml", list);
    assert!(store.objects().values().all(|entry| entry.generation == 1));
    store.apply("f.yaml", &list.replace("{name: a}", "{name: a, labels: {x: y}}"));
    assert!(store.objects().values().all(|entry| entry.generation == 2));
}

#[test]
fn an_object_that_moves_keeps_its_last_good_version() {
    let mut store = Store::default();
    store.apply("a.yaml", GOOD);
    store.apply_all([("b.yaml", &*GOOD.replace("80", "80000"))], ["a.yaml"]);
    assert_eq!(names(&store), ["Service shop/a"]);
    assert_eq!(store.sources().map(AsRef::as_ref).collect::<Vec<_>>(), ["b.yaml"]);
}

#[test]
fn many_sources_together_are_what_they_are_one_by_one() {
    let texts: Vec<(String, String)> = (0..20)
        .map(|number| (format!("{number}.yaml"), OTHER.replace("name: b", &format!("name: b{}", number / 2))))
        .collect();
    let (mut together, mut one_by_one) = (Store::default(), Store::default());
    together.apply_all(texts.iter().map(|(name, text)| (&**name, &**text)), []);
    for (name, text) in &texts {
        one_by_one.apply(name, text);
    }
    assert_eq!(names(&together), names(&one_by_one));
    assert_eq!(together.problems(), one_by_one.problems());
    assert_eq!(together.problems().len(), 10, "every object is there twice");
}

/// Numbers that look random and are the same at every run (Knuth, MMIX).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A text with a few of a few objects; some are there twice, in one source or in several.
fn some_objects(numbers: &mut Numbers) -> String {
    let mut text = String::new();
    for _ in 0..numbers.below(5) {
        let (name, value) = (numbers.below(6), numbers.below(3));
        text += &match numbers.below(4) {
            0 => format!(
                "apiVersion: v1\nkind: Namespace\nmetadata: {{name: n{}, labels: {{x: v{value}}}}}\n",
                name % 2
            ),
            1 => format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: s{name}, namespace: n0}}\nspec: {{clusterIP: 10.0.0.{value}}}\n"
            ),
            _ => format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{name}, namespace: n{}, labels: {{app: a{value}}}}}\n\
                 spec: {{nodeName: one}}\nstatus: {{phase: Running, podIP: 10.1.0.{name}}}\n",
                name % 2
            ),
        };
        text += "---\n";
    }
    text
}

#[test]
fn a_store_that_was_changed_often_is_one_that_was_filled_at_once() {
    let mut numbers = Numbers(7);
    let (mut store, mut files) = (Store::default(), BTreeMap::new());
    let (translator, mut identities) = (crate::Translator::default(), crate::Identities::default());
    for round in 0..500 {
        let (mut changed, mut removed) = (BTreeMap::new(), Vec::new());
        for _ in 0..=numbers.below(2) {
            let source = format!("{}.yaml", numbers.below(5));
            if numbers.below(4) == 0 {
                changed.remove(&source);
                files.remove(&source);
                removed.push(source);
            } else {
                let text = some_objects(&mut numbers);
                removed.retain(|other| *other != source);
                files.insert(source.clone(), text.clone());
                changed.insert(source, text);
            }
        }
        let changed = changed.iter().map(|(name, text)| (&**name, &**text));
        store.apply_all(changed, removed.iter().map(|name| &**name));
        let mut fresh = Store::default();
        fresh.apply_all(files.iter().map(|(name, text): (&String, &String)| (&**name, &**text)), []);
        let places = |store: &Store| -> Vec<_> {
            let entry =
                |(key, entry): (&ObjectKey, &Entry)| (key.clone(), entry.value.clone(), entry.place.clone());
            store.objects().iter().map(entry).collect()
        };
        assert_eq!(places(&store), places(&fresh), "round {round}");
        assert_eq!(texts(&store), texts(&fresh), "round {round}");
        assert!(store.claims.values().all(|claims| !claims.is_empty()), "nothing is left behind");
        // What is remembered of objects is what would be made of them now.
        let expected = translator.translate(&fresh, &mut identities.clone(), round).resources;
        let again = translator.translate(&store, &mut identities, round).resources;
        assert_eq!(again, expected, "round {round}");
    }
}

#[test]
fn what_did_not_change_is_the_same_allocation() {
    let mut store = Store::default();
    let (translator, mut identities) = (crate::Translator::default(), crate::Identities::default());
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {nodeName: n}\nstatus: {phase: Running, podIP: 10.1.0.1}\n";
    store.apply("a.yaml", GOOD);
    store.apply("p.yaml", pod);
    let first = translator.translate(&store, &mut identities, 0).resources;
    store.apply("b.yaml", OTHER);
    let second = translator.translate(&store, &mut identities, 1).resources;
    let same = |key: &str| {
        let key = weft_ir::ResourceKey(key.into());
        Arc::ptr_eq(&first[&key], &second[&key])
    };
    assert!(same("service/shop/a") && same("workload/default/p") && same("identity/256"));
    assert_eq!(second.len(), first.len() + 1);
    // A label of the namespace is part of the pod's identity.
    store.apply("n.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {x: y}}\n");
    let third = translator.translate(&store, &mut identities, 2).resources;
    assert!(third.contains_key(&weft_ir::ResourceKey("identity/257".into())));
    assert!(!third.contains_key(&weft_ir::ResourceKey("identity/256".into())));
}
