// SPDX-License-Identifier: Apache-2.0
//! One pattern for a whole HTTP rule, and the text of a request that it is matched against.

use std::borrow::Cow;

use regex_syntax::hir::{Class, ClassBytes, ClassBytesRange, Hir, HirKind, Look, Repetition};
use weft_matching::{Expression, ExpressionError, expression::cost};

/// The size that all rules of one port may have together, by the count of [`cost`]: 5,000 rules of 400
/// each.
pub(crate) const MAX_SET_COST: u64 = 2_000_000;

/// Reads an expression that is to match one line of a text.
pub(crate) fn parse(text: &str) -> Result<Hir, ExpressionError> {
    Expression::parse(text).map(|expression| of_one_line(expression.hir().clone()))
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

/// Bytes of method, authority and target that a request usually has at most.
pub(super) const ON_STACK: usize = 512;

/// The parts as lines of one text: in the buffer where they fit, so that most requests allocate nothing.
pub(super) fn line_separated<'a>(parts: [&[u8]; 3], buffer: &'a mut [u8; ON_STACK]) -> Cow<'a, [u8]> {
    let [method, authority, target] = parts.map(<[u8]>::len);
    let Some(text) = buffer.get_mut(..method + authority + target + 2) else {
        return Cow::Owned(parts.join(&b'\n'));
    };
    let (line, rest) = text.split_at_mut(method);
    line.copy_from_slice(parts[0]);
    rest[0] = b'\n';
    let (line, rest) = rest[1..].split_at_mut(authority);
    line.copy_from_slice(parts[1]);
    rest[0] = b'\n';
    rest[1..].copy_from_slice(parts[2]);
    Cow::Borrowed(text)
}
