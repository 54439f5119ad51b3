//! A recursive lock with priority inheritance.

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::sys::Errno;
use crate::sys::sched::{futex_lock_pi, futex_unlock_pi, gettid};

/// A lock whose owner runs at least as urgently as the most urgent waiter (futex(2), "Priority-inheritance futexes").
///
/// The word holds the owner's thread number, 0 when free; the kernel sets `FUTEX_WAITERS` beside it. `depth` counts how
/// often the owner has entered again and is touched by the owner only.
#[derive(Debug)]
pub(super) struct PiLock {
    word: AtomicU32,
    depth: AtomicU32,
}

std::thread_local! {
    static TID: Cell<u32> = const { Cell::new(0) };
}

/// The calling thread's number, by one system call a thread.
fn tid() -> u32 {
    TID.with(|tid| {
        if tid.get() == 0 {
            tid.set(gettid());
        }
        tid.get()
    })
}

impl PiLock {
    pub(super) const fn new() -> Self {
        Self { word: AtomicU32::new(0), depth: AtomicU32::new(0) }
    }

    pub(super) fn lock(&self) {
        let us = tid();
        // Relaxed: if the word names us, we wrote it ourselves.
        if self.word.load(Ordering::Relaxed) & libc::FUTEX_TID_MASK == us {
            self.depth.store(self.depth.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            return;
        }
        // Acquire pairs with the release of the unlock; the kernel's hand-over is a full barrier.
        while self.word.compare_exchange(0, us, Ordering::Acquire, Ordering::Relaxed).is_err() {
            match futex_lock_pi(&self.word) {
                Ok(()) => return,
                // Without the kernel's help the owner runs when it may.
                Err(Errno::NOSYS) => std::thread::yield_now(),
                // EAGAIN: the owner is just ending. EINTR.
                Err(_) => {}
            }
        }
    }

    /// By the owner only, once for each [`lock`](Self::lock).
    pub(super) fn unlock(&self) {
        let us = tid();
        let depth = self.depth.load(Ordering::Relaxed);
        if depth > 0 {
            self.depth.store(depth - 1, Ordering::Relaxed);
        } else if self.word.compare_exchange(us, 0, Ordering::Release, Ordering::Relaxed).is_err() {
            // The word names us with waiters beside; only a kernel without PI futexes refuses, and sets no waiters.
            let _ = futex_unlock_pi(&self.word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicU64;
    use std::thread;

    #[test]
    fn sections_exclude_each_other_and_nest() {
        let (lock, a, b) = (PiLock::new(), AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for turn in 0..20_000 {
                        lock.lock();
                        lock.lock();
                        // Not atomic together: only the lock keeps the two equal.
                        let next = a.load(Ordering::Relaxed) + 1;
                        a.store(next, Ordering::Relaxed);
                        if turn % 64 == 0 {
                            thread::yield_now();
                        }
                        lock.unlock();
                        b.store(b.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                        assert_eq!(b.load(Ordering::Relaxed), next);
                        lock.unlock();
                    }
                });
            }
        });
        assert_eq!(a.load(Ordering::Relaxed), 80_000);
        assert_eq!((lock.word.load(Ordering::Relaxed), lock.depth.load(Ordering::Relaxed)), (0, 0));
    }
}
