//! Readiness of descriptors.
#![allow(unsafe_code, reason = "raw system calls on an epoll descriptor")]

use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::time::timespec;
use super::{Errno, check, owned_fd};

/// `int epoll_create1(int flags)`, closed on exec.
///
/// # Errors
///
/// The errno of the call: EMFILE, ENFILE, ENOMEM.
#[doc(alias = "epoll_create1")]
pub(crate) fn epoll_create() -> Result<OwnedFd, Errno> {
    // SAFETY: takes integers only.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    // SAFETY: the kernel has just made this descriptor and nobody else knows it.
    unsafe { owned_fd(fd) }
}

/// `int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)`.
///
/// # Errors
///
/// The errno of the call: EEXIST, ENOENT, EPERM (a regular file), ENOSPC, ENOMEM.
pub(crate) fn epoll_ctl(
    epoll: BorrowedFd<'_>,
    op: i32,
    fd: BorrowedFd<'_>,
    events: u32,
    data: u64,
) -> Result<(), Errno> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: both descriptors are open, since they are borrowed; `event` is valid during the call and not kept.
    let answer = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), op, fd.as_raw_fd(), &raw mut event) };
    check(answer).map(drop)
}

/// Set when the kernel does not know `epoll_pwait2` (before Linux 5.11, and some containers).
static MILLISECONDS_ONLY: AtomicBool = AtomicBool::new(false);

/// `int epoll_pwait2(int epfd, struct epoll_event *events, int maxevents, const struct timespec *timeout, …)`:
/// sleeps at most `timeout_ns` and returns how many events were written to the front of `events`.
///
/// Falls back to `epoll_wait`, whose milliseconds are rounded up so that a timer does not spin.
///
/// # Errors
///
/// The errno of the call: EINTR only, for descriptors that are open.
#[doc(alias = "epoll_wait")]
pub(crate) fn epoll_pwait2(
    epoll: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
    timeout_ns: Option<u64>,
) -> Result<usize, Errno> {
    let room = i32::try_from(events.len()).unwrap_or(i32::MAX);
    // Relaxed: a hint that is learnt again at the cost of one refused call.
    if !MILLISECONDS_ONLY.load(Ordering::Relaxed) {
        let limit = timeout_ns.map(timespec);
        let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: `events` is writable for `room` entries, `limit` is null or a valid timespec, and the signal mask is
        // null, for which its size is not looked at.
        let found = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                epoll.as_raw_fd(),
                events.as_mut_ptr(),
                room,
                limit,
                ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        if found >= 0 {
            return Ok(usize::try_from(found).unwrap_or(0).min(events.len()));
        }
        match Errno::last() {
            // EPERM: what some seccomp profiles answer to calls that are newer than they are.
            Errno::NOSYS | Errno::PERM => MILLISECONDS_ONLY.store(true, Ordering::Relaxed),
            errno => return Err(errno),
        }
    }
    let limit = timeout_ns.map_or(-1, |ns| i32::try_from(ns.div_ceil(1_000_000)).unwrap_or(i32::MAX));
    // SAFETY: `events` is writable for `room` entries.
    let found = unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), room, limit) };
    usize::try_from(found).map(|n| n.min(events.len())).map_err(|_| Errno::last())
}
