//! Timers on descriptors.
#![allow(unsafe_code, reason = "raw system calls on a timer descriptor")]

use core::ptr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::time::timespec;
use super::{Errno, check, owned_fd};

/// `int timerfd_create(int clockid, int flags)` on `CLOCK_MONOTONIC`, closed on exec.
///
/// # Errors
///
/// EMFILE, ENFILE, ENOMEM.
pub(crate) fn timerfd_create(blocking: bool) -> Result<OwnedFd, Errno> {
    let flags = if blocking { libc::TFD_CLOEXEC } else { libc::TFD_CLOEXEC | libc::TFD_NONBLOCK };
    // SAFETY: takes integers only.
    let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
    // SAFETY: the kernel has just made this descriptor and nobody else knows it.
    unsafe { owned_fd(fd) }
}

/// `int timerfd_settime(int fd, int flags, const struct itimerspec *new_value, …)`: fires at the absolute time `first_ns`,
/// then every `period_ns` (0: never again). `first_ns` of 0 disarms; a time in the past fires at once.
///
/// # Errors
///
/// EINVAL when `fd` is no timer.
pub(crate) fn timerfd_settime(fd: BorrowedFd<'_>, first_ns: u64, period_ns: u64) -> Result<(), Errno> {
    let value = libc::itimerspec { it_interval: timespec(period_ns), it_value: timespec(first_ns) };
    // SAFETY: an open descriptor and a valid value, which is only read; the old value is not asked for.
    check(unsafe {
        libc::timerfd_settime(fd.as_raw_fd(), libc::TFD_TIMER_ABSTIME, &raw const value, ptr::null_mut())
    })
    .map(drop)
}
