// SPDX-License-Identifier: Apache-2.0
//! What compiles, but not to what its author may have meant.

use std::{fmt, sync::Arc};

use weft_matching::ExpressionError;

use weft_ir::Direction;

/// Something a user should be told about a policy. Names are `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Warning {
    /// The L7 rules of one policy have no effect, because another allows the same peers and port
    /// without any (Cilium decides the same way, silently).
    L7RulesIgnored {
        /// The policy with the L7 rules.
        l7: Arc<str>,
        /// The policy that allows without.
        allowed_by: Arc<str>,
        /// The direction of both.
        direction: Direction,
    },
    /// L7 rules on a port of another transport allow nothing.
    L7RulesNeedTransport {
        /// The policy.
        policy: Arc<str>,
        /// The transport that carries what the rules are about.
        transport: weft_ir::Protocol,
    },
    /// An HTTP rule with an expression that does not compile allows nothing.
    Pattern {
        /// The policy.
        policy: Arc<str>,
        /// The expression and what is wrong with it.
        error: ExpressionError,
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
            Warning::L7RulesIgnored { l7, allowed_by, direction } => write!(
                f,
                "the {direction} L7 rules of {l7} have no effect: {allowed_by} allows the same peers and \
                 port without any"
            ),
            Warning::L7RulesNeedTransport { policy, transport } => {
                write!(f, "{policy} has L7 rules on a port that is not {transport:?}: they allow nothing")
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
