//! A histogram of fixed size: log-linear buckets over the whole of `u64`.
//!
//! Each power of two is divided into eight buckets, so a quantile is at most 1/8 above the true value; values below 16
//! are exact. Counting is a shift and an addition. 496 buckets of 4 bytes: about 2 KiB.
//!
//! ```
//! use rt_irq::Histogram;
//!
//! let mut latency = Histogram::new();
//! (1..=1000).for_each(|ns| latency.record(ns));
//! let p99 = latency.quantile(990);
//! assert!((990..=990 + 990 / 8).contains(&p99));
//! assert_eq!((latency.count(), latency.max()), (1000, 1000));
//! ```

const SUB_BITS: u32 = 3;
const SUB: usize = 1 << SUB_BITS;
/// Values below 8 have a bucket each; every power of two from 8 on has eight.
const BUCKETS: usize = SUB + (64 - SUB_BITS as usize) * SUB;

/// Counts of values by size.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: [u32; BUCKETS],
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// A histogram without values.
    pub const fn new() -> Self {
        Self { counts: [0; BUCKETS], count: 0, max: 0 }
    }

    /// Counts `value`. A bucket that is full (4 billion) stays full.
    pub const fn record(&mut self, value: u64) {
        let index = bucket_of(value);
        self.counts[index] = self.counts[index].saturating_add(1);
        self.count = self.count.saturating_add(1);
        if value > self.max {
            self.max = value;
        }
    }

    /// Adds what `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine = mine.saturating_add(*theirs);
        }
        self.count = self.count.saturating_add(other.count);
        self.max = self.max.max(other.max);
    }

    /// How many values were counted.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The greatest value, exactly; 0 without values.
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// The value that `per_mille` of 1000 values do not exceed: the upper end of its bucket, at most the maximum; 0
    /// without values.
    pub fn quantile(&self, per_mille: u32) -> u64 {
        let all: u64 = self.counts.iter().map(|count| u64::from(*count)).sum();
        let rank = (all * u64::from(per_mille.min(1000))).div_ceil(1000).max(1);
        let mut below = 0;
        for (index, count) in self.counts.iter().enumerate() {
            below += u64::from(*count);
            if below >= rank {
                return upper_end(index).min(self.max);
            }
        }
        self.max
    }
}

/// Which bucket counts `value`.
#[allow(clippy::cast_possible_truncation, reason = "masked to three bits, or a value below 8")]
const fn bucket_of(value: u64) -> usize {
    if value < SUB as u64 {
        return value as usize;
    }
    let power = 63 - value.leading_zeros();
    let sub = (value >> (power - SUB_BITS)) as usize & (SUB - 1);
    SUB + (power - SUB_BITS) as usize * SUB + sub
}

/// The greatest value that bucket `index` counts.
fn upper_end(index: usize) -> u64 {
    let Some(above) = index.checked_sub(SUB) else { return index as u64 };
    let (shift, sub) = (above / SUB, above % SUB);
    let last_of_bucket = (((SUB + sub + 1) as u128) << shift) - 1;
    u64::try_from(last_of_bucket).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_buckets_do_not_overlap() {
        let mut last = None;
        for index in 0..BUCKETS {
            let end = upper_end(index);
            assert_eq!(bucket_of(end), index);
            if let Some(last) = last {
                assert_eq!(bucket_of(last + 1), index);
            }
            last = end.checked_add(1).map(|next| next - 1);
        }
        assert_eq!(upper_end(BUCKETS - 1), u64::MAX);
    }

    #[test]
    fn quantiles_are_at_most_an_eighth_too_high() {
        let mut histogram = Histogram::new();
        let values: alloc::vec::Vec<u64> = (0..5000u64).map(|i| i * i * 37).collect();
        values.iter().for_each(|value| histogram.record(*value));
        for per_mille in [1, 100, 500, 900, 990, 999, 1000] {
            let exact = values[(values.len() * per_mille as usize).div_ceil(1000) - 1];
            let told = histogram.quantile(per_mille);
            assert!(told >= exact && told <= exact + exact / 8 + 1, "{per_mille}: {told} for {exact}");
        }
    }

    #[test]
    fn merging_counts_both() {
        let (mut a, mut b) = (Histogram::new(), Histogram::new());
        a.record(5);
        b.record(500);
        a.merge(&b);
        assert_eq!((a.count(), a.max(), a.quantile(500)), (2, 500, 5));
        assert_eq!(Histogram::new().quantile(990), 0);
    }
}
