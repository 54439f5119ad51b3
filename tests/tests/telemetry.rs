//! The main job in virtual time: a node's interrupts, its session over a faulty network, the gateway and its log on a
//! disk that loses what was not flushed. Everything repeats from its seed.

extern crate alloc;

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};

use gateway::log::{LogConfig, Walk};
use gateway::{Gateway, GatewayConfig};
use hal::fake::net::{Faults, Host, Net, Port};
use hal::fake::{FakeDisk, FakeVolume};
use hal::time::{Instant, Span};
use net_core::{Config, EndpointConfig};
use node::app::{Blocks, Identity, Keep, NodeApp};
use node::message::Status;
use node::sample::Samples;
use node::sampler::{Sampler, Sink};
use node::sensor::{Channel, Flags, Group, MAX_CHANNELS, Sensors};

const GATEWAY: Host = 1;
const NODE: Host = 2;
const CHANNELS: [Channel<'static>; 1] = [Channel { name: "n", unit: "", exponent: 0, min: 0, max: i32::MAX }];
const GROUP: Group<'static> =
    Group { id: 0, period: Span::ms(1), deadline: Span::ms(1), channels: &CHANNELS };

/// Each reading is one more than the last, so that a sample's value is its number.
struct Counting(i32);
impl Sensors for Counting {
    fn group(&self) -> Group<'_> {
        GROUP
    }
    fn read(&mut self, _arrived: Instant, _now: Instant, values: &mut [i32; MAX_CHANNELS]) -> Flags {
        values[0] = self.0;
        self.0 += 1;
        Flags::NONE
    }
}

/// The pool and the queue between handler and task, as plain as they can be.
#[derive(Clone)]
struct Store {
    filled: Rc<RefCell<VecDeque<Vec<u8>>>>,
    capacity: usize,
    out: Rc<Cell<usize>>,
}
impl Sink for Store {
    type Block = Vec<u8>;
    fn block(&mut self) -> Option<Vec<u8>> {
        let out = self.out.get();
        (out < self.capacity).then(|| {
            self.out.set(out + 1);
            vec![0; 256]
        })
    }
    fn put(&mut self, mut block: Vec<u8>, len: usize) -> Result<(), Vec<u8>> {
        block.truncate(len);
        self.filled.borrow_mut().push_back(block);
        Ok(())
    }
}
/// A block that counts itself back in when it is dropped.
struct Lent(Vec<u8>, Rc<Cell<usize>>);
impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
impl Drop for Lent {
    fn drop(&mut self) {
        self.1.set(self.1.get() - 1);
    }
}
impl Blocks for Store {
    type Block = Lent;
    fn take(&mut self) -> Option<Lent> {
        let block = self.filled.borrow_mut().pop_front()?;
        Some(Lent(block, Rc::clone(&self.out)))
    }
    fn free(&self) -> usize {
        self.capacity - self.out.get()
    }
}

type App = NodeApp<'static, Host, Lent, 512, 8192, 2048, 64>;

struct World {
    now: Instant,
    net: Net,
    disk: FakeDisk,
    gateway: Option<(Gateway<Host, FakeVolume>, Port, FakeVolume)>,
    node: App,
    node_port: Port,
    sampler: Sampler<Store>,
    store: Store,
    sensors: Counting,
    seed: u64,
    /// What the node was told is durable, ever.
    acknowledged: u64,
}

const LOG: LogConfig = LogConfig {
    segment_bytes: 256 * 1024,
    max_delay: Span::ms(5),
    frame_bytes: 16 * 1024,
    retention_bytes: 1 << 30,
    seal_after: Span::ms(50),
};

impl World {
    fn new(seed: u64, faults: Faults, keep: Keep, capacity: usize) -> Self {
        let net = Net::new(seed, faults);
        let store = Store { filled: Rc::default(), capacity, out: Rc::default() };
        let identity = Identity { node: 7, name: "test", firmware: "0", groups: &[GROUP] };
        let config =
            Config { keep_alive: Some(Span::ms(500)), idle_timeout: Span::secs(3), ..Config::default() };
        let mut world = Self {
            now: Instant::ZERO,
            disk: FakeDisk::new(seed),
            gateway: None,
            node: NodeApp::new(identity, keep, config, seed, Instant::ZERO, GATEWAY),
            node_port: net.port(NODE),
            sampler: Sampler::new(store.clone(), Span::ms(10)),
            store,
            sensors: Counting(0),
            seed,
            acknowledged: 0,
            net,
        };
        world.start_gateway();
        world
    }

    fn start_gateway(&mut self) {
        self.seed += 1;
        let connection = Config { idle_timeout: Span::secs(3), ..Config::default() };
        let endpoint = EndpointConfig { connection, ..EndpointConfig::default() };
        let gateway = Gateway::new(GatewayConfig { log: LOG, endpoint }, self.seed, self.now);
        self.gateway = Some((gateway, self.net.port(GATEWAY), self.disk.mount()));
    }

    /// `ms` milliseconds, an interrupt in each when `sampling`.
    fn run(&mut self, ms: u64, sampling: bool) {
        for _ in 0..ms {
            self.now = self.now.after(Span::ms(1));
            self.net.set_now(self.now);
            if sampling {
                self.sampler.on_interrupt(&mut self.sensors, self.now, self.now, Flags::NONE);
            }
            for _ in 0..3 {
                self.node.step(self.now, &mut self.node_port, &mut self.store, &Status::default());
                if let Some((gateway, port, volume)) = &mut self.gateway {
                    gateway.step(self.now, None, port, volume);
                }
            }
            let told = self.node.counters().acknowledged;
            assert!(told >= self.acknowledged, "an acknowledgement went back");
            self.acknowledged = told;
        }
    }

    /// Lets everything arrive that was made.
    fn settle(&mut self) {
        self.net.set_faults(Faults::default());
        self.sampler.flush();
        for _ in 0..30 {
            self.run(1_000, false);
            if self.node.is_settled() && self.acknowledged == self.sampler.counters().made {
                break;
            }
        }
        assert!(self.node.is_settled(), "not all arrived within 30 s: {:?}", self.node);
    }

    /// Ranges of sample numbers in the log: true for samples, false for gaps; the values are checked.
    fn logged(&self) -> Vec<(u64, u64, bool)> {
        let mut ranges: Vec<(u64, u64, bool)> = Vec::new();
        let files = self.disk.files();
        let segments: Vec<_> = files.iter().filter(|(name, _)| name.as_str().ends_with(".gpl")).collect();
        let ends = segments.iter().skip(1).map(|(_, bytes)| {
            gateway::log::format::SegmentHeader::parse(bytes).ok().map(|header| header.previous_end)
        });
        for ((_, bytes), end) in segments.iter().zip(ends.chain([None])) {
            for record in Walk::new(bytes, end).unwrap().records() {
                let Some(end) = record.end() else { continue };
                let is_samples = record.gap().is_none();
                if is_samples {
                    for sample in Samples::parse(record.payload).unwrap() {
                        assert_eq!(sample.values(), [i32::try_from(sample.sequence).unwrap()]);
                    }
                }
                match ranges.last_mut().filter(|last| last.2 == is_samples && last.1 == record.sequence) {
                    Some(last) => last.1 = end,
                    None => ranges.push((record.sequence, end, is_samples)),
                }
            }
        }
        ranges
    }
}

#[test]
fn every_sample_is_logged_once_in_order_over_a_perfect_network() {
    let mut world = World::new(1, Faults::default(), Keep::Newest, 500);
    world.run(3_000, true);
    world.settle();
    assert_eq!(world.logged(), [(0, 3_000, true)]);
}

#[test]
fn every_sample_is_logged_once_in_order_over_a_bad_network() {
    let mut fired = [0; 5];
    for seed in 0..20 {
        let faults = Faults {
            delay: Span::ms(3),
            jitter: Span::ms(2),
            loss: 30_000,
            duplicate: 20_000,
            reorder: 30_000,
            reorder_by: Span::ms(8),
            corrupt: 10_000,
            truncate: 5_000,
            ..Faults::default()
        };
        let mut world = World::new(seed, faults, Keep::Newest, 500);
        world.run(2_000, true);
        world.settle();
        assert_eq!(world.logged(), [(0, 2_000, true)], "seed {seed}");
        let f = world.net.fired();
        for (sum, count) in
            fired.iter_mut().zip([f.lost, f.duplicated, f.reordered, f.corrupted, f.truncated])
        {
            *sum += count;
        }
    }
    assert!(fired.iter().all(|count| *count > 0), "a fault never struck: {fired:?}");
}

#[test]
fn acknowledged_samples_survive_power_cuts_of_the_gateway() {
    for seed in 0..30 {
        let mut world = World::new(seed, Faults { loss: 10_000, ..Faults::default() }, Keep::Newest, 500);
        for life in 0..5 {
            world.run(200 + 37 * (seed % 7) + life * 11, true);
            world.gateway = None;
            if (seed + life).is_multiple_of(2) {
                world.disk.power_cut()
            } else {
                world.disk.kill()
            }
            let had = world.logged().last().map_or(0, |range| range.1);
            assert!(
                had >= world.acknowledged,
                "seed {seed}: {} acknowledged, {had} there",
                world.acknowledged
            );
            world.run(100, true);
            world.start_gateway();
        }
        world.settle();
        assert_eq!(world.logged(), [(0, world.sampler.counters().made, true)], "seed {seed}");
    }
}

#[test]
fn what_a_long_absence_of_the_gateway_costs_is_a_gap_with_exact_borders() {
    for keep in [Keep::Newest, Keep::Oldest] {
        let mut world = World::new(5, Faults::default(), keep, 20);
        world.run(500, true);
        world.gateway = None;
        world.disk.kill();
        world.run(3_000, true);
        world.start_gateway();
        world.run(8_000, true);
        world.settle();
        let logged = world.logged();
        let made = world.sampler.counters().made;
        assert_eq!(logged.len(), 3, "samples, one gap, samples: {logged:?}");
        assert!(logged.windows(2).all(|pair| pair[0].1 == pair[1].0), "no hole: {logged:?}");
        assert_eq!((logged[0].0, logged[2].1), (0, made));
        assert!(!logged[1].2, "{logged:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_log() {
    let run = || {
        let mut world = World::new(
            9,
            Faults { loss: 50_000, delay: Span::ms(2), ..Faults::default() },
            Keep::Newest,
            500,
        );
        world.run(1_000, true);
        world.settle();
        world.disk.files()
    };
    assert_eq!(run(), run());
}
