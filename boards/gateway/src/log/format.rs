//! The bytes of the log; `LOG-FORMAT.md` beside the crate says the same for people who write a reader.
//!
//! All numbers are little-endian, all checksums CRC-32C.

use alloc::vec::Vec;

use hal::time::Instant;
use net_core::wire::crc::crc32c;
use node::codec::{Reader, Writer};
use node::message::{FromNode, Gap};
use node::sample::Samples;

/// Bytes of a block: frames start at multiples of it, and no block is written twice.
pub const BLOCK: usize = 4096;
/// Bytes of a frame before its records.
pub const FRAME_HEADER: usize = 64;
/// Bytes of a record before its payload.
pub const RECORD_HEADER: usize = 32;
/// Longest payload of a record.
pub const MAX_PAYLOAD: usize = 16 * 1024;

const SEGMENT_MAGIC: [u8; 8] = *b"GPSEG001";
const FRAME_MAGIC: [u8; 4] = *b"GPF1";
/// Bytes of block 0 that hold fields; the rest is 0.
const SEGMENT_HEADER: usize = 88;
const TABLE_ENTRY: usize = 32;

/// What block 0 of a segment says.
///
/// | bytes | field |
/// | --- | --- |
/// | 0..8 | `GPSEG001` |
/// | 8..12 | CRC of bytes 12..88 |
/// | 12..16 | bytes of a block |
/// | 16..24 | segment id, random |
/// | 24..40 | log id, random, the same in all segments |
/// | 40..48 | index of the segment, from 0 |
/// | 48..56 | number of its first frame |
/// | 56..64 | number of its first record |
/// | 64..72 | id of the previous segment, 0 for none |
/// | 72..80 | end of the previous segment in bytes: frames beyond are void |
/// | 80..88 | 0 |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Random.
    pub id: u64,
    /// Random, the same in all segments of a log.
    pub log: u128,
    /// Counts segments.
    pub index: u64,
    /// Number of the first frame.
    pub first_frame: u64,
    /// Number of the first record.
    pub first_record: u64,
    /// Id of the segment before.
    pub previous: u64,
    /// Where that one ends; frames beyond are void.
    pub previous_end: u64,
}

/// Why bytes are no segment of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SegmentError {
    /// Not a segment of any version.
    Foreign,
    /// A segment of a later version: left alone.
    Version,
    /// A segment whose block 0 is damaged.
    Damaged,
}

impl SegmentHeader {
    /// Reads block 0.
    ///
    /// # Errors
    ///
    /// [`SegmentError`] when it is not one of this version, or damaged.
    pub fn parse(block: &[u8]) -> Result<Self, SegmentError> {
        let mut r = Reader::new(block);
        let magic = r.bytes(8).ok_or(SegmentError::Foreign)?;
        if magic != SEGMENT_MAGIC {
            return Err(if magic.starts_with(b"GPSEG") {
                SegmentError::Version
            } else {
                SegmentError::Foreign
            });
        }
        let fields = block.get(12..SEGMENT_HEADER).ok_or(SegmentError::Damaged)?;
        let mut read = || {
            let crc = r.u32()?;
            let size = r.u32()?;
            let header = Self {
                id: r.u64()?,
                log: r.u128()?,
                index: r.u64()?,
                first_frame: r.u64()?,
                first_record: r.u64()?,
                previous: r.u64()?,
                previous_end: r.u64()?,
            };
            (crc == crc32c(fields) && size as usize == BLOCK).then_some(header)
        };
        read().ok_or(SegmentError::Damaged)
    }

    /// Writes block 0 into the front of `out`, at least [`BLOCK`] bytes.
    pub fn write(&self, out: &mut [u8]) {
        let mut fields = [0; SEGMENT_HEADER - 12];
        let mut w = Writer::new(&mut fields);
        w.u32(u32::try_from(BLOCK).unwrap_or(0));
        w.u64(self.id);
        w.u128(self.log);
        w.u64(self.index);
        w.u64(self.first_frame);
        w.u64(self.first_record);
        w.u64(self.previous);
        w.u64(self.previous_end);
        let mut w = Writer::new(out);
        w.bytes(&SEGMENT_MAGIC);
        w.u32(crc32c(&fields));
        w.bytes(&fields);
    }
}

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Records.
    Data,
    /// First frame of an opening: an epoch begins.
    Open,
    /// No records: carries the mark after a pause.
    Seal,
    /// First frame of a segment: what each node has in the log.
    Table,
    /// The log was closed in order; nothing before it may be cut.
    Close,
}

impl FrameKind {
    const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Open => 2,
            Self::Seal => 3,
            Self::Table => 4,
            Self::Close => 5,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Data,
            2 => Self::Open,
            3 => Self::Seal,
            4 => Self::Table,
            5 => Self::Close,
            _ => return None,
        })
    }
}

/// The first 64 bytes of a frame.
///
/// | bytes | field |
/// | --- | --- |
/// | 0..4 | `GPF1` |
/// | 4..8 | CRC of bytes 8..64 |
/// | 8..16 | segment id |
/// | 16..24 | own offset in the file |
/// | 24..32 | number of the frame, +1 each, across segments, from 1 |
/// | 32..40 | mark: all frames up to this number were durable when this one was built; 0 before the first |
/// | 40..44 | epoch: +1 at every opening of the log |
/// | 44..48 | bytes of records behind the header, padding of the last block not counted |
/// | 48..52 | CRC of those bytes |
/// | 52..54 | number of records (table: of entries) |
/// | 54 | kind: 1 data, 2 open, 3 seal, 4 table, 5 close |
/// | 55 | 0 |
/// | 56..64 | number of the first record in it, or of the next one when there is none |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Which segment wrote it: a recycled block has another.
    pub segment: u64,
    /// Where it stands: a misdirected write has another.
    pub offset: u64,
    /// Counts frames.
    pub number: u64,
    /// All frames up to here were durable.
    pub mark: u64,
    /// Counts openings.
    pub epoch: u32,
    /// Bytes of records.
    pub len: u32,
    /// Their checksum.
    pub crc: u32,
    /// How many there are.
    pub records: u16,
    /// What it is for.
    pub kind: FrameKind,
    /// Number of the first record.
    pub first_record: u64,
}

impl FrameHeader {
    /// Reads a header; `None` when it is none, also when it is damaged.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..FRAME_HEADER)?;
        let mut r = Reader::new(header);
        if r.bytes(4)? != FRAME_MAGIC || r.u32()? != crc32c(header.get(8..)?) {
            return None;
        }
        let (segment, offset, number, mark) = (r.u64()?, r.u64()?, r.u64()?, r.u64()?);
        let (epoch, len, crc, records) = (r.u32()?, r.u32()?, r.u32()?, r.u16()?);
        let kind = FrameKind::from_code(r.u8()?)?;
        let _reserved = r.u8()?;
        Some(Self { segment, offset, number, mark, epoch, len, crc, records, kind, first_record: r.u64()? })
    }

    fn write(&self, out: &mut [u8]) {
        let mut fields = [0; FRAME_HEADER - 8];
        let mut w = Writer::new(&mut fields);
        w.u64(self.segment);
        w.u64(self.offset);
        w.u64(self.number);
        w.u64(self.mark);
        w.u32(self.epoch);
        w.u32(self.len);
        w.u32(self.crc);
        w.u16(self.records);
        w.u8(self.kind.code());
        w.u8(0);
        w.u64(self.first_record);
        let mut w = Writer::new(out);
        w.bytes(&FRAME_MAGIC);
        w.u32(crc32c(&fields));
        w.bytes(&fields);
    }

    /// Bytes of the frame in the file: whole blocks.
    pub const fn size(&self) -> usize {
        frame_size(self.len as usize)
    }
}

/// Bytes in the file of a frame with `len` bytes of records.
pub const fn frame_size(len: usize) -> usize {
    (FRAME_HEADER + len).next_multiple_of(BLOCK)
}

/// Completes `header` with length and checksum of `payload` and writes the whole frame, padding zeroed, into the front
/// of `out`; returns its size.
pub fn write_frame(header: &FrameHeader, payload: &[u8], out: &mut [u8]) -> usize {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let header = FrameHeader { len, crc: crc32c(payload), ..*header };
    let size = header.size();
    if let Some(frame) = out.get_mut(..size) {
        frame.fill(0);
        header.write(frame);
        if let Some(body) = frame.get_mut(FRAME_HEADER..FRAME_HEADER + payload.len()) {
            body.copy_from_slice(payload);
        }
    }
    size
}

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A block of samples as the node sent it.
    Samples,
    /// A range of samples that are missing.
    Gap,
    /// A group of channels as the node announced it; outside the sequence.
    Channels,
    /// A start of a node and the boot number that it was given; outside the sequence.
    Boot,
    /// A node's clock beside the gateway's and the wall clock; outside the sequence.
    Time,
    /// A kind of a later version.
    Other(u8),
}

impl Kind {
    /// The byte that stands for it.
    pub const fn code(self) -> u8 {
        match self {
            Self::Samples => 1,
            Self::Gap => 2,
            Self::Channels => 16,
            Self::Boot => 17,
            Self::Time => 18,
            Self::Other(code) => code,
        }
    }

    /// From the byte.
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Samples,
            2 => Self::Gap,
            16 => Self::Channels,
            17 => Self::Boot,
            18 => Self::Time,
            other => Self::Other(other),
        }
    }

    /// Whether records of this kind take part in the node's sequence.
    pub const fn in_sequence(self) -> bool {
        matches!(self, Self::Samples | Self::Gap)
    }
}

/// A record.
///
/// | bytes | field |
/// | --- | --- |
/// | 0..4 | CRC of bytes 4..length |
/// | 4..6 | length: header and payload, without the padding to 8 bytes |
/// | 6 | kind |
/// | 7 | flags, 0 |
/// | 8..12 | node |
/// | 12..16 | boot |
/// | 16..24 | sequence number of the first sample; 0 outside the sequence |
/// | 24..32 | the node's clock, ns (channels and boot: the gateway's) |
/// | 32.. | payload |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it holds.
    pub kind: Kind,
    /// None are defined.
    pub flags: u8,
    /// Whose it is.
    pub node: u32,
    /// Of which start of the node.
    pub boot: u32,
    /// Number of the first sample.
    pub sequence: u64,
    /// The node's clock.
    pub time: Instant,
    /// The rest.
    pub payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// Appends the record, padded, to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let len = RECORD_HEADER + self.payload.len();
        out.resize(start + len.next_multiple_of(8), 0);
        let Some(bytes) = out.get_mut(start..start + len) else { return };
        let mut w = Writer::new(bytes);
        w.u32(0);
        w.u16(u16::try_from(len).unwrap_or(u16::MAX));
        w.u8(self.kind.code());
        w.u8(self.flags);
        w.u32(self.node);
        w.u32(self.boot);
        w.u64(self.sequence);
        w.u64(self.time.as_ns());
        w.bytes(self.payload);
        let crc = crc32c(bytes.get(4..).unwrap_or(&[]));
        if let Some(field) = bytes.first_chunk_mut::<4>() {
            *field = crc.to_le_bytes();
        }
    }

    /// Reads the record at the front of `bytes` and how many bytes it takes with its padding. `None` when its length is
    /// impossible; `Some(Err(size))` when its checksum is wrong but the next record may stand `size` bytes on.
    pub fn parse(bytes: &'a [u8]) -> Option<Result<(Self, usize), usize>> {
        let mut r = Reader::new(bytes);
        let (crc, len) = (r.u32()?, usize::from(r.u16()?));
        if len < RECORD_HEADER || len > bytes.len() {
            return None;
        }
        let size = len.next_multiple_of(8).min(bytes.len());
        let covered = bytes.get(4..len)?;
        if crc32c(covered) != crc {
            return Some(Err(size));
        }
        let (kind, flags) = (Kind::from_code(r.u8()?), r.u8()?);
        let (node, boot, sequence, time) = (r.u32()?, r.u32()?, r.u64()?, Instant::from_ns(r.u64()?));
        let payload = bytes.get(RECORD_HEADER..len)?;
        Some(Ok((Self { kind, flags, node, boot, sequence, time, payload }, size)))
    }

    /// One more than the number of the last sample that the record stands for; `None` outside the sequence, or when the
    /// payload is not what the kind says.
    pub fn end(&self) -> Option<u64> {
        match self.kind {
            Kind::Samples => Samples::parse(self.payload).map(|samples| samples.end()),
            Kind::Gap => self.gap().map(|gap| gap.end()),
            _ => None,
        }
    }

    /// The missing range that a gap record stands for.
    pub fn gap(&self) -> Option<Gap> {
        match FromNode::parse(self.payload) {
            Ok(FromNode::Gap(gap)) if self.kind == Kind::Gap => Some(gap),
            _ => None,
        }
    }
}

/// What the log holds of a node: an entry of a table frame.
///
/// | bytes | field |
/// | --- | --- |
/// | 0..4 | node |
/// | 4..8 | its newest boot |
/// | 8..16 | the next sample that the log lacks |
/// | 16..24 | samples of all boots that are missing |
/// | 24..32 | 0 |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeEntry {
    /// The node.
    pub node: u32,
    /// Its newest boot.
    pub boot: u32,
    /// The next sample that the log lacks.
    pub next: u64,
    /// Samples that are missing.
    pub lost: u64,
}

impl NodeEntry {
    /// Appends the entry to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut bytes = [0; TABLE_ENTRY];
        let mut w = Writer::new(&mut bytes);
        w.u32(self.node);
        w.u32(self.boot);
        w.u64(self.next);
        w.u64(self.lost);
        out.extend_from_slice(&bytes);
    }

    /// Reads the entries of a table frame.
    pub fn read_all(payload: &[u8]) -> impl Iterator<Item = Self> + '_ {
        payload.chunks_exact(TABLE_ENTRY).filter_map(|bytes| {
            let mut r = Reader::new(bytes);
            Some(Self { node: r.u32()?, boot: r.u32()?, next: r.u64()?, lost: r.u64()? })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_and_no_flipped_bit_passes() {
        let segment = SegmentHeader {
            id: 3,
            log: 1 << 90,
            index: 4,
            first_frame: 77,
            first_record: 900,
            previous: 2,
            previous_end: 8192,
        };
        let mut block = alloc::vec![0; BLOCK];
        segment.write(&mut block);
        assert_eq!(SegmentHeader::parse(&block), Ok(segment));
        let frame = FrameHeader {
            segment: 3,
            offset: 4096,
            number: 77,
            mark: 76,
            epoch: 2,
            len: 0,
            crc: 0,
            records: 1,
            kind: FrameKind::Data,
            first_record: 900,
        };
        let mut bytes = alloc::vec![0; BLOCK];
        assert_eq!(write_frame(&frame, b"payload!", &mut bytes), BLOCK);
        assert_eq!(FrameHeader::parse(&bytes).map(|f| (f.number, f.len)), Some((77, 8)));
        for bit in 0..FRAME_HEADER * 8 {
            let (mut segment, mut frame) = (block.clone(), bytes.clone());
            frame[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::parse(&frame), None, "bit {bit}");
            segment[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::parse(&segment).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn records_come_back_padded_and_damage_leads_to_the_next() {
        let record = |payload| Record {
            kind: Kind::Boot,
            flags: 0,
            node: 1,
            boot: 2,
            sequence: 0,
            time: Instant::from_ns(5),
            payload,
        };
        let mut bytes = Vec::new();
        record(b"abc").write(&mut bytes);
        record(b"second").write(&mut bytes);
        assert_eq!(bytes.len(), 80);
        let (first, size) = Record::parse(&bytes).unwrap().unwrap();
        assert_eq!((first, size), (record(b"abc"), 40));
        bytes[33] ^= 1;
        assert_eq!(Record::parse(&bytes), Some(Err(40)));
        assert_eq!(Record::parse(&bytes[40..]).unwrap().unwrap().0.payload, b"second");
        assert_eq!(Record::parse(&bytes[..20]), None);
    }
}
