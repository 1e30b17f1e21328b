// SPDX-License-Identifier: Apache-2.0
//! Which backend and which endpoint takes a request.
//!
//! Backends of a rule are picked by weight with a low-discrepancy sequence: after n picks every
//! backend is within a few requests of its share, however small n is. Endpoints are picked by power
//! of two choices over peak EWMA latency times requests in flight, per worker.

use std::{cell::RefCell, rc::Rc};

use crate::{route::slots::Slot, state::upstream::Endpoint};

/// The latency of an endpoint that has not answered yet: 1 ms. Low enough to be tried soon, high
/// enough that a second request in flight goes elsewhere.
const FIRST_GUESS: f32 = 1e6;
/// What a failure counts as, in nanoseconds: 1 s, so that an endpoint which fails fast is not taken
/// for a fast one.
const FAILURE: f32 = 1e9;
/// The time in which an old latency loses 63 % of its weight, in nanoseconds: 10 s (Finagle's default).
const DECAY: f32 = 10e9;
/// 2^32 divided by the golden ratio: steps of the most even sequence there is on a circle.
const GOLDEN: u32 = 0x9E37_79B9;

/// Draws for one worker: weighted picks and pairs of endpoints.
#[derive(Debug)]
pub(crate) struct Picker {
    ticket: u32,
    random: u64,
}

impl Picker {
    /// Starts at a point that differs between workers.
    pub(crate) fn new(seed: u64) -> Picker {
        let random = (seed ^ 0x9E37_79B9_7F4A_7C15) | 1;
        Picker { ticket: seed as u32, random }
    }

    /// A position below `total`, spread evenly over many calls.
    pub(crate) fn position(&mut self, total: u64) -> u64 {
        self.ticket = self.ticket.wrapping_add(GOLDEN);
        (u64::from(self.ticket) * total) >> 32
    }

    /// A number below `bound`, not for secrets.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        let mixed = self.mixed();
        ((u64::from(mixed) * u64::from(bound)) >> 32) as u32
    }

    /// Any octets, not for secrets.
    pub(crate) fn octets(&mut self) -> [u8; 16] {
        let mut octets = [0; 16];
        octets.chunks_exact_mut(4).for_each(|word| word.copy_from_slice(&self.mixed().to_ne_bytes()));
        octets
    }

    fn mixed(&mut self) -> u32 {
        // xorshift64*, Vigna 2016.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as u32
    }
}

/// The position of the backend with this `position` in the sum of all weights.
pub(crate) fn weighted(cumulative: &[u64], position: u64) -> Option<usize> {
    let index = cumulative.partition_point(|end| *end <= position);
    (index < cumulative.len()).then_some(index)
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    generation: u32,
    in_flight: u32,
    latency: f32,
    /// When `latency` was measured, in nanoseconds since the start of the process.
    measured: u64,
}

/// What one worker knows about the endpoints that it uses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loads(Rc<RefCell<Vec<Load>>>);

/// A request on its way to an endpoint; ends when dropped.
#[derive(Debug)]
pub(crate) struct InFlight {
    loads: Loads,
    slot: Slot,
}

impl Loads {
    /// The better of two endpoints drawn at random, none of which was tried before.
    pub(crate) fn pick<'a>(
        &self,
        endpoints: &'a [Endpoint],
        tried: &[Slot],
        picker: &mut Picker,
        now: u64,
    ) -> Option<&'a Endpoint> {
        let count = endpoints.len() as u32;
        let fresh = |endpoint: &&Endpoint| !tried.contains(&endpoint.slot);
        let draw = |picker: &mut Picker| endpoints.get(picker.below(count) as usize);
        match endpoints {
            [] => None,
            [only] => Some(only),
            _ => {
                let first = draw(picker).filter(fresh);
                let second = draw(picker).filter(fresh);
                match (first, second) {
                    (Some(first), Some(second)) if first.slot == second.slot => {
                        let other = picker.below(count) as usize;
                        let other = endpoints.get(other).filter(fresh).unwrap_or(first);
                        Some(self.better(first, other, now))
                    }
                    (Some(first), Some(second)) => Some(self.better(first, second, now)),
                    (Some(one), None) | (None, Some(one)) => Some(one),
                    (None, None) => endpoints.iter().find(fresh).or_else(|| draw(picker)),
                }
            }
        }
    }

    /// Counts a request as in flight.
    pub(crate) fn start(&self, slot: Slot) -> InFlight {
        self.with(slot, |load| load.in_flight += 1);
        InFlight { loads: self.clone(), slot }
    }

    fn better<'a>(&self, first: &'a Endpoint, second: &'a Endpoint, now: u64) -> &'a Endpoint {
        if self.cost(first.slot, now) <= self.cost(second.slot, now) { first } else { second }
    }

    fn cost(&self, slot: Slot, now: u64) -> f32 {
        let loads = self.0.borrow();
        match loads.get(slot.index as usize) {
            Some(load) if load.generation == slot.generation => {
                let latency = match load.measured {
                    0 => FIRST_GUESS,
                    measured => load.latency * weight(now.saturating_sub(measured)),
                };
                latency.max(1.0) * (load.in_flight + 1) as f32
            }
            _ => FIRST_GUESS,
        }
    }

    fn with(&self, slot: Slot, change: impl FnOnce(&mut Load)) {
        let mut loads = self.0.borrow_mut();
        let index = slot.index as usize;
        if index >= loads.len() {
            loads.resize(index + 1, Load::default());
        }
        let Some(load) = loads.get_mut(index) else { return };
        if load.generation < slot.generation {
            *load = Load { generation: slot.generation, ..Load::default() };
        }
        if load.generation == slot.generation {
            change(load);
        }
    }
}

impl InFlight {
    /// Takes the time to the response's head, in nanoseconds; a slower answer counts at once, a
    /// faster one little by little.
    pub(crate) fn answered(&self, elapsed: u64, failed: bool, now: u64) {
        let latency = if failed { FAILURE.max(elapsed as f32) } else { elapsed as f32 };
        self.loads.with(self.slot, |load| {
            let old = weight(now.saturating_sub(load.measured));
            load.latency = match load.measured {
                0 => latency,
                _ if latency > load.latency => latency,
                _ => load.latency * old + latency * (1.0 - old),
            };
            load.measured = now.max(1);
        });
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.loads.with(self.slot, |load| load.in_flight = load.in_flight.saturating_sub(1));
    }
}

fn weight(age: u64) -> f32 {
    (-(age as f32) / DECAY).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(count: u32) -> Vec<Endpoint> {
        (0..count)
            .map(|index| Endpoint {
                address: std::net::SocketAddr::from(([10, 0, 0, index as u8], 80)),
                slot: Slot { index, generation: 1 },
            })
            .collect()
    }

    #[test]
    fn weighted_picks_stay_within_a_few_requests_of_their_share() {
        for seed in [0, 1, 77, u64::MAX] {
            let mut picker = Picker::new(seed);
            let mut counts = [0_i64; 3];
            for picked in 1..=10_000_i64 {
                let position = picker.position(100);
                counts[weighted(&[90, 99, 100], position).expect("below the total")] += 1;
                let expected = picked * 90 / 100;
                assert!((counts[0] - expected).abs() <= 4, "{counts:?} after {picked}");
            }
        }
    }

    #[test]
    fn a_weight_of_zero_is_never_picked() {
        let mut picker = Picker::new(1);
        assert!((0..1000).all(|_| weighted(&[0, 5, 5], picker.position(5)) == Some(1)));
        assert_eq!(weighted(&[0, 0], 0), None);
    }

    #[test]
    fn the_slow_endpoint_gets_fewer_requests() {
        let (endpoints, loads, mut picker) = (endpoints(2), Loads::default(), Picker::new(3));
        let mut counts = [0; 2];
        for round in 1..1000_u64 {
            let now = round * 1_000_000;
            let picked = loads.pick(&endpoints, &[], &mut picker, now).expect("there are endpoints");
            counts[picked.slot.index as usize] += 1;
            let latency = if picked.slot.index == 0 { 100_000 } else { 50_000_000 };
            loads.start(picked.slot).answered(latency, false, now);
        }
        assert!(counts[1] < counts[0] / 2, "{counts:?}");
    }

    #[test]
    fn an_endpoint_that_fails_fast_is_not_taken_for_a_fast_one() {
        let (endpoints, loads, mut picker) = (endpoints(2), Loads::default(), Picker::new(3));
        loads.start(endpoints[0].slot).answered(10_000, true, 1);
        loads.start(endpoints[1].slot).answered(5_000_000, false, 1);
        let bad = (0..200)
            .filter(|_| loads.pick(&endpoints, &[], &mut picker, 2).is_some_and(|e| e.slot.index == 0))
            .count();
        assert!(bad < 80, "{bad}");
    }

    #[test]
    fn a_retry_goes_to_an_endpoint_that_was_not_tried() {
        let (endpoints, loads, mut picker) = (endpoints(3), Loads::default(), Picker::new(9));
        for _ in 0..200 {
            let tried = [endpoints[0].slot, endpoints[2].slot];
            let picked = loads.pick(&endpoints, &tried, &mut picker, 1).expect("there are endpoints");
            assert_eq!(picked.slot, endpoints[1].slot);
        }
    }
}
