// SPDX-License-Identifier: Apache-2.0
//! The task that keeps the stream.

use std::{convert::Infallible, sync::Arc, time::SystemTime};

use tokio::{
    sync::{Notify, mpsc, watch},
    time::sleep,
};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tonic::{Code, Status};
use weft_ir::{
    stream::{Batch, FromNode, ToNode},
    subscribe::{Commit, Progress, Subscriber},
};
use weft_runtime::supervise;

use super::{Applied, LinkStatus, Stuck, backoff::Backoff, connect::Dial, renewal::Renewal};

/// Messages on their way to the controller: a hello, one `Ack` and a `Pong` are the most there can be.
const OUTBOUND: usize = 4;

pub(super) struct Link {
    pub(super) dial: Dial,
    pub(super) subscriber: Subscriber,
    pub(super) states: watch::Sender<Option<Arc<Commit>>>,
    pub(super) status: watch::Sender<LinkStatus>,
    /// The last applied state, for the disk.
    pub(super) save: watch::Sender<Option<Commit>>,
    pub(super) acks: mpsc::Receiver<Applied>,
    /// Somebody has removed the files of the node.
    pub(super) lost: Arc<Notify>,
}

/// Why a stream has ended.
struct Ended {
    error: String,
    /// Another process has this node's stream.
    contested: bool,
}

/// A stream that could be opened.
struct Session {
    inbound: tonic::Streaming<ToNode>,
    outbound: mpsc::Sender<FromNode>,
    renewal: Renewal,
}

impl Link {
    pub(super) async fn run(mut self) -> Result<(), Infallible> {
        let mut backoff = Backoff::default();
        self.note();
        loop {
            let ended = match self.open().await {
                Ok(session) => {
                    tracing::info!(controller = self.dial.address(), "connected to the controller");
                    self.set_link(true, None);
                    self.follow(session, &mut backoff).await
                }
                Err(error) => error.into(),
            };
            let pause = if ended.contested { backoff.contested() } else { backoff.next() };
            let error: Arc<str> = ended.error.into();
            let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(%error, pause_ms, "no stream from the controller");
            self.set_link(false, Some(error));
            self.apply_until(sleep(pause)).await;
        }
    }

    /// Says what is wrong with the credential.
    fn note(&self) {
        let notes = self.dial.notes();
        self.status.send_if_modified(|link| {
            let changed = link.notes != notes;
            link.notes = notes;
            changed
        });
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
        self.note();
        Ok(Session { inbound: opened.inbound, outbound, renewal })
    }

    /// Takes what comes until the stream ends, and returns why it did.
    async fn follow(&mut self, mut session: Session, backoff: &mut Backoff) -> Ended {
        loop {
            tokio::select! {
                message = session.inbound.message() => match message {
                    Ok(Some(ToNode::Batch(batch))) => {
                        let last = batch.last;
                        if let Err(error) = self.take_frame(batch, &session.outbound) {
                            self.stuck(&format!("this node refuses what the controller sends ({error})"));
                            return error.into();
                        }
                        if last {
                            backoff.reset();
                        }
                    }
                    Ok(Some(ToNode::Ping)) => send(&session.outbound, FromNode::Pong),
                    Ok(Some(ToNode::Withheld { reason })) => {
                        backoff.reset();
                        self.stuck(&withheld(&reason));
                    }
                    Ok(None) => return "the controller has ended the stream".to_owned().into(),
                    Err(status) => return Ended::from(&status),
                },
                answer = session.renewal.answer() => self.take_certificate(answer, &mut session.renewal),
                () = self.lost.notified() => self.keep_credential(),
                Some(applied) = self.acks.recv() => {
                    take_applied(&mut self.subscriber, &self.save, &self.status, applied, Some(&session.outbound));
                }
            }
        }
    }

    /// Nothing newer is taken, for this reason.
    fn stuck(&self, reason: &str) {
        self.status.send_if_modified(|link| {
            if link.stuck.as_ref().is_some_and(|stuck| &*stuck.reason == reason) {
                return false;
            }
            tracing::warn!(reason, "nothing newer is served");
            let since = link.stuck.as_ref().map_or_else(SystemTime::now, |stuck| stuck.since);
            link.stuck = Some(Stuck { since, reason: reason.into() });
            true
        });
    }

    fn keep_credential(&mut self) {
        self.dial.keep();
        self.note();
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
                match self.dial.left() {
                    Some(_) => tracing::info!("the node's certificate is renewed"),
                    None => tracing::warn!(
                        "the renewed certificate has expired by the clock of this machine: set that clock, or the \
                         controller's"
                    ),
                }
                renewal.schedule(self.dial.left());
                self.note();
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
            Progress::Ack(ack) => {
                self.status.send_if_modified(|link| link.stuck.take().is_some());
                send(outbound, FromNode::Ack(ack));
            }
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
                self.status.send_modify(|link| (link.received, link.stuck) = (Some(commit.position), None));
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
                () = self.lost.notified() => self.keep_credential(),
                Some(applied) = self.acks.recv() => {
                    take_applied(&mut self.subscriber, &self.save, &self.status, applied, None);
                }
            }
        }
    }
}

impl From<String> for Ended {
    fn from(error: String) -> Ended {
        Ended { error, contested: false }
    }
}

impl From<&Status> for Ended {
    fn from(status: &Status) -> Ended {
        match status.code() {
            Code::AlreadyExists => Ended { error: status.message().to_owned(), contested: true },
            _ => format!("the stream broke: {}", status.message()).into(),
        }
    }
}

/// What it means that the controller sends nothing.
fn withheld(reason: &str) -> String {
    format!(
        "the controller sends nothing, since this node {reason}: it reads older files than those that this node has \
         followed; give it the same ones, or `touch` one of its files if these are to be followed now"
    )
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
