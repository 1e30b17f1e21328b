// SPDX-License-Identifier: Apache-2.0
//! HTTP rules, compiled so that thousands cost about as much as one.
//!
//! Method, authority and target become one line-separated text, and the expressions of a rule one
//! anchored pattern over it; all patterns of a port share one automaton. Only rules with header
//! conditions need more: the automaton names those whose other conditions hold, and their headers are
//! then compared.

pub(crate) mod pattern;
mod target;

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use regex_automata::{
    Anchored, Input, MatchKind, PatternSet,
    meta::{Config, Regex},
    util::syntax,
};
use regex_syntax::hir::Hir;
use weft_ebpf_common::reason::Reason;
use weft_ir::HttpRule;

use crate::{Warning, numbers::RuleRef};
use pattern::{MAX_SET_COST, ON_STACK, line_separated, parse, rule_pattern};

/// What is asked about a request.
pub struct HttpRequest<'a> {
    /// The method.
    pub method: &'a [u8],
    /// The authority, with its port where the client sent one; empty when there is none.
    pub authority: &'a [u8],
    /// The target as received: path and query.
    pub target: &'a [u8],
    /// The value of a header by its lower-case name; several values joined with `,` (as Envoy compares).
    pub header: &'a dyn Fn(&str) -> Option<Cow<'a, [u8]>>,
}

impl fmt::Debug for HttpRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy;
        write!(f, "{} {} {}", text(self.method), text(self.authority), text(self.target))
    }
}

/// The answer about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpDecision {
    /// This rule allows it.
    Allow(RuleRef),
    /// No rule allows it; this is the first with HTTP rules here.
    Deny(Reason, Option<RuleRef>),
}

/// The rules for the requests of one connection: those about its peer and those about anybody.
#[derive(Clone, Debug, Default)]
pub struct HttpRules {
    sets: [Option<Arc<RequestRules>>; HttpRules::LISTS],
}

impl HttpRules {
    /// Decides about a request: it is allowed when every reading of its path is, since it goes to the
    /// server as it came, and servers differ in what they make of `..`, `//` and `%2F`.
    pub fn decide(&self, request: &HttpRequest<'_>) -> HttpDecision {
        let sets = || self.sets.iter().flatten();
        let allowed = |target: &[u8]| sets().find_map(|set| set.allowed_by(request, target));
        match allowed(request.target) {
            Some(rule) if target::readings(request.target).iter().all(|one| allowed(one).is_some()) => {
                HttpDecision::Allow(rule)
            }
            _ => {
                HttpDecision::Deny(Reason::HttpPolicyDenied, sets().next().and_then(|set| set.first.clone()))
            }
        }
    }

    /// The headers that some rule asks for, in lower case: of each set of rules a list, at most
    /// [`HttpRules::LISTS`] of them.
    pub fn headers(&self) -> impl Iterator<Item = &[Arc<str>]> {
        self.sets.iter().flatten().map(|set| &*set.headers)
    }

    /// The most lists that [`HttpRules::headers`] yields.
    pub const LISTS: usize = 4;

    /// One lookup finds at most four sets: peer or anybody, with the protocol or with any.
    pub(crate) fn add(&mut self, set: Arc<RequestRules>) {
        if let Some(free) = self.sets.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(set);
        }
    }
}

/// The HTTP rules that one policy rule has for a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HttpSource {
    pub(crate) rule: RuleRef,
    pub(crate) rules: Arc<[HttpRule]>,
}

/// HTTP rules that meet on one port range, any of which allows.
#[derive(Debug)]
pub(crate) struct RequestRules {
    /// The first rule, named in denials.
    first: Option<RuleRef>,
    plain: Patterns,
    with_headers: Patterns,
    /// The headers that some rule asks for, each once.
    headers: Box<[Arc<str>]>,
    warnings: Vec<Warning>,
}

/// One automaton, and for each of its patterns what else is known about the rule.
#[derive(Default)]
struct Patterns {
    automaton: Option<Regex>,
    rules: Vec<PatternRule>,
}

impl fmt::Debug for Patterns {
    /// Without the automaton, which is far too long to read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.rules).finish()
    }
}

#[derive(Debug)]
struct PatternRule {
    rule: RuleRef,
    headers: Vec<(Arc<str>, Option<Arc<str>>)>,
}

impl RequestRules {
    fn compile(sources: &[HttpSource]) -> RequestRules {
        let first = sources.first().map(|source| source.rule.clone());
        let mut build = Build::default();
        for source in sources {
            source.rules.iter().for_each(|rule| build.add(&source.rule, rule));
        }
        let (plain, with_headers) = match build.finish() {
            Some(patterns) => patterns,
            None => {
                let policy = first.as_ref().map_or_else(|| "".into(), |rule| rule.policy.clone());
                build.warnings.push(Warning::HttpRulesTooLarge { policy });
                (Patterns::default(), Patterns::default())
            }
        };
        let headers: BTreeSet<_> = with_headers.headers().collect();
        let headers = headers.into_iter().cloned().collect();
        RequestRules { first, plain, with_headers, headers, warnings: build.warnings }
    }

    /// A rule that allows the request with this reading of its target.
    fn allowed_by(&self, request: &HttpRequest<'_>, target: &[u8]) -> Option<RuleRef> {
        let parts = [request.method, request.authority, target];
        if parts.iter().any(|part| part.contains(&b'\n')) {
            // A line end would let one part be read as another; no valid request has one.
            return None;
        }
        let mut buffer = [0; ON_STACK];
        let text = line_separated(parts, &mut buffer);
        let rule =
            self.plain.first(&text).or_else(|| self.with_headers.first_with_headers(&text, request))?;
        Some(rule.rule.clone())
    }
}

impl Patterns {
    fn headers(&self) -> impl Iterator<Item = &Arc<str>> {
        self.rules.iter().flat_map(|rule| rule.headers.iter().map(|(name, _)| name))
    }

    fn first(&self, text: &[u8]) -> Option<&PatternRule> {
        let input = Input::new(text).anchored(Anchored::Yes).earliest(true);
        let found = self.automaton.as_ref()?.search_half(&input)?;
        self.rules.get(found.pattern().as_usize())
    }

    fn first_with_headers(&self, text: &[u8], request: &HttpRequest<'_>) -> Option<&PatternRule> {
        let automaton = self.automaton.as_ref()?;
        let mut found = PatternSet::new(automaton.pattern_len());
        automaton.which_overlapping_matches(&Input::new(text).anchored(Anchored::Yes), &mut found);
        let rules = found.iter().filter_map(|pattern| self.rules.get(pattern.as_usize()));
        rules
            .into_iter()
            .find(|rule| rule.headers.iter().all(|(name, value)| has(request, name, value.as_deref())))
    }
}

fn has(request: &HttpRequest<'_>, name: &str, wanted: Option<&str>) -> bool {
    match ((request.header)(name), wanted) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(value), Some(wanted)) => *value == *wanted.as_bytes(),
    }
}

#[derive(Default)]
struct Build {
    plain: PatternsBuild,
    with_headers: PatternsBuild,
    cost: u64,
    warnings: Vec<Warning>,
}

#[derive(Default)]
struct PatternsBuild {
    hirs: Vec<Hir>,
    rules: Vec<PatternRule>,
}

impl Build {
    /// Adds a rule, or leaves it out with a warning where an expression does not compile: it can only
    /// allow, so that without it less is allowed.
    fn add(&mut self, source: &RuleRef, rule: &HttpRule) {
        let part = |text: &Option<Arc<str>>| text.as_deref().map(parse).transpose();
        let parsed = part(&rule.method).and_then(|method| Ok((method, part(&rule.host)?, part(&rule.path)?)));
        let (method, host, path) = match parsed {
            Ok(parts) => parts,
            Err(error) => {
                self.warnings.push(Warning::Pattern { policy: source.policy.clone(), error });
                return;
            }
        };
        let (hir, cost) = rule_pattern([method, host, path]);
        self.cost = self.cost.saturating_add(cost);
        let target = if rule.headers.is_empty() { &mut self.plain } else { &mut self.with_headers };
        target.hirs.push(hir);
        target.rules.push(PatternRule { rule: source.clone(), headers: rule.headers.clone() });
    }

    /// Builds both automata; nothing when they would be too large.
    fn finish(&mut self) -> Option<(Patterns, Patterns)> {
        if self.cost > MAX_SET_COST {
            return None;
        }
        let plain = self.plain.finish(MatchKind::LeftmostFirst)?;
        Some((plain, self.with_headers.finish(MatchKind::All)?))
    }
}

impl PatternsBuild {
    /// Builds the automaton; nothing when it is too large. To name every pattern that matches, and not just
    /// the first, it must be built to keep all.
    fn finish(&mut self, kind: MatchKind) -> Option<Patterns> {
        let (hirs, rules) = (std::mem::take(&mut self.hirs), std::mem::take(&mut self.rules));
        if hirs.is_empty() {
            return Some(Patterns::default());
        }
        let config = Config::new()
            .match_kind(kind)
            .utf8_empty(false)
            // Every rule adds states that a search may visit; the cache of each thread grows with them, up
            // to a limit that the search survives by starting its cache again.
            .hybrid_cache_capacity((hirs.len() * 8192).clamp(1 << 20, 16 << 20))
            .nfa_size_limit(Some(64 << 20));
        let automaton = Regex::builder()
            .configure(config)
            .syntax(syntax::Config::new().utf8(false))
            .build_many_from_hir(&hirs)
            .ok()?;
        Some(Patterns { automaton: Some(automaton), rules })
    }
}

/// Compiled HTTP rules by what they were compiled from, shared by all states of a node.
#[derive(Debug, Default)]
pub(crate) struct HttpCache {
    compiled: Mutex<HashMap<Vec<HttpSource>, Arc<RequestRules>>>,
}

impl HttpCache {
    /// Forgets what no endpoint policy uses, of whatever state.
    pub(crate) fn sweep(&self) {
        self.compiled().retain(|_, rules| Arc::strong_count(rules) > 1);
    }

    pub(crate) fn compile(
        &self,
        sources: Vec<HttpSource>,
        warnings: &mut BTreeSet<Warning>,
    ) -> Arc<RequestRules> {
        let known = self.compiled().get(&sources).cloned();
        let rules = known.unwrap_or_else(|| Arc::new(RequestRules::compile(&sources)));
        warnings.extend(rules.warnings.iter().cloned());
        self.compiled().entry(sources).or_insert(rules).clone()
    }

    fn compiled(&self) -> MutexGuard<'_, HashMap<Vec<HttpSource>, Arc<RequestRules>>> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
