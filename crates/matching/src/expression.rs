// SPDX-License-Identifier: Apache-2.0
//! Regular expressions: RE2's syntax and meaning (what Envoy, and so Cilium, uses), bounded in size.
//!
//! There is one limit, on what [`Expression::parse`] counts. Building the automaton has none of its own,
//! so that a node never refuses what the controller has accepted.

use std::{fmt, sync::Arc};

use regex_automata::{
    Anchored, Input, MatchKind, PatternSet,
    meta::{Config, Regex},
    util::syntax,
};
use regex_syntax::{
    Parser, ParserBuilder,
    hir::{Class, Hir, HirKind, Look},
};
use thiserror::Error;

/// The size that one expression may have, in automaton states by a rough count, and in bytes of text.
/// The largest that Envoy's RE2 takes by default is of the same order (`re2.max_program_size`, 100
/// instructions, is only a warning there).
pub(crate) const MAX_COST: u64 = 10_000;

/// The size of the expressions that share one automaton in a [`MatcherSet`]; a state takes some 40 bytes.
const MAX_CHUNK_COST: u64 = 1_000_000;

/// Depth of nested groups and repetitions.
const MAX_NESTING: u32 = 64;

/// How much of an expression an error repeats, in characters.
const SHOWN: usize = 100;

/// Why an expression is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExpressionError {
    /// The expression.
    pub expression: Arc<str>,
    /// What is wrong with it.
    pub problem: Arc<str>,
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.expression.chars().take(SHOWN).collect();
        let more = if shown.len() < self.expression.len() { "..." } else { "" };
        write!(f, "the expression `{shown}{more}` {}", self.problem)
    }
}

/// An expression that was read and is not too large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    text: Arc<str>,
    hir: Hir,
    cost: u64,
}

/// Checks that an expression will be matched as written.
///
/// # Errors
/// For what is not valid RE2 syntax and for what would need too large an automaton.
pub fn check(text: &str) -> Result<(), ExpressionError> {
    Expression::parse(text).map(drop)
}

impl Expression {
    /// Reads an expression. Classes such as `\d` are ASCII, as in RE2; expressions that cannot be said
    /// without Unicode (`\p{Greek}`, `[é]`) are read with it.
    ///
    /// # Errors
    /// For what is not valid RE2 syntax and for what would need too large an automaton.
    pub fn parse(text: &str) -> Result<Expression, ExpressionError> {
        let expression = Expression::parse_unbounded(text)?;
        match expression.cost > MAX_COST {
            true => Err(refused(text, "is too large: use fewer or smaller repetitions")),
            false => Ok(expression),
        }
    }

    /// Reads an expression of any cost; its text is bounded all the same.
    pub(crate) fn parse_unbounded(text: &str) -> Result<Expression, ExpressionError> {
        if text.len() as u64 > MAX_COST {
            return Err(refused(text, &format!("is too large: {MAX_COST} bytes are the most")));
        }
        let parsed = match parser(false).parse(text) {
            Ok(hir) => Ok(hir),
            Err(_) => parser(true).parse(text),
        };
        let hir = parsed.map_err(|error| {
            let problem = match &error {
                regex_syntax::Error::Parse(error) => error.kind().to_string(),
                regex_syntax::Error::Translate(error) => error.kind().to_string(),
                other => other.to_string(),
            };
            refused(text, &format!("is not valid: {problem}"))
        })?;
        let cost = cost(&hir);
        Ok(Expression { text: text.into(), hir, cost })
    }

    /// What was read.
    pub fn hir(&self) -> &Hir {
        &self.hir
    }

    /// Its size, by the count of [`cost`].
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// The automaton for whole values.
    ///
    /// # Errors
    /// Never for what [`Expression::parse`] accepts; a property test says so.
    pub fn compile(&self) -> Result<Matcher, ExpressionError> {
        let regex = build(&[self.whole()], MatchKind::LeftmostFirst);
        regex.map(Matcher).map_err(|problem| refused(&self.text, &problem))
    }

    /// The expression between the ends of the text.
    fn whole(&self) -> Hir {
        Hir::concat(vec![Hir::look(Look::Start), self.hir.clone(), Hir::look(Look::End)])
    }
}

fn refused(text: &str, problem: &str) -> ExpressionError {
    ExpressionError { expression: text.into(), problem: problem.into() }
}

fn parser(unicode: bool) -> Parser {
    ParserBuilder::new().unicode(unicode).utf8(false).nest_limit(MAX_NESTING).build()
}

/// A rough count of the automaton's states: repetitions are written out.
pub fn cost(hir: &Hir) -> u64 {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len() as u64,
        // A state holds each range; 4 of them take about as much as another state.
        HirKind::Class(Class::Bytes(class)) => 1 + class.ranges().len() as u64 / 4,
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

fn build(hirs: &[Hir], kind: MatchKind) -> Result<Regex, String> {
    let config = Config::new()
        .match_kind(kind)
        .utf8_empty(false)
        // The size was counted before.
        .nfa_size_limit(None)
        // Every expression adds states that a search may visit; the cache of each thread grows with them,
        // up to a limit that the search survives by starting its cache again.
        .hybrid_cache_capacity((hirs.len() * 8192).clamp(1 << 20, 16 << 20));
    let builder = Regex::builder().configure(config).syntax(syntax::Config::new().utf8(false)).clone();
    builder.build_many_from_hir(hirs).map_err(|error| format!("cannot be built: {error}"))
}

/// An expression that has to match a whole value.
#[derive(Clone, Debug)]
pub struct Matcher(Regex);

impl Matcher {
    /// Whether the whole value matches.
    pub fn is_match(&self, value: &[u8]) -> bool {
        self.0.is_match(Input::new(value).anchored(Anchored::Yes))
    }
}

/// Many expressions, asked together at about the cost of one.
#[derive(Clone, Debug, Default)]
pub struct MatcherSet {
    /// Each with how many expressions there are before it.
    chunks: Vec<(Regex, usize)>,
}

impl MatcherSet {
    /// Builds the set; its answers are positions in this slice. What [`Expression::compile`] would refuse
    /// matches nothing.
    pub fn build(expressions: &[Expression]) -> MatcherSet {
        MatcherSet::in_chunks(expressions, MAX_CHUNK_COST)
    }

    fn in_chunks(expressions: &[Expression], most: u64) -> MatcherSet {
        let mut set = MatcherSet::default();
        let mut at = 0;
        while at < expressions.len() {
            let mut total = 0_u64;
            let fits = |one: &&Expression| {
                total = total.saturating_add(one.cost);
                total <= most
            };
            let chunk: Vec<Hir> = expressions[at..].iter().take_while(fits).map(Expression::whole).collect();
            match build(&chunk, MatchKind::All) {
                Ok(regex) => set.chunks.push((regex, at)),
                // Each by itself compiles wherever the controller accepted it.
                Err(_) => set.chunks.extend(chunk.iter().enumerate().filter_map(|(index, one)| {
                    Some((build(std::slice::from_ref(one), MatchKind::All).ok()?, at + index))
                })),
            }
            // One expression always fits: `MAX_COST` is less than `MAX_CHUNK_COST`.
            at += chunk.len().max(1);
        }
        set
    }

    /// The positions of all expressions that match the whole value, in order.
    pub fn matches<'a>(&'a self, value: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
        self.chunks.iter().flat_map(move |(regex, before)| {
            let mut found = PatternSet::new(regex.pattern_len());
            regex.which_overlapping_matches(&Input::new(value).anchored(Anchored::Yes), &mut found);
            let found: Vec<usize> = found.iter().map(|pattern| before + pattern.as_usize()).collect();
            found
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(expression: &str, value: &str) -> bool {
        Expression::parse(expression).unwrap().compile().unwrap().is_match(value.as_bytes())
    }

    #[test]
    fn an_expression_has_to_match_as_a_whole_and_cannot_leave_its_anchors() {
        assert!(matches("/a|/b", "/b") && matches("^/a$", "/a") && matches("/a(?x) b # comment", "/ab"));
        assert!(!matches("/a|/b", "/bc") && !matches("/a|/b", "x/a") && !matches("(?m)a$", "a\nb"));
        assert!(check("/a)|(?:.*").is_err());
    }

    #[test]
    fn classes_are_those_of_re2() {
        assert!(matches(r"/\d+", "/12") && !matches(r"/\d+", "/\u{661}"));
        assert!(matches(r"/\p{Greek}", "/\u{3b1}") && matches("/[\u{e9}]", "/\u{e9}"));
        assert!(matches("(?i)/PAY", "/pay"));
    }

    #[test]
    fn sizes_are_bounded() {
        let nested = "(".repeat(100) + &")".repeat(100);
        for text in ["/a{6000}", "(a{1000}){1000}", r"\p{L}{1000}", &nested, &"a".repeat(10_001)] {
            assert!(check(text).is_err(), "{text}");
        }
        for text in [r"/[a-z]{1,63}/\d{1,20}", "/.*", "(GET|POST)", "/a{4000}", &"a".repeat(10_000)] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn an_error_repeats_no_more_than_a_line() {
        let error = check(&"é(".repeat(1_000)).unwrap_err().to_string();
        assert!(error.contains("...` is not valid: ") && error.len() < 300, "{error}");
    }

    #[test]
    fn a_set_answers_in_order_across_its_automata() {
        let texts: Vec<String> = (0..120).map(|n| format!("/(x|{n})(a{{49}})?")).collect();
        let expressions: Vec<Expression> =
            texts.iter().map(|text| Expression::parse(text).unwrap()).collect();
        let set = MatcherSet::in_chunks(&expressions, 2_000);
        assert!(set.chunks.len() > 1, "{} automata", set.chunks.len());
        assert_eq!(set.matches(b"/x").collect::<Vec<_>>(), (0..120).collect::<Vec<_>>());
        assert_eq!(set.matches(b"/119").collect::<Vec<_>>(), [119]);
        assert_eq!(MatcherSet::default().matches(b"/").next(), None);
    }
}
