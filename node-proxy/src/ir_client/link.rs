// SPDX-License-Identifier: Apache-2.0
//! The task that keeps the stream.

use std::{convert::Infallible, sync::Arc, time::SystemTime};

use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tonic::Status;
use weft_ir::{
    stream::{Batch, FromNode},
    subscribe::{Commit, Progress, Subscriber},
};
use weft_runtime::supervise;

use super::{Applied, LinkStatus, backoff::Backoff, connect::Dial, renewal::Renewal};

/// Messages on their way to the controller: a hello and one `Ack` are the most there can be.
const OUTBOUND: usize = 4;

pub(super) struct Link {
    pub(super) dial: Dial,
    pub(super) subscriber: Subscriber,
    pub(super) states: watch::Sender<Option<Arc<Commit>>>,
    pub(super) status: watch::Sender<LinkStatus>,
    /// The last applied state, for the disk.
    pub(super) save: watch::Sender<Option<Commit>>,
    pub(super) acks: mpsc::Receiver<Applied>,
}

/// A stream that could be opened.
struct Session {
    inbound: tonic::Streaming<Batch>,
    outbound: mpsc::Sender<FromNode>,
    renewal: Renewal,
}

impl Link {
    pub(super) async fn run(mut self) -> Result<(), Infallible> {
        let mut backoff = Backoff::default();
        loop {
            let error: Arc<str> = match self.open().await {
                Ok(session) => {
                    tracing::info!(controller = self.dial.address(), "connected to the controller");
                    self.set_link(true, None);
                    self.follow(session, &mut backoff).await.into()
                }
                Err(error) => error.into(),
            };
            let pause = backoff.next();
            let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(%error, pause_ms, "no stream from the controller");
            self.set_link(false, Some(error));
            self.apply_until(sleep(pause)).await;
        }
    }

    fn set_link(&self, connected: bool, error: Option<Arc<str>>) {
        self.status.send_modify(|link| {
            // Each failure to connect again is no new beginning.
            if link.connected != connected {
                link.since = SystemTime::now();
            }
            (link.connected, link.error) = (connected, error);
        });
    }

    /// Opens a stream. What is applied meanwhile is taken note of.
    async fn open(&mut self) -> Result<Session, String> {
        let (outbound, messages) = mpsc::channel(OUTBOUND);
        let hello = FromNode::Hello(self.subscriber.hello());
        outbound.try_send(hello).map_err(|error| error.to_string())?;
        let Link { dial, subscriber, save, acks, status, .. } = self;
        let opened = {
            let opening = dial.open(messages);
            tokio::pin!(opening);
            loop {
                tokio::select! {
                    opened = &mut opening => break opened.map_err(|error| error.to_string())?,
                    Some(applied) = acks.recv() => take_applied(subscriber, save, status, applied, None),
                }
            }
        };
        let renewal = Renewal::new(opened.channel, dial.left());
        Ok(Session { inbound: opened.inbound, outbound, renewal })
    }

    /// Takes batches until the stream ends, and returns why it did.
    async fn follow(&mut self, mut session: Session, backoff: &mut Backoff) -> String {
        loop {
            tokio::select! {
                frame = session.inbound.message() => match frame {
                    Ok(Some(batch)) => {
                        let last = batch.last;
                        if let Err(error) = self.take_frame(batch, &session.outbound) {
                            return error;
                        }
                        if last {
                            backoff.reset();
                        }
                    }
                    Ok(None) => return "the controller has ended the stream".to_owned(),
                    Err(status) => return format!("the stream broke: {}", status.message()),
                },
                answer = session.renewal.answer() => self.take_certificate(answer, &mut session.renewal),
                Some(applied) = self.acks.recv() => {
                    take_applied(&mut self.subscriber, &self.save, &self.status, applied, Some(&session.outbound));
                }
            }
        }
    }

    fn take_certificate(
        &mut self,
        answer: Result<Vec<CertificateDer<'static>>, Status>,
        renewal: &mut Renewal,
    ) {
        let taken = answer.map_err(|status| status.message().to_owned());
        let taken =
            taken.and_then(|chain| self.dial.renewed(chain).map_err(|error| supervise::chain(&error)));
        match taken {
            Ok(()) => {
                tracing::info!("the node's certificate is renewed");
                renewal.schedule(self.dial.left());
            }
            Err(error) => {
                tracing::warn!(error, "the node's certificate is not renewed yet");
                renewal.retry(self.dial.left());
            }
        }
    }

    fn take_frame(&mut self, batch: Batch, outbound: &mpsc::Sender<FromNode>) -> Result<(), String> {
        match self.subscriber.frame(batch).map_err(|error| error.to_string())? {
            Progress::Incomplete => {}
            Progress::Ack(ack) => send(outbound, FromNode::Ack(ack)),
            Progress::Commit(commit) => {
                let revision = commit.position.revision;
                tracing::info!(
                    revision,
                    changed = commit.changed.len(),
                    removed = commit.removed.len(),
                    "state received"
                );
                for (key, error) in &commit.rejected {
                    tracing::warn!(revision, %key, %error, "cannot read a resource");
                }
                self.status.send_modify(|link| link.received = Some(commit.position));
                self.states.send_replace(Some(commit));
            }
        }
        Ok(())
    }

    async fn apply_until(&mut self, end: tokio::time::Sleep) {
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                Some(applied) = self.acks.recv() => {
                    take_applied(&mut self.subscriber, &self.save, &self.status, applied, None);
                }
            }
        }
    }
}

fn take_applied(
    subscriber: &mut Subscriber,
    save: &watch::Sender<Option<Commit>>,
    status: &watch::Sender<LinkStatus>,
    applied: Applied,
    outbound: Option<&mpsc::Sender<FromNode>>,
) {
    let position = applied.position;
    status.send_modify(|link| link.applied = Some(position));
    let ack = subscriber.applied(position, applied.refused);
    if let Some(commit) = subscriber.commit().filter(|commit| commit.position == position) {
        save.send_replace(Some(commit));
    }
    if let (Some(ack), Some(outbound)) = (ack, outbound) {
        send(outbound, FromNode::Ack(ack));
    }
}

/// The controller sends nothing new before it has the `Ack`, so there is always room for it; a stream
/// that has ended takes nothing, and the next one begins with a report.
fn send(outbound: &mpsc::Sender<FromNode>, message: FromNode) {
    drop(outbound.try_send(message));
}
