// SPDX-License-Identifier: Apache-2.0
//! Median, minimum, maximum: the spread of a measurement.

use std::fmt;

use serde::Serialize;

/// Several measurements of one thing, one for each round; a round may have none.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Spread(Vec<Option<f64>>);

impl Spread {
    /// Adds the measurement of a round, or that it has none that counts.
    pub(crate) fn push(&mut self, value: Option<f64>) {
        self.0.push(value);
    }

    /// The one measurement of something that is not repeated.
    pub(crate) fn single(value: f64) -> Self {
        Self(vec![Some(value)])
    }

    /// The middle one; the mean of the middle two of an even number; 0 for none.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted: Vec<f64> = self.values().collect();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match (sorted.get(middle), sorted.len() % 2) {
            (None, _) => 0.0,
            (Some(value), 1) => *value,
            (Some(value), _) => (sorted[middle - 1] + value) / 2.0,
        }
    }

    /// The smallest; 0 for none.
    pub(crate) fn min(&self) -> f64 {
        self.values().reduce(f64::min).unwrap_or(0.0)
    }

    /// The largest; 0 for none.
    pub(crate) fn max(&self) -> f64 {
        self.values().reduce(f64::max).unwrap_or(0.0)
    }

    /// How many measurements there are.
    pub(crate) fn count(&self) -> usize {
        self.values().count()
    }

    /// Each measurement less the one of the same round of `base`.
    pub(crate) fn less(&self, base: &Spread) -> Spread {
        self.with(base, |own, base| own - base)
    }

    /// Each measurement divided by the one of the same round of `base`.
    pub(crate) fn ratio_to(&self, base: &Spread) -> Spread {
        self.with(base, |own, base| own / base)
    }

    /// Only rounds in which both have a measurement count.
    fn with(&self, base: &Spread, both: impl Fn(f64, f64) -> f64) -> Spread {
        Spread(self.0.iter().zip(&base.0).map(|(own, base)| Some(both((*own)?, (*base)?))).collect())
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        self.0.iter().copied().flatten()
    }
}

/// `median (min-max)`, with as many decimals as the size asks for.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count() == 0 {
            return f.write_str("-");
        }
        let decimals = match self.median() {
            median if median >= 100.0 => 0,
            median if median >= 10.0 => 1,
            _ => 2,
        };
        let (median, min, max) = (self.median(), self.min(), self.max());
        write!(f, "{median:.decimals$}")?;
        if self.count() > 1 {
            write!(f, " ({min:.decimals$}-{max:.decimals$})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(values: &[f64]) -> Spread {
        Spread(values.iter().copied().map(Some).collect())
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(spread(&[4.0, 1.0, 3.0, 2.0]).median(), 2.5);
        assert_eq!(spread(&[9.0, 1.0, 5.0]).median(), 5.0);
        assert_eq!(spread(&[]).median(), 0.0);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let ratio = spread(&[10.0, 30.0]).ratio_to(&spread(&[5.0, 10.0]));
        assert_eq!((ratio.min(), ratio.max()), (2.0, 3.0));
    }

    #[test]
    fn a_round_without_a_measurement_is_left_out_of_ratios() {
        let mut own = spread(&[10.0]);
        own.push(None);
        own.push(Some(30.0));
        let ratio = own.ratio_to(&spread(&[5.0, 1.0, 10.0]));
        assert_eq!((ratio.count(), ratio.min(), ratio.max()), (2, 2.0, 3.0), "30 is not held against 1");
    }

    #[test]
    fn a_spread_is_shown_with_its_ends() {
        assert_eq!(spread(&[1.0, 2.0, 4.0]).to_string(), "2.00 (1.00-4.00)");
        assert_eq!(spread(&[1000.0, 900.4, 1200.0]).to_string(), "1000 (900-1200)");
        assert_eq!(Spread::single(7.0).to_string(), "7.00");
        assert_eq!(Spread::default().to_string(), "-");
    }
}
