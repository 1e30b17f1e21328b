// SPDX-License-Identifier: Apache-2.0
//! How the node stands to its controller, for whoever asks: readiness, `weft status`, metrics.

use std::{convert::Infallible, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};
use tokio::sync::watch;
use weft_ir::stream::Position;
use weft_runtime::readiness::ReadinessHandle;
use weft_time::Timestamp;

use crate::ir_client::LinkStatus;

/// Keeps a condition saying how the node stands to its controller. It always holds, since a node serves its
/// last state without one.
pub(crate) async fn keep_noted(
    mut link: watch::Receiver<LinkStatus>,
    condition: ReadinessHandle,
) -> Result<(), Infallible> {
    loop {
        let text = describe(&link.borrow_and_update());
        condition.note(&text);
        if link.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// In one line: since when it is connected or not, and which state it has applied.
pub(crate) fn describe(link: &LinkStatus) -> String {
    let since = Timestamp::from(link.since);
    let word = if link.connected { "connected" } else { "disconnected" };
    let error = link.error.as_deref().map(|error| format!(" ({error})")).unwrap_or_default();
    let applied = match link.applied {
        Some(Position { epoch, revision }) => format!("applied epoch {epoch} revision {revision}"),
        None => "nothing applied yet".to_owned(),
    };
    let skew = match skew(link) {
        0 => String::new(),
        skew => format!(", {skew} behind what was received"),
    };
    format!("{word} since {since}{error}; {applied}{skew}")
}

/// Revisions that were received and are not applied yet. Of another epoch, at least one.
fn skew(link: &LinkStatus) -> u64 {
    match (link.received, link.applied) {
        (Some(received), Some(applied)) if received.epoch == applied.epoch => {
            received.revision.saturating_sub(applied.revision)
        }
        (Some(_), _) => 1,
        (None, _) => 0,
    }
}

/// Yields the metrics of the link.
#[derive(Debug)]
pub(crate) struct LinkMetrics(pub(crate) watch::Receiver<LinkStatus>);

impl Collector for LinkMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let link = self.0.borrow().clone();
        let age = link.since.elapsed().unwrap_or_default().as_secs();
        let applied = link.applied.unwrap_or(Position { epoch: 0, revision: 0 });
        let gauges = [
            (
                "weft_node_controller_connected",
                "1 while a stream to the controller is open",
                u64::from(link.connected),
            ),
            ("weft_node_controller_since_seconds", "how long it has been open, or not", age),
            (
                "weft_node_applied_epoch",
                "the run of the controller whose state is applied; 0 for none",
                applied.epoch,
            ),
            ("weft_node_applied_revision", "the revision that is applied; 0 for none", applied.revision),
            ("weft_node_revision_skew", "revisions received and not applied yet", skew(&link)),
        ];
        for (name, help, value) in gauges {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            let descriptor = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(descriptor)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn it_says_since_when_why_and_how_far_behind() {
        let at = |epoch, revision| Some(Position { epoch, revision });
        let mut link = LinkStatus {
            connected: false,
            since: UNIX_EPOCH + Duration::from_secs(1_795_219_200),
            error: Some("no route".into()),
            received: at(7, 12),
            applied: at(7, 9),
        };
        assert_eq!(
            describe(&link),
            "disconnected since 2026-11-21T00:00:00Z (no route); applied epoch 7 revision 9, 3 behind what was received"
        );
        (link.connected, link.error, link.received) = (true, None, at(8, 1));
        assert_eq!(skew(&link), 1, "revisions of two epochs are not compared");
        (link.received, link.applied) = (None, None);
        assert_eq!(describe(&link), "connected since 2026-11-21T00:00:00Z; nothing applied yet");
    }
}
