// SPDX-License-Identifier: Apache-2.0
//! The controller as metrics: gathered when somebody asks.

use std::{fmt::Error, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use tokio::time::Instant;
use weft_runtime::supervise;

use crate::{
    observed::Observed,
    serve_ir::{IrHandle, IrReport},
};

/// The most nodes that have a series of their own; those furthest behind come first.
const MAX_NODE_SERIES: usize = 1000;

/// Yields the metrics of the controller.
#[derive(Debug)]
struct ControllerMetrics {
    nodes: IrHandle,
    observed: Observed,
}

/// A registry with all metrics of the controller.
pub(crate) fn registry(nodes: &IrHandle, observed: &Observed) -> Registry {
    let mut registry = Registry::default();
    supervise::register(&mut registry);
    registry.register_with_unit(
        "weft_controller_translation_duration",
        "time to translate what a change concerns",
        Unit::Seconds,
        observed.translations().clone(),
    );
    let metrics = ControllerMetrics { nodes: nodes.clone(), observed: observed.clone() };
    registry.register_collector(Box::new(metrics));
    registry
}

impl Collector for ControllerMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let report = self.nodes.watch_acks().borrow().clone();
        self.objects(&mut encoder)?;
        nodes(&report, &mut encoder)?;
        applied(&report, &mut encoder)?;
        self.streams(&mut encoder)
    }
}

impl ControllerMetrics {
    fn objects(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let objects = self.observed.watch().borrow().clone();
        let help = "objects by kind and by whether their newest text is served";
        let mut family =
            encoder.encode_descriptor("weft_controller_objects", help, None, MetricType::Gauge)?;
        for (kind, counts) in objects.counts.iter() {
            for (result, count) in [("accepted", counts.accepted), ("rejected", counts.rejected)] {
                gauge(count).encode(family.encode_family(&[("kind", *kind), ("result", result)])?)?;
            }
        }
        let gauges = [
            ("weft_controller_files", "manifest files that were read", objects.files),
            ("weft_controller_rejected_files", "files with a problem", objects.rejected_files()),
            ("weft_controller_problems", "problems of files and objects", objects.problems.len() as u64),
            (
                "weft_controller_source_empty",
                "1 while the source has no object and what was read before stays",
                u64::from(objects.withheld.is_some()),
            ),
            (
                "weft_controller_names_unreadable",
                "names of nodes that nobody can have, since their files cannot be read",
                self.nodes.registrar().unreadable() as u64,
            ),
        ];
        for (name, help, value) in gauges {
            gauge(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let help = "files of the controller that were removed while it ran, and written again";
        let mut family =
            encoder.encode_descriptor("weft_controller_files_rewritten", help, None, MetricType::Counter)?;
        let rewritten =
            [("names", self.nodes.registrar().rewritten()), ("identities", objects.identities_rewritten)];
        for (file, count) in rewritten {
            ConstCounter::new(count).encode(family.encode_family(&[("file", file)])?)?;
        }
        Ok(())
    }

    fn streams(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let counters = self.nodes.counters();
        let families = [
            ("weft_controller_connections", "connections of nodes accepted", &counters.accepted),
            ("weft_controller_certificates", "certificates issued to nodes", &counters.certificates),
            ("weft_controller_streams", "streams that began with a hello", &counters.streams),
            (
                "weft_controller_stream_reconnects",
                "streams of nodes that had been connected before",
                &counters.reconnects,
            ),
            ("weft_controller_acknowledgements", "revisions acknowledged by nodes", &counters.acknowledged),
            (
                "weft_controller_rejecting_acknowledgements",
                "acknowledgements that reject a resource",
                &counters.rejecting,
            ),
        ];
        for (name, help, counter) in families {
            let descriptor = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(counter.value()).encode(descriptor)?;
        }
        let help = "connections refused or cut before a stream began";
        let name = "weft_controller_connections_refused";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        let refused = [
            ("crowded", &counters.crowded),
            ("handshake", &counters.handshakes_failed),
            ("late", &counters.greetings_late),
            ("token", &counters.unauthorized),
            ("name", &counters.refused),
            ("throttled", &counters.joins_throttled),
            ("contested", &counters.contested),
        ];
        for (cause, counter) in refused {
            ConstCounter::new(counter.value()).encode(family.encode_family(&[("cause", cause)])?)?;
        }
        Ok(())
    }
}

fn nodes(report: &IrReport, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let count = |holds: fn(&weft_ir::publish::NodeReport) -> bool| {
        report.nodes.values().filter(|node| holds(node)).count() as u64
    };
    let overdue = report.waiting.values().filter(|waiting| waiting.overdue).count() as u64;
    let states = [
        ("connected", count(|node| node.connected)),
        ("disconnected", count(|node| !node.connected)),
        ("behind", report.behind(report.revision).count() as u64),
        ("overdue", overdue),
        ("rejecting", count(|node| node.connected && !node.rejected.is_empty())),
    ];
    let help = "nodes by state; a node that is behind, overdue or rejecting is connected as well";
    let mut family = encoder.encode_descriptor("weft_controller_nodes", help, None, MetricType::Gauge)?;
    for (state, count) in states {
        gauge(count).encode(family.encode_family(&[("state", state)])?)?;
    }
    let help = "the revision that was published last";
    let revision = encoder.encode_descriptor("weft_controller_revision", help, None, MetricType::Gauge)?;
    gauge(report.revision).encode(revision)?;
    let oldest = report.waiting.values().map(|waiting| waiting.since).min();
    let age = oldest.map_or(0.0, |since| Instant::now().saturating_duration_since(since).as_secs_f64());
    let help = "how long ago the oldest revision was sent that a connected node has not acknowledged";
    let name = "weft_controller_oldest_unacknowledged_age";
    let oldest = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
    ConstGauge::new(age).encode(oldest)
}

/// What each connected node has applied. Names come from nodes, so there are only so many series.
fn applied(report: &IrReport, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let connected = report.nodes.iter().filter(|(_, node)| node.connected);
    let mut nodes: Vec<(u64, &Arc<str>)> =
        connected.map(|(name, node)| (node.applied.unwrap_or(0), name)).collect();
    nodes.sort();
    let help = "the revision that a connected node has applied; 0 before the first";
    let name = "weft_controller_node_applied_revision";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (applied, node) in nodes.iter().take(MAX_NODE_SERIES) {
        gauge(*applied).encode(family.encode_family(&[("node", &***node)])?)?;
    }
    let help = "connected nodes without a series of their own";
    let name = "weft_controller_nodes_left_out";
    let left_out = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    gauge(nodes.len().saturating_sub(MAX_NODE_SERIES) as u64).encode(left_out)
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use weft_ir::publish::NodeReport;

    use super::*;

    /// Yields what one function says of a report.
    #[derive(Debug)]
    struct Of(IrReport, fn(&IrReport, &mut DescriptorEncoder<'_>) -> Result<(), Error>);

    impl Collector for Of {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
            (self.1)(&self.0, &mut encoder)
        }
    }

    fn text(
        report: IrReport,
        part: fn(&IrReport, &mut DescriptorEncoder<'_>) -> Result<(), Error>,
    ) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Of(report, part)));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    fn report(nodes: usize) -> IrReport {
        let node = |number: usize| {
            let report =
                NodeReport { connected: true, applied: Some(number as u64), ..NodeReport::default() };
            (Arc::from(format!("n{number}")), report)
        };
        IrReport { revision: 9, nodes: (0..nodes).map(node).collect(), ..IrReport::default() }
    }

    #[test]
    fn the_series_of_nodes_are_bounded_and_the_slowest_are_shown() {
        let text = text(report(MAX_NODE_SERIES + 7), applied);
        let series = text.lines().filter(|line| line.starts_with("weft_controller_node_applied_revision{"));
        assert_eq!(series.count(), MAX_NODE_SERIES);
        assert!(text.contains("weft_controller_node_applied_revision{node=\"n0\"} 0\n"), "{text}");
        assert!(!text.contains("node=\"n1006\""), "it is the furthest");
        assert!(text.contains("weft_controller_nodes_left_out 7\n"), "{text}");
    }

    #[test]
    fn a_name_of_a_node_cannot_break_out_of_its_label() {
        let mut report = report(0);
        let node = NodeReport { connected: true, ..NodeReport::default() };
        report.nodes.insert("a\"} 1\nb{x=\"".into(), node);
        let text = text(report, applied);
        assert!(!text.lines().any(|line| line.starts_with("b{")), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_age_of_the_oldest_unacknowledged_revision_is_that_of_the_slowest_node() {
        let mut report = report(2);
        for (node, seconds, overdue) in [("n0", 40, true), ("n1", 2, false)] {
            let since = Instant::now();
            tokio::time::advance(std::time::Duration::from_secs(seconds)).await;
            let waiting = crate::serve_ir::Waiting { revision: 9, since, overdue };
            report.waiting.insert(node.into(), waiting);
        }
        let text = text(report, nodes);
        for line in [
            "weft_controller_oldest_unacknowledged_age_seconds 42.0",
            "weft_controller_nodes{state=\"overdue\"} 1",
            "weft_controller_nodes{state=\"behind\"} 2",
            "weft_controller_revision 9",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
