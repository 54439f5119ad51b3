//! Signals as data, each case in a process of its own with one thread, as a program has at its start.
#![allow(clippy::std_instead_of_core, clippy::std_instead_of_alloc, reason = "a test of a hosted crate")]
#![allow(unsafe_code, reason = "signals are sent and children prepared by system calls")]

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::{env, thread};

use hal::readiness::{Interest, Key, Park, Readiness};
use hal::time::{Clock, Span};
use platform_linux::clock::MonotonicClock;
use platform_linux::readiness::Epoll;
use platform_linux::signal::{
    InstallError, RestoreSignals, Signal, SignalFd, SignalSet, clear_inherited_mask, threads_not_blocking,
};

/// The cases. Each runs in a process of its own with one thread, which the usual test harness cannot give: it runs tests on
/// threads of its own, and those would take the signals.
const CASES: &[(&str, fn(), Start)] = &[
    (
        "ten_thousand_queued_signals_arrive_in_order_with_their_values",
        ten_thousand_queued_signals_arrive_in_order_with_their_values,
        plain,
    ),
    (
        "standard_signals_wake_the_park_and_tell_who_sent_them",
        standard_signals_wake_the_park_and_tell_who_sent_them,
        plain,
    ),
    ("threads_that_would_take_the_signals_are_named", threads_that_would_take_the_signals_are_named, plain),
    (
        "dropping_restores_the_mask_and_forgets_what_is_pending",
        dropping_restores_the_mask_and_forgets_what_is_pending,
        plain,
    ),
    (
        "a_child_ends_on_sigterm_with_the_original_mask_only",
        a_child_ends_on_sigterm_with_the_original_mask_only,
        plain,
    ),
    (
        "after_release_the_next_signal_takes_its_default_action",
        after_release_the_next_signal_takes_its_default_action,
        killed_by_sigint,
    ),
    ("an_inherited_mask_is_cleared_and_told", an_inherited_mask_is_cleared_and_told, with_sigterm_blocked),
    (
        "closed_standard_descriptors_do_not_become_ours",
        closed_standard_descriptors_do_not_become_ours,
        with_nothing_open,
    ),
];

/// How the process of a case is started and how it ends.
type Start = fn(&mut Command) -> ExitStatus;

fn plain(command: &mut Command) -> ExitStatus {
    command.status().unwrap()
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some("--case") {
        let name = arguments.next().unwrap();
        let (_, case, _) = CASES.iter().find(|(known, ..)| *known == name).unwrap();
        case();
        return ExitCode::SUCCESS;
    }
    let filter = first.filter(|argument| !argument.starts_with('-')).unwrap_or_default();
    let (mut passed, mut failed) = (0_usize, 0_usize);
    for (name, _, start) in CASES.iter().filter(|(name, ..)| name.contains(&filter)) {
        let status = start(Command::new(env::current_exe().unwrap()).args(["--case", name]));
        let good = status.success();
        println!("test {name} ... {}", if good { "ok".into() } else { format!("FAILED ({status})") });
        (passed, failed) = (passed + usize::from(good), failed + usize::from(!good));
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    let left_out = CASES.len() - passed - failed;
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {left_out} filtered out\n"
    );
    ExitCode::from(u8::from(failed > 0))
}

/// The case is to end by SIGINT, which is success.
fn killed_by_sigint(command: &mut Command) -> ExitStatus {
    let status = command.status().unwrap();
    if status.signal() == Some(libc::SIGINT) { ExitStatus::from_raw(0) } else { ExitStatus::from_raw(1 << 8) }
}

fn with_sigterm_blocked(command: &mut Command) -> ExitStatus {
    let block = || {
        // SAFETY: a set is made of integers.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: an initialised set.
        unsafe { libc::sigaddset(&raw mut set, libc::SIGTERM) };
        // SAFETY: an initialised set; the old one is not asked for.
        unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are made, with a set on the stack.
    unsafe { command.pre_exec(block) }.status().unwrap()
}

fn with_nothing_open(command: &mut Command) -> ExitStatus {
    let close = || {
        // SAFETY: between fork and exec nobody uses the standard descriptors.
        (0..3).for_each(|fd| assert_eq!(unsafe { libc::close(fd) }, 0));
        Ok(())
    };
    // SAFETY: between fork and exec only close(2) is called.
    unsafe { command.pre_exec(close) }.status().unwrap()
}

fn kill(pid: u32, signal: Signal) {
    // SAFETY: integers only.
    let answer = unsafe { libc::kill(libc::pid_t::try_from(pid).unwrap(), signal.number()) };
    assert_eq!(answer, 0);
}

fn queue(signal: Signal, value: usize) -> i32 {
    let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(value) };
    let us = libc::pid_t::try_from(std::process::id()).unwrap();
    // SAFETY: integers only; the pointer is a number that nobody follows.
    unsafe { libc::sigqueue(us, signal.number(), value) }
}

fn read_all(signals: &mut SignalFd) -> Vec<i32> {
    std::iter::from_fn(|| signals.read()).map(|info| info.signal).collect()
}

fn ten_thousand_queued_signals_arrive_in_order_with_their_values() {
    let signal = Signal::realtime(5).unwrap();
    let mut signals = SignalFd::install(SignalSet::from([signal])).unwrap();
    let (mut sent, mut got) = (0, 0);
    while got < 10_000 {
        // As many as the limit of pending signals takes, at most 100 at once.
        while sent < 10_000 && sent - got < 100 && queue(signal, sent) == 0 {
            sent += 1;
        }
        while let Some(info) = signals.read() {
            let us = (std::process::id().cast_signed(), libc::SI_QUEUE);
            assert_eq!((info.signal, info.pid, info.code), (signal.number(), us.0, us.1));
            assert_eq!(usize::try_from(info.value), Ok(got));
            got += 1;
        }
    }
    assert_eq!(signals.read(), None);
}

fn standard_signals_wake_the_park_and_tell_who_sent_them() {
    let set = SignalSet::from([Signal::USR1, Signal::TERM, Signal::HUP]);
    let mut signals = SignalFd::install(set).unwrap();
    let mut park = Epoll::new().unwrap();
    park.watch(signals.as_fd(), Key(9), Interest::READ).unwrap();
    let child = Command::new("kill")
        .args(["-USR1", &std::process::id().to_string()])
        .stdout(Stdio::null())
        .restore_signals(&signals)
        .spawn();
    let mut child = child.unwrap();
    let limit = MonotonicClock.now().after(Span::secs(10));
    let mut woken = false;
    while !woken && MonotonicClock.now() < limit {
        park.park(Some(limit), &mut || true, &mut |key, ready| woken |= key == Key(9) && ready.read);
    }
    let info = signals.read().unwrap();
    assert_eq!((info.signal, info.code), (Signal::USR1.number(), libc::SI_USER));
    assert_eq!(info.pid, child.id().cast_signed());
    child.wait().unwrap();
    // Ten of a kind may be one: at least one is what can be promised.
    (0..10).for_each(|_| kill(std::process::id(), Signal::HUP));
    kill(std::process::id(), Signal::TERM);
    let mut got = read_all(&mut signals);
    got.dedup();
    assert_eq!(got, [Signal::HUP.number(), Signal::TERM.number()]);
}

fn threads_that_would_take_the_signals_are_named() {
    let set = SignalSet::from([Signal::TERM]);
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let (start, started) = std::sync::mpsc::channel();
    let wait = move || {
        start.send(()).unwrap();
        let _stopped = stopped.recv();
    };
    let early = thread::Builder::new().name("early".into()).spawn(wait).unwrap();
    started.recv().unwrap();
    match SignalFd::install(set) {
        Err(InstallError::OtherThreads(threads)) => {
            assert_eq!(threads.iter().map(|thread| thread.name.as_str()).collect::<Vec<_>>(), ["early"]);
        }
        other => panic!("{other:?}"),
    }
    // The refusal left nothing blocked.
    assert_eq!(threads_not_blocking(set).unwrap().len(), 2);
    drop(stop);
    early.join().unwrap();
    let mut signals = SignalFd::install(set).unwrap();
    // Threads that start afterwards inherit the mask, so a signal to the process is data whoever runs.
    let late = thread::spawn(move || assert_eq!(threads_not_blocking(set).unwrap().len(), 0));
    kill(std::process::id(), Signal::TERM);
    late.join().unwrap();
    assert_eq!(read_all(&mut signals), [Signal::TERM.number()]);
}

fn dropping_restores_the_mask_and_forgets_what_is_pending() {
    let set = SignalSet::from([Signal::TERM, Signal::INT]);
    let outer = SignalFd::install(SignalSet::from([Signal::INT])).unwrap();
    let inner = SignalFd::install(set).unwrap();
    kill(std::process::id(), Signal::TERM);
    drop(inner); // a pending SIGTERM would end this process here
    let unblocked = threads_not_blocking(set).unwrap();
    assert_eq!(unblocked.len(), 1, "TERM is free again");
    assert_eq!(
        threads_not_blocking(SignalSet::from([Signal::INT])).unwrap().len(),
        0,
        "INT was blocked before"
    );
    drop(outer);
    assert_eq!(threads_not_blocking(SignalSet::from([Signal::INT])).unwrap().len(), 1);
}

fn a_child_ends_on_sigterm_with_the_original_mask_only() {
    let signals = SignalFd::install(SignalSet::from([Signal::TERM])).unwrap();
    let mut child = Command::new("sleep").arg("60").restore_signals(&signals).spawn().unwrap();
    kill(child.id(), Signal::TERM);
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::TERM.number()));
    // The trap that this is about: a plain child does not hear it.
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    kill(child.id(), Signal::TERM);
    thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(child.try_wait().unwrap(), None);
    child.kill().unwrap();
    child.wait().unwrap();
}

fn after_release_the_next_signal_takes_its_default_action() {
    let stop = SignalSet::from([Signal::INT, Signal::TERM]);
    let mut signals = SignalFd::install(stop.with(Signal::USR1)).unwrap();
    kill(std::process::id(), Signal::INT);
    assert_eq!(read_all(&mut signals), [Signal::INT.number()]);
    signals.release(stop);
    assert_eq!(signals.set(), SignalSet::from([Signal::USR1]));
    kill(std::process::id(), Signal::USR1);
    assert_eq!(read_all(&mut signals), [Signal::USR1.number()], "the others are data as before");
    kill(std::process::id(), Signal::INT);
    unreachable!("the second SIGINT ends the process");
}

fn an_inherited_mask_is_cleared_and_told() {
    let term = SignalSet::from([Signal::TERM]);
    assert_eq!(threads_not_blocking(term).unwrap().len(), 0);
    assert_eq!(clear_inherited_mask(), term);
    assert_eq!(threads_not_blocking(term).unwrap().len(), 1);
}

fn closed_standard_descriptors_do_not_become_ours() {
    let signals = SignalFd::install(SignalSet::from([Signal::TERM])).unwrap();
    let park = Epoll::new().unwrap();
    assert!(signals.as_fd().as_raw_fd() > 2 && park.as_fd().as_raw_fd() > 2);
    println!("written to /dev/null");
}
