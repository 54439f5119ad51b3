//! Opening: what is there is read, what is torn is cut, what is damaged is reported.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use hal::storage::{Completion, Fault, Op, StableBuf, Storage};
use hal::volume::{Name, Volume, VolumeCompletion, VolumeDone, VolumeOp};

use super::format::{BLOCK, NodeEntry, SegmentError, SegmentHeader};
use super::walk::Walk;
use super::{Kind, LogError, Report, segment_index};

/// Bytes read at a time.
const PIECE: usize = 256 * 1024;

/// The newest segment, or none, as recovery found it.
pub(super) struct Opened<F> {
    pub(super) newest: Option<Newest<F>>,
    /// All segments, oldest first: name and length.
    pub(super) segments: Vec<(Name, u64)>,
    pub(super) table: BTreeMap<u32, NodeEntry>,
    pub(super) report: Report,
}

/// What goes on in the newest segment.
pub(super) struct Newest<F> {
    pub(super) file: F,
    pub(super) len: u64,
    pub(super) header: SegmentHeader,
    pub(super) end: u64,
    pub(super) next_frame: u64,
    pub(super) next_record: u64,
    pub(super) epoch: u32,
}

enum Stage<F> {
    Start,
    Listing,
    /// A name that a killed process has made may not be durable yet, and what it holds will be acknowledged.
    Syncing,
    Opening,
    Reading {
        file: F,
        len: u64,
        at: u64,
        waiting: bool,
    },
    Done,
}

/// Opens a log, step by step.
pub(super) struct Opener<V: Volume> {
    stage: Stage<V::File>,
    segments: Vec<(Name, u64)>,
    report: Report,
    bytes: Vec<u8>,
    spare: Option<<V::File as Storage>::Buf>,
}

impl<V: Volume> Opener<V> {
    pub(super) const fn new() -> Self {
        let report = Report { frames: 0, cut: 0, closed: false, rot: Vec::new(), foreign: Vec::new() };
        Self { stage: Stage::Start, segments: Vec::new(), report, bytes: Vec::new(), spare: None }
    }

    /// Goes on; `Some` when it is over.
    pub(super) fn step(&mut self, volume: &mut V) -> Option<Result<Opened<V::File>, LogError>> {
        loop {
            match &mut self.stage {
                Stage::Start => {
                    volume.submit(VolumeOp::List).ok()?;
                    self.stage = Stage::Listing;
                    volume.kick();
                }
                Stage::Listing | Stage::Syncing | Stage::Opening => {
                    let VolumeCompletion { done, .. } = volume.reap()?;
                    match done {
                        VolumeDone::Entry { name, len } if segment_index(&name).is_some() => {
                            self.segments.push((name, len))
                        }
                        VolumeDone::Entry { name, .. } => self.report.foreign.push(name),
                        VolumeDone::Done if matches!(self.stage, Stage::Listing) => {
                            volume.submit(VolumeOp::SyncDir).ok()?;
                            self.stage = Stage::Syncing;
                            volume.kick();
                        }
                        VolumeDone::Done => {
                            self.segments.sort_by_key(|(name, _)| segment_index(name));
                            let Some((name, _)) = self.segments.last().copied() else {
                                return Some(Ok(self.finish(None, BTreeMap::new())));
                            };
                            volume.submit(VolumeOp::Open { name }).ok()?;
                            self.stage = Stage::Opening;
                            volume.kick();
                        }
                        VolumeDone::File { file, len } => {
                            self.stage = Stage::Reading { file, len, at: 0, waiting: false }
                        }
                        VolumeDone::NoSuchName => return Some(Err(LogError::Read(Fault::Io))),
                        VolumeDone::Failed(fault) => return Some(Err(LogError::Read(fault))),
                        _ => {}
                    }
                }
                Stage::Reading { file, len, at, waiting } => {
                    if *waiting {
                        let Completion { buf, result, .. } = file.reap()?;
                        *waiting = false;
                        match (result, buf) {
                            (Ok(n), Some(mut buf)) => {
                                let whole = n as usize / BLOCK * BLOCK;
                                if whole == 0 {
                                    *len = *at; // shorter than it was when it was listed
                                }
                                self.bytes.extend_from_slice(buf.bytes().get(..whole).unwrap_or(&[]));
                                *at += whole as u64;
                                self.spare = Some(buf);
                            }
                            (Ok(_), None) => return Some(Err(LogError::Read(Fault::Io))),
                            (Err(fault), _) => return Some(Err(LogError::Read(fault))),
                        }
                    } else if *at < *len / BLOCK as u64 * BLOCK as u64 {
                        let Some(buf) = self.spare.take().or_else(|| volume.buffer(PIECE)) else {
                            return Some(Err(LogError::NoMemory(PIECE)));
                        };
                        let wanted = (*len / BLOCK as u64 * BLOCK as u64 - *at).min(PIECE as u64);
                        let read = Op::Read { at: *at, buf, len: u32::try_from(wanted).unwrap_or(0) };
                        if let Err(refused) = file.submit(read) {
                            self.spare = refused.op.into_buf();
                            return Some(Err(LogError::Read(Fault::Misaligned)));
                        }
                        *waiting = true;
                        file.kick();
                    } else {
                        let Stage::Reading { file, len, .. } =
                            core::mem::replace(&mut self.stage, Stage::Done)
                        else {
                            return None;
                        };
                        return Some(self.recover(file, len));
                    }
                }
                Stage::Done => return None,
            }
        }
    }

    fn recover(&mut self, file: V::File, len: u64) -> Result<Opened<V::File>, LogError> {
        let bytes = core::mem::take(&mut self.bytes);
        let walk = match Walk::new(&bytes, None) {
            Ok(walk) => walk,
            Err(SegmentError::Version) => return Err(LogError::LaterVersion),
            Err(_) => return Err(LogError::DamagedSegment),
        };
        let mut table: BTreeMap<u32, NodeEntry> =
            NodeEntry::read_all(walk.table()).map(|entry| (entry.node, entry)).collect();
        for record in walk.records() {
            note(
                &mut table,
                record.kind,
                record.node,
                record.boot,
                record.end(),
                record.gap().map_or(0, |gap| gap.count),
            );
        }
        self.report.frames = walk.frame_count();
        self.report.cut = walk.cut;
        self.report.closed = walk.closed;
        self.report.rot.clone_from(&walk.rot);
        let newest = Newest {
            file,
            len,
            header: walk.header,
            end: walk.end,
            next_frame: walk.next_frame,
            next_record: walk.next_record,
            epoch: walk.max_epoch + 1,
        };
        Ok(self.finish(Some(newest), table))
    }

    fn finish(
        &mut self,
        newest: Option<Newest<V::File>>,
        table: BTreeMap<u32, NodeEntry>,
    ) -> Opened<V::File> {
        self.stage = Stage::Done;
        let (segments, report) = (core::mem::take(&mut self.segments), core::mem::take(&mut self.report));
        Opened { newest, segments, table, report }
    }
}

/// Keeps the table in step with a record: a boot begins a sequence, samples and gaps go on with it.
pub(super) fn note(
    table: &mut BTreeMap<u32, NodeEntry>,
    kind: Kind,
    node: u32,
    boot: u32,
    end: Option<u64>,
    lost: u64,
) {
    let entry = table.entry(node).or_insert(NodeEntry { node, boot: 0, next: 0, lost: 0 });
    if boot > entry.boot {
        *entry = NodeEntry { boot, next: 0, ..*entry };
    }
    if let Some(end) = end.filter(|_| kind.in_sequence() && boot == entry.boot) {
        entry.next = entry.next.max(end);
        entry.lost += lost;
    }
}
