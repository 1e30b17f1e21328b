// SPDX-License-Identifier: Apache-2.0
//! Durations as the Gateway API writes them (GEP-2257): `1h`, `1m30s`, `250ms`.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, de};

/// Why a text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing, or nothing but a unit.
    #[error("expected one to four parts such as `1h`, `30s` or `250ms`")]
    Shape,
    /// A part without a unit, or with one that GEP-2257 does not have.
    #[error("every number needs a unit: `h`, `m`, `s` or `ms`")]
    Unit,
    /// A number with more than five digits (GEP-2257, section 4).
    #[error("a number has at most five digits")]
    Digits,
}

/// Reads a GEP-2257 duration: one to four parts of at most five digits with `h`, `m`, `s` or `ms`.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Err(DurationError::Shape);
        }
        if digits > 5 {
            return Err(DurationError::Digits);
        }
        let (number, tail) = rest.split_at(digits);
        let number = number.bytes().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        let (unit_ms, tail) = unit(tail)?;
        total += Duration::from_millis(number * unit_ms);
        rest = tail;
        if rest.is_empty() {
            return Ok(total);
        }
    }
    Err(DurationError::Shape)
}

/// The unit at the start of `text` in milliseconds, and what follows it.
fn unit(text: &str) -> Result<(u64, &str), DurationError> {
    const UNITS: [(&str, u64); 4] = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    UNITS
        .iter()
        .find_map(|(name, ms)| text.strip_prefix(name).map(|rest| (*ms, rest)))
        .ok_or(DurationError::Unit)
}

/// A duration field of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiDuration(pub Duration);

impl<'de> Deserialize<'de> for ApiDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ApiDuration, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = ApiDuration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as `1m30s` or `250ms`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ApiDuration, E> {
                parse(text).map(ApiDuration).map_err(|e| E::custom(format_args!("duration `{text}`: {e}")))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up() {
        assert_eq!(parse("1h2m3s4ms"), Ok(Duration::from_millis(3_723_004)));
        assert_eq!(parse("0s"), Ok(Duration::ZERO));
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
    }

    #[test]
    fn what_gep_2257_leaves_out_is_refused() {
        for text in ["", "5", "s", "1.5s", "-1s", "123456s", "1d", "1us", "1s1s1s1s1s", "1 s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
