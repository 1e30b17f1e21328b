// SPDX-License-Identifier: Apache-2.0
//! CiliumNetworkPolicy and NetworkPolicy, with the fields that Weft enforces. Every other field is
//! one that the types do not know, and so rejects the policy.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};

use crate::{core::L4Protocol, meta::Metadata};

/// A label selector; all conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels with exactly this value.
    pub match_labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Further conditions.
    pub match_expressions: Vec<LabelRequirement>,
}

/// A condition on a label.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct LabelRequirement {
    /// The label's key.
    pub key: Arc<str>,
    /// What is asked of it.
    pub operator: SelectorOperator,
    /// The values, for `In` and `NotIn`.
    #[serde(default)]
    pub values: Vec<Arc<str>>,
}

/// What is asked of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum SelectorOperator {
    /// It has one of the values.
    In,
    /// It is missing or has none of the values.
    NotIn,
    /// It is there.
    Exists,
    /// It is missing.
    DoesNotExist,
}

/// `cilium.io/v2` CiliumNetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CiliumNetworkPolicy {
    /// Its name.
    pub metadata: Metadata,
    /// One rule.
    pub spec: Option<CiliumRule>,
    /// More rules.
    pub specs: Vec<CiliumRule>,
}

/// One rule of a CiliumNetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CiliumRule {
    /// The workloads that it speaks about.
    pub endpoint_selector: Option<LabelSelector>,
    /// What may come in.
    pub ingress: Option<Vec<CiliumIngress>>,
    /// What may not come in.
    pub ingress_deny: Option<Vec<CiliumIngress>>,
    /// What may go out.
    pub egress: Option<Vec<CiliumEgress>>,
    /// What may not go out.
    pub egress_deny: Option<Vec<CiliumEgress>>,
    /// Whether the rule closes the directions that it names.
    pub enable_default_deny: DefaultDeny,
    /// Free text.
    pub description: Option<Arc<str>>,
    /// Labels of the rule itself, for tools.
    pub labels: Option<serde_json::Value>,
}

/// `enableDefaultDeny`; absent means that a direction with entries is closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DefaultDeny {
    /// For what comes in.
    pub ingress: Option<bool>,
    /// For what goes out.
    pub egress: Option<bool>,
}

/// One entry of `ingress` or `ingressDeny`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CiliumIngress {
    /// Workloads.
    pub from_endpoints: Option<Vec<LabelSelector>>,
    /// Groups with a fixed meaning.
    pub from_entities: Option<Vec<Arc<str>>>,
    /// Prefixes or addresses outside of the cluster.
    #[serde(rename = "fromCIDR")]
    pub from_cidr: Option<Vec<Arc<str>>>,
    /// Prefixes with exceptions.
    #[serde(rename = "fromCIDRSet")]
    pub from_cidr_set: Option<Vec<CidrRule>>,
    /// Ports, and what may be said on them.
    pub to_ports: Vec<CiliumPortRule>,
}

/// One entry of `egress` or `egressDeny`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CiliumEgress {
    /// Workloads.
    pub to_endpoints: Option<Vec<LabelSelector>>,
    /// Groups with a fixed meaning.
    pub to_entities: Option<Vec<Arc<str>>>,
    /// Prefixes or addresses outside of the cluster.
    #[serde(rename = "toCIDR")]
    pub to_cidr: Option<Vec<Arc<str>>>,
    /// Prefixes with exceptions.
    #[serde(rename = "toCIDRSet")]
    pub to_cidr_set: Option<Vec<CidrRule>>,
    /// Ports, and what may be said on them.
    pub to_ports: Vec<CiliumPortRule>,
}

/// A prefix with exceptions.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct CidrRule {
    /// The prefix.
    #[serde(deserialize_with = "one_prefix")]
    pub cidr: IpNet,
    /// Prefixes inside of it that are left out.
    #[serde(default, deserialize_with = "prefixes")]
    pub except: Vec<IpNet>,
}

/// Reads a prefix, or says what is wrong with it. An octet with a leading zero is refused: some read it as
/// a decimal number, others as an octal one.
pub fn prefix(text: &str) -> Result<IpNet, String> {
    let address = text.split('/').next().unwrap_or_default();
    let octets = address.rsplit(':').next().filter(|octets| octets.contains('.')).unwrap_or_default();
    if octets.split('.').any(|octet| octet.len() > 1 && octet.starts_with('0')) {
        return Err(format!("`{text}` has an octet with a leading zero, about whose base readers disagree"));
    }
    text.parse().map_err(|_error| format!("`{text}` is no address prefix"))
}

fn one_prefix<'de, D: Deserializer<'de>>(from: D) -> Result<IpNet, D::Error> {
    prefix(&Arc::<str>::deserialize(from)?).map_err(de::Error::custom)
}

fn prefixes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    #[derive(Deserialize)]
    struct Prefix(#[serde(deserialize_with = "one_prefix")] IpNet);
    Ok(Vec::<Prefix>::deserialize(from)?.into_iter().map(|Prefix(prefix)| prefix).collect())
}

/// One entry of `toPorts`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CiliumPortRule {
    /// The ports.
    pub ports: Vec<CiliumPort>,
    /// What may be said on them; nothing where no protocol has a rule.
    #[serde(deserialize_with = "l7_rules")]
    pub rules: Option<CiliumL7Rules>,
}

/// One port of `toPorts`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CiliumPort {
    /// A number or a container port's name; `0` or empty means every port.
    pub port: Arc<str>,
    /// The last port of a range.
    pub end_port: Option<i32>,
    /// `TCP`, `UDP`, `SCTP` or `ANY` (the default).
    pub protocol: Option<Arc<str>>,
}

/// `rules` of `toPorts`: those of one protocol.
#[derive(Clone, Debug, PartialEq)]
pub enum CiliumL7Rules {
    /// HTTP rules; at least one.
    Http(Vec<CiliumHttpRule>),
}

/// `rules` as it is written: one list for each protocol. An empty list is no rule.
fn l7_rules<'de, D: Deserializer<'de>>(from: D) -> Result<Option<CiliumL7Rules>, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Written {
        http: Vec<CiliumHttpRule>,
    }
    // Every list is named here, so that one more asks what two of them mean.
    let Written { http } = Option::deserialize(from)?.unwrap_or_default();
    Ok(if http.is_empty() { None } else { Some(CiliumL7Rules::Http(http)) })
}

/// An HTTP rule; all conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CiliumHttpRule {
    /// Regular expression over path and query.
    pub path: Arc<str>,
    /// Regular expression over the method.
    pub method: Arc<str>,
    /// Regular expression over the authority.
    pub host: Arc<str>,
    /// `Name` for presence, or `Name: value` for equality.
    pub headers: Vec<Arc<str>>,
}

/// `networking.k8s.io/v1` NetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NetworkPolicy {
    /// Its name.
    pub metadata: Metadata,
    /// What is asked for.
    pub spec: NetworkPolicySpec,
}

/// `spec` of a NetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NetworkPolicySpec {
    /// The workloads of the namespace that it speaks about.
    pub pod_selector: LabelSelector,
    /// The directions that it closes.
    pub policy_types: Vec<PolicyType>,
    /// What may come in; absent is not the same as nothing.
    pub ingress: Option<Vec<NetworkPolicyIngress>>,
    /// What may go out; absent is not the same as nothing.
    pub egress: Option<Vec<NetworkPolicyEgress>>,
}

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum PolicyType {
    /// What comes in.
    Ingress,
    /// What goes out.
    Egress,
}

/// One entry of `ingress`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NetworkPolicyIngress {
    /// Any of these; anybody when empty.
    pub from: Vec<NetworkPolicyPeer>,
    /// Any of these; every port when empty.
    pub ports: Vec<NetworkPolicyPort>,
}

/// One entry of `egress`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NetworkPolicyEgress {
    /// Any of these; anybody when empty.
    pub to: Vec<NetworkPolicyPeer>,
    /// Any of these; every port when empty.
    pub ports: Vec<NetworkPolicyPort>,
}

/// A peer: selectors, or a block of addresses.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NetworkPolicyPeer {
    /// Labels of the pods; every pod when absent.
    pub pod_selector: Option<LabelSelector>,
    /// Labels of the namespaces; the policy's own namespace when absent.
    pub namespace_selector: Option<LabelSelector>,
    /// Addresses.
    pub ip_block: Option<CidrRule>,
}

/// A port.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NetworkPolicyPort {
    /// A number or a container port's name; every port when absent.
    pub port: Option<IntOrString>,
    /// The last port of a range.
    pub end_port: Option<i32>,
    /// The protocol.
    pub protocol: L4Protocol,
}

/// A number or a text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number.
    Int(i32),
    /// A text.
    String(Arc<str>),
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode::decode_as;

    #[test]
    fn an_octet_with_a_leading_zero_is_no_prefix() {
        for good in ["10.0.0.0/8", "0.0.0.0/0", "192.168.10.0/24", "2001:0db8::/32", "::ffff:10.0.0.0/104"] {
            assert!(prefix(good).is_ok(), "{good}");
        }
        for bad in ["010.0.0.0/8", "192.168.010.0/24", "10.0.0.00/8", "::ffff:010.0.0.0/104", "10.0.0/8", ""]
        {
            assert!(prefix(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_prefix_of_a_rule_is_checked() {
        let read = |cidr: &str, except: &str| {
            decode_as::<CidrRule>(&json!({"cidr": cidr, "except": [except]})).map(|rule| rule.object)
        };
        assert!(read("192.168.0.0/16", "192.168.10.0/24").is_ok());
        let path = |result: Result<CidrRule, crate::decode::DecodeError>| result.unwrap_err().path;
        assert_eq!(&*path(read("192.168.0.0/16", "192.168.010.0/24")), "except[0]");
        assert_eq!(&*path(read("010.0.0.0/8", "10.0.0.0/16")), "cidr");
    }
}
