//! Time on Linux: the monotonic clock, and what the wall clock says with how much it may be wrong.
//!
//! Everything that is measured, timed or ordered uses [`MonotonicClock`]. The wall clock only gives samples a date, and a
//! date without an error bound is a guess: [`wall_clock`] asks the kernel for the bound that its time daemon keeps, and
//! reads both clocks together, so that the pair can be stored and the offset computed later.

use hal::time::{Clock, Instant, Span};

use crate::sys::time::{adjtimex, clock_getres, clock_gettime};

/// `CLOCK_MONOTONIC`: nanoseconds since boot, without the time that the machine was suspended; never stepped.
///
/// The same time in all processes of a machine, since it starts at boot (time namespaces excepted).
///
/// # Examples
///
/// ```
/// use hal::time::Clock;
/// use platform_linux::clock::MonotonicClock;
///
/// let start = MonotonicClock.now();
/// assert!(MonotonicClock.now() >= start);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct MonotonicClock;

impl Clock for MonotonicClock {
    fn now(&self) -> Instant {
        Instant::from_ns(clock_gettime(libc::CLOCK_MONOTONIC))
    }
    fn tick(&self) -> Span {
        Span::ns(clock_getres(libc::CLOCK_MONOTONIC).max(1))
    }
}

/// One reading of the wall clock, taken together with the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallClock {
    /// Monotonic time of the reading, in the middle of the two readings around it.
    pub at: Instant,
    /// `CLOCK_REALTIME`: nanoseconds since 1970-01-01 UTC, leap seconds not counted.
    pub realtime_ns: u64,
    /// How far the wall clock may be off, by the estimate of the kernel's time daemon and the time that the reading took.
    /// `None`: nobody keeps the clock, or the kernel does not tell; it may be off by anything.
    pub error: Option<Span>,
}

/// Reads the wall clock.
///
/// The best of three readings is used, so that one that was interrupted does not count. Costs four to nine clock readings
/// and one system call.
///
/// Source: adjtimex(2): `maxerror` is in microseconds, `STA_UNSYNC` says that the clock is not kept.
///
/// # Examples
///
/// ```
/// let wall = platform_linux::clock::wall_clock();
/// assert!(wall.realtime_ns > 1_600_000_000_000_000_000); // since September 2020
/// match wall.error {
///     Some(error) => println!("right within {error}"),
///     None => println!("nobody keeps this clock"),
/// }
/// ```
pub fn wall_clock() -> WallClock {
    let mut best = read_pair();
    for _ in 0..2 {
        let next = read_pair();
        if next.2 < best.2 {
            best = next;
        }
    }
    let (before, realtime_ns, width) = best;
    let half = Span::ns(width.as_ns() / 2);
    let error = match adjtimex() {
        Ok((max_error_us, status)) if status & libc::STA_UNSYNC == 0 => {
            u64::try_from(max_error_us).ok().map(|us| Span::us(us).plus(half))
        }
        _ => None,
    };
    WallClock { at: before.after(half), realtime_ns, error }
}

/// Monotonic time before, wall time, and how long both took.
fn read_pair() -> (Instant, u64, Span) {
    let before = MonotonicClock.now();
    let realtime_ns = clock_gettime(libc::CLOCK_REALTIME);
    (before, realtime_ns, MonotonicClock.now().since(before))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn wall_clock_agrees_with_the_standard_library() {
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let (start, wall) = (MonotonicClock.now(), wall_clock());
        let end = MonotonicClock.now();
        let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let read = u128::from(wall.realtime_ns);
        assert!(before <= read && read <= after, "{before} <= {read} <= {after}");
        assert!(start <= wall.at && wall.at <= end);
    }

    #[test]
    fn monotonic_clock_is_fine_enough_for_interrupt_latencies() {
        assert!(MonotonicClock.tick() <= Span::us(1), "{}", MonotonicClock.tick());
    }
}
