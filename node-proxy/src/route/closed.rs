// SPDX-License-Identifier: Apache-2.0
//! What stands in for a rule of which this node cannot use a match.

use weft_ir::{
    PathMatch, Route, RouteAction, RouteFilter, RouteMatch, RouteTimeouts, StringMatch, ValueMatch,
};
use weft_matching::{ANYTHING, closing};

use super::conditions::Conditions;

/// The rule that answers with an error whatever this one would have matched, as far as that can be told:
/// left out, its requests would fall to a broader rule.
pub(super) fn closed(route: &Route) -> Route {
    let action = RouteAction {
        filters: vec![RouteFilter::Invalid],
        backends: Vec::new(),
        timeouts: RouteTimeouts::default(),
        retry: None,
    };
    Route { matches: route.matches.iter().filter_map(closed_match).collect(), action, ..route.clone() }
}

/// Nothing where it would be every request.
fn closed_match(wanted: &RouteMatch) -> Option<RouteMatch> {
    let path = match &wanted.path {
        PathMatch::Regex(text) => closing(text).map(|text| PathMatch::Regex(text.into())),
        known => Some(known.clone()),
    };
    let told = path.is_some();
    let closed = RouteMatch {
        path: path.unwrap_or_else(|| PathMatch::Regex(ANYTHING.into())),
        method: wanted.method.clone(),
        headers: wanted.headers.iter().map(closed_value).collect(),
        query: wanted.query.iter().map(closed_value).collect(),
    };
    let named = told || closed.method.is_some() || !closed.headers.is_empty() || !closed.query.is_empty();
    (named && Conditions::compile(&closed).is_ok()).then_some(closed)
}

fn closed_value(wanted: &ValueMatch) -> ValueMatch {
    let value = match &wanted.value {
        StringMatch::Regex(text) => StringMatch::Regex(closing(text).unwrap_or(ANYTHING.into()).into()),
        exact => exact.clone(),
    };
    ValueMatch { name: wanted.name.clone(), value }
}
