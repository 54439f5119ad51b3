//! What the gateway knows about one node.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use hal::time::{Instant, Span};
use net_core::ConnId;
use node::message::{Channels, Status};
use node::sample::Samples;
use node::sensor::Channel;

use crate::clock_map::ClockMap;
use crate::history::History;
use crate::log::RecordNo;

/// A node that says nothing for three of its intervals is silent. A connected node sends a status once a second.
pub const STATUS_INTERVAL: Span = Span::secs(1);

/// One node, connected or not.
#[derive(Debug, Default)]
pub struct NodeState {
    /// For people.
    pub name: String,
    /// Version of its program.
    pub firmware: String,
    /// Its current boot in this log, 0 before the first.
    pub boot: u32,
    /// The random number of that start.
    pub nonce: u64,
    /// The boot's record, while it is not durable yet: the welcome waits for it.
    pub boot_record: Option<RecordNo>,
    /// The next sample that the log lacks.
    pub next: u64,
    /// All samples below are durable.
    pub durable: u64,
    /// All samples below lie under a durable mark.
    pub settled: u64,
    /// The node has not been told of `durable` or `settled` yet.
    pub ack_owed: bool,
    /// Its connection.
    pub connection: Option<ConnId>,
    /// Samples of this gateway's life that are missing.
    pub lost: u64,
    /// Samples that came again.
    pub duplicates: u64,
    /// The gateway's clock when anything came last.
    pub last_seen: Option<Instant>,
    /// What it said of itself last.
    pub status: Option<Status>,
    /// Its clock.
    pub clock: ClockMap,
    /// When its clock relation was logged last.
    pub clock_logged: Option<Instant>,
    /// Its groups, as announced.
    pub groups: BTreeMap<u8, GroupState>,
    /// Samples per second.
    pub rate: Rate,
    /// Its log once held more than this one does: a disk has lied, or a log was exchanged.
    pub witness: Option<u64>,
}

/// A group of channels with what they did.
#[derive(Debug)]
pub struct GroupState {
    /// The announcement as it came, logged again in each segment.
    pub announcement: Vec<u8>,
    /// Time between samples.
    pub period: Span,
    /// Deadline of each.
    pub deadline: Span,
    /// Its channels.
    pub channels: Vec<ChannelState>,
    /// The segment that has the announcement.
    pub logged_in: Option<u64>,
}

/// A channel.
#[derive(Debug)]
pub struct ChannelState {
    /// Name.
    pub name: String,
    /// Unit.
    pub unit: String,
    /// Power of ten.
    pub exponent: i8,
    /// Least raw value.
    pub min: i32,
    /// Greatest raw value.
    pub max: i32,
    /// What it did.
    pub history: History,
}

impl ChannelState {
    fn of(channel: &Channel<'_>) -> Self {
        Self {
            name: channel.name.into(),
            unit: channel.unit.into(),
            exponent: channel.exponent,
            min: channel.min,
            max: channel.max,
            history: History::default(),
        }
    }

    /// `raw` in the channel's unit.
    pub fn scaled(&self, raw: i32) -> f64 {
        Channel { name: "", unit: "", exponent: self.exponent, min: 0, max: 0 }.scaled(raw)
    }
}

impl NodeState {
    /// Whether nothing came for three intervals.
    pub fn is_silent(&self, now: Instant) -> bool {
        self.last_seen.is_none_or(|seen| now.since(seen) > STATUS_INTERVAL.times(3))
    }

    /// Takes an announcement; false when it says what is known already.
    pub fn announce(&mut self, bytes: &[u8], channels: &Channels<'_>) -> bool {
        if self.groups.get(&channels.group).is_some_and(|group| group.announcement == bytes) {
            return false;
        }
        let group = GroupState {
            announcement: bytes.into(),
            period: channels.period,
            deadline: channels.deadline,
            channels: channels.iter().map(|channel| ChannelState::of(&channel)).collect(),
            logged_in: None,
        };
        self.groups.insert(channels.group, group);
        true
    }

    /// Shows samples in the plots, at their own time where the clocks' relation is known.
    pub fn show(&mut self, now: Instant, samples: Samples<'_>) {
        let mut count = 0;
        for sample in samples {
            count += 1;
            let time = self.clock.to_gateway(sample.time).unwrap_or(now).min(now);
            let Some(group) = self.groups.get_mut(&sample.group) else { continue };
            for (channel, value) in group.channels.iter_mut().zip(sample.values()) {
                channel.history.add(now, time, *value);
            }
        }
        self.rate.add(now, count);
    }

    /// Forgets what belonged to an earlier boot.
    pub fn begin_boot(&mut self, boot: u32, nonce: u64, record: RecordNo) {
        self.boot = boot;
        self.nonce = nonce;
        self.boot_record = Some(record);
        self.next = 0;
        self.durable = 0;
        self.settled = 0;
        self.status = None;
        self.clock = ClockMap::default();
        self.clock_logged = None;
        for group in self.groups.values_mut() {
            group.logged_in = None;
        }
    }
}

/// Events per second over the last four whole seconds.
#[derive(Debug, Default, Clone, Copy)]
pub struct Rate {
    seconds: [(u64, u64); 5],
}

impl Rate {
    /// Counts `events` at `now`.
    pub fn add(&mut self, now: Instant, events: u64) {
        let second = now.as_ns() / 1_000_000_000;
        let [slot, ..] = &mut self.seconds;
        if slot.0 != second {
            self.seconds.rotate_right(1);
        }
        let [slot, ..] = &mut self.seconds;
        if slot.0 != second {
            *slot = (second, 0);
        }
        slot.1 += events;
    }

    /// Events per second.
    pub fn per_second(&self, now: Instant) -> f64 {
        let second = now.as_ns() / 1_000_000_000;
        let events: u64 = self
            .seconds
            .iter()
            .filter(|(at, _)| (1..=4).contains(&second.saturating_sub(*at)))
            .map(|s| s.1)
            .sum();
        f64::from(u32::try_from(events).unwrap_or(u32::MAX)) / 4.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_counts_whole_seconds_and_forgets() {
        let at = |ms| Instant::ZERO.after(Span::ms(ms));
        let mut rate = Rate::default();
        (10_000..16_000).step_by(10).for_each(|ms| rate.add(at(ms), 1));
        assert!((rate.per_second(at(16_500)) - 100.0).abs() < 1e-9);
        assert!(rate.per_second(at(30_000)).abs() < 1e-9);
    }
}
