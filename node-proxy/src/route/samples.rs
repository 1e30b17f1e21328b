// SPDX-License-Identifier: Apache-2.0
//! Requests and matches for property tests: few names and values, so that random ones meet.

use proptest::{collection::vec, option, prelude::*, sample::select};
use weft_http::head::{Head, Name, Value};
use weft_ir::{PathMatch, RouteMatch, StringMatch, ValueMatch};

/// Hosts of requests.
pub(crate) const HOSTS: [&str; 4] = ["a.test", "b.test", "x.b.test", ""];
/// Paths of requests.
pub(crate) const PATHS: [&str; 3] = ["/", "/a", "/a/b"];

/// A request of this target, without a host.
pub(crate) fn get(target: &str) -> Head {
    let mut head = Head::new();
    head.start_request(b"GET", target.as_bytes(), b"").expect("a target");
    head
}

/// A request to one of the hosts, with what conditions and rules of this world ask for, and more.
pub(crate) fn request() -> impl Strategy<Value = Head> {
    let targets: Vec<String> = PATHS
        .iter()
        .flat_map(|path| ["", "?", "?q=1", "?r=1", "?q=2&r=1"].map(|query| format!("{path}{query}")))
        .collect();
    let field = (select(vec!["x-a", "X-A", "x-b", "Accept", "cookie", "x-c"]), select(vec!["1", "2", ""]));
    let start = (select(vec!["GET", "POST", "PURGE"]), select(targets), select(HOSTS.to_vec()));
    (start, vec(field, 0..4)).prop_map(|((method, target, host), fields)| {
        let mut head = Head::new();
        head.start_request(method.as_bytes(), target.as_bytes(), host.as_bytes()).expect("a request");
        for (name, value) in fields {
            let name = Name::new(name.as_bytes()).expect("a name");
            head.append(&name, Value::new(value.as_bytes()).expect("a value")).expect("room");
        }
        head
    })
}

/// A match of a route.
pub(crate) fn route_match() -> impl Strategy<Value = RouteMatch> {
    let path = (select(PATHS.to_vec()), 0..6_u8).prop_map(|(path, kind)| match kind {
        0 => PathMatch::Exact(path.into()),
        1 => PathMatch::Regex(format!("{path}.*").into()),
        _ => PathMatch::Prefix(path.into()),
    });
    let value = |names: Vec<&'static str>| {
        (select(names), select(vec!["1", "2", "1,2", ""])).prop_map(|(name, value)| ValueMatch {
            name: name.into(),
            value: StringMatch::Exact(value.into()),
        })
    };
    let headers = vec(value(vec!["x-a", "X-B", "accept", "cookie"]), 0..2);
    let query = vec(value(vec!["q", "r"]), 0..2);
    (path, option::weighted(0.3, select(vec!["GET", "POST"])), headers, query).prop_map(
        |(path, method, headers, query)| RouteMatch { path, method: method.map(Into::into), headers, query },
    )
}
