//! A network in memory that loses, repeats, delays, reorders, damages and cuts packets: all from one seed.
//!
//! [`Net`] is the medium in virtual time; each [`Port`] on it is a [`Link`]. Every decision comes from the seed and the
//! order of calls, so a run repeats. Each fault is counted when it strikes ([`Fired`]), because a fault that never struck
//! has tested nothing.
//!
//! ```
//! use hal::fake::net::{Faults, Net};
//! use hal::link::{LinkRx, LinkTx, TxMeta};
//! use hal::time::{Instant, Span};
//!
//! let net = Net::new(7, Faults { delay: Span::ms(5), ..Faults::default() });
//! let (mut a, mut b) = (net.port(1), net.port(2));
//! a.grant(5).unwrap()[..5].copy_from_slice(b"hello");
//! a.commit(TxMeta::new(2, 5));
//! a.flush();
//! assert!(!b.advance());
//! net.set_now(net.next_arrival().unwrap());
//! assert_eq!(net.now(), Instant::from_ns(5_000_000));
//! assert!(b.advance());
//! assert_eq!(b.current().unwrap().data, b"hello");
//! ```

use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;

use crate::link::{Caps, Counters, Ecn, Link, LinkRx, LinkTx, Rx, RxMeta, TxMeta};
use crate::time::{Instant, Span};

/// Names a port.
pub type Host = u32;

/// What one direction between two ports does to packets. Chances are in parts per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Time that each packet takes.
    pub delay: Span,
    /// Further time, drawn for each packet from zero to this. It does not reorder by itself: a packet waits for the one
    /// before it.
    pub jitter: Span,
    /// Lost.
    pub loss: u32,
    /// How many packets in a row each loss takes; the share that is lost stays `loss`.
    pub burst: u32,
    /// Delivered twice.
    pub duplicate: u32,
    /// Held back by up to [`reorder_by`](Self::reorder_by) while others pass.
    pub reorder: u32,
    /// How far a reordered packet is held back at most.
    pub reorder_by: Span,
    /// One bit is flipped.
    pub corrupt: u32,
    /// Cut to a random shorter length.
    pub truncate: u32,
    /// Marked as having met congestion, if the sender takes part.
    pub mark: u32,
    /// Larger packets vanish silently, as on a path with a smaller link in the middle.
    pub path_mtu: usize,
    /// Bytes a second of the bottleneck; `None`: no limit.
    pub rate: Option<u64>,
    /// Bytes that wait in front of the bottleneck at most.
    pub queue: usize,
    /// Bytes that lower layers add to each packet, for the bottleneck.
    pub overhead: usize,
}

impl Default for Faults {
    /// A perfect network without delay.
    fn default() -> Self {
        Self {
            delay: Span::ZERO,
            jitter: Span::ZERO,
            loss: 0,
            burst: 1,
            duplicate: 0,
            reorder: 0,
            reorder_by: Span::ZERO,
            corrupt: 0,
            truncate: 0,
            mark: 0,
            path_mtu: usize::MAX,
            rate: None,
            queue: usize::MAX,
            overhead: 0,
        }
    }
}

/// How often each thing has happened on the whole network. Packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fired {
    /// Sent by the ports.
    pub sent: u64,
    /// Their bytes, lower layers included.
    pub bytes: u64,
    /// Handed to a receiver.
    pub delivered: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Delivered twice.
    pub duplicated: u64,
    /// Held back so that others could pass.
    pub reordered: u64,
    /// Changed by one bit.
    pub corrupted: u64,
    /// Cut short.
    pub truncated: u64,
    /// Marked with congestion.
    pub marked: u64,
    /// Larger than the path carries.
    pub too_big: u64,
    /// Dropped because the queue of the bottleneck was full.
    pub tail_dropped: u64,
    /// Sent while the sender or the receiver was cut off.
    pub cut_off: u64,
    /// Put in by the test itself.
    pub injected: u64,
}

/// The medium. Clones are the same network.
#[derive(Clone, Debug)]
pub struct Net(Rc<RefCell<Inner>>);

#[derive(Debug)]
struct Inner {
    now: Instant,
    random: Random,
    default: Faults,
    paths: BTreeMap<(Host, Host), Path>,
    down: BTreeMap<Host, u32>,
    /// In flight, by time of arrival and then by order of sending.
    flying: BTreeMap<(Instant, u64), Flying>,
    sequence: u64,
    arrived: BTreeMap<Host, VecDeque<Flying>>,
    fired: Fired,
    tap: Option<Vec<(Host, Host, Vec<u8>)>>,
}

#[derive(Debug)]
struct Path {
    faults: Option<Faults>,
    busy_until: Instant,
    last_arrival: Instant,
    burst_left: u32,
}

#[derive(Debug)]
struct Flying {
    from: Host,
    to: Host,
    ecn: Ecn,
    bytes: Vec<u8>,
}

impl Net {
    /// A network on which every path has `faults` until told otherwise, at the start of time.
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            now: Instant::ZERO,
            random: Random::new(seed),
            default: faults,
            paths: BTreeMap::new(),
            down: BTreeMap::new(),
            flying: BTreeMap::new(),
            sequence: 0,
            arrived: BTreeMap::new(),
            fired: Fired::default(),
            tap: None,
        })))
    }

    /// A port with address `host`. A later port of the same address takes over its packets: a restarted machine.
    pub fn port(&self, host: Host) -> Port {
        Port {
            net: self.clone(),
            host,
            mtu: 1500,
            segments: 1,
            ecn: false,
            slot: Vec::new(),
            current: None,
            counters: Counters::default(),
        }
    }

    /// Virtual time.
    pub fn now(&self) -> Instant {
        self.0.borrow().now
    }

    /// Moves virtual time to `now` (never back) and delivers what has arrived by then.
    pub fn set_now(&self, now: Instant) {
        let inner = &mut *self.0.borrow_mut();
        inner.now = inner.now.max(now);
        while let Some(entry) = inner.flying.first_entry() {
            if entry.key().0 > inner.now {
                break;
            }
            let packet = entry.remove();
            inner.arrived.entry(packet.to).or_default().push_back(packet);
        }
    }

    /// When the next packet arrives.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.0.borrow().flying.first_key_value().map(|(&(at, _), _)| at)
    }

    /// Packets wait at a port.
    pub fn has_arrived(&self) -> bool {
        self.0.borrow().arrived.values().any(|queue| !queue.is_empty())
    }

    /// Gives every path without faults of its own these.
    pub fn set_faults(&self, faults: Faults) {
        self.0.borrow_mut().default = faults;
    }

    /// Gives the direction from one port to another faults of its own.
    pub fn set_path(&self, from: Host, to: Host, faults: Faults) {
        self.0.borrow_mut().path(from, to).faults = Some(faults);
    }

    /// Cuts a port off, or connects it again. What it sends, and what is sent to it, is lost meanwhile; what is in flight
    /// already arrives.
    pub fn set_up(&self, host: Host, up: bool) {
        let inner = &mut *self.0.borrow_mut();
        let down = inner.down.entry(host).or_default();
        if down.is_multiple_of(2) != up {
            *down += 1; // odd: cut off; the count is the link's epoch
        }
    }

    /// How often each fault has struck.
    pub fn fired(&self) -> Fired {
        self.0.borrow().fired
    }

    /// Lets a packet arrive as if `from` had sent it, now, whatever the faults: what an adversary does.
    pub fn inject(&self, from: Host, to: Host, bytes: &[u8]) {
        let inner = &mut *self.0.borrow_mut();
        inner.fired.injected += 1;
        let at = inner.now;
        inner.fly(at, Flying { from, to, ecn: Ecn::NotEct, bytes: bytes.to_vec() });
    }

    /// Starts to record what ports send, as (from, to, bytes), and gives back what was recorded so far.
    pub fn tap(&self) -> Vec<(Host, Host, Vec<u8>)> {
        self.0.borrow_mut().tap.replace(Vec::new()).unwrap_or_default()
    }
}

impl Inner {
    fn path(&mut self, from: Host, to: Host) -> &mut Path {
        self.paths.entry((from, to)).or_insert(Path {
            faults: None,
            busy_until: Instant::ZERO,
            last_arrival: Instant::ZERO,
            burst_left: 0,
        })
    }

    fn is_up(&self, host: Host) -> bool {
        self.down.get(&host).is_none_or(|down| down.is_multiple_of(2))
    }

    fn send(&mut self, mut packet: Flying) {
        let (now, default) = (self.now, self.default);
        let size = packet.bytes.len();
        if let Some(tap) = &mut self.tap {
            tap.push((packet.from, packet.to, packet.bytes.clone()));
        }
        let faults = self.path(packet.from, packet.to).faults.unwrap_or(default);
        let on_wire = (size + faults.overhead) as u64;
        self.fired.sent += 1;
        self.fired.bytes += on_wire;
        if !self.is_up(packet.from) || !self.is_up(packet.to) {
            self.fired.cut_off += 1;
            return;
        }
        if size > faults.path_mtu {
            self.fired.too_big += 1;
            return;
        }
        let path = self.path(packet.from, packet.to);
        if let Some(rate) = faults.rate {
            let time = |bytes: u64| Span::ns(bytes.saturating_mul(1_000_000_000) / rate.max(1));
            let ahead = path.busy_until.since(now);
            if ahead.plus(time(on_wire)) > time(faults.queue as u64) {
                self.fired.tail_dropped += 1;
                return;
            }
            path.busy_until = path.busy_until.max(now).after(time(on_wire));
        }
        let leaves = if faults.rate.is_some() { path.busy_until } else { now };
        if self.is_lost(&packet, &faults) {
            self.fired.lost += 1;
            return;
        }
        let extra = Span::ns(self.random.below(faults.jitter.as_ns() + 1));
        let mut arrives = leaves.after(faults.delay).after(extra);
        if self.random.chance(faults.reorder) {
            self.fired.reordered += 1;
            arrives = arrives.after(Span::ns(1 + self.random.below(faults.reorder_by.as_ns().max(1))));
        } else {
            let path = self.path(packet.from, packet.to);
            path.last_arrival = path.last_arrival.max(arrives);
            arrives = path.last_arrival;
        }
        self.damage(&mut packet, &faults);
        if self.random.chance(faults.duplicate) {
            self.fired.duplicated += 1;
            let late = arrives.after(Span::ns(self.random.below(faults.reorder_by.as_ns() + 1)));
            let copy = Flying { bytes: packet.bytes.clone(), ..packet };
            self.fly(late, copy);
        }
        self.fly(arrives, packet);
    }

    fn is_lost(&mut self, packet: &Flying, faults: &Faults) -> bool {
        let struck = self.random.chance(faults.loss / faults.burst.max(1));
        let path = self.path(packet.from, packet.to);
        if struck {
            path.burst_left = faults.burst.max(1);
        }
        let lost = path.burst_left > 0;
        path.burst_left = path.burst_left.saturating_sub(1);
        lost
    }

    fn damage(&mut self, packet: &mut Flying, faults: &Faults) {
        if self.random.chance(faults.corrupt) && !packet.bytes.is_empty() {
            self.fired.corrupted += 1;
            let bit = self.random.index(packet.bytes.len() * 8);
            packet.bytes[bit / 8] ^= 1 << (bit % 8);
        }
        if self.random.chance(faults.truncate) {
            self.fired.truncated += 1;
            let len = self.random.index(packet.bytes.len().max(1));
            packet.bytes.truncate(len);
        }
        if self.random.chance(faults.mark) && packet.ecn != Ecn::NotEct {
            self.fired.marked += 1;
            packet.ecn = Ecn::Ce;
        }
    }

    fn fly(&mut self, at: Instant, packet: Flying) {
        self.sequence += 1;
        self.flying.insert((at, self.sequence), packet);
    }
}

/// A link on a [`Net`].
#[derive(Debug)]
pub struct Port {
    net: Net,
    host: Host,
    mtu: usize,
    segments: usize,
    ecn: bool,
    slot: Vec<u8>,
    current: Option<Flying>,
    counters: Counters,
}

impl Port {
    /// The address.
    pub fn host(&self) -> Host {
        self.host
    }

    /// What [`Caps`] say: the largest datagram, the datagrams in a train, whether congestion bits are carried.
    pub fn set_caps(&mut self, mtu: usize, segments: usize, ecn: bool) {
        (self.mtu, self.segments, self.ecn) = (mtu, segments.max(1), ecn);
    }
}

impl LinkRx for Port {
    type Addr = Host;

    fn advance(&mut self) -> bool {
        let inner = &mut *self.net.0.borrow_mut();
        self.current = inner.arrived.get_mut(&self.host).and_then(VecDeque::pop_front);
        let came = self.current.is_some();
        self.counters.rx += u64::from(came);
        inner.fired.delivered += u64::from(came);
        came
    }

    fn current(&mut self) -> Option<Rx<'_, Host>> {
        let packet = self.current.as_mut()?;
        let mut meta = RxMeta::new(packet.from, packet.bytes.len());
        meta.ecn = packet.ecn;
        Some(Rx { meta, data: &mut packet.bytes })
    }
}

impl LinkTx for Port {
    type Addr = Host;

    fn caps(&self) -> Caps {
        let inner = self.net.0.borrow();
        let mut caps = Caps::new(self.mtu);
        caps.up = inner.is_up(self.host);
        caps.segments = self.segments;
        caps.ecn = self.ecn;
        caps.epoch = inner.down.get(&self.host).copied().unwrap_or(0);
        caps
    }

    fn grant(&mut self, min: usize) -> Option<&mut [u8]> {
        let len = min.max(self.mtu * self.segments);
        if self.slot.len() < len {
            self.slot = vec![0; len];
        }
        Some(&mut self.slot)
    }

    fn commit(&mut self, meta: TxMeta<Host>) {
        let stride = meta.stride.max(1);
        let Some(train) = self.slot.get(..meta.len) else {
            self.counters.tx_lost += 1;
            return;
        };
        for datagram in train.chunks(stride) {
            if datagram.len() > self.mtu {
                self.counters.too_big += 1;
                continue;
            }
            self.counters.tx += 1;
            self.net.0.borrow_mut().send(Flying {
                from: self.host,
                to: meta.to,
                ecn: if self.ecn { meta.ecn } else { Ecn::NotEct },
                bytes: datagram.to_vec(),
            });
        }
    }

    fn flush(&mut self) -> bool {
        self.counters.calls += 1;
        true
    }
}

impl Link for Port {
    fn counters(&self) -> Counters {
        self.counters
    }
}

/// A small deterministic generator (splitmix64, by Vigna), for simulations only.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator; equal seeds give equal numbers.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to, without, `end`; 0 when `end` is 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        let bits = self.bits();
        if end == 0 { 0 } else { bits % end }
    }

    /// An index into `len` things.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// True in `ppm` of a million cases. Draws nothing when that is never.
    pub const fn chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.below(1_000_000) < ppm as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(port: &mut Port, to: Host, bytes: &[u8]) {
        port.grant(bytes.len()).unwrap()[..bytes.len()].copy_from_slice(bytes);
        port.commit(TxMeta::new(to, bytes.len()));
    }

    fn run(seed: u64) -> (Vec<Vec<u8>>, Fired) {
        let faults = Faults {
            delay: Span::ms(3),
            jitter: Span::ms(1),
            loss: 50_000,
            burst: 3,
            duplicate: 50_000,
            reorder: 50_000,
            reorder_by: Span::ms(5),
            corrupt: 50_000,
            truncate: 50_000,
            path_mtu: 90,
            rate: Some(1_000_000),
            queue: 1000,
            ..Faults::default()
        };
        let net = Net::new(seed, faults);
        let (mut a, mut b) = (net.port(1), net.port(2));
        let mut got = Vec::new();
        for n in 0..3000usize {
            send(&mut a, 2, &vec![n.to_le_bytes()[0]; n % 100]);
            if n % 40 == 0 {
                while let Some(at) = net.next_arrival() {
                    net.set_now(at);
                }
            }
            while b.advance() {
                got.push(b.current().unwrap().data.to_vec());
            }
        }
        (got, net.fired())
    }

    #[test]
    fn every_fault_strikes_and_a_run_repeats() {
        let (got, fired) = run(5);
        let Fired { lost, duplicated, reordered, corrupted, truncated, too_big, tail_dropped, .. } = fired;
        let counts = [lost, duplicated, reordered, corrupted, truncated, too_big, tail_dropped];
        assert!(counts.iter().all(|&n| n > 20), "{fired:?}");
        assert_eq!(run(5), (got, fired));
        assert_ne!(run(6).1, fired);
    }

    #[test]
    fn without_faults_packets_come_whole_and_in_order() {
        let net = Net::new(1, Faults { delay: Span::ms(1), jitter: Span::ms(9), ..Faults::default() });
        let (mut a, mut b) = (net.port(1), net.port(2));
        for n in 0..100u8 {
            send(&mut a, 2, &[n]);
        }
        net.set_now(Instant::from_ns(10_000_000));
        for n in 0..100u8 {
            assert!(b.advance());
            let rx = b.current().unwrap();
            assert_eq!((rx.meta.from, &*rx.data), (1, &[n][..]));
        }
        assert!(!b.advance() && b.current().is_none());
    }

    #[test]
    fn a_port_that_is_cut_off_says_so_and_gets_nothing() {
        let net = Net::new(1, Faults::default());
        let (mut a, mut b) = (net.port(1), net.port(2));
        let epoch = b.caps().epoch;
        net.set_up(2, false);
        assert!(!b.caps().up && a.caps().up && b.caps().epoch != epoch);
        send(&mut a, 2, b"lost");
        net.set_up(2, true);
        net.set_now(Instant::from_ns(1));
        assert!(!b.advance() && b.caps().up);
        assert_eq!(net.fired().cut_off, 1);
    }

    #[test]
    fn trains_are_taken_apart_and_injected_packets_arrive() {
        let net = Net::new(1, Faults::default());
        let (mut a, mut b) = (net.port(1), net.port(2));
        a.set_caps(4, 3, true);
        a.grant(10).unwrap()[..10].copy_from_slice(b"aaaabbbbcc");
        net.tap();
        a.commit(TxMeta::new(2, 10).stride(4).ecn(Ecn::Ect0));
        net.inject(9, 2, b"x");
        net.set_now(Instant::ZERO);
        let mut got = Vec::new();
        while b.advance() {
            let rx = b.current().unwrap();
            got.push((rx.meta.from, rx.meta.ecn, rx.data.to_vec()));
        }
        let want: [(Host, Ecn, &[u8]); 4] =
            [(1, Ecn::Ect0, b"aaaa"), (1, Ecn::Ect0, b"bbbb"), (1, Ecn::Ect0, b"cc"), (9, Ecn::NotEct, b"x")];
        assert!(got.iter().map(|(from, ecn, bytes)| (*from, *ecn, &bytes[..])).eq(want));
        assert_eq!(net.tap().len(), 3);
    }
}
