// SPDX-License-Identifier: Apache-2.0
//! What compiles, but not to what its author may have meant.

use std::{fmt, sync::Arc};

use crate::{Direction, PatternError};

/// Something a user should be told about a policy. Names are `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Warning {
    /// The HTTP rules of one policy have no effect, because another allows the same peers and port
    /// without any (Cilium decides the same way, silently).
    HttpRulesIgnored {
        /// The policy with the HTTP rules.
        http: Arc<str>,
        /// The policy that allows without.
        allowed_by: Arc<str>,
        /// The direction of both.
        direction: Direction,
    },
    /// HTTP rules on a port that is not TCP allow nothing.
    HttpRulesNeedTcp {
        /// The policy.
        policy: Arc<str>,
    },
    /// An HTTP rule with an expression that does not compile allows nothing.
    Pattern {
        /// The policy.
        policy: Arc<str>,
        /// The expression and what is wrong with it.
        error: PatternError,
    },
    /// The HTTP rules that meet on one port are too large together: every request is denied.
    HttpRulesTooLarge {
        /// The first policy of those that meet.
        policy: Arc<str>,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::HttpRulesIgnored { http, allowed_by, direction } => write!(
                f,
                "the {direction} http rules of {http} have no effect: {allowed_by} allows the same peers and \
                 port without http rules"
            ),
            Warning::HttpRulesNeedTcp { policy } => {
                write!(f, "{policy} has http rules on a port that is not tcp: they allow nothing")
            }
            Warning::Pattern { policy, error } => {
                write!(f, "an http rule of {policy} allows nothing: {error}")
            }
            Warning::HttpRulesTooLarge { policy } => {
                write!(f, "the http rules of {policy} and others on its port are too large: all is denied")
            }
        }
    }
}
