// SPDX-License-Identifier: Apache-2.0
use std::time::Instant;

use super::*;

fn rule(method: &str, path: &str) -> HttpRule {
    HttpRule { method: Some(method.into()), path: Some(path.into()), ..HttpRule::default() }
}

fn compile(rules: &[HttpRule]) -> RequestRules {
    RequestRules::compile(&[HttpSource { rule: checkout(), rules: rules.into() }])
}

fn checkout() -> RuleRef {
    RuleRef { number: 7, policy: "shop/checkout".into() }
}

fn decide(
    rules: RequestRules,
    method: &str,
    authority: &str,
    target: &str,
    headers: &[(&str, &str)],
) -> HttpDecision {
    let header = |name: &str| {
        let found = headers.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| Cow::Owned(value.as_bytes().to_vec()))
    };
    let mut all = HttpRules::default();
    all.add(Arc::new(rules));
    all.decide(&HttpRequest {
        method: method.as_bytes(),
        authority: authority.as_bytes(),
        target: target.as_bytes(),
        header: &header,
    })
}

fn allows(path: &str, target: &str) -> bool {
    matches!(decide(compile(&[rule("GET", path)]), "GET", "shop", target, &[]), HttpDecision::Allow(_))
}

#[test]
fn expressions_match_the_whole_target_with_its_query() {
    assert!(allows("/pay", "/pay"));
    assert!(!allows("/pay", "/pay?x=1"));
    assert!(!allows("/pay", "/payroll"));
    assert!(!allows("/pay", "/a/pay"));
    assert!(allows("/pay.*", "/pay?x=1"));
    assert!(allows("/a|/b", "/b"));
    assert!(!allows("/a|/b", "/bc"), "the whole alternation is anchored, not its ends");
    assert!(allows("^/pay$", "/pay"));
    assert!(allows("(?i)/PAY", "/pay"));
    assert!(allows("/a(?x) b # comment", "/ab"));
    assert!(allows("", ""));
}

#[test]
fn classes_are_those_of_re2() {
    assert!(allows("/\\d+", "/12"));
    assert!(!allows("/\\d+", "/\u{661}"), "\\d is ASCII");
    assert!(allows("/\\p{Greek}", "/\u{3b1}"));
    assert!(allows("/[\u{e9}]", "/\u{e9}"));
}

#[test]
fn a_denial_names_the_reason_and_the_policy() {
    assert_eq!(
        decide(compile(&[rule("GET", "/.*")]), "POST", "shop", "/pay", &[]),
        HttpDecision::Deny(Reason::HttpPolicyDenied, Some(checkout()))
    );
    assert_eq!(
        decide(compile(&[rule("GET", "/.*")]), "GET", "shop", "/pay", &[]),
        HttpDecision::Allow(checkout())
    );
}

#[test]
fn a_rule_without_conditions_allows_every_request_and_no_rule_none() {
    assert!(matches!(decide(compile(&[HttpRule::default()]), "X", "", "*", &[]), HttpDecision::Allow(_)));
    assert!(matches!(decide(compile(&[]), "GET", "shop", "/", &[]), HttpDecision::Deny(..)));
}

#[test]
fn headers_are_present_or_equal_and_each_rule_stands_alone() {
    let with = |path: &str, name: &str, value: Option<&str>| HttpRule {
        path: Some(path.into()),
        headers: vec![(name.into(), value.map(Arc::from))],
        ..HttpRule::default()
    };
    let rules = [with("/.*", "x-team", Some("red")), with("/open", "x-any", None)];
    let allowed = |target, headers: &[(&str, &str)]| {
        matches!(decide(compile(&rules), "GET", "shop", target, headers), HttpDecision::Allow(_))
    };
    assert!(allowed("/a", &[("x-team", "red")]));
    assert!(!allowed("/a", &[("x-team", "Red")]));
    assert!(!allowed("/a", &[("x-team", "red,blue")]));
    assert!(!allowed("/a", &[("x-any", "1")]));
    // Both patterns match the target; only the second rule's header is there.
    assert!(allowed("/open", &[("x-any", "")]));
}

#[test]
fn the_headers_that_rules_ask_for_are_named_once() {
    let with = |names: &[&str]| HttpRule {
        headers: names.iter().map(|name| (Arc::from(*name), None)).collect(),
        ..HttpRule::default()
    };
    let broken = HttpRule { path: Some("(".into()), ..with(&["x-c"]) };
    let mut rules = HttpRules::default();
    rules.add(Arc::new(compile(&[with(&["x-b", "x-a"]), HttpRule::default(), with(&["x-b"]), broken])));
    rules.add(Arc::new(compile(&[HttpRule::default()])));
    let lists: Vec<Vec<&str>> =
        rules.headers().map(|list| list.iter().map(|name| &**name).collect()).collect();
    assert_eq!(lists, [vec!["x-a", "x-b"], vec![]]);
}

#[test]
fn parts_cannot_be_taken_for_each_other() {
    let greedy = HttpRule { method: Some("[^x]*".into()), path: Some("/a".into()), ..HttpRule::default() };
    assert!(matches!(decide(compile(&[greedy]), "GET", "shop", "/b", &[]), HttpDecision::Deny(..)));
    let any = compile(&[HttpRule::default()]);
    assert!(matches!(decide(any, "GET\nshop\n/a", "", "", &[]), HttpDecision::Deny(..)));
}

#[test]
fn a_text_is_the_same_on_the_stack_and_off_it() {
    let (mut buffer, long) = ([0; ON_STACK], [b'x'; ON_STACK]);
    for parts in [[&b""[..], b"", b""], [b"GET", b"a.test", b"/"], [b"GET", b"", &long[..ON_STACK - 5]]] {
        let text = line_separated(parts, &mut buffer);
        assert_eq!((&*text, matches!(text, Cow::Borrowed(_))), (&*parts.join(&b'\n'), true));
    }
    let parts = [&b"GET"[..], b"", &long[..ON_STACK - 4]];
    assert_eq!(*line_separated(parts, &mut buffer), *parts.join(&b'\n'));
}

#[test]
fn an_expression_that_does_not_compile_allows_nothing_and_is_reported() {
    let rules = compile(&[rule("GET", "("), rule("GET", "/a")]);
    let [Warning::Pattern { policy, error }] = rules.warnings.as_slice() else {
        panic!("{:?}", rules.warnings)
    };
    assert_eq!((&**policy, &*error.expression), ("shop/checkout", "("));
    assert!(matches!(decide(rules, "GET", "", "/a", &[]), HttpDecision::Allow(_)));
    assert!(matches!(decide(compile(&[rule("GET", "(")]), "GET", "", "(", &[]), HttpDecision::Deny(..)));
}

#[test]
fn sizes_are_bounded() {
    let many: Vec<HttpRule> = (0..400).map(|n| rule("GET", &format!("/{n}/[a-f]{{4900}}"))).collect();
    let rules = compile(&many);
    assert_eq!(rules.warnings, [Warning::HttpRulesTooLarge { policy: "shop/checkout".into() }]);
    assert!(matches!(decide(rules, "GET", "", "/1/a", &[]), HttpDecision::Deny(..)));
}

#[test]
fn five_thousand_rules_cost_about_as_much_as_one() {
    let path = |n: usize| format!("/v1/tenants/[a-z0-9-]+/items/{n}(/.*)?");
    let many = compile(&(0..5_000).map(|n| rule("GET|POST", &path(n))).collect::<Vec<_>>());
    let one = compile(&[rule("GET|POST", &path(4_999))]);
    let (targets, header) = (["/v1/tenants/a-1/items/4999/x", "/v1/tenants/b-2/items/5000"], |_: &str| None);
    let time = |rules: &RequestRules| {
        let run = || {
            let begin = Instant::now();
            for target in targets.iter().cycle().take(2_000) {
                let request = HttpRequest {
                    method: b"GET",
                    authority: b"shop",
                    target: target.as_bytes(),
                    header: &header,
                };
                assert_eq!(rules.allowed_by(&request, request.target).is_some(), target.ends_with('x'));
            }
            begin.elapsed()
        };
        // The best of several runs, since other work shares the machine.
        (0..7).map(|_| run()).min().unwrap_or_default()
    };
    let (slow, quick) = (time(&many), time(&one));
    // Trying rules one by one would be thousands of times slower.
    assert!(slow < quick * 20, "{slow:?} with 5,000 rules, {quick:?} with one");
    println!("2,000 decisions: {slow:?} with 5,000 rules, {quick:?} with one");
}

#[test]
fn a_path_is_allowed_only_when_every_reading_of_it_is() {
    for target in [
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public/..%2fadmin",
        "/public/..\\admin",
        "/public/..;/admin",
        "/public//../admin",
        "/public/../secret//../public/x",
    ] {
        assert!(!allows("/public/.*", target), "{target}");
    }
    for target in
        ["/public/a/../b", "/public//b", "/public/a%2Fb", "/public/.well-known", "/public/?q=/../admin"]
    {
        assert!(allows("/public/.*", target), "{target}");
    }
    let any_path = HttpRule { method: Some("GET".into()), ..HttpRule::default() };
    let any = decide(compile(&[any_path]), "GET", "shop", "/public/../admin", &[]);
    assert!(matches!(any, HttpDecision::Allow(_)), "a rule without a path is about any");
    let two = [rule("GET", "/public/.*"), rule("GET", "/admin")];
    let across = decide(compile(&two), "GET", "shop", "/public/../admin", &[]);
    assert!(matches!(across, HttpDecision::Allow(_)), "another rule may allow the other reading");
    assert!(!allows("/[^/]*", "/admin%2Fsecret"));
    assert!(!allows("/[^a].*", "/%61dmin"));
}
