//! Blocks of one size, taken in one place and given back from any.
//!
//! An interrupt handler takes blocks, fills them and hands them on; a task uses them and drops them, perhaps much later
//! and in another order. For that the pool needs no compare-and-swap, so it works the same on a Cortex-M0:
//!
//! ```text
//!            Taker::take (one place)                Block::drop (any context)
//!   FREE ────── store TAKEN ──────> TAKEN ────── store FREE (Release) ──────> FREE
//! ```
//!
//! - FREE to TAKEN happens only in the one [`Taker`], which exists once because [`Pool::taker`] borrows the pool
//!   mutably: a load and a store suffice.
//! - TAKEN to FREE happens only in the drop of the one [`Block`] of that slot.
//! - The bytes of a slot belong to its block while TAKEN; to nobody while FREE.
//!
//! Taking looks at slots in turn: one look when blocks come back in the order in which they were taken, as a queue gives
//! them back; never more than `COUNT`.
//!
//! # Examples
//!
//! ```
//! use alloc_core::pool::Pool;
//!
//! let mut pool: Pool<64, 2> = Pool::new();
//! let mut taker = pool.taker();
//! let mut block = taker.take().unwrap();
//! block[0] = 7;
//! let other = taker.take().unwrap();
//! assert!(taker.take().is_none()); // full: a value, not a panic
//! drop(other);
//! assert!(taker.take().is_some());
//! assert_eq!((block[0], taker.free()), (7, 1));
//! ```
#![allow(unsafe_code, reason = "blocks are parts of one array whose owner is kept in the slot's state")]

use core::cell::UnsafeCell;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

/// `COUNT` blocks of `BLOCK` bytes, all inside the value: a `static`, a leaked box or a local variable.
pub struct Pool<const BLOCK: usize, const COUNT: usize> {
    slots: [Slot<BLOCK>; COUNT],
}

struct Slot<const BLOCK: usize> {
    taken: AtomicBool,
    bytes: UnsafeCell<[u8; BLOCK]>,
}

// SAFETY: the only field that is not `Sync` is `bytes`, which is reached only through the one `Block` of the slot (module
// docs, life of a slot), so no two contexts ever touch it at once.
unsafe impl<const BLOCK: usize> Sync for Slot<BLOCK> {}

impl<const BLOCK: usize, const COUNT: usize> Pool<BLOCK, COUNT> {
    /// A pool whose blocks are all free.
    pub const fn new() -> Self {
        const {
            assert!(BLOCK > 0 && COUNT > 0, "a pool has blocks, and they have bytes");
        }
        Self {
            slots: [const { Slot { taken: AtomicBool::new(false), bytes: UnsafeCell::new([0; BLOCK]) } };
                COUNT],
        }
    }

    /// The one place that takes blocks. Blocks that an earlier taker of this pool gave and that were forgotten stay
    /// taken.
    pub const fn taker(&mut self) -> Taker<'_, BLOCK, COUNT> {
        Taker { pool: self, next: 0, stats: PoolStats { taken: 0, refused: 0 } }
    }
}

impl<const BLOCK: usize, const COUNT: usize> Default for Pool<BLOCK, COUNT> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const BLOCK: usize, const COUNT: usize> fmt::Debug for Pool<BLOCK, COUNT> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("block", &BLOCK).field("count", &COUNT).finish_non_exhaustive()
    }
}

/// Counters of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PoolStats {
    /// Blocks given.
    pub taken: u64,
    /// Times that none was free.
    pub refused: u64,
}

/// Takes blocks from a pool.
#[derive(Debug)]
pub struct Taker<'a, const BLOCK: usize, const COUNT: usize> {
    pool: &'a Pool<BLOCK, COUNT>,
    next: usize,
    stats: PoolStats,
}

impl<'a, const BLOCK: usize, const COUNT: usize> Taker<'a, BLOCK, COUNT> {
    /// A free block, its old contents in it; `None` when all are out. At most `COUNT` looks.
    pub fn take(&mut self) -> Option<Block<'a, BLOCK>> {
        let (before, after) = self.pool.slots.split_at(self.next);
        let position = |slot: &Slot<BLOCK>| !slot.taken.load(Ordering::Acquire);
        // Acquire pairs with the Release in `Block::drop`: what the last owner did to the bytes happened before.
        let found = after
            .iter()
            .position(position)
            .map(|at| self.next + at)
            .or_else(|| before.iter().position(position));
        let Some(index) = found else {
            self.stats.refused = self.stats.refused.saturating_add(1);
            return None;
        };
        let slot = &self.pool.slots[index];
        // Relaxed: only this taker looks for FREE, and only the block made below sets it again.
        slot.taken.store(true, Ordering::Relaxed);
        self.next = (index + 1) % COUNT;
        self.stats.taken = self.stats.taken.saturating_add(1);
        Some(Block { slot })
    }

    /// Blocks that are free now; more may come back at any time. Looks at all of them.
    pub fn free(&self) -> usize {
        self.pool.slots.iter().filter(|slot| !slot.taken.load(Ordering::Relaxed)).count()
    }

    /// A second look at the pool, for the task that decides what to give up.
    pub const fn gauge(&self) -> Gauge<'a, BLOCK, COUNT> {
        Gauge { pool: self.pool }
    }

    /// Counters now.
    pub const fn stats(&self) -> PoolStats {
        self.stats
    }
}

/// Shows how many blocks are free, without taking any.
#[derive(Debug, Clone, Copy)]
pub struct Gauge<'a, const BLOCK: usize, const COUNT: usize> {
    pool: &'a Pool<BLOCK, COUNT>,
}

impl<const BLOCK: usize, const COUNT: usize> Gauge<'_, BLOCK, COUNT> {
    /// Blocks that are free now.
    pub fn free(&self) -> usize {
        self.pool.slots.iter().filter(|slot| !slot.taken.load(Ordering::Relaxed)).count()
    }

    /// Whether at least one block is free; cheap when one is.
    pub fn has_free(&self) -> bool {
        self.pool.slots.iter().any(|slot| !slot.taken.load(Ordering::Relaxed))
    }
}

/// A block, owned: its bytes are this value's alone until it is dropped, wherever it is moved.
pub struct Block<'a, const BLOCK: usize> {
    slot: &'a Slot<BLOCK>,
}

impl<const BLOCK: usize> Deref for Block<'_, BLOCK> {
    type Target = [u8; BLOCK];

    fn deref(&self) -> &[u8; BLOCK] {
        // SAFETY: a shared reference needs initialised bytes that nobody writes while it lives.
        // - initialised: `Pool::new` wrote them, and every owner writes only bytes.
        // - nobody writes: the slot is TAKEN and this is its one block (`take` stored TAKEN before it made this value,
        //   and only `drop` ends it); writing goes through `deref_mut`, which borrows this value mutably.
        unsafe { &*self.slot.bytes.get() }
    }
}

impl<const BLOCK: usize> DerefMut for Block<'_, BLOCK> {
    fn deref_mut(&mut self) -> &mut [u8; BLOCK] {
        // SAFETY: as in `deref`; exclusive because this value is borrowed mutably and is the slot's only block.
        unsafe { &mut *self.slot.bytes.get() }
    }
}

impl<const BLOCK: usize> Drop for Block<'_, BLOCK> {
    fn drop(&mut self) {
        // Release pairs with the Acquire in `take`.
        self.slot.taken.store(false, Ordering::Release);
    }
}

impl<const BLOCK: usize> fmt::Debug for Block<'_, BLOCK> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({BLOCK} bytes)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;

    #[test]
    fn blocks_never_share_bytes_whatever_the_order_of_giving_back() {
        let mut pool: Pool<8, 7> = Pool::new();
        let mut taker = pool.taker();
        let mut out: VecDeque<(u8, Block<'_, 8>)> = VecDeque::new();
        let mut random = 1u32;
        for round in 0..20_000u32 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let mark = round.to_le_bytes()[0];
            if random & 0x100 == 0 {
                match taker.take() {
                    Some(mut block) => {
                        block.fill(mark);
                        out.push_back((mark, block));
                    }
                    None => assert_eq!(out.len(), 7),
                }
            } else if !out.is_empty() {
                let at = (random >> 16) as usize % out.len();
                let (mark, block) = out.remove(at).unwrap();
                assert_eq!(*block, [mark; 8]);
            }
            assert_eq!(taker.free() + out.len(), 7);
        }
        assert!(taker.stats().refused > 0);
    }

    #[test]
    fn a_block_given_back_on_another_thread_comes_round_again() {
        let mut pool: Pool<16, 4> = Pool::new();
        let mut taker = pool.taker();
        let (send, receive) = std::sync::mpsc::sync_channel::<(u32, Block<'_, 16>)>(4);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for (number, block) in receive {
                    assert_eq!(block[..4], number.to_le_bytes());
                }
            });
            let mut number = 0u32;
            while number < 20_000 {
                let Some(mut block) = taker.take() else {
                    std::thread::yield_now();
                    continue;
                };
                block[..4].copy_from_slice(&number.to_le_bytes());
                send.send((number, block)).unwrap();
                number += 1;
            }
            drop(send);
        });
        assert_eq!(taker.free(), 4);
    }
}
