//! Clocks and their state.
#![allow(unsafe_code, reason = "raw system calls that fill a structure")]

use core::mem::MaybeUninit;

use super::{Errno, check};

/// `int clock_gettime(clockid_t clk_id, struct timespec *tp)`, in nanoseconds since the clock's start.
///
/// Answers 0 for a clock that the kernel does not know and for times before the start.
pub(crate) fn clock_gettime(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid, writable timespec for the length of the call.
    let refused = unsafe { libc::clock_gettime(clock, &raw mut time) } != 0;
    if refused { 0 } else { nanoseconds(&time) }
}

/// `int clock_getres(clockid_t clk_id, struct timespec *res)`, in nanoseconds; 0 for an unknown clock.
pub(crate) fn clock_getres(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid, writable timespec for the length of the call.
    let refused = unsafe { libc::clock_getres(clock, &raw mut time) } != 0;
    if refused { 0 } else { nanoseconds(&time) }
}

/// `int adjtimex(struct timex *buf)` with `modes = 0`, which only reads: maximal error in microseconds and status bits.
///
/// # Errors
///
/// The errno of the call, for example under a seccomp filter.
pub(crate) fn adjtimex() -> Result<(i64, i32), Errno> {
    let mut state = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: zeroed memory is a valid timex (integers only) with `modes = 0`, writable for the length of the call.
    check(unsafe { libc::adjtimex(state.as_mut_ptr()) })?;
    // SAFETY: all fields are integers, zeroed above and then written by the kernel.
    let state = unsafe { state.assume_init() };
    #[allow(clippy::useless_conversion, reason = "32-bit targets have narrower fields")]
    Ok((i64::from(state.maxerror), state.status))
}

fn nanoseconds(time: &libc::timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// A length of `ns` nanoseconds as the kernel takes it.
pub(crate) fn timespec(ns: u64) -> libc::timespec {
    let seconds = libc::time_t::try_from(ns / 1_000_000_000).unwrap_or(libc::time_t::MAX);
    let rest = libc::c_long::try_from(ns % 1_000_000_000).unwrap_or(0);
    libc::timespec { tv_sec: seconds, tv_nsec: rest }
}
