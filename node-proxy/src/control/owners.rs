// SPDX-License-Identifier: Apache-2.0
//! Pods that the node cannot find, and devices of which it does not know whose they are. Both are closed where
//! they can be, and somebody should know.

use std::{fmt, net::IpAddr};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};
use tokio::sync::watch;
use weft_ebpf_redirect::{Applied, Ownerless};

/// What the last look for devices has left open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unowned {
    /// Addresses of pods to which no device leads.
    unattached: Vec<IpAddr>,
    /// Pods behind a bridge of which the port is not known.
    ownerless: Vec<Ownerless>,
}

impl Unowned {
    /// What is to be said of a look.
    pub(crate) fn of(applied: &Applied) -> Unowned {
        Unowned { unattached: applied.unattached.clone(), ownerless: applied.ownerless.clone() }
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
        unattached.chain(ownerless).collect()
    }
}

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
        let Unowned { unattached, ownerless } = self.0.borrow().clone();
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
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text, registry::Registry};
    use weft_ir::ObjectName;

    use super::*;

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
            ]
        );
        for (reason, count) in [("no_route", 1), ("no_port", 1), ("claimed", 2)] {
            let line = format!("weft_node_pods_without_device{{reason=\"{reason}\"}} {count}\n");
            assert!(metrics().contains(&line), "{}", metrics());
        }
        note(&known, Unowned::default());
        assert!(metrics().contains("weft_node_pods_without_device{reason=\"claimed\"} 0"));
    }
}
