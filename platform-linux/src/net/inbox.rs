//! Receiving in batches: memory for several messages, filled by one call and lent one by one.

use std::os::fd::BorrowedFd;

use hal::link::Counters;

use crate::sys::Errno;
use crate::sys::socket::{BATCH, Received, recvmmsg};

/// Errors of earlier sends (ICMP) that one call may find and skip before it gives up until the next.
const STALE_ERRORS: u32 = 8;

/// Slots of equal size. Nothing is allocated after [`Inbox::new`]; pages that no message has reached stay unbacked.
#[derive(Debug)]
pub(crate) struct Inbox {
    memory: Box<[u8]>,
    slot: usize,
    found: [Received; BATCH],
    count: usize,
    /// The slot that is lent; equal to `count` when none is.
    at: usize,
    /// The last call found fewer messages than there are slots: nothing is left behind them.
    drained: bool,
    overruns: u32,
}

impl Inbox {
    /// `slots` (1 to 16) places for messages of up to `slot` bytes.
    pub(crate) fn new(slots: usize, slot: usize) -> Self {
        let memory = vec![0; slots.clamp(1, BATCH) * slot].into_boxed_slice();
        Self { memory, slot, found: [Received::EMPTY; BATCH], count: 0, at: 0, drained: false, overruns: 0 }
    }

    /// Gives the lent message back and moves to the next that is whole. False: nothing is there.
    pub(crate) fn advance(&mut self, fd: BorrowedFd<'_>, counters: &mut Counters) -> bool {
        loop {
            self.at = (self.at + 1).min(self.count);
            if self.at == self.count && !self.fill(fd, counters) {
                return false;
            }
            let Some(got) = self.found.get(self.at) else { return false };
            if got.truncated || got.from == crate::sys::socket::Name::EMPTY {
                counters.rx_bad += 1;
                continue;
            }
            return true;
        }
    }

    /// The lent message with its bytes.
    pub(crate) fn current(&mut self) -> Option<(Received, &mut [u8])> {
        let got = *self.found.get(..self.count)?.get(self.at)?;
        let start = self.at * self.slot;
        Some((got, self.memory.get_mut(start..start + got.len.min(self.slot))?))
    }

    /// Fetches the next batch. One call is saved after a batch that was not full: it had emptied the queue, and what came
    /// since makes the descriptor ready again.
    fn fill(&mut self, fd: BorrowedFd<'_>, counters: &mut Counters) -> bool {
        (self.count, self.at) = (0, 0);
        if core::mem::take(&mut self.drained) {
            return false;
        }
        for _ in 0..STALE_ERRORS {
            counters.calls += 1;
            match recvmmsg(fd, &mut self.memory, self.slot, &mut self.found) {
                Ok(count) => {
                    self.count = count;
                    self.drained = count * self.slot < self.memory.len();
                    self.count_overruns(counters);
                    return count > 0;
                }
                Err(errno) if errno == Errno::AGAIN => return false,
                // The other side answered an earlier datagram with an ICMP error; it says nothing about this queue.
                Err(errno) => counters.last_os_error = errno.raw(),
            }
        }
        false
    }

    fn count_overruns(&mut self, counters: &mut Counters) {
        let newest = self.found.iter().take(self.count).rev().find_map(|got| got.overruns);
        if let Some(total) = newest {
            counters.rx_lost += u64::from(total.wrapping_sub(self.overruns));
            self.overruns = total;
        }
    }
}
