// SPDX-License-Identifier: Apache-2.0
//! What `apiVersion` and `kind` name: a kind that is read, one that asks for something that Weft does not
//! do, a spelling that is close to either, or somebody else's business.

use crate::{gateway, object::Kind, ratelimit};

/// What `apiVersion` and `kind` name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recognition {
    /// A kind that Weft reads.
    Read(Kind),
    /// A kind that Weft reads, in a version that it does not, or in a group that the kind has left.
    Version(Kind),
    /// A list: of any kinds, or of this one, whose items need not say so.
    List(Option<Kind>),
    /// A kind about traffic or policy that is not enforced.
    Unsupported,
    /// Nothing of this name exists, but something of nearly the same: its `apiVersion` and kind.
    Misspelt(String),
    /// Somebody else's kind.
    Foreign,
}

/// Groups that are about traffic or policy as a whole: each of their kinds that is not read asks for
/// something that is not done.
const GROUPS: [&str; 20] = [
    gateway::GROUP,
    ratelimit::GROUP,
    "gateway.networking.x-k8s.io",
    "networking.k8s.io",
    "policy.networking.k8s.io",
    "discovery.k8s.io",
    "multicluster.x-k8s.io",
    "cilium.io",
    "networking.istio.io",
    "security.istio.io",
    "telemetry.istio.io",
    "extensions.istio.io",
    "linkerd.io",
    "policy.linkerd.io",
    "multicluster.linkerd.io",
    "workload.linkerd.io",
    "access.smi-spec.io",
    "specs.smi-spec.io",
    "split.smi-spec.io",
    "networking.gke.io",
];

/// Kinds that are not enforced and whose names must not be taken for a misspelt one; also those of groups
/// that are not about traffic as a whole.
const UNSUPPORTED: [(&str, &str); 17] = [
    // EndpointSlices have the same; the API server mirrors them.
    ("", "Endpoints"),
    ("extensions", "Ingress"),
    ("networking.k8s.io", "Ingress"),
    ("networking.k8s.io", "IngressClass"),
    ("policy.networking.k8s.io", "AdminNetworkPolicy"),
    ("policy.networking.k8s.io", "BaselineAdminNetworkPolicy"),
    ("policy.networking.k8s.io", "ClusterNetworkPolicy"),
    (gateway::GROUP, "BackendTLSPolicy"),
    (gateway::GROUP, "GRPCRoute"),
    (gateway::GROUP, "ListenerSet"),
    (gateway::GROUP, "TCPRoute"),
    (gateway::GROUP, "TLSRoute"),
    (gateway::GROUP, "UDPRoute"),
    ("cilium.io", "CiliumEndpoint"),
    ("cilium.io", "CiliumEnvoyConfig"),
    ("cilium.io", "CiliumLocalRedirectPolicy"),
    ("cilium.io", "CiliumNode"),
];

/// Groups that kinds which are read had before: the API server took them for the same objects.
const FORMER: [(&str, Kind); 1] = [("extensions", Kind::NetworkPolicy)];

/// Kinds of [`GROUPS`] in which the API server keeps books; nobody asks for anything by them.
const BOOKKEEPING: [(&str, &str); 2] =
    [("networking.k8s.io", "IPAddress"), ("networking.k8s.io", "ServiceCIDR")];

/// Looks up what `apiVersion` and `kind` name.
pub fn recognize(api_version: &str, kind: &str) -> Recognition {
    if let Some(without) = api_version.strip_suffix('/') {
        return match recognize(without, kind) {
            Recognition::Read(known) | Recognition::Version(known) => misspelt(known, ""),
            Recognition::List(Some(known)) => misspelt(known, LIST),
            Recognition::List(None) => misspelt_list(),
            other => other,
        };
    }
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    if group.is_empty() && kind == LIST {
        return if version == "v1" { Recognition::List(None) } else { misspelt_list() };
    }
    let is_of = |known: Kind| known.group() == group || FORMER.contains(&(group, known));
    let of = |name: &str| Kind::ALL.into_iter().find(|known| known.name() == name && is_of(*known));
    let is_read = |known: Kind| known.group() == group && known.versions().contains(&version);
    if let Some(known) = of(kind) {
        return if is_read(known) { Recognition::Read(known) } else { Recognition::Version(known) };
    }
    let item = kind.strip_suffix(LIST).unwrap_or(kind);
    if let Some(known) = of(item) {
        // Of a list in a version that is not read nobody can tell what its items are.
        return if is_read(known) { Recognition::List(Some(known)) } else { misspelt(known, LIST) };
    }
    let is = |(of_group, name): &(&str, &str)| *of_group == group && *name == item;
    if BOOKKEEPING.iter().any(is) {
        return Recognition::Foreign;
    }
    if UNSUPPORTED.iter().any(is) {
        return Recognition::Unsupported;
    }
    match meant(group, kind) {
        Some(misspelt) => misspelt,
        None if GROUPS.contains(&group) || item.ends_with("NetworkPolicy") => Recognition::Unsupported,
        None => Recognition::Foreign,
    }
}

/// What the kind of a list is, or ends in.
const LIST: &str = "List";

/// Somebody meant a kind that is read, or with a suffix the list of it.
fn misspelt(known: Kind, suffix: &str) -> Recognition {
    Recognition::Misspelt(format!("{}{suffix} of {}", known.name(), known.api_version()))
}

fn misspelt_list() -> Recognition {
    Recognition::Misspelt(format!("{LIST} of v1"))
}

/// What is read and somebody meant who wrote this.
fn meant(group: &str, kind: &str) -> Option<Recognition> {
    // Groups without a domain, and these, have no kinds of anybody else.
    let of_kubernetes = !group.contains('.') || is_below(group, "k8s.io");
    let is_known = GROUPS.contains(&group);
    let group_is_near =
        |known: &str| group == known || is_near(group, known) || (!is_known && resembles(group, known));
    for suffix in ["", LIST] {
        let near = |known: &Kind| {
            let name = format!("{}{suffix}", known.name());
            let group_is_near = group_is_near(known.group());
            let slips = if known.name().len() < 5 { 1 } else { 2 };
            (group_is_near && (is_within(slips, kind, &name) || is_form(kind, known.name(), suffix)))
                || (kind.eq_ignore_ascii_case(&name) && (group_is_near || of_kubernetes))
        };
        if let Some(known) = Kind::ALL.into_iter().find(near) {
            return Some(misspelt(known, suffix));
        }
    }
    let may_be_list =
        || of_kubernetes || is_known || Kind::ALL.iter().any(|known| group_is_near(known.group()));
    (is_near(kind, LIST) && may_be_list()).then(misspelt_list)
}

/// Whether a text ends like the known one, whatever its case.
fn is_below(text: &str, known: &str) -> bool {
    let end = text.len().checked_sub(known.len()).and_then(|at| text.get(at..));
    end.is_some_and(|end| end.eq_ignore_ascii_case(known))
}

/// Whether a group has the first label of the known one, and of the others all but one.
fn resembles(group: &str, known: &str) -> bool {
    let group = group.to_ascii_lowercase();
    let labels: Vec<&str> = group.split('.').collect();
    let known: Vec<&str> = known.split('.').collect();
    known.len() > 1
        && labels.first() == known.first()
        && labels.len().abs_diff(known.len()) <= 1
        && distance(&labels, &known) <= 1
}

/// Whether a kind, with the suffix, is the known one's plural, or short for it: some of its letters, in
/// their order, with the last word or its beginning at the end, as in `NetPolicy`.
fn is_form(kind: &str, known: &str, suffix: &str) -> bool {
    let Some(kind) = kind.strip_suffix(suffix) else { return false };
    if let Some(stem) = known.strip_suffix('y')
        && is_near(kind, &format!("{stem}ies"))
    {
        return true;
    }
    let last_word = |text: &str| text.rfind(char::is_uppercase).unwrap_or(0);
    let (in_kind, in_known) = (&kind[last_word(kind)..], &known[last_word(known)..]);
    let mut letters = known.bytes();
    in_kind.len() >= 3
        && in_known.starts_with(in_kind)
        && kind.bytes().next() == known.bytes().next()
        && kind.bytes().all(|letter| letters.any(|other| other.eq_ignore_ascii_case(&letter)))
}

/// Whether one text is the other, whatever its case, with a slip or two: a character too much, too little,
/// changed, or two in the wrong order; of short texts, one slip.
pub fn is_near(text: &str, known: &str) -> bool {
    is_within(if known.len() < 5 { 1 } else { 2 }, text, known)
}

fn is_within(slips: usize, text: &str, known: &str) -> bool {
    if known.is_empty() || text.is_empty() || text.len().abs_diff(known.len()) > slips {
        return false;
    }
    let (text, known) = (text.to_ascii_lowercase(), known.to_ascii_lowercase());
    distance(text.as_bytes(), known.as_bytes()) <= slips
}

/// The restricted Damerau-Levenshtein distance.
fn distance<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, of_a) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, of_b) in b.iter().enumerate() {
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(of_b) && b.get(j - 1) == Some(of_a);
            let cost = [last[j] + usize::from(of_a != of_b), last[j + 1] + 1, row[j] + 1];
            let swap = if swapped { before[j - 1] + 1 } else { usize::MAX };
            row.push(cost.into_iter().fold(swap, usize::min));
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_that_are_read_are_recognized_by_group_and_version() {
        assert_eq!(recognize("v1", "Pod"), Recognition::Read(Kind::Pod));
        assert_eq!(
            recognize("gateway.networking.k8s.io/v1beta1", "HTTPRoute"),
            Recognition::Read(Kind::HttpRoute)
        );
        for known in Kind::ALL {
            let group = if known.group().is_empty() { String::new() } else { format!("{}/", known.group()) };
            for version in known.versions() {
                let api_version = format!("{group}{version}");
                assert_eq!(recognize(&api_version, known.name()), Recognition::Read(known));
                let list = format!("{}List", known.name());
                assert_eq!(recognize(&api_version, &list), Recognition::List(Some(known)));
            }
            assert_eq!(recognize(&format!("{group}v99"), known.name()), Recognition::Version(known));
        }
        assert_eq!(recognize("v1", "List"), Recognition::List(None));
        let former = recognize("extensions/v1beta1", "NetworkPolicy");
        assert_eq!(former, Recognition::Version(Kind::NetworkPolicy), "it closes what it names");
    }

    #[test]
    fn what_asks_for_something_that_is_not_done_is_unsupported() {
        for (api_version, kind) in [
            ("networking.k8s.io/v1", "Ingress"),
            ("networking.k8s.io/v1", "IngressClass"),
            ("extensions/v1beta1", "Ingress"),
            ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"),
            ("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy"),
            ("policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy"),
            ("gateway.networking.k8s.io/v1", "GRPCRoute"),
            ("gateway.networking.k8s.io/v1alpha2", "TCPRoute"),
            ("gateway.networking.k8s.io/v1alpha3", "TLSRoute"),
            ("gateway.networking.k8s.io/v1alpha2", "UDPRoute"),
            ("gateway.networking.k8s.io/v1", "ListenerSet"),
            ("gateway.networking.k8s.io/v1", "BackendTLSPolicy"),
            ("gateway.networking.x-k8s.io/v1alpha1", "XBackendTrafficPolicy"),
            ("networking.istio.io/v1", "VirtualService"),
            ("security.istio.io/v1", "AuthorizationPolicy"),
            ("telemetry.istio.io/v1", "Telemetry"),
            ("extensions.istio.io/v1alpha1", "WasmPlugin"),
            ("policy.linkerd.io/v1beta3", "Server"),
            ("policy.linkerd.io/v1alpha1", "AuthorizationPolicy"),
            ("linkerd.io/v1alpha2", "ServiceProfile"),
            ("split.smi-spec.io/v1alpha2", "TrafficSplit"),
            ("cilium.io/v2", "CiliumEnvoyConfig"),
            ("cilium.io/v2alpha1", "CiliumCIDRGroup"),
            ("projectcalico.org/v3", "NetworkPolicy"),
            ("crd.projectcalico.org/v1", "GlobalNetworkPolicy"),
            ("multicluster.x-k8s.io/v1alpha1", "ServiceImport"),
            ("weft.dev/v1alpha1", "RateLimit"),
            ("v1", "Endpoints"),
            ("v1", "EndpointsList"),
            ("networking.k8s.io/v1", "IngressList"),
            ("gateway.networking.k8s.io/v1alpha2", "TCPRouteList"),
            ("networking.istio.io/v1", "Gateway"),
            ("networking.istio.io/v1", "GatewayList"),
            ("networking.gke.io/v1", "NetworkPolicy"),
            ("cilium.io/v2", "CiliumEgressGatewayPolicy"),
            ("cilium.io/v2", "CiliumIdentity"),
            ("crd.antrea.io/v1beta1", "NetworkPolicy"),
            ("projectcalico.org/v3", "NetworkPolicyList"),
        ] {
            assert_eq!(recognize(api_version, kind), Recognition::Unsupported, "{api_version} {kind}");
        }
    }

    #[test]
    fn a_slip_is_told_from_somebody_elses_kind() {
        for (api_version, kind, meant) in [
            ("networking.k8s.o/v1", "NetworkPolicy", "NetworkPolicy of networking.k8s.io/v1"),
            ("networking.k8s.io/v1", "NetworkPolcy", "NetworkPolicy of networking.k8s.io/v1"),
            ("networking.k8s.io/v1", "networkpolicy", "NetworkPolicy of networking.k8s.io/v1"),
            ("networking.k8s.o/v1", "NetwrokPolicy", "NetworkPolicy of networking.k8s.io/v1"),
            ("v1", "NetworkPolicy", "NetworkPolicy of networking.k8s.io/v1"),
            ("networking.k8s.io", "NetworkPolicy", "NetworkPolicy of networking.k8s.io/v1"),
            ("cilium.oi/v2", "CiliumNetworkPolicy", "CiliumNetworkPolicy of cilium.io/v2"),
            ("apps/v1", "Service", "Service of v1"),
            ("v1", "Sevice", "Service of v1"),
            ("v1", "Pods", "Pod of v1"),
            ("gateway.networking.k8s.io/v1", "Gatewayy", "Gateway of gateway.networking.k8s.io/v1"),
            ("gateway.networking.k8s.io/v1", "HttpRoute", "HTTPRoute of gateway.networking.k8s.io/v1"),
            ("weft.dev/v1alpha1", "RateLimitPolice", "RateLimitPolicy of weft.dev/v1alpha1"),
            ("discovery.k8s.io/v1", "EndpointSlices", "EndpointSlice of discovery.k8s.io/v1"),
            ("v2", "List", "List of v1"),
            ("v1", "list", "List of v1"),
            ("v1", "LIST", "List of v1"),
            ("v1", "Lists", "List of v1"),
            ("v1", "Lst", "List of v1"),
            ("v1/", "List", "List of v1"),
            ("v1/", "Pod", "Pod of v1"),
            ("networking.k8s.io", "List", "List of v1"),
            ("networking.k8s.o/v1", "List", "List of v1"),
            ("Networking.K8s.io/v1", "List", "List of v1"),
            ("networking.k8s.io/v1", "List", "List of v1"),
            ("networking.istio.io/v1", "List", "List of v1"),
            ("v1", "PodsList", "PodList of v1"),
            ("v1", "Podlist", "PodList of v1"),
            ("v1", "NamespaceLst", "NamespaceList of v1"),
            ("v1", "pods", "Pod of v1"),
            ("v1", "networkpolicy", "NetworkPolicy of networking.k8s.io/v1"),
            ("v1", "NetworkPolicyList", "NetworkPolicyList of networking.k8s.io/v1"),
            ("networking.k8s.o/v1", "NetworkPolicyList", "NetworkPolicyList of networking.k8s.io/v1"),
            ("extensions/v1beta1", "NetworkPolicyList", "NetworkPolicyList of networking.k8s.io/v1"),
            ("Networking.K8s.io/v1", "NetworkPolicyList", "NetworkPolicyList of networking.k8s.io/v1"),
            ("networking.k8s.io/v2", "NetworkPolicyList", "NetworkPolicyList of networking.k8s.io/v1"),
            ("networking.k8s.io/v1/", "NetworkPolicyList", "NetworkPolicyList of networking.k8s.io/v1"),
            ("networking.k8s.io/v1", "NetworkPolicyLst", "NetworkPolicyList of networking.k8s.io/v1"),
            ("networking.k8s.io/v1", "networkpolicylist", "NetworkPolicyList of networking.k8s.io/v1"),
            ("networking.k8s.io/v1", "NetPolicyList", "NetworkPolicyList of networking.k8s.io/v1"),
            ("networking.k8s.io/v1", "NetworkPolicies", "NetworkPolicy of networking.k8s.io/v1"),
            ("networking.k8s.io/v1", "NetPolicy", "NetworkPolicy of networking.k8s.io/v1"),
            ("networking.k8s.io/v1", "NetPol", "NetworkPolicy of networking.k8s.io/v1"),
            ("networking.k8s.io/v1/", "NetworkPolicy", "NetworkPolicy of networking.k8s.io/v1"),
            ("networking.k8s/v1", "NetworkPolicy", "NetworkPolicy of networking.k8s.io/v1"),
            ("networking.kubernetes.io/v1", "NetworkPolicy", "NetworkPolicy of networking.k8s.io/v1"),
            ("cilium.oi/v2", "CiliumNetworkPolicyList", "CiliumNetworkPolicyList of cilium.io/v2"),
            ("cilium.io/v2", "CiliumNetworkPolicies", "CiliumNetworkPolicy of cilium.io/v2"),
            ("weft.io/v1alpha1", "RateLimitPolicy", "RateLimitPolicy of weft.dev/v1alpha1"),
            ("gateway.networking.io/v1", "Gateway", "Gateway of gateway.networking.k8s.io/v1"),
        ] {
            let expected = Recognition::Misspelt(meant.to_owned());
            assert_eq!(recognize(api_version, kind), expected, "{api_version} {kind}");
        }
    }

    #[test]
    fn what_belongs_to_others_is_foreign() {
        for (api_version, kind) in [
            ("apps/v1", "Deployment"),
            ("apps/v1", "DeploymentList"),
            ("v1", "ConfigMap"),
            ("v1", "Secret"),
            ("v1", "ServiceAccount"),
            ("v1", "Event"),
            ("batch/v1", "Job"),
            ("policy/v1", "PodDisruptionBudget"),
            ("serving.knative.dev/v1", "Service"),
            ("networking.k8s.io/v1", "IPAddress"),
            ("kustomize.config.k8s.io/v1beta1", "Kustomization"),
            ("example.com/v1", "Gateway"),
            ("example.com/v1", "List"),
            ("gateway.solo.io/v1", "Gateway"),
            ("networking.k8s.io/v1", "IPAddressList"),
            ("v1", "PodTemplate"),
            ("v1", "PodTemplateList"),
            ("v1", "SecretList"),
            ("metrics.k8s.io/v1beta1", "PodMetricsList"),
            ("rbac.authorization.k8s.io/v1", "RoleList"),
        ] {
            assert_eq!(recognize(api_version, kind), Recognition::Foreign, "{api_version} {kind}");
        }
    }

    #[test]
    fn the_distance_counts_slips() {
        for (a, b, slips) in [
            ("abc", "abc", 0),
            ("abc", "acb", 1),
            ("abc", "ab", 1),
            ("abc", "abxc", 1),
            ("abc", "xyz", 3),
            ("", "ab", 2),
        ] {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), slips, "{a} {b}");
        }
    }
}
