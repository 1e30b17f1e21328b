// SPDX-License-Identifier: Apache-2.0
//! The proxies of one run side by side: who takes part, in which order, and how CPU time compares.

use crate::peers::{PeerName, Running};
use crate::process::Cpu;
use crate::scenarios::{Bench, Options, same_work};
use crate::stats::Spread;
use crate::workload::Protocol;

/// An A/A pair that differs by more than this says that the run cannot tell such differences.
const MAX_CONTROL: f64 = 0.05;

/// One proxy of a run; the control is a second one of the same kind.
pub(super) struct Contender {
    pub(super) peer: PeerName,
    pub(super) label: String,
    pub(super) running: Running,
    pub(super) cpu: CpuPerMillion,
}

/// CPU seconds of the proxy's process for a million exchanges, round by round.
#[derive(Clone, Debug, Default)]
pub(super) struct CpuPerMillion {
    pub(super) sum: Spread,
    user: Spread,
    system: Spread,
}

impl CpuPerMillion {
    /// Notes a window; none where the round has no window that counts.
    pub(super) fn push(&mut self, window: Option<(Cpu, u64)>) {
        // A window of no tick at all is too short to say anything.
        let per_million = window
            .filter(|(cpu, count)| cpu.sum() > 0.0 && *count > 0)
            .map(|(cpu, count)| (cpu, 1e6 / count as f64));
        self.sum.push(per_million.map(|(cpu, factor)| cpu.sum() * factor));
        self.user.push(per_million.map(|(cpu, factor)| cpu.user * factor));
        self.system.push(per_million.map(|(cpu, factor)| cpu.system * factor));
    }
}

/// Starts every peer and the control, and fails where one does not do the same work as the others.
pub(super) fn start(bench: &Bench, protocol: Protocol, options: &Options) -> anyhow::Result<Vec<Contender>> {
    let mut named: Vec<(PeerName, String)> =
        options.peers.iter().map(|peer| (*peer, peer.label().to_owned())).collect();
    if let Some(twin) = twin(options) {
        named.push((twin, format!("{} again", twin.label())));
    }
    let mut contenders = Vec::new();
    for (peer, label) in named {
        eprintln!("starting {label}, and looking at what it does");
        let running = bench.proxy(peer, &label, protocol, &[])?;
        same_work::verify(bench, protocol, peer, running.address)?;
        contenders.push(Contender { peer, label, running, cpu: CpuPerMillion::default() });
    }
    Ok(contenders)
}

/// The proxy that takes part twice: Weft, or else the first.
fn twin(options: &Options) -> Option<PeerName> {
    options.proxies().find(|peer| *peer == PeerName::Weft).or_else(|| options.proxies().next())
}

/// The order of a round: each round begins with another proxy, so that none is always behind the same.
pub(super) fn order(round: u32, contenders: usize) -> impl Iterator<Item = usize> {
    (0..contenders).map(move |place| (place + round as usize) % contenders)
}

/// The names of the columns that [`cells`] fills.
pub(super) fn columns(contenders: &[Contender], has_floor: bool) -> Vec<String> {
    let mut columns: Vec<String> = ["CPU-s per 1M", "user", "system"].map(str::to_owned).into();
    columns.extend(bases(contenders).map(|base| format!("x less than {}", base.label)));
    if has_floor && floor(contenders).is_some() {
        columns.push("x relay".to_owned());
    }
    columns
}

/// CPU time of one contender, how many times less it is than that of Envoy and HAProxy, and how many times
/// the relay's.
pub(super) fn cells(own: &CpuPerMillion, contenders: &[Contender], has_floor: bool) -> Vec<Spread> {
    let mut cells = vec![own.sum.clone(), own.user.clone(), own.system.clone()];
    cells.extend(bases(contenders).map(|base| base.cpu.sum.ratio_to(&own.sum)));
    if let Some(floor) = floor(contenders).filter(|_| has_floor) {
        cells.push(own.sum.ratio_to(&floor.cpu.sum));
    }
    cells
}

fn bases(contenders: &[Contender]) -> impl Iterator<Item = &Contender> {
    contenders.iter().filter(|one| {
        matches!(one.peer, PeerName::Envoy | PeerName::Haproxy) && one.label == one.peer.label()
    })
}

fn floor(contenders: &[Contender]) -> Option<&Contender> {
    contenders.iter().find(|one| one.peer == PeerName::Relay)
}

/// What the control says about this run, with the values of each contender that `value` picks.
pub(super) fn control_note(
    contenders: &[Contender],
    what: &str,
    value: impl Fn(usize) -> Spread,
) -> Option<String> {
    let control = contenders.iter().position(|one| one.label != one.peer.label())?;
    let twin = contenders.iter().position(|one| one.label == contenders[control].peer.label())?;
    Some(judge(&contenders[twin].label, what, &value(control).ratio_to(&value(twin))))
}

fn judge(twin: &str, what: &str, ratio: &Spread) -> String {
    if ratio.count() == 0 {
        return format!("A/A: no round measured {twin} twice, so nothing says how far to believe {what}");
    }
    let off = (ratio.median() - 1.0).abs();
    let fact = format!("A/A: {what} of {twin} against itself: {ratio}");
    if off > MAX_CONTROL {
        return format!(
            "{fact}. NOT TO BE BELIEVED below {:.0} %: the same proxy differs by that much in this run",
            off * 100.0
        );
    }
    fact
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(values: &[f64]) -> Spread {
        let mut spread = Spread::default();
        values.iter().for_each(|value| spread.push(Some(*value)));
        spread
    }

    #[test]
    fn a_control_that_differs_is_named() {
        assert!(!judge("Weft", "CPU time", &spread(&[1.04, 0.97, 1.05])).contains("NOT"));
        let noisy = judge("Weft", "CPU time", &spread(&[1.20, 1.08, 1.01]));
        assert!(noisy.contains("NOT TO BE BELIEVED below 8 %"), "{noisy}");
        assert!(
            judge("Weft", "CPU time", &spread(&[0.93, 0.94, 0.99])).contains("NOT TO BE BELIEVED below 6 %")
        );
        assert!(judge("Weft", "p50", &Spread::default()).contains("no round"));
    }

    #[test]
    fn every_proxy_has_each_place_in_turn() {
        let rounds: Vec<Vec<usize>> = (0..3).map(|round| order(round, 3).collect()).collect();
        assert_eq!(rounds, [[0, 1, 2], [1, 2, 0], [2, 0, 1]]);
    }

    #[test]
    fn cpu_time_is_user_and_system_for_a_million() {
        let mut cpu = CpuPerMillion::default();
        cpu.push(Some((Cpu { user: 0.5, system: 1.5 }, 100_000)));
        cpu.push(Some((Cpu::default(), 100_000)));
        cpu.push(None);
        assert_eq!((cpu.sum.median(), cpu.user.median(), cpu.system.median()), (20.0, 5.0, 15.0));
        assert_eq!(cpu.sum.count(), 1, "neither a window without a tick nor a dropped one counts");
    }
}
