//! The record log: append, recover, rotate, retain.
//!
//! ```text
//! append ─> open frame ─cut─> in flight ─written─┬─ flushed (or durable writes) ─> durable ─> acknowledged
//!                                                └─ failed ─> into a new segment, once; then read-only
//! ```
//!
//! A frame starts at a block, and a block is written once, never again: rewriting a part-filled tail lets a torn write
//! destroy records that were acknowledged. A record counts as durable when its frame and *all lower frames* were written
//! without error, a flush submitted after that succeeded, the segment's name is synced, and the frame that opened the log
//! this time is durable. After a failed flush nothing on the same pages is trusted again.
//!
//! [`Log::step`] drives all of it over a [`Volume`](hal::volume::Volume) and never waits. The bytes are in [`mod@format`] and `LOG-FORMAT.md`, the
//! reading rules in [`walk`].

pub mod format;
mod open;
#[cfg(test)]
mod tests;
pub mod walk;
mod writer;

pub use format::{Kind, NodeEntry, Record};
pub use walk::{Rot, Walk};
pub use writer::Log;

use alloc::vec::Vec;
use core::fmt;

use hal::storage::Fault;
use hal::time::Span;
use hal::volume::Name;

/// Number of a record in the log, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordNo(pub u64);

/// The log takes no record now; nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Choices of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// Bytes of a segment, a multiple of a block.
    pub segment_bytes: u64,
    /// How long a record may wait for company before its frame is cut. 0 for the least latency; 20 ms keeps padding from
    /// wearing flash out.
    pub max_delay: Span,
    /// Bytes of records that cut a frame.
    pub frame_bytes: usize,
    /// Budget for all segments; the oldest are deleted beyond it.
    pub retention_bytes: u64,
    /// After this long without data the mark is written down.
    pub seal_after: Span,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 16 * 1024 * 1024,
            max_delay: Span::ms(20),
            frame_bytes: 60 * 1024,
            retention_bytes: 1024 * 1024 * 1024,
            seal_after: Span::ms(50),
        }
    }
}

/// What the log does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogState {
    /// It reads what is there.
    Opening,
    /// It takes records.
    Ready,
    /// No room for the next segment; tried again every second.
    NoRoom,
    /// It takes nothing any more.
    Failed(LogError),
    /// It was closed in order.
    Closed,
}

/// Why a log takes nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogError {
    /// The directory or a file of it cannot be read.
    Read(Fault),
    /// Writing failed twice.
    Write(Fault),
    /// The newest segment is of a later version: it is left alone.
    LaterVersion,
    /// Block 0 of the newest segment is damaged.
    DamagedSegment,
    /// A buffer of this many bytes was not to be had.
    NoMemory(usize),
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(fault) => write!(f, "the log cannot be read: {fault}"),
            Self::Write(fault) => {
                write!(f, "the log cannot be written: {fault}; start again when the disk works")
            }
            Self::LaterVersion => {
                f.write_str("the newest segment was written by a later version of this program")
            }
            Self::DamagedSegment => f.write_str(
                "the first block of the newest segment is damaged; move the file away to begin a new one",
            ),
            Self::NoMemory(bytes) => write!(f, "no memory for a buffer of {bytes} bytes"),
        }
    }
}

impl core::error::Error for LogError {}

/// What recovery found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Frames of the newest segment that hold.
    pub frames: usize,
    /// Frames that had been written and never acknowledged, cut off.
    pub cut: u64,
    /// The log was closed in order.
    pub closed: bool,
    /// Damage of what was durable once.
    pub rot: Vec<Rot>,
    /// Files that are no segments of this version, left alone.
    pub foreign: Vec<Name>,
}

/// Counters since the log was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LogCounters {
    /// Frames cut.
    pub frames: u64,
    /// Bytes written, padding included.
    pub written: u64,
    /// Flushes that succeeded.
    pub flushes: u64,
    /// Writes and flushes that failed.
    pub faults: u64,
    /// Segments begun.
    pub segments: u64,
    /// Segments deleted for the budget.
    pub retired: u64,
}

/// The name of segment `index` with id `id`.
fn segment_name(index: u64, id: u64) -> Name {
    use fmt::Write;
    let mut text = heapless::String::<{ Name::MAX }>::new();
    // 10 + 1 + 16 + 4 bytes at least, 20 digits at most: it fits.
    let _ = write!(text, "{index:010}-{id:016x}.gpl");
    Name::new(&text).unwrap_or_else(|| unreachable!("digits, a dash and a suffix are a name"))
}

/// The index in a segment's name.
fn segment_index(name: &Name) -> Option<u64> {
    let (index, id) = name.as_str().strip_suffix(".gpl")?.split_once('-')?;
    u64::from_str_radix(id, 16).ok()?;
    index.parse().ok()
}
