//! Where pages come from: the page-source port.
//!
//! An allocator asks a [`PageSource`] for regions with a length, an alignment, and perhaps a node or huge pages, and
//! gives them back in whole pages. The methods take `&self`, because a global allocator has no `&mut`; a source that is
//! not thread-safe is `!Sync`, and the heap's lock shares it.
#![allow(unsafe_code, reason = "the port hands out raw memory")]

use core::cell::Cell;
use core::fmt;
use core::ptr::NonNull;

/// A memory node (NUMA), counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Node(pub u8);

/// What is wanted from a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ask {
    /// Length in bytes, more than 0.
    pub len: usize,
    /// Alignment of the base in bytes, a power of two.
    pub align: usize,
    /// On this node, where the source knows nodes.
    pub node: Option<Node>,
    /// On huge pages, where there are any.
    pub huge: bool,
}

impl Ask {
    /// `len` bytes aligned to `align`, anywhere.
    pub const fn new(len: usize, align: usize) -> Self {
        Self { len, align, node: None, huge: false }
    }

    /// On `node`.
    #[must_use]
    pub const fn on(mut self, node: Node) -> Self {
        self.node = Some(node);
        self
    }

    /// On huge pages, if there are any.
    #[must_use]
    pub const fn huge(mut self) -> Self {
        self.huge = true;
        self
    }
}

/// Memory from a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its first byte.
    pub base: NonNull<u8>,
    /// Its length in bytes: at least what was asked.
    pub len: usize,
    /// All bytes are 0.
    pub zeroed: bool,
    /// The page size that it really has.
    pub page: usize,
}

/// Why a source gave nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PageError {
    /// No memory is left.
    NoMemory,
    /// The system's limit on the number of mappings is reached.
    TooManyMaps,
    /// A length of 0, an alignment that is no power of two, or a sum that overflows.
    BadAsk,
    /// A limit or a permission forbids it.
    NotPermitted,
    /// Another `errno(3)` value.
    Os(i32),
}

impl fmt::Display for PageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => f.write_str("no memory is left"),
            Self::TooManyMaps => f.write_str("too many mappings (raise vm.max_map_count)"),
            Self::BadAsk => f.write_str("length or alignment is not valid"),
            Self::NotPermitted => f.write_str("a limit or permission forbids the mapping"),
            Self::Os(errno) => write!(f, "the operating system refused (errno {errno})"),
        }
    }
}

impl core::error::Error for PageError {}

/// What a purge has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purge {
    /// The memory reads as 0 from now on.
    Zeroed,
    /// The system takes it when it needs it; until then the contents stay.
    MayKeep,
    /// Nothing has changed.
    Kept,
}

/// The page-source port.
///
/// # Safety
///
/// The implementer promises that a region it gives is readable, writable, aligned as asked, and nobody else's until it is
/// unmapped.
pub unsafe trait PageSource {
    /// The page size: lengths and bases of [`unmap`](Self::unmap) and [`purge`](Self::purge) are multiples of it.
    fn page(&self) -> usize;

    /// Gives a region.
    ///
    /// # Errors
    ///
    /// [`PageError::BadAsk`] for an ask that no source could fulfil, else why there is none.
    fn map(&self, ask: Ask) -> Result<Region, PageError>;

    /// Takes memory back.
    ///
    /// # Safety
    ///
    /// `base` and `len` name whole pages of a region from [`map`](Self::map) that nobody uses any more.
    ///
    /// # Errors
    ///
    /// When the source cannot take it (it stays the caller's).
    unsafe fn unmap(&self, base: NonNull<u8>, len: usize) -> Result<(), PageError>;

    /// Says that the contents are not needed; the memory stays the caller's.
    ///
    /// # Safety
    ///
    /// As for [`unmap`](Self::unmap).
    unsafe fn purge(&self, base: NonNull<u8>, len: usize) -> Purge {
        let _ = (base, len);
        Purge::Kept
    }

    /// Makes a whole region longer, perhaps elsewhere, contents kept; the new base.
    ///
    /// # Safety
    ///
    /// `base` and `old` are a whole region from [`map`](Self::map); when it may move, nobody holds pointers into it.
    ///
    /// # Errors
    ///
    /// When it cannot grow; the region is as before.
    unsafe fn grow(
        &self,
        base: NonNull<u8>,
        old: usize,
        new: usize,
        may_move: bool,
    ) -> Result<NonNull<u8>, PageError> {
        let _ = (base, old, new, may_move);
        Err(PageError::NoMemory)
    }

    /// The node that the caller runs on, where known. Threads migrate: ask for each use.
    fn here(&self) -> Option<Node> {
        None
    }
}

/// A fixed bank of memory: gives once from the front, takes back only what was given last.
///
/// `!Sync`, as it counts in a `Cell`; the lock of the heap above makes it shareable.
///
/// ```
/// use alloc_core::port::{Ask, FixedBank, PageSource};
///
/// let memory: &'static mut [u8] = Box::leak(vec![0; 4096].into_boxed_slice());
/// let bank = FixedBank::new(memory);
/// let region = bank.map(Ask::new(100, 256)).unwrap();
/// assert_eq!(region.base.as_ptr().addr() % 256, 0);
/// ```
#[derive(Debug)]
pub struct FixedBank {
    base: NonNull<u8>,
    len: usize,
    used: Cell<usize>,
}

impl FixedBank {
    /// A bank of this memory.
    pub fn new(memory: &'static mut [u8]) -> Self {
        let len = memory.len();
        Self { base: NonNull::from(memory).cast(), len, used: Cell::new(0) }
    }

    /// Bytes given, padding included.
    pub fn used(&self) -> usize {
        self.used.get()
    }
}

// SAFETY: regions come from a unique `'static` borrow, front to back, and `used` only moves back over a region that
// its owner has given up, so no byte is in two regions.
unsafe impl PageSource for FixedBank {
    fn page(&self) -> usize {
        1
    }

    fn map(&self, ask: Ask) -> Result<Region, PageError> {
        if !ask.align.is_power_of_two() || ask.len == 0 {
            return Err(PageError::BadAsk);
        }
        let used = self.used.get();
        let padding = (self.base.addr().get() + used).wrapping_neg() & (ask.align - 1);
        let start = used.checked_add(padding).ok_or(PageError::BadAsk)?;
        let end = start.checked_add(ask.len).ok_or(PageError::BadAsk)?;
        if end > self.len {
            return Err(PageError::NoMemory);
        }
        self.used.set(end);
        // SAFETY: `add` needs the result to stay inside the allocation: `start < end <= len` was checked above.
        let base = unsafe { self.base.add(start) };
        Ok(Region { base, len: ask.len, zeroed: false, page: 1 })
    }

    unsafe fn unmap(&self, base: NonNull<u8>, len: usize) -> Result<(), PageError> {
        let start = base.addr().get().wrapping_sub(self.base.addr().get());
        if start.checked_add(len) == Some(self.used.get()) {
            self.used.set(start);
            Ok(())
        } else {
            Err(PageError::NotPermitted)
        }
    }
}

/// A source that fails when told so, for tests of allocators.
#[derive(Debug)]
pub struct Failing<S> {
    /// The source behind it.
    pub inner: S,
    /// Calls of `map` that fail, one bit each, repeating after 64.
    pub fail: u64,
    /// Calls of `map` so far.
    pub calls: Cell<u32>,
}

// SAFETY: regions are those of `inner`, whose implementer made the same promise.
unsafe impl<S: PageSource> PageSource for Failing<S> {
    fn page(&self) -> usize {
        self.inner.page()
    }

    fn map(&self, ask: Ask) -> Result<Region, PageError> {
        let call = self.calls.replace(self.calls.get().wrapping_add(1));
        if (self.fail >> (call % 64)) & 1 == 1 {
            return Err(PageError::NoMemory);
        }
        self.inner.map(ask)
    }

    unsafe fn unmap(&self, base: NonNull<u8>, len: usize) -> Result<(), PageError> {
        // SAFETY: the caller's promise about `base` and `len` is passed on unchanged.
        unsafe { self.inner.unmap(base, len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bank(len: usize) -> FixedBank {
        FixedBank::new(alloc::boxed::Box::leak(alloc::vec![0; len].into_boxed_slice()))
    }

    #[test]
    fn a_bank_refuses_what_does_not_fit_or_makes_no_sense() {
        let bank = bank(1024);
        assert_eq!(bank.map(Ask::new(0, 8)), Err(PageError::BadAsk));
        assert_eq!(bank.map(Ask::new(8, 3)), Err(PageError::BadAsk));
        assert_eq!(bank.map(Ask::new(usize::MAX - 3, 1)), Err(PageError::NoMemory));
        assert_eq!(bank.map(Ask::new(2000, 1)), Err(PageError::NoMemory));
        assert_eq!(bank.used(), 0);
    }

    #[test]
    fn only_the_last_region_can_be_taken_back() {
        let bank = bank(1024);
        let first = bank.map(Ask::new(100, 1)).unwrap();
        let second = bank.map(Ask::new(100, 64)).unwrap();
        // SAFETY: nobody uses either region.
        assert_eq!(unsafe { bank.unmap(first.base, 100) }, Err(PageError::NotPermitted));
        // SAFETY: as above.
        assert_eq!(unsafe { bank.unmap(second.base, 100) }, Ok(()));
        assert_eq!(bank.map(Ask::new(100, 64)).unwrap().base, second.base);
    }

    #[test]
    fn a_failing_source_fails_when_its_bit_is_set() {
        let source = Failing { inner: bank(1024), fail: 0b10, calls: Cell::new(0) };
        let results = [(); 3].map(|()| source.map(Ask::new(8, 8)).is_ok());
        assert_eq!(results, [true, false, true]);
    }
}
