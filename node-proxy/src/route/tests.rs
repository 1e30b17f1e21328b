// SPDX-License-Identifier: Apache-2.0
use proptest::{collection::vec, prelude::*, sample::select};
use weft_http::head::{Name, Value};
use weft_ir::{
    ObjectName, RouteAction, RouteKind, RouteMatch, RouteParent, RouteTimeouts, StringMatch, ValueMatch,
};

use super::*;
use crate::route::{
    samples::{self, HOSTS},
    seen::{Asked, Last},
    slots::Slot,
};

fn any() -> RouteMatch {
    RouteMatch { path: PathMatch::Prefix("/".into()), method: None, headers: vec![], query: vec![] }
}

fn prefix(path: &str) -> RouteMatch {
    RouteMatch { path: PathMatch::Prefix(path.into()), ..any() }
}

fn exact(path: &str) -> RouteMatch {
    RouteMatch { path: PathMatch::Exact(path.into()), ..any() }
}

fn regex(path: &str) -> RouteMatch {
    RouteMatch { path: PathMatch::Regex(path.into()), ..any() }
}

fn value(name: &str, value: &str) -> ValueMatch {
    ValueMatch { name: name.into(), value: StringMatch::Exact(value.into()) }
}

fn route(name: &str, hostnames: &[&str], matches: Vec<RouteMatch>) -> Route {
    Route {
        kind: RouteKind::HttpRoute,
        origin: ObjectName::new("shop", name),
        rule: 0,
        created: 100,
        parents: vec![RouteParent::Service { service: ObjectName::new("shop", "web"), port: None }],
        hostnames: hostnames.iter().map(|hostname| (*hostname).into()).collect(),
        matches,
        action: RouteAction {
            filters: vec![],
            backends: vec![],
            timeouts: RouteTimeouts::default(),
            retry: None,
        },
    }
}

/// The table of a listener.
fn table(routes: &[Route]) -> RouteTable {
    let compile = |route| (route, Arc::new(Rule::compile(route, vec![], |_| Slot::default())));
    let compiled: Vec<_> = routes.iter().map(compile).collect();
    let hosts: BTreeSet<Arc<str>> = routes.iter().flat_map(hostnames_of).collect();
    let mut table = RouteTable::default();
    for host in hosts {
        let of_host = compiled.iter().filter(|(route, _)| hostnames_of(route).contains(&host));
        table.set_host(&host, &of_host.cloned().collect::<Vec<_>>());
    }
    table
}

fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Head {
    let mut head = Head::new();
    head.start_request(method.as_bytes(), target.as_bytes(), b"").expect("a request");
    for (name, value) in headers {
        let name = Name::new(name.as_bytes()).expect("a name");
        head.append(&name, Value::new(value.as_bytes()).expect("a value")).expect("room");
    }
    head
}

fn found(table: &RouteTable, host: &str, head: &Head) -> Option<String> {
    let matched = table.find(host.as_bytes(), head, &mut Looked::default())?;
    matched.rule.label.split('/').nth(1).map(str::to_owned)
}

fn get(table: &RouteTable, host: &str, target: &str) -> Option<String> {
    found(table, host, &request("GET", target, &[]))
}

#[test]
fn the_path_decides_exact_then_expression_then_longest_prefix() {
    let table = table(&[
        route("root", &[], vec![prefix("/")]),
        route("long", &[], vec![prefix("/a/b")]),
        route("short", &[], vec![prefix("/a/")]),
        route("expression", &[], vec![regex("/a/b/[0-9]+")]),
        route("exact", &[], vec![exact("/a/b/7")]),
    ]);
    for (target, wanted) in [
        ("/", "root"),
        ("/ab", "root"),
        ("/a", "short"),
        ("/a/", "short"),
        ("/a/bc", "short"),
        ("/a/b", "long"),
        ("/a/b/", "long"),
        ("/a/b/c?x=/a", "long"),
        ("/a/b/8", "expression"),
        ("/a/b/8/9", "long"),
        ("/a/b/7?x", "exact"),
        ("/a/b/7/", "long"),
    ] {
        assert_eq!(get(&table, "h", target).as_deref(), Some(wanted), "{target}");
    }
}

#[test]
fn a_better_path_wins_over_more_conditions() {
    let conditions =
        RouteMatch { method: Some("GET".into()), headers: vec![value("x-a", "1")], ..prefix("/a") };
    let table =
        table(&[route("conditions", &[], vec![conditions]), route("path", &[], vec![prefix("/a/b")])]);
    assert_eq!(found(&table, "h", &request("GET", "/a/b", &[("x-a", "1")])).as_deref(), Some("path"));
}

#[test]
fn method_wins_over_headers_and_headers_over_query() {
    let table = table(&[
        route("query", &[], vec![RouteMatch { query: vec![value("q", "1"), value("r", "1")], ..any() }]),
        route("header", &[], vec![RouteMatch { headers: vec![value("x-a", "1")], ..any() }]),
        route(
            "headers",
            &[],
            vec![RouteMatch { headers: vec![value("x-a", "1"), value("x-b", "1")], ..any() }],
        ),
        route("method", &[], vec![RouteMatch { method: Some("POST".into()), ..any() }]),
    ]);
    let all = [("x-a", "1"), ("x-b", "1")];
    assert_eq!(found(&table, "h", &request("POST", "/?q=1&r=1", &all)).as_deref(), Some("method"));
    assert_eq!(found(&table, "h", &request("GET", "/?q=1&r=1", &all)).as_deref(), Some("headers"));
    assert_eq!(found(&table, "h", &request("GET", "/?q=1&r=1", &all[..1])).as_deref(), Some("header"));
    assert_eq!(get(&table, "h", "/?q=1&r=1").as_deref(), Some("query"));
    assert_eq!(get(&table, "h", "/?q=1"), None);
}

#[test]
fn a_tie_goes_to_the_older_route_and_then_to_the_first_by_name() {
    let older = Route { created: 50, ..route("z", &[], vec![any()]) };
    let unknown = Route { created: 0, ..route("0", &[], vec![any()]) };
    let routes = [route("b", &[], vec![any()]), unknown, route("a", &[], vec![any()]), older];
    assert_eq!(get(&table(&routes), "h", "/").as_deref(), Some("z"));
    assert_eq!(get(&table(&routes[..3]), "h", "/").as_deref(), Some("a"));
}

#[test]
fn the_most_specific_hostname_wins_over_the_path() {
    let table = table(&[
        route("any", &[], vec![exact("/x")]),
        route("wide", &["*.test"], vec![exact("/x")]),
        route("narrow", &["*.shop.test"], vec![exact("/x")]),
        route("exact", &["A.shop.test"], vec![prefix("/x")]),
    ]);
    for (host, wanted) in [
        ("a.shop.test", "exact"),
        ("b.shop.test", "narrow"),
        ("c.b.shop.test", "narrow"),
        ("shop.test", "wide"),
        ("test", "any"),
        ("other", "any"),
    ] {
        assert_eq!(get(&table, host, "/x").as_deref(), Some(wanted), "{host}");
    }
}

#[test]
fn a_less_specific_hostname_serves_what_the_more_specific_has_no_rule_for() {
    let table = table(&[
        route("wide", &["*.test"], vec![prefix("/")]),
        route("exact", &["a.test"], vec![prefix("/x")]),
    ]);
    assert_eq!(get(&table, "a.test", "/y").as_deref(), Some("wide"));
}

#[test]
fn only_the_first_value_of_a_query_parameter_counts_and_is_decoded() {
    let table = table(&[route("q", &[], vec![RouteMatch { query: vec![value("a b", "1/2")], ..any() }])]);
    assert_eq!(get(&table, "h", "/?a+b=1%2F2&a+b=3").as_deref(), Some("q"));
    assert_eq!(get(&table, "h", "/?a%20b=3&a+b=1/2"), None);
    assert_eq!(get(&table, "h", "/?a%2"), None);
}

#[test]
fn several_headers_of_one_name_are_one_list() {
    let table = table(&[route("h", &[], vec![RouteMatch { headers: vec![value("x-a", "1,2")], ..any() }])]);
    assert!(found(&table, "h", &request("GET", "/", &[("x-a", "1"), ("x-a", "2")])).is_some());
    assert!(found(&table, "h", &request("GET", "/", &[("x-a", "1")])).is_none());
}

#[test]
fn of_several_conditions_on_one_header_the_first_counts_whatever_its_case() {
    let headers = vec![value("X-A", "1"), value("x-a", "2")];
    let table = table(&[route("h", &[], vec![RouteMatch { headers, ..any() }])]);
    assert!(found(&table, "h", &request("GET", "/", &[("x-a", "1")])).is_some());
    assert!(found(&table, "h", &request("GET", "/", &[("x-a", "2")])).is_none());
}

#[test]
fn an_expression_has_to_match_as_a_whole() {
    let table = table(&[route("r", &[], vec![regex("/a|/b")])]);
    assert!(get(&table, "h", "/b").is_some());
    assert!(get(&table, "h", "/bc").is_none());
    assert!(get(&table, "h", "/x/a").is_none());
}

#[test]
fn a_rule_that_cannot_be_used_is_closed_alone() {
    let broken = |wanted: RouteMatch| {
        let bad = route("bad", &[], vec![wanted, prefix("/ok")]);
        let (closed, error) = usable(&bad);
        assert!(error.is_some() && closed.action.filters == [weft_ir::RouteFilter::Invalid]);
        table(&[closed.into_owned(), route("good", &[], vec![prefix("/")])])
    };
    for expression in ["/foo(", "/foo{9999}"] {
        let table = broken(regex(expression));
        for (target, wanted) in [("/fooo", "bad"), ("/ok", "bad"), ("/other", "good")] {
            assert_eq!(get(&table, "h", target).as_deref(), Some(wanted), "{expression} {target}");
        }
    }
    let table = broken(regex("/a)|(?:.*"));
    assert_eq!(get(&table, "h", "/anything").as_deref(), Some("good"), "what it names cannot be told");
    let header = ValueMatch { name: "x-a".into(), value: StringMatch::Regex("(".into()) };
    let table = broken(RouteMatch { headers: vec![header], ..any() });
    assert_eq!(found(&table, "h", &request("GET", "/", &[("x-a", "1")])).as_deref(), Some("bad"));
    assert_eq!(get(&table, "h", "/").as_deref(), Some("good"));
}

#[test]
fn the_covered_prefix_is_known_for_rewrites() {
    let table = table(&[route("p", &[], vec![prefix("/a/b/")])]);
    let head = request("GET", "/a/b/c", &[]);
    assert_eq!(table.find(b"h", &head, &mut Looked::default()).expect("a match").prefix, Some(4));
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let hostnames = select(vec![&[][..], &["a.test"], &["*.test"], &["b.test", "*.b.test"]]);
    let matches = vec(samples::route_match(), 1..3);
    vec((select(vec!["r1", "r2", "r3"]), hostnames, matches), 1..5).prop_map(|routes| {
        let made = routes.into_iter().enumerate();
        made.map(|(number, (name, hostnames, matches))| Route {
            rule: number as u32,
            ..route(name, hostnames, matches)
        })
        .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Requests that are the same in all that was looked at get the same rule.
    #[test]
    fn a_request_that_was_seen_gets_the_rule_that_it_would_find(
        routes in routes(),
        host in select(HOSTS.to_vec()),
        requests in vec(samples::request(), 2..16),
    ) {
        let table = table(&routes);
        for first in &requests {
            let mut looked = Looked::default();
            let found = table.find(host.as_bytes(), first, &mut looked);
            let mut last = Last::default();
            last.set(Asked::effective(first), &looked, found);
            prop_assert!(last.get(Asked::effective(first)).is_some());
            for other in &requests {
                let Some(known) = last.get(Asked::effective(other)) else { continue };
                let wanted = table.find(host.as_bytes(), other, &mut Looked::default());
                let of = |matched: Option<Matched<'_>>| matched.map(|m| (Arc::as_ptr(m.rule), m.prefix));
                prop_assert_eq!(of(*known), of(wanted));
            }
        }
    }
}
