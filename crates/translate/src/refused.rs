// SPDX-License-Identifier: Apache-2.0
//! What stands in for a Pod that was refused, and what a refused object says of those whom it names.
//!
//! Its labels are not known, and so it has the identity of which nothing is known: whatever it sends or gets is
//! denied on its node (`no_policy_config`), and elsewhere no rule means it but one for everybody.

use std::net::IpAddr;

use serde_json::Value;
use weft_api::{
    core::{Pod, PodSpec, PodStatus},
    meta::Metadata,
    object::{Kind, ObjectKey},
};
use weft_ir::{IdentityNumber, Workload, is_subdomain};

use crate::workload;

/// What it means for a pod that it has no identity.
pub(crate) const CLOSED: &str = "what it sends and gets is denied";

/// What can be read of a refused Pod.
#[derive(Debug)]
pub(crate) struct RefusedPod {
    pod: Pod,
    addresses: Vec<IpAddr>,
    /// An address is written that is none.
    hides_address: bool,
}

/// Reads what can be read of a refused Pod.
pub(crate) fn pod(key: &ObjectKey, value: &Value) -> RefusedPod {
    let text = |path: &str| value.pointer(path).and_then(Value::as_str);
    let node = text("/spec/nodeName").filter(|node| is_subdomain(node)).unwrap_or_default();
    let status = value.get("status").cloned().unwrap_or_default();
    // Of a status that cannot be read the phase still tells whether the pod has ended.
    let phase_alone =
        || PodStatus { phase: text("/status/phase").unwrap_or_default().into(), ..PodStatus::default() };
    let metadata = Metadata {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        deletion_timestamp: text("/metadata/deletionTimestamp").and_then(|text| text.parse().ok()),
        ..Metadata::default()
    };
    let spec = PodSpec {
        node_name: node.into(),
        service_account_name: text("/spec/serviceAccountName").unwrap_or_default().into(),
        host_network: value.pointer("/spec/hostNetwork").and_then(Value::as_bool).unwrap_or(false),
        ..PodSpec::default()
    };
    let (addresses, hides_address) = addresses(&status);
    let status = serde_json::from_value(status).unwrap_or_else(|_unreadable| phase_alone());
    RefusedPod { pod: Pod { metadata, spec, status }, addresses, hides_address }
}

impl RefusedPod {
    /// The workload that is closed; nothing where there is no address to close, or where the pod has ended.
    pub(crate) fn stand_in(&self) -> Option<Workload> {
        if self.addresses.is_empty() || workload::has_ended(&self.pod) {
            return None;
        }
        let addresses = self.addresses.clone();
        Some(Workload { addresses, ..workload::translate(&self.pod, IdentityNumber::UNKNOWN) })
    }

    fn consequence(&self) -> Option<&'static str> {
        if workload::has_ended(&self.pod) {
            return None;
        }
        match (self.addresses.is_empty(), self.hides_address, self.pod.spec.node_name.is_empty()) {
            (true, true, _) => Some("no address of it can be read, so nothing holds what it sends and gets"),
            (true, false, _) => None,
            (false, true, _) => {
                Some("an address of it cannot be read, so nothing holds what that one sends and gets")
            }
            (false, false, true) => Some("its node is not known: only the policies of others hold it"),
            (false, false, false) => Some(CLOSED),
        }
    }
}

/// What the refusal of an object means for those whom it names, where no status says so.
pub(crate) fn consequence(key: &ObjectKey, value: &Value) -> Option<&'static str> {
    match key.kind {
        Kind::Pod => pod(key, value).consequence(),
        Kind::Namespace => Some("what its pods send and get is denied"),
        _ => None,
    }
}

/// The addresses that can be read, and whether there are others.
fn addresses(status: &Value) -> (Vec<IpAddr>, bool) {
    let mut found = Vec::new();
    let mut hides = !status.is_null() && !status.is_object();
    let mut add = |value: &Value| match value.as_str().map(str::parse) {
        Some(Ok(address)) if found.contains(&address) => {}
        Some(Ok(address)) => found.push(address),
        Some(Err(_)) | None => hides = true,
    };
    status.get("podIP").into_iter().for_each(&mut add);
    match status.get("podIPs") {
        None => {}
        Some(Value::Array(entries)) => {
            entries.iter().for_each(|entry| add(entry.get("ip").unwrap_or(&Value::Null)));
        }
        Some(other) => add(other.get("ip").unwrap_or(&Value::Null)),
    }
    (found, hides)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The node and addresses of what stands in for a refused pod, and what is said.
    fn of(value: Value) -> (Option<(String, Vec<String>)>, &'static str) {
        let key = ObjectKey { kind: Kind::Pod, namespace: "shop".into(), name: "a".into() };
        let stand_in = pod(&key, &value).stand_in().map(|workload| {
            assert_eq!(workload.identity, IdentityNumber::UNKNOWN);
            assert_eq!(workload.name.to_string(), "shop/a");
            (workload.node.to_string(), workload.addresses.iter().map(ToString::to_string).collect())
        });
        (stand_in, consequence(&key, &value).unwrap_or_default())
    }

    fn on(node: &str, addresses: &[&str]) -> Option<(String, Vec<String>)> {
        Some((node.to_owned(), addresses.iter().map(|one| (*one).to_owned()).collect()))
    }

    #[test]
    fn what_can_be_read_of_a_refused_pod_is_closed() {
        let spec = json!({"nodeName": "n1", "containers": 5});
        let status = json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]});
        assert_eq!(of(json!({"spec": spec, "status": status})), (on("n1", &["10.0.0.1", "fd00::1"]), CLOSED));
        // Conditions and phases that no type knows hide no address.
        let odd = json!({"phase": 7, "podIP": "10.0.0.1", "conditions": "none"});
        assert_eq!(of(json!({"spec": spec, "status": odd})), (on("n1", &["10.0.0.1"]), CLOSED));
        assert_eq!(
            of(json!({"spec": spec, "status": {"podIPs": {"ip": "10.0.0.1"}}})).0,
            on("n1", &["10.0.0.1"])
        );
    }

    #[test]
    fn what_cannot_be_closed_is_said() {
        let status = json!({"podIP": "10.0.0.1"});
        for spec in [json!({"nodeName": "No_Node"}), json!({"nodeName": 5}), json!(null), json!([])] {
            let (stand_in, said) = of(json!({"spec": spec, "status": status}));
            assert_eq!((stand_in, said.contains("its node is not known")), (on("", &["10.0.0.1"]), true));
        }
        let spec = json!({"nodeName": "n1"});
        for status in [json!({"podIP": "10.0.0.01"}), json!({"podIPs": ["10.0.0.1"]}), json!(["10.0.0.1"])] {
            let (stand_in, said) = of(json!({"spec": spec, "status": status}));
            assert_eq!((stand_in, said.contains("no address of it can be read")), (None, true), "{status}");
        }
        let status = json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": 5}]});
        let (stand_in, said) = of(json!({"spec": spec, "status": status}));
        assert_eq!(
            (stand_in, said.contains("an address of it cannot be read")),
            (on("n1", &["10.0.0.1"]), true)
        );
    }

    #[test]
    fn a_refused_pod_that_has_ended_or_has_no_address_yet_closes_nobody() {
        let spec = json!({"nodeName": "n1"});
        for status in
            [json!({"phase": "Failed", "podIP": "10.0.0.1", "conditions": 5}), json!(null), json!({})]
        {
            assert_eq!(of(json!({"spec": spec, "status": status})), (None, ""), "{status}");
        }
    }
}
