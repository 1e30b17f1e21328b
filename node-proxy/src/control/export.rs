// SPDX-License-Identifier: Apache-2.0
//! The workers' counters as metrics: summed over all workers when somebody asks.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};
use weft_ebpf_common::{layout::ServiceCounters, reason::Reason};
use weft_ebpf_redirect::{Counters, Outcome, PacketCounter};
use weft_flow_export::FlowRing;
use weft_ir::Direction;

use crate::control::kernel::KernelCounters;
use crate::worker::metrics::{DURATION_BOUNDS, WorkerMetrics};

/// Yields the metrics of the data path.
#[derive(Debug)]
pub(crate) struct ProxyMetrics {
    workers: Vec<Arc<WorkerMetrics>>,
    ring: FlowRing,
}

impl ProxyMetrics {
    /// Metrics over these workers, and over the ring that their flows go to.
    pub(crate) fn new(workers: Vec<Arc<WorkerMetrics>>, ring: FlowRing) -> ProxyMetrics {
        ProxyMetrics { workers, ring }
    }

    fn sum(&self, counter: impl Fn(&WorkerMetrics) -> &AtomicU64) -> u64 {
        self.workers.iter().map(|worker| counter(worker).load(Ordering::Relaxed)).sum()
    }

    fn requests(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
        let counter = ConstCounter::new(0_u64);
        let mut family = encoder.encode_descriptor(
            "weft_node_requests",
            "requests by the class of their status",
            None,
            counter.metric_type(),
        )?;
        for (index, class) in CLASSES.into_iter().enumerate() {
            let count = ConstCounter::new(self.sum(|worker| &worker.requests[index]));
            count.encode(family.encode_family(&[("status", class)])?)?;
        }
        Ok(())
    }

    fn decisions(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counter = ConstCounter::new(0_u64);
        let mut family = encoder.encode_descriptor(
            "weft_node_decisions",
            "requests and relayed connections by what became of them",
            None,
            counter.metric_type(),
        )?;
        let allowed = ConstCounter::new(self.sum(|worker| &worker.allowed));
        allowed.encode(family.encode_family(&[("verdict", "forwarded"), ("reason", "")])?)?;
        for (index, reason) in Reason::ALL.iter().enumerate() {
            let count = self.sum(|worker| &worker.refused[index]);
            if count > 0 {
                let labels = [("verdict", "refused"), ("reason", reason.name())];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn durations(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts = |index: usize| self.sum(|worker| &worker.durations[index]);
        let bounds = DURATION_BOUNDS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> =
            bounds.enumerate().map(|(index, bound)| (bound, counts(index))).collect();
        let total = buckets.iter().map(|(_, count)| count).sum();
        let seconds = self.sum(|worker| &worker.duration_sum) as f64 / 1e6;
        let mut family = encoder.encode_descriptor(
            "weft_node_request_duration",
            "time from the head of a request to the end of its response",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        family.encode_histogram::<prometheus_client::encoding::NoLabelSet>(seconds, total, &buckets, None)
    }

    fn counters(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counters = [
            ("weft_node_retries", "tries after the first", self.sum(|w| &w.retries)),
            ("weft_node_connections_opened", "client connections accepted", self.sum(|w| &w.opened)),
            ("weft_node_received_bytes", "content received from clients", self.sum(|w| &w.received)),
            ("weft_node_sent_bytes", "content sent to clients", self.sum(|w| &w.sent)),
            ("weft_node_flows_lost", "flows for which a worker had no room", self.ring.lost()),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            let kind = counter.metric_type();
            counter.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        // The oldest revision that a worker serves.
        let revisions = self.workers.iter().map(|worker| worker.position().revision);
        let gauges = [
            ("weft_node_connections_open", "client connections that are open", self.sum(|w| &w.open)),
            ("weft_node_ir_revision", "the revision that every worker serves", revisions.min().unwrap_or(0)),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let kind = gauge.metric_type();
            gauge.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        Ok(())
    }
}

/// Yields the metrics of the kernel, as they were when they were last asked for.
#[derive(Debug)]
pub(crate) struct KernelMetrics {
    counters: KernelCounters,
}

impl KernelMetrics {
    /// Metrics over these counters.
    pub(crate) fn new(counters: KernelCounters) -> KernelMetrics {
        KernelMetrics { counters }
    }

    fn services(counters: &Counters, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        type Pick = fn(&ServiceCounters) -> u64;
        let families: [(&str, &str, Pick); 3] = [
            (
                "weft_ebpf_service_translated",
                "connections and datagrams that the kernel sent straight to a backend",
                |counters| counters.translated,
            ),
            ("weft_ebpf_service_redirected", "connections that the kernel handed to the proxy", |counters| {
                counters.redirected
            }),
            (
                "weft_ebpf_service_refused",
                "connections that were refused for want of a backend",
                |counters| counters.refused,
            ),
        ];
        for (name, help, pick) in families {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (service, counters) in &counters.services {
                let (full, port) = (service.service.to_string(), service.port.to_string());
                let protocol = weft_flow_export::IpProtocol(service.protocol).to_string();
                let labels =
                    [("service", full.as_str()), ("port", port.as_str()), ("protocol", protocol.as_str())];
                ConstCounter::new(pick(counters)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn packets(counters: &Counters, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        type Pick = fn(&PacketCounter) -> u64;
        let families: [(&str, &str, Pick); 2] = [
            ("weft_ebpf_packets", "packets by what became of them", |counter| counter.packets),
            ("weft_ebpf_bytes", "bytes of packets by what became of them", |counter| counter.bytes),
        ];
        for (name, help, pick) in families {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for counter in &counters.packets {
                let labels = [
                    ("outcome", outcome(counter.outcome)),
                    ("reason", counter.reason.map_or("", Reason::name)),
                    ("direction", direction(counter.direction)),
                ];
                ConstCounter::new(pick(counter)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Redirect => "redirect",
        Outcome::Drop => "drop",
        Outcome::Proxied => "proxied",
        Outcome::FromProxy => "from_proxy",
    }
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

impl Collector for KernelMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counters = self.counters.last();
        KernelMetrics::services(&counters, &mut encoder)?;
        KernelMetrics::packets(&counters, &mut encoder)?;
        let help = "events that found the kernel's ring buffer full";
        let lost = encoder.encode_descriptor("weft_ebpf_lost_events", help, None, MetricType::Counter)?;
        ConstCounter::new(counters.lost_events).encode(lost)?;
        let help = "packets at which an established connection was decided again";
        let again = encoder.encode_descriptor("weft_ebpf_decided_again", help, None, MetricType::Counter)?;
        ConstCounter::new(counters.decided_again).encode(again)
    }
}

impl Collector for ProxyMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.requests(&mut encoder)?;
        self.decisions(&mut encoder)?;
        self.durations(&mut encoder)?;
        self.counters(&mut encoder)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;

    #[test]
    fn the_counters_of_all_workers_are_summed() {
        let workers = vec![Arc::new(WorkerMetrics::default()), Arc::new(WorkerMetrics::default())];
        for worker in &workers {
            worker.request(403, 2_000_000, Some(Reason::HttpPolicyDenied));
            worker.serves(weft_ir::stream::Position { epoch: 1, revision: 7 });
        }
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ProxyMetrics::new(workers, FlowRing::new(1))));
        let mut text = String::new();
        encode(&mut text, &registry).expect("it can be written");
        for line in [
            "weft_node_requests_total{status=\"4xx\"} 2",
            "weft_node_decisions_total{verdict=\"refused\",reason=\"http_policy_denied\"} 2",
            "weft_node_request_duration_seconds_bucket{le=\"0.0025\"} 2",
            "weft_node_request_duration_seconds_count 2",
            "weft_node_ir_revision 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
