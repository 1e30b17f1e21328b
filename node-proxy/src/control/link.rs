// SPDX-License-Identifier: Apache-2.0
//! How the node stands to its controller, for whoever asks: readiness, `weft status`, metrics.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};
use tokio::sync::watch;
use weft_ir::stream::Position;
use weft_time::Timestamp;

use crate::ir_client::LinkStatus;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// In one line: since when it is connected or not, which state it serves, and why it takes nothing newer.
pub(crate) fn describe(link: &LinkStatus, now: SystemTime) -> String {
    let word = if link.connected { "connected" } else { "disconnected" };
    let applied = match link.applied {
        Some(position) => format!("serving revision {position}"),
        None => "nothing applied yet".to_owned(),
    };
    let skew = match skew(link) {
        0 => String::new(),
        1 => ", 1 revision behind what was received".to_owned(),
        skew => format!(", {skew} revisions behind what was received"),
    };
    let stuck = link
        .stuck
        .as_ref()
        .map(|stuck| format!(", and nothing newer since {}: {}", moment(stuck.since, now), stuck.reason));
    let error = link.error.as_deref().map(|error| format!(": {error}"));
    // Where both are known, the refusal is why the stream ended.
    let why = stuck.or(error).unwrap_or_default();
    format!("{word} since {}, {applied}{skew}{why}", moment(link.since, now))
}

/// What somebody should look into, one line each.
pub(crate) fn attention(link: &LinkStatus, now: SystemTime) -> Vec<String> {
    let away = !link.connected || link.stuck.is_some();
    let away = away.then(|| format!("controller: {}", describe(link, now)));
    let lost = (link.lost > 0).then(|| {
        let lost = link.lost;
        format!("somebody has removed the files of the node while it ran ({lost}x); they were written again")
    });
    let unsaved = link.unsaved.iter().map(ToString::to_string);
    away.into_iter().chain(link.notes.iter().cloned()).chain(unsaved).chain(lost).collect()
}

/// A time of day and how long ago that is, such as `12:03:05 UTC (2 min)`.
fn moment(time: SystemTime, now: SystemTime) -> String {
    let text = Timestamp::from(time).to_string();
    let (day, time_of_day) = text.split_at_checked(10).unwrap_or_default();
    let time_of_day = time_of_day.get(1..9).unwrap_or_default();
    let age = now.duration_since(time).unwrap_or_default();
    let seconds = age.as_secs();
    let ago = match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    };
    let day = if age < DAY { String::new() } else { format!("{day} ") };
    format!("{day}{time_of_day} UTC ({ago})")
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
            (
                "weft_node_updates_stuck",
                "1 while the controller sends nothing, or the node refuses what it sends",
                u64::from(link.stuck.is_some()),
            ),
            (
                "weft_node_state_unsaved",
                "1 while the last applied state cannot be written to disk",
                u64::from(link.unsaved.is_some()),
            ),
            ("weft_node_files_lost", "how often the node's files were removed while it ran", link.lost),
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
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::ir_client::Stuck;

    fn at(epoch: u64, revision: u64) -> Option<Position> {
        Some(Position { epoch, revision })
    }

    fn link() -> LinkStatus {
        LinkStatus { since: later(0), received: at(7, 12), applied: at(7, 9), ..LinkStatus::default() }
    }

    /// So long after a midnight.
    fn later(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_795_219_200 + seconds)
    }

    #[test]
    fn it_says_since_when_why_and_how_far_behind() {
        let mut link = LinkStatus { error: Some("no route".into()), ..link() };
        assert_eq!(
            describe(&link, later(185)),
            "disconnected since 00:00:00 UTC (3 min), serving revision 0007.9, 3 revisions behind what was received: no route"
        );
        (link.connected, link.error, link.received) = (true, None, at(8, 1));
        assert_eq!(skew(&link), 1, "revisions of two epochs are not compared");
        (link.received, link.applied) = (None, None);
        assert_eq!(describe(&link, later(5)), "connected since 00:00:00 UTC (5 s), nothing applied yet");
        for (seconds, text) in [
            (59, "00:00:00 UTC (59 s)"),
            (60, "00:00:00 UTC (1 min)"),
            (2 * 3600, "00:00:00 UTC (2 h)"),
            (30 * 3600, "2026-11-21 00:00:00 UTC (30 h)"),
            (72 * 3600, "2026-11-21 00:00:00 UTC (3 days)"),
        ] {
            assert_eq!(moment(later(0), later(seconds)), text);
        }
        assert_eq!(moment(later(9), later(0)), "00:00:09 UTC (0 s)", "a clock that was set back");
    }

    #[test]
    fn who_is_sent_nothing_or_refuses_what_it_is_sent_says_why_and_asks_for_attention() {
        let mut link = LinkStatus { connected: true, received: at(7, 9), ..link() };
        assert_eq!(attention(&link, later(9)), [] as [String; 0]);
        link.stuck = Some(Stuck { since: later(60), reason: "the controller sends nothing".into() });
        let line = "controller: connected since 00:00:00 UTC (4 min), serving revision 0007.9, and nothing newer since 00:01:00 UTC (3 min): the controller sends nothing";
        assert_eq!(attention(&link, later(240)), [line]);
        // Between two tries to connect again it is still so.
        (link.connected, link.error) = (false, Some("wrong digest".into()));
        assert!(attention(&link, later(240))[0].ends_with("the controller sends nothing"));
    }

    #[test]
    fn what_is_wrong_with_its_files_asks_for_attention() {
        let notes = vec!["its key was damaged".to_owned()];
        let link =
            LinkStatus { connected: true, notes, unsaved: Some("disk full".into()), lost: 2, ..link() };
        let lines = attention(&link, later(9));
        assert_eq!(lines[..2], ["its key was damaged", "disk full"]);
        assert!(lines[2].contains("(2x)"), "{lines:?}");
    }
}
