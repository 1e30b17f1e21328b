// SPDX-License-Identifier: Apache-2.0
//! Method, header and query conditions of one match, and the expressions in them.

use std::{borrow::Cow, cmp::Reverse};

use thiserror::Error;
use weft_http::head::{Head, InvalidName, Name};
use weft_ir::{RouteMatch, StringMatch, ValueMatch};
use weft_matching::{Expression, ExpressionError, Matcher};

/// A match that cannot be used. The controller refuses these; a node that meets one all the same closes
/// what it named and reports the resource as rejected.
#[derive(Debug, Error)]
pub(crate) enum BadMatch {
    /// Not an expression of the RE2 syntax, or too large.
    #[error(transparent)]
    Expression(#[from] ExpressionError),
    /// Not the name of a header.
    #[error("{name:?} is not the name of a header")]
    HeaderName {
        /// The name, as written.
        name: Box<str>,
        /// Why.
        #[source]
        source: InvalidName,
    },
}

/// What has to hold besides the path.
#[derive(Debug)]
pub(super) struct Conditions {
    method: Option<Box<[u8]>>,
    headers: Vec<(Name, Wanted)>,
    query: Vec<(Box<[u8]>, Wanted)>,
}

#[derive(Debug)]
enum Wanted {
    Exact(Box<[u8]>),
    Expression(Box<Matcher>),
}

/// Sorts the better match first.
pub(super) type Rank = (Reverse<bool>, Reverse<usize>, Reverse<usize>);

impl Conditions {
    pub(super) fn compile(wanted: &RouteMatch) -> Result<Conditions, BadMatch> {
        let header = |name: &str| {
            Name::new(name.as_bytes()).map_err(|source| BadMatch::HeaderName { name: name.into(), source })
        };
        Ok(Conditions {
            method: wanted.method.as_ref().map(|method| method.as_bytes().into()),
            headers: distinct(&wanted.headers, header)?,
            query: distinct(&wanted.query, |name| Ok(name.as_bytes().into()))?,
        })
    }

    pub(super) fn rank(&self) -> Rank {
        (Reverse(self.method.is_some()), Reverse(self.headers.len()), Reverse(self.query.len()))
    }

    pub(super) fn hold(&self, request: &Head) -> bool {
        self.method.as_deref().is_none_or(|wanted| wanted == request.method_text())
            && (self.headers.is_empty() || self.headers_hold(request))
            && (self.query.is_empty() || self.query_holds(request))
    }

    fn headers_hold(&self, request: &Head) -> bool {
        // Several fields of one name are one list, which is put together here.
        let mut list = Vec::new();
        self.headers.iter().all(|(name, wanted)| {
            request.combined(name, &mut list).is_some_and(|value| wanted.accepts(value))
        })
    }

    fn query_holds(&self, request: &Head) -> bool {
        let query = request.query().unwrap_or_default();
        self.query
            .iter()
            .all(|(name, wanted)| first_value(query, name).is_some_and(|value| wanted.accepts(&value)))
    }
}

impl Wanted {
    fn accepts(&self, value: &[u8]) -> bool {
        match self {
            Wanted::Exact(wanted) => wanted.as_ref() == value,
            Wanted::Expression(expression) => expression.is_match(value),
        }
    }
}

/// Of several conditions on one name only the first counts (HTTPHeaderMatch, HTTPQueryParamMatch).
fn distinct<N: PartialEq>(
    values: &[ValueMatch],
    compile: impl Fn(&str) -> Result<N, BadMatch>,
) -> Result<Vec<(N, Wanted)>, BadMatch> {
    let mut distinct: Vec<(N, Wanted)> = Vec::with_capacity(values.len());
    for value in values {
        let name = compile(&value.name)?;
        if distinct.iter().any(|(known, _)| *known == name) {
            continue;
        }
        let wanted = match &value.value {
            StringMatch::Exact(text) => Wanted::Exact(text.as_bytes().into()),
            StringMatch::Regex(expression) => {
                Wanted::Expression(Box::new(Expression::parse(expression)?.compile()?))
            }
        };
        distinct.push((name, wanted));
    }
    Ok(distinct)
}

/// The first value of a query parameter, decoded.
fn first_value<'a>(query: &'a [u8], name: &[u8]) -> Option<Cow<'a, [u8]>> {
    query.split(|byte| *byte == b'&').find_map(|pair| {
        let (key, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(equals) => (pair.get(..equals)?, pair.get(equals + 1..)?),
            None => (pair, &[][..]),
        };
        (decoded(key).as_ref() == name).then(|| decoded(value))
    })
}

/// Undoes percent-encoding and `+`; what is not valid encoding stays as it is.
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'+', _) => plain.push(b' '),
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    plain.push(high << 4 | low);
                    rest = after;
                }
                _ => plain.push(b'%'),
            },
            (byte, _) => plain.push(*byte),
        }
    }
    Cow::Owned(plain)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}
