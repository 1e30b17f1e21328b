// SPDX-License-Identifier: Apache-2.0
//! The matches of a rule, and what of them is understood.

use std::sync::Arc;

use weft_api::httproute::{HttpPathMatch, HttpRouteMatch, HttpValueMatch, PathMatchType, ValueMatchType};
use weft_ir::{PathMatch, RouteMatch, StringMatch, ValueMatch};
use weft_matching::{ANYTHING, check, closing};

use crate::{validate, wrong::Wrong};

/// A match as far as it is understood.
#[derive(Debug)]
pub(crate) enum Translated {
    /// All of it.
    Understood(RouteMatch),
    /// A part is not, and this is everything that the match could name; the text says what is wrong.
    Closed(RouteMatch, String),
    /// A part is not, and no request can be what it names.
    Impossible(String),
    /// A part is not, and without it the match could name any request.
    Untold(String),
}

/// The match of a rule that has none.
pub(crate) fn match_everything() -> RouteMatch {
    RouteMatch { path: PathMatch::Prefix("/".into()), method: None, headers: Vec::new(), query: Vec::new() }
}

/// Translates one match. Of what is not understood, the conditions that are stay: together they are what
/// has to be closed, since a rule that was only left out would give its requests to a broader one.
pub(crate) fn translate(at: &str, wanted: &HttpRouteMatch, wrong: &Wrong<'_>) -> Translated {
    let mut reader = Reader { wrong, problem: wrong.within(at), impossible: false };
    let path = reader.path(&format!("{at}.path"), wanted.path.as_ref());
    let told = path.as_ref().is_some_and(|path| !is_everything(path));
    let matched = RouteMatch {
        // An expression, as it was or may have been, since a prefix would lose against the other ones.
        path: path.unwrap_or_else(|| PathMatch::Regex(ANYTHING.into())),
        method: wanted.method.map(|method| method.as_str().into()),
        headers: reader.values(&format!("{at}.headers"), &wanted.headers, true),
        query: reader.values(&format!("{at}.queryParams"), &wanted.query_params, false),
    };
    let named = told || matched.method.is_some() || !matched.headers.is_empty() || !matched.query.is_empty();
    match reader.problem {
        None => Translated::Understood(matched),
        Some(problem) if reader.impossible => Translated::Impossible(problem),
        Some(problem) if named => Translated::Closed(matched, problem),
        Some(problem) => Translated::Untold(problem),
    }
}

/// Whether a path match is one of every path.
fn is_everything(path: &PathMatch) -> bool {
    matches!(path, PathMatch::Prefix(prefix) if prefix.trim_matches('/').is_empty())
}

/// Reads the conditions of one match.
struct Reader<'a> {
    wrong: &'a Wrong<'a>,
    /// The first.
    problem: Option<String>,
    /// No request can be what is asked for.
    impossible: bool,
}

impl Reader<'_> {
    fn refuse(&mut self, message: String) {
        self.problem.get_or_insert(message);
    }

    /// The path match, or nothing where it cannot be told.
    fn path(&mut self, at: &str, given: Option<&HttpPathMatch>) -> Option<PathMatch> {
        if self.wrong.within(at).is_some() {
            return None;
        }
        let given = given.cloned().unwrap_or_default();
        if let Err(message) = validate::path_match(&given) {
            self.refuse(format!("{at}.value: {message}"));
        }
        match given.kind {
            PathMatchType::Exact => Some(PathMatch::Exact(given.value)),
            PathMatchType::PathPrefix => Some(PathMatch::Prefix(given.value)),
            PathMatchType::RegularExpression => {
                if let Err(error) = check(&given.value) {
                    self.refuse(format!("{at}.value: {error}"));
                }
                closing(&given.value).map(|text| PathMatch::Regex(text.into()))
            }
        }
    }

    /// Conditions on headers or query parameters. Of several with one name only the first counts
    /// (`HTTPHeaderMatch.name`, `HTTPQueryParamMatch.name`).
    fn values(&mut self, at: &str, wanted: &[HttpValueMatch], headers: bool) -> Vec<ValueMatch> {
        let mut found: Vec<ValueMatch> = Vec::with_capacity(wanted.len());
        for (index, one) in wanted.iter().enumerate() {
            let path = format!("{at}[{index}]");
            // Not understood, and so no condition: what is closed may be more, never less.
            if self.wrong.within(&path).is_some() {
                continue;
            }
            let name: Arc<str> =
                if headers { one.name.to_ascii_lowercase().into() } else { one.name.clone() };
            if found.iter().any(|earlier| earlier.name == name) {
                continue;
            }
            if let Err(message) = validate::name(&one.name) {
                self.refuse(format!("{path}.name: {message}"));
                // No request has a header of such a name.
                self.impossible |= headers;
            }
            let value = match one.kind {
                ValueMatchType::Exact => StringMatch::Exact(one.value.clone()),
                ValueMatchType::RegularExpression => {
                    if let Err(error) = check(&one.value) {
                        self.refuse(format!("{path}.value: {error}"));
                    }
                    StringMatch::Regex(closing(&one.value).unwrap_or(ANYTHING.into()).into())
                }
            };
            found.push(ValueMatch { name, value });
        }
        found
    }
}
