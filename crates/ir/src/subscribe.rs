// SPDX-License-Identifier: Apache-2.0
//! The subscriber: takes frames, and yields a commit when its last frame is there.
//!
//! What cannot be decoded is rejected on its own. The last good version of a rejected resource stays
//! in the state; without one it is absent, and the node fails closed for what it names.

use std::{collections::BTreeSet, mem, sync::Arc};

use imbl::OrdMap;

use crate::{
    Branch, ResourceKey, Snapshot,
    digest::{self, Tree, Within},
    stream::{
        Ack, Base, Batch, Held, Hello, MAX_BRANCHES, MAX_REJECTION_BYTES, MAX_REJECTIONS, Position,
        Rejection, SCHEMA, Versions,
    },
    wire,
};

mod staged;

use staged::Staged;

/// Every key that could not be decoded, with the reason.
pub type Rejected = OrdMap<ResourceKey, Arc<str>>;

/// The whole state after a commit, and what is new in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// The commit, which is that of `snapshot` too.
    pub position: Position,
    /// The most that the node was told of the source so far.
    pub versions: Versions,
    /// Everything that is good.
    pub snapshot: Snapshot,
    /// Keys of the state that are new, changed or newly rejected since the last commit that was applied.
    pub changed: Vec<ResourceKey>,
    /// Keys that are gone since then.
    pub removed: Vec<ResourceKey>,
    /// Keys that could not be decoded. `snapshot` has their last good version, if there was one; a
    /// policy without one must deny what it could have denied.
    pub rejected: Rejected,
}

/// What a frame leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// More frames of the batch are to come.
    Incomplete,
    /// The state to apply; [`Subscriber::applied`] then yields the `Ack`.
    Commit(Arc<Commit>),
    /// Nothing to apply: the node holds exactly this already, and says so.
    Ack(Ack),
}

/// Why a frame was refused. The stream must be closed; the state stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// A frame is missing, repeated or of another batch than the one that is open.
    #[error("frame {found} of revision {revision} is out of order")]
    OutOfOrder {
        /// The frame's number.
        found: u32,
        /// The frame's revision.
        revision: u64,
    },
    /// A delta that starts from a commit which the node does not hold.
    #[error("a delta from revision {base}, which the node does not hold")]
    WrongBase {
        /// The revision that the delta starts from.
        base: u64,
    },
    /// A commit that is older than the one that the node holds, from the same run of the publisher.
    #[error("revision {found} would roll back revision {held}")]
    Rollback {
        /// The revision of the frame.
        found: u64,
        /// The revision that the node holds.
        held: u64,
    },
    /// A state made of less than what the node was told.
    #[error("the controller knows {offered} of its source, and this node was told {held}")]
    KnowsLess {
        /// What it is made of.
        offered: Versions,
        /// What the node was told.
        held: Versions,
    },
    /// A batch that starts from what the node did not say, or no longer holds.
    #[error("differences from something that this node does not hold")]
    WrongHello,
    /// The state after the batch is not the publisher's. The next hello asks for everything.
    #[error("the state at revision {revision} is not what the controller meant: asking for everything")]
    WrongDigest {
        /// The revision that would have come.
        revision: u64,
    },
    /// A batch before the one before was applied and acknowledged.
    #[error("revision {0} came before the revision before it was acknowledged")]
    Unacknowledged(u64),
    /// A batch with more bytes than a node can hold.
    #[error("the batch is larger than {} bytes", staged::MAX_BATCH_BYTES)]
    TooLarge,
}

/// One node's side of the stream.
#[derive(Debug)]
pub struct Subscriber {
    node: Arc<str>,
    position: Option<Position>,
    versions: Versions,
    snapshot: Snapshot,
    /// What was sent, whether it could be decoded or not.
    tree: Tree,
    rejected: Rejected,
    /// What the last hello said, until a batch comes.
    said: Option<Vec<Branch>>,
    /// What is held is not what was sent.
    is_wrong: bool,
    staged: Option<Staged>,
    applied: Option<Position>,
    /// What the node itself could not take of what it applied, and the keys among it.
    refused: Vec<Rejection>,
    /// What is new since `applied`.
    changed: BTreeSet<ResourceKey>,
    removed: BTreeSet<ResourceKey>,
    owes_ack: bool,
    resumes: bool,
}

impl Subscriber {
    /// A node that holds nothing.
    pub fn new(node: Arc<str>) -> Subscriber {
        Subscriber {
            node,
            position: None,
            versions: Versions::default(),
            snapshot: Snapshot::default(),
            tree: Tree::default(),
            rejected: OrdMap::new(),
            said: None,
            is_wrong: false,
            staged: None,
            applied: None,
            refused: Vec::new(),
            changed: BTreeSet::new(),
            removed: BTreeSet::new(),
            owes_ack: false,
            resumes: true,
        }
    }

    /// A node that starts from the state on its disk. `same_schema` says whether this build's schema is
    /// the one that wrote it; if not, the node takes no delta.
    pub fn restored(node: Arc<str>, commit: &Commit, same_schema: bool) -> Subscriber {
        let mut tree = Tree::default();
        for (key, resource) in &commit.snapshot.resources {
            tree.insert(key, digest::of_bytes(&wire::encode(resource)));
        }
        Subscriber {
            position: Some(commit.position),
            versions: commit.versions.clone(),
            tree,
            snapshot: commit.snapshot.clone(),
            rejected: commit.rejected.clone(),
            changed: commit.snapshot.resources.keys().chain(commit.rejected.keys()).cloned().collect(),
            resumes: same_schema,
            ..Subscriber::new(node)
        }
    }

    /// Begins a new stream: what was left of the old one is dropped.
    ///
    /// The node does not say that it holds what it has rejected, so that it is sent and read once more.
    pub fn hello(&mut self) -> Hello {
        self.staged = None;
        self.owes_ack = false;
        self.said = None;
        let position = self.position.filter(|_| !self.is_wrong);
        let held = position.map(|_| {
            let good = self.good();
            Held { digest: good.digest(), branches: good.branches(MAX_BRANCHES) }
        });
        self.said = held.as_ref().map(|held| held.branches.clone());
        let resume = position.filter(|_| self.resumes && self.rejected.is_empty());
        Hello { node: self.node.clone(), schema: SCHEMA, resume, versions: self.versions.clone(), held }
    }

    /// What was sent and could be decoded.
    fn good(&self) -> Tree {
        let mut good = self.tree.clone();
        self.rejected.keys().for_each(|key| good.remove(key));
        good
    }

    /// Takes a frame.
    ///
    /// # Errors
    /// A frame that does not follow from what was received. The state stays as it was; the stream must
    /// be closed and begun again.
    pub fn frame(&mut self, batch: Batch) -> Result<Progress, SubscribeError> {
        let mut staged = match self.staged.take() {
            Some(staged) => staged,
            None => self.begin(&batch)?,
        };
        let last = batch.last;
        staged.take(batch, &self.snapshot.resources)?;
        if !last {
            self.staged = Some(staged);
            return Ok(Progress::Incomplete);
        }
        self.finish(staged)
    }

    /// The node has applied a commit, except for what it names. Yields the `Ack` to send, if the commit
    /// is still the last one and its stream is still open.
    pub fn applied(&mut self, position: Position, refused: Vec<Rejection>) -> Option<Ack> {
        if self.position != Some(position) {
            return None;
        }
        self.applied = self.position;
        self.refused = refused;
        self.changed.clear();
        self.removed.clear();
        mem::take(&mut self.owes_ack).then(|| self.ack(position.revision))
    }

    /// The state as it is now, if the node holds any.
    pub fn commit(&self) -> Option<Commit> {
        Some(Commit {
            position: self.position?,
            versions: self.versions.clone(),
            snapshot: self.snapshot.clone(),
            changed: self.changed.iter().cloned().collect(),
            removed: self.removed.iter().cloned().collect(),
            rejected: self.rejected.clone(),
        })
    }

    fn begin(&mut self, batch: &Batch) -> Result<Staged, SubscribeError> {
        let revision = batch.position.revision;
        if self.owes_ack {
            return Err(SubscribeError::Unacknowledged(revision));
        }
        let same_epoch = self.position.filter(|held| held.epoch == batch.position.epoch);
        if let Some(held) = same_epoch.filter(|held| revision < held.revision) {
            return Err(SubscribeError::Rollback { found: revision, held: held.revision });
        }
        if batch.versions.know_less_than(&self.versions) && batch.digest != self.tree.digest() {
            let (offered, held) = (batch.versions.clone(), self.versions.clone());
            return Err(SubscribeError::KnowsLess { offered, held });
        }
        let said = self.said.take();
        match &batch.base {
            Base::Nothing => Ok(Staged::snapshot(batch)),
            Base::Revision(base) if same_epoch.is_some_and(|held| held.revision == *base) => {
                Ok(Staged::changes(batch, &self.snapshot, &self.rejected, self.tree.clone()))
            }
            Base::Revision(base) => Err(SubscribeError::WrongBase { base: *base }),
            Base::Hello { branches } => {
                let said = said.ok_or(SubscribeError::WrongHello)?;
                let replaced = self.keys_within(&said, branches);
                let staged = Staged::changes(batch, &self.snapshot, &self.rejected, self.good());
                Ok(staged.replacing(replaced))
            }
        }
    }

    /// The keys that are gone unless they come again: those of the branches, and those rejected, which
    /// the hello did not claim.
    fn keys_within(&self, all: &[Branch], indices: &[u32]) -> BTreeSet<ResourceKey> {
        let rejected = self.rejected.keys().cloned();
        if indices.is_empty() {
            return rejected.collect();
        }
        let within = Within::new(all, indices);
        let resources = self.snapshot.resources.keys().filter(|key| within.contains(key));
        resources.cloned().chain(rejected).collect()
    }

    fn finish(&mut self, staged: Staged) -> Result<Progress, SubscribeError> {
        let header = staged.header().clone();
        let position = header.position;
        let done = staged.finish(&self.snapshot.resources, &self.rejected);
        if done.tree.digest() != header.digest {
            self.is_wrong = true;
            return Err(SubscribeError::WrongDigest { revision: position.revision });
        }
        self.is_wrong = false;
        self.versions.raise(&header.versions);
        self.tree = done.tree;
        for key in done.changed {
            self.removed.remove(&key);
            self.changed.insert(key);
        }
        for key in done.removed {
            self.changed.remove(&key);
            self.removed.insert(key);
        }
        self.position = Some(position);
        self.snapshot =
            Snapshot { epoch: position.epoch, revision: position.revision, resources: done.resources };
        self.rejected = done.rejected;
        self.resumes = true;
        if self.applied == Some(position) && self.changed.is_empty() && self.removed.is_empty() {
            return Ok(Progress::Ack(self.ack(position.revision)));
        }
        self.owes_ack = true;
        Ok(self.commit().map_or(Progress::Incomplete, |commit| Progress::Commit(Arc::new(commit))))
    }

    fn ack(&self, revision: u64) -> Ack {
        let undecodable = self
            .rejected
            .iter()
            .map(|(key, message)| Rejection { key: key.clone(), message: message.clone() });
        let mut all: Vec<Rejection> = undecodable.chain(self.refused.iter().cloned()).collect();
        let omitted = u32::try_from(all.len().saturating_sub(MAX_REJECTIONS)).unwrap_or(u32::MAX);
        all.truncate(MAX_REJECTIONS);
        for rejection in &mut all {
            shorten(&mut rejection.message);
        }
        Ack { revision, rejected: all, omitted }
    }
}

fn shorten(message: &mut Arc<str>) {
    if message.len() > MAX_REJECTION_BYTES {
        let end = message.floor_char_boundary(MAX_REJECTION_BYTES);
        *message = Arc::from(&message[..end]);
    }
}

#[cfg(test)]
mod tests;
