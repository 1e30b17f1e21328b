// SPDX-License-Identifier: Apache-2.0
//! Points in time, as objects and flows write them: RFC 3339 in UTC.
//!
//! The crate has no clock: whoever knows what time it is brings it.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const SECOND_NS: u64 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Nanoseconds since 1970 in UTC, until 2554; written as RFC 3339.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

/// A text that is not a time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a time as in RFC 3339: write it like 2026-11-21T04:05:00Z")]
pub struct TimestampError(String);

impl Timestamp {
    /// The time before this one by a duration, 1970 at the earliest.
    pub fn before(self, duration: Duration) -> Timestamp {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Timestamp(self.0.saturating_sub(nanoseconds))
    }

    /// Whole seconds since 1970.
    pub fn seconds(self) -> u64 {
        self.0 / SECOND_NS
    }

    /// The same without the fraction of a second, which Kubernetes does not write.
    #[must_use]
    pub fn whole_seconds(self) -> Timestamp {
        Timestamp(self.0 - self.0 % SECOND_NS)
    }

    /// The form of Hubble's compact lines: `Nov 21 04:05:00.123`.
    pub fn stamp(self) -> String {
        let (_, month, day) = date(self.days());
        let (hour, minute, second) = self.time_of_day();
        // The month is 1 to 12.
        let month = MONTHS.get(month as usize - 1).copied().unwrap_or_default();
        let milliseconds = self.0 % SECOND_NS / 1_000_000;
        format!("{month} {day:>2} {hour:02}:{minute:02}:{second:02}.{milliseconds:03}")
    }

    fn days(self) -> i64 {
        self.seconds() as i64 / DAY_SECONDS
    }

    fn time_of_day(self) -> (i64, i64, i64) {
        let seconds = self.seconds() as i64 % DAY_SECONDS;
        (seconds / 3_600, seconds / 60 % 60, seconds % 60)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Timestamp {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Timestamp {
    /// A fraction only where there is one, and then with nine digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date(self.days());
        let (hour, minute, second) = self.time_of_day();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        match self.0 % SECOND_NS {
            0 => f.write_str("Z"),
            fraction => write!(f, ".{fraction:09}Z"),
        }
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    /// Reads a date and time of RFC 3339 in any zone; times before 1970 are 1970.
    fn from_str(text: &str) -> Result<Timestamp, TimestampError> {
        parse(text).ok_or_else(|| TimestampError(text.to_owned()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Timestamp;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time such as `2026-01-31T12:00:00Z`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

fn parse(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_at_checked(10)?;
    let [year, month, day] = numbers(date, '-')?;
    let (clock, rest) = time.strip_prefix(['T', 't', ' '])?.split_at_checked(8)?;
    let [hour, minute, second] = numbers(clock, ':')?;
    // The 61st second of a minute is a leap second.
    if !(1..=days_of_month(year, month)?).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (nanoseconds, zone) = fraction(rest)?;
    let of_day = hour * 3_600 + minute * 60 + second;
    let seconds = days_since_1970(year, month, day) * DAY_SECONDS + of_day - offset(zone)?;
    match u64::try_from(seconds) {
        Ok(seconds) => Some(Timestamp(seconds.checked_mul(SECOND_NS)?.checked_add(nanoseconds)?)),
        Err(_before_1970) => Some(Timestamp(0)),
    }
}

/// Three numbers with a separator between them.
fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let mut parts = text.split(separator).map(|part| {
        if part.bytes().all(|byte| byte.is_ascii_digit()) { part.parse::<i64>().ok() } else { None }
    });
    let three = [parts.next()??, parts.next()??, parts.next()??];
    if parts.next().is_some() { None } else { Some(three) }
}

/// The nanoseconds of a fraction, if there is one, and what follows it; more than nine digits are left out.
fn fraction(text: &str) -> Option<(u64, &str)> {
    let Some(digits) = text.strip_prefix('.') else { return Some((0, text)) };
    let end = digits.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(digits.len());
    let (digits, zone) = digits.split_at(end);
    let nanoseconds = format!("{digits:0<9}").get(..9)?.parse().ok()?;
    (!digits.is_empty()).then_some((nanoseconds, zone))
}

/// The offset of a zone from UTC in seconds.
fn offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let [hours, minutes, _] = numbers(&format!("{}:0", zone.strip_prefix(['+', '-'])?), ':')?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

fn days_of_month(year: i64, month: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => Some(28 + i64::from(is_leap)),
        4 | 6 | 9 | 11 => Some(30),
        1..=12 => Some(31),
        _ => None,
    }
}

/// Days between 1970-01-01 and a date. Years start in March, so that the leap day is the last of its year
/// (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The date of a day, the inverse of [`days_since_1970`].
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_are_written_and_read() {
        // From `date -u -d @N --rfc-3339=seconds`.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_233_900, "2026-11-21T04:05:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Timestamp(seconds * SECOND_NS).to_string(), text);
            assert_eq!(text.parse(), Ok(Timestamp(seconds * SECOND_NS)));
        }
    }

    #[test]
    fn every_form_of_a_time_is_read() {
        let time = Timestamp(951_827_400 * SECOND_NS);
        for text in ["2000-02-29T12:30:00z", "2000-02-29t14:30:00+02:00", "2000-02-28 23:30:00.0-13:00"] {
            assert_eq!(text.parse(), Ok(time), "{text}");
        }
        for text in ["2000-02-29T14:30:00.25+02:00", "2000-02-29T12:30:00.250000000999Z"] {
            assert_eq!(text.parse(), Ok(Timestamp(time.0 + 250_000_000)), "{text}");
        }
        assert_eq!("2000-02-29T12:29:60Z".parse(), Ok(time), "a leap second");
        assert_eq!("0001-01-01T00:00:00Z".parse(), Ok(Timestamp(0)), "Go's time that was never set");
    }

    #[test]
    fn every_day_survives_writing_and_reading() {
        for day in 0..200_000 {
            let time = Timestamp(day * DAY_SECONDS as u64 * SECOND_NS + 123_456_789);
            assert_eq!(time.to_string().parse(), Ok(time));
            assert_eq!(time.whole_seconds().to_string().parse(), Ok(time.whole_seconds()));
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2026-11-21",
            "2026-02-29T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T00:00:00",
            "2026-11-21Tab:00:00Z",
            "2026-11-21T04:05:00+01",
            "2026-11-21T04:05:00+24:00",
            "2026-13-01T00:00:00Z",
            "2026-11-21T04:05:00.Z",
            "2555-01-01T00:00:00Z",
            "-1-1-1T0:0:0Z",
            "é",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_stamp_is_that_of_hubble() {
        assert_eq!(Timestamp(1_795_233_900_123_000_000).stamp(), "Nov 21 04:05:00.123");
        assert_eq!(Timestamp(0).stamp(), "Jan  1 00:00:00.000");
    }
}
