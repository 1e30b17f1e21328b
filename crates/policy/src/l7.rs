// SPDX-License-Identifier: Apache-2.0
//! Rules about what is said on a connection, whatever the protocol.
//!
//! A protocol is a variant of [`weft_ir::L7Rules`], of [`L7Policy`] and of what is compiled in between.
//! No match here has a wildcard, so that a new one does not compile until each place has an answer. What
//! meets on one port is of one protocol: where two would meet, nothing is allowed.

use std::{collections::BTreeSet, sync::Arc};

use weft_ir::{L7Rules, Protocol};

use crate::{
    Warning,
    http::{HttpCache, HttpRules, HttpSource, RequestRules},
    numbers::RuleRef,
};

/// The rules for what is said on one connection.
#[derive(Clone, Debug)]
pub enum L7Policy {
    /// About HTTP requests.
    Http(HttpRules),
}

/// The L7 rules that one policy rule has for a port.
#[derive(Clone, Debug)]
pub(crate) struct L7Source {
    pub(crate) rule: RuleRef,
    pub(crate) rules: Arc<L7Rules>,
}

/// L7 rules that meet on one port range, compiled.
#[derive(Clone, Debug)]
pub(crate) enum RangeRules {
    Http(Arc<RequestRules>),
}

/// The transport that carries the protocol of the rules.
pub(crate) fn transport(rules: &L7Rules) -> Protocol {
    match rules {
        L7Rules::Http(_) => Protocol::Tcp,
    }
}

/// The rules with one that everything matches: it is seen, but not held back.
pub(crate) fn with_wildcard(rules: &L7Rules) -> L7Rules {
    match rules {
        L7Rules::Http(rules) => {
            L7Rules::Http(rules.iter().cloned().chain([weft_ir::HttpRule::default()]).collect())
        }
    }
}

impl RangeRules {
    pub(crate) fn compile(
        cache: &HttpCache,
        sources: &[L7Source],
        warnings: &mut BTreeSet<Warning>,
    ) -> RangeRules {
        let mut http = Vec::new();
        for source in sources {
            match &*source.rules {
                L7Rules::Http(rules) => {
                    http.push(HttpSource { rule: source.rule.clone(), rules: rules.as_slice().into() });
                }
            }
        }
        RangeRules::Http(cache.compile(http, warnings))
    }
}

impl L7Policy {
    pub(crate) fn of(rules: &RangeRules) -> L7Policy {
        match rules {
            RangeRules::Http(rules) => {
                let mut all = HttpRules::default();
                all.add(rules.clone());
                L7Policy::Http(all)
            }
        }
    }

    /// Adds rules of which any allows too.
    pub(crate) fn add(&mut self, more: &RangeRules) {
        match (self, more) {
            (L7Policy::Http(all), RangeRules::Http(rules)) => all.add(rules.clone()),
        }
    }
}
