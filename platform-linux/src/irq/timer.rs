//! Timers that tick.

use alloc::sync::Arc;
use core::num::NonZeroU64;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::{Builder, Scope};

use hal::time::{Clock, Instant, Span};

use super::SourceConfig;
use crate::clock::MonotonicClock;
use crate::sys::eventfd::read_count;
use crate::sys::sched::{gettid, pin, set_fifo, set_timer_slack};
use crate::sys::timerfd::{timerfd_create, timerfd_settime};
use crate::sys::{Errno, retry_on_intr};

/// A periodic timer as a descriptor, for reactors.
///
/// Its beats lie at `first + n * period` for ever, however late somebody looks; beats that were not looked at in time are
/// counted.
///
/// # Examples
///
/// ```
/// use hal::readiness::{Interest, Key, Park, Readiness};
/// use hal::time::{Clock, Span};
/// use platform_linux::clock::MonotonicClock;
/// use platform_linux::irq::TimerFd;
/// use platform_linux::readiness::Epoll;
/// use std::os::fd::AsFd;
///
/// let first = MonotonicClock.now().after(Span::ms(2));
/// let mut timer = TimerFd::new(first, Span::ms(1))?;
/// let mut park = Epoll::new()?;
/// park.watch(timer.as_fd(), Key(0), Interest::READ)?;
/// let tick = loop {
///     park.park(None, &mut || true, &mut |_, _| {});
///     if let Some(tick) = timer.take() { break tick }
/// };
/// assert_eq!(tick.due, first.after(Span::ms(1).times(tick.missed)));
/// # Ok::<(), platform_linux::sys::Errno>(())
/// ```
#[derive(Debug)]
pub struct TimerFd {
    fd: OwnedFd,
    beat: Beat,
}

/// One look at a timer that had fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// When the latest beat was due.
    pub due: Instant,
    /// Beats before it that nobody saw.
    pub missed: u64,
}

/// When the next beat that nobody has seen is due.
#[derive(Clone, Copy, Debug)]
struct Beat {
    next: Instant,
    period: Span,
}

impl Beat {
    fn tick(&mut self, count: u64) -> Option<Tick> {
        let missed = count.checked_sub(1)?;
        let due = self.next.after(self.period.times(missed));
        self.next = due.after(self.period);
        Some(Tick { due, missed })
    }
}

impl TimerFd {
    /// A timer that beats at `first` and then every `period`; a period of zero beats once. Times in the past count as
    /// missed beats.
    ///
    /// # Errors
    ///
    /// EMFILE or ENFILE without descriptors left.
    pub fn new(first: Instant, period: Span) -> Result<Self, Errno> {
        let fd = timerfd_create(false)?;
        // Zero would disarm.
        timerfd_settime(fd.as_fd(), first.as_ns().max(1), period.as_ns())?;
        Ok(Self { fd, beat: Beat { next: first, period } })
    }

    /// What has come since the last call; `None` when no beat has. Never waits.
    pub fn take(&mut self) -> Option<Tick> {
        let count = read_count(self.fd.as_fd()).unwrap_or(0);
        self.beat.tick(count)
    }
}

impl AsFd for TimerFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A thread that does something at each beat of a timer, mostly triggering a line. Dropping it ends the thread.
#[derive(Debug)]
pub struct Source {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    timer: OwnedFd,
    stopping: AtomicBool,
    ticks: AtomicU64,
    missed: AtomicU64,
    worst_ns: AtomicU64,
}

/// What a source has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceStats {
    /// Calls of the closure.
    pub ticks: u64,
    /// Beats that had no call of their own, because the thread did not run in time.
    pub missed: u64,
    /// The longest time from a beat to its call.
    pub worst_wake_up: Span,
}

impl Source {
    /// Calls `on_tick` every `period`, from a thread that is more urgent than all levels; so let it do little.
    ///
    /// # Errors
    ///
    /// EINVAL for a period of zero; what the timer, the thread or its pinning gives. A refused priority is no error:
    /// the levels have said so before.
    pub fn periodic<'scope>(
        scope: &'scope Scope<'scope, '_>,
        period: Span,
        config: SourceConfig,
        mut on_tick: impl FnMut(Tick) + Send + 'scope,
    ) -> io::Result<Self> {
        let period_ns = NonZeroU64::new(period.as_ns()).ok_or(Errno::INVAL)?;
        let shared = Arc::new(Shared {
            timer: timerfd_create(true)?,
            stopping: AtomicBool::new(false),
            ticks: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            worst_ns: AtomicU64::new(0),
        });
        let first = MonotonicClock.now().after(period);
        timerfd_settime(shared.timer.as_fd(), first.as_ns(), period_ns.get())?;
        let (mut beat, ours) = (Beat { next: first, period }, Arc::clone(&shared));
        // From here on the handle ends the thread, also when pinning fails.
        let source = Self { shared };
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let run = move || {
            set_timer_slack(1);
            let _ = tell.send(gettid());
            loop {
                let count = retry_on_intr(|| read_count(ours.timer.as_fd())).unwrap_or(0);
                if ours.stopping.load(Ordering::Acquire) {
                    return;
                }
                if let Some(tick) = beat.tick(count) {
                    ours.count(tick);
                    on_tick(tick);
                }
            }
        };
        Builder::new().name("irq-source".into()).spawn_scoped(scope, run)?;
        let tid = told.recv().map_err(|_| Errno::last())?;
        if let Some(cpu) = config.cpu {
            pin(tid, cpu)?;
        }
        if let Some(priority) = config.priority {
            set_fifo(tid, priority)?;
        }
        Ok(source)
    }

    /// What it has seen so far.
    pub fn stats(&self) -> SourceStats {
        SourceStats {
            ticks: self.shared.ticks.load(Ordering::Relaxed),
            missed: self.shared.missed.load(Ordering::Relaxed),
            worst_wake_up: Span::ns(self.shared.worst_ns.load(Ordering::Relaxed)),
        }
    }
}

impl Shared {
    /// Statistics only, so relaxed; one thread writes.
    fn count(&self, tick: Tick) {
        let late = MonotonicClock.now().since(tick.due).as_ns();
        self.ticks.fetch_add(1, Ordering::Relaxed);
        self.missed.fetch_add(tick.missed, Ordering::Relaxed);
        self.worst_ns.fetch_max(late, Ordering::Relaxed);
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // Release pairs with the acquire after the read that the next line ends.
        self.shared.stopping.store(true, Ordering::Release);
        // The past: fires at once. The descriptor is ours, so it cannot fail.
        let _ = timerfd_settime(self.shared.timer.as_fd(), 1, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_do_not_drift_however_late_one_looks() {
        let mut beat = Beat { next: Instant::from_ns(1_000), period: Span::ns(100) };
        assert_eq!(beat.tick(0), None);
        assert_eq!(beat.tick(1), Some(Tick { due: Instant::from_ns(1_000), missed: 0 }));
        assert_eq!(beat.tick(3), Some(Tick { due: Instant::from_ns(1_300), missed: 2 }));
        assert_eq!(beat.tick(1), Some(Tick { due: Instant::from_ns(1_400), missed: 0 }));
    }
}
