// SPDX-License-Identifier: Apache-2.0
//! What has to be written so that a status says what Weft means, and what others mean stays.
//!
//! `parents` of a route is one value to server-side apply: whoever applies it replaces all of it. What others have
//! in there goes back as it was, at its place, and the write names the version that it was read at. Everywhere else
//! conditions are a map by their type, so that only Weft's own are written.

use serde_json::{Map, Value, json};
use weft_api::{object::Kind, status::Status};
use weft_gateway_api::CONTROLLER_NAME;

/// Types of conditions that Weft writes for a parent of a route.
const OF_PARENTS: [&str; 3] = ["Accepted", "ResolvedRefs", "PartiallyInvalid"];

/// A status to apply.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Write {
    pub(super) status: Value,
    /// It holds only for the version of the object that it was made from.
    pub(super) is_exact: bool,
}

/// What to write; nothing where the object has it already. `was_written` says that an earlier status of Weft's is
/// there that nobody means any more.
pub(super) fn write(kind: Kind, meant: Option<&Status>, live: &Value, was_written: bool) -> Option<Write> {
    let meant = meant.and_then(|status| serde_json::to_value(status).ok());
    if kind == Kind::HttpRoute {
        let status = parents(meant.as_ref(), live);
        let same = live.get("parents").unwrap_or(&json!([])) == &status["parents"];
        return (!same).then_some(Write { status, is_exact: true });
    }
    match meant {
        Some(mut status) => {
            keep_times(&mut status, live);
            (!is_in(&status, live)).then_some(Write { status, is_exact: false })
        }
        None => was_written.then(|| Write { status: json!({}), is_exact: false }),
    }
}

/// The parents of a route: those of others as they are, and ours as they are meant.
fn parents(meant: Option<&Value>, live: &Value) -> Value {
    let list = |value: Option<&Value>| -> Vec<Value> {
        value.and_then(|value| value.get("parents")?.as_array().cloned()).unwrap_or_default()
    };
    let mut ours = list(meant);
    let mut all = Vec::new();
    for entry in list(Some(live)) {
        if entry["controllerName"] != CONTROLLER_NAME {
            all.push(entry);
        } else if let Some(at) = ours.iter().position(|own| own["parentRef"] == entry["parentRef"]) {
            let mut own = ours.remove(at);
            keep_times(&mut own, &entry);
            keep_foreign(&mut own, &entry);
            all.push(own);
        }
    }
    all.extend(ours);
    json!({ "parents": all })
}

/// Conditions that somebody else has put into our entry.
fn keep_foreign(own: &mut Value, live: &Value) {
    let is_foreign =
        |condition: &&Value| condition["type"].as_str().is_some_and(|kind| !OF_PARENTS.contains(&kind));
    let foreign = live["conditions"].as_array().into_iter().flatten().filter(is_foreign).cloned();
    if let Some(conditions) = own["conditions"].as_array_mut() {
        conditions.extend(foreign);
    }
}

/// A condition that says what it said before has its time from then; so have those of listeners.
fn keep_times(own: &mut Value, live: &Value) {
    let of_conditions = |own: &mut Value, live: &Value| {
        for condition in own["conditions"].as_array_mut().into_iter().flatten() {
            let before = entry(&live["conditions"], "type", &condition["type"]);
            if let Some(before) = before.filter(|before| before["status"] == condition["status"])
                && let Some(time) = before.get("lastTransitionTime")
            {
                condition["lastTransitionTime"] = time.clone();
            }
        }
    };
    of_conditions(own, live);
    for listener in own.get_mut("listeners").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(before) = entry(&live["listeners"], "name", &listener["name"]) {
            of_conditions(listener, before);
        }
    }
}

/// The entry of a list whose key is this.
fn entry<'a>(list: &'a Value, key: &str, name: &Value) -> Option<&'a Value> {
    list.as_array()?.iter().find(|entry| entry[key] == *name)
}

/// Whether a status has everything that ours says. Of lists that are maps others may have more, but of listeners,
/// which are all ours.
fn is_in(own: &Value, live: &Value) -> bool {
    let empty = Map::new();
    own.as_object().unwrap_or(&empty).iter().all(|(field, value)| match field.as_str() {
        "conditions" => each_is_in(value, &live[field], "type"),
        "listeners" => {
            let count = |list: &Value| list.as_array().map_or(0, Vec::len);
            count(value) == count(&live[field]) && each_is_in(value, &live[field], "name")
        }
        // What is empty is left out by the server.
        _ if value.as_array().is_some_and(Vec::is_empty) => {
            live.get(field).and_then(Value::as_array).is_none_or(Vec::is_empty)
        }
        _ => live.get(field) == Some(value),
    })
}

fn each_is_in(own: &Value, live: &Value, key: &str) -> bool {
    let of_entry = |own: &Value| entry(live, key, &own[key]).is_some_and(|live| is_in(own, live));
    own.as_array().into_iter().flatten().all(of_entry)
}

#[cfg(test)]
mod tests {
    use weft_api::{
        httproute::ParentReference,
        status::{
            Condition, RouteParentStatus, RouteStatus, Truth,
            reason::{RouteAccepted, RouteResolvedRefs},
        },
    };

    use super::*;

    fn meant(accepted: bool) -> Status {
        let parent_ref: ParentReference = serde_json::from_value(json!({"name": "own"})).unwrap();
        let time = Some("2026-11-21T10:00:00Z".parse().unwrap());
        let reason = if accepted { RouteAccepted::Accepted } else { RouteAccepted::NoMatchingParent };
        let mut accepted = Condition::new(accepted, 2, reason, "");
        let mut resolved = Condition::new(Truth::True, 2, RouteResolvedRefs::ResolvedRefs, "");
        (accepted.last_transition_time, resolved.last_transition_time) = (time, time);
        Status::Route(RouteStatus {
            parents: vec![RouteParentStatus {
                parent_ref,
                controller_name: CONTROLLER_NAME.into(),
                accepted,
                resolved_refs: resolved,
                partially_invalid: None,
            }],
        })
    }

    fn foreign(name: &str) -> Value {
        json!({
            "parentRef": {"name": name, "group": "x"}, "controllerName": "example.com/other",
            "conditions": [{"type": "Accepted", "status": "True", "odd": {"z": 1, "a": null}}],
        })
    }

    fn route(meant: Option<&Status>, live: &Value) -> Option<Value> {
        write(Kind::HttpRoute, meant, live, true).map(|write| {
            assert!(write.is_exact, "nothing that came meanwhile may be lost");
            write.status
        })
    }

    #[test]
    fn parents_of_others_stay_as_they_are_and_where_they_are() {
        let live = json!({"parents": [foreign("a"), foreign("b")]});
        let written = route(Some(&meant(true)), &live).unwrap();
        let parents = written["parents"].as_array().unwrap();
        assert_eq!(parents[..2], [foreign("a"), foreign("b")]);
        assert_eq!((parents.len(), &parents[2]["parentRef"]), (3, &json!({"name": "own"})));
        // Ours in the middle: it changes there, and goes from there.
        let live = json!({"parents": [foreign("a"), parents[2].clone(), foreign("b")]});
        assert_eq!(route(Some(&meant(true)), &live), None, "nothing to write");
        let written = route(Some(&meant(false)), &live).unwrap();
        assert_eq!((&written["parents"][0], &written["parents"][2]), (&foreign("a"), &foreign("b")));
        assert_eq!(written["parents"][1]["conditions"][0]["status"], "False");
        assert_eq!(route(None, &live), Some(json!({"parents": [foreign("a"), foreign("b")]})));
        assert_eq!(route(None, &json!({"parents": [foreign("a")]})), None);
        assert_eq!(route(None, &json!({})), None);
    }

    #[test]
    fn a_time_changes_with_its_condition_only_and_foreign_conditions_stay() {
        let mut live = route(Some(&meant(true)), &json!({})).unwrap();
        let times = |status: &Value| {
            let conditions = status["parents"][0]["conditions"].as_array().unwrap().clone();
            conditions.into_iter().map(|one| one["lastTransitionTime"].clone()).collect::<Vec<_>>()
        };
        for condition in live["parents"][0]["conditions"].as_array_mut().unwrap() {
            condition["lastTransitionTime"] = "2020-01-01T00:00:00Z".into();
        }
        assert_eq!(route(Some(&meant(true)), &live), None, "a controller that starts again writes nothing");
        let other = json!({"type": "example.com/Seen", "status": "True"});
        live["parents"][0]["conditions"].as_array_mut().unwrap().push(other.clone());
        let written = route(Some(&meant(false)), &live).unwrap();
        assert_eq!(times(&written)[..2], [json!("2026-11-21T10:00:00Z"), json!("2020-01-01T00:00:00Z")]);
        assert_eq!(written["parents"][0]["conditions"][2], other);
    }

    #[test]
    fn only_what_is_different_is_written_where_conditions_are_a_map() {
        let own = json!({
            "addresses": [], "conditions": [{"type": "Accepted", "status": "True", "lastTransitionTime": "b"}],
            "listeners": [{"name": "a", "attachedRoutes": 1, "conditions": []}],
        });
        let mut live = json!({
            "conditions": [
                {"type": "Other", "status": "True"},
                {"type": "Accepted", "status": "True", "lastTransitionTime": "a"},
            ],
            "listeners": [{"name": "a", "attachedRoutes": 1, "conditions": [{"type": "Other"}]}],
        });
        let mut kept = own.clone();
        keep_times(&mut kept, &live);
        assert!(is_in(&kept, &live) && !is_in(&own, &live));
        live["listeners"].as_array_mut().unwrap().push(json!({"name": "gone"}));
        assert!(!is_in(&kept, &live), "a listener that is no more has no status");
        live["listeners"] = json!([{"name": "a", "attachedRoutes": 2, "conditions": []}]);
        assert!(!is_in(&kept, &live));
    }
}
