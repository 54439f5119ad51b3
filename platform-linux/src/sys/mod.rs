//! The raw system calls, one function each, and their errors.
//!
//! Everything in this crate that talks to the kernel goes through here. A function of `sys` does what the manual page
//! says and nothing else: it takes and gives typed descriptors, turns the return value into a `Result`, and retries
//! nothing unless its name says so. What the calls are *for* is written where they are used.
//!
//! | file | calls |
//! | --- | --- |
//! | `mod.rs` | [`Errno`], [`check`], [`retry_on_intr`], [`owned_fd`] |
//! | `epoll.rs`, `eventfd.rs` | readiness, event counters |
//! | `sched.rs` | priorities and placement of threads, futexes |
//! | `signalfd.rs` | signal masks and descriptors |
//! | `socket.rs` | sockets, their options and names, batches of messages with control data |
//! | `time.rs`, `timerfd.rs` | clocks, timers |
#![allow(unsafe_code, reason = "system calls: descriptors, pointers and lengths are given to the kernel")]

pub(crate) mod epoll;
pub(crate) mod eventfd;
pub(crate) mod sched;
pub(crate) mod signalfd;
pub(crate) mod socket;
pub(crate) mod time;
pub(crate) mod timerfd;

use core::ffi::{c_int, c_long};
use core::fmt;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// A value of `errno(3)`: why the kernel refused.
///
/// ```
/// use platform_linux::sys::Errno;
///
/// let full = Errno::NOSPC;
/// assert_eq!(full.to_string(), "ENOSPC (No space left on device)");
/// assert_eq!(std::io::Error::from(full).kind(), std::io::ErrorKind::StorageFull);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

/// Writes the constants and the table of names from one list, so that they cannot differ.
macro_rules! errnos {
    ($($name:ident = $libc:ident),* $(,)?) => {
        #[allow(missing_docs, reason = "errno(3) describes each; `Display` gives the text")]
        impl Errno {
            $(pub const $name: Self = Self(libc::$libc);)*
        }

        impl Errno {
            /// The symbol of `errno(3)`, when it is one that this crate has met; `None` for others.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $(libc::$libc => Some(stringify!($libc)),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    PERM = EPERM, NOENT = ENOENT, INTR = EINTR, IO = EIO, NXIO = ENXIO, BADF = EBADF, CHILD = ECHILD, AGAIN = EAGAIN,
    NOMEM = ENOMEM, ACCES = EACCES, FAULT = EFAULT, BUSY = EBUSY, EXIST = EEXIST, NODEV = ENODEV, NOTDIR = ENOTDIR,
    ISDIR = EISDIR, INVAL = EINVAL, NFILE = ENFILE, MFILE = EMFILE, FBIG = EFBIG, NOSPC = ENOSPC, SPIPE = ESPIPE,
    ROFS = EROFS, MLINK = EMLINK, PIPE = EPIPE, RANGE = ERANGE, DEADLK = EDEADLK, NAMETOOLONG = ENAMETOOLONG,
    NOLCK = ENOLCK, NOSYS = ENOSYS, NOTEMPTY = ENOTEMPTY, LOOP = ELOOP, TIME = ETIME, NOLINK = ENOLINK,
    PROTO = EPROTO, OVERFLOW = EOVERFLOW, NOTSOCK = ENOTSOCK, DESTADDRREQ = EDESTADDRREQ, MSGSIZE = EMSGSIZE,
    NOPROTOOPT = ENOPROTOOPT, PROTONOSUPPORT = EPROTONOSUPPORT, OPNOTSUPP = EOPNOTSUPP,
    AFNOSUPPORT = EAFNOSUPPORT, ADDRINUSE = EADDRINUSE, ADDRNOTAVAIL = EADDRNOTAVAIL, NETDOWN = ENETDOWN,
    NETUNREACH = ENETUNREACH, CONNABORTED = ECONNABORTED, CONNRESET = ECONNRESET, NOBUFS = ENOBUFS,
    NOTCONN = ENOTCONN, TIMEDOUT = ETIMEDOUT, CONNREFUSED = ECONNREFUSED, HOSTUNREACH = EHOSTUNREACH,
    ALREADY = EALREADY, INPROGRESS = EINPROGRESS, STALE = ESTALE, DQUOT = EDQUOT, CANCELED = ECANCELED, BADR = EBADR,
}

impl Errno {
    /// The errno with this number.
    pub const fn from_raw(raw: i32) -> Self {
        Self(raw)
    }

    /// What the last failed call of this thread left in `errno(3)`.
    #[doc(alias = "errno")]
    pub fn last() -> Self {
        Self(io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }

    /// The number.
    pub const fn raw(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The standard library gives "text (os error N)": keep the text.
        let text = io::Error::from_raw_os_error(self.0).to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        match self.name() {
            Some(name) => write!(f, "{name} ({text})"),
            None => write!(f, "errno {} ({text})", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Errno({})", self.0),
        }
    }
}

impl core::error::Error for Errno {}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

/// The result of a call that answers -1 when it fails.
///
/// # Errors
///
/// The thread's `errno(3)` when `returned` is -1.
///
/// # Examples
///
/// ```
/// use platform_linux::sys;
///
/// assert_eq!(sys::check(3), Ok(3));
/// ```
pub fn check(returned: c_int) -> Result<c_int, Errno> {
    if returned == -1 { Err(Errno::last()) } else { Ok(returned) }
}

/// [`check`] for calls that answer a `long` or `ssize_t`.
///
/// # Errors
///
/// The thread's `errno(3)` when `returned` is negative.
pub fn check_long(returned: c_long) -> Result<usize, Errno> {
    usize::try_from(returned).map_err(|_| Errno::last())
}

/// [`check`] for calls that answer an `ssize_t`.
///
/// # Errors
///
/// The thread's `errno(3)` when `returned` is negative.
pub(crate) fn check_size(returned: isize) -> Result<usize, Errno> {
    usize::try_from(returned).map_err(|_| Errno::last())
}

/// Calls again for as long as a signal interrupts.
///
/// Only for calls that may be made again: not for `close(2)`, whose descriptor is gone, and not where time was spent
/// that a timeout has to count.
///
/// # Errors
///
/// What `call` answered, except [`Errno::INTR`].
///
/// # Examples
///
/// ```
/// use platform_linux::sys::{Errno, retry_on_intr};
///
/// let mut answers = [Err(Errno::INTR), Ok(7)].into_iter();
/// assert_eq!(retry_on_intr(|| answers.next().unwrap()), Ok(7));
/// ```
#[doc(alias = "TEMP_FAILURE_RETRY")]
pub fn retry_on_intr<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            answer => return answer,
        }
    }
}

/// The descriptor that a call has just opened.
///
/// # Safety
///
/// `returned` is the return value of a call that answers a new descriptor which nobody else owns, or -1.
///
/// # Errors
///
/// The thread's `errno(3)` when `returned` is -1.
pub unsafe fn owned_fd(returned: c_int) -> Result<OwnedFd, Errno> {
    let fd = check(returned)?;
    // SAFETY: the caller promises that the descriptor is open and ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_names_itself_and_survives_the_way_through_io_error() {
        assert_eq!(Errno::OPNOTSUPP.name(), Some("EOPNOTSUPP"));
        assert_eq!(format!("{:?}", Errno::IO), "EIO");
        assert_eq!(Errno::from_raw(200).to_string(), "errno 200 (Unknown error 200)");
        assert_eq!(io::Error::from(Errno::NOSPC).raw_os_error(), Some(libc::ENOSPC));
    }

    #[test]
    fn only_an_interruption_is_retried() {
        let mut calls = 0;
        let answer = retry_on_intr(|| {
            calls += 1;
            if calls < 3 { Err::<(), _>(Errno::INTR) } else { Err(Errno::AGAIN) }
        });
        assert_eq!((answer, calls), (Err(Errno::AGAIN), 3));
    }
}
