// SPDX-License-Identifier: Apache-2.0
//! Regular expressions of HTTP rules: RE2's meaning (what Cilium's Envoy uses), bounded in size.

use std::sync::Arc;

use regex_syntax::{
    Parser, ParserBuilder,
    hir::{Class, ClassBytes, ClassBytesRange, Hir, HirKind, Look, Repetition},
};
use thiserror::Error;

/// The size that one expression may have, in automaton states by a rough count. The largest that
/// Envoy's RE2 takes by default is of the same order (`re2.max_program_size`, 100 instructions, is only
/// a warning there).
const MAX_PATTERN_COST: u64 = 10_000;

/// The size that all rules of one port may have together, by the same count: 5,000 rules of 400 each.
pub(crate) const MAX_SET_COST: u64 = 2_000_000;

/// Depth of nested groups and repetitions.
const MAX_NESTING: u32 = 64;

/// Why an expression is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq, PartialOrd, Ord)]
#[error("the expression `{pattern}` {problem}")]
pub struct PatternError {
    /// The expression.
    pub pattern: Arc<str>,
    /// What is wrong with it.
    pub problem: Arc<str>,
}

/// Checks that a rule with this expression will be enforced as written.
///
/// Fails for what is not valid RE2 syntax and for what would need too large an automaton.
pub fn check_pattern(pattern: &str) -> Result<(), PatternError> {
    parse(pattern).map(|_| ())
}

/// Parses an expression. Classes such as `\d` are ASCII, as in RE2; expressions that cannot be said
/// without Unicode (`\p{Greek}`, `[é]`) are read with it.
pub(crate) fn parse(pattern: &str) -> Result<Hir, PatternError> {
    let refuse = |problem: &str| PatternError { pattern: pattern.into(), problem: problem.into() };
    let parsed = match parser(false).parse(pattern) {
        Ok(hir) => Ok(hir),
        Err(_) => parser(true).parse(pattern),
    };
    let hir = parsed.map_err(|error| {
        let problem = match &error {
            regex_syntax::Error::Parse(error) => error.kind().to_string(),
            regex_syntax::Error::Translate(error) => error.kind().to_string(),
            other => other.to_string(),
        };
        refuse(&format!("is not valid: {problem}"))
    })?;
    if cost(&hir) > MAX_PATTERN_COST {
        return Err(refuse("is too large: use fewer or smaller repetitions"));
    }
    Ok(of_one_line(hir))
}

fn parser(unicode: bool) -> Parser {
    ParserBuilder::new().unicode(unicode).utf8(false).nest_limit(MAX_NESTING).build()
}

/// Makes `^` and `$` mean the ends of a line, since the part becomes one line of a text. Groups need no
/// capturing.
fn of_one_line(hir: Hir) -> Hir {
    let all = |parts: Vec<Hir>| parts.into_iter().map(of_one_line).collect();
    match hir.into_kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) => Hir::literal(literal.0),
        HirKind::Class(class) => Hir::class(class),
        HirKind::Look(Look::Start) => Hir::look(Look::StartLF),
        HirKind::Look(Look::End) => Hir::look(Look::EndLF),
        HirKind::Look(look) => Hir::look(look),
        HirKind::Repetition(repetition) => {
            Hir::repetition(Repetition { sub: Box::new(of_one_line(*repetition.sub)), ..repetition })
        }
        HirKind::Capture(capture) => of_one_line(*capture.sub),
        HirKind::Concat(parts) => Hir::concat(all(parts)),
        HirKind::Alternation(parts) => Hir::alternation(all(parts)),
    }
}

/// One pattern for a whole rule over `method \n authority \n target`, and its size. A part without an
/// expression is any text without a line end.
///
/// The parts cannot be mixed up: the text has exactly two line ends and the pattern asks for two of its
/// own, so that none is left for an expression that would match one.
pub(crate) fn rule_pattern(parts: [Option<Hir>; 3]) -> (Hir, u64) {
    let [method, host, path] = parts.map(|part| part.unwrap_or_else(any_text));
    let line_end = || Hir::literal(*b"\n");
    let pattern = Hir::concat(vec![
        Hir::look(Look::Start),
        method,
        line_end(),
        host,
        line_end(),
        path,
        Hir::look(Look::End),
    ]);
    let size = cost(&pattern);
    (pattern, size)
}

fn any_text() -> Hir {
    let mut class = ClassBytes::new([ClassBytesRange::new(b'\n', b'\n')]);
    class.negate();
    Hir::repetition(Repetition {
        min: 0,
        max: None,
        greedy: true,
        sub: Box::new(Hir::class(Class::Bytes(class))),
    })
}

/// A rough count of the automaton's states: repetitions are written out.
fn cost(hir: &Hir) -> u64 {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Class(Class::Bytes(_)) => 1,
        HirKind::Class(Class::Unicode(class)) => class.ranges().len() as u64 * 4,
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min.saturating_add(1)).max(1);
            cost(&repetition.sub).saturating_add(1).saturating_mul(u64::from(times))
        }
        HirKind::Capture(capture) => cost(&capture.sub).saturating_add(1),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().fold(1, |sum, part| sum.saturating_add(cost(part)))
        }
    }
}
