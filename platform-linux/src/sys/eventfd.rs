//! Event counters.
#![allow(unsafe_code, reason = "raw system calls on a descriptor")]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{Errno, check_size, owned_fd};

/// `int eventfd(unsigned int initval, int flags)`: a non-blocking counter at 0, closed on exec.
///
/// # Errors
///
/// The errno of the call: EMFILE, ENFILE, ENOMEM.
pub(crate) fn eventfd() -> Result<OwnedFd, Errno> {
    // SAFETY: takes integers only.
    let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    // SAFETY: the kernel has just made this descriptor and nobody else knows it.
    unsafe { owned_fd(fd) }
}

/// Adds one to the counter. Async-signal-safe; leaves `errno` changed only on failure.
///
/// # Errors
///
/// EAGAIN when the counter is at its maximum, so that the other side is awake anyway.
pub(crate) fn eventfd_write(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let one = 1_u64;
    // SAFETY: `one` is readable for 8 bytes during the call.
    let written = unsafe { libc::write(fd.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    check_size(written).map(drop)
}

/// Takes a 64-bit count from an eventfd or timerfd and resets it; 0 when there is none.
///
/// # Errors
///
/// The errno of the call, EAGAIN excepted: ECANCELED for a timer whose clock was stepped.
#[doc(alias = "eventfd_read")]
pub(crate) fn read_count(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut count = 0_u64;
    // SAFETY: `count` is writable for 8 bytes during the call.
    let got = unsafe { libc::read(fd.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
    match check_size(got) {
        Ok(_) => Ok(count),
        Err(Errno::AGAIN) => Ok(0),
        Err(errno) => Err(errno),
    }
}
