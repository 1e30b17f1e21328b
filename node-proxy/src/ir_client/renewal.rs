// SPDX-License-Identifier: Apache-2.0
//! Renews the node's certificate while its stream is open.

use std::{future::Future, pin::Pin, time::Duration};

use tokio::time::{Instant, sleep_until};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tonic::{Status, transport::Channel};

use super::{backoff::jittered, connect};

/// After a failure the next try comes within this time, if the certificate is good for long enough.
const RETRY: Duration = Duration::from_secs(60);

/// No try comes sooner than this after the last.
const SHORTEST: Duration = Duration::from_millis(200);

type Asking = Pin<Box<dyn Future<Output = Result<Vec<CertificateDer<'static>>, Status>> + Send>>;

/// Asks for the next certificate when half of the present one's time is over, somewhat earlier at some
/// nodes, so that they do not come all at once.
pub(super) struct Renewal {
    channel: Channel,
    at: Instant,
    asking: Option<Asking>,
}

impl Renewal {
    /// On the connection of an open stream; the certificate is good for so long.
    pub(super) fn new(channel: Channel, left: Option<Duration>) -> Renewal {
        let mut renewal = Renewal { channel, at: Instant::now(), asking: None };
        renewal.schedule(left);
        renewal
    }

    /// Asks when it is time.
    pub(super) fn schedule(&mut self, left: Option<Duration>) {
        self.at = Instant::now() + pause(left);
    }

    /// Asks again soon.
    pub(super) fn retry(&mut self, left: Option<Duration>) {
        self.schedule(left.map(|left| left.min(2 * RETRY)));
    }

    /// The controller's next answer. Cancel safe.
    pub(super) async fn answer(&mut self) -> Result<Vec<CertificateDer<'static>>, Status> {
        if self.asking.is_none() {
            sleep_until(self.at).await;
        }
        let asking = self.asking.get_or_insert_with(|| Box::pin(connect::renew(self.channel.clone())));
        let answer = asking.await;
        self.asking = None;
        answer
    }
}

/// How long to wait with a certificate that is good for so long. One that is expired when it comes is so by a
/// clock that is wrong, and the next one would be too.
fn pause(left: Option<Duration>) -> Duration {
    left.map_or(RETRY, |left| jittered(left / 2).max(SHORTEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_in_its_first_half_and_a_wrong_clock_makes_no_storm() {
        let left = Duration::from_secs(1000);
        assert!((left / 4..=left / 2).contains(&pause(Some(left))));
        assert_eq!(pause(Some(Duration::ZERO)), SHORTEST);
        assert_eq!(pause(None), RETRY);
    }
}
