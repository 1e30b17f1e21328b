// SPDX-License-Identifier: Apache-2.0
//! The content of a request between its client and its endpoint: what no endpoint has taken yet, and what is
//! kept so that another try can send it again.

use weft_http::{h1::Length, head::Head};

use crate::upstream::output::{Buffers, LARGE};

/// Bytes of one request's content that are kept for a retry, or while an endpoint is being connected to.
const LIMIT: usize = 64 * 1024;

/// The content of one request.
#[derive(Debug)]
pub(super) struct Content {
    /// What the head said of it.
    pub(super) length: Length,
    /// Whether what was handed on is kept for another try.
    pub(super) keep: bool,
    kept: Vec<u8>,
    /// Something was handed on that is not kept.
    given_up: bool,
    complete: bool,
    trailers: Option<Box<Head>>,
}

impl Content {
    pub(super) fn new(length: Length) -> Content {
        let complete = length == Length::Bytes(0);
        Content { length, keep: false, kept: Vec::new(), given_up: false, complete, trailers: None }
    }

    /// Notes a piece. `waiting`: there is no connection yet that takes it.
    pub(super) fn add(&mut self, data: &[u8], waiting: bool) {
        let room = self.kept.len() + data.len() <= LIMIT;
        if waiting || (self.keep && room && !self.given_up) {
            // Room for all that is announced, so that it is copied once; who sends little is promised nothing.
            if let (0, Length::Bytes(all)) = (self.kept.capacity(), self.length)
                && data.len() >= LARGE
            {
                self.kept.reserve_exact(usize::try_from(all).unwrap_or(LIMIT).min(LIMIT));
            }
            self.kept.extend_from_slice(data);
        } else {
            self.given_up = true;
            self.kept = Vec::new();
        }
    }

    /// Notes the end.
    pub(super) fn end(&mut self, trailers: Option<Box<Head>>) {
        self.complete = true;
        self.trailers = trailers;
    }

    /// A connection has taken all that is kept.
    pub(super) fn handed_on(&mut self) {
        if !self.keep && !self.kept.is_empty() {
            self.given_up = true;
            self.kept = Vec::new();
        }
    }

    /// What is kept, from the first byte.
    pub(super) fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Whether nothing more is taken before a connection takes what is kept.
    pub(super) fn is_full(&self) -> bool {
        self.kept.len() >= LIMIT
    }

    /// Whether there is none, nor trailers.
    pub(super) fn is_empty(&self) -> bool {
        self.complete && self.kept.is_empty() && self.trailers.is_none() && !self.given_up
    }

    /// Whether all of it was read.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The trailers that ended it.
    pub(super) fn trailers(&self) -> Option<&Head> {
        self.trailers.as_deref()
    }

    /// Whether it can be sent again from its first byte.
    pub(super) fn is_kept(&self) -> bool {
        !self.given_up
    }

    /// It is not sent again.
    pub(super) fn give_up(&mut self, buffers: &mut Buffers) {
        self.given_up = true;
        self.keep = false;
        buffers.take_back(std::mem::take(&mut self.kept));
    }
}
