//! Blocks: the storage port, whose operations own their buffers.
//!
//! One shape serves a superloop over flash, an io_uring, a thread that calls `pwrite` and a simulated disk: *submit* an
//! operation, *kick* what was submitted, *reap* completions in any order. Nothing here waits; futures are built above.
//!
//! The contract that everything rests on:
//!
//! - `Ok(token)` means that **exactly one** completion follows, and the buffer comes back in it. `Err` means that none
//!   follows, and the operation with its buffer is in the error. There is no third case, also not when the storage is
//!   dropped: it cancels, waits, and at worst leaks the buffer, because the device may still write into it.
//! - [`Op::Flush`] covers exactly the writes *accepted before it*. It fails with [`Fault::Earlier`] when one of them
//!   failed or was short. At most one flush is open at a time ([`Order`] keeps the count).
//! - After a failed flush the fate of the blocks is unknown, and a second flush alone succeeds and lies (Linux marks the
//!   pages clean; Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020). Write the data
//!   **again**, elsewhere, then flush.
//!
//! # Examples
//!
//! A durable append, for any storage:
//!
//! ```
//! use hal::storage::{Fault, Op, StableBuf, Storage};
//!
//! fn append<S: Storage>(disk: &mut S, at: u64, buf: S::Buf, len: u32) -> Result<S::Buf, Fault> {
//!     let wait = |disk: &mut S| loop {
//!         disk.kick();
//!         if let Some(done) = disk.reap() {
//!             return done;
//!         }
//!     };
//!     disk.submit(Op::Write { at, buf, len }).map_err(|_| Fault::OutOfRange)?;
//!     let written = wait(disk);
//!     if written.result? != len {
//!         return Err(Fault::Io); // short: the rest has to be written again
//!     }
//!     disk.submit(Op::Flush).map_err(|_| Fault::OutOfRange)?;
//!     wait(disk).result?;
//!     written.buf.ok_or(Fault::Io)
//! }
//! ```
#![allow(unsafe_code, reason = "StableBuf: memory that a device writes into is reached through a pointer")]

/// A buffer that a device can be given.
///
/// # Safety
///
/// The implementer promises, for as long as the value lives and wherever it is moved:
///
/// - [`ptr`](Self::ptr) gives the same address each time, valid for reads and writes of [`capacity`](Self::capacity)
///   initialised bytes;
/// - nobody else reads or writes those bytes.
///
/// `'static`, because forgetting a ring must leak the buffer instead of ending a borrow that the device still uses.
pub unsafe trait StableBuf: 'static {
    /// Where the bytes are.
    fn ptr(&mut self) -> *mut u8;
    /// How many there are. (Not `len`: that name would hijack `slice.len()` on every type that implements the trait.)
    fn capacity(&self) -> usize;
    /// The buffer's index in a table that was registered with the storage, if it is in one.
    fn registered(&self) -> Option<u16> {
        None
    }
    /// The bytes, to fill or to look at while no operation owns the buffer.
    fn bytes(&mut self) -> &mut [u8] {
        let (ptr, len) = (self.ptr(), self.capacity());
        // SAFETY: `from_raw_parts_mut` needs `len` initialised bytes that nobody else touches while the slice lives.
        // - initialised and exclusive: promised by whoever implements this trait (trait docs).
        // - for as long as the slice lives: it borrows `self` mutably, so the buffer cannot be given away meanwhile.
        unsafe { core::slice::from_raw_parts_mut(ptr, len) }
    }
}

// SAFETY: a unique `'static` borrow keeps its address wherever the reference is moved, and its bytes are initialised.
unsafe impl StableBuf for &'static mut [u8] {
    fn ptr(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }
    fn capacity(&self) -> usize {
        self.len()
    }
}

/// Names an operation between its submission and its completion. Carries a generation, so that a late cancel of an old
/// operation cannot hit a new one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Token(pub u64);

/// What a storage can be asked to do. Offsets and lengths are in bytes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Op<B> {
    /// Fills `len` bytes of the buffer from offset `at`.
    Read {
        /// Offset in the storage.
        at: u64,
        /// Where the bytes go.
        buf: B,
        /// How many, at most the buffer's capacity.
        len: u32,
    },
    /// Writes the first `len` bytes of the buffer to offset `at`.
    Write {
        /// Offset in the storage.
        at: u64,
        /// The bytes.
        buf: B,
        /// How many, at most the buffer's capacity.
        len: u32,
    },
    /// Makes all writes that were accepted before it durable.
    Flush,
    /// Gives a range up; reading it afterwards yields anything.
    Discard {
        /// Offset in the storage.
        at: u64,
        /// How many bytes.
        len: u64,
    },
}

impl<B> Op<B> {
    /// Takes the buffer out of an operation that was refused.
    pub fn into_buf(self) -> Option<B> {
        match self {
            Self::Read { buf, .. } | Self::Write { buf, .. } => Some(buf),
            Self::Flush | Self::Discard { .. } => None,
        }
    }
}

/// An operation that was not accepted, given back whole.
#[derive(Debug)]
pub struct Refused<B> {
    /// The operation with its buffer.
    pub op: Op<B>,
    /// What was wrong.
    pub why: Why,
}

/// Why an operation was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Why {
    /// All slots are taken, or a flush is open already; reap and submit again.
    Full,
    /// Offset, length or buffer address is not a multiple of what [`Geometry`] asks.
    Misaligned,
    /// Longer than the buffer or than [`Geometry::max_len`], or past the end of the storage.
    OutOfRange,
    /// The storage has been closed or has failed as a whole.
    Closed,
    /// The storage cannot do this kind of operation.
    Unsupported,
}

/// How an accepted operation ended.
#[derive(Debug)]
pub struct Completion<B> {
    /// Which operation.
    pub token: Token,
    /// Its buffer, when it had one.
    pub buf: Option<B>,
    /// Bytes moved (a read or write may be short; 0 for flush and discard), or what went wrong.
    pub result: Result<u32, Fault>,
}

/// What can go wrong with an accepted operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// [`Storage::cancel`] came in time.
    Cancelled,
    /// The device reported an error; the contents of the range are unknown.
    Io,
    /// No room is left.
    NoSpace,
    /// The device asks for an alignment that [`Geometry`] did not announce.
    Misaligned,
    /// Past the end of the storage.
    OutOfRange,
    /// A write that this flush should have covered failed or was short.
    Earlier,
    /// Another `errno(3)` value of the operating system.
    Os(i32),
}

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Cancelled => f.write_str("the operation was cancelled"),
            Self::Io => f.write_str("the device reported an I/O error"),
            Self::NoSpace => f.write_str("no space is left on the device"),
            Self::Misaligned => f.write_str("the device refused the alignment of the operation"),
            Self::OutOfRange => f.write_str("the operation reaches past the end of the storage"),
            Self::Earlier => f.write_str("a write before this flush had failed"),
            Self::Os(errno) => write!(f, "the operating system refused (errno {errno})"),
        }
    }
}

impl core::error::Error for Fault {}

/// What a storage asks of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Geometry {
    /// Buffer addresses are multiples of this.
    pub mem_align: u32,
    /// Offsets and lengths of reads are multiples of this.
    pub read_align: u32,
    /// Offsets and lengths of writes are multiples of this.
    pub write_align: u32,
    /// Flash: bytes that are erased together.
    pub erase: Option<u32>,
    /// Longest single operation in bytes.
    pub max_len: u32,
    /// Operations that can be open at once.
    pub depth: u16,
    /// A completed write is durable by itself, as with `O_DSYNC`: a flush has nothing left to do.
    pub durable_writes: bool,
}

impl Geometry {
    /// A storage without erase blocks whose writes need a flush to be durable.
    pub const fn new(mem_align: u32, read_align: u32, write_align: u32, max_len: u32, depth: u16) -> Self {
        Self { mem_align, read_align, write_align, erase: None, max_len, depth, durable_writes: false }
    }

    /// One check for every implementation, before anything is queued.
    ///
    /// # Errors
    ///
    /// [`Why::OutOfRange`] when the length does not fit, [`Why::Misaligned`] when offset, length or address does not
    /// suit.
    pub fn check<B: StableBuf>(&self, op: &mut Op<B>) -> Result<(), Why> {
        let (at, address, capacity, len, align) = match op {
            Op::Read { at, buf, len } => (*at, buf.ptr().addr(), buf.capacity(), *len, self.read_align),
            Op::Write { at, buf, len } => (*at, buf.ptr().addr(), buf.capacity(), *len, self.write_align),
            Op::Flush | Op::Discard { .. } => return Ok(()),
        };
        if len as usize > capacity || len > self.max_len || at.checked_add(u64::from(len)).is_none() {
            return Err(Why::OutOfRange);
        }
        let aligned = at.is_multiple_of(u64::from(align))
            && len.is_multiple_of(align)
            && address.is_multiple_of(self.mem_align as usize);
        if aligned { Ok(()) } else { Err(Why::Misaligned) }
    }
}

/// The storage port. See the module docs for the contract.
pub trait Storage {
    /// The buffers that it takes and gives back.
    type Buf: StableBuf;
    /// What it asks of operations. Does not change while the storage lives.
    fn geometry(&self) -> Geometry;
    /// Accepts an operation without starting it.
    ///
    /// # Errors
    ///
    /// The operation comes back whole, with the reason; no completion will follow.
    fn submit(&mut self, op: Op<Self::Buf>) -> Result<Token, Refused<Self::Buf>>;
    /// Starts everything that was accepted, with one system call or doorbell.
    fn kick(&mut self);
    /// The next completion, in any order. Never waits.
    fn reap(&mut self) -> Option<Completion<Self::Buf>>;
    /// Asks for an operation to end early. Its one completion still comes: [`Fault::Cancelled`], or its result if that
    /// won. An unknown token does nothing.
    fn cancel(&mut self, token: Token);
    /// Operations accepted and not yet reaped.
    fn in_flight(&self) -> usize;
}

/// Makes [`Op::Flush`] mean "everything accepted before me" over a queue that has no order of its own.
///
/// Writes belong to an *epoch*, and a flush closes the epoch. Two can be open at once, because at most one flush is
/// held. (A flag "came after the flush" on each write is not enough: a write that outlives the flush is then miscounted,
/// and the next flush waits for ever.)
///
/// ```
/// use hal::storage::{Order, Token};
///
/// let mut order = Order::default();
/// let before = order.write_accepted();
/// order.flush_accepted(Token(7)).unwrap();
/// let after = order.write_accepted();
/// assert_eq!(order.ready(), None); // the first write is still open
/// order.write_done(true, before);
/// assert_eq!(order.ready(), Some(Token(7))); // the second one does not matter
/// assert!(!order.flush_done()); // nothing before it failed
/// order.write_done(true, after);
/// ```
#[derive(Debug, Default)]
pub struct Order {
    current: Epoch,
    open: [u32; 2],
    failed: [bool; 2],
    held: Option<Token>,
}

/// Which of the two open epochs a write belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Epoch(bool);

impl Order {
    /// Counts a write; keep the answer with it for [`write_done`](Self::write_done).
    pub fn write_accepted(&mut self) -> Epoch {
        let epoch = self.current;
        self.open[usize::from(epoch.0)] += 1;
        epoch
    }

    /// Holds a flush until the writes before it are done.
    ///
    /// # Errors
    ///
    /// [`Why::Full`] when a flush is held already.
    pub fn flush_accepted(&mut self, token: Token) -> Result<(), Why> {
        if self.held.is_some() {
            return Err(Why::Full);
        }
        self.held = Some(token);
        self.current = Epoch(!self.current.0);
        Ok(())
    }

    /// The held flush, when every write before it is done, so that it may start now.
    pub fn ready(&self) -> Option<Token> {
        self.held.filter(|_| self.open[usize::from(!self.current.0)] == 0)
    }

    /// A write of `epoch` is over; `ok` when it moved all its bytes.
    pub fn write_done(&mut self, ok: bool, epoch: Epoch) {
        let index = usize::from(epoch.0);
        self.open[index] = self.open[index].saturating_sub(1);
        self.failed[index] |= !ok;
    }

    /// The held flush is over. True: a write that it should have covered had failed, so it has to report
    /// [`Fault::Earlier`].
    pub fn flush_done(&mut self) -> bool {
        self.held = None;
        core::mem::take(&mut self.failed[usize::from(!self.current.0)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaked(len: usize) -> &'static mut [u8] {
        alloc::boxed::Box::leak(alloc::vec![0u8; len].into_boxed_slice())
    }

    #[test]
    fn geometry_refuses_what_does_not_fit_before_what_is_misaligned() {
        let geometry = Geometry::new(1, 512, 512, 4096, 8);
        let check = |at, len| geometry.check(&mut Op::Write { at, buf: leaked(8192), len });
        assert_eq!(check(0, 512), Ok(()));
        assert_eq!(check(1, 512), Err(Why::Misaligned));
        assert_eq!(check(512, 100), Err(Why::Misaligned));
        assert_eq!(check(0, 4608), Err(Why::OutOfRange));
        assert_eq!(check(u64::MAX - 511, 1024), Err(Why::OutOfRange));
        let mut longer_than_buffer = Op::Read { at: 0, buf: leaked(100), len: 512 };
        assert_eq!(geometry.check(&mut longer_than_buffer), Err(Why::OutOfRange));
    }

    #[test]
    fn a_write_that_outlives_its_flush_does_not_block_the_next() {
        let mut order = Order::default();
        order.flush_accepted(Token(1)).unwrap();
        let late = order.write_accepted();
        assert_eq!(order.ready(), Some(Token(1)));
        assert!(!order.flush_done());
        order.flush_accepted(Token(2)).unwrap();
        assert_eq!(order.ready(), None);
        order.write_done(false, late);
        assert_eq!(order.ready(), Some(Token(2)));
        assert!(order.flush_done(), "the failed write belongs to the second flush");
        order.flush_accepted(Token(3)).unwrap();
        assert!(!order.flush_done(), "and is reported once");
    }

    #[test]
    fn one_flush_is_held_at_a_time() {
        let mut order = Order::default();
        order.flush_accepted(Token(1)).unwrap();
        assert_eq!(order.flush_accepted(Token(2)), Err(Why::Full));
    }
}
