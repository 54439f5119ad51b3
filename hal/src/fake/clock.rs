//! A clock that a test moves by hand.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::time::{Clock, Instant, Span};

/// Virtual time. Shared by reference between everything that is simulated; only the owner of the simulation moves it.
///
/// ```
/// use hal::fake::ManualClock;
/// use hal::time::{Clock, Instant, Span};
///
/// let clock = ManualClock::new();
/// clock.advance(Span::ms(5));
/// assert_eq!(clock.now(), Instant::from_ns(5_000_000));
/// ```
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that stands at [`Instant::ZERO`].
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Moves to `to`.
    ///
    /// # Panics
    ///
    /// When `to` lies in the past: a clock port never goes back.
    pub fn set(&self, to: Instant) {
        // Relaxed: the clock orders nothing but itself; tests that share it between threads synchronise otherwise.
        let before = self.0.swap(to.as_ns(), Ordering::Relaxed);
        assert!(before <= to.as_ns(), "a clock never goes back");
    }

    /// Moves on by `span`.
    pub fn advance(&self, span: Span) {
        self.set(self.now().after(span));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        Instant::from_ns(self.0.load(Ordering::Relaxed))
    }
    fn tick(&self) -> Span {
        Span::ns(1)
    }
}
