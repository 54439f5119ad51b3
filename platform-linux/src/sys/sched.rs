//! Scheduling of threads, and the futex that they sleep on.
#![allow(unsafe_code, reason = "raw system calls on threads and futex words")]

use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::AtomicU32;

use super::{Errno, check, check_long};

/// `pid_t gettid(void)`.
pub(crate) fn gettid() -> u32 {
    // SAFETY: takes and changes nothing.
    unsafe { libc::gettid() }.cast_unsigned()
}

/// `int sched_setscheduler(pid_t pid, int policy, const struct sched_param *param)` with `SCHED_FIFO`, and
/// `SCHED_RESET_ON_FORK`, so that what the thread starts is an ordinary thread again.
///
/// # Errors
///
/// EPERM without CAP_SYS_NICE and beyond `RLIMIT_RTPRIO`, EINVAL for a priority outside 1 to 99.
#[doc(alias = "sched_setscheduler")]
pub(crate) fn set_fifo(tid: u32, priority: u8) -> Result<(), Errno> {
    let param = libc::sched_param { sched_priority: i32::from(priority) };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: `param` is valid and only read; the thread is named by number and checked by the kernel.
    check(unsafe { libc::sched_setscheduler(tid.cast_signed(), policy, &raw const param) }).map(drop)
}

/// `int sched_setaffinity(pid_t pid, size_t cpusetsize, const cpu_set_t *mask)`: one processor only.
///
/// # Errors
///
/// EINVAL for a processor that is not there or not allowed.
#[doc(alias = "sched_setaffinity")]
pub(crate) fn pin(tid: u32, cpu: usize) -> Result<(), Errno> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    if cpu >= 8 * size_of::<libc::cpu_set_t>() {
        return Err(Errno::INVAL);
    }
    // SAFETY: a set is made of integers, for which zero is a value.
    let set = unsafe { set.assume_init_mut() };
    // SAFETY: the number is below the size of the set, checked above.
    unsafe { libc::CPU_SET(cpu, set) };
    // SAFETY: a valid set of the size given, which is only read.
    check(unsafe { libc::sched_setaffinity(tid.cast_signed(), size_of_val(set), ptr::from_ref(set)) })
        .map(drop)
}

/// `prctl(PR_SET_TIMERSLACK, ns)`: how late the calling thread's sleeps may be merged with others (default 50 us).
/// Real-time threads have none.
#[doc(alias = "prctl")]
pub(crate) fn set_timer_slack(ns: core::ffi::c_ulong) {
    // SAFETY: takes integers only; cannot fail for this option.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, ns) };
}

/// `int mlockall(int flags)`: all pages of the process, present and future ones, stay in memory.
///
/// # Errors
///
/// EPERM or ENOMEM beyond `RLIMIT_MEMLOCK`.
pub(crate) fn mlockall() -> Result<(), Errno> {
    // SAFETY: takes integers only.
    check(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) }).map(drop)
}

/// `futex(FUTEX_WAIT_PRIVATE)`: sleeps while the word has the value `seen`, until woken. May return early.
///
/// # Errors
///
/// EAGAIN when the word has another value, EINTR.
pub(crate) fn futex_wait(word: &AtomicU32, seen: u32) -> Result<(), Errno> {
    futex(word, libc::FUTEX_WAIT, seen)
}

/// `futex(FUTEX_WAKE_PRIVATE)`: wakes one sleeper.
pub(crate) fn futex_wake(word: &AtomicU32) {
    // Only a bad address fails, and this one is borrowed.
    let _ = futex(word, libc::FUTEX_WAKE, 1);
}

/// `futex(FUTEX_LOCK_PI_PRIVATE)`: sleeps until the word is ours, lending our priority to the thread that it names.
///
/// # Errors
///
/// EAGAIN when the owner is just ending, ENOSYS where the kernel lacks it, EDEADLK when the word names us.
pub(crate) fn futex_lock_pi(word: &AtomicU32) -> Result<(), Errno> {
    futex(word, libc::FUTEX_LOCK_PI, 0)
}

/// `futex(FUTEX_UNLOCK_PI_PRIVATE)`: hands the word to the most urgent waiter.
///
/// # Errors
///
/// EPERM when the word does not name us, ENOSYS.
pub(crate) fn futex_unlock_pi(word: &AtomicU32) -> Result<(), Errno> {
    futex(word, libc::FUTEX_UNLOCK_PI, 0)
}

fn futex(word: &AtomicU32, operation: i32, value: u32) -> Result<(), Errno> {
    // SAFETY: the word is borrowed across the call and shared through atomics only; the timeout is null.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            operation | libc::FUTEX_PRIVATE_FLAG,
            value,
            ptr::null::<libc::timespec>(),
        )
    };
    check_long(answer).map(drop)
}
