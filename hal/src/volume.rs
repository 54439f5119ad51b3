//! Names of files: the volume port beside [`storage`](crate::storage).
//!
//! A volume is a flat set of named files, for example a directory. Its operations follow the same contract as those of a
//! storage (`Ok` = exactly one completion, `Err` = none); a file that was created or opened comes back as a [`Storage`]
//! of its own. A new name is durable only after [`VolumeOp::SyncDir`] has completed *after* the rename: create under a
//! temporary name, write, flush, rename, sync the directory, use.

use core::fmt;

use crate::storage::{Fault, Storage, Token, Why};

/// A file name: 1 to 63 bytes of printable ASCII without a slash.
///
/// ```
/// use hal::volume::Name;
///
/// assert_eq!(Name::new("00000001-9f3c.gpl").unwrap().as_str(), "00000001-9f3c.gpl");
/// assert!(Name::new("../secret").is_none());
/// assert!(Name::new("..").is_none());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    bytes: [u8; Self::MAX],
    len: u8,
}

impl Name {
    /// Longest name in bytes.
    pub const MAX: usize = 63;

    /// The name `name`, or `None` when it is empty, too long, `.`, `..`, or has a byte that is not printable ASCII or is
    /// a slash.
    pub fn new(name: &str) -> Option<Self> {
        let good = |byte: &u8| byte.is_ascii_graphic() && *byte != b'/';
        let len = u8::try_from(name.len()).ok().filter(|len| (1..=Self::MAX).contains(&usize::from(*len)))?;
        if name == "." || name == ".." || !name.as_bytes().iter().all(good) {
            return None;
        }
        let mut bytes = [0; Self::MAX];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(Self { bytes, len })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        // Only ASCII gets in through `new`, so the fallback is never taken.
        self.bytes.get(..usize::from(self.len)).and_then(|b| core::str::from_utf8(b).ok()).unwrap_or("")
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a volume can be asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum VolumeOp {
    /// Lists all files; completes with [`VolumeDone::Entry`] for each and one [`VolumeDone::Done`] (the exactly one
    /// completion that ends the operation).
    List,
    /// Creates a file of `len` bytes that read as zero, its blocks allocated; fails when the name is taken.
    Create {
        /// The new name.
        name: Name,
        /// Length in bytes.
        len: u64,
    },
    /// Opens an existing file for reading and writing.
    Open {
        /// Its name.
        name: Name,
    },
    /// Gives a file another name, in place of whatever had that name.
    Rename {
        /// The old name.
        from: Name,
        /// The new name.
        to: Name,
    },
    /// Removes a name.
    Delete {
        /// The name.
        name: Name,
    },
    /// Makes all creations, renames and deletions that have completed before it durable.
    SyncDir,
}

/// What a volume answers.
#[derive(Debug)]
#[non_exhaustive]
pub enum VolumeDone<F> {
    /// One file of a listing; more answers to the same token follow.
    Entry {
        /// Its name.
        name: Name,
        /// Its length in bytes.
        len: u64,
    },
    /// The file that was created or opened, with its length in bytes.
    File {
        /// The file.
        file: F,
        /// Its length in bytes.
        len: u64,
    },
    /// The operation is over and has nothing to give.
    Done,
    /// The name is taken ([`VolumeOp::Create`]) or unknown (the others).
    NoSuchName,
    /// The operation failed.
    Failed(Fault),
}

/// An answer with the operation that it belongs to.
#[derive(Debug)]
pub struct VolumeCompletion<F> {
    /// Which operation.
    pub token: Token,
    /// What came of it.
    pub done: VolumeDone<F>,
}

/// Room on a volume, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What can still be written.
    pub free: u64,
    /// The size of the whole.
    pub total: u64,
}

/// The volume port.
pub trait Volume {
    /// Its files.
    type File: Storage;
    /// Accepts an operation without starting it.
    ///
    /// # Errors
    ///
    /// [`Why::Full`] when too many are open, [`Why::Closed`] when the volume is gone; no completion follows.
    fn submit(&mut self, op: VolumeOp) -> Result<Token, Why>;
    /// Starts everything that was accepted, on the volume and on all its files.
    fn kick(&mut self);
    /// The next answer, in any order. Never waits.
    fn reap(&mut self) -> Option<VolumeCompletion<Self::File>>;
    /// A buffer for the volume's files of at least `len` bytes, aligned as they ask; `None` when no memory is left.
    fn buffer(&mut self, len: usize) -> Option<<Self::File as Storage>::Buf>;
    /// How much room there is, when the medium can tell.
    fn room(&self) -> Option<Room>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        for bad in ["", ".", "..", "a/b", "/etc", "new\nline", "tab\t", "naïve", &"x".repeat(64)] {
            assert!(Name::new(bad).is_none(), "{bad:?}");
        }
        assert_eq!(Name::new(&"x".repeat(63)).map(|n| n.as_str().len()), Some(63));
    }
}
