//! Reads a segment: which frames hold, where it ends, what is damaged. Used by recovery and by everything that reads.
//!
//! The rules (M is the highest mark in any valid header of the segment):
//!
//! 1. A frame holds when its header and its records have their checksums, it stands where it says, belongs to this
//!    segment, has the next number, and an epoch that is not lower than the one before.
//! 2. A bad frame up to M was durable once: that is *rot*. Records whose own checksum holds are kept, the range is
//!    reported, and the walk goes on at the next header of the chain. Nothing is ever cut there.
//! 3. A bad frame above M ends the log, also when good frames follow: a lower one is missing, so nothing from here on was
//!    ever acknowledged.

use alloc::vec::Vec;

use net_core::wire::crc::crc32c;

use super::format::{BLOCK, FRAME_HEADER, FrameHeader, FrameKind, Record, SegmentError, SegmentHeader};

/// Frames that were durable once and are damaged now, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rot {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// Records among them that could still be read.
    pub salvaged: u64,
}

/// A segment, looked through.
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    /// Block 0.
    pub header: SegmentHeader,
    /// Offset behind the last frame that holds: where the next one belongs.
    pub end: u64,
    /// Number of the frame that belongs there.
    pub next_frame: u64,
    /// Number of the next record.
    pub next_record: u64,
    /// The highest mark.
    pub mark: u64,
    /// The highest epoch in any valid header, also beyond the end.
    pub max_epoch: u32,
    /// Valid headers beyond the end: written, never acknowledged.
    pub cut: u64,
    /// The last frame says that the log was closed in order.
    pub closed: bool,
    /// Damage below the mark.
    pub rot: Vec<Rot>,
    frames: Vec<(FrameKind, &'a [u8])>,
}

impl<'a> Walk<'a> {
    /// Looks through the bytes of a segment. `limit` is where a later segment says that this one ends.
    ///
    /// # Errors
    ///
    /// [`SegmentError`] when block 0 is not one of this version or is damaged.
    pub fn new(bytes: &'a [u8], limit: Option<u64>) -> Result<Self, SegmentError> {
        let header = SegmentHeader::parse(bytes)?;
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let bytes = bytes.get(..limit.min(bytes.len())).unwrap_or(bytes);
        let headers: Vec<(usize, FrameHeader)> = (BLOCK..bytes.len())
            .step_by(BLOCK)
            .filter_map(|at| Some((at, FrameHeader::parse(bytes.get(at..)?)?)))
            .filter(|(at, frame)| frame.segment == header.id && frame.offset == *at as u64)
            .collect();
        let mut walk = Self {
            header,
            end: BLOCK as u64,
            next_frame: header.first_frame,
            next_record: header.first_record,
            mark: headers.iter().map(|(_, frame)| frame.mark).max().unwrap_or(0),
            max_epoch: headers.iter().map(|(_, frame)| frame.epoch).max().unwrap_or(0),
            cut: 0,
            closed: false,
            rot: Vec::new(),
            frames: Vec::new(),
        };
        walk.chain(bytes, &headers);
        Ok(walk)
    }

    fn chain(&mut self, bytes: &'a [u8], headers: &[(usize, FrameHeader)]) {
        let mut epoch = 0;
        loop {
            let at = usize::try_from(self.end).unwrap_or(usize::MAX);
            let durable = self.next_frame <= self.mark;
            let here = headers.iter().find(|(offset, frame)| {
                *offset == at && frame.number == self.next_frame && frame.epoch >= epoch
            });
            if let Some((offset, frame)) = here {
                let start = offset + FRAME_HEADER;
                let payload = bytes.get(start..start + frame.len as usize).unwrap_or(&[]);
                let whole = payload.len() == frame.len as usize && crc32c(payload) == frame.crc;
                if whole || durable {
                    if !whole {
                        let salvaged = records(payload).count() as u64;
                        self.report(Rot { first: frame.number, last: frame.number, salvaged });
                    }
                    self.accept(frame, payload);
                    epoch = frame.epoch;
                    continue;
                }
            }
            // Nothing usable stands here. Below the mark the chain goes on somewhere behind; above it the log ends.
            let next = headers.iter().find(|(offset, frame)| {
                *offset > at && frame.number > self.next_frame && frame.epoch >= epoch
            });
            if durable {
                let behind = next.map_or(self.mark + 1, |(_, frame)| frame.number);
                self.report(Rot { first: self.next_frame, last: behind - 1, salvaged: 0 });
                self.next_frame = behind;
                if let Some((offset, frame)) = next {
                    self.end = *offset as u64;
                    self.next_record = frame.first_record;
                    continue;
                }
                // The rest of what was durable is gone; what comes next stands behind every header that there is.
                self.end = headers
                    .last()
                    .map_or(self.end, |(offset, frame)| (*offset as u64 + frame.size() as u64).max(self.end));
            }
            self.cut = headers.iter().filter(|(offset, _)| *offset as u64 >= self.end).count() as u64;
            return;
        }
    }

    fn accept(&mut self, frame: &FrameHeader, payload: &'a [u8]) {
        self.end += frame.size() as u64;
        self.next_frame = frame.number + 1;
        self.next_record = frame.first_record;
        if frame.kind == FrameKind::Data {
            self.next_record += u64::from(frame.records);
        }
        self.closed = frame.kind == FrameKind::Close;
        self.frames.push((frame.kind, payload));
    }

    fn report(&mut self, rot: Rot) {
        match self.rot.last_mut().filter(|last| last.last + 1 == rot.first) {
            Some(last) => {
                last.last = rot.last;
                last.salvaged += rot.salvaged;
            }
            None => self.rot.push(rot),
        }
    }

    /// The records of all data frames that hold, in order; records with a wrong checksum are left out.
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> + '_ {
        self.frames
            .iter()
            .filter(|(kind, _)| *kind == FrameKind::Data)
            .flat_map(|(_, payload)| records(payload))
    }

    /// The bytes of the table frame, the first of the segment.
    pub fn table(&self) -> &'a [u8] {
        self.frames.iter().find(|(kind, _)| *kind == FrameKind::Table).map_or(&[], |(_, payload)| *payload)
    }

    /// How many frames hold.
    pub const fn frame_count(&self) -> usize {
        self.frames.len()
    }
}

fn records(payload: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = payload;
    core::iter::from_fn(move || {
        loop {
            let (record, size) = match Record::parse(rest)? {
                Ok((record, size)) => (Some(record), size),
                Err(size) => (None, size),
            };
            rest = rest.get(size..).unwrap_or(&[]);
            if record.is_some() {
                return record;
            }
        }
    })
}
