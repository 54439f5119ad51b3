//! Time: instants and spans in nanoseconds, and the clock port.
//!
//! One unit for the whole family, so that no crate converts: an [`Instant`] is a `u64` count of nanoseconds since an
//! arbitrary start (584 years, so ordinary `Ord` is meant), a [`Span`] a length in the same unit. All arithmetic
//! saturates: a deadline past the end of time never comes, and a clock that was read on another core never yields a
//! negative age. `core::time::Duration` is used at façades only; it costs 196 bytes of thumbv6m code in one deadline
//! idiom where `Span` costs 72.
//!
//! Cores never read a clock: time is an argument. Only the edges call [`Clock::now`].
//!
//! A microcontroller gets its clock from two parts: [`Extend`] turns a wrapping hardware counter into 64 bits of ticks,
//! [`Scale`] turns ticks into nanoseconds with one multiplication.
//!
//! ```
//! use hal::time::{Extend, Instant, Scale};
//!
//! const SCALE: Scale = Scale::new(64_000_000); // a 64 MHz counter
//! let wide = Extend::<24>::new(); //              … that wraps at 24 bits
//! assert_eq!(wide.ticks(0xff_ffff), 0xff_ffff);
//! assert_eq!(wide.ticks(0x00_003f), 0x100_003f);
//! assert_eq!(Instant::from_ns(SCALE.ns(64)).as_ns(), 1_000);
//! ```

use core::cell::Cell;
use core::fmt;

/// A point in time: nanoseconds since an arbitrary start, the same for all users of one clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The start of the clock.
    pub const ZERO: Self = Self(0);
    /// The end of time; a timer set to it never fires.
    pub const FAR: Self = Self(u64::MAX);

    /// The instant `ns` nanoseconds after the clock's start.
    pub const fn from_ns(ns: u64) -> Self {
        Self(ns)
    }

    /// Nanoseconds since the clock's start.
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// This instant moved later by `span`; saturates at [`Instant::FAR`].
    pub const fn after(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// How long after `earlier` this instant lies; zero when `earlier` is the later one.
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

/// A length of time in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct Span(u64);

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// The longest span, 584 years.
    pub const MAX: Self = Self(u64::MAX);

    /// `n` nanoseconds.
    pub const fn ns(n: u64) -> Self {
        Self(n)
    }

    /// `n` microseconds; saturates.
    pub const fn us(n: u64) -> Self {
        Self(n.saturating_mul(1_000))
    }

    /// `n` milliseconds; saturates.
    pub const fn ms(n: u64) -> Self {
        Self(n.saturating_mul(1_000_000))
    }

    /// `n` seconds; saturates.
    pub const fn secs(n: u64) -> Self {
        Self(n.saturating_mul(1_000_000_000))
    }

    /// The length in nanoseconds.
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// The length in whole microseconds, rounded down.
    pub const fn as_us(self) -> u64 {
        self.0 / 1_000
    }

    /// The length in whole milliseconds, rounded down.
    pub const fn as_ms(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Both lengths together; saturates.
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// This length `n` times; saturates.
    pub const fn times(self, n: u64) -> Self {
        Self(self.0.saturating_mul(n))
    }
}

impl fmt::Display for Span {
    /// Three significant digits at most, in the unit that fits: `850 ns`, `1.25 ms`, `3.2 s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) = match self.0 {
            0..1_000 => return write!(f, "{} ns", self.0),
            1_000..1_000_000 => ("us", 1_000),
            1_000_000..1_000_000_000 => ("ms", 1_000_000),
            _ => ("s", 1_000_000_000),
        };
        let (whole, part) = (self.0 / scale, self.0 % scale);
        match whole {
            0..10 => write!(f, "{whole}.{:02} {unit}", part * 100 / scale),
            10..100 => write!(f, "{whole}.{} {unit}", part * 10 / scale),
            _ => write!(f, "{whole} {unit}"),
        }
    }
}

/// The clock port: monotonic time, readable from any context.
///
/// # Examples
///
/// ```
/// use core::cell::Cell;
/// use hal::time::{Clock, Instant, Span};
///
/// struct Counter(Cell<u64>);
/// impl Clock for Counter {
///     fn now(&self) -> Instant {
///         self.0.set(self.0.get() + 1_000);
///         Instant::from_ns(self.0.get())
///     }
///     fn tick(&self) -> Span {
///         Span::us(1)
///     }
/// }
/// let clock = Counter(Cell::new(0));
/// let start = clock.now();
/// assert_eq!(clock.now().since(start), Span::us(1));
/// ```
pub trait Clock {
    /// The time now. Never goes back on one core; may be called from interrupt handlers.
    fn now(&self) -> Instant;
    /// The smallest step that two readings can differ by, for slack and for tests.
    fn tick(&self) -> Span;
}

impl<C: Clock + ?Sized> Clock for &C {
    fn now(&self) -> Instant {
        (**self).now()
    }
    fn tick(&self) -> Span {
        (**self).tick()
    }
}

/// Converts ticks of a fixed frequency into nanoseconds by one multiplication and a shift.
///
/// Exact where the frequency divides into the 32-bit factor (64 MHz, 1 MHz), else within 1e-9 of the elapsed time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    mult: u32,
    shift: u8,
}

impl Scale {
    /// The conversion for a counter of `hz` ticks a second.
    ///
    /// # Panics
    ///
    /// When `hz` is 0; in a `const` that stops the build.
    #[allow(clippy::cast_possible_truncation, reason = "the loop ends with a factor that fits 32 bits")]
    pub const fn new(hz: u32) -> Self {
        assert!(hz > 0, "a clock of 0 Hz does not tick");
        // ns = ticks * mult >> shift, with the largest shift whose factor still fits 32 bits.
        let mut shift = 31u8;
        loop {
            let mult = (1_000_000_000u64 << shift) / hz as u64;
            if mult <= u32::MAX as u64 {
                return Self { mult: mult as u32, shift };
            }
            shift -= 1;
        }
    }

    /// Nanoseconds in `ticks`. No division and no 128-bit product.
    pub const fn ns(self, ticks: u64) -> u64 {
        let (high, low) = (ticks >> 32, ticks & 0xffff_ffff);
        let high = high.wrapping_mul(self.mult as u64) << (32 - self.shift as u32);
        high.wrapping_add((low * self.mult as u64) >> self.shift)
    }
}

/// Extends a hardware counter of `BITS` bits (at most 32) to 64 bits without 64-bit atomics.
///
/// [`ticks`](Self::ticks) has to see the counter at least once in each of its periods (the wrap interrupt does that),
/// and inside the caller's critical section when contexts share the clock: the type is `!Sync` to insist on it.
#[derive(Debug, Default)]
pub struct Extend<const BITS: u32> {
    last: Cell<u32>,
    wraps: Cell<u32>,
}

impl<const BITS: u32> Extend<BITS> {
    const MASK: u32 = {
        assert!(BITS >= 1 && BITS <= 32, "a counter has 1 to 32 bits");
        u32::MAX >> (32 - BITS)
    };

    /// A counter that has not been read yet.
    pub const fn new() -> Self {
        Self { last: Cell::new(0), wraps: Cell::new(0) }
    }

    /// The extended count for the hardware reading `raw`; bits above `BITS` are ignored.
    pub fn ticks(&self, raw: u32) -> u64 {
        let raw = raw & Self::MASK;
        if raw < self.last.get() {
            self.wraps.set(self.wraps.get().wrapping_add(1));
        }
        self.last.set(raw);
        (u64::from(self.wraps.get()) << BITS) | u64::from(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Instant::FAR.after(Span::secs(1)), Instant::FAR);
        assert_eq!(Instant::ZERO.since(Instant::FAR), Span::ZERO);
        assert_eq!(Span::secs(u64::MAX), Span::MAX);
    }

    #[test]
    fn scale_is_exact_where_it_says_so_and_close_elsewhere() {
        for hz in [1_000_000, 64_000_000, 32_768] {
            let scale = Scale::new(hz);
            let day = u64::from(hz) * 86_400;
            assert_eq!(scale.ns(day), 86_400_000_000_000, "{hz} Hz");
        }
        for hz in [12_500_000, 50_000_000, 16_777_216, 7] {
            let ns = Scale::new(hz).ns(u64::from(hz) * 1_000_000);
            let error = ns.abs_diff(1_000_000_000_000_000);
            assert!(error <= 1_000_000, "{hz} Hz: off by {error} ns in 1e15");
        }
    }

    #[test]
    fn extension_counts_each_wrap_once() {
        let wide = Extend::<32>::new();
        assert_eq!(wide.ticks(5), 5);
        assert_eq!(wide.ticks(4), (1 << 32) + 4);
        assert_eq!(wide.ticks(u32::MAX), (1 << 32) + u64::from(u32::MAX));
        assert_eq!(wide.ticks(0), 2 << 32);
    }

    #[test]
    fn spans_print_in_the_unit_that_fits() {
        let shown = [Span::ns(850), Span::us(1250), Span::ms(12), Span::secs(345)].map(|s| format!("{s}"));
        assert_eq!(shown, ["850 ns", "1.25 ms", "12.0 ms", "345 s"]);
    }
}
