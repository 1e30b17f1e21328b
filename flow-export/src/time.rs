// SPDX-License-Identifier: Apache-2.0
//! Points in time as flows carry them.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;

const SECOND_NS: u64 = 1_000_000_000;
const DAY_SECONDS: u64 = 86_400;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Nanoseconds since 1970 in UTC; written as RFC 3339.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

/// A text that is not a time.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is not a time in UTC as in RFC 3339: write it like 2026-11-21T04:05:00Z")]
pub struct TimestampError(String);

/// A date and a time of day.
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Timestamp {
    /// The time before this one by a duration, 1970 at the earliest.
    pub fn before(self, duration: Duration) -> Timestamp {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Timestamp(self.0.saturating_sub(nanoseconds))
    }

    /// The form of Hubble's compact lines: `Nov 21 04:05:00.123`.
    pub fn stamp(self) -> String {
        let civil = Civil::of(self.0 / SECOND_NS);
        // The month is 1 to 12.
        let month = MONTHS.get(civil.month as usize - 1).copied().unwrap_or_default();
        let Civil { day, hour, minute, second, .. } = civil;
        let milliseconds = self.0 % SECOND_NS / 1_000_000;
        format!("{month} {day:>2} {hour:02}:{minute:02}:{second:02}.{milliseconds:03}")
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Timestamp {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Civil { year, month, day, hour, minute, second } = Civil::of(self.0 / SECOND_NS);
        let fraction = self.0 % SECOND_NS;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z")
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

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
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Civil {
    /// Counts in years that begin with March, so that the leap day is the last one
    /// (Howard Hinnant, "chrono-compatible low-level date algorithms").
    fn of(seconds: u64) -> Civil {
        let days = seconds / DAY_SECONDS + 719_468;
        let era = days / 146_097;
        let of_era = days % 146_097;
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let of_day = seconds % DAY_SECONDS;
        Civil {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month,
            day: of_year - (153 * shifted + 2) / 5 + 1,
            hour: of_day / 3_600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
        }
    }

    /// Seconds since 1970; nothing for dates that do not exist or lie before.
    fn seconds(&self) -> Option<u64> {
        let leap =
            self.year.is_multiple_of(4) && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400));
        let length = match self.month {
            2 => 28 + u64::from(leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        let valid = (1970..=2553).contains(&self.year)
            && (1..=length).contains(&self.day)
            && self.hour < 24
            && self.minute < 60
            && self.second < 60;
        if !valid {
            return None;
        }
        let year = self.year - u64::from(self.month <= 2);
        let shifted = if self.month > 2 { self.month - 3 } else { self.month + 9 };
        let of_year = (153 * shifted + 2) / 5 + self.day - 1;
        let of_era = year % 400 * 365 + year % 400 / 4 - year % 400 / 100 + of_year;
        let days = year / 400 * 146_097 + of_era - 719_468;
        Some(days * DAY_SECONDS + self.hour * 3_600 + self.minute * 60 + self.second)
    }
}

fn parse(text: &str) -> Option<Timestamp> {
    let text = text.strip_suffix('Z')?;
    let (date, time) = text.split_once('T')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let numbers = |text: &str, separator| -> Option<[u64; 3]> {
        let mut parts = text.split(separator).map(|part| {
            let digits = part.len() <= 4 && part.bytes().all(|byte| byte.is_ascii_digit());
            if digits { part.parse().ok() } else { None }
        });
        let numbers = [parts.next()??, parts.next()??, parts.next()??];
        parts.next().is_none().then_some(numbers)
    };
    let ([year, month, day], [hour, minute, second]) = (numbers(date, '-')?, numbers(time, ':')?);
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: u64 = format!("{fraction:0<9}").parse().ok()?;
    let seconds = Civil { year, month, day, hour, minute, second }.seconds()?;
    Some(Timestamp(seconds.checked_mul(SECOND_NS)?.checked_add(nanoseconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_are_written_and_read() {
        // From `date -u -d @N --rfc-3339=seconds`.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_795_233_900, "2026-11-21T04:05:00.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(Timestamp(seconds * SECOND_NS).to_string(), text);
            assert_eq!(text.parse(), Ok(Timestamp(seconds * SECOND_NS)));
        }
    }

    #[test]
    fn every_day_survives_writing_and_reading() {
        for day in 0..200_000 {
            let time = Timestamp(day * DAY_SECONDS * SECOND_NS + 123_456_789);
            assert_eq!(time.to_string().parse(), Ok(time));
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2026-11-21",
            "2026-02-29T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T04:05:00+01:00",
            "2026-13-01T00:00:00Z",
            "2026-11-21T04:05:00.Z",
            "2026-11-21T04:05:00.1234567890Z",
            "-1-1-1T0:0:0Z",
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
