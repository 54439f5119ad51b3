//! What a channel did in the last minute, hour and day, in bounded memory.
//!
//! Each channel keeps three rings of buckets: 60 of 1 s, 60 of 1 min, 96 of 15 min. A bucket holds least, greatest and
//! mean, so a plot shows a band instead of hiding the extremes, and a bucket without samples stays a gap. A sample that
//! arrives late (backfill after an outage) is put where its time belongs, and marks the bucket.

use alloc::boxed::Box;

use hal::time::{Instant, Span};

/// A span of time that a plot shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// 60 buckets of a second.
    Minute,
    /// 60 buckets of a minute.
    Hour,
    /// 96 buckets of a quarter of an hour.
    Day,
}

impl Range {
    /// All ranges, shortest first.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// Length of a bucket.
    pub const fn step(self) -> Span {
        match self {
            Self::Minute => Span::secs(1),
            Self::Hour => Span::secs(60),
            Self::Day => Span::secs(900),
        }
    }

    /// Number of buckets.
    pub const fn buckets(self) -> usize {
        match self {
            Self::Minute | Self::Hour => 60,
            Self::Day => 96,
        }
    }
}

/// The samples of one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Number of the bucket: its start divided by the range's step.
    pub number: u64,
    /// Samples in it.
    pub count: u32,
    /// Least raw value.
    pub min: i32,
    /// Greatest raw value.
    pub max: i32,
    /// Sum of raw values, for the mean.
    pub sum: i64,
    /// At least one sample came more than [`LATE`] after its time.
    pub late: bool,
}

impl Bucket {
    /// The mean raw value.
    pub fn mean(&self) -> f64 {
        // Plots need no more than the 53 bits of a double.
        #[allow(clippy::cast_precision_loss, reason = "shown, not computed with")]
        let sum = self.sum as f64;
        sum / f64::from(self.count.max(1))
    }
}

/// A sample that comes later than this after its time counts as backfilled.
pub const LATE: Span = Span::secs(5);

/// The three rings of one channel: about 11 KiB.
#[derive(Debug, Clone)]
pub struct History {
    rings: [Box<[Option<Bucket>]>; 3],
    last: Option<(Instant, i32)>,
}

impl Default for History {
    fn default() -> Self {
        Self { rings: Range::ALL.map(|range| alloc::vec![None; range.buckets()].into()), last: None }
    }
}

impl History {
    /// Puts `value`, taken at `time` (gateway clock), where it belongs; `now` is the time of arrival. A time older than
    /// a ring reaches back changes nothing in that ring.
    pub fn add(&mut self, now: Instant, time: Instant, value: i32) {
        let late = now.since(time) > LATE;
        for (ring, range) in self.rings.iter_mut().zip(Range::ALL) {
            let number = time.as_ns() / range.step().as_ns();
            let Some(slot) = slot(ring.len(), number).and_then(|index| ring.get_mut(index)) else { continue };
            let fresh = Bucket { number, count: 0, min: value, max: value, sum: 0, late: false };
            let bucket = match slot {
                Some(bucket) if bucket.number > number => continue,
                Some(bucket) if bucket.number == number => bucket,
                _ => slot.insert(fresh),
            };
            bucket.count = bucket.count.saturating_add(1);
            bucket.min = bucket.min.min(value);
            bucket.max = bucket.max.max(value);
            bucket.sum = bucket.sum.saturating_add(i64::from(value));
            bucket.late |= late;
        }
        if self.last.is_none_or(|(newest, _)| newest <= time) {
            self.last = Some((time, value));
        }
    }

    /// The newest sample by its own time, and its value.
    pub const fn last(&self) -> Option<(Instant, i32)> {
        self.last
    }

    /// The buckets of `range` up to `now`, oldest first; `None` where no sample was.
    pub fn buckets(&self, range: Range, now: Instant) -> impl Iterator<Item = Option<Bucket>> + '_ {
        let newest = now.as_ns() / range.step().as_ns();
        let [minute, hour, day] = &self.rings;
        let ring = match range {
            Range::Minute => minute,
            Range::Hour => hour,
            Range::Day => day,
        };
        let oldest = (newest + 1).saturating_sub(ring.len() as u64);
        (oldest..=newest).map(move |number| {
            let index = slot(ring.len(), number)?;
            (*ring.get(index)?).filter(|bucket| bucket.number == number)
        })
    }
}

fn slot(len: usize, number: u64) -> Option<usize> {
    usize::try_from(number % len as u64).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn at(secs: u64) -> Instant {
        Instant::ZERO.after(Span::secs(secs))
    }

    #[test]
    fn a_bucket_keeps_least_greatest_and_mean() {
        let mut history = History::default();
        for value in [3, -9, 30] {
            history.add(at(100), at(100), value);
        }
        let bucket = history.buckets(Range::Minute, at(100)).last().flatten().unwrap();
        assert_eq!((bucket.min, bucket.max, bucket.count, bucket.late), (-9, 30, 3, false));
        assert!((bucket.mean() - 8.0).abs() < 1e-9);
    }

    #[test]
    fn silence_stays_a_gap() {
        let mut history = History::default();
        history.add(at(100), at(100), 1);
        history.add(at(103), at(103), 1);
        let shown: Vec<bool> = history.buckets(Range::Minute, at(104)).map(|b| b.is_some()).collect();
        assert_eq!(shown[shown.len() - 5..], [true, false, false, true, false]);
    }

    #[test]
    fn backfill_lands_at_its_own_time_marked_and_does_not_become_the_current_value() {
        let mut history = History::default();
        history.add(at(100), at(100), 1);
        history.add(at(100), at(60), 77);
        let shown: Vec<Option<Bucket>> = history.buckets(Range::Minute, at(100)).collect();
        let filled = shown[shown.len() - 41].unwrap();
        assert_eq!((filled.max, filled.late), (77, true));
        assert_eq!(history.last(), Some((at(100), 1)));
    }

    #[test]
    fn what_is_older_than_a_ring_does_not_overwrite_what_is_newer() {
        let mut history = History::default();
        history.add(at(120), at(120), 5);
        history.add(at(120), at(60), 6); // the same slot of the minute ring
        let bucket = history.buckets(Range::Minute, at(120)).last().flatten().unwrap();
        assert_eq!((bucket.max, bucket.count), (5, 1));
    }
}
