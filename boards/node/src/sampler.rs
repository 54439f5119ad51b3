//! The interrupt handler's half of a node: readings into blocks.
//!
//! [`Sampler::on_interrupt`] runs in the handler: it reads the sensors, numbers the sample and appends it to the open
//! block. A full or old block goes to the task. The work is bounded by one reading and one block hand-over; nothing
//! waits. When no block is free the sample keeps its number and is counted as dropped: the task sees the hole in the
//! numbers and reports it as a gap.

use hal::time::{Instant, Span};

use crate::sample::BlockBuilder;
use crate::sensor::{Flags, MAX_CHANNELS, Sensors};

/// Where blocks come from and go to on the handler's side.
pub trait Sink {
    /// A block to fill, owned.
    type Block: AsMut<[u8]>;
    /// An empty block; `None` while all are in use.
    fn block(&mut self) -> Option<Self::Block>;
    /// Hands a block with `len` bytes to the task.
    ///
    /// # Errors
    ///
    /// The block comes back when the task has no room for it.
    fn put(&mut self, block: Self::Block, len: usize) -> Result<(), Self::Block>;
}

/// Counters of the handler's half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SamplerCounters {
    /// Samples made, dropped ones included: the next sequence number.
    pub made: u64,
    /// Samples for which no block was free.
    pub dropped: u64,
    /// Readings that reported a fault of the sensor.
    pub sensor_faults: u64,
}

/// Fills blocks with samples. One for all groups of a node: handlers that share it must not interrupt each other.
#[derive(Debug)]
pub struct Sampler<K: Sink> {
    sink: K,
    open: Option<(K::Block, BlockBuilder)>,
    flush_after: Span,
    counters: SamplerCounters,
}

impl<K: Sink> Sampler<K> {
    /// A sampler that hands a block over when it is full, or with the first sample that comes `flush_after` after the
    /// block's first: what a reading may wait for company.
    pub const fn new(sink: K, flush_after: Span) -> Self {
        let counters = SamplerCounters { made: 0, dropped: 0, sensor_faults: 0 };
        Self { sink, open: None, flush_after, counters }
    }

    /// Reads `sensors` for the interrupt that arrived at `arrived`; `now` is the time at which its handler began, `flags`
    /// what the controller knows about this interrupt.
    pub fn on_interrupt(&mut self, sensors: &mut impl Sensors, arrived: Instant, now: Instant, flags: Flags) {
        let mut values = [0; MAX_CHANNELS];
        let flags = flags.with(sensors.read(arrived, now, &mut values));
        let group = sensors.group();
        let values = values.get(..group.channels.len()).unwrap_or(&values);
        let sequence = self.counters.made;
        self.counters.made = sequence.saturating_add(1);
        if flags.has(Flags::SENSOR_FAULT) {
            self.counters.sensor_faults = self.counters.sensor_faults.saturating_add(1);
        }
        if !self.append(sequence, arrived, group.id, flags, values) {
            self.counters.dropped = self.counters.dropped.saturating_add(1);
        }
        if self.open.as_ref().is_some_and(|(_, builder)| arrived.since(builder.base()) >= self.flush_after) {
            self.hand_over();
        }
    }

    /// Hands the open block over as it is: at a stop, or when the interrupts pause.
    pub fn flush(&mut self) {
        self.hand_over();
    }

    /// Counters now.
    pub const fn counters(&self) -> SamplerCounters {
        self.counters
    }

    /// False: there was no block to put it in.
    fn append(&mut self, sequence: u64, time: Instant, group: u8, flags: Flags, values: &[i32]) -> bool {
        if let Some((block, builder)) = &mut self.open {
            // Numbers in a block are consecutive; after a dropped sample a new one starts.
            if builder.end() == sequence && builder.push(block.as_mut(), time, group, flags, values) {
                return true;
            }
            self.hand_over();
        }
        if self.open.is_some() {
            return false; // the task has no room: the open block waits, this sample is lost
        }
        let Some(mut block) = self.sink.block() else { return false };
        let mut builder = BlockBuilder::start(sequence, time);
        let fits = builder.push(block.as_mut(), time, group, flags, values);
        self.open = Some((block, builder));
        fits
    }

    fn hand_over(&mut self) {
        let Some((mut block, builder)) = self.open.take() else { return };
        if builder.count() == 0 {
            return; // dropping it gives it back
        }
        let len = builder.finish(block.as_mut());
        if let Err(block) = self.sink.put(block, len) {
            self.open = Some((block, builder));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Samples;
    use crate::sensor::{Channel, Group};
    use alloc::vec::Vec;

    struct Counting(i32);
    const CHANNELS: [Channel<'static>; 1] =
        [Channel { name: "n", unit: "", exponent: 0, min: 0, max: i32::MAX }];
    impl Sensors for Counting {
        fn group(&self) -> Group<'_> {
            Group { id: 0, period: Span::ms(1), deadline: Span::ms(1), channels: &CHANNELS }
        }
        fn read(&mut self, _arrived: Instant, _now: Instant, values: &mut [i32; MAX_CHANNELS]) -> Flags {
            values[0] = self.0;
            self.0 += 1;
            Flags::NONE
        }
    }

    /// Blocks of 60 bytes: three samples of one value each.
    #[derive(Default)]
    struct Bounded {
        free: usize,
        room: usize,
        filled: Vec<Vec<u8>>,
    }
    impl Sink for &mut Bounded {
        type Block = Vec<u8>;
        fn block(&mut self) -> Option<Vec<u8>> {
            self.free = self.free.checked_sub(1)?;
            Some(alloc::vec![0; 60])
        }
        fn put(&mut self, mut block: Vec<u8>, len: usize) -> Result<(), Vec<u8>> {
            if self.filled.len() == self.room {
                return Err(block);
            }
            block.truncate(len);
            self.filled.push(block);
            Ok(())
        }
    }

    fn run(bounded: &mut Bounded, samples: u64, flush_after: Span) -> SamplerCounters {
        let mut sensors = Counting(0);
        let mut sampler = Sampler::new(bounded, flush_after);
        for ms in 0..samples {
            let at = Instant::ZERO.after(Span::ms(ms));
            sampler.on_interrupt(&mut sensors, at, at, Flags::NONE);
        }
        sampler.flush();
        sampler.counters()
    }

    fn sequences(bounded: &Bounded) -> Vec<(u64, i32)> {
        let blocks = bounded.filled.iter();
        blocks.flat_map(|block| Samples::parse(block).unwrap()).map(|s| (s.sequence, s.values()[0])).collect()
    }

    #[test]
    fn every_sample_lands_in_a_block_in_order() {
        let mut bounded = Bounded { free: 10, room: 10, ..Bounded::default() };
        let counters = run(&mut bounded, 10, Span::secs(1));
        assert_eq!((counters.made, counters.dropped), (10, 0));
        assert_eq!(sequences(&bounded), (0..10u64).zip(0..10i32).collect::<Vec<_>>());
        assert_eq!(bounded.filled.len(), 4, "three samples a block");
    }

    #[test]
    fn a_block_goes_when_its_first_sample_has_waited_long_enough() {
        let mut bounded = Bounded { free: 10, room: 10, ..Bounded::default() };
        run(&mut bounded, 4, Span::ms(1));
        assert_eq!(bounded.filled.len(), 2);
    }

    #[test]
    fn without_a_free_block_samples_keep_their_numbers_and_are_counted() {
        let mut bounded = Bounded { free: 2, room: 10, ..Bounded::default() };
        let counters = run(&mut bounded, 9, Span::secs(1));
        assert_eq!((counters.made, counters.dropped), (9, 3));
        assert_eq!(sequences(&bounded).len(), 6);
    }

    #[test]
    fn a_task_without_room_leaves_the_open_block_to_be_handed_over_later() {
        let mut bounded = Bounded { free: 10, room: 1, ..Bounded::default() };
        let mut sensors = Counting(0);
        let at = |ms| Instant::ZERO.after(Span::ms(ms));
        let mut sampler = Sampler::new(&mut bounded, Span::secs(1));
        (0..8).for_each(|ms| sampler.on_interrupt(&mut sensors, at(ms), at(ms), Flags::NONE));
        assert_eq!(sampler.counters().dropped, 2);
        sampler.sink.room = 10;
        (8..10).for_each(|ms| sampler.on_interrupt(&mut sensors, at(ms), at(ms), Flags::NONE));
        sampler.flush();
        let numbers: Vec<u64> = sequences(&bounded).into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 8, 9], "the two in between are a gap that the task reports");
    }
}
