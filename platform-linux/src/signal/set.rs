//! Signals that may be blocked, and sets of them.

use core::fmt;

use crate::sys::signalfd::realtime_range;

/// A signal that may be blocked and read as data.
///
/// Never KILL or STOP, which nobody can block; never one that the processor raises for a fault (a blocked SIGSEGV ends the
/// process without its handler); never one that the C library uses between its own threads.
///
/// ```
/// use platform_linux::signal::{BadSignal, Signal};
///
/// assert_eq!(Signal::new(15), Ok(Signal::TERM));
/// assert_eq!(Signal::new(9), Err(BadSignal::Uncatchable(9)));
/// assert_eq!(Signal::new(11), Err(BadSignal::Fault(11)));
/// assert!(Signal::realtime(0).is_ok_and(|first| first.number() >= 34));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(u8);

/// Writes constants and names from one list.
macro_rules! signals {
    ($($name:ident = $libc:ident),* $(,)?) => {
        #[allow(missing_docs, reason = "signal(7) describes each")]
        #[allow(clippy::cast_possible_truncation, reason = "signal numbers are at most 64")]
        #[allow(clippy::cast_sign_loss, reason = "signal numbers are positive")]
        impl Signal {
            $(pub const $name: Self = Self(libc::$libc as u8);)*
        }

        impl Signal {
            /// The name of signal(7) with its SIG, `None` for real-time signals.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($libc)),)*
                    _ => None,
                }
            }
        }
    };
}

signals! {
    HUP = SIGHUP, INT = SIGINT, QUIT = SIGQUIT, USR1 = SIGUSR1, USR2 = SIGUSR2, PIPE = SIGPIPE, ALRM = SIGALRM,
    TERM = SIGTERM, CHLD = SIGCHLD, CONT = SIGCONT, TSTP = SIGTSTP, TTIN = SIGTTIN, TTOU = SIGTTOU, URG = SIGURG,
    XCPU = SIGXCPU, XFSZ = SIGXFSZ, VTALRM = SIGVTALRM, PROF = SIGPROF, WINCH = SIGWINCH, IO = SIGIO, PWR = SIGPWR,
}

impl Signal {
    /// The signal with this number.
    ///
    /// # Errors
    ///
    /// [`BadSignal`] says which kind of signal it is that cannot be data.
    pub fn new(number: i32) -> Result<Self, BadSignal> {
        let (first, last) = realtime_range();
        match number {
            libc::SIGKILL | libc::SIGSTOP => Err(BadSignal::Uncatchable(number)),
            libc::SIGSEGV
            | libc::SIGBUS
            | libc::SIGFPE
            | libc::SIGILL
            | libc::SIGTRAP
            | libc::SIGSYS
            | libc::SIGABRT => Err(BadSignal::Fault(number)),
            32.. if number < first => Err(BadSignal::Internal(number)),
            _ if number > last => Err(BadSignal::NoSuchSignal(number)),
            _ => u8::try_from(number)
                .ok()
                .filter(|number| *number > 0)
                .map(Self)
                .ok_or(BadSignal::NoSuchSignal(number)),
        }
    }

    /// The `n`th real-time signal that the C library leaves to programs, counted from 0. There are 29 or 30 at least.
    ///
    /// # Errors
    ///
    /// [`BadSignal::NoSuchSignal`] when there are fewer.
    pub fn realtime(n: u8) -> Result<Self, BadSignal> {
        Self::new(realtime_range().0 + i32::from(n))
    }

    /// Its number on this architecture.
    pub const fn number(self) -> i32 {
        self.0 as i32
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "SIGRTMIN+{}", self.number() - realtime_range().0),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why a signal cannot be read as data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BadSignal {
    /// There is no such number.
    NoSuchSignal(i32),
    /// KILL and STOP reach their goal whatever a process does.
    Uncatchable(i32),
    /// The processor or abort(3) raises it at the faulting instruction; blocked, it ends the process at once, and a handler
    /// that would have said where does not run.
    Fault(i32),
    /// The C library sends it between its threads (cancellation, setuid).
    Internal(i32),
}

impl fmt::Display for BadSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchSignal(number) => write!(f, "there is no signal {number}"),
            Self::Uncatchable(number) => write!(f, "signal {number} cannot be blocked"),
            Self::Fault(number) => write!(f, "signal {number} tells of a fault and must not be blocked"),
            Self::Internal(number) => write!(f, "signal {number} belongs to the C library"),
        }
    }
}

impl core::error::Error for BadSignal {}

/// A set of signals, 8 bytes.
///
/// ```
/// use platform_linux::signal::{Signal, SignalSet};
///
/// let set = SignalSet::from([Signal::INT, Signal::TERM]).with(Signal::HUP);
/// assert!(set.contains(Signal::HUP) && !set.contains(Signal::USR1));
/// assert_eq!(format!("{set:?}"), "{SIGHUP, SIGINT, SIGTERM}");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct SignalSet(u64);

impl SignalSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);

    /// The set and `signal`.
    #[must_use]
    pub const fn with(self, signal: Signal) -> Self {
        Self(self.0 | bit(signal))
    }

    /// What of the set is not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether `signal` is in it.
    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & bit(signal) != 0
    }

    /// Whether no signal is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its signals, in order of number.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        (1..=64).map(Signal).filter(move |signal| self.contains(*signal))
    }

    /// The kernel's form: bit `n - 1` for signal `n` (proc(5), `SigBlk`).
    pub(super) const fn bits(self) -> u64 {
        self.0
    }
}

/// Bit `n - 1`; numbers are 1 to 64 by construction.
const fn bit(signal: Signal) -> u64 {
    1 << (signal.0 - 1)
}

impl<const N: usize> From<[Signal; N]> for SignalSet {
    fn from(signals: [Signal; N]) -> Self {
        signals.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signals_that_may_be_data_have_a_value() {
        let good: Vec<i32> = (-70..=200).filter(|number| Signal::new(*number).is_ok()).collect();
        for bad in [-1, 0, 4, 5, 6, 7, 8, 9, 11, 19, 31, 32, 33, 65] {
            assert!(!good.contains(&bad), "{bad}");
        }
        for number in [1, 2, 3, 10, 12, 13, 14, 15, 17, 18, 34, 64] {
            assert!(good.contains(&number), "{number}");
        }
        assert_eq!(Signal::new(i32::MIN), Err(BadSignal::NoSuchSignal(i32::MIN)));
        assert_eq!(Signal::new(i32::MAX), Err(BadSignal::NoSuchSignal(i32::MAX)));
        assert!(Signal::realtime(31).is_err());
    }

    #[test]
    fn sets_hold_the_first_and_the_last_number() {
        let last = Signal::new(64).unwrap();
        let set = SignalSet::from([Signal::HUP, last]);
        assert_eq!(set.bits(), 1 | 1 << 63);
        assert!(set.iter().eq([Signal::HUP, last]));
        assert_eq!(set.without(SignalSet::from([last])), SignalSet::from([Signal::HUP]));
    }
}
