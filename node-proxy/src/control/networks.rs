// SPDX-License-Identifier: Apache-2.0
//! Pods whose network nobody named: an address next to theirs that no pod has may count as the outside.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};
use tokio::sync::watch;
use weft_policy::Guess;

/// What `weft status` and the log say of it.
pub(crate) fn describe(guess: &Guess) -> String {
    let Guess { pod, pods, network } = guess;
    let taken = match network {
        Some(network) => format!("the network of {pod} is taken to be {network}"),
        None => format!("the network of {pod} is not known, and its other addresses count as the outside"),
    };
    format!("{taken} ({pods} such pods): start weft-controller with --pod-cidr")
}

/// Says which pods have no network that somebody named; tells the log once, when the first appear.
pub(crate) fn note(known: &watch::Sender<Option<Guess>>, guess: Option<Guess>) {
    let before = known.send_replace(guess);
    if let (None, Some(guess)) = (before, &guess) {
        tracing::warn!("{}", describe(guess));
    }
}

/// Yields how many such pods there are.
#[derive(Debug)]
pub(crate) struct NetworkMetrics(pub(crate) watch::Receiver<Option<Guess>>);

impl Collector for NetworkMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let pods = self.0.borrow().map_or(0, |guess| guess.pods);
        let help = "pods in a network that neither --pod-cidr nor a Node names";
        let descriptor =
            encoder.encode_descriptor("weft_node_pods_without_network", help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::try_from(pods).unwrap_or(i64::MAX)).encode(descriptor)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text, registry::Registry};

    use super::*;

    #[test]
    fn a_network_that_nobody_named_is_said_with_what_to_do() {
        let known = watch::Sender::new(None);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(NetworkMetrics(known.subscribe())));
        let metrics = || {
            let mut out = String::new();
            text::encode(&mut out, &registry).expect("a text");
            out
        };
        assert!(metrics().contains("weft_node_pods_without_network 0"));
        let mut guess = Guess { pod: "10.9.1.5".parse().expect("an address"), pods: 2, network: None };
        note(&known, Some(guess));
        assert!(metrics().contains("weft_node_pods_without_network 2"));
        assert_eq!(
            describe(&guess),
            "the network of 10.9.1.5 is not known, and its other addresses count as the outside (2 such pods): \
             start weft-controller with --pod-cidr"
        );
        guess.network = "10.9.1.0/26".parse().ok();
        assert!(
            describe(&guess).starts_with("the network of 10.9.1.5 is taken to be 10.9.1.0/26 (2 such pods)")
        );
        note(&known, None);
        assert!(metrics().contains("weft_node_pods_without_network 0"));
    }
}
