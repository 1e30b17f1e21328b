// SPDX-License-Identifier: Apache-2.0
//! Places for connections that have not opened a stream as a node yet.
//!
//! They are bounded for all together and for each address, so that one host that opens connections and
//! says nothing keeps no node out.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// The places. A clone has the same.
#[derive(Clone, Debug)]
pub(super) struct PendingPlaces {
    all: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    per_address: usize,
}

/// A place; free again once it is dropped.
#[derive(Debug)]
pub(super) struct PendingPlace {
    places: PendingPlaces,
    address: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl PendingPlaces {
    pub(super) fn new(all: usize, per_address: usize) -> PendingPlaces {
        PendingPlaces { all: Arc::new(Semaphore::new(all)), by_address: Arc::default(), per_address }
    }

    /// Waits until there is a place for whoever comes next.
    pub(super) async fn wait(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        self.all.clone().acquire_owned().await
    }

    /// The place for a connection of this address; none when the address has too many.
    pub(super) fn take(&self, permit: OwnedSemaphorePermit, address: IpAddr) -> Option<PendingPlace> {
        let mut by_address = self.lock();
        let count = by_address.entry(address).or_default();
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        Some(PendingPlace { places: self.clone(), address, _permit: permit })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingPlace {
    /// Whose place it is.
    pub(super) fn address(&self) -> IpAddr {
        self.address
    }
}

impl Drop for PendingPlace {
    fn drop(&mut self) {
        let mut by_address = self.places.lock();
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_takes_its_own_share_and_leaves_nothing_behind() {
        let places = PendingPlaces::new(3, 2);
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = places.take(places.wait().await.unwrap(), one).unwrap();
        let second = places.take(places.wait().await.unwrap(), one).unwrap();
        assert!(places.take(places.wait().await.unwrap(), one).is_none());
        let third = places.take(places.wait().await.unwrap(), other).unwrap();
        assert_eq!(places.all.available_permits(), 0);
        drop((first, second, third));
        assert_eq!(places.all.available_permits(), 3);
        assert!(places.lock().is_empty());
    }
}
