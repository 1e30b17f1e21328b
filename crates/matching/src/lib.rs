// SPDX-License-Identifier: Apache-2.0
//! Regular expressions and hostnames as users write them.
//!
//! The controller checks with this crate and the nodes match with it, so that what the one accepts is
//! what the others can use: [`expression`] for paths, headers and query parameters of routes and for
//! HTTP rules of policies, [`hostname`] for listeners and routes.

pub mod expression;
pub mod hostname;
mod superset;

pub use expression::{Expression, ExpressionError, Matcher, MatcherSet, check};
pub use hostname::HostMap;
pub use superset::{ANYTHING, closing, superset};
