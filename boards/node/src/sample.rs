//! How samples lie in a block.
//!
//! A block is one message to the gateway and one record in its log. All numbers are little-endian.
//!
//! | bytes | field |
//! | --- | --- |
//! | 0 | kind of message, 3 ([`crate::message::KIND_SAMPLES`]) |
//! | 1 | 0 |
//! | 2..4 | number of samples |
//! | 4..8 | length of the entries in bytes |
//! | 8..16 | sequence number of the first sample in this boot of the node |
//! | 16..24 | base time: the node's clock, ns |
//! | 24.. | the samples, one behind the other |
//!
//! | bytes of a sample | field |
//! | --- | --- |
//! | 0..4 | time after the base, ns |
//! | 4 | group |
//! | 5 | [`Flags`] |
//! | 6 | number of values |
//! | 7 | 0 |
//! | 8.. | the values, 4 bytes each, two's complement |
//!
//! A sample can be read without knowing its group, so a reader that has lost the announcement still shows raw numbers.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

use hal::time::Instant;

use crate::codec::{Reader, Writer};
use crate::message::KIND_SAMPLES;
use crate::sensor::{Flags, MAX_CHANNELS};

/// Bytes before the first sample of a block.
pub const BLOCK_HEADER: usize = 24;
/// Bytes of a sample before its values.
pub const SAMPLE_HEADER: usize = 8;

/// One interrupt's reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Number in this boot of the node, from 0 without gaps.
    pub sequence: u64,
    /// The node's clock when the interrupt arrived.
    pub time: Instant,
    /// Which group.
    pub group: u8,
    /// What is special about it.
    pub flags: Flags,
    values: [i32; MAX_CHANNELS],
    count: u8,
}

impl Sample {
    /// The raw values, one for each channel of the group.
    pub fn values(&self) -> &[i32] {
        self.values.get(..usize::from(self.count)).unwrap_or(&[])
    }
}

/// Appends samples to the bytes of a block.
///
/// ```
/// use hal::time::Instant;
/// use node::sample::{BlockBuilder, Samples};
/// use node::sensor::Flags;
///
/// let mut bytes = [0; 128];
/// let mut block = BlockBuilder::start(40, Instant::from_ns(7_000));
/// assert!(block.push(&mut bytes, Instant::from_ns(7_250), 1, Flags::NONE, &[-3, 12]));
/// let len = block.finish(&mut bytes);
/// let sample = Samples::parse(&bytes[..len]).unwrap().next().unwrap();
/// assert_eq!((sample.sequence, sample.time.as_ns(), sample.values()), (40, 7_250, &[-3, 12][..]));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockBuilder {
    first: u64,
    base: Instant,
    count: u16,
    len: usize,
}

impl BlockBuilder {
    /// An empty block whose first sample will have number `first` and a time of `base` or later.
    pub const fn start(first: u64, base: Instant) -> Self {
        Self { first, base, count: 0, len: BLOCK_HEADER }
    }

    /// Number of samples so far.
    pub const fn count(&self) -> u16 {
        self.count
    }

    /// One more than the number of the last sample so far.
    pub const fn end(&self) -> u64 {
        self.first.saturating_add(self.count as u64)
    }

    /// The base time.
    pub const fn base(&self) -> Instant {
        self.base
    }

    /// Adds a sample to `block`, always the same bytes for one builder. False: it does not fit (room, or more than
    /// 4.29 s after the base) and nothing is changed; finish this block and start another.
    pub fn push(&mut self, block: &mut [u8], time: Instant, group: u8, flags: Flags, values: &[i32]) -> bool {
        let (Some(room), Ok(after), Ok(count)) = (
            block.get_mut(self.len..),
            u32::try_from(time.since(self.base).as_ns()),
            u8::try_from(values.len().min(MAX_CHANNELS)),
        ) else {
            return false;
        };
        let Some(total) = self.count.checked_add(1) else { return false };
        let mut w = Writer::new(room);
        w.u32(after);
        w.u8(group);
        w.u8(flags.0);
        w.u8(count);
        w.u8(0);
        for value in values.iter().take(usize::from(count)) {
            w.i32(*value);
        }
        let Some(len) = w.finish() else { return false };
        self.len = self.len.saturating_add(len);
        self.count = total;
        true
    }

    /// Writes the header into `block` and returns the block's length in bytes.
    pub fn finish(&self, block: &mut [u8]) -> usize {
        let entries = self.len.saturating_sub(BLOCK_HEADER);
        write_header(block, self.count, entries, self.first, self.base);
        self.len
    }
}

fn write_header(block: &mut [u8], count: u16, entries: usize, first: u64, base: Instant) {
    let mut w = Writer::new(block);
    w.u8(KIND_SAMPLES);
    w.u8(0);
    w.u16(count);
    w.u32(u32::try_from(entries).unwrap_or(u32::MAX));
    w.u64(first);
    w.u64(base.as_ns());
}

/// The samples of a block, in order. Made only from a block that is whole: iterating cannot fail.
#[derive(Debug, Clone)]
pub struct Samples<'a> {
    entries: Reader<'a>,
    next: u64,
    left: u16,
    base: Instant,
}

impl<'a> Samples<'a> {
    /// Checks the whole of a block: lengths, counts and the kind byte. `None` when anything is off; bytes behind the
    /// block are off, too.
    pub fn parse(block: &'a [u8]) -> Option<Self> {
        let mut r = Reader::new(block);
        if r.u8()? != KIND_SAMPLES || r.u8()? != 0 {
            return None;
        }
        let (left, len) = (r.u16()?, r.u32()?);
        let (next, base) = (r.u64()?, Instant::from_ns(r.u64()?));
        next.checked_add(u64::from(left))?;
        if r.rest().len() != usize::try_from(len).ok()? || left == 0 {
            return None;
        }
        let samples = Self { entries: Reader::new(r.rest()), next, left, base };
        let mut walk = samples.clone();
        let counted = walk.by_ref().count();
        (counted == usize::from(left) && walk.entries.rest().is_empty()).then_some(samples)
    }

    /// Number of the next sample.
    pub const fn first(&self) -> u64 {
        self.next
    }

    /// One more than the number of the last sample.
    pub const fn end(&self) -> u64 {
        self.next.saturating_add(self.left as u64)
    }

    /// The block's base time.
    pub const fn base(&self) -> Instant {
        self.base
    }

    /// Samples not yet taken.
    pub const fn len(&self) -> usize {
        self.left as usize
    }

    /// Whether all have been taken.
    pub const fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Writes the samples that have not been taken yet as a block of their own into `out` and returns its length;
    /// `None` when it does not fit.
    pub fn write_rest(&self, out: &mut [u8]) -> Option<usize> {
        let entries = self.entries.rest();
        let len = BLOCK_HEADER.checked_add(entries.len())?;
        out.get_mut(BLOCK_HEADER..len)?.copy_from_slice(entries);
        write_header(out, self.left, entries.len(), self.next, self.base);
        Some(len)
    }
}

impl Iterator for Samples<'_> {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        if self.left == 0 {
            return None;
        }
        let mut r = self.entries;
        let (after, group, flags, count) = (r.u32()?, r.u8()?, Flags(r.u8()?), r.u8()?);
        if r.u8()? != 0 || usize::from(count) > MAX_CHANNELS {
            return None;
        }
        let mut values = [0; MAX_CHANNELS];
        for value in values.iter_mut().take(usize::from(count)) {
            *value = r.i32()?;
        }
        let sequence = self.next;
        self.entries = r;
        self.next = self.next.wrapping_add(1); // `parse` made sure that `end` is a number
        self.left = self.left.saturating_sub(1);
        let time = self.base.after(hal::time::Span::ns(u64::from(after)));
        Some(Sample { sequence, time, group, flags, values, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hal::time::Span;

    fn block(first: u64, samples: u16) -> alloc::vec::Vec<u8> {
        let mut bytes = [0; 1024];
        let mut b = BlockBuilder::start(first, Instant::from_ns(1_000));
        for i in 0..samples {
            let values = [i32::from(i), -1, i32::MIN];
            assert!(b.push(&mut bytes, Instant::from_ns(1_000 + u64::from(i)), 2, Flags::LATE, &values));
        }
        let len = b.finish(&mut bytes);
        bytes[..len].to_vec()
    }

    #[test]
    fn samples_come_back_as_they_were_pushed() {
        let bytes = block(100, 5);
        let samples = Samples::parse(&bytes).unwrap();
        assert_eq!((samples.first(), samples.end(), samples.base()), (100, 105, Instant::from_ns(1_000)));
        for (i, s) in samples.enumerate() {
            assert_eq!(s.sequence, 100 + i as u64);
            assert_eq!(s.time.as_ns(), 1_000 + i as u64);
            assert_eq!((s.group, s.flags, s.values()[2]), (2, Flags::LATE, i32::MIN));
        }
    }

    #[test]
    fn a_block_that_is_cut_or_has_a_tail_is_refused() {
        let bytes = block(0, 3);
        for len in 0..bytes.len() {
            assert!(Samples::parse(&bytes[..len]).is_none(), "cut to {len}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(Samples::parse(&longer).is_none());
    }

    #[test]
    fn no_changed_byte_makes_parsing_or_iterating_panic() {
        let bytes = block(7, 4);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                if let Some(samples) = Samples::parse(&damaged) {
                    let (len, counted) = (samples.len(), samples.count());
                    assert_eq!(counted, len);
                }
            }
        }
    }

    #[test]
    fn a_sequence_that_would_wrap_is_refused() {
        let mut bytes = block(0, 2);
        bytes[8..16].copy_from_slice(&(u64::MAX - 1).to_le_bytes());
        assert!(Samples::parse(&bytes).is_none());
    }

    #[test]
    fn the_rest_after_some_were_taken_is_a_block_of_its_own() {
        let bytes = block(10, 5);
        let mut samples = Samples::parse(&bytes).unwrap();
        samples.by_ref().take(2).for_each(drop);
        let mut out = [0; 1024];
        let len = samples.write_rest(&mut out).unwrap();
        let rest = Samples::parse(&out[..len]).unwrap();
        assert_eq!((rest.first(), rest.end()), (12, 15));
        assert!(rest.eq(Samples::parse(&bytes).unwrap().skip(2)));
        assert_eq!(samples.write_rest(&mut [0; 30]), None);
    }

    #[test]
    fn a_sample_that_does_not_fit_changes_nothing() {
        let mut bytes = [0; BLOCK_HEADER + SAMPLE_HEADER + 4];
        let mut b = BlockBuilder::start(0, Instant::ZERO);
        assert!(b.push(&mut bytes, Instant::ZERO, 0, Flags::NONE, &[1]));
        let before = b;
        assert!(!b.push(&mut bytes, Instant::ZERO, 0, Flags::NONE, &[]));
        let mut large = [0; 4096];
        assert!(!b.push(&mut large, Instant::ZERO.after(Span::secs(5)), 0, Flags::NONE, &[1]));
        assert_eq!(b, before);
    }
}
