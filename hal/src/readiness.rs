//! Sleeping and waking: the park, unpark and readiness ports.
//!
//! Only [`Park::park`] ever sleeps. It asks `idle` *after the point from which no wake can be lost* and sleeps only on
//! true: on Linux the wake is an eventfd, which is a level and so ends a sleep that starts later; on a microcontroller
//! `idle` is asked with interrupts masked, and `wfi` returns on a *pending* interrupt although it is masked ([`Wfi`]).
//! A `park` without that question loses wakes before `wfi`.
//!
//! ```
//! use hal::readiness::{Cpu, Park, Wfi};
//! use hal::time::Instant;
//!
//! struct Chip; // a board gives four instructions
//! impl Cpu for Chip {
//!     fn mask(&self) -> bool { true }
//!     fn restore(&self, _was: bool) {}
//!     fn wait(&self) {}
//!     fn set_alarm(&self, _at: Option<Instant>) {}
//! }
//! let mut asked = false;
//! Wfi(Chip).park(None, &mut || { asked = true; true }, &mut |_key, _ready| {});
//! assert!(asked);
//! ```

use crate::time::Instant;

/// Names a source of events; chosen by whoever watches it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Key(pub u32);

/// What to watch a source for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interest {
    /// Something to read.
    pub read: bool,
    /// Room to write.
    pub write: bool,
}

impl Interest {
    /// Something to read.
    pub const READ: Self = Self { read: true, write: false };
    /// Room to write.
    pub const WRITE: Self = Self { read: false, write: true };
    /// Either.
    pub const BOTH: Self = Self { read: true, write: true };
}

/// What has happened at a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ready {
    /// Something to read, or an end or error that a read will show.
    pub read: bool,
    /// Room to write, or an error that a write will show.
    pub write: bool,
    /// The other side is gone.
    pub closed: bool,
}

/// What a step of an application tells its host.
///
/// Applications do no I/O and never sleep; the host calls `step` in a loop and parks in between:
///
/// ```
/// use hal::readiness::{Key, Next, Park, Ready};
/// use hal::time::{Clock, Instant};
///
/// fn run(clock: &impl Clock, park: &mut impl Park, mut step: impl FnMut(Instant) -> Next, turns: usize) {
///     for _ in 0..turns {
///         let next = step(clock.now());
///         if !next.more {
///             park.park(next.at, &mut || true, &mut |_key: Key, _ready: Ready| {});
///         }
///     }
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Next {
    /// Come back at this time at the latest; `None`: only news of a port matter.
    pub at: Option<Instant>,
    /// Come back at once: work is left that a budget put off.
    pub more: bool,
}

impl Next {
    /// Both wishes together: the earlier time, and at once if either asks for that.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let at = match (self.at, other.at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Self { at, more: self.more || other.more }
    }
}

/// Sleeping. Used by the one owner only.
pub trait Park {
    /// Submits staged I/O, then sleeps until `until`, an event or an unpark; may return early. `idle` is asked after the
    /// point from which no wake can be lost, and false keeps it from sleeping. Each event is told by its key.
    fn park(
        &mut self,
        until: Option<Instant>,
        idle: &mut dyn FnMut() -> bool,
        event: &mut dyn FnMut(Key, Ready),
    );
}

/// Waking, from any context, interrupt handlers included. Sticky until the next park returns.
pub trait Unpark: Sync {
    /// Ends the current or the next park.
    fn unpark(&self);
}

/// A park that also watches sources of events.
pub trait Readiness: Park {
    /// What can be watched: a borrowed descriptor, an interrupt line.
    type Source<'a>;
    /// Why watching was refused.
    type Error;
    /// Watches `source`, or changes what it is watched for. Events may repeat or be spurious: look at the source.
    ///
    /// # Errors
    ///
    /// What the implementation refuses, its own cause kept.
    fn watch(&mut self, source: Self::Source<'_>, key: Key, interest: Interest) -> Result<(), Self::Error>;
    /// Ends watching. Events of `key` that have been fetched already may still be told.
    fn forget(&mut self, source: Self::Source<'_>, key: Key);
}

/// The four instructions that a sleeping microcontroller needs.
pub trait Cpu {
    /// Masks interrupts; true when they were enabled before.
    fn mask(&self) -> bool;
    /// Ends the masking of the matching [`mask`](Self::mask).
    fn restore(&self, was: bool);
    /// Sleeps until an interrupt is pending, masked or not.
    fn wait(&self);
    /// Arms the wake-up timer, or disarms it.
    fn set_alarm(&self, at: Option<Instant>);
}

/// Parks a core with `wfi`. Events need no keys: interrupt handlers have run by the time it returns.
#[derive(Debug)]
pub struct Wfi<C>(pub C);

impl<C: Cpu> Park for Wfi<C> {
    fn park(
        &mut self,
        until: Option<Instant>,
        idle: &mut dyn FnMut() -> bool,
        _event: &mut dyn FnMut(Key, Ready),
    ) {
        self.0.set_alarm(until);
        let was = self.0.mask();
        if idle() {
            self.0.wait();
        }
        self.0.restore(was);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use core::cell::{Cell, RefCell};

    struct Traced<'a> {
        trace: &'a RefCell<Vec<&'static str>>,
        masked: Cell<bool>,
    }
    impl Cpu for Traced<'_> {
        fn mask(&self) -> bool {
            self.trace.borrow_mut().push("mask");
            !self.masked.replace(true)
        }
        fn restore(&self, was: bool) {
            self.trace.borrow_mut().push("restore");
            self.masked.set(!was);
        }
        fn wait(&self) {
            assert!(self.masked.get(), "wfi with interrupts enabled loses the wake before it");
            self.trace.borrow_mut().push("wait");
        }
        fn set_alarm(&self, _at: Option<Instant>) {
            self.trace.borrow_mut().push("alarm");
        }
    }

    #[test]
    fn wfi_asks_with_interrupts_masked_and_sleeps_only_when_idle() {
        let trace = RefCell::new(Vec::new());
        let mut park = Wfi(Traced { trace: &trace, masked: Cell::new(false) });
        for idle in [true, false] {
            park.park(
                None,
                &mut || {
                    trace.borrow_mut().push("ask");
                    idle
                },
                &mut |_, _| {},
            );
        }
        assert!(!park.0.masked.get());
        let expected = ["alarm", "mask", "ask", "wait", "restore", "alarm", "mask", "ask", "restore"];
        assert_eq!(*trace.borrow(), expected);
    }
}
