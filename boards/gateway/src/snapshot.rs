//! Makes the snapshots of [`crate::view`].

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use hal::link::{Addr, Counters};
use hal::time::Instant;
use hal::volume::{Room, Volume};
use rt_irq::Histogram;

use crate::gateway::{Gateway, WallTime};
use crate::log::LogState;
use crate::node_state::{GroupState, NodeState};
use crate::view::{
    Alarm, ChannelView, GroupView, Health, LinkView, LogView, NodeView, Percentiles, SegmentView, Snapshot,
};

/// What the host knows and the gateway does not.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostFacts<'a> {
    /// Version of the program.
    pub version: &'static str,
    /// The wall clock.
    pub wall: Option<WallTime>,
    /// Counters of the link.
    pub link: Counters,
    /// How the log is written, in words.
    pub backend: &'a str,
    /// Budget of the log.
    pub retention_bytes: u64,
    /// Room on its volume.
    pub room: Option<Room>,
}

impl Percentiles {
    /// Of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram) -> Self {
        Self {
            count: histogram.count(),
            p50: histogram.quantile(500),
            p99: histogram.quantile(990),
            max: histogram.max(),
        }
    }
}

impl<A: Addr, V: Volume> Gateway<A, V> {
    /// Everything that is shown, as it is at `now`.
    pub fn snapshot(&self, now: Instant, facts: &HostFacts<'_>) -> Snapshot {
        let mut nodes: Vec<NodeView> =
            self.nodes.iter().map(|(id, state)| self.node_view(now, *id, state)).collect();
        // Worst first: silent ones, then those that lost or missed something, then by number.
        nodes.sort_by_key(|node| (!node.silent, node.lost == 0, node.deadline_misses == 0, node.id));
        let log = self.log_view(facts);
        let mut alarms = alarms(&nodes, &log);
        alarms.sort_by_key(|alarm| core::cmp::Reverse(alarm.health));
        let counters = self.counters();
        Snapshot {
            version: facts.version,
            health: alarms.first().map_or(Health::Ok, |alarm| alarm.health),
            alarms,
            wall_ns: facts.wall.map(|wall| wall.unix_ns),
            uptime_ns: now.since(self.started()).as_ns(),
            rate: nodes.iter().map(|node| node.rate).sum(),
            samples: counters.samples,
            acknowledged: counters.acknowledged,
            ack: Percentiles::of(self.ack_latency()),
            heap_bytes: None,
            link: LinkView {
                rx: facts.link.rx,
                rx_bad: facts.link.rx_bad,
                rx_lost: facts.link.rx_lost,
                tx: facts.link.tx,
                tx_lost: facts.link.tx_lost,
                calls: facts.link.calls,
                bad_messages: counters.bad_messages,
            },
            log,
            nodes,
        }
    }

    fn node_view(&self, now: Instant, id: u32, state: &NodeState) -> NodeView {
        let status = state.status.unwrap_or_default();
        let stats = self.connection_stats(id).unwrap_or_default();
        let offset = state.clock.offset();
        NodeView {
            id,
            name: state.name.clone(),
            firmware: state.firmware.clone(),
            boot: state.boot,
            connected: state.connection.is_some(),
            silent: state.is_silent(now),
            last_seen_ns: state.last_seen.map(|seen| now.since(seen).as_ns()),
            link: self.peer(id).map_or_else(String::new, |peer| format!("{peer:?}")),
            rate: state.rate.per_second(now),
            received: state.next,
            durable: state.durable,
            lost: state.lost,
            duplicates: state.duplicates,
            rtt_ns: stats.srtt.as_ns(),
            retransmissions: stats.retransmissions,
            bad_packets: stats.bad + stats.duplicates,
            bytes: stats.bytes_received,
            deadline_misses: status.deadline_misses,
            coalesced: status.coalesced,
            irq_latency: Percentiles {
                count: status.made,
                p50: status.latency_p50,
                p99: status.latency_p99,
                max: status.latency_max,
            },
            held: status.held,
            pool: status.pool,
            connects: status.connects,
            clock_offset_ns: offset.and_then(|(offset, _)| i64::try_from(offset).ok()),
            clock_error_ns: offset.map(|(_, error)| error.as_ns()),
            groups: state.groups.iter().map(|(id, group)| group_view(now, *id, group)).collect(),
        }
    }

    fn log_view(&self, facts: &HostFacts<'_>) -> LogView {
        let log = self.log();
        let counters = log.counters();
        let (state, text) = match log.state() {
            LogState::Opening => ("opening", "opening".to_string()),
            LogState::Ready => ("ready", "ready".to_string()),
            LogState::NoRoom => {
                ("full", "the disk is full: make room, and it goes on within a second".to_string())
            }
            LogState::Failed(error) => ("closed", error.to_string()),
            LogState::Closed => ("closed", "closed".to_string()),
        };
        let report = log.report();
        let rot = report.rot.iter().map(|rot| {
            format!(
                "frames {} to {} are damaged, {} records of them were read",
                rot.first, rot.last, rot.salvaged
            )
        });
        LogView {
            id: format!("{:032x}", log.id()),
            state,
            text,
            backend: facts.backend.to_string(),
            appended: log.appended().0,
            durable: log.durable().0,
            settled: log.settled().0,
            bytes: log.segments().iter().map(|(_, len)| len).sum(),
            retention_bytes: facts.retention_bytes,
            frames: counters.frames,
            written: counters.written,
            commit: Percentiles::of(self.commit_latency()),
            free_bytes: facts.room.map(|room| room.free),
            seconds_left: None,
            damage: rot.collect(),
            segments: log
                .segments()
                .iter()
                .map(|(name, len)| SegmentView { name: name.as_str().to_string(), bytes: *len })
                .collect(),
        }
    }
}

fn group_view(now: Instant, id: u8, group: &GroupState) -> GroupView {
    let channels = group.channels.iter().map(|channel| {
        let last = channel.history.last();
        ChannelView {
            name: channel.name.clone(),
            unit: channel.unit.clone(),
            exponent: channel.exponent,
            min: channel.scaled(channel.min),
            max: channel.scaled(channel.max),
            last: last.map(|(_, raw)| channel.scaled(raw)),
            age_ns: last.map(|(at, _)| now.since(at).as_ns()),
        }
    });
    GroupView {
        id,
        period_ns: group.period.as_ns(),
        deadline_ns: group.deadline.as_ns(),
        channels: channels.collect(),
    }
}

fn alarms(nodes: &[NodeView], log: &LogView) -> Vec<Alarm> {
    let mut alarms = Vec::new();
    let mut alarm = |health, kind, node, text| alarms.push(Alarm { health, kind, node, text });
    match log.state {
        "full" => alarm(Health::Fault, "disk_full", None, log.text.clone()),
        "closed" => alarm(Health::Fault, "log_closed", None, log.text.clone()),
        _ => {}
    }
    for damage in &log.damage {
        alarm(Health::Warn, "log_damage", None, damage.clone());
    }
    for node in nodes {
        let name = format!("{} #{}", node.name, node.id);
        if node.silent {
            alarm(Health::Warn, "silent", Some(node.id), format!("{name} is silent"));
        }
        if node.deadline_misses > 0 {
            alarm(
                Health::Warn,
                "misses",
                Some(node.id),
                format!("{name} missed {} deadlines", node.deadline_misses),
            );
        }
        if node.lost > 0 {
            alarm(Health::Warn, "lost", Some(node.id), format!("{name} lost {} samples", node.lost));
        }
    }
    alarms
}
