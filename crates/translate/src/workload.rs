// SPDX-License-Identifier: Apache-2.0
//! Pods: workloads and the labels of their identities.

use std::sync::Arc;

use weft_api::{
    core::{ConditionStatus, Container, L4Protocol, Pod, PodCondition, PodConditionKind},
    gateway::NamespaceLabels,
};
use weft_ir::{IdentityNumber, NamedPort, ObjectName, Protocol, Workload};

use crate::identity::Labels;

/// The label that names a pod's namespace.
pub(crate) const NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";
/// What the labels of a pod's namespace begin with.
pub(crate) const NAMESPACE_LABELS_PREFIX: &str = "io.cilium.k8s.namespace.labels.";
/// What the labels of a pod's service account and cluster begin with.
const POLICY_LABELS_PREFIX: &str = "io.cilium.k8s.policy.";

/// Labels that are different for every release or pod of a workload. As parts of identities they
/// would only multiply them, so they are left out, and no policy can select them.
pub(crate) const LEFT_OUT_LABELS: [&str; 5] = [
    "batch.kubernetes.io/controller-uid",
    "controller-revision-hash",
    "controller-uid",
    "pod-template-generation",
    "pod-template-hash",
];

/// The labels of a pod's identity. Derived labels win, so that a pod cannot claim another namespace
/// or service account by its own labels.
pub(crate) fn identity_labels(pod: &Pod, namespace_labels: &NamespaceLabels, cluster: &str) -> Labels {
    let metadata = &pod.metadata;
    let mut labels = Labels::new();
    for (key, value) in &metadata.labels {
        let derived = &**key == NAMESPACE_LABEL
            || key.starts_with(NAMESPACE_LABELS_PREFIX)
            || key.starts_with(POLICY_LABELS_PREFIX);
        if !derived && !LEFT_OUT_LABELS.contains(&&**key) {
            labels.insert(format!("k8s:{key}").into(), value.clone());
        }
    }
    labels.insert(format!("k8s:{NAMESPACE_LABEL}").into(), metadata.namespace.clone());
    for (key, value) in namespace_labels {
        labels.insert(format!("k8s:{NAMESPACE_LABELS_PREFIX}{key}").into(), value.clone());
    }
    labels.insert(format!("k8s:{POLICY_LABELS_PREFIX}serviceaccount").into(), service_account(pod));
    labels.insert(format!("k8s:{POLICY_LABELS_PREFIX}cluster").into(), cluster.into());
    labels
}

/// Whether the pod has an address that is its own to use: it runs on a node and has not ended.
pub(crate) fn is_live(pod: &Pod) -> bool {
    let has_address = pod.status.pod_ip.is_some() || !pod.status.pod_ips.is_empty();
    has_address && !has_ended(pod) && !pod.spec.node_name.is_empty()
}

/// Whether its address is, or may be, another pod's already, though its status still shows it
/// (kubernetes/kubernetes#92697): in a phase that never ends, or kept by a finalizer with its sandbox or
/// all of its containers gone. One that is about to go (`deletionTimestamp`, `DisruptionTarget`) still
/// serves.
pub(crate) fn has_ended(pod: &Pod) -> bool {
    if matches!(&*pod.status.phase, "Succeeded" | "Failed") {
        return true;
    }
    let status = &pod.status;
    let gone = |condition: &PodCondition| {
        condition.kind == PodConditionKind::PodReadyToStartContainers
            && condition.status == ConditionStatus::False
    };
    let mut containers = status.container_statuses.iter().chain(&status.init_container_statuses);
    let all_ended = !status.container_statuses.is_empty()
        && containers.all(|container| container.state.terminated.is_some());
    pod.metadata.deletion_timestamp.is_some() && (status.conditions.iter().any(gone) || all_ended)
}

/// The workload of a live pod.
pub(crate) fn translate(pod: &Pod, identity: IdentityNumber) -> Workload {
    let mut addresses: Vec<_> = pod.status.pod_ips.iter().map(|entry| entry.ip).collect();
    if let Some(first) = pod.status.pod_ip
        && !addresses.contains(&first)
    {
        addresses.insert(0, first);
    }
    Workload {
        name: ObjectName { namespace: pod.metadata.namespace.clone(), name: pod.metadata.name.clone() },
        node: pod.spec.node_name.clone(),
        addresses,
        identity,
        service_account: service_account(pod),
        host_network: pod.spec.host_network,
        owner: owner(pod),
        ports: pod.spec.containers.iter().chain(&pod.spec.init_containers).flat_map(named_ports).collect(),
    }
}

pub(crate) fn protocol(protocol: L4Protocol) -> Protocol {
    match protocol {
        L4Protocol::Tcp => Protocol::Tcp,
        L4Protocol::Udp => Protocol::Udp,
        L4Protocol::Sctp => Protocol::Sctp,
    }
}

fn service_account(pod: &Pod) -> Arc<str> {
    if pod.spec.service_account_name.is_empty() {
        "default".into()
    } else {
        pod.spec.service_account_name.clone()
    }
}

fn named_ports(container: &Container) -> impl Iterator<Item = NamedPort> + '_ {
    container.ports.iter().filter(|port| !port.name.is_empty()).map(|port| NamedPort {
        name: port.name.clone(),
        port: port.container_port,
        protocol: protocol(port.protocol),
    })
}

/// The controller's name. A ReplicaSet that a Deployment made is named like it, with the hash of
/// the pod template behind.
fn owner(pod: &Pod) -> Arc<str> {
    let owners = &pod.metadata.owner_references;
    let Some(owner) = owners.iter().find(|owner| owner.controller).or_else(|| owners.first()) else {
        return "".into();
    };
    let hash = pod.metadata.labels.get("pod-template-hash");
    let deployment = hash.and_then(|hash| owner.name.strip_suffix(&**hash)?.strip_suffix('-'));
    match deployment {
        Some(name) if &*owner.kind == "ReplicaSet" => name.into(),
        Some(_) | None => owner.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = r#"{
        "metadata": {"name": "a", "namespace": "shop"},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running", "podIP": "10.0.0.1"}
    }"#;

    /// Whether a running pod is still live with these in its metadata and status.
    fn live(metadata: &str, status: &str) -> bool {
        let text = POD.replace(r#""name": "a""#, &format!(r#""name": "a"{metadata}"#));
        let text = text.replace(r#""podIP""#, &format!(r#"{status} "podIP""#));
        is_live(&serde_json::from_str(&text).unwrap())
    }

    const DELETED: &str = r#", "deletionTimestamp": "2026-11-21T10:00:00Z", "finalizers": ["a/b"]"#;
    const ENDED: &str = r#""containerStatuses": [{"state": {"terminated": {"exitCode": 0}}}],"#;
    const NO_SANDBOX: &str = r#""conditions": [{"type": "PodReadyToStartContainers", "status": "False"}],"#;
    const DISRUPTED: &str = r#""conditions": [{"type": "DisruptionTarget", "status": "True"}],"#;

    #[test]
    fn a_pod_that_is_about_to_go_has_its_address_until_it_has_ended() {
        assert!(live("", ""));
        assert!(live(DELETED, ""), "it serves while it ends");
        assert!(live("", DISRUPTED) && live(DELETED, DISRUPTED));
        let ended = |phase: &str| serde_json::from_str(&POD.replace("Running", phase)).unwrap();
        assert!(!is_live(&ended("Succeeded")) && !is_live(&ended("Failed")));
        assert!(!live(DELETED, ENDED) && !live(DELETED, NO_SANDBOX));
    }

    #[test]
    fn a_pod_that_starts_or_restarts_has_its_address() {
        assert!(live("", ENDED), "its containers are about to be started again");
        assert!(live("", NO_SANDBOX));
        let one_runs = r#""containerStatuses": [{"state": {"terminated": {}}}, {"state": {"running": {}}}],"#;
        assert!(live(DELETED, one_runs));
        let sidecar = format!(r#"{ENDED} "initContainerStatuses": [{{"state": {{"running": {{}}}}}}],"#);
        assert!(live(DELETED, &sidecar));
    }
}
