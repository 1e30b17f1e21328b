// SPDX-License-Identifier: Apache-2.0
//! An index over path matches: a hash for Exact, one automaton for all expressions, a tree of path
//! elements for PathPrefix. Its cost does not grow with the number of routes.

use std::collections::HashMap;

use weft_ir::PathMatch;
use weft_matching::{Expression, MatcherSet};

/// Numbers of entries by path, the best first.
#[derive(Debug, Default)]
pub(super) struct PathIndex {
    exact: HashMap<Box<[u8]>, Vec<u32>>,
    expressions: Option<Expressions>,
    /// Node 0 is the root, which is the prefix `/`; empty when there is no prefix match.
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Expressions {
    set: MatcherSet,
    /// The entry of each expression of the set, in order of precedence.
    entries: Vec<u32>,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<[u8]>, u32>,
    entries: Vec<u32>,
    /// The next node towards the root that has entries.
    shorter: Option<u32>,
}

impl PathIndex {
    /// The first entry in order of precedence whose path matches and that is accepted.
    pub(super) fn first(&self, path: &[u8], accepts: impl Fn(u32) -> bool) -> Option<u32> {
        let best = |entries: &[u32]| entries.iter().copied().find(|number| accepts(*number));
        if let Some(found) = self.exact.get(path).and_then(|entries| best(entries)) {
            return Some(found);
        }
        if let Some(found) = self.expressions.as_ref().and_then(|all| all.first(path, &accepts)) {
            return Some(found);
        }
        let mut next = self.deepest(path);
        while let Some(node) = next.and_then(|number| self.nodes.get(number as usize)) {
            if let Some(found) = best(&node.entries) {
                return Some(found);
            }
            next = node.shorter;
        }
        None
    }

    /// The node of the longest prefix in the tree.
    fn deepest(&self, path: &[u8]) -> Option<u32> {
        let mut number = 0;
        let mut node = self.nodes.first()?;
        let mut rest = path.strip_prefix(b"/").unwrap_or(path);
        loop {
            let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
            let (element, tail) = rest.split_at(end);
            let Some(child) = node.children.get(element) else { return Some(number) };
            number = *child;
            node = self.nodes.get(number as usize)?;
            match tail.split_first() {
                Some((_, after)) => rest = after,
                None => return Some(number),
            }
        }
    }
}

impl Expressions {
    fn first(&self, path: &[u8], accepts: impl Fn(u32) -> bool) -> Option<u32> {
        let matched = self.set.matches(path);
        matched.filter_map(|index| self.entries.get(index).copied()).find(|number| accepts(*number))
    }
}

/// Collects path matches; entries have to be added in order of precedence.
#[derive(Debug, Default)]
pub(super) struct Builder {
    exact: HashMap<Box<[u8]>, Vec<u32>>,
    expressions: Vec<(Expression, u32)>,
    nodes: Vec<Node>,
}

impl Builder {
    pub(super) fn add(&mut self, path: &PathMatch, number: u32) {
        match path {
            PathMatch::Exact(path) => self.exact.entry(path.as_bytes().into()).or_default().push(number),
            // One that cannot be used was closed before (`super::closed`).
            PathMatch::Regex(text) => {
                self.expressions.extend(Expression::parse(text).ok().map(|expression| (expression, number)));
            }
            PathMatch::Prefix(prefix) => self.add_prefix(prefix, number),
        }
    }

    fn add_prefix(&mut self, prefix: &str, number: u32) {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut at = 0;
        let elements = prefix.trim_matches('/');
        for element in elements.split('/').filter(|_| !elements.is_empty()) {
            let next = self.nodes.len() as u32;
            let child = *self.nodes[at].children.entry(element.as_bytes().into()).or_insert(next);
            if child == next {
                self.nodes.push(Node::default());
            }
            at = child as usize;
        }
        self.nodes[at].entries.push(number);
    }

    pub(super) fn finish(mut self) -> PathIndex {
        link_shorter(&mut self.nodes);
        let (expressions, entries): (Vec<Expression>, Vec<u32>) = self.expressions.into_iter().unzip();
        let any = !entries.is_empty();
        let expressions = any.then(|| Expressions { set: MatcherSet::build(&expressions), entries });
        PathIndex { exact: self.exact, expressions, nodes: self.nodes }
    }
}

/// Links every node to the next one above that has entries, so that a search never walks empty nodes.
fn link_shorter(nodes: &mut [Node]) {
    let mut pending = vec![(0_u32, None)];
    while let Some((number, above)) = pending.pop() {
        let Some(node) = nodes.get_mut(number as usize) else { continue };
        node.shorter = above;
        let nearest = if node.entries.is_empty() { above } else { Some(number) };
        pending.extend(node.children.values().map(|child| (*child, nearest)));
    }
}
