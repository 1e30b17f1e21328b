// SPDX-License-Identifier: Apache-2.0
//! Two streams of one node. A node that came back before its old connection was known to be dead, or two
//! processes with one credential: only an answer on the older stream tells them apart.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use tokio::time::Instant;
use weft_ir::stream::Hello;

use super::{Contested, session::Session};

/// Streams that wait until the older stream of their node has answered, or not in time.
pub(super) struct Rivals {
    /// How long an answer may take.
    patience: Duration,
    waiting: BTreeMap<Arc<str>, Rival>,
    /// One for each node at most, and nodes are bounded.
    contested: BTreeMap<Arc<str>, Contested>,
}

struct Rival {
    hello: Hello,
    session: Session,
    asked: Instant,
}

impl Rivals {
    pub(super) fn new(patience: Duration) -> Rivals {
        Rivals { patience, waiting: BTreeMap::new(), contested: BTreeMap::new() }
    }

    /// A newer stream of a node that has one and was asked for an answer. Returns an even older one that waits,
    /// whose end this one is: it does not put off the decision.
    pub(super) fn ask(&mut self, hello: Hello, session: Session) -> Option<Session> {
        let node = hello.node.clone();
        let asked = self.waiting.get(&node).map_or_else(Instant::now, |rival| rival.asked);
        self.waiting.insert(node, Rival { hello, session, asked }).map(|rival| rival.session)
    }

    /// When the next decision is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.values().map(|rival| rival.asked + self.patience).min()
    }

    /// The nodes whose older stream has not answered in time.
    pub(super) fn unanswered(&self) -> Vec<Arc<str>> {
        let now = Instant::now();
        let late = self.waiting.iter().filter(|(_, rival)| now >= rival.asked + self.patience);
        late.map(|(node, _)| node.clone()).collect()
    }

    /// The stream that waited for the older one of this node, which is no more.
    pub(super) fn take(&mut self, node: &str) -> Option<(Hello, Session)> {
        self.waiting.remove(node).map(|rival| (rival.hello, rival.session))
    }

    /// The older stream has answered. Returns the one that waited, and how many were refused so far.
    pub(super) fn refuse(&mut self, node: &Arc<str>, open_from: IpAddr) -> Option<(Session, u64)> {
        let session = self.waiting.remove(node)?.session;
        let refused = self.contested.get(node).map_or(0, |before| before.refused) + 1;
        let contested = Contested { refused, last: Instant::now(), from: session.from, open_from };
        self.contested.insert(node.clone(), contested);
        Some((session, refused))
    }

    /// A stream that waited has ended by itself.
    pub(super) fn gone(&mut self, node: &str, session: u64) {
        if self.waiting.get(node).is_some_and(|rival| rival.session.number == session) {
            self.waiting.remove(node);
        }
    }

    /// The nodes that another process has spoken as.
    pub(super) fn contested(&self) -> &BTreeMap<Arc<str>, Contested> {
        &self.contested
    }

    pub(super) fn into_sessions(self) -> impl Iterator<Item = Session> {
        self.waiting.into_values().map(|rival| rival.session)
    }
}
