// SPDX-License-Identifier: Apache-2.0
//! How often an address may try to join.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use weft_identity::network;

/// Attempts at once: the nodes of a few racks behind one address, all started together.
const BURST: u32 = 128;

/// One more attempt after this time. Each costs two signatures and a write; a node tries again every 8 to
/// 15 seconds, so that ten which cannot join leave room for others at their address.
const REFILL: Duration = Duration::from_secs(1);

/// Addresses that are remembered at once, as many as can be pending four times over.
const MAX_ADDRESSES: usize = 4096;

/// The attempts of every address. A clone has the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Attempts(Arc<Mutex<HashMap<IpAddr, Instant>>>);

impl Attempts {
    /// Takes one attempt of this address; false when it has none left.
    pub(super) fn take(&self, address: IpAddr) -> bool {
        let now = Instant::now();
        let mut spent_until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spent_until.len() >= MAX_ADDRESSES {
            spent_until.retain(|_, until| *until > now);
        }
        let address = network(address);
        if spent_until.len() >= MAX_ADDRESSES && !spent_until.contains_key(&address) {
            return false;
        }
        // When all that was taken has come back.
        let until = spent_until.entry(address).or_insert(now);
        let next = (*until).max(now) + REFILL;
        let allowed = next <= now + REFILL * BURST;
        if allowed {
            *until = next;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_has_a_burst_and_then_one_a_second() {
        let attempts = Attempts::default();
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert_eq!((0..1000).filter(|_| attempts.take(one)).count(), BURST as usize);
        assert!(attempts.take(other));
        tokio::time::advance(REFILL * 3).await;
        assert_eq!((0..1000).filter(|_| attempts.take(one)).count(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded_and_forgotten() {
        let attempts = Attempts::default();
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        let taken = (0..2 * MAX_ADDRESSES as u32).filter(|number| attempts.take(address(*number))).count();
        assert_eq!(taken, MAX_ADDRESSES);
        tokio::time::advance(REFILL * 2).await;
        assert!(attempts.take(address(u32::MAX)));
    }
}
