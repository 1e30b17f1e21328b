// SPDX-License-Identifier: Apache-2.0
//! Objects that are valid.

use std::{ops::Deref, sync::Arc};

use weft_api::{decode::Decoded, object::Object};
use weft_ir::{RateLimit, Resource};

/// A valid object.
#[derive(Debug)]
pub struct Good {
    decoded: Decoded<Object>,
    pub(crate) meaning: Meaning,
}

/// What an object means by itself, where that had to be found out to see that it is valid.
#[derive(Debug)]
pub(crate) enum Meaning {
    /// Nothing else than what it says.
    Plain,
    /// A policy's rules.
    Policies(Vec<Arc<Resource>>),
    /// A rate limit, whether its target exists or not.
    RateLimit(RateLimit),
}

impl Good {
    pub(crate) fn new(decoded: Decoded<Object>, meaning: Meaning) -> Good {
        Good { decoded, meaning }
    }
}

/// Objects that say the same mean the same.
impl PartialEq for Good {
    fn eq(&self, other: &Good) -> bool {
        std::ptr::eq(self, other) || self.decoded == other.decoded
    }
}

impl Deref for Good {
    type Target = Decoded<Object>;

    fn deref(&self) -> &Decoded<Object> {
        &self.decoded
    }
}
