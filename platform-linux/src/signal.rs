//! Signals without handlers: blocked, and read from a descriptor like any other input.
//!
//! A handler runs between any two instructions of any thread and may call almost nothing (signal-safety(7)). A blocked
//! signal waits in the kernel instead, and [`SignalFd`] reads it where the program is ready for it, watched by the same
//! [`Epoll`](crate::readiness::Epoll) as its sockets. What a signal that is read this way loses:
//!
//! - *Standard* signals coalesce in the kernel: ten `kill -USR1` in a row may be one record. Treat one as "at least once".
//! - *Real-time* signals queue, in order, with their value, up to the sender's `RLIMIT_SIGPENDING`.
//!
//! A blocked mask leaks, which is why several runtimes turned signalfd down; each leak has its stopper here:
//!
//! | to | effect | stopper |
//! | --- | --- | --- |
//! | threads started *before* | they take the signal and its default action | [`SignalFd::install`] refuses and names them |
//! | child processes | they ignore SIGTERM | [`RestoreSignals::restore_signals`] on their `Command` |
//! | the rest of the program, after drop | it ignores Ctrl-C | dropping restores the thread's mask |
//! | a program stuck in its shutdown | only SIGKILL helps | [`SignalFd::release`] after the first INT or TERM |
//! | us, from the process that started us | we ignore what it blocked | [`clear_inherited_mask`] |
//!
//! Descriptors 0 to 2 that the parent left closed are no trap: the standard library opens `/dev/null` on them before
//! `main`, so that no socket can become the standard output.

use alloc::boxed::Box;
use core::fmt;
use core::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::Errno;
use crate::sys::signalfd::{
    SigSet, no_siginfo, pthread_sigmask, read_siginfo, sigaddset, sigemptyset, sigismember, signalfd,
    signalfd_change,
};

mod child;
mod set;
mod threads;

pub use child::RestoreSignals;
pub use set::{BadSignal, Signal, SignalSet};
pub use threads::{Unblocked, threads_not_blocking};

/// Records fetched by one call.
const BATCH: usize = 32;

/// A signal that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignalInfo {
    /// Its number.
    pub signal: i32,
    /// The process that sent it; 0 from the kernel.
    pub pid: i32,
    /// The user that sent it.
    pub uid: u32,
    /// How it was sent: `SI_USER`, `SI_QUEUE`, `SI_TKILL`, `CLD_EXITED` and so on (sigaction(2)).
    pub code: i32,
    /// The value that came with it, for `SI_QUEUE`.
    pub value: i64,
}

/// A set of signals that arrive as data.
///
/// Belongs to the thread that installed it, whose mask it restores when dropped; it is therefore not `Send`. Make it before
/// other threads exist: they inherit the mask.
///
/// # Examples
///
/// ```no_run
/// use hal::readiness::{Interest, Key, Park, Readiness};
/// use platform_linux::readiness::Epoll;
/// use platform_linux::signal::{Signal, SignalFd, SignalSet};
/// use std::os::fd::AsFd;
///
/// let stop = SignalSet::from([Signal::INT, Signal::TERM]);
/// let mut signals = SignalFd::install(stop.with(Signal::USR1))?;
/// let mut park = Epoll::new().unwrap();
/// park.watch(signals.as_fd(), Key(0), Interest::READ).unwrap();
/// 'run: loop {
///     park.park(None, &mut || true, &mut |_, _| {});
///     while let Some(info) = signals.read() {
///         match Signal::new(info.signal) {
///             Ok(Signal::USR1) => println!("statistics …"),
///             _ => break 'run,
///         }
///     }
/// }
/// signals.release(stop); // a second Ctrl-C ends the program, also when the following gets stuck
/// println!("draining …");
/// # Ok::<(), platform_linux::signal::InstallError>(())
/// ```
pub struct SignalFd {
    fd: OwnedFd,
    set: SignalSet,
    /// The thread's mask before us.
    original: SigSet,
    batch: Box<[libc::signalfd_siginfo; BATCH]>,
    /// The records of `batch` that were fetched and not yet read.
    fetched: core::ops::Range<usize>,
    /// A mask belongs to a thread.
    not_send: PhantomData<*mut ()>,
}

impl SignalFd {
    /// Blocks `set` on this thread and opens a descriptor for it.
    ///
    /// # Errors
    ///
    /// [`InstallError::OtherThreads`] when threads exist that do not block the whole set: such a thread would take a signal
    /// and its default action, which mostly ends the process. [`InstallError::Os`] without a descriptor left.
    pub fn install(set: SignalSet) -> Result<Self, InstallError> {
        let signals = Self::install_beside_threads(set)?;
        // Nothing is blocked for good when this returns early: `signals` restores the mask.
        match threads_not_blocking(set) {
            Ok(threads) if threads.is_empty() => Ok(signals),
            Ok(threads) => Err(InstallError::OtherThreads(threads)),
            // Without /proc nobody can tell; a program that installs first thing in `main` is right anyway.
            Err(_) => Ok(signals),
        }
    }

    /// The same without a look at other threads: for signals that are sent to this very thread, and for tests.
    ///
    /// # Errors
    ///
    /// [`InstallError::Os`] without a descriptor left.
    pub fn install_beside_threads(set: SignalSet) -> Result<Self, InstallError> {
        let mask = set.to_mask();
        let fd = signalfd(&mask).map_err(InstallError::Os)?;
        let original = pthread_sigmask(libc::SIG_BLOCK, &mask).map_err(InstallError::Os)?;
        Ok(Self {
            fd,
            set,
            original,
            batch: Box::new([no_siginfo(); BATCH]),
            fetched: 0..0,
            not_send: PhantomData,
        })
    }

    /// The next signal, in the order in which the kernel gives them (standard signals first, real-time signals in order of
    /// number and arrival); `None` when there is none. Never waits; one call for up to 32 signals.
    pub fn read(&mut self) -> Option<SignalInfo> {
        if self.fetched.is_empty() {
            // EAGAIN: nothing pending. Other errors need a descriptor that is none of ours.
            self.fetched = 0..read_siginfo(self.fd.as_fd(), &mut self.batch[..]).unwrap_or(0);
        }
        let got = self.batch.get(self.fetched.next()?)?;
        Some(SignalInfo {
            signal: got.ssi_signo.cast_signed(),
            pid: got.ssi_pid.cast_signed(),
            uid: got.ssi_uid,
            code: got.ssi_code,
            value: got.ssi_ptr.cast_signed(),
        })
    }

    /// Gives the signals of `set` their default action back, here and now: they are no longer read, and this thread no
    /// longer blocks them. Call it with INT and TERM when the shutdown begins: the next Ctrl-C then ends the program without
    /// its help. A signal that is pending already takes effect before this returns.
    pub fn release(&mut self, set: SignalSet) {
        self.set = self.set.without(set);
        // The descriptor is ours and the sets are valid, so neither call can fail.
        let _ = signalfd_change(self.fd.as_fd(), &self.set.to_mask());
        let _ = pthread_sigmask(libc::SIG_UNBLOCK, &set.to_mask());
    }

    /// What is still read.
    pub fn set(&self) -> SignalSet {
        self.set
    }

    /// The mask that the thread had before, for children.
    pub(crate) fn original(&self) -> SigSet {
        self.original
    }
}

impl fmt::Debug for SignalFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalFd")
            .field("fd", &self.fd)
            .field("set", &self.set)
            .field("original", &SignalSet::of_mask(&self.original))
            .finish_non_exhaustive()
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for SignalFd {
    /// Throws away what is pending, then restores the thread's mask: a signal that came while the program was ending by
    /// itself shall not change its exit status.
    fn drop(&mut self) {
        self.fetched = 0..0;
        while self.read().is_some() {}
        let _ = pthread_sigmask(libc::SIG_SETMASK, &self.original);
    }
}

/// Unblocks everything on this thread and answers what was blocked.
///
/// First thing in `main`: a mask survives `exec`, and a program that was started with SIGTERM blocked cannot be stopped.
///
/// ```
/// let inherited = platform_linux::signal::clear_inherited_mask();
/// if !inherited.is_empty() {
///     eprintln!("started with {inherited:?} blocked");
/// }
/// ```
pub fn clear_inherited_mask() -> SignalSet {
    pthread_sigmask(libc::SIG_SETMASK, &sigemptyset())
        .map_or(SignalSet::EMPTY, |mask| SignalSet::of_mask(&mask))
}

/// Why signals could not be made data.
#[derive(Debug)]
#[non_exhaustive]
pub enum InstallError {
    /// These threads would still take the signals. Install before starting threads.
    OtherThreads(Box<[Unblocked]>),
    /// The kernel gave no descriptor.
    Os(Errno),
}

impl InstallError {
    /// The standard library's kind.
    pub fn kind(&self) -> std::io::ErrorKind {
        match self {
            Self::OtherThreads(_) => std::io::ErrorKind::ResourceBusy,
            Self::Os(errno) => std::io::Error::from(*errno).kind(),
        }
    }
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherThreads(threads) => {
                f.write_str("install signals before starting threads; these would take them:")?;
                threads.iter().try_for_each(|thread| write!(f, " {} ({})", thread.tid, thread.name))
            }
            Self::Os(errno) => write!(f, "no descriptor for signals: {errno}"),
        }
    }
}

impl core::error::Error for InstallError {}

impl SignalSet {
    fn to_mask(self) -> SigSet {
        let mut mask = sigemptyset();
        for signal in self.iter() {
            sigaddset(&mut mask, signal.number());
        }
        mask
    }

    /// What of `mask` a set can hold.
    fn of_mask(mask: &SigSet) -> Self {
        (1..=64)
            .filter(|number| sigismember(mask, *number))
            .filter_map(|number| Signal::new(number).ok())
            .fold(Self::EMPTY, Self::with)
    }
}
