//! What a platform gives to the controller.

use hal::irq::Level;
use hal::time::Instant;

/// The platform port: a chip's interrupt controller, a set of Linux threads, or virtual time in a test.
///
/// How [`dispatch`](crate::Controller::dispatch) is reached is the platform's affair: a software interrupt for each level
/// (NVIC), one software interrupt and a loop (CLINT), a thread for each level, a nested call.
pub trait Platform: Sync {
    /// What [`enter`](Self::enter) has to remember for [`exit`](Self::exit).
    type Saved;

    /// The time now. Any context.
    fn now(&self) -> Instant;

    /// How many levels there are; chips differ (4 on a Cortex-M0).
    fn levels(&self) -> u8;

    /// Soon `dispatch(level)` runs, preempting lower levels, one activation of a level at a time. Kicks of a level
    /// coalesce; one that comes during its dispatch is seen by it or makes another. Any context.
    fn kick(&self, level: Level);

    /// Begins a short critical section; sections nest.
    fn enter(&self) -> Self::Saved;

    /// Ends the critical section that gave `saved`.
    fn exit(&self, saved: Self::Saved);

    /// Raises the level below which nothing preempts, or lowers it again with what the raising returned. A chip without
    /// such a mask masks everything.
    fn ceiling(&self, to: Option<Level>) -> Option<Level>;

    /// Arms the timer that watches the running handler of `level`; `None` disarms it.
    fn arm_budget(&self, level: Level, at: Option<Instant>);
}

impl<P: Platform> Platform for &P {
    type Saved = P::Saved;

    fn now(&self) -> Instant {
        (**self).now()
    }
    fn levels(&self) -> u8 {
        (**self).levels()
    }
    fn kick(&self, level: Level) {
        (**self).kick(level);
    }
    fn enter(&self) -> P::Saved {
        (**self).enter()
    }
    fn exit(&self, saved: P::Saved) {
        (**self).exit(saved);
    }
    fn ceiling(&self, to: Option<Level>) -> Option<Level> {
        (**self).ceiling(to)
    }
    fn arm_budget(&self, level: Level, at: Option<Instant>) {
        (**self).arm_budget(level, at);
    }
}
