// SPDX-License-Identifier: Apache-2.0
//! A rule that cannot be used changes nothing of the other rules, and nobody gets its requests.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{LazyLock, Mutex},
};

use proptest::prelude::*;
use serde_json::{Value, json};
use weft_api::status::Status;
use weft_ir::{PathMatch, Resource, Route, RouteFilter, RouteMatch, StringMatch, ValueMatch};
use weft_matching::{Expression, Matcher};

use crate::world::{Translation, translate};

/// A request: a path, whether it is a `POST`, and the value of header `h`.
type Request = (&'static str, bool, Option<&'static str>);

const PATHS: [&str; 9] = ["/", "/a", "/a/b", "/ab", "/a5", "/a/5", "/x", "/x/y", "/zz/top"];
const HEADERS: [Option<&str>; 3] = [None, Some("1"), Some("ab")];

fn requests() -> impl Iterator<Item = Request> {
    let with =
        |path| [false, true].into_iter().flat_map(move |post| HEADERS.map(|header| (path, post, header)));
    PATHS.into_iter().flat_map(with)
}

/// A match that can be used.
fn matches() -> impl Strategy<Value = Value> {
    let path = prop::sample::select(vec![
        json!({"value": "/"}),
        json!({"value": "/a"}),
        json!({"value": "/x"}),
        json!({"type": "Exact", "value": "/a/b"}),
        json!({"type": "Exact", "value": "/x"}),
        json!({"type": "RegularExpression", "value": "/a[0-9]"}),
        json!({"type": "RegularExpression", "value": "/[a-z]+/.*"}),
        json!({"type": "RegularExpression", "value": "/zz/(top|down)"}),
    ]);
    let header = prop::sample::select(vec![
        json!([]),
        json!([{"name": "h", "value": "1"}]),
        json!([{"name": "H", "type": "RegularExpression", "value": "a.*"}]),
    ]);
    (path, header, any::<bool>()).prop_map(|(path, headers, post)| match post {
        true => json!({"path": path, "headers": headers, "method": "POST"}),
        false => json!({"path": path, "headers": headers}),
    })
}

fn rule(matches: Vec<Value>, backend: &str) -> Value {
    json!({"matches": matches, "backendRefs": [{"name": backend, "port": 80}]})
}

/// How a rule is broken. What it would have matched stays in sight.
#[derive(Clone, Copy, Debug)]
enum Break {
    Path,
    LargePath,
    Header,
    Method,
    UnknownInMatch,
    Filter,
    Filters,
    Weight,
    Time,
    UnknownInRule,
    BackendFilter,
}

const BREAKS: [Break; 11] = [
    Break::Path,
    Break::LargePath,
    Break::Header,
    Break::Method,
    Break::UnknownInMatch,
    Break::Filter,
    Break::Filters,
    Break::Weight,
    Break::Time,
    Break::UnknownInRule,
    Break::BackendFilter,
];

/// Breaks a rule; false where it has no such part.
fn broken(rule: &mut Value, how: Break) -> bool {
    let first = &mut rule["matches"][0];
    let expression = first["path"]["type"] == json!("RegularExpression");
    let append = |value: &mut Value, more: &str| *value = json!(format!("{}{more}", value.as_str().unwrap()));
    match how {
        Break::Path if expression => append(&mut first["path"]["value"], "("),
        Break::LargePath if expression => append(&mut first["path"]["value"], "(?:q{20000})?"),
        Break::Path | Break::LargePath => return false,
        Break::Header => {
            first["headers"] = json!([{"name": "h", "type": "RegularExpression", "value": "a("}])
        }
        Break::Method => first["method"] = json!("FETCH"),
        Break::UnknownInMatch => first["cookies"] = json!([{"name": "c"}]),
        Break::Filter => rule["filters"] = json!([{"type": "CORS", "cors": {}}]),
        Break::Filters => {
            let redirect = json!({"type": "RequestRedirect", "requestRedirect": {"port": 81}});
            rule["filters"] = json!([redirect, {"type": "URLRewrite", "urlRewrite": {}}]);
        }
        Break::Weight => rule["backendRefs"][0]["weight"] = json!("much"),
        Break::Time => rule["timeouts"] = json!({"request": "soon"}),
        Break::UnknownInRule => rule["sessionPersistence"] = json!({}),
        Break::BackendFilter => {
            rule["backendRefs"][0]["filters"] = json!([{"type": "URLRewrite", "urlRewrite": {}}]);
        }
    }
    true
}

/// What the rule would match if it were not broken, where the break leaves that in sight.
fn intended(rule: &Value, how: Break) -> Value {
    let mut whole = rule.clone();
    match how {
        // Another method that no request has.
        Break::Method => whole["matches"][0]["method"] = json!("TRACE"),
        Break::Header => {
            whole["matches"][0]["headers"] =
                json!([{"name": "h", "type": "RegularExpression", "value": "a.*"}])
        }
        _ => {}
    }
    whole
}

fn translated(rules: &[Value]) -> Translation {
    let named = |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "shop"}, "spec": {"ports": [{"port": 80}]}});
    let parents = json!([{"group": "", "kind": "Service", "name": "a"}]);
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "r", "namespace": "shop"},
        "spec": {"parentRefs": parents, "rules": rules},
    });
    translate(&[named("Service", "a"), named("Service", "b"), named("Service", "c"), route])
}

fn routes(translation: &Translation) -> Vec<&Route> {
    let routes = translation.resources.values().filter_map(|resource| match resource {
        Resource::Route(route) => Some(route),
        _ => None,
    });
    let mut routes: Vec<&Route> = routes.collect();
    routes.sort_by_key(|route| route.rule);
    routes
}

/// The rule that wins a request, by the precedence of the API (Exact, then expression, then the longest
/// prefix; then method, headers, and the order of the rules).
fn winner<'a>(routes: &[&'a Route], request: Request) -> Option<&'a Route> {
    let all = routes.iter().flat_map(|route| route.matches.iter().map(move |one| (*route, one)));
    let fitting = all.filter(|(_, one)| fits(one, request));
    fitting
        .min_by_key(|(route, one)| {
            let path = match &one.path {
                PathMatch::Exact(_) => (0, Reverse(0)),
                PathMatch::Regex(_) => (1, Reverse(0)),
                PathMatch::Prefix(prefix) => (2, Reverse(prefix.len())),
            };
            (path, Reverse(one.method.is_some()), Reverse(one.headers.len()), route.rule)
        })
        .map(|(route, _)| route)
}

/// The same few expressions come again and again.
fn matcher(text: &str) -> Matcher {
    static KNOWN: LazyLock<Mutex<HashMap<String, Matcher>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap();
    let compile = || Expression::parse(text).unwrap().compile().unwrap();
    known.entry(text.to_owned()).or_insert_with(compile).clone()
}

fn fits(one: &RouteMatch, (path, post, header): Request) -> bool {
    let matches = |text: &str, value: &str| matcher(text).is_match(value.as_bytes());
    let path_fits = match &one.path {
        PathMatch::Exact(wanted) => &**wanted == path,
        PathMatch::Regex(wanted) => matches(wanted, path),
        PathMatch::Prefix(wanted) => {
            let wanted = wanted.trim_end_matches('/');
            path.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
    };
    let header_fits = |wanted: &ValueMatch| match &wanted.value {
        StringMatch::Exact(text) => header == Some(text),
        StringMatch::Regex(text) => header.is_some_and(|value| matches(text, value)),
    };
    let method_fits = one.method.as_deref().is_none_or(|wanted| wanted == if post { "POST" } else { "GET" });
    path_fits && method_fits && one.headers.iter().all(header_fits)
}

/// What of a rule's resource does not say where it stands.
fn placeless(route: &Route) -> Route {
    Route { rule: 0, ..route.clone() }
}

/// Whether the status admits that it could not be told what the rule names.
fn untold(translation: &Translation) -> bool {
    let Some(Status::Route(status)) = translation.statuses.values().next() else { return false };
    let parent = &status.parents[0];
    let said = parent.partially_invalid.as_ref().map_or(&parent.accepted.message, |one| &one.message);
    said.contains("it cannot be told")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_broken_rule_changes_no_other_and_gives_its_requests_to_nobody(
        good in prop::collection::vec(prop::collection::vec(matches(), 1..3), 1..4),
        last in prop::collection::vec(matches(), 1..3),
        how in prop::sample::select(BREAKS.to_vec()),
        at in any::<prop::sample::Index>(),
    ) {
        let good: Vec<Value> = good.into_iter().map(|matches| rule(matches, "b")).collect();
        let whole = rule(last, "c");
        let mut bad = whole.clone();
        prop_assume!(broken(&mut bad, how));
        let at = at.index(good.len() + 1);
        let with = |one: Value| {
            let mut rules = good.clone();
            rules.insert(at, one);
            translated(&rules)
        };
        let (alone, intended, partly) = (translated(&good), with(intended(&whole, how)), with(bad));
        prop_assert!(untold(&intended) || routes(&intended)[at].action.filters.is_empty());

        let others: Vec<Route> = routes(&partly).into_iter().filter(|route| route.rule as usize != at).map(placeless).collect();
        let before: Vec<Route> = routes(&alone).into_iter().map(placeless).collect();
        prop_assert_eq!(others, before, "the other rules are as they were");
        prop_assert_eq!(&routes(&partly)[at].action.filters, &[RouteFilter::Invalid]);

        for request in requests() {
            let served = winner(&routes(&partly), request);
            let meant = winner(&routes(&intended), request);
            let others = winner(&routes(&alone), request);
            let closed = served.is_some_and(|route| route.rule as usize == at);
            let same = served.map(placeless) == others.map(placeless);
            prop_assert!(closed || same, "{:?} goes to a rule that it did not go to", request);
            if meant.is_some_and(|route| route.rule as usize == at) {
                prop_assert!(closed || untold(&partly), "{:?} is not closed", request);
            }
        }
    }
}
