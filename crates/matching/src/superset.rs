// SPDX-License-Identifier: Apache-2.0
//! What an expression that cannot be used would have matched, as far as that can be told.

use std::borrow::Cow;

use regex_syntax::hir::{Capture, Hir, HirKind, Repetition};

use crate::{Expression, check};

/// An expression for everything that a refused one could have matched, or nothing where that would be
/// any value. Whoever refuses an expression closes this, and nothing else.
///
/// One that is too large loses the counts of its repetitions: `/a{6000}` becomes `/a+`. Of one that is
/// not valid, the text in front of its first special character stays: `/foo(` becomes `/foo.*`.
pub fn superset(text: &str) -> Option<String> {
    let relaxed =
        Expression::parse_unbounded(text).ok().map(|expression| relax(expression.hir()).to_string());
    let bounds = |text: &String| check(text).is_ok() && !matches_anything(text);
    relaxed.filter(bounds).or_else(|| {
        let prefix = literal_prefix(text)?;
        Some(format!("(?s-u:{}.*)", regex_syntax::escape(&prefix)))
    })
}

/// The expression itself where it can be used, and otherwise its [`superset`].
pub fn closing(text: &str) -> Option<Cow<'_, str>> {
    match check(text) {
        Ok(()) => Some(Cow::Borrowed(text)),
        Err(_) => superset(text).map(Cow::Owned),
    }
}

/// Any value at all, in the place of an expression of which nothing can be told.
pub const ANYTHING: &str = "(?s-u:.*)";

/// Whether an expression tells no value from another, by trying one that nobody names.
fn matches_anything(text: &str) -> bool {
    let unlikely = b"/\x7f\x01/\x7f";
    Expression::parse(text).and_then(|one| one.compile()).is_ok_and(|matcher| matcher.is_match(unlikely))
}

/// The expression with every counted repetition open.
fn relax(hir: &Hir) -> Hir {
    let all = |parts: &[Hir]| parts.iter().map(relax).collect();
    match hir.kind() {
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => hir.clone(),
        HirKind::Repetition(one) => {
            let counted = one.max != Some(1) || one.min > 1;
            let (min, max) = if counted { (one.min.min(1), None) } else { (one.min, one.max) };
            // Printed without a group, the repetition of a repetition would be another operator.
            let group = Capture { index: 1, name: None, sub: Box::new(relax(&one.sub)) };
            Hir::repetition(Repetition { min, max, greedy: one.greedy, sub: Box::new(Hir::capture(group)) })
        }
        HirKind::Capture(Capture { sub, .. }) => relax(sub),
        HirKind::Concat(parts) => Hir::concat(all(parts)),
        HirKind::Alternation(parts) => Hir::alternation(all(parts)),
    }
}

/// The text that everything begins with that the expression matches, in any dialect; nothing where it is
/// no more than `/`.
fn literal_prefix(text: &str) -> Option<String> {
    // An alternative may begin with anything.
    if text.contains('|') {
        return None;
    }
    let mut prefix = String::new();
    let mut rest = text.strip_prefix('^').unwrap_or(text).chars();
    while let Some(next) = rest.next() {
        let literal = match next {
            '\\' => match rest.next() {
                Some(escaped) if escaped.is_ascii_punctuation() => escaped,
                _ => break,
            },
            '.' | '+' | '*' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' => break,
            plain => plain,
        };
        // What may be left out is no part of it.
        if rest.as_str().starts_with(['*', '?', '{']) {
            break;
        }
        prefix.push(literal);
    }
    (!matches!(&*prefix, "" | "/")).then_some(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_expression_could_have_matched_is_told_where_it_can_be() {
        for (text, wanted) in [
            ("/a{6000}", Some("/(a)+")),
            ("/foo(", Some("(?s-u:/foo.*)")),
            (r"^/v1\.0/[z-a]", Some(r"(?s-u:/v1\.0/.*)")),
            ("/admin/(?!public).*", Some("(?s-u:/admin/.*)")),
            ("/abc*(", Some("(?s-u:/ab.*)")),
            ("/a|/foo(", None),
            ("(?i)/foo(", None),
            ("/(", None),
            ("/a?(", None),
            ("[z-a]", None),
            (r"/.{20000}", None),
        ] {
            let found = superset(text);
            match (&found, wanted) {
                (Some(found), Some(wanted)) => {
                    assert_eq!(check(found), Ok(()));
                    let same = Expression::parse_unbounded(found).unwrap().hir()
                        == Expression::parse_unbounded(wanted).unwrap().hir();
                    assert!(same, "{text}: {found}");
                }
                _ => assert_eq!(found.is_some(), wanted.is_some(), "{text}: {found:?}"),
            }
        }
    }
}
