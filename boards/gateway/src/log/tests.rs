//! The log against a disk that loses what was not flushed.

use alloc::vec::Vec;

use hal::fake::{DiskFaults, FakeDisk, FakeVolume};
use hal::time::{Instant, Span};
use hal::volume::Name;
use node::sample::{BlockBuilder, Samples};
use node::sensor::Flags;

use super::format::BLOCK;
use super::*;

const CONFIG: LogConfig = LogConfig {
    segment_bytes: 16 * BLOCK as u64,
    max_delay: Span::ZERO,
    frame_bytes: 4096,
    retention_bytes: 1 << 30,
    seal_after: Span::ms(50),
};

struct World {
    disk: FakeDisk,
    volume: FakeVolume,
    log: Log<FakeVolume>,
    now: Instant,
    seed: u64,
    config: LogConfig,
}

impl World {
    fn new(seed: u64, config: LogConfig) -> Self {
        let disk = FakeDisk::new(seed);
        let mut world = Self {
            volume: disk.mount(),
            log: Log::new(config, seed),
            disk,
            now: Instant::ZERO,
            seed,
            config,
        };
        world.run(100);
        assert_eq!(world.log.state(), LogState::Ready);
        world
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.now = self.now.after(Span::us(100));
            self.log.step(self.now, &mut self.volume);
        }
    }

    fn reopen(&mut self) {
        self.seed += 1;
        self.volume = self.disk.mount();
        self.log = Log::new(self.config, self.seed);
        self.run(200);
    }

    fn append(&mut self, sequence: u64, samples: u16) -> Result<RecordNo, Full> {
        let mut block = [0; 512];
        let mut builder = BlockBuilder::start(sequence, Instant::from_ns(sequence));
        for i in 0..samples {
            builder.push(
                &mut block,
                Instant::from_ns(sequence + u64::from(i)),
                0,
                Flags::NONE,
                &[i32::from(i)],
            );
        }
        let len = builder.finish(&mut block);
        let record = Record {
            kind: Kind::Samples,
            flags: 0,
            node: 1,
            boot: 1,
            sequence,
            time: Instant::from_ns(sequence),
            payload: &block[..len],
        };
        self.log.append(self.now, &record)
    }

    /// Sample numbers in all segments, in order.
    fn stored(&self) -> Vec<u64> {
        let files: Vec<_> =
            self.disk.files().into_iter().filter(|(name, _)| segment_index(name).is_some()).collect();
        let mut ends: Vec<Option<u64>> = files
            .iter()
            .skip(1)
            .map(|(_, bytes)| super::format::SegmentHeader::parse(bytes).ok().map(|h| h.previous_end))
            .collect();
        ends.push(None);
        let mut numbers = Vec::new();
        for ((_, bytes), end) in files.iter().zip(ends) {
            let walk = Walk::new(bytes, end).unwrap();
            for record in walk.records().filter(|record| record.kind == Kind::Samples) {
                numbers.extend(Samples::parse(record.payload).unwrap().map(|sample| sample.sequence));
            }
        }
        numbers
    }

    fn newest(&self) -> Name {
        self.log.segments().last().unwrap().0
    }
}

#[test]
fn records_become_durable_and_are_there_after_a_restart() {
    let mut world = World::new(1, CONFIG);
    for i in 0..20 {
        world.append(i * 3, 3).unwrap();
        world.run(4);
    }
    assert_eq!(world.log.durable(), RecordNo(20));
    world.disk.kill();
    world.reopen();
    assert_eq!(world.stored(), (0..60).collect::<Vec<_>>());
    assert_eq!(world.log.nodes().next(), Some(NodeEntry { node: 1, boot: 1, next: 60, lost: 0 }));
    assert_eq!(world.log.appended(), RecordNo(20));
}

#[test]
fn nothing_is_durable_before_a_flush_that_follows_the_write() {
    let mut world = World::new(2, CONFIG);
    let flushes = world.disk.flushes();
    world.append(0, 1).unwrap();
    while world.log.durable() == RecordNo(0) {
        assert!(world.disk.flushes() <= flushes + 1);
        world.run(1);
    }
    assert!(world.disk.flushes() > flushes);
}

#[test]
fn segments_rotate_and_the_oldest_make_way_while_the_table_remembers() {
    let mut world = World::new(3, LogConfig { retention_bytes: 4 * CONFIG.segment_bytes, ..CONFIG });
    for i in 0..200 {
        world.append(i, 1).unwrap();
        world.run(6);
    }
    assert!(world.log.counters().retired > 5);
    assert!(world.disk.files().len() <= 5);
    world.disk.kill();
    world.reopen();
    assert_eq!(world.log.nodes().next().map(|entry| entry.next), Some(200));
    let stored = world.stored();
    assert!(stored.len() > 20 && stored.iter().copied().eq(200 - stored.len() as u64..200));
}

#[test]
fn a_failed_flush_is_never_trusted_again_and_nothing_acknowledged_is_lost() {
    for faults in [
        DiskFaults { flushes: 1, ..DiskFaults::default() },
        DiskFaults { writes: 1, ..DiskFaults::default() },
        DiskFaults { short_writes: 1, ..DiskFaults::default() },
    ] {
        let mut world = World::new(4, CONFIG);
        world.append(0, 2).unwrap();
        world.run(10);
        let segment = world.log.segment();
        world.disk.set_faults(faults);
        world.append(2, 2).unwrap();
        world.run(40);
        assert_eq!(world.log.state(), LogState::Ready, "{faults:?}");
        assert_eq!(world.log.durable(), RecordNo(2));
        assert_eq!(world.log.segment(), segment + 1, "the segment is left behind");
        world.disk.power_cut();
        world.reopen();
        assert_eq!(world.stored(), [0, 1, 2, 3], "{faults:?}");
    }
}

#[test]
fn a_disk_that_keeps_failing_makes_the_log_refuse() {
    let mut world = World::new(5, CONFIG);
    world.disk.set_faults(DiskFaults { writes: 100, ..DiskFaults::default() });
    world.append(0, 1).unwrap();
    world.run(40);
    assert!(matches!(world.log.state(), LogState::Failed(LogError::Write(_))));
    assert_eq!(world.append(1, 1), Err(Full));
    assert_eq!(world.log.durable(), RecordNo(0));
}

#[test]
fn a_full_disk_stops_the_log_and_room_starts_it_again() {
    let mut world = World::new(6, CONFIG);
    world.disk.set_faults(DiskFaults { no_room: true, ..DiskFaults::default() });
    let mut sequence = 0;
    while world.append(sequence, 1).is_ok() {
        sequence += 1;
        world.run(6);
        assert!(sequence < 100);
    }
    assert_eq!(world.log.state(), LogState::NoRoom);
    let durable = world.log.durable();
    world.disk.set_faults(DiskFaults::default());
    world.run(11_000); // a second
    assert_eq!(world.log.state(), LogState::Ready);
    assert!(world.log.durable() >= durable);
    world.append(sequence, 1).unwrap();
    world.run(10);
    assert_eq!(world.stored(), (0..=sequence).collect::<Vec<_>>());
}

#[test]
fn a_seal_settles_the_last_record() {
    let mut world = World::new(7, CONFIG);
    world.append(0, 1).unwrap();
    world.run(10);
    assert_eq!((world.log.durable(), world.log.settled()), (RecordNo(1), RecordNo(0)));
    world.run(1_000); // 100 ms
    assert_eq!(world.log.settled(), RecordNo(1));
}

#[test]
fn a_closed_log_says_so_when_it_is_opened_again() {
    let mut world = World::new(8, CONFIG);
    world.append(0, 1).unwrap();
    world.log.close();
    world.run(20);
    assert_eq!(world.log.state(), LogState::Closed);
    world.reopen();
    assert!(world.log.report().closed && world.log.report().rot.is_empty());
    assert_eq!(world.stored(), [0]);
}

#[test]
fn a_torn_tail_is_cut_and_damage_below_the_mark_is_reported_and_skipped() {
    let mut world = World::new(9, CONFIG);
    for i in 0..6 {
        world.append(i, 1).unwrap();
        world.run(10);
    }
    world.disk.kill();
    let newest = world.newest();
    // Frames: table, open, six of data, one block each from block 1 on. The fourth data frame is block 6.
    world.disk.damage(newest, |bytes| bytes[6 * BLOCK + 80] ^= 1);
    world.disk.damage(newest, |bytes| bytes[8 * BLOCK + 3] ^= 1); // the last one: its header
    world.reopen();
    let rot = &world.log.report().rot;
    assert_eq!(rot.len(), 1, "{rot:?}");
    assert_eq!(world.stored(), [0, 1, 2, 4], "the rotten record and the torn tail are missing");
    world.append(5, 1).unwrap();
    world.run(10);
    assert_eq!(world.stored(), [0, 1, 2, 4, 5]);
}

#[test]
fn a_segment_of_a_later_version_is_refused_and_left_alone() {
    let mut world = World::new(10, CONFIG);
    world.disk.kill();
    let newest = world.newest();
    world.disk.damage(newest, |bytes| bytes[7] = b'9');
    let before = world.disk.files();
    world.reopen();
    assert_eq!(world.log.state(), LogState::Failed(LogError::LaterVersion));
    assert_eq!(world.disk.files(), before);
}

#[test]
fn no_flipped_bit_in_a_small_log_panics_or_makes_a_wrong_record() {
    let mut world = World::new(11, CONFIG);
    for i in 0..3 {
        world.append(i, 1).unwrap();
        world.run(10);
    }
    world.run(1_000);
    let bytes = world.disk.files().pop().unwrap().1;
    let truth: Vec<u64> = (0..3).collect();
    for bit in 0..8 * BLOCK * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let Ok(walk) = Walk::new(&damaged, None) else { continue };
        let found: Vec<u64> = walk
            .records()
            .filter(|record| record.kind == Kind::Samples)
            .flat_map(|record| Samples::parse(record.payload).unwrap().map(|s| s.sequence))
            .collect();
        assert!(found.iter().all(|number| truth.contains(number)), "bit {bit}: {found:?}");
        assert!(found.len() >= 2, "bit {bit} lost more than one record: {found:?}");
        assert!(
            found.len() == 3 || !walk.rot.is_empty() || walk.cut > 0 || walk.next_frame < 7,
            "bit {bit} is silent"
        );
    }
}

/// Storms: a crash within a few steps of each opening, faults in between; every record that was told durable is there,
/// once, in order.
#[test]
fn acknowledged_records_survive_storms_of_power_cuts() {
    let mut cuts = 0;
    for seed in 0..400 {
        let mut world = World::new(seed, CONFIG);
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |n: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % n
        };
        let (mut next, mut acknowledged, mut sent) = (0, 0, Vec::new());
        for _life in 0..6 {
            for _ in 0..draw(40) {
                if draw(2) == 0
                    && let Ok(number) = world.append(next, 1)
                {
                    next += 1;
                    sent.push((number, next));
                }
                if draw(40) == 0 {
                    let faults = DiskFaults {
                        writes: u32::from(draw(3) == 0),
                        flushes: u32::from(draw(3) == 0),
                        short_writes: u32::from(draw(3) == 0),
                        no_room: false,
                    };
                    world.disk.set_faults(faults);
                }
                world.run(1);
                let durable = world.log.durable();
                acknowledged = sent
                    .iter()
                    .filter(|(n, _)| *n < durable)
                    .map(|(_, end)| *end)
                    .max()
                    .unwrap_or(0)
                    .max(acknowledged);
            }
            world.disk.set_faults(DiskFaults::default());
            if draw(2) == 0 {
                world.disk.power_cut()
            } else {
                world.disk.kill()
            }
            cuts += 1;
            world.seed += 1000;
            world.volume = world.disk.mount();
            world.log = Log::new(CONFIG, world.seed);
            world.run(usize::try_from(draw(12)).unwrap()); // perhaps the next cut comes before it is open
            if draw(3) == 0 {
                world.disk.power_cut();
                world.volume = world.disk.mount();
                world.log = Log::new(CONFIG, world.seed + 1);
            }
            world.run(200);
            assert_eq!(world.log.state(), LogState::Ready, "seed {seed}");
            let stored = world.stored();
            assert!(stored.iter().copied().eq(0..stored.len() as u64), "seed {seed}: {stored:?}");
            assert!(
                stored.len() as u64 >= acknowledged,
                "seed {seed}: {acknowledged} acknowledged, {stored:?}"
            );
            assert!(world.log.report().rot.is_empty(), "seed {seed}: rot without rot");
            // As a node would: from where the log is.
            next = world.log.nodes().next().map_or(0, |entry| entry.next);
            assert_eq!(next, stored.len() as u64, "seed {seed}");
            sent.clear();
        }
    }
    assert!(cuts > 2_000);
}
