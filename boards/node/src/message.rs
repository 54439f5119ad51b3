//! What node and gateway say to each other: one reliable message of `net-core` each.
//!
//! The first byte is the kind. Numbers are little-endian, texts are a length byte and UTF-8. A message with bytes left
//! over is refused, so that a field added later is noticed; an unknown kind is counted and ignored.
//!
//! ```text
//!  node                                             gateway
//!   Hello{node, nonce, acknowledged}  ───────────>   gives the boot of this nonce a number, logs it
//!   <───────────  Welcome{log, boot, durable}        … when that is durable
//!   Channels{group} for each group    ───────────>
//!   Samples | Gap, in sequence order  ───────────>   into the log
//!   <──────────────  Ack{log, boot, durable}         … when they are durable
//!   Status, once a second             ───────────>   shown, not logged
//! ```
//!
//! | kind | message | fields behind the kind byte |
//! | --- | --- | --- |
//! | 1 | [`Hello`] | version u8, node u32, nonce u64, log u128, boot u32, next u64, name, firmware |
//! | 2 | [`Channels`] | group u8, period u64 ns, deadline u64 ns, count u8, then per channel: exponent u8, min i32, max i32, name, unit |
//! | 3 | samples | see [`crate::sample`] |
//! | 4 | [`Gap`] | cause u8, first u64, count u64, time u64 ns |
//! | 5 | [`Status`] | node time u64 ns and the counters in the order of the struct |
//! | 16 | [`Welcome`] | log u128, node u32, boot u32, durable u64 |
//! | 17 | [`Ack`] | log u128, node u32, boot u32, durable u64, settled u64 |
//! | 18 | [`Refuse`] | reason u8 |
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

use hal::time::{Instant, Span};

use crate::codec::{Reader, Writer};
use crate::sensor::{Channel, Group, MAX_CHANNELS};

/// Version of the messages; both sides must agree.
pub const VERSION: u8 = 1;
/// First byte of a block of samples.
pub const KIND_SAMPLES: u8 = 3;
/// Longest message without samples in bytes; texts are cut to fit.
pub const MAX_CONTROL: usize = 1024;
/// Longest name of a node, a channel, a unit or a firmware in bytes.
pub const MAX_NAME: usize = 32;

/// The node introduces itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The node's number, unique at the gateway.
    pub node: u32,
    /// Random, drawn anew at each start of the node: the gateway tells boots apart by it.
    pub nonce: u64,
    /// The log whose acknowledgements the node holds; 0 for none yet.
    pub log: u128,
    /// The boot number that this start was given there; 0 for none yet.
    pub boot: u32,
    /// One more than the highest acknowledged sample: what the gateway's log must hold if its disk told the truth.
    pub next: u64,
    /// For people.
    pub name: &'a str,
    /// Version of the node's program.
    pub firmware: &'a str,
}

/// A group of channels as it is announced and logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channels<'a> {
    /// Number of the group in the node.
    pub group: u8,
    /// Time between two samples.
    pub period: Span,
    /// Deadline of each.
    pub deadline: Span,
    count: u8,
    channels: Rest<'a>,
}

/// Samples that the node made and could not keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Why they are missing.
    pub cause: GapCause,
    /// Number of the first.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// The node's clock when it gave them up.
    pub time: Instant,
}

/// Why samples are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GapCause {
    /// The pool was full and the node keeps the newest.
    DroppedOldest,
    /// The pool was full and the node keeps the oldest.
    DroppedNewest,
    /// The gateway found them missing: its log is younger than the node's acknowledgements.
    LostByGateway,
    /// A number that this version does not know.
    Other(u8),
}

impl GapCause {
    /// The byte that stands for it.
    pub const fn code(self) -> u8 {
        match self {
            Self::DroppedOldest => 1,
            Self::DroppedNewest => 2,
            Self::LostByGateway => 3,
            Self::Other(code) => code,
        }
    }

    /// From the byte.
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::DroppedOldest,
            2 => Self::DroppedNewest,
            3 => Self::LostByGateway,
            other => Self::Other(other),
        }
    }
}

macro_rules! status {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// How the node is doing; shown on the gateway's page, not logged. Counters run from the node's start.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Status {
            $($(#[$doc])* pub $field: u64,)*
        }
        impl Status {
            fn read(r: &mut Reader<'_>) -> Option<Self> {
                Some(Self { $($field: r.u64()?,)* })
            }
            fn write(&self, w: &mut Writer<'_>) {
                $(w.u64(self.$field);)*
            }
        }
    };
}
status! {
    /// The node's clock, ns.
    time,
    /// Samples made.
    made,
    /// Samples acknowledged as durable.
    acknowledged,
    /// Samples dropped.
    dropped,
    /// Interrupts whose handler finished after its deadline.
    deadline_misses,
    /// Interrupts that came while one was waiting.
    coalesced,
    /// Median time from interrupt to handler, ns.
    latency_p50,
    /// 99th percentile of it, ns.
    latency_p99,
    /// The longest, ns.
    latency_max,
    /// Blocks held for acknowledgement.
    held,
    /// Blocks in the pool.
    pool,
    /// Connections made to a gateway.
    connects,
}

/// The gateway has given this start of the node its boot number, and that is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// The gateway's log.
    pub log: u128,
    /// The node.
    pub node: u32,
    /// The number of this boot.
    pub boot: u32,
    /// The next sample that the log lacks.
    pub durable: u64,
}

/// All samples below `durable` are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The gateway's log.
    pub log: u128,
    /// The node.
    pub node: u32,
    /// Its boot.
    pub boot: u32,
    /// All samples below are durable.
    pub durable: u64,
    /// All samples below lie under a mark that is durable itself: even damage of the last block could not hide them.
    pub settled: u64,
}

/// The gateway does not want this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refuse {
    /// Another version of the messages.
    Version,
    /// A number that is in use by a live node with another nonce.
    NodeInUse,
    /// The gateway's log takes no records now.
    LogClosed,
    /// A reason that this version does not know.
    Other(u8),
}

impl Refuse {
    const fn code(self) -> u8 {
        match self {
            Self::Version => 1,
            Self::NodeInUse => 2,
            Self::LogClosed => 3,
            Self::Other(code) => code,
        }
    }
}

/// A message of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromNode<'a> {
    /// See [`Hello`].
    Hello(Hello<'a>),
    /// See [`Channels`].
    Channels(Channels<'a>),
    /// A block; [`crate::sample::Samples::parse`] reads it.
    Samples(&'a [u8]),
    /// See [`Gap`].
    Gap(Gap),
    /// See [`Status`].
    Status(Status),
}

/// A message of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromGateway {
    /// See [`Welcome`].
    Welcome(Welcome),
    /// See [`Ack`].
    Ack(Ack),
    /// See [`Refuse`].
    Refuse(Refuse),
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageError {
    /// A field is cut, left over or has a value that it cannot have.
    Malformed,
    /// A kind of a later version.
    UnknownKind(u8),
    /// A hello of another version.
    Version(u8),
}

impl core::fmt::Display for MessageError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Malformed => f.write_str("malformed message"),
            Self::UnknownKind(kind) => write!(f, "message of unknown kind {kind}"),
            Self::Version(version) => write!(f, "message version {version}, this program speaks {VERSION}"),
        }
    }
}

impl core::error::Error for MessageError {}

impl<'a> FromNode<'a> {
    /// Reads a message.
    ///
    /// # Errors
    ///
    /// [`MessageError`] for bytes that are no message of this version.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, MessageError> {
        let mut r = Reader::new(bytes);
        let kind = r.u8().ok_or(MessageError::Malformed)?;
        let message = match kind {
            1 => match r.u8() {
                Some(VERSION) => Hello::read(&mut r).map(Self::Hello),
                Some(version) => return Err(MessageError::Version(version)),
                None => None,
            },
            2 => Channels::read(&mut r).map(Self::Channels),
            KIND_SAMPLES => return Ok(Self::Samples(bytes)),
            4 => Gap::read(&mut r).map(Self::Gap),
            5 => Status::read(&mut r).map(Self::Status),
            other => return Err(MessageError::UnknownKind(other)),
        };
        message.filter(|_| r.rest().is_empty()).ok_or(MessageError::Malformed)
    }
}

impl FromGateway {
    /// Reads a message.
    ///
    /// # Errors
    ///
    /// [`MessageError`] for bytes that are no message of this version.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut r = Reader::new(bytes);
        let kind = r.u8().ok_or(MessageError::Malformed)?;
        let message = match kind {
            16 => Welcome::read(&mut r).map(Self::Welcome),
            17 => Ack::read(&mut r).map(Self::Ack),
            18 => r.u8().map(|code| {
                Self::Refuse(match code {
                    1 => Refuse::Version,
                    2 => Refuse::NodeInUse,
                    3 => Refuse::LogClosed,
                    other => Refuse::Other(other),
                })
            }),
            other => return Err(MessageError::UnknownKind(other)),
        };
        message.filter(|_| r.rest().is_empty()).ok_or(MessageError::Malformed)
    }

    /// Writes the message into `out` and returns its length; `None` when `out` is shorter than 64 bytes.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let mut w = Writer::new(out);
        match self {
            Self::Welcome(m) => {
                w.u8(16);
                w.u128(m.log);
                w.u32(m.node);
                w.u32(m.boot);
                w.u64(m.durable);
            }
            Self::Ack(m) => {
                w.u8(17);
                w.u128(m.log);
                w.u32(m.node);
                w.u32(m.boot);
                w.u64(m.durable);
                w.u64(m.settled);
            }
            Self::Refuse(reason) => {
                w.u8(18);
                w.u8(reason.code());
            }
        }
        w.finish()
    }
}

impl<'a> Hello<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        Some(Self {
            node: r.u32()?,
            nonce: r.u64()?,
            log: r.u128()?,
            boot: r.u32()?,
            next: r.u64()?,
            name: r.text().filter(|t| t.len() <= MAX_NAME)?,
            firmware: r.text().filter(|t| t.len() <= MAX_NAME)?,
        })
    }

    /// Writes the message into `out` and returns its length; `None` when it does not fit.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let mut w = Writer::new(out);
        w.u8(1);
        w.u8(VERSION);
        w.u32(self.node);
        w.u64(self.nonce);
        w.u128(self.log);
        w.u32(self.boot);
        w.u64(self.next);
        w.text(cut(self.name));
        w.text(cut(self.firmware));
        w.finish()
    }
}

impl<'a> Channels<'a> {
    /// Reads what stands behind the kind byte: also the payload of the log record.
    pub fn read(r: &mut Reader<'a>) -> Option<Self> {
        let (group, period, deadline, count) = (r.u8()?, Span::ns(r.u64()?), Span::ns(r.u64()?), r.u8()?);
        let channels = Rest(*r);
        for _ in 0..count {
            read_channel(r)?;
        }
        (usize::from(count) <= MAX_CHANNELS).then_some(Self { group, period, deadline, count, channels })
    }

    /// The channels, in the order of a sample's values.
    pub fn iter(&self) -> impl Iterator<Item = Channel<'a>> {
        let mut r = self.channels.0;
        (0..self.count).map_while(move |_| read_channel(&mut r))
    }

    /// Writes the announcement of `group` into `out` and returns its length; `None` when it does not fit.
    pub fn write(group: &Group<'_>, out: &mut [u8]) -> Option<usize> {
        let mut w = Writer::new(out);
        w.u8(2);
        w.u8(group.id);
        w.u64(group.period.as_ns());
        w.u64(group.deadline.as_ns());
        w.u8(u8::try_from(group.channels.len()).ok().filter(|n| usize::from(*n) <= MAX_CHANNELS)?);
        for channel in group.channels {
            w.u8(channel.exponent.cast_unsigned());
            w.i32(channel.min);
            w.i32(channel.max);
            w.text(cut(channel.name));
            w.text(cut(channel.unit));
        }
        w.finish()
    }
}

/// A reader that compares by the bytes that are left.
#[derive(Debug, Clone)]
struct Rest<'a>(Reader<'a>);
impl PartialEq for Rest<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.rest() == other.0.rest()
    }
}
impl Eq for Rest<'_> {}

fn read_channel<'a>(r: &mut Reader<'a>) -> Option<Channel<'a>> {
    let exponent = r.u8()?.cast_signed();
    let (min, max) = (r.i32()?, r.i32()?);
    let name = r.text().filter(|t| t.len() <= MAX_NAME)?;
    let unit = r.text().filter(|t| t.len() <= MAX_NAME)?;
    (-18..=18).contains(&exponent).then_some(Channel { name, unit, exponent, min, max })
}

impl Gap {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let (cause, first, count) = (GapCause::from_code(r.u8()?), r.u64()?, r.u64()?);
        first.checked_add(count)?;
        (count > 0).then_some(Self { cause, first, count, time: Instant::from_ns(r.u64()?) })
    }

    /// One more than the number of the last missing sample.
    pub const fn end(&self) -> u64 {
        self.first.saturating_add(self.count)
    }

    /// Writes the message into `out` and returns its length; `None` when it does not fit.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let mut w = Writer::new(out);
        w.u8(4);
        w.u8(self.cause.code());
        w.u64(self.first);
        w.u64(self.count);
        w.u64(self.time.as_ns());
        w.finish()
    }
}

impl Status {
    /// Writes the message into `out` and returns its length; `None` when it does not fit.
    pub fn to_message(&self, out: &mut [u8]) -> Option<usize> {
        let mut w = Writer::new(out);
        w.u8(5);
        self.write(&mut w);
        w.finish()
    }
}

impl Welcome {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        Some(Self { log: r.u128()?, node: r.u32()?, boot: r.u32()?, durable: r.u64()? })
    }
}

impl Ack {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let (log, node, boot) = (r.u128()?, r.u32()?, r.u32()?);
        Some(Self { log, node, boot, durable: r.u64()?, settled: r.u64()? })
    }
}

/// `text` cut to [`MAX_NAME`] bytes at a character boundary.
fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(MAX_NAME)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const CHANNELS: [Channel<'static>; 2] = [
        Channel { name: "temp", unit: "°C", exponent: -3, min: -40_000, max: 125_000 },
        Channel { name: "count", unit: "", exponent: 0, min: 0, max: i32::MAX },
    ];
    const GROUP: Group<'static> =
        Group { id: 3, period: Span::ms(1), deadline: Span::us(500), channels: &CHANNELS };

    fn written(write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Vec<u8> {
        let mut out = [0; MAX_CONTROL];
        let len = write(&mut out).unwrap();
        out[..len].to_vec()
    }

    fn node_messages() -> [Vec<u8>; 4] {
        let hello =
            Hello { node: 7, nonce: 9, log: 1 << 100, boot: 2, next: 44, name: "pump", firmware: "1.0" };
        let gap = Gap { cause: GapCause::DroppedOldest, first: 5, count: 10, time: Instant::from_ns(3) };
        let status = Status { time: 1, made: 2, connects: 12, ..Status::default() };
        [
            written(|out| hello.write(out)),
            written(|out| Channels::write(&GROUP, out)),
            written(|out| gap.write(out)),
            written(|out| status.to_message(out)),
        ]
    }

    #[test]
    fn node_messages_come_back_as_they_were_written() {
        let [hello, channels, gap, status] = node_messages();
        assert!(
            matches!(FromNode::parse(&hello), Ok(FromNode::Hello(h)) if h.node == 7 && h.next == 44 && h.name == "pump")
        );
        let Ok(FromNode::Channels(c)) = FromNode::parse(&channels) else { panic!() };
        assert_eq!((c.group, c.period, c.deadline), (3, Span::ms(1), Span::us(500)));
        assert!(c.iter().eq(CHANNELS));
        assert!(matches!(FromNode::parse(&gap), Ok(FromNode::Gap(g)) if g.end() == 15));
        assert!(
            matches!(FromNode::parse(&status), Ok(FromNode::Status(s)) if s.connects == 12 && s.made == 2)
        );
    }

    #[test]
    fn gateway_messages_come_back_as_they_were_written() {
        let messages = [
            FromGateway::Welcome(Welcome { log: 1, node: 2, boot: 3, durable: 4 }),
            FromGateway::Ack(Ack { log: 1, node: 2, boot: 3, durable: 4, settled: 3 }),
            FromGateway::Refuse(Refuse::NodeInUse),
            FromGateway::Refuse(Refuse::Other(99)),
        ];
        for message in messages {
            let bytes = written(|out| message.write(out));
            assert_eq!(FromGateway::parse(&bytes), Ok(message));
            assert_eq!(FromGateway::parse(&bytes[..bytes.len() - 1]), Err(MessageError::Malformed));
        }
    }

    #[test]
    fn cut_and_lengthened_messages_are_refused() {
        for bytes in node_messages() {
            for len in 0..bytes.len() {
                assert!(FromNode::parse(&bytes[..len]).is_err(), "{bytes:?} cut to {len}");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(FromNode::parse(&longer), Err(MessageError::Malformed));
        }
    }

    #[test]
    fn unknown_kinds_and_versions_are_told_apart_from_damage() {
        assert_eq!(FromNode::parse(&[77]), Err(MessageError::UnknownKind(77)));
        assert_eq!(FromNode::parse(&[1, 9, 0]), Err(MessageError::Version(9)));
        assert_eq!(FromNode::parse(&[]), Err(MessageError::Malformed));
    }

    #[test]
    fn long_names_are_cut_when_written_and_refused_when_read() {
        let name = "ä".repeat(40);
        let hello = Hello { node: 1, nonce: 1, log: 0, boot: 0, next: 0, name: &name, firmware: "" };
        let bytes = written(|out| hello.write(out));
        assert!(matches!(FromNode::parse(&bytes), Ok(FromNode::Hello(h)) if h.name == "ä".repeat(16)));
    }

    #[test]
    fn a_gap_of_nothing_or_past_the_end_of_numbers_is_refused() {
        for (first, count) in [(0, 0), (u64::MAX, 1)] {
            let gap = Gap { cause: GapCause::Other(200), first, count, time: Instant::ZERO };
            let bytes = written(|out| gap.write(out));
            let end_fits = first.checked_add(count).is_some() && count > 0;
            assert_eq!(FromNode::parse(&bytes).is_ok(), end_fits);
        }
    }
}
