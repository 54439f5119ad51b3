//! A disk in memory with a page cache, a flush and power cuts.
//!
//! Writes go to a cache; [`Op::Flush`] moves a file's cache to the platter; [`FakeDisk::power_cut`] loses, sector by
//! sector and as the seed wills, what was not flushed, and forgets names that were not synced. Faults are switched on by
//! count: the next write, the next flush, no room.
//!
//! ```
//! use hal::fake::FakeDisk;
//! use hal::storage::{Op, StableBuf, Storage};
//! use hal::volume::{Name, Volume, VolumeDone, VolumeOp};
//!
//! let disk = FakeDisk::new(1);
//! let mut volume = disk.mount();
//! volume.submit(VolumeOp::Create { name: Name::new("a").unwrap(), len: 4096 }).unwrap();
//! volume.kick();
//! let Some(VolumeDone::File { mut file, .. }) = volume.reap().map(|c| c.done) else { panic!() };
//! let mut buf = volume.buffer(4096).unwrap();
//! buf.bytes().fill(7);
//! file.submit(Op::Write { at: 0, buf, len: 4096 }).unwrap();
//! file.kick();
//! assert_eq!(file.reap().unwrap().result, Ok(4096));
//! ```
#![allow(unsafe_code, reason = "a boxed slice as a buffer that stays in place")]

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;

use crate::storage::{Completion, Fault, Geometry, Op, Refused, StableBuf, Storage, Token, Why};
use crate::volume::{Name, Room, Volume, VolumeCompletion, VolumeDone, VolumeOp};

/// What a power cut keeps or loses as a whole.
const SECTOR: usize = 512;

/// A heap buffer for the fake disk.
#[derive(Debug, Clone)]
pub struct FakeBuf(Box<[u8]>);

// SAFETY: a boxed slice is initialised, stays where it is when the box is moved, and is only this value's.
unsafe impl StableBuf for FakeBuf {
    fn ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }
    fn capacity(&self) -> usize {
        self.0.len()
    }
}

#[derive(Debug, Default, Clone)]
struct File {
    platter: Vec<u8>,
    cache: Vec<u8>,
    dirty: Vec<(usize, usize)>,
}

impl File {
    /// Each unflushed sector gets its new bytes or keeps its old ones.
    fn lose_some(&mut self, random: &mut u64) {
        for (start, end) in core::mem::take(&mut self.dirty) {
            for at in (start / SECTOR * SECTOR..end).step_by(SECTOR) {
                *random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let to = (at + SECTOR).min(self.cache.len());
                if (*random >> 40).is_multiple_of(2)
                    && let (Some(new), Some(old)) = (self.cache.get(at..to), self.platter.get_mut(at..to))
                {
                    old.copy_from_slice(new);
                }
            }
        }
        self.cache.clone_from(&self.platter);
    }
}

/// Faults that are still to come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// Writes that fail.
    pub writes: u32,
    /// Writes that move only half of their bytes.
    pub short_writes: u32,
    /// Flushes that fail: each unflushed sector is there or is lost, and nobody tries again, as on Linux. Reads show
    /// what is there, as with O_DIRECT; through a page cache they would show what the disk has lost.
    pub flushes: u32,
    /// Creating a file and writing find no room.
    pub no_room: bool,
}

#[derive(Debug, Default)]
struct Inner {
    files: Vec<File>,
    names: BTreeMap<Name, usize>,
    synced_names: BTreeMap<Name, usize>,
    faults: DiskFaults,
    random: u64,
    flushes: u64,
    /// Mounts before the last power cut are dead: their operations change nothing.
    life: u64,
}

impl Inner {
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// The disk; clones are the same disk.
#[derive(Debug, Clone)]
pub struct FakeDisk(Rc<RefCell<Inner>>);

impl FakeDisk {
    /// An empty disk whose accidents are drawn from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            ..Inner::default()
        })))
    }

    /// The disk as a volume.
    pub fn mount(&self) -> FakeVolume {
        let life = self.0.borrow().life;
        FakeVolume { disk: Rc::clone(&self.0), life, queue: Vec::new(), done: VecDeque::new(), next: 0 }
    }

    /// Sets the faults to come.
    pub fn set_faults(&self, faults: DiskFaults) {
        self.0.borrow_mut().faults = faults;
    }

    /// Flushes that succeeded so far.
    pub fn flushes(&self) -> u64 {
        self.0.borrow().flushes
    }

    /// The power goes: each unflushed sector keeps its old or its new bytes, each name that was not synced is there or
    /// not. What was mounted before is dead.
    pub fn power_cut(&self) {
        let inner = &mut *self.0.borrow_mut();
        inner.life += 1;
        if inner.draw().is_multiple_of(2) {
            inner.names = inner.synced_names.clone();
        } else {
            inner.synced_names = inner.names.clone();
        }
        let mut random = inner.draw();
        for file in &mut inner.files {
            file.lose_some(&mut random);
        }
    }

    /// The process dies, the machine does not: what was written stays in the cache. What was mounted before is dead.
    pub fn kill(&self) {
        self.0.borrow_mut().life += 1;
    }

    /// The files by name, as a reader sees them.
    pub fn files(&self) -> Vec<(Name, Vec<u8>)> {
        let inner = self.0.borrow();
        inner
            .names
            .iter()
            .filter_map(|(name, id)| Some((*name, inner.files.get(*id)?.cache.clone())))
            .collect()
    }

    /// Changes a file's bytes, cache and platter: rot.
    pub fn damage(&self, name: Name, change: impl FnOnce(&mut [u8])) {
        let inner = &mut *self.0.borrow_mut();
        let Some(file) = inner.names.get(&name).and_then(|id| inner.files.get_mut(*id)) else { return };
        change(&mut file.cache);
        file.platter.clone_from(&file.cache);
    }
}

/// The disk as a [`Volume`].
#[derive(Debug)]
pub struct FakeVolume {
    disk: Rc<RefCell<Inner>>,
    life: u64,
    queue: Vec<(Token, VolumeOp)>,
    done: VecDeque<VolumeCompletion<FakeFile>>,
    next: u64,
}

impl FakeVolume {
    fn run(&mut self, op: VolumeOp) -> VolumeDone<FakeFile> {
        let inner = &mut *self.disk.borrow_mut();
        match op {
            VolumeOp::List => VolumeDone::Done,
            VolumeOp::Create { name, .. } if inner.names.contains_key(&name) => VolumeDone::NoSuchName,
            VolumeOp::Create { .. } if inner.faults.no_room => VolumeDone::Failed(Fault::NoSpace),
            VolumeOp::Create { name, len } => {
                let zeros = vec![0; usize::try_from(len).unwrap_or(0)];
                inner.files.push(File { platter: zeros.clone(), cache: zeros, dirty: Vec::new() });
                let id = inner.files.len() - 1;
                inner.names.insert(name, id);
                VolumeDone::File { file: FakeFile::new(&self.disk, self.life, id), len }
            }
            VolumeOp::Open { name } => match inner.names.get(&name) {
                Some(id) => {
                    let len = inner.files.get(*id).map_or(0, |file| file.cache.len() as u64);
                    VolumeDone::File { file: FakeFile::new(&self.disk, self.life, *id), len }
                }
                None => VolumeDone::NoSuchName,
            },
            VolumeOp::Rename { from, to } => match inner.names.remove(&from) {
                Some(id) => {
                    inner.names.insert(to, id);
                    VolumeDone::Done
                }
                None => VolumeDone::NoSuchName,
            },
            VolumeOp::Delete { name } => match inner.names.remove(&name) {
                Some(_) => VolumeDone::Done,
                None => VolumeDone::NoSuchName,
            },
            VolumeOp::SyncDir => {
                inner.synced_names = inner.names.clone();
                VolumeDone::Done
            }
        }
    }
}

impl Volume for FakeVolume {
    type File = FakeFile;

    fn submit(&mut self, op: VolumeOp) -> Result<Token, Why> {
        self.next += 1;
        self.queue.push((Token(self.next), op));
        Ok(Token(self.next))
    }

    fn kick(&mut self) {
        for (token, op) in core::mem::take(&mut self.queue) {
            if self.disk.borrow().life != self.life {
                continue;
            }
            if op == VolumeOp::List {
                let inner = self.disk.borrow();
                for (name, id) in &inner.names {
                    let len = inner.files.get(*id).map_or(0, |file| file.cache.len() as u64);
                    self.done
                        .push_back(VolumeCompletion { token, done: VolumeDone::Entry { name: *name, len } });
                }
            }
            let done = self.run(op);
            self.done.push_back(VolumeCompletion { token, done });
        }
    }

    fn reap(&mut self) -> Option<VolumeCompletion<FakeFile>> {
        self.done.pop_front()
    }

    fn buffer(&mut self, len: usize) -> Option<FakeBuf> {
        Some(FakeBuf(vec![0; len].into()))
    }

    fn room(&self) -> Option<Room> {
        None
    }
}

/// A file of the fake disk.
#[derive(Debug)]
pub struct FakeFile {
    disk: Rc<RefCell<Inner>>,
    life: u64,
    id: usize,
    queue: Vec<(Token, Op<FakeBuf>)>,
    done: VecDeque<Completion<FakeBuf>>,
    next: u64,
    failed_before_flush: bool,
}

impl FakeFile {
    fn new(disk: &Rc<RefCell<Inner>>, life: u64, id: usize) -> Self {
        Self {
            disk: Rc::clone(disk),
            life,
            id,
            queue: Vec::new(),
            done: VecDeque::new(),
            next: 0,
            failed_before_flush: false,
        }
    }

    fn run(&mut self, op: Op<FakeBuf>) -> (Option<FakeBuf>, Result<u32, Fault>) {
        let inner = &mut *self.disk.borrow_mut();
        let Some(file) = inner.files.get_mut(self.id) else { return (op.into_buf(), Err(Fault::Io)) };
        match op {
            Op::Read { at, mut buf, len } => {
                let at = usize::try_from(at).unwrap_or(usize::MAX).min(file.cache.len());
                let len = (len as usize).min(file.cache.len() - at);
                if let (Some(to), Some(from)) = (buf.0.get_mut(..len), file.cache.get(at..at + len)) {
                    to.copy_from_slice(from);
                }
                (Some(buf), Ok(u32::try_from(len).unwrap_or(0)))
            }
            Op::Write { at, buf, len } => {
                if inner.faults.writes > 0 {
                    inner.faults.writes -= 1;
                    self.failed_before_flush = true;
                    return (Some(buf), Err(Fault::Io));
                }
                let mut len = len as usize;
                if inner.faults.short_writes > 0 {
                    inner.faults.short_writes -= 1;
                    self.failed_before_flush = true;
                    len /= 2;
                }
                let at = usize::try_from(at).unwrap_or(usize::MAX);
                match (file.cache.get_mut(at..at.saturating_add(len)), buf.0.get(..len)) {
                    (Some(to), Some(from)) => to.copy_from_slice(from),
                    _ => return (Some(buf), Err(Fault::OutOfRange)),
                }
                file.dirty.push((at, at + len));
                (Some(buf), Ok(u32::try_from(len).unwrap_or(0)))
            }
            Op::Flush => {
                let failed = core::mem::take(&mut self.failed_before_flush);
                if inner.faults.flushes > 0 {
                    inner.faults.flushes -= 1;
                    file.lose_some(&mut inner.random);
                    return (None, Err(Fault::Io));
                }
                for (start, end) in core::mem::take(&mut file.dirty) {
                    if let (Some(to), Some(from)) =
                        (file.platter.get_mut(start..end), file.cache.get(start..end))
                    {
                        to.copy_from_slice(from);
                    }
                }
                inner.flushes += 1;
                (None, if failed { Err(Fault::Earlier) } else { Ok(0) })
            }
            Op::Discard { .. } => (None, Ok(0)),
        }
    }
}

impl Storage for FakeFile {
    type Buf = FakeBuf;

    fn geometry(&self) -> Geometry {
        Geometry::new(1, 512, 512, 1 << 30, 8)
    }

    fn submit(&mut self, mut op: Op<FakeBuf>) -> Result<Token, Refused<FakeBuf>> {
        if let Err(why) = self.geometry().check(&mut op) {
            return Err(Refused { op, why });
        }
        self.next += 1;
        self.queue.push((Token(self.next), op));
        Ok(Token(self.next))
    }

    fn kick(&mut self) {
        for (token, op) in core::mem::take(&mut self.queue) {
            if self.disk.borrow().life != self.life {
                continue;
            }
            let (buf, result) = self.run(op);
            self.done.push_back(Completion { token, buf, result });
        }
    }

    fn reap(&mut self) -> Option<Completion<FakeBuf>> {
        self.done.pop_front()
    }

    fn cancel(&mut self, token: Token) {
        if let Some(at) = self.queue.iter().position(|(queued, _)| *queued == token) {
            let (token, op) = self.queue.remove(at);
            self.done.push_back(Completion { token, buf: op.into_buf(), result: Err(Fault::Cancelled) });
        }
    }

    fn in_flight(&self) -> usize {
        self.queue.len() + self.done.len()
    }
}
