// SPDX-License-Identifier: Apache-2.0
//! Forwarding rules of others, which packets that skip the node's stack do not meet.

use std::{collections::BTreeSet, fs, io};

use serde::Deserialize;
use serde_json::Value;

use super::{FirewallError, TABLE, nft};

/// Chains that look at how connections begin: kube-proxy's, flannel's, and those of the CNI's reference plug-ins. The
/// name is not enough: it says only that a jump behind a match of connection tracking, which nft cannot read (`xt`),
/// is about beginnings.
const KNOWN_CHAINS: [&str; 6] = [
    "KUBE-FORWARD",
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-PROXY-FIREWALL",
    "FLANNEL-FWD",
    "CNI-FORWARD",
];
/// Where packets are that the short way passes by.
const HOOKS: [&str; 5] = ["prerouting", "forward", "postrouting", "ingress", "egress"];
/// The tables of the older iptables, which nft does not list; there is no such file where none was ever used.
const OLD_TABLES: [&str; 2] =
    ["/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"];

/// What `nft -j list` prints.
#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Value>,
}

/// A chain, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    hook: String,
    #[serde(default)]
    policy: String,
}

/// What a rule does with a packet of an established connection.
#[derive(Debug, PartialEq, Eq)]
enum Rule {
    /// Nothing that it would not have without the rule.
    Nothing,
    /// It goes through this chain.
    Through(String),
    /// Something, or we cannot tell.
    Something,
}

/// The first chain of others that does something with packets which are forwarded, by family, table and name.
///
/// # Errors
/// Where nft is missing, or prints what cannot be read.
pub(crate) async fn rules_of_others() -> Result<Option<String>, FirewallError> {
    for path in OLD_TABLES {
        let tables = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            tables => tables?,
        };
        if tables.split_whitespace().any(|table| table != "nat") {
            return Ok(Some("iptables-legacy".to_owned()));
        }
    }
    let mut left = chains(&nft(&["-j", "list", "chains"], "").await?)?;
    let mut seen = BTreeSet::new();
    while let Some(chain) = left.pop() {
        if !seen.insert(chain.clone()) {
            continue;
        }
        let listed = nft(&["-j", "list", "chain", &chain.family, &chain.table, &chain.name], "").await?;
        match passed_through(&chain, &listed)? {
            Some(targets) => left.extend(targets),
            None => return Ok(Some(format!("{} {} {}", chain.family, chain.table, chain.name))),
        }
    }
    Ok(None)
}

fn read(listed: &[u8]) -> Result<Vec<Value>, FirewallError> {
    let listing: Listing = serde_json::from_slice(listed).map_err(io::Error::other)?;
    Ok(listing.nftables)
}

/// The chains of others at hooks of forwarded packets. Those of type nat see only the first of a connection.
fn chains(listed: &[u8]) -> Result<Vec<Chain>, FirewallError> {
    let chains = read(listed)?.into_iter().filter_map(|object| object.get("chain").cloned());
    let mut found = Vec::new();
    for chain in chains {
        let chain: Chain = serde_json::from_value(chain).map_err(io::Error::other)?;
        let ours = chain.family == "inet" && chain.table == TABLE;
        if HOOKS.contains(&chain.hook.as_str()) && chain.kind != "nat" && !ours {
            found.push(chain);
        }
    }
    Ok(found)
}

/// The chains to which a chain sends packets of established connections; nothing where it does something with them.
fn passed_through(chain: &Chain, listed: &[u8]) -> Result<Option<Vec<Chain>>, FirewallError> {
    if !matches!(chain.policy.as_str(), "" | "accept") {
        return Ok(None);
    }
    let known = is_known(&chain.name);
    let mut targets = Vec::new();
    for object in read(listed)? {
        let Some(rule) = object.get("rule") else { continue };
        match look_at(rule, known) {
            Rule::Nothing => {}
            Rule::Through(name) => {
                let (kind, hook, policy) = <(String, String, String)>::default();
                let (family, table) = (chain.family.clone(), chain.table.clone());
                targets.push(Chain { family, table, name, kind, hook, policy });
            }
            Rule::Something => return Ok(None),
        }
    }
    Ok(Some(targets))
}

fn is_known(name: &str) -> bool {
    KNOWN_CHAINS.contains(&name)
}

/// Looks at a rule of a chain whose name is known or not.
fn look_at(rule: &Value, known: bool) -> Rule {
    let Some(statements) = rule.get("expr").and_then(Value::as_array) else { return Rule::Something };
    let known = known || statements.iter().filter_map(target).any(is_known);
    let mut may_be_beginning = false;
    for statement in statements {
        if is_about_beginnings(statement) {
            return Rule::Nothing;
        }
        let is = |key| statement.get(key).is_some();
        if let Some(name) = target(statement) {
            return if known && may_be_beginning { Rule::Nothing } else { Rule::Through(name.to_owned()) };
        } else if is("accept") || is("return") {
            return Rule::Nothing;
        } else if is_unread_match(statement) {
            may_be_beginning |= statement["xt"]["name"] == "conntrack";
        } else if !(is("match") || known && is("counter")) {
            // A verdict that cannot be read, or one that drops; also what connection tracking calls invalid, which is
            // every answer to packets that it has not seen.
            return Rule::Something;
        }
    }
    Rule::Nothing
}

/// The chain where a statement goes.
fn target(statement: &Value) -> Option<&str> {
    statement.get("jump").or_else(|| statement.get("goto"))?.get("target")?.as_str()
}

/// Whether it is a match of iptables, of which nft gives the name only.
fn is_unread_match(statement: &Value) -> bool {
    statement.get("xt").is_some_and(|xt| xt["type"] == "match")
}

/// Whether a statement lets only packets on that begin a connection.
fn is_about_beginnings(statement: &Value) -> bool {
    let Some(matched) = statement.get("match") else { return false };
    let state = matched["left"]["ct"]["key"] == "state" && (matched["op"] == "in" || matched["op"] == "==");
    let right = matched["right"].get("set").unwrap_or(&matched["right"]);
    let beginning = |value: &Value| value == "new";
    state && right.as_array().map_or_else(|| beginning(right), |all| all.iter().all(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTER: &str = r#"{"counter": {"packets": 0, "bytes": 0}}"#;
    const CONNTRACK: &str = r#"{"xt": {"type": "match", "name": "conntrack"}}"#;
    const DROP: &str = r#"{"drop": null}"#;
    const REJECT: &str = r#"{"xt": {"type": "target", "name": "REJECT"}}"#;

    fn state(op: &str, right: &str) -> String {
        format!(r#"{{"match": {{"op": "{op}", "left": {{"ct": {{"key": "state"}}}}, "right": {right}}}}}"#)
    }

    fn jump(name: &str) -> String {
        format!(r#"{{"jump": {{"target": "{name}"}}}}"#)
    }

    fn looked_at(statements: &[&str], known: bool) -> Rule {
        let rule = format!(r#"{{"expr": [{}]}}"#, statements.join(","));
        look_at(&serde_json::from_str(&rule).unwrap(), known)
    }

    #[test]
    fn rules_about_beginnings_do_nothing_else_whatever_chain_they_are_in() {
        for right in [r#""new""#, r#"["new"]"#, r#"{"set": ["new"]}"#] {
            assert_eq!(looked_at(&[&state("in", right), COUNTER, DROP], false), Rule::Nothing, "{right}");
        }
        for (op, right) in [
            ("in", r#""established""#),
            ("in", r#"["invalid", "new"]"#),
            ("in", r#""invalid""#),
            ("!=", r#""new""#),
        ] {
            assert_eq!(looked_at(&[&state(op, right), DROP], false), Rule::Something, "{op} {right}");
        }
        assert_eq!(looked_at(&[COUNTER, &state("in", r#""new""#), DROP], false), Rule::Something);
    }

    #[test]
    fn a_known_name_excuses_counters_and_what_cannot_be_read_but_no_drops() {
        let (new, to_unknown) = (jump("KUBE-SERVICES"), jump("DOCKER-USER"));
        let through = |name: &str| Rule::Through(name.to_owned());
        for (statements, known, expected) in [
            (&[COUNTER, &jump("KUBE-FORWARD")][..], false, through("KUBE-FORWARD")),
            (&[r#"{"goto": {"target": "FLANNEL-FWD"}}"#], false, through("FLANNEL-FWD")),
            (&[CONNTRACK, COUNTER, &new], false, Rule::Nothing),
            (&[&to_unknown], false, through("DOCKER-USER")),
            (&[COUNTER, &to_unknown], false, Rule::Something),
            (&[CONNTRACK, COUNTER, DROP], true, Rule::Something),
            (&[CONNTRACK, COUNTER, DROP], false, Rule::Something),
            (&[CONNTRACK, DROP], false, Rule::Something),
            (&[COUNTER, DROP], true, Rule::Something),
            (&[REJECT], true, Rule::Something),
            (&[COUNTER, r#"{"accept": null}"#], true, Rule::Nothing),
            (&[r#"{"accept": null}"#], false, Rule::Nothing),
            (&[COUNTER], false, Rule::Something),
            (&[r#"{"limit": {"rate": 1}}"#, r#"{"accept": null}"#], false, Rule::Something),
        ] {
            assert_eq!(looked_at(statements, known), expected, "{statements:?} {known}");
        }
    }

    #[test]
    fn a_policy_that_drops_needs_no_rule_and_jumps_are_followed() {
        let chain = |policy: &str| Chain {
            family: "inet".into(),
            table: "t".into(),
            name: "c".into(),
            kind: "filter".into(),
            hook: "forward".into(),
            policy: policy.into(),
        };
        let listed =
            format!(r#"{{"nftables": [{{"chain": {{}}}}, {{"rule": {{"expr": [{}]}}}}]}}"#, jump("d"));
        assert_eq!(passed_through(&chain("drop"), br#"{"nftables": []}"#).unwrap(), None);
        assert_eq!(passed_through(&chain("accept"), br#"{"nftables": []}"#).unwrap(), Some(vec![]));
        let through = passed_through(&chain(""), listed.as_bytes()).unwrap().unwrap();
        assert_eq!((through.len(), through[0].name.as_str(), through[0].table.as_str()), (1, "d", "t"));
    }

    #[test]
    fn chains_of_others_at_every_hook_of_forwarded_packets_are_found() {
        let chain = |table: &str, kind: &str, hook: &str| {
            format!(
                r#"{{"chain": {{"family": "inet", "table": "{table}", "name": "c", "type": "{kind}", "hook": "{hook}"}}}}"#
            )
        };
        let mut listed = vec![
            chain("weft", "filter", "forward"),
            chain("firewall", "filter", "input"),
            chain("firewall", "nat", "prerouting"),
            r#"{"chain": {"family": "inet", "table": "firewall", "name": "c"}}"#.to_owned(),
        ];
        listed.extend(HOOKS.map(|hook| chain("kube-proxy", "filter", hook)));
        let listed = format!(r#"{{"nftables": [{{"metainfo": {{}}}}, {}]}}"#, listed.join(","));
        let found = chains(listed.as_bytes()).unwrap();
        assert!(found.iter().all(|chain| chain.table == "kube-proxy"), "{found:?}");
        assert_eq!(found.len(), HOOKS.len());
    }
}
