// SPDX-License-Identifier: Apache-2.0
//! Random expressions: what is accepted can be used, and what is closed covers what was refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use weft_matching::{Expression, MatcherSet, check, superset};

/// Expressions made of what users write, valid in most cases, and text that is nothing.
fn expressions() -> impl Strategy<Value = String> {
    let atoms = prop::sample::select(vec![
        "/",
        "a",
        "b",
        ".",
        "é",
        r"\d",
        r"\w",
        r"\b",
        "[ab]",
        "[^/]",
        r"\p{L}",
        "(?i)",
        "^",
        "$",
        "(?m)",
        r"\.",
        r"\pN",
        "(?u)",
        "[[:alpha:]]",
        "(?-u)",
        r"\xFF",
        "x",
    ]);
    let valid = atoms.prop_map(str::to_owned).prop_recursive(5, 48, 4, |inner| {
        let times = prop::sample::select(vec![
            "*", "+", "?", "{3}", "{0,9}", "{40,}", "{900}", "{6000}", "*?", "{0}",
        ]);
        prop_oneof![
            (inner.clone(), times).prop_map(|(one, times)| format!("(?:{one}){times}")),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| format!("({})", parts.join("|"))),
        ]
    });
    prop_oneof![4 => valid, 1 => "[/ab(|)*+?{}\\[\\]\\\\.^$0-9,-]{0,12}", 1 => "\\PC{0,40}"]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The nodes build exactly what the controller accepts, alone and together.
    #[test]
    fn what_is_accepted_can_be_built(texts in prop::collection::vec(expressions(), 1..6)) {
        let accepted: Vec<Expression> =
            texts.iter().filter(|text| check(text).is_ok()).map(|text| Expression::parse(text).unwrap()).collect();
        let alone: Vec<_> = accepted.iter().map(|one| one.compile().unwrap()).collect();
        let set = MatcherSet::build(&accepted);
        for value in ["", "/", "/a", "ab", "/\u{e9}", "aaaaaaaaa", "/a/b", "\n"] {
            let wanted: Vec<usize> =
                (0..alone.len()).filter(|index| alone[*index].is_match(value.as_bytes())).collect();
            prop_assert_eq!(set.matches(value.as_bytes()).collect::<Vec<_>>(), wanted);
        }
    }

    /// What closes a refused expression covers all that it would have matched: cut anywhere or made too
    /// large, and so refused.
    #[test]
    fn what_is_closed_covers_what_was_refused(
        text in expressions(),
        values in prop::collection::vec("[/ab.é1x]{0,6}", 20),
    ) {
        prop_assume!(!text.contains("6000") && !text.contains("900"));
        let Ok(good) = Expression::parse(&text) else { return Ok(()) };
        let matcher = good.compile().unwrap();
        for broken in [format!("{text}("), format!("{text}(?:q{{7000}})?")] {
            prop_assert!(check(&broken).is_err());
            let Some(closed) = superset(&broken) else { continue };
            let closed = Expression::parse(&closed).unwrap().compile().unwrap();
            for value in values.iter().filter(|value| matcher.is_match(value.as_bytes())) {
                prop_assert!(closed.is_match(value.as_bytes()), "{broken}: {value}");
            }
        }
    }
}
