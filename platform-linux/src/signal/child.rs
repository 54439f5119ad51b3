//! The mask of child processes.
#![allow(unsafe_code, reason = "`pre_exec` runs between fork and exec")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::SignalFd;
use crate::sys::signalfd::pthread_sigmask;

/// Starts a child with the signal mask that this program was started with.
///
/// Without it a child inherits the blocked signals (`std::process::Command` does not touch the mask) and does not end on
/// SIGTERM.
///
/// ```no_run
/// # use platform_linux::signal::{RestoreSignals, Signal, SignalFd, SignalSet};
/// # let signals = SignalFd::install(SignalSet::from([Signal::TERM])).unwrap();
/// let child = std::process::Command::new("sleep").arg("60").restore_signals(&signals).spawn();
/// ```
pub trait RestoreSignals {
    /// Gives the child the mask from before `signals`.
    fn restore_signals(&mut self, signals: &SignalFd) -> &mut Self;
}

impl RestoreSignals for Command {
    fn restore_signals(&mut self, signals: &SignalFd) -> &mut Self {
        let original = signals.original();
        let restore =
            move || pthread_sigmask(libc::SIG_SETMASK, &original).map(drop).map_err(io::Error::from);
        // SAFETY: the closure runs in the child after fork, where only async-signal-safe work is allowed: it calls
        // pthread_sigmask with sets on its stack (signal-safety(7)), allocates nothing and takes no lock. Making an
        // `io::Error` of an errno does not allocate.
        unsafe { self.pre_exec(restore) }
    }
}
