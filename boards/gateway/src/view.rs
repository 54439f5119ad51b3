//! What the gateway shows: plain snapshots for the page, `/api`, `/metrics` and the terminal.
//!
//! Times are in nanoseconds, counters run from the gateway's start unless they say otherwise, and every field of the API
//! stands here; with feature `serde` the structs are what `/api/state` sends.

use alloc::string::String;
use alloc::vec::Vec;

/// How urgent somebody should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
pub enum Health {
    /// Nothing to do.
    #[default]
    Ok,
    /// Works, but somebody should know.
    Warn,
    /// Data is not taken, or is being lost.
    Fault,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Alarm {
    /// How urgent.
    pub health: Health,
    /// Short name, stable: `silent`, `misses`, `disk_full`, `disk_time`, `log_closed`, `lost`, `log_damage`, `witness`.
    pub kind: &'static str,
    /// The node concerned, if one is.
    pub node: Option<u32>,
    /// In words, with what to do.
    pub text: String,
}

/// Percentiles of a histogram, in ns; all 0 without samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Percentiles {
    /// Values counted.
    pub count: u64,
    /// Median.
    pub p50: u64,
    /// 99 of 100 are at most this.
    pub p99: u64,
    /// The greatest.
    pub max: u64,
}

/// A channel with its newest value.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ChannelView {
    /// Its name.
    pub name: String,
    /// Unit of the scaled values.
    pub unit: String,
    /// Power of ten that raw values are multiplied by.
    pub exponent: i8,
    /// Least value of the sensor, scaled.
    pub min: f64,
    /// Greatest value of the sensor, scaled.
    pub max: f64,
    /// Newest value, scaled.
    pub last: Option<f64>,
    /// Age of the newest value.
    pub age_ns: Option<u64>,
}

/// A group of channels.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct GroupView {
    /// Its number in the node.
    pub id: u8,
    /// Time between samples.
    pub period_ns: u64,
    /// Deadline of each.
    pub deadline_ns: u64,
    /// Its channels, in the order of the samples.
    pub channels: Vec<ChannelView>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct NodeView {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Version of its program.
    pub firmware: String,
    /// Number of its current boot in this log.
    pub boot: u32,
    /// It has a connection now.
    pub connected: bool,
    /// Nothing came for three of its own intervals.
    pub silent: bool,
    /// Since anything came.
    pub last_seen_ns: Option<u64>,
    /// How it reaches the gateway, in words of the link.
    pub link: String,
    /// Samples per second over the last seconds.
    pub rate: f64,
    /// Samples of this boot in the log's hands: the next sequence number.
    pub received: u64,
    /// Samples of this boot that are durable.
    pub durable: u64,
    /// Samples that the node had to drop, or that are missing otherwise.
    pub lost: u64,
    /// Samples that came again and were recognised.
    pub duplicates: u64,
    /// Smoothed round trip to it.
    pub rtt_ns: u64,
    /// Packets that the gateway sent it twice.
    pub retransmissions: u64,
    /// Packets from it that came twice or damaged.
    pub bad_packets: u64,
    /// Bytes that came from it.
    pub bytes: u64,
    /// Handlers that finished late, as the node says.
    pub deadline_misses: u64,
    /// Interrupts that found one waiting, as the node says.
    pub coalesced: u64,
    /// Interrupt to handler, as the node says.
    pub irq_latency: Percentiles,
    /// Blocks that the node holds for acknowledgement.
    pub held: u64,
    /// Blocks that it could hold.
    pub pool: u64,
    /// Connections that it has made.
    pub connects: u64,
    /// Gateway clock minus node clock.
    pub clock_offset_ns: Option<i64>,
    /// How far that may be off.
    pub clock_error_ns: Option<u64>,
    /// What it measures.
    pub groups: Vec<GroupView>,
}

/// A segment of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct SegmentView {
    /// File name.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct LogView {
    /// Its identity, 32 hexadecimal digits.
    pub id: String,
    /// `opening`, `ready`, `full` or `closed`.
    pub state: &'static str,
    /// The state in words, with what to do.
    pub text: String,
    /// How it is written: io_uring with O_DIRECT, threads, ...
    pub backend: String,
    /// Records appended since the log was made.
    pub appended: u64,
    /// Records that are durable.
    pub durable: u64,
    /// Records under a durable mark.
    pub settled: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Budget for them.
    pub retention_bytes: u64,
    /// Frames written since the start.
    pub frames: u64,
    /// Bytes written since the start.
    pub written: u64,
    /// From cutting a frame to its durability.
    pub commit: Percentiles,
    /// Room on the volume.
    pub free_bytes: Option<u64>,
    /// Until the disk is full at the rate of the last minutes, when retention does not come first.
    pub seconds_left: Option<u64>,
    /// Damage found when it was opened, in words.
    pub damage: Vec<String>,
    /// Its files, oldest first.
    pub segments: Vec<SegmentView>,
}

/// Packets of all links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct LinkView {
    /// Received.
    pub rx: u64,
    /// Received and damaged.
    pub rx_bad: u64,
    /// Lost before they were seen.
    pub rx_lost: u64,
    /// Sent.
    pub tx: u64,
    /// Refused by the system for good.
    pub tx_lost: u64,
    /// System calls.
    pub calls: u64,
    /// Messages that were none.
    pub bad_messages: u64,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Snapshot {
    /// Version of the program.
    pub version: &'static str,
    /// The worst of the alarms.
    pub health: Health,
    /// What is not as it should be, worst first.
    pub alarms: Vec<Alarm>,
    /// Wall clock, ns since 1970, when the host knows it.
    pub wall_ns: Option<u64>,
    /// Since the gateway started.
    pub uptime_ns: u64,
    /// Samples per second over the last seconds.
    pub rate: f64,
    /// Samples taken into the log since the start.
    pub samples: u64,
    /// Samples acknowledged as durable since the start.
    pub acknowledged: u64,
    /// From a block's arrival to its acknowledgement.
    pub ack: Percentiles,
    /// Bytes allocated by the program, when the host knows it.
    pub heap_bytes: Option<u64>,
    /// The links.
    pub link: LinkView,
    /// The log.
    pub log: LogView,
    /// The nodes, worst first.
    pub nodes: Vec<NodeView>,
}
