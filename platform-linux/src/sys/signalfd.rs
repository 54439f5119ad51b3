//! Signal masks and signal descriptors.
#![allow(unsafe_code, reason = "raw system calls on signal sets")]

use core::mem::MaybeUninit;
use core::ptr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{Errno, check, check_size, owned_fd};

/// A set of signals, as the C library keeps it.
pub(crate) type SigSet = libc::sigset_t;

/// `int sigemptyset(sigset_t *set)`.
pub(crate) fn sigemptyset() -> SigSet {
    let mut set = MaybeUninit::<SigSet>::zeroed();
    // SAFETY: writable for a whole set. Cannot fail.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set is made of integers, zeroed above and initialised by the call.
    unsafe { set.assume_init() }
}

/// `int sigaddset(sigset_t *set, int signum)`: false for a number that the C library does not give away.
pub(crate) fn sigaddset(set: &mut SigSet, signal: i32) -> bool {
    // SAFETY: an initialised set; the number is checked by the call.
    (unsafe { libc::sigaddset(ptr::from_mut(set), signal) }) == 0
}

/// `int sigismember(const sigset_t *set, int signum)`.
pub(crate) fn sigismember(set: &SigSet, signal: i32) -> bool {
    // SAFETY: an initialised set; the number is checked by the call.
    (unsafe { libc::sigismember(ptr::from_ref(set), signal) }) == 1
}

/// `int pthread_sigmask(int how, const sigset_t *set, sigset_t *oldset)`: changes the calling thread's mask and answers
/// the one before. Async-signal-safe.
///
/// # Errors
///
/// EINVAL for an unknown `how`.
pub(crate) fn pthread_sigmask(how: i32, set: &SigSet) -> Result<SigSet, Errno> {
    let mut before = sigemptyset();
    // SAFETY: both sets are initialised and live across the call.
    let answer = unsafe { libc::pthread_sigmask(how, ptr::from_ref(set), &raw mut before) };
    if answer == 0 { Ok(before) } else { Err(Errno::from_raw(answer)) }
}

/// `int signalfd(int fd, const sigset_t *mask, int flags)`: a new descriptor, non-blocking and closed on exec.
///
/// # Errors
///
/// EMFILE, ENFILE, ENOMEM.
pub(crate) fn signalfd(mask: &SigSet) -> Result<OwnedFd, Errno> {
    // SAFETY: an initialised set, which is only read.
    let fd = unsafe { libc::signalfd(-1, ptr::from_ref(mask), libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
    // SAFETY: the kernel has just made this descriptor and nobody else knows it.
    unsafe { owned_fd(fd) }
}

/// The same call for a descriptor that exists: it reads the signals of `mask` from now on.
///
/// # Errors
///
/// EINVAL when `fd` is no signal descriptor.
#[doc(alias = "signalfd")]
pub(crate) fn signalfd_change(fd: BorrowedFd<'_>, mask: &SigSet) -> Result<(), Errno> {
    // SAFETY: an open descriptor and an initialised set, which is only read.
    check(unsafe { libc::signalfd(fd.as_raw_fd(), ptr::from_ref(mask), 0) }).map(drop)
}

/// `read(2)` of a signal descriptor: how many records were written to the front of `into`.
///
/// # Errors
///
/// EAGAIN when no signal is pending.
#[doc(alias = "read")]
pub(crate) fn read_siginfo(fd: BorrowedFd<'_>, into: &mut [libc::signalfd_siginfo]) -> Result<usize, Errno> {
    // SAFETY: writable for its size; the record is made of integers, so whatever the kernel writes is a value.
    let got = unsafe { libc::read(fd.as_raw_fd(), into.as_mut_ptr().cast(), size_of_val(into)) };
    Ok(check_size(got)? / size_of::<libc::signalfd_siginfo>())
}

/// A record with all fields 0.
pub(crate) fn no_siginfo() -> libc::signalfd_siginfo {
    // SAFETY: the record is made of integers, for which all bits zero is a value.
    unsafe { core::mem::zeroed() }
}

/// The range of real-time signals that the C library leaves to programs (signal(7)).
pub(crate) fn realtime_range() -> (i32, i32) {
    (libc::SIGRTMIN(), libc::SIGRTMAX())
}
