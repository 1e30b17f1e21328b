// SPDX-License-Identifier: Apache-2.0
//! Reading an object of which parts cannot be read: the parts are left out and named, the rest is there.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::decode::{DecodeError, Decoded, decode_as};

/// The most parts of one object that are left out; an object with more is refused as a whole.
const MOST: usize = 64;

/// What is put in the place of a part that cannot be read: where the part is, and what takes its place;
/// nothing removes it.
pub(crate) struct Gap {
    steps: usize,
    filler: Option<Value>,
}

/// Reads an object; `gap` says for the path of an error what to leave out.
///
/// # Errors
/// The first error that is in no part that can be left out.
pub(crate) fn decode<T: DeserializeOwned>(
    value: &Value,
    gap: fn(&[&str], &Value) -> Option<Gap>,
) -> Result<(Decoded<T>, Vec<DecodeError>), DecodeError> {
    let mut error = match decode_as(value) {
        Ok(decoded) => return Ok((decoded, Vec::new())),
        Err(error) => error,
    };
    let mut value = value.clone();
    let mut unread = Vec::new();
    while unread.len() < MOST {
        let path = error.path.clone();
        let steps: Vec<&str> = path.split(['.', '[']).map(|step| step.trim_end_matches(']')).collect();
        let Some(gap) = gap(&steps, &value) else { return Err(error) };
        if !fill(&mut value, &steps[..gap.steps], gap.filler) {
            return Err(error);
        }
        unread.push(error);
        match decode_as(&value) {
            Ok(decoded) => return Ok((decoded, unread)),
            Err(next) => error = next,
        }
    }
    Err(error)
}

/// Puts the filler at a path, or removes what is there. False where there is no such path.
fn fill(value: &mut Value, steps: &[&str], filler: Option<Value>) -> bool {
    let Some((last, above)) = steps.split_last() else { return false };
    let Some(parent) = above.iter().try_fold(value, |at, step| child(at, step)) else { return false };
    match (filler, parent) {
        (Some(filler), parent) => child(parent, last).map(|place| *place = filler).is_some(),
        (None, Value::Object(fields)) => fields.remove(*last).is_some(),
        (None, _) => false,
    }
}

fn child<'a>(value: &'a mut Value, step: &str) -> Option<&'a mut Value> {
    match value {
        Value::Object(fields) => fields.get_mut(step),
        Value::Array(elements) => elements.get_mut(step.parse::<usize>().ok()?),
        _ => None,
    }
}

/// The parts of an HTTPRoute: a condition of a match, a match, a field of a rule, a rule, a hostname, a
/// parent.
pub(crate) fn of_route(steps: &[&str], _value: &Value) -> Option<Gap> {
    let remove = |steps| Some(Gap { steps, filler: None });
    let put = |steps, filler| Some(Gap { steps, filler: Some(filler) });
    match steps {
        ["spec", "hostnames" | "rules" | "parentRefs"] => remove(2),
        ["spec", "hostnames", _, ..] => put(3, json!("")),
        ["spec", "parentRefs", _, ..] => put(3, json!({"name": ""})),
        ["spec", "rules", _] => put(3, json!({})),
        ["spec", "rules", _, "matches", _] => put(5, json!({})),
        ["spec", "rules", _, "matches", _, "headers" | "queryParams", _, ..] => {
            put(7, json!({"name": "", "value": ""}))
        }
        ["spec", "rules", _, "matches", _, _, ..] => remove(6),
        ["spec", "rules", _, _, ..] => remove(4),
        _ => None,
    }
}

/// The parts of a Gateway: its listeners, of which the name stays.
pub(crate) fn of_gateway(steps: &[&str], value: &Value) -> Option<Gap> {
    let ["spec", "listeners", index, ..] = steps else { return None };
    let name = value.pointer(&format!("/spec/listeners/{index}/name"))?.as_str()?;
    // Without the rest, so that it is the listener and nothing else that cannot be read.
    Some(Gap { steps: 3, filler: Some(json!({"name": name})) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{gateway::Gateway, httproute::HttpRoute};

    fn paths(unread: &[DecodeError]) -> Vec<&str> {
        unread.iter().map(|error| &*error.path).collect()
    }

    #[test]
    fn the_parts_of_a_route_that_cannot_be_read_are_named_and_the_rest_is_read() {
        let value = json!({"spec": {
            "hostnames": ["a.test", 5],
            "parentRefs": [{"name": "gw"}, {"name": 7}],
            "rules": [
                {"matches": [{"path": {"value": "/a"}, "method": "FETCH"}, 3], "backendRefs": [{"name": "a"}]},
                {"matches": [{"headers": [{"name": "x"}, {"name": "y", "value": "1"}]}], "timeouts": {"request": "soon"}},
                "none",
                {"backendRefs": [{"name": "b", "port": 80}]},
            ],
        }});
        let (decoded, unread) = decode::<HttpRoute>(&value, of_route).unwrap();
        assert_eq!(
            paths(&unread),
            [
                "spec.hostnames[1]",
                "spec.parentRefs[1].name",
                "spec.rules[0].matches[0].method",
                "spec.rules[0].matches[1]",
                "spec.rules[1].matches[0].headers[0]",
                "spec.rules[1].timeouts.request",
                "spec.rules[2]",
            ]
        );
        let spec = &decoded.object.spec;
        let rules = spec.rules.as_deref().unwrap();
        assert_eq!((spec.hostnames.len(), spec.parent_refs.len(), rules.len()), (2, 2, 4));
        assert_eq!(&*rules[0].matches[0].path.clone().unwrap().value, "/a");
        assert_eq!(&*rules[1].matches[0].headers[1].name, "y");
        assert_eq!(&*rules[3].backend_refs[0].name, "b");
    }

    #[test]
    fn what_is_no_part_and_too_many_parts_refuse_the_object() {
        assert!(decode::<HttpRoute>(&json!({"spec": 5}), of_route).is_err());
        let rules = vec![json!(1); MOST + 1];
        assert!(decode::<HttpRoute>(&json!({"spec": {"rules": rules}}), of_route).is_err());
    }

    #[test]
    fn a_listener_that_cannot_be_read_keeps_its_name() {
        let value =
            json!({"spec": {"listeners": [{"name": "a", "port": "http"}, {"name": "b", "port": 80}]}});
        let (decoded, unread) = decode::<Gateway>(&value, of_gateway).unwrap();
        assert_eq!(paths(&unread), ["spec.listeners[0].port"]);
        let listeners: Vec<(&str, u16)> =
            decoded.object.spec.listeners.iter().map(|one| (&*one.name, one.port)).collect();
        assert_eq!(listeners, [("a", 0), ("b", 80)]);
        let nameless = json!({"spec": {"listeners": [{"port": "http"}]}});
        assert!(decode::<Gateway>(&nameless, of_gateway).is_err());
    }
}
