//! Writing: frames are cut, written, flushed; segments begin and end.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::fmt;

use hal::readiness::Next;
use hal::storage::{Completion, Fault, Op, Refused, StableBuf, Storage, Token};
use hal::time::{Instant, Span};
use hal::volume::{Name, Volume, VolumeDone, VolumeOp};

use super::format::{BLOCK, FRAME_HEADER, FrameHeader, FrameKind, MAX_PAYLOAD, NodeEntry, SegmentHeader};
use super::format::{frame_size, write_frame};
use super::open::{Opened, Opener, note};
use super::{Full, LogConfig, LogCounters, LogError, LogState, Record, RecordNo, Report, segment_name};

/// Frames on their way to the disk at once: one is written while the next gathers.
const IN_FLIGHT: usize = 2;
/// Records that wait for a frame at most: more is refused.
const BACKLOG: usize = 1024 * 1024;
const BACKLOG_RECORDS: u16 = 16 * 1024;
/// How long to wait before a refused segment is tried again.
const RETRY: Span = Span::secs(1);

/// Records on their way.
struct Frame {
    number: u64,
    kind: FrameKind,
    first_record: u64,
    records: u16,
    payload: Vec<u8>,
    cut_at: Instant,
    token: Option<Token>,
    written: bool,
    mark: u64,
    size: u64,
}

/// A segment being made.
enum Making<F> {
    Create,
    WriteHead { file: F, written: bool },
    Rename { file: F },
    Sync { file: F },
}

/// The record log of a gateway.
pub struct Log<V: Volume> {
    config: LogConfig,
    random: u64,
    id: u128,
    state: LogState,
    opener: Option<Opener<V>>,
    report: Report,
    table: BTreeMap<u32, NodeEntry>,
    segments: Vec<(Name, u64)>,

    file: Option<V::File>,
    segment: SegmentHeader,
    len: u64,
    at: u64,
    epoch: u32,

    making: Option<Making<V::File>>,
    /// The volume's operation that `making` waits for.
    making_token: Option<Token>,
    next_segment: SegmentHeader,
    /// Bytes that the next segment's table frame takes.
    head_size: u64,
    rotate: bool,
    /// The present segment takes no more frames: a write or flush of it has failed.
    voided: bool,
    retry_at: Option<Instant>,
    deleting: bool,

    next_frame: u64,
    next_record: u64,
    /// Frames up to this number are durable, this opening included.
    durable_frame: u64,
    written_mark: u64,
    last_data: u64,
    open_frame: u64,
    durable_record: u64,
    settled_record: u64,
    /// Numbers of data frames that are durable, with the record behind each: to tell what a mark settles.
    ends: VecDeque<(u64, u64)>,
    flight: VecDeque<Frame>,
    flushing: Option<(Token, u64)>,
    /// The very first flush of an opening: what recovery read may sit in a volatile cache.
    settled_first: bool,

    waiting: Vec<u8>,
    waiting_records: u16,
    waiting_since: Option<Instant>,
    last_cut: Option<Instant>,
    last_data_at: Instant,
    failures: u8,
    closing: bool,
    /// Something was submitted or reaped in this step.
    progress: bool,
    counters: LogCounters,
    commit: Vec<u64>,
    spare: Vec<<V::File as Storage>::Buf>,
}

impl<V: Volume> fmt::Debug for Log<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("state", &self.state)
            .field("durable", &self.durable_record)
            .field("in_flight", &self.flight.len())
            .finish_non_exhaustive()
    }
}

impl<V: Volume> Log<V> {
    /// A log that starts to open. `seed` has to differ from start to start: ids of segments come from it.
    pub fn new(config: LogConfig, seed: u64) -> Self {
        let none = SegmentHeader {
            id: 0,
            log: 0,
            index: 0,
            first_frame: 1,
            first_record: 0,
            previous: 0,
            previous_end: 0,
        };
        Self {
            config,
            random: seed,
            id: 0,
            state: LogState::Opening,
            opener: Some(Opener::new()),
            report: Report::default(),
            table: BTreeMap::new(),
            segments: Vec::new(),
            file: None,
            segment: none,
            len: 0,
            at: 0,
            epoch: 1,
            making: None,
            making_token: None,
            next_segment: none,
            head_size: 0,
            rotate: false,
            voided: false,
            retry_at: None,
            deleting: false,
            next_frame: 1,
            next_record: 0,
            durable_frame: 0,
            written_mark: 0,
            last_data: 0,
            open_frame: 0,
            durable_record: 0,
            settled_record: 0,
            ends: VecDeque::new(),
            flight: VecDeque::new(),
            flushing: None,
            settled_first: false,
            waiting: Vec::new(),
            waiting_records: 0,
            waiting_since: None,
            last_cut: None,
            last_data_at: Instant::ZERO,
            failures: 0,
            closing: false,
            progress: false,
            counters: LogCounters::default(),
            commit: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Takes a record.
    ///
    /// # Errors
    ///
    /// [`Full`] while the log opens, has no room, has failed or is closed, when too much waits for the disk already, or
    /// for a payload longer than [`MAX_PAYLOAD`].
    pub fn append(&mut self, now: Instant, record: &Record<'_>) -> Result<RecordNo, Full> {
        // A quarter of a segment: what waits and two frames that failed fit into a new one together.
        let backlog = BACKLOG.min(usize::try_from(self.config.segment_bytes / 4).unwrap_or(BACKLOG));
        let room = self.waiting.len() + record.payload.len() < backlog
            && self.waiting_records < BACKLOG_RECORDS
            && record.payload.len() <= MAX_PAYLOAD;
        if self.state != LogState::Ready || self.closing || !room {
            return Err(Full);
        }
        self.waiting_records += 1;
        record.write(&mut self.waiting);
        self.waiting_since.get_or_insert(now);
        let lost = record.gap().map_or(0, |gap| gap.count);
        note(&mut self.table, record.kind, record.node, record.boot, record.end(), lost);
        let number = RecordNo(self.next_record);
        self.next_record += 1;
        Ok(number)
    }

    /// Goes on with whatever there is to do. Come back at `Next::at`, or sooner when the volume has news.
    pub fn step(&mut self, now: Instant, volume: &mut V) -> Next {
        if let Some(opener) = &mut self.opener {
            if let Some(result) = opener.step(volume) {
                self.opener = None;
                match result {
                    Ok(opened) => self.opened(now, opened),
                    Err(error) => self.state = LogState::Failed(error),
                }
            } else {
                return Next::default();
            }
        }
        if matches!(self.state, LogState::Failed(_) | LogState::Closed) {
            return Next::default();
        }
        self.reap_volume(now, volume);
        self.make_segment(now, volume);
        self.reap_file(now);
        self.cut(now, volume);
        self.flush();
        self.retire(volume);
        if let Some(file) = &mut self.file {
            file.kick();
        }
        volume.kick();
        // A storage that works inside `kick` has its completions ready: look once more before sleeping.
        Next { at: self.wake_at(), more: core::mem::take(&mut self.progress) }
    }

    /// All records below are on disk.
    pub const fn durable(&self) -> RecordNo {
        RecordNo(self.durable_record)
    }

    /// All records below lie under a mark that is on disk itself.
    pub const fn settled(&self) -> RecordNo {
        RecordNo(self.settled_record)
    }

    /// Number of the next record.
    pub const fn appended(&self) -> RecordNo {
        RecordNo(self.next_record)
    }

    /// The log's identity; 0 while it opens.
    pub const fn id(&self) -> u128 {
        self.id
    }

    /// What it does now.
    pub const fn state(&self) -> LogState {
        self.state
    }

    /// Whether it has opened: nodes and identity are known.
    pub const fn is_open(&self) -> bool {
        self.opener.is_none() && self.id != 0 && self.durable_frame >= self.open_frame && self.open_frame != 0
    }

    /// What recovery found.
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// What the log holds of each node, appended records included.
    pub fn nodes(&self) -> impl Iterator<Item = NodeEntry> + '_ {
        self.table.values().copied()
    }

    /// Index of the segment that the next frame goes to.
    pub const fn segment(&self) -> u64 {
        self.segment.index
    }

    /// All segments, oldest first: name and length in bytes.
    pub fn segments(&self) -> &[(Name, u64)] {
        &self.segments
    }

    /// Counters since it was opened.
    pub const fn counters(&self) -> LogCounters {
        self.counters
    }

    /// Times from cutting a frame to its durability since the last call, ns.
    pub fn take_commit_times(&mut self) -> Vec<u64> {
        core::mem::take(&mut self.commit)
    }

    /// Ends the segment at the next chance and begins another (HUP).
    pub const fn rotate(&mut self) {
        self.rotate = true;
    }

    /// Closes the log in order: what was appended is written, then a close frame. [`LogState::Closed`] tells when.
    pub fn close(&mut self) {
        self.closing = true;
    }

    // ── opening and segments ─────────────────────────────────────────────────────────────────────────────────────────

    fn opened(&mut self, now: Instant, opened: Opened<V::File>) {
        self.table = opened.table;
        self.report = opened.report;
        self.segments = opened.segments;
        self.last_data_at = now;
        match opened.newest {
            Some(newest) => {
                self.id = newest.header.log;
                self.segment = newest.header;
                self.len = newest.len;
                self.at = newest.end;
                self.epoch = newest.epoch;
                self.next_frame = newest.next_frame;
                self.next_record = newest.next_record;
                self.durable_frame = newest.next_frame - 1;
                self.durable_record = newest.next_record;
                self.settled_record = newest.next_record;
                self.file = Some(newest.file);
            }
            None => {
                self.id = (u128::from(self.draw()) << 64) | u128::from(self.draw());
                self.settled_first = true; // nothing was read
                self.rotate = true;
            }
        }
    }

    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).max(1)
    }

    /// Begins a segment when the present one is used up: only when nothing is in flight, so that the table frame promises
    /// nothing that could still fail.
    fn make_segment(&mut self, now: Instant, volume: &mut V) {
        let full = self.file.is_some()
            && self.at + frame_size(self.waiting.len().max(self.config.frame_bytes)) as u64 > self.len;
        let wanted = self.rotate || full || self.file.is_none();
        let quiet =
            self.flight.is_empty() && self.flushing.is_none() && (self.settled_first || self.file.is_none());
        if !wanted || !quiet || self.making.is_some() || self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        let index = if self.file.is_some() { self.segment.index + 1 } else { 0 };
        self.next_segment = SegmentHeader {
            id: self.draw(),
            log: self.id,
            index,
            first_frame: self.next_frame,
            first_record: self.durable_record,
            previous: self.segment.id,
            previous_end: self.at,
        };
        let Some(name) = Name::new("next.tmp") else { return };
        // What an interrupted start has left; it is not there most of the time.
        let _ = volume.submit(VolumeOp::Delete { name });
        self.making_token = volume.submit(VolumeOp::Create { name, len: self.config.segment_bytes }).ok();
        if self.making_token.is_some() {
            self.making = Some(Making::Create);
            self.progress = true;
            self.retry_at = None;
        }
    }

    fn reap_volume(&mut self, now: Instant, volume: &mut V) {
        while let Some(completion) = volume.reap() {
            self.progress = true;
            if self.making_token.take_if(|token| *token == completion.token).is_none() {
                // The deletion of an old segment, or of what an interrupted start has left.
                self.deleting = false;
                continue;
            }
            match (completion.done, self.making.take()) {
                (VolumeDone::File { file, .. }, Some(Making::Create)) => self.write_head(now, volume, file),
                (VolumeDone::Done, Some(Making::Rename { file })) => {
                    self.making_token = volume.submit(VolumeOp::SyncDir).ok();
                    self.making = self.making_token.map(|_| Making::Sync { file });
                }
                (VolumeDone::Done, Some(Making::Sync { file })) => self.use_segment(file),
                // Only creating may fail without harm: nothing refers to the file yet.
                (VolumeDone::Failed(Fault::NoSpace), Some(Making::Create)) => self.no_room(now),
                (VolumeDone::Failed(fault), _) => self.fail(fault),
                _ => self.fail(Fault::Io),
            }
        }
        // The head of a new segment.
        let Some(Making::WriteHead { file, written }) = &mut self.making else { return };
        let Some(Completion { buf, result, .. }) = file.reap() else { return };
        self.progress = true;
        self.spare.extend(buf);
        match result {
            Ok(n) if *written || u64::from(n) == BLOCK as u64 + self.head_size => {
                let needs_flush = !*written && !file.geometry().durable_writes;
                *written = true;
                if needs_flush && file.submit(Op::Flush).is_ok() {
                    file.kick();
                    return;
                }
                let Some(Making::WriteHead { file, .. }) = self.making.take() else { return };
                let to = segment_name(self.next_segment.index, self.next_segment.id);
                let from = Name::new("next.tmp");
                self.making_token = from.and_then(|from| volume.submit(VolumeOp::Rename { from, to }).ok());
                self.making = self.making_token.map(|_| Making::Rename { file });
            }
            Ok(_) => self.fail(Fault::Io),
            Err(Fault::NoSpace) => self.no_room(now),
            Err(fault) => self.fail(fault),
        }
    }

    fn no_room(&mut self, now: Instant) {
        self.making = None;
        self.retry_at = Some(now.after(RETRY));
        let still_room = self.at + frame_size(self.config.frame_bytes) as u64 <= self.len;
        if self.file.is_some() && still_room && !self.voided {
            self.rotate = false; // it was only a wish
        } else {
            self.state = LogState::NoRoom;
        }
    }

    /// Writes block 0 and the table frame.
    fn write_head(&mut self, now: Instant, volume: &mut V, mut file: V::File) {
        let mut table = Vec::new();
        self.durable_table().for_each(|entry| entry.write(&mut table));
        let size = frame_size(table.len());
        let Some(mut buf) = self.buffer(volume, BLOCK + size) else { return };
        let bytes = buf.bytes();
        bytes.fill(0);
        self.next_segment.write(bytes);
        let frame = FrameHeader {
            segment: self.next_segment.id,
            offset: BLOCK as u64,
            number: self.next_frame,
            mark: self.durable_frame,
            epoch: self.epoch,
            len: 0,
            crc: 0,
            records: u16::try_from(table.len() / 32).unwrap_or(u16::MAX),
            kind: FrameKind::Table,
            first_record: self.next_segment.first_record,
        };
        write_frame(&frame, &table, bytes.get_mut(BLOCK..).unwrap_or(&mut []));
        self.head_size = size as u64;
        let len = u32::try_from(BLOCK + size).unwrap_or(u32::MAX);
        match file.submit(Op::Write { at: 0, buf, len }) {
            Ok(_) => {
                file.kick();
                self.progress = true;
                self.making = Some(Making::WriteHead { file, written: false });
            }
            Err(refused) => {
                self.spare.extend(refused.op.into_buf());
                self.no_room(now);
            }
        }
    }

    /// The table without records that wait for a frame: they go to the new segment behind it.
    fn durable_table(&self) -> impl Iterator<Item = NodeEntry> + '_ {
        let mut table = self.table.clone();
        // Entries count what was appended; what still waits is taken back by reading it.
        let mut rest = self.waiting.as_slice();
        let mut first_waiting: BTreeMap<u32, (u32, u64)> = BTreeMap::new();
        while let Some(Ok((record, size))) = Record::parse(rest) {
            if record.kind.in_sequence() {
                first_waiting.entry(record.node).or_insert((record.boot, record.sequence));
            }
            rest = rest.get(size..).unwrap_or(&[]);
        }
        for (node, (boot, sequence)) in first_waiting {
            if let Some(entry) = table.get_mut(&node)
                && entry.boot == boot
            {
                entry.next = sequence;
            }
        }
        table.into_values()
    }

    fn use_segment(&mut self, file: V::File) {
        self.file = Some(file);
        self.segment = self.next_segment;
        self.len = self.config.segment_bytes;
        self.at = BLOCK as u64 + self.head_size;
        // The table frame is durable: its flush and the directory's are over.
        self.durable_frame = self.next_frame;
        self.next_frame += 1;
        self.rotate = false;
        self.voided = false;
        self.settled_first = true;
        self.segments.push((segment_name(self.segment.index, self.segment.id), self.len));
        self.counters.segments += 1;
        self.counters.written += BLOCK as u64 + self.head_size;
        if self.state == LogState::NoRoom {
            self.state = if self.open_frame != 0 { LogState::Ready } else { LogState::Opening };
        }
    }

    /// Deletes the oldest segments beyond the budget, one at a time.
    fn retire(&mut self, volume: &mut V) {
        let total: u64 = self.segments.iter().map(|(_, len)| len).sum();
        if self.deleting
            || self.making.is_some()
            || self.segments.len() < 2
            || total <= self.config.retention_bytes
        {
            return;
        }
        let (name, _) = self.segments[0];
        if volume.submit(VolumeOp::Delete { name }).is_ok() {
            self.segments.remove(0);
            self.deleting = true;
            self.counters.retired += 1;
        }
    }

    // ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────

    fn buffer(&mut self, volume: &mut V, len: usize) -> Option<<V::File as Storage>::Buf> {
        if let Some(at) = self.spare.iter().position(|buf| buf.capacity() >= len) {
            return Some(self.spare.swap_remove(at));
        }
        self.spare.clear();
        let buf = volume.buffer(len.next_multiple_of(BLOCK));
        if buf.is_none() {
            self.state = LogState::Failed(LogError::NoMemory(len));
        }
        buf
    }

    fn cut(&mut self, now: Instant, volume: &mut V) {
        if self.making.is_some() || self.rotate || self.file.is_none() || !self.settled_first {
            return;
        }
        if self.open_frame == 0 {
            self.open_frame = self.next_frame;
            self.write(now, volume, FrameKind::Open, Vec::new(), 0);
            return;
        }
        if self.durable_frame < self.open_frame {
            return;
        }
        if self.state == LogState::Opening {
            self.state = LogState::Ready;
        }
        let due = self.waiting_since.is_some_and(|since| {
            let lone = self.last_cut.is_none_or(|cut| now.since(cut) >= self.config.max_delay);
            lone || now.since(since) >= self.config.max_delay || self.waiting.len() >= self.config.frame_bytes
        });
        if self.flight.len() < IN_FLIGHT && (due || (self.closing && self.waiting_records > 0)) {
            if self.at + frame_size(self.waiting.len()) as u64 > self.len {
                return; // the next segment is on its way
            }
            let payload = core::mem::take(&mut self.waiting);
            let records = core::mem::take(&mut self.waiting_records);
            self.waiting_since = None;
            self.last_cut = Some(now);
            self.last_data_at = now;
            self.write(now, volume, FrameKind::Data, payload, records);
            return;
        }
        let idle = self.flight.is_empty() && self.waiting_records == 0 && self.flushing.is_none();
        if idle && self.at + BLOCK as u64 <= self.len {
            if self.closing {
                if self.flight.is_empty() && self.state == LogState::Ready {
                    self.write(now, volume, FrameKind::Close, Vec::new(), 0);
                }
            } else if self.written_mark < self.last_data
                && now.since(self.last_data_at) >= self.config.seal_after
            {
                self.write(now, volume, FrameKind::Seal, Vec::new(), 0);
            }
        }
    }

    fn write(&mut self, now: Instant, volume: &mut V, kind: FrameKind, payload: Vec<u8>, records: u16) {
        let size = frame_size(payload.len());
        let first_record = self.next_record - u64::from(self.waiting_records) - u64::from(records);
        let mut frame = Frame {
            number: self.next_frame,
            kind,
            first_record,
            records,
            payload,
            cut_at: now,
            token: None,
            written: false,
            mark: self.durable_frame,
            size: size as u64,
        };
        let Some(mut buf) = self.buffer(volume, size) else { return };
        let header = FrameHeader {
            segment: self.segment.id,
            offset: self.at,
            number: frame.number,
            mark: frame.mark,
            epoch: self.epoch,
            len: 0,
            crc: 0,
            records,
            kind,
            first_record,
        };
        write_frame(&header, &frame.payload, buf.bytes());
        let op = Op::Write { at: self.at, buf, len: u32::try_from(size).unwrap_or(u32::MAX) };
        let Some(file) = &mut self.file else { return };
        match file.submit(op) {
            Ok(token) => frame.token = Some(token),
            Err(Refused { op, .. }) => {
                self.spare.extend(op.into_buf());
                self.fail(Fault::Io);
                return;
            }
        }
        self.at += size as u64;
        self.next_frame += 1;
        self.counters.frames += 1;
        self.counters.written += size as u64;
        if kind == FrameKind::Data {
            self.last_data = frame.number;
        }
        self.written_mark = frame.mark;
        self.progress = true;
        self.flight.push_back(frame);
    }

    fn reap_file(&mut self, now: Instant) {
        while let Some(Completion { token, buf, result }) = self.file.as_mut().and_then(Storage::reap) {
            self.progress = true;
            self.spare.extend(buf);
            if let Some((_, upto)) = self.flushing.take_if(|(flush, _)| *flush == token) {
                match result {
                    Ok(_) => {
                        self.counters.flushes += 1;
                        self.settled_first = true;
                        self.advance(now, upto);
                    }
                    Err(fault) => self.fail(fault),
                }
                continue;
            }
            let Some(frame) = self.flight.iter_mut().find(|frame| frame.token == Some(token)) else {
                continue;
            };
            match result {
                Ok(n) if u64::from(n) == frame.size => frame.written = true,
                Ok(_) => self.fail(Fault::Io), // short: the rest is unknown
                Err(fault) => self.fail(fault),
            }
        }
        if self.settled_first && self.file.as_ref().is_some_and(|file| file.geometry().durable_writes) {
            let upto = self.written_upto();
            self.advance(now, upto);
        }
    }

    /// The highest frame that is written together with all below it.
    fn written_upto(&self) -> u64 {
        self.flight
            .iter()
            .take_while(|frame| frame.written)
            .last()
            .map_or(self.durable_frame, |frame| frame.number)
    }

    fn flush(&mut self) {
        let upto = self.written_upto();
        let first = !self.settled_first && self.file.is_some();
        let durable_writes = self.file.as_ref().is_some_and(|file| file.geometry().durable_writes);
        if self.flushing.is_some() || !(first || (upto > self.durable_frame && !durable_writes)) {
            return;
        }
        // A flush covers what was accepted before it, but it vouches only for what had *completed*: a write that is still
        // on its way may land behind it.
        let submitted = self.file.as_mut().map(|file| file.submit(Op::Flush));
        if let Some(Ok(token)) = submitted {
            self.flushing = Some((token, upto));
            self.progress = true;
        }
    }

    fn advance(&mut self, now: Instant, upto: u64) {
        while let Some(frame) = self.flight.pop_front_if(|frame| frame.number <= upto && frame.written) {
            self.durable_frame = frame.number;
            if frame.kind == FrameKind::Data {
                self.durable_record = frame.first_record + u64::from(frame.records);
                self.ends.push_back((frame.number, self.durable_record));
                if self.commit.len() < 4096 {
                    self.commit.push(now.since(frame.cut_at).as_ns());
                }
            }
            // This frame is durable, and so is the mark in it.
            while let Some((_, end)) = self.ends.pop_front_if(|(number, _)| *number <= frame.mark) {
                self.settled_record = end;
            }
            if frame.kind == FrameKind::Close {
                self.state = LogState::Closed;
                self.settled_record = self.durable_record;
            }
            self.failures = 0;
        }
    }

    /// A write or flush failed: nothing on those pages is trusted again. The frames that were not durable go into a new
    /// segment, once.
    fn fail(&mut self, fault: Fault) {
        self.counters.faults += 1;
        self.failures += 1;
        self.making = None;
        self.flushing = None;
        if self.failures > 1 || self.open_frame == 0 {
            self.state = LogState::Failed(LogError::Write(fault));
            return;
        }
        // Void the segment behind the last durable frame; block 0 of the next one says so.
        let lost: u64 = self.flight.iter().map(|frame| frame.size).sum();
        self.at -= lost;
        let mut again = Vec::new();
        let mut records = 0u16;
        for frame in self.flight.drain(..) {
            if frame.records > 0 {
                self.waiting_since =
                    Some(self.waiting_since.map_or(frame.cut_at, |since| since.min(frame.cut_at)));
            }
            again.extend_from_slice(&frame.payload);
            records += frame.records;
            self.next_frame = self.next_frame.min(frame.number);
        }
        again.append(&mut self.waiting);
        self.waiting = again;
        self.waiting_records += records;
        self.last_data = self.ends.back().map_or(self.written_mark, |(number, _)| *number);
        if self.durable_frame < self.open_frame {
            self.open_frame = 0;
        }
        // The storage may still complete the old operations; their tokens are forgotten with the file.
        self.rotate = true;
        self.voided = true;
    }

    fn wake_at(&self) -> Option<Instant> {
        let cut = self
            .waiting_since
            .filter(|_| self.flight.len() < IN_FLIGHT)
            .map(|at| at.after(self.config.max_delay));
        let seal = (self.written_mark < self.last_data && self.flight.is_empty())
            .then(|| self.last_data_at.after(self.config.seal_after));
        [cut, seal, self.retry_at].into_iter().flatten().min()
    }
}

const _: () = assert!(FRAME_HEADER < BLOCK, "an empty frame takes one block");
