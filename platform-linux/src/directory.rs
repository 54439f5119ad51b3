//! A directory as a [`Volume`], by ordinary blocking calls.
//!
//! This is the plain way that works everywhere: `pwrite`, `fdatasync`, `rename`, `fsync` of the directory. Each operation
//! runs to its end inside [`kick`](Volume::kick), so the caller waits for the disk there: 100 us a flush on a fast one,
//! 10 ms on a slow one. Nothing is faster for one record at a time; a ring lets the caller go on meanwhile.
//!
//! New files are filled with zeros and flushed once, so that later writes change no file-system structure.
//!
//! Reads go through the page cache. After a failed flush the log leaves the segment behind and never reads it again in
//! that life; a machine that loses its power has an empty cache. Left is a process that dies right after a failed flush:
//! the next one may read back what the disk has lost.
//!
//! ```
//! use hal::volume::{Volume, VolumeOp};
//! use platform_linux::directory::Directory;
//!
//! let path = std::env::temp_dir().join(format!("gp-doc-{}", std::process::id()));
//! let mut volume = Directory::open(&path)?;
//! volume.submit(VolumeOp::List).unwrap();
//! volume.kick();
//! assert!(volume.reap().is_some());
//! assert!(Directory::open(&path).is_err(), "one writer a directory");
//! # drop(volume); std::fs::remove_dir_all(&path)?;
//! # Ok::<(), std::io::Error>(())
//! ```

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hal::storage::{Completion, Fault, Geometry, Op, Refused, Storage, Token};
use hal::volume::{Name, Room, Volume, VolumeCompletion, VolumeDone, VolumeOp};

const LOCK: &str = "lock";
/// Bytes of zeros written at a time when a file is made.
const ZEROS: usize = 256 * 1024;

/// A directory; one process at a time writes in it.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Held for as long as the volume lives; the kernel lets go of it also when the process is killed.
    _lock: File,
    queue: Vec<(Token, VolumeOp)>,
    done: VecDeque<VolumeCompletion<DirectoryFile>>,
    next: u64,
}

impl Directory {
    /// Opens the directory, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// What the system refuses; [`io::ErrorKind::ResourceBusy`] when another process writes there.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = format!("{} is in use by another gateway", path.display());
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        Ok(Self { path: path.to_owned(), _lock: lock, queue: Vec::new(), done: VecDeque::new(), next: 0 })
    }

    fn run(&mut self, token: Token, op: VolumeOp) -> VolumeDone<DirectoryFile> {
        let path = |name: Name| self.path.join(name.as_str());
        let result = match op {
            VolumeOp::List => self.list(token).map(|()| VolumeDone::Done),
            VolumeOp::Create { name, len } => create(&path(name), len).map(|file| file_done(file, len)),
            VolumeOp::Open { name } => {
                OpenOptions::new().read(true).write(true).open(path(name)).and_then(|file| {
                    let len = file.metadata()?.len();
                    Ok(file_done(file, len))
                })
            }
            VolumeOp::Rename { from, to } => fs::rename(path(from), path(to)).map(|()| VolumeDone::Done),
            VolumeOp::Delete { name } => fs::remove_file(path(name)).map(|()| VolumeDone::Done),
            VolumeOp::SyncDir => {
                File::open(&self.path).and_then(|dir| dir.sync_all()).map(|()| VolumeDone::Done)
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        };
        match result {
            Ok(done) => done,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => {
                VolumeDone::NoSuchName
            }
            Err(error) => VolumeDone::Failed(fault(&error)),
        }
    }

    fn list(&mut self, token: Token) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let (Some(name), len) = (entry.file_name().to_str().and_then(Name::new), entry.metadata()?.len())
            else {
                continue;
            };
            if name.as_str() != LOCK {
                self.done.push_back(VolumeCompletion { token, done: VolumeDone::Entry { name, len } });
            }
        }
        Ok(())
    }
}

fn file_done(file: File, len: u64) -> VolumeDone<DirectoryFile> {
    VolumeDone::File {
        file: DirectoryFile { file, queue: Vec::new(), done: VecDeque::new(), next: 0, failed: false },
        len,
    }
}

/// Makes a file of zeros whose blocks are allocated; takes it away again when there is no room for all of it.
fn create(path: &Path, len: u64) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    let filled = (|| {
        let zeros = vec![0; ZEROS];
        let mut at = 0;
        while at < len {
            let piece = usize::try_from(len - at).unwrap_or(ZEROS).min(ZEROS);
            file.write_all_at(&zeros[..piece], at)?;
            at += piece as u64;
        }
        file.sync_all()
    })();
    if let Err(error) = filled {
        fs::remove_file(path)?;
        return Err(error);
    }
    Ok(file)
}

fn fault(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Fault::NoSpace
        }
        _ => match error.raw_os_error() {
            Some(libc::EIO) | None => Fault::Io,
            Some(errno) => Fault::Os(errno),
        },
    }
}

impl Volume for Directory {
    type File = DirectoryFile;

    fn submit(&mut self, op: VolumeOp) -> Result<Token, hal::storage::Why> {
        self.next += 1;
        self.queue.push((Token(self.next), op));
        Ok(Token(self.next))
    }

    fn kick(&mut self) {
        for (token, op) in core::mem::take(&mut self.queue) {
            let done = self.run(token, op);
            self.done.push_back(VolumeCompletion { token, done });
        }
    }

    fn reap(&mut self) -> Option<VolumeCompletion<DirectoryFile>> {
        self.done.pop_front()
    }

    fn buffer(&mut self, len: usize) -> Option<&'static mut [u8]> {
        // Leaked: the log keeps a handful of buffers and uses them again for as long as it lives.
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).ok()?;
        bytes.resize(len, 0);
        Some(bytes.leak())
    }

    fn room(&self) -> Option<Room> {
        None
    }
}

/// A file of a [`Directory`].
#[derive(Debug)]
pub struct DirectoryFile {
    file: File,
    queue: Vec<(Token, Op<&'static mut [u8]>)>,
    done: VecDeque<Completion<&'static mut [u8]>>,
    next: u64,
    /// A write since the last flush failed or was short.
    failed: bool,
}

impl DirectoryFile {
    fn run(&mut self, op: Op<&'static mut [u8]>) -> (Option<&'static mut [u8]>, Result<u32, Fault>) {
        let moved = |result: io::Result<usize>| {
            result.map(|n| u32::try_from(n).unwrap_or(u32::MAX)).map_err(|error| fault(&error))
        };
        match op {
            Op::Read { at, buf, len } => {
                let result = retried(|| self.file.read_at(&mut buf[..len as usize], at));
                (Some(buf), moved(result))
            }
            Op::Write { at, buf, len } => {
                let result = moved(retried(|| self.file.write_at(&buf[..len as usize], at)));
                self.failed |= result != Ok(len);
                (Some(buf), result)
            }
            Op::Flush => {
                let earlier = core::mem::take(&mut self.failed);
                let flushed = self.file.sync_data().map_err(|error| fault(&error));
                (None, flushed.and(if earlier { Err(Fault::Earlier) } else { Ok(0) }))
            }
            _ => (None, Err(Fault::Os(libc::EOPNOTSUPP))),
        }
    }
}

fn retried(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl Storage for DirectoryFile {
    type Buf = &'static mut [u8];

    fn geometry(&self) -> Geometry {
        Geometry::new(1, 1, 1, 1 << 30, 16)
    }

    fn submit(&mut self, mut op: Op<Self::Buf>) -> Result<Token, Refused<Self::Buf>> {
        if let Err(why) = self.geometry().check(&mut op) {
            return Err(Refused { op, why });
        }
        self.next += 1;
        self.queue.push((Token(self.next), op));
        Ok(Token(self.next))
    }

    fn kick(&mut self) {
        for (token, op) in core::mem::take(&mut self.queue) {
            let (buf, result) = self.run(op);
            self.done.push_back(Completion { token, buf, result });
        }
    }

    fn reap(&mut self) -> Option<Completion<Self::Buf>> {
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
