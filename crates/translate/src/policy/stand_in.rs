// SPDX-License-Identifier: Apache-2.0
//! What stands in for a policy that was refused: the workloads that it names are closed in the
//! directions that it names. What cannot be understood is taken in the widest sense: a direction stays
//! open only where everything that could name it is readable.

use serde_json::{Map, Value, json};
use weft_api::{
    decode::decode_as,
    object::{Kind, ObjectKey},
    policy::{CiliumNetworkPolicy, LabelSelector, NetworkPolicy},
    recognize::is_near,
};
use weft_ir::{ObjectName, Operator, Policy, PolicyDirection, PolicyKind, Requirement, Selector, Tier};

use super::selectors;
use crate::workload::NAMESPACE_LABEL;

/// What the top level of a policy may have.
const TOP_LEVEL: [&str; 6] = ["apiVersion", "kind", "metadata", "spec", "specs", "status"];

/// The fields of a rule that say which directions it closes.
const DIRECTIONS: [&str; 6] =
    ["ingress", "egress", "ingressDeny", "egressDeny", "policyTypes", "enableDefaultDeny"];

/// The fields that say which workloads are meant; a peer of a NetworkPolicy has a `podSelector` as well.
const SUBJECTS: [&str; 5] = ["spec", "specs", "podSelector", "endpointSelector", "nodeSelector"];

/// The closed policies for a refused object. A host policy (`nodeSelector` alone) has none, since no
/// policy of Weft speaks about nodes.
pub(crate) fn stand_in(key: &ObjectKey, value: &Value) -> Vec<Policy> {
    let kind = match key.kind {
        Kind::NetworkPolicy => PolicyKind::NetworkPolicy,
        Kind::CiliumClusterwideNetworkPolicy => PolicyKind::CiliumClusterwideNetworkPolicy,
        _ => PolicyKind::CiliumNetworkPolicy,
    };
    let mut rules: Vec<&Value> = value.get("spec").into_iter().collect();
    let mut readable =
        value.as_object().is_some_and(|top| top.keys().all(|name| TOP_LEVEL.contains(&&**name)));
    match value.get("specs") {
        Some(Value::Array(specs)) => rules.extend(specs),
        Some(_) => readable = false,
        None => {}
    }
    let misplaced = Misplaced::of(value, &rules);
    // A rule of which nothing can be read closes the whole namespace.
    if rules.is_empty() || !readable || misplaced.subject {
        rules.push(&Value::Null);
    }
    readable &= !misplaced.direction && !misplaced.subject;
    let clusterwide = key.kind == Kind::CiliumClusterwideNetworkPolicy;
    (0..)
        .zip(rules)
        .filter(|(_, rule)| {
            !(clusterwide && rule.get("nodeSelector").is_some() && rule.get("endpointSelector").is_none())
        })
        .map(|(index, rule)| {
            let (ingress, egress) = if readable { directions(kind, rule) } else { (true, true) };
            Policy {
                kind,
                name: ObjectName { namespace: key.namespace.clone(), name: key.name.clone() },
                index,
                tier: Tier::Normal,
                priority: 0,
                subject: subject(kind, &key.namespace, rule),
                ingress: PolicyDirection { default_deny: ingress, ..PolicyDirection::default() },
                egress: PolicyDirection { default_deny: egress, ..PolicyDirection::default() },
            }
        })
        .collect()
}

/// Which fields stand at a level where nothing reads them, as where a line is indented too far: what they
/// were to say is not known.
#[derive(Default)]
struct Misplaced {
    direction: bool,
    subject: bool,
}

impl Misplaced {
    /// The selectors and directions of the rules themselves are in their place.
    fn of(object: &Value, rules: &[&Value]) -> Misplaced {
        let mut found = Misplaced::default();
        // Fields that no user writes have the names of others in them.
        let metadata = object.get("metadata").and_then(Value::as_object).into_iter().flatten();
        for (name, value) in metadata.filter(|(name, _)| *name != "managedFields") {
            found.field(name, value, "metadata");
        }
        for (name, value) in rules.iter().filter_map(|rule| rule.as_object()).flatten() {
            found.subject |= ["spec", "specs"].iter().any(|known| is_near(name, known));
            if name != "enableDefaultDeny" {
                found.search(value, name);
            }
        }
        found
    }

    /// Looks at a value below a field of this name.
    fn search(&mut self, value: &Value, below: &str) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| self.field(name, value, below)),
            Value::Array(elements) => elements.iter().for_each(|element| self.search(element, below)),
            _ => {}
        }
    }

    fn field(&mut self, name: &str, value: &Value, below: &str) {
        // A label may have any name.
        let is_label = value.is_string() && matches!(below, "matchLabels" | "labels" | "annotations");
        let is_peer = matches!(below, "from" | "to");
        self.direction |= !is_label && DIRECTIONS.iter().any(|known| is_near(name, known));
        self.subject |= !is_label && !is_peer && SUBJECTS.iter().any(|known| is_near(name, known));
        self.search(value, name);
    }
}

/// The directions that a rule names; both where it names none, or where one could be meant that cannot
/// be read.
fn directions(kind: PolicyKind, rule: &Value) -> (bool, bool) {
    let Some(named) = rule.as_object().and_then(|rule| named(kind, rule)) else { return (true, true) };
    if named == (false, false) { (true, true) } else { named }
}

/// The directions that the fields of a rule name; nothing where not all that could name one are readable.
fn named(kind: PolicyKind, rule: &Map<String, Value>) -> Option<(bool, bool)> {
    if !rule.keys().all(|field| is_known(kind, field)) {
        return None;
    }
    let has = |field: &str| rule.contains_key(field);
    let (mut ingress, mut egress) =
        (has("ingress") || has("ingressDeny"), has("egress") || has("egressDeny"));
    if kind == PolicyKind::NetworkPolicy {
        let types =
            rule.get("policyTypes").map_or(Some(&[][..]), |types| types.as_array().map(Vec::as_slice))?;
        for name in types {
            match name.as_str()? {
                "Ingress" => ingress = true,
                "Egress" => egress = true,
                _ => return None,
            }
        }
        // The default: ingress always.
        ingress |= types.is_empty();
    } else if let Some(deny) = rule.get("enableDefaultDeny") {
        for (direction, closes) in deny.as_object()? {
            let closes = *closes != Value::Bool(false);
            match direction.as_str() {
                "ingress" => ingress |= closes,
                "egress" => egress |= closes,
                _ => return None,
            }
        }
    }
    Some((ingress, egress))
}

/// Whether the type of a rule has a field of this name. It is asked for the field with no value: it
/// accepts that or breaks on it where it has the field, and leaves it out where it has not.
fn is_known(kind: PolicyKind, field: &str) -> bool {
    let object = json!({"spec": {field: null}});
    let unknown = match kind {
        PolicyKind::NetworkPolicy => decode_as::<NetworkPolicy>(&object).map(|read| read.unknown),
        PolicyKind::CiliumNetworkPolicy | PolicyKind::CiliumClusterwideNetworkPolicy => {
            decode_as::<CiliumNetworkPolicy>(&object).map(|read| read.unknown)
        }
    };
    unknown.map_or(true, |unknown| unknown.is_empty())
}

/// The workloads that a rule names. An empty namespace stands for every one.
fn subject(kind: PolicyKind, namespace: &str, rule: &Value) -> Selector {
    let scope = if namespace.is_empty() {
        Requirement { key: format!("k8s:{NAMESPACE_LABEL}").into(), operator: Operator::Exists }
    } else {
        selectors::in_namespace(namespace)
    };
    let everything = Selector { requirements: vec![scope.clone()] };
    let field = if kind == PolicyKind::NetworkPolicy { "podSelector" } else { "endpointSelector" };
    let selector = match rule.get(field).map(decode_as::<LabelSelector>) {
        Some(Ok(decoded)) if decoded.unknown.is_empty() => decoded.object,
        Some(Ok(_) | Err(_)) | None => return everything,
    };
    let scoped = |requirements: Vec<_>| Selector { requirements: [requirements, vec![scope]].concat() };
    let found = match kind {
        PolicyKind::NetworkPolicy => selectors::kubernetes(field, "k8s:", &selector).map(scoped),
        PolicyKind::CiliumNetworkPolicy => selectors::subject(field, namespace, &selector),
        PolicyKind::CiliumClusterwideNetworkPolicy => selectors::unscoped(field, &selector).map(scoped),
    };
    found.unwrap_or(everything)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stand-ins of an object: whether each is for the whole namespace, and what it closes.
    fn closed(kind: Kind, object: &Value) -> Vec<(bool, bool, bool)> {
        let key = ObjectKey { kind, namespace: "shop".into(), name: "p".into() };
        let whole = Selector { requirements: vec![selectors::in_namespace("shop")] };
        let of = |policy: &Policy| {
            (policy.subject == whole, policy.ingress.default_deny, policy.egress.default_deny)
        };
        stand_in(&key, object).iter().map(of).collect()
    }

    const CNP: Kind = Kind::CiliumNetworkPolicy;
    const BOTH: (bool, bool, bool) = (false, true, true);
    const NAMESPACE: (bool, bool, bool) = (true, true, true);

    /// The directions that fields beside a selector that can be read leave closed.
    fn rule(kind: Kind, fields: Value) -> (bool, bool) {
        let mut spec = fields;
        let selector = if kind == Kind::NetworkPolicy { "podSelector" } else { "endpointSelector" };
        spec[selector] = json!({"matchLabels": {"app": "a"}});
        let [(false, ingress, egress)] = closed(kind, &json!({"spec": spec}))[..] else {
            panic!("one stand-in for the workloads that are selected: {spec}");
        };
        (ingress, egress)
    }

    #[test]
    fn a_direction_that_can_be_read_leaves_the_other_open() {
        let knp = |fields| rule(Kind::NetworkPolicy, fields);
        assert_eq!(knp(json!({})), (true, false));
        assert_eq!(knp(json!({"policyTypes": [], "ingress": 1})), (true, false));
        assert_eq!(knp(json!({"policyTypes": ["Egress"]})), (false, true));
        assert_eq!(knp(json!({"policyTypes": ["Ingress"], "egress": []})), (true, true));
        let cnp = |fields| rule(CNP, fields);
        assert_eq!(cnp(json!({"ingressDeny": 1, "labels": 1, "description": 1})), (true, false));
        assert_eq!(cnp(json!({"egress": [], "enableDefaultDeny": {"ingress": false}})), (false, true));
        assert_eq!(cnp(json!({})), (true, true));
    }

    #[test]
    fn a_direction_that_cannot_be_read_closes_both() {
        for fields in [
            json!({"policyTypes": ["ingress", "Egress"]}),
            json!({"policyTypes": ["Ingres"]}),
            json!({"policyTypes": ["Egress", 1]}),
            json!({"policyTypes": "Egress"}),
            json!({"policytypes": ["Egress"]}),
            json!({"policyTypes": ["Ingress"], "policyType": ["Egress"]}),
            json!({"ingress": [], "egres": []}),
            json!({"policyTypes": ["Egress"], "ingres": []}),
            json!({"policyTypes": ["Egress"], "status": {}}),
        ] {
            assert_eq!(rule(Kind::NetworkPolicy, fields.clone()), (true, true), "{fields}");
        }
        for fields in [
            json!({"egress": [], "enableDefaultDeny": {"ingress": true}}),
            json!({"ingress": [], "enableDefaultDeny": {"egress": "false"}}),
            json!({"egress": [], "enableDefaultDeny": {"Ingress": true}}),
            json!({"egress": [], "enableDefaultDeny": true}),
            json!({"egress": [], "enabledefaultdeny": {"ingress": true}}),
            json!({"egress": [], "ingressdeny": []}),
            json!({"ingress": [], "status": {}}),
        ] {
            assert_eq!(rule(CNP, fields.clone()), (true, true), "{fields}");
        }
    }

    #[test]
    fn a_direction_at_another_level_closes_both() {
        for fields in [
            json!({"ingress": [{"from": [], "egress": []}]}),
            json!({"ingress": [{"from": [{"egress": []}]}]}),
            json!({"ingress": [{"ports": [{"port": 1, "egres": null}]}]}),
            json!({"ingress": [{"policyTypes": ["Egress"]}]}),
        ] {
            assert_eq!(rule(Kind::NetworkPolicy, fields.clone()), (true, true), "{fields}");
        }
        for fields in [
            json!({"ingress": [{"fromEndpoints": [{"egressDeny": []}]}]}),
            json!({"ingress": [{"enableDefaultDeny": {"egress": true}}]}),
            json!({"ingress": [{"fromEndpoints": [{"matchLabels": {"egress": []}}]}]}),
        ] {
            assert_eq!(rule(CNP, fields.clone()), (true, true), "{fields}");
        }
        let of_metadata = |metadata: Value| {
            let spec = json!({"podSelector": {"matchLabels": {"app": "a"}}, "ingress": []});
            closed(Kind::NetworkPolicy, &json!({"metadata": metadata, "spec": spec}))
        };
        assert_eq!(of_metadata(json!({"egress": []})), [BOTH]);
        assert_eq!(of_metadata(json!({"labels": {"policyTypes": ["Egress"]}})), [BOTH]);
        let named = json!({"labels": {"egress": "yes"}, "managedFields": [{"f:egress": {}, "egress": {}}]});
        assert_eq!(of_metadata(named), [(false, true, false)]);
        let selector = json!({"matchLabels": {"app": "a"}, "policyTypes": ["Egress"]});
        let object = json!({"spec": {"podSelector": selector, "ingress": []}});
        assert_eq!(closed(Kind::NetworkPolicy, &object), [NAMESPACE], "nor is the selector understood");
        // Every one of these is in its place.
        let entry = json!({"fromEndpoints": [{"matchLabels": {"egress": "x"}}], "fromEntities": ["ingress"]});
        let fields = json!({"ingress": [entry], "enableDefaultDeny": {"egress": false}});
        assert_eq!(rule(CNP, fields), (true, false));
        let from = json!([{"podSelector": {}, "namespaceSelector": {}}]);
        assert_eq!(rule(Kind::NetworkPolicy, json!({"ingress": [{"from": from}]})), (true, false));
    }

    #[test]
    fn a_selector_or_a_rule_at_another_level_closes_the_namespace() {
        for entry in
            [json!({"podSelector": {}}), json!({"spec": {}}), json!({"ports": [{"podselector": {}}]})]
        {
            let spec = json!({"podSelector": {"matchLabels": {"app": "a"}}, "ingress": [entry]});
            assert_eq!(closed(Kind::NetworkPolicy, &json!({"spec": spec})), [BOTH, NAMESPACE], "{spec}");
        }
        let spec = json!({"endpointSelector": {"matchLabels": {"app": "a"}}, "ingress": [], "specs": []});
        assert_eq!(closed(CNP, &json!({"spec": spec})), [BOTH, NAMESPACE]);
        let spec =
            json!({"endpointSelector": {"matchLabels": {"app": "a"}}, "egress": [{"endpointSelector": {}}]});
        assert_eq!(closed(CNP, &json!({"spec": spec})), [BOTH, NAMESPACE]);
    }

    #[test]
    fn each_rule_of_specs_is_read_for_itself() {
        let selector = json!({"matchLabels": {"app": "a"}});
        let specs = json!([
            {"endpointSelector": selector, "egress": []}, {"endpointSelector": selector, "ingress": [], "egres": []}, 1
        ]);
        assert_eq!(closed(CNP, &json!({"specs": specs})), [(false, false, true), BOTH, NAMESPACE]);
    }

    #[test]
    fn what_is_beside_spec_and_cannot_be_read_closes_the_namespace() {
        let spec = |selector: &str| json!({selector: {"matchLabels": {"app": "a"}}, "ingress": []});
        for (field, value) in [("specs", json!({})), ("specs", json!("x")), ("spces", json!([]))] {
            let object = json!({"spec": spec("endpointSelector"), field: value});
            assert_eq!(closed(CNP, &object), [BOTH, NAMESPACE], "{object}");
        }
        for field in ["ingress", "egress", "Spec"] {
            let object = json!({"spec": spec("podSelector"), field: []});
            assert_eq!(closed(Kind::NetworkPolicy, &object), [BOTH, NAMESPACE], "{object}");
        }
        let known = json!({
            "apiVersion": "", "kind": "", "metadata": {}, "status": {}, "spec": spec("podSelector")
        });
        assert_eq!(closed(Kind::NetworkPolicy, &known), [(false, true, false)]);
        assert_eq!(closed(CNP, &json!({"specs": 1})), [NAMESPACE]);
    }

    #[test]
    fn a_selector_that_names_another_namespace_selects_in_its_own() {
        let selected = |labels: Value| {
            closed(CNP, &json!({"spec": {"endpointSelector": {"matchLabels": labels}, "egress": []}}))
        };
        let key = format!("k8s:{NAMESPACE_LABEL}");
        assert_eq!(selected(json!({key.as_str(): "other"})), [(true, false, true)]);
        assert_eq!(selected(json!({key.as_str(): "other", "foreign:a": "b"})), [(true, false, true)]);
        assert_eq!(selected(json!({"app": "a"})), [(false, false, true)]);
    }
}
