// SPDX-License-Identifier: Apache-2.0
//! Network policy: which identities may talk to which, on which ports, and with which HTTP requests.
//!
//! One engine serves both enforcers. The kernel gets [`DirectionPolicy::kernel_entries`], the proxy
//! asks [`DirectionPolicy::l4`] and the [`L7Policy`] that it names; both come from the same tables, and
//! `tests/equivalence` holds them to a plain evaluator that reads the IR rule by rule.
//!
//! The crate does no I/O, reads no clock and knows no Kubernetes type. What it cannot understand it
//! denies: an identity without labels, a policy that was rejected, an expression that does not compile.
//!
//! Who is behind an address is [`Directory`]'s to say, for every user.
//!
//! Read `set` first (what is compiled from a state), then `directory`, `rules` and `groups` (what a change
//! touches), `endpoint` (one workload's tables), `table` (how rules become disjoint port ranges), `l7` and
//! `http`.

pub mod capture;
mod counted;
mod directory;
mod effect;
mod endpoint;
mod groups;
mod http;
mod l7;
mod numbers;
mod rejected;
mod rules;
mod selector;
mod set;
mod table;
mod warning;

pub use directory::{Directory, Guess, Party, Place, PodNetworks, WorkloadRef};
pub use endpoint::{DirectionPolicy, EndpointPolicy};
pub use http::{HttpDecision, HttpRequest, HttpRules};
pub use l7::L7Policy;
pub use numbers::{RuleName, RulePlace, RuleRef};
pub use selector::Labels;
pub use set::PolicySet;
pub use table::{Decision, KernelEntry, Peer, Ports};
pub use warning::Warning;
