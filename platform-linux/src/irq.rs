//! Interrupts on Linux: a thread for each level, a doorbell that it sleeps on, and timers that trigger lines.
//!
//! ```text
//!   timerfd ──> source thread ── trigger(line) ─┐            priorities, lowest first
//!   other threads ────────────── trigger(line) ─┤              level 0   base
//!                                               v              level 1   base + step
//!                         Controller ── kick(level)              …
//!                                          │ futex             sources   above all levels
//!                                          v
//!                                   thread of the level ── dispatch(level) ── handler
//! ```
//!
//! The kernel preempts between levels (`SCHED_FIFO`); inside a level the controller runs the earliest deadline first, to
//! completion. Without the privilege for real-time threads everything still runs, in ordinary threads, and says so
//! ([`RealTime::Degraded`]).
//!
//! # What cannot be promised
//!
//! - An idle processor wakes in its own time: from the same processor a handler starts after about 5 us, on another one
//!   that slept after 36 to 53 us (x86-64 virtual machine). Placement counts ten times as much as the mechanism;
//!   [`LevelConfig::cpu`] pins.
//! - Real-time threads that never sleep are stopped for 50 ms of each second (`sched_rt_runtime_us`).
//! - The first touch of a page faults, whatever the priority: [`LevelConfig::lock_memory`].
//! - A virtual machine's host takes the processor away when it likes.
//!
//! # Examples
//!
//! ```
//! use core::sync::atomic::{AtomicU64, Ordering};
//! use hal::irq::{Level, Line};
//! use hal::time::Span;
//! use platform_linux::irq::{LevelConfig, LinuxPlatform, Source, serve};
//! use rt_irq::{Activation, Controller, LineConfig};
//!
//! let platform = LinuxPlatform::new(4);
//! let samples = AtomicU64::new(0);
//! let sample = |_: &Activation| { samples.fetch_add(1, Ordering::Relaxed); };
//! let mut irq = Controller::<_, 8>::new(&platform);
//! irq.register(Line(1), LineConfig::new(Level(3), Span::us(500)), &sample).unwrap();
//!
//! let (irq, dispatch) = (&irq, |level| irq.dispatch(level));
//! std::thread::scope(|scope| {
//!     let levels = serve(scope, &platform, &dispatch, LevelConfig::default()).unwrap();
//!     let timer = Source::periodic(scope, Span::ms(1), levels.source(), |_| irq.trigger(Line(1))).unwrap();
//!     while samples.load(Ordering::Relaxed) < 20 {
//!         std::thread::yield_now();
//!     }
//!     println!("{:?}, {:?}", levels.real_time(), timer.stats());
//! }); // both end when their handles are dropped
//! ```

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};

use hal::irq::Level;
use hal::time::{Clock, Instant};
use rt_irq::port::Platform;

use crate::clock::MonotonicClock;
use crate::sys::sched::{futex_wait, futex_wake};

mod levels;
mod lock;
mod timer;

pub use levels::{LevelConfig, Levels, RealTime, SourceConfig, serve};
pub use timer::{Source, SourceStats, Tick, TimerFd};

use lock::PiLock;

/// The platform of a [`Controller`](rt_irq::Controller) on Linux.
///
/// It holds the doorbells of the levels and the critical section; [`serve`] starts the threads that answer. The critical
/// section is a lock that lends the waiter's priority to its owner (a PI futex), so that an ordinary thread inside it is
/// not kept from finishing by a real-time thread that waits for it.
#[derive(Debug)]
pub struct LinuxPlatform {
    doors: Box<[Door]>,
    section: PiLock,
    /// Level + 1 of the raised ceiling, 0 for none. Changed by the owner of `section` only.
    raised: AtomicU16,
    stopping: AtomicBool,
}

/// What the thread of a level sleeps on, and until when its handler may run.
///
/// A kick adds to `bell`, then looks at `asleep`. The thread sets `asleep`, then sleeps only while `bell` is what it was
/// before the last dispatch, which the kernel checks. All four are sequentially consistent, so that not both can miss
/// the other's store: either the kick sees the sleeper and wakes it, or the sleeper sees the new bell and does not sleep.
#[derive(Debug)]
struct Door {
    bell: AtomicU32,
    asleep: AtomicBool,
    budget_ends: AtomicU64,
}

impl LinuxPlatform {
    /// A platform of `levels` levels, at least one.
    pub fn new(levels: u8) -> Self {
        let door = |_| Door {
            bell: AtomicU32::new(0),
            asleep: AtomicBool::new(false),
            budget_ends: AtomicU64::new(u64::MAX),
        };
        Self {
            doors: (0..levels.max(1)).map(door).collect(),
            section: PiLock::new(),
            raised: AtomicU16::new(0),
            stopping: AtomicBool::new(false),
        }
    }

    /// Whether the handler that runs at `level` has used up the time that
    /// [`arm_budget`](Platform::arm_budget) gave it. For handlers to ask; nothing interrupts them.
    pub fn over_budget(&self, level: Level) -> bool {
        let ends = self.door(level).map_or(u64::MAX, |door| door.budget_ends.load(Ordering::Relaxed));
        self.now().as_ns() > ends
    }

    /// Answers the doorbell of `level` with `dispatch` until the platform stops. Runs on the level's thread.
    fn answer(&self, level: Level, dispatch: &(dyn Fn(Level) + Sync)) {
        let Some(door) = self.door(level) else { return };
        loop {
            let seen = door.bell.load(Ordering::SeqCst);
            dispatch(level);
            if self.stopping.load(Ordering::SeqCst) {
                return;
            }
            door.asleep.store(true, Ordering::SeqCst);
            // EAGAIN: rung since `seen`. EINTR: look again.
            let _ = futex_wait(&door.bell, seen);
            door.asleep.store(false, Ordering::SeqCst);
        }
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.doors.iter().for_each(Door::ring);
    }

    fn door(&self, level: Level) -> Option<&Door> {
        self.doors.get(usize::from(level.0))
    }
}

impl Door {
    fn ring(&self) {
        self.bell.fetch_add(1, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            futex_wake(&self.bell);
        }
    }
}

impl Platform for LinuxPlatform {
    type Saved = ();

    fn now(&self) -> Instant {
        MonotonicClock.now()
    }

    fn levels(&self) -> u8 {
        u8::try_from(self.doors.len()).unwrap_or(u8::MAX)
    }

    fn kick(&self, level: Level) {
        if let Some(door) = self.door(level) {
            door.ring();
        }
    }

    fn enter(&self) {
        self.section.lock();
    }

    fn exit(&self, (): ()) {
        self.section.unlock();
    }

    /// Holds the critical section while any ceiling is raised, so that no handler of any level starts. A handler that
    /// runs on another processor at that moment goes on: what several processors share needs a lock of its own, or all
    /// levels on one processor ([`LevelConfig::cpu`]).
    fn ceiling(&self, to: Option<Level>) -> Option<Level> {
        self.section.lock();
        // Relaxed: the section orders it.
        let before = self.raised.load(Ordering::Relaxed);
        let after = to.map_or(0, |level| u16::from(level.0) + 1);
        self.raised.store(after, Ordering::Relaxed);
        // One hold for as long as a ceiling is raised, and the one of this call.
        if before != 0 && after == 0 {
            self.section.unlock();
        }
        if !(before == 0 && after != 0) {
            self.section.unlock();
        }
        before.checked_sub(1).and_then(|level| u8::try_from(level).ok()).map(Level)
    }

    fn arm_budget(&self, level: Level, at: Option<Instant>) {
        if let Some(door) = self.door(level) {
            door.budget_ends.store(at.map_or(u64::MAX, Instant::as_ns), Ordering::Relaxed);
        }
    }
}
