// SPDX-License-Identifier: Apache-2.0
//! `metadata`, which every object has.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Every field that Kubernetes has in `metadata`. Any other is a slip: it may have been meant to say which
/// namespace or which labels an object has.
pub(crate) const FIELDS: [&str; 16] = [
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
    "clusterName",
];

/// Whether a path within `metadata`, such as `.labels[a/b]`, begins with one of its fields.
pub(crate) fn is_field(path: &str) -> bool {
    let field = path.strip_prefix('.').and_then(|path| path.split(['.', '[']).next());
    field.is_some_and(|field| FIELDS.contains(&field))
}

/// The part of `metadata` that is read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    /// The name; required of every object.
    pub name: Arc<str>,
    /// The namespace; empty where the object has none.
    pub namespace: Arc<str>,
    /// Labels.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Annotations.
    pub annotations: BTreeMap<Arc<str>, Arc<str>>,
    /// When the object was made.
    pub creation_timestamp: Option<Timestamp>,
    /// When its deletion was asked for; it then waits for its end or for finalizers.
    pub deletion_timestamp: Option<Timestamp>,
    /// Counts the changes of `spec`; absent in files.
    pub generation: Option<i64>,
    /// Who owns the object.
    pub owner_references: Vec<OwnerReference>,
}

impl Metadata {
    /// `creationTimestamp` in seconds since 1970; 0 when it is absent.
    pub fn created(&self) -> i64 {
        self.creation_timestamp.map_or(0, |time| time.0)
    }
}

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OwnerReference {
    /// The owner's kind.
    pub kind: Arc<str>,
    /// The owner's name.
    pub name: Arc<str>,
    /// Whether this owner is the managing controller.
    pub controller: bool,
}

/// A point in time, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Reads an RFC 3339 date and time with whole seconds; fractions are left out.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let (date, time) = text.split_at_checked(10)?;
        let [year, month, day] = numbers(date, '-')?;
        let time = time.strip_prefix(['T', 't', ' '])?;
        let (clock, zone) = time.split_at_checked(8)?;
        let [hour, minute, second] = numbers(clock, ':')?;
        let valid = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60;
        if !valid || second > 60 {
            return None;
        }
        let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
        Some(Timestamp(seconds - offset(zone)?))
    }
}

impl fmt::Display for Timestamp {
    /// As RFC 3339, in UTC and whole seconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds) = (self.0.div_euclid(86_400), self.0.rem_euclid(86_400));
        let (year, month, day) = date(days);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
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
                Timestamp::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text)
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

/// The offset from UTC in seconds: what follows the seconds, with a fraction left out.
fn offset(zone: &str) -> Option<i64> {
    let zone = match zone.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => zone,
    };
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = zone.strip_prefix(['+', '-'])?.split_once(':')?;
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    if (0..24).contains(&hours) && (0..60).contains(&minutes) {
        Some(sign * (hours * 3_600 + minutes * 60))
    } else {
        None
    }
}

/// Days between 1970-01-01 and a date of the Gregorian calendar. Years start in March, so that the
/// leap day is the last of its year.
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
    fn rfc_3339_times_become_seconds() {
        assert_eq!(Timestamp::parse("1970-01-01T00:00:00Z"), Some(Timestamp(0)));
        assert_eq!(Timestamp::parse("2000-02-29T12:30:00Z"), Some(Timestamp(951_827_400)));
        assert_eq!(Timestamp::parse("2000-02-29T14:30:00.250+02:00"), Some(Timestamp(951_827_400)));
        assert_eq!(Timestamp::parse("2026-11-21T00:00:00Z"), Some(Timestamp(1_795_219_200)));
    }

    #[test]
    fn a_time_survives_its_text() {
        for seconds in [0, 951_827_400, 1_795_219_200, 4_107_542_399, -1] {
            let text = Timestamp(seconds).to_string();
            assert_eq!(Timestamp::parse(&text), Some(Timestamp(seconds)), "{text}");
        }
        assert_eq!(Timestamp(951_827_400).to_string(), "2000-02-29T12:30:00Z");
    }

    #[test]
    fn other_texts_are_no_time() {
        for text in
            ["", "2026-11-21", "2026-13-01T00:00:00Z", "2026-11-21T00:00:00", "2026-11-21Tab:00:00Z", "é"]
        {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }
}
