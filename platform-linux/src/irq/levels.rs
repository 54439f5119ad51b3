//! The threads of the levels.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::fmt;
use std::io;
use std::sync::mpsc;
use std::thread::{Builder, Scope};

use hal::irq::Level;
use rt_irq::port::Platform;

use super::LinuxPlatform;
use crate::sys::Errno;
use crate::sys::sched::{gettid, mlockall, pin, set_fifo, set_timer_slack};

/// How the threads of the levels are scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelConfig {
    /// Priority of level 0. Default 10.
    pub base_priority: u8,
    /// Distance between levels. Default 10. Sources stand one step above the last level; with four levels that is 50,
    /// which is where threaded interrupt handlers of the kernel run too.
    pub priority_step: u8,
    /// The processor that all levels and sources run on. Default: any.
    pub cpu: Option<usize>,
    /// Keep the whole process in memory. Default false: as an ordinary user it makes later allocations fail at
    /// `RLIMIT_MEMLOCK`.
    pub lock_memory: bool,
    /// Ask for real-time threads at all. Default true.
    pub real_time: bool,
}

impl Default for LevelConfig {
    fn default() -> Self {
        Self { base_priority: 10, priority_step: 10, cpu: None, lock_memory: false, real_time: true }
    }
}

impl LevelConfig {
    /// Priority of level `level`; that of sources for one more than the last.
    fn priority(&self, level: u8) -> u8 {
        self.base_priority.saturating_add(self.priority_step.saturating_mul(level))
    }
}

/// What scheduling the threads have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RealTime {
    /// `SCHED_FIFO` at these priorities.
    Fifo {
        /// Of level 0.
        lowest: u8,
        /// Of the sources.
        highest: u8,
    },
    /// Ordinary threads with a timer slack of 1 ns: no level preempts another, and any busy process delays all.
    Degraded {
        /// Why the kernel refused; `None` when real time was not asked for.
        errno: Option<Errno>,
        /// What would help.
        remedy: &'static str,
    },
}

impl fmt::Display for RealTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fifo { lowest, highest } => write!(f, "real-time, priorities {lowest} to {highest}"),
            Self::Degraded { errno: Some(errno), remedy } => {
                write!(f, "not real-time ({errno}): {remedy}")
            }
            Self::Degraded { errno: None, remedy } => write!(f, "not real-time: {remedy}"),
        }
    }
}

/// The running threads of the levels. Dropping it ends them after what is pending, and the scope joins them.
#[derive(Debug)]
pub struct Levels<'env> {
    platform: &'env LinuxPlatform,
    real_time: RealTime,
    memory_locked: bool,
    source: SourceConfig,
}

/// How a source of triggers is scheduled; [`Levels::source`] gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceConfig {
    pub(super) priority: Option<u8>,
    pub(super) cpu: Option<usize>,
}

impl Levels<'_> {
    /// What scheduling the threads have.
    pub fn real_time(&self) -> RealTime {
        self.real_time
    }

    /// Whether the process was locked into memory, as [`LevelConfig::lock_memory`] asked.
    pub fn memory_locked(&self) -> bool {
        self.memory_locked
    }

    /// The scheduling for sources: above all levels, on the same processor.
    pub fn source(&self) -> SourceConfig {
        self.source
    }
}

impl Drop for Levels<'_> {
    fn drop(&mut self) {
        self.platform.stop();
    }
}

/// Starts a thread for each level of `platform`, which answers kicks with `dispatch`.
///
/// All levels become real-time or none does, because a mixture would turn priorities around. A platform is served once:
/// after the handle was dropped its threads do not come back.
///
/// # Errors
///
/// What starting a thread gives (EAGAIN at a limit). A refused priority is no error, see [`Levels::real_time`].
pub fn serve<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    platform: &'env LinuxPlatform,
    dispatch: &'env (dyn Fn(Level) + Sync),
    config: LevelConfig,
) -> io::Result<Levels<'env>> {
    let memory_locked = config.lock_memory && mlockall().is_ok();
    let count = platform.levels();
    // From here on the handle ends the threads that were started, also when a later one fails.
    let mut levels = Levels {
        platform,
        real_time: RealTime::Degraded { errno: None, remedy: "it was not asked for" },
        memory_locked,
        source: SourceConfig { priority: None, cpu: config.cpu },
    };
    let (tell, told) = mpsc::channel();
    for level in 0..count {
        let tell = tell.clone();
        let answer = move || {
            set_timer_slack(1);
            // The receiver waits for all of them.
            let _ = tell.send((level, gettid()));
            drop(tell);
            platform.answer(Level(level), dispatch);
        };
        Builder::new().name(format!("irq-level-{level}")).spawn_scoped(scope, answer)?;
    }
    drop(tell);
    let mut threads: Box<[(u8, u32)]> = told.into_iter().collect::<Vec<_>>().into_boxed_slice();
    // The most urgent first: if that one is refused the others stay what they are.
    threads.sort_unstable_by_key(|(level, _)| core::cmp::Reverse(*level));
    if let Some(cpu) = config.cpu {
        for (_, tid) in &threads {
            pin(*tid, cpu)?;
        }
    }
    if config.real_time {
        let highest = config.priority(count);
        let lifted = if highest > 98 {
            Err(Errno::INVAL)
        } else {
            threads.iter().try_for_each(|(level, tid)| set_fifo(*tid, config.priority(*level)))
        };
        match lifted {
            Ok(()) => {
                levels.source.priority = Some(highest);
                levels.real_time = RealTime::Fifo { lowest: config.base_priority, highest };
            }
            Err(errno) => {
                levels.real_time = RealTime::Degraded { errno: Some(errno), remedy: remedy(errno) };
            }
        }
    }
    Ok(levels)
}

fn remedy(errno: Errno) -> &'static str {
    match errno {
        Errno::INVAL => "priorities are 1 to 98; lower the base or the step",
        _ => {
            "run as root, `setcap cap_sys_nice+ep` the program, or raise the limit (`ulimit -r 50`, `LimitRTPRIO=` in a unit)"
        }
    }
}
