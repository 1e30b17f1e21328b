// SPDX-License-Identifier: Apache-2.0
//! Pods that the node cannot find, and devices of which it does not know whose they are. Both are closed where
//! they can be, and somebody should know.

use std::{collections::BTreeSet, fmt, net::IpAddr, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};
use tokio::sync::watch;
use weft_ebpf_redirect::{Applied, Ownerless};
use weft_ir::ObjectName;

/// What the last look for devices has left open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unowned {
    /// Addresses of pods to which no device leads.
    unattached: Vec<IpAddr>,
    /// Pods behind a bridge of which the port is not known.
    ownerless: Vec<Ownerless>,
    /// Pods' devices of which it has not been known for long whose they are.
    devices: Vec<String>,
    /// Such devices of which it may still become known.
    waiting: usize,
}

/// How long a device may be there before the API server tells of its pod. A kubelet reports the address of a pod
/// within a second or two, and the controller passes it on in a moment.
const WITHOUT_OWNER: Duration = Duration::from_secs(30);

impl Unowned {
    /// What is to be said of a look.
    pub(crate) fn of(applied: &Applied) -> Unowned {
        let (old, new): (Vec<_>, Vec<_>) =
            applied.unowned.iter().partition(|(_, age)| **age >= WITHOUT_OWNER);
        Unowned {
            unattached: applied.unattached.clone(),
            ownerless: applied.ownerless.clone(),
            devices: old.into_iter().map(|(name, _)| name.clone()).collect(),
            waiting: new.len(),
        }
    }

    /// Whether another look may find more.
    pub(crate) fn is_open(&self) -> bool {
        *self != Unowned::default()
    }

    /// What `weft status` and the log say of it, a line for each pod.
    pub(crate) fn describe(&self) -> Vec<String> {
        let unattached =
            self.unattached.iter().map(|address| format!("no device leads to the pod at {address} yet"));
        let ownerless = self.ownerless.iter().map(|Ownerless { pod, address, claimed_by }| {
            let why = match claimed_by.as_slice() {
                [] => "nobody behind a port of its bridge has it".to_owned(),
                ports => format!(
                    "the pods behind {} claim it, and no result of a CNI plug-in says whose it is",
                    ports.join(" and ")
                ),
            };
            format!("{}/{} is closed at {address}: {why}", pod.namespace, pod.name)
        });
        let devices = self.devices.iter().map(|device| {
            format!(
                "{device} looks like a pod's device, belongs to no pod that is known, and is closed: see --pod-devices"
            )
        });
        unattached.chain(ownerless).chain(devices).collect()
    }
}

/// Why the node is not ready, where pods get packets past the hooks that hold them to their policies.
pub(crate) fn passed_by(pods: &BTreeSet<ObjectName>) -> Option<String> {
    let names: Vec<String> =
        pods.iter().take(NAMED).map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect();
    let more = pods.len() - names.len();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    (!pods.is_empty()).then(|| {
        format!(
            "what comes to {}{more} is held to no policy: somebody's programs deliver it past the node's end of the pair \
             (bpf_redirect_peer); set bpf.hostLegacyRouting=true for Cilium, bpfRedirectToPeer: Disabled for Calico",
            names.join(", ")
        )
    })
}

/// How many pods one line names.
const NAMED: usize = 5;

/// Says what is open; tells the log once.
pub(crate) fn note(known: &watch::Sender<Unowned>, found: Unowned) {
    known.send_if_modified(|known| {
        let news = *known != found;
        if news {
            found.describe().into_iter().for_each(|line| tracing::warn!("{line}"));
            *known = found;
        }
        news
    });
}

/// Yields how many pods have no device that is known, by why.
#[derive(Debug)]
pub(crate) struct OwnerMetrics(pub(crate) watch::Receiver<Unowned>);

impl Collector for OwnerMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Unowned { unattached, ownerless, devices, waiting } = self.0.borrow().clone();
        let claimed = ownerless.iter().filter(|pod| !pod.claimed_by.is_empty()).count();
        let counts =
            [("no_route", unattached.len()), ("no_port", ownerless.len() - claimed), ("claimed", claimed)];
        let help = "addresses of pods of this node behind a device that is not known";
        let mut descriptor =
            encoder.encode_descriptor("weft_node_pods_without_device", help, None, MetricType::Gauge)?;
        for (reason, count) in counts {
            let labels = [("reason", reason)];
            let family = descriptor.encode_family(&labels)?;
            ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX)).encode(family)?;
        }
        let help = "devices of pods that are closed because it is not known whose they are";
        let descriptor =
            encoder.encode_descriptor("weft_node_devices_without_pod", help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::try_from(devices.len() + waiting).unwrap_or(i64::MAX)).encode(descriptor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::{encoding::text, registry::Registry};

    #[test]
    fn a_pod_that_is_closed_for_want_of_an_owner_is_named() {
        let known = watch::Sender::new(Unowned::default());
        let mut registry = Registry::default();
        registry.register_collector(Box::new(OwnerMetrics(known.subscribe())));
        let metrics = || {
            let mut out = String::new();
            text::encode(&mut out, &registry).expect("a text");
            out
        };
        let pod = |name: &str, last: u8, ports: &[&str]| Ownerless {
            pod: ObjectName::new("shop", name),
            address: [10, 9, 1, last].into(),
            claimed_by: ports.iter().map(|port| (*port).to_owned()).collect(),
        };
        let found = Unowned {
            unattached: vec![[10, 9, 1, 1].into()],
            ownerless: vec![pod("a", 2, &[]), pod("b", 3, &["veth1", "veth2"]), pod("c", 4, &["veth3"])],
            devices: vec!["veth4".to_owned()],
            waiting: 2,
        };
        assert!(found.is_open() && !Unowned::default().is_open());
        note(&known, found.clone());
        assert_eq!(
            found.describe(),
            [
                "no device leads to the pod at 10.9.1.1 yet",
                "shop/a is closed at 10.9.1.2: nobody behind a port of its bridge has it",
                "shop/b is closed at 10.9.1.3: the pods behind veth1 and veth2 claim it, and no result of a CNI \
                 plug-in says whose it is",
                "shop/c is closed at 10.9.1.4: the pods behind veth3 claim it, and no result of a CNI plug-in says \
                 whose it is",
                "veth4 looks like a pod's device, belongs to no pod that is known, and is closed: see --pod-devices",
            ]
        );
        for (reason, count) in [("no_route", 1), ("no_port", 1), ("claimed", 2)] {
            let line = format!("weft_node_pods_without_device{{reason=\"{reason}\"}} {count}\n");
            assert!(metrics().contains(&line), "{}", metrics());
        }
        assert!(metrics().contains("weft_node_devices_without_pod 3\n"), "{}", metrics());
        note(&known, Unowned::default());
        assert!(metrics().contains("weft_node_pods_without_device{reason=\"claimed\"} 0"));
    }

    #[test]
    fn a_device_is_named_when_its_pod_should_be_known() {
        let age = |name: &str, seconds| (name.to_owned(), Duration::from_secs(seconds));
        let applied = Applied {
            revision: 1,
            changes: weft_ebpf_redirect::sync::Changes::default(),
            unattached: vec![],
            ownerless: vec![],
            unowned: [age("veth1", 29), age("veth2", 30)].into(),
        };
        let found = Unowned::of(&applied);
        assert_eq!((found.devices.as_slice(), found.waiting), (["veth2".to_owned()].as_slice(), 1));
    }

    #[test]
    fn a_pod_whose_policy_does_not_hold_is_named_with_what_to_set() {
        assert_eq!(passed_by(&BTreeSet::new()), None);
        let pod = |number: usize| ObjectName::new("shop", &format!("p{number}"));
        let reason = passed_by(&BTreeSet::from([pod(1)])).expect("a reason");
        assert!(reason.starts_with("what comes to shop/p1 is held to no policy: "), "{reason}");
        assert!(reason.contains("bpf.hostLegacyRouting=true"), "{reason}");
        let reason = passed_by(&(0..7).map(pod).collect()).expect("a reason");
        assert!(
            reason.starts_with("what comes to shop/p0, shop/p1, shop/p2, shop/p3, shop/p4 and 2 more is")
        );
    }
}
