//! Levels, doorbells and timers with real threads.
#![allow(clippy::std_instead_of_core, clippy::std_instead_of_alloc, reason = "a test of a hosted crate")]
#![allow(unsafe_code, reason = "a thread gives its privileges up by a system call")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use hal::irq::{Level, Line};
use hal::time::{Clock, Instant, Span};
use platform_linux::clock::MonotonicClock;
use platform_linux::irq::{LevelConfig, LinuxPlatform, RealTime, Source, TimerFd, serve};
use platform_linux::sys::Errno;
use rt_irq::port::Platform;
use rt_irq::{Activation, Controller, LineConfig};

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let limit = MonotonicClock.now().after(Span::secs(30));
    while !done() {
        assert!(MonotonicClock.now() < limit, "{what}: not after 30 s");
        thread::yield_now();
    }
}

#[test]
fn no_trigger_is_lost_on_any_level() {
    let platform = LinuxPlatform::new(4);
    let runs = [const { AtomicU64::new(0) }; 8];
    let handler = |activation: &Activation| {
        let merged = u64::from(activation.coalesced) + 1;
        runs[usize::from(activation.line.0)].fetch_add(merged, Ordering::Relaxed);
    };
    let mut irq = Controller::<_, 8>::new(&platform);
    for line in 0..8 {
        let level = Level(u8::try_from(line % 4).unwrap());
        irq.register(Line(line), LineConfig::new(level, Span::secs(9)), &handler).unwrap();
    }
    let (irq, dispatch) = (&irq, |level| irq.dispatch(level));
    thread::scope(|scope| {
        let _levels = serve(scope, &platform, &dispatch, LevelConfig::default()).unwrap();
        let triggers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(move || {
                    for turn in 0..8_000_u16 {
                        irq.trigger(Line(turn % 8));
                        if turn % 16 == 0 {
                            thread::yield_now(); // lets levels fall asleep, which is where wakes get lost
                        }
                    }
                })
            })
            .collect();
        triggers.into_iter().for_each(|trigger| trigger.join().unwrap());
        until("all handled", || runs.iter().all(|run| run.load(Ordering::Relaxed) == 3_000));
    });
    for line in 0..8 {
        let stats = irq.stats(Line(line));
        assert_eq!((stats.triggered, stats.handled + stats.coalesced, stats.refused), (3_000, 3_000, 0));
    }
}

#[test]
fn one_trigger_after_each_sleep_arrives() {
    let platform = LinuxPlatform::new(1);
    let runs = AtomicU64::new(0);
    let handler = |_: &Activation| {
        runs.fetch_add(1, Ordering::SeqCst);
    };
    let mut irq = Controller::<_, 1>::new(&platform);
    irq.register(Line(0), LineConfig::new(Level(0), Span::secs(9)), &handler).unwrap();
    let (irq, dispatch) = (&irq, |level| irq.dispatch(level));
    thread::scope(|scope| {
        let _levels = serve(scope, &platform, &dispatch, LevelConfig::default()).unwrap();
        for turn in 1..=5_000 {
            irq.trigger(Line(0));
            until("a wake", || runs.load(Ordering::SeqCst) == turn);
        }
    });
}

#[test]
fn an_urgent_level_preempts_a_long_handler() {
    let platform = LinuxPlatform::new(2);
    let (long_runs, urgent_ran) = (AtomicBool::new(false), AtomicBool::new(false));
    let seen_inside = AtomicBool::new(false);
    let long = |_: &Activation| {
        long_runs.store(true, Ordering::SeqCst);
        let ends = MonotonicClock.now().after(Span::ms(200));
        while MonotonicClock.now() < ends && !urgent_ran.load(Ordering::SeqCst) {
            std::hint::spin_loop();
        }
        seen_inside.store(urgent_ran.load(Ordering::SeqCst), Ordering::SeqCst);
    };
    let urgent = |_: &Activation| urgent_ran.store(true, Ordering::SeqCst);
    let mut irq = Controller::<_, 2>::new(&platform);
    irq.register(Line(0), LineConfig::new(Level(0), Span::secs(9)), &long).unwrap();
    irq.register(Line(1), LineConfig::new(Level(1), Span::secs(9)), &urgent).unwrap();
    let (irq, dispatch) = (&irq, |level| irq.dispatch(level));
    thread::scope(|scope| {
        // One processor for both, so that only preemption lets the urgent one run.
        let config = LevelConfig { cpu: Some(0), ..LevelConfig::default() };
        let levels = serve(scope, &platform, &dispatch, config).unwrap();
        if let RealTime::Degraded { .. } = levels.real_time() {
            return eprintln!("skipped: {}", levels.real_time());
        }
        irq.trigger(Line(0));
        until("the long handler", || long_runs.load(Ordering::SeqCst));
        irq.trigger(Line(1));
        until("both", || irq.stats(Line(0)).handled == 1);
        assert!(seen_inside.load(Ordering::SeqCst), "the urgent handler waited for the long one");
    });
}

#[test]
fn without_privilege_everything_runs_and_says_what_would_help() {
    let run = |config: LevelConfig, expected: Option<Errno>| {
        let platform = LinuxPlatform::new(2);
        let runs = AtomicU64::new(0);
        let handler = |_: &Activation| {
            runs.fetch_add(1, Ordering::SeqCst);
        };
        let mut irq = Controller::<_, 1>::new(&platform);
        irq.register(Line(0), LineConfig::new(Level(1), Span::secs(9)), &handler).unwrap();
        let (irq, dispatch) = (&irq, |level| irq.dispatch(level));
        thread::scope(|scope| {
            let levels = serve(scope, &platform, &dispatch, config).unwrap();
            match levels.real_time() {
                RealTime::Degraded { errno, remedy } => {
                    assert_eq!(errno, expected);
                    assert!(!remedy.is_empty() && levels.real_time().to_string().contains(remedy));
                }
                other => panic!("{other:?}"),
            }
            let timer = Source::periodic(scope, Span::us(500), levels.source(), |_| irq.trigger(Line(0)));
            let timer = timer.unwrap();
            until("ticks", || runs.load(Ordering::SeqCst) >= 5);
            assert!(timer.stats().ticks >= 5);
        });
    };
    run(LevelConfig { real_time: false, ..LevelConfig::default() }, None);
    run(LevelConfig { base_priority: 90, ..LevelConfig::default() }, Some(Errno::INVAL));
    // As nobody: the raw call changes the calling thread only, and the threads that it starts inherit that.
    let nobody = thread::spawn(move || {
        // SAFETY: integers only.
        if unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) } != 0 {
            return eprintln!("not root, so this is the ordinary case already");
        }
        run(LevelConfig::default(), Some(Errno::PERM));
    });
    nobody.join().unwrap();
}

#[test]
fn dropping_the_levels_runs_what_is_pending_and_ends_the_threads() {
    let platform = LinuxPlatform::new(1);
    let runs = AtomicU64::new(0);
    let handler = |_: &Activation| {
        runs.fetch_add(1, Ordering::SeqCst);
    };
    let mut irq = Controller::<_, 1>::new(&platform);
    irq.register(Line(0), LineConfig::new(Level(0), Span::secs(9)), &handler).unwrap();
    let (irq, dispatch) = (&irq, |level| irq.dispatch(level));
    thread::scope(|scope| {
        let levels = serve(scope, &platform, &dispatch, LevelConfig::default()).unwrap();
        irq.trigger(Line(0));
        drop(levels);
    });
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[test]
fn a_raised_ceiling_holds_handlers_back_and_nests() {
    let platform = LinuxPlatform::new(3);
    let runs = AtomicU64::new(0);
    let handler = |_: &Activation| {
        runs.fetch_add(1, Ordering::SeqCst);
    };
    let mut irq = Controller::<_, 1>::new(&platform);
    irq.register(Line(0), LineConfig::new(Level(1), Span::secs(9)), &handler).unwrap();
    let (irq, dispatch) = (&irq, |level| irq.dispatch(level));
    thread::scope(|scope| {
        let _levels = serve(scope, &platform, &dispatch, LevelConfig::default()).unwrap();
        let outer = platform.ceiling(Some(Level(1)));
        let inner = platform.ceiling(Some(Level(2)));
        assert_eq!((outer, inner), (None, Some(Level(1))));
        irq.trigger(Line(0));
        thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(platform.ceiling(inner), Some(Level(2)));
        thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(runs.load(Ordering::SeqCst), 0);
        assert_eq!(platform.ceiling(outer), Some(Level(1)));
        until("the handler", || runs.load(Ordering::SeqCst) == 1);
    });
}

#[test]
fn a_budget_is_over_when_its_time_has_come() {
    let platform = LinuxPlatform::new(1);
    assert!(!platform.over_budget(Level(0)) && !platform.over_budget(Level(7)));
    platform.arm_budget(Level(0), Some(platform.now()));
    until("the budget", || platform.over_budget(Level(0)));
    platform.arm_budget(Level(0), None);
    assert!(!platform.over_budget(Level(0)));
}

#[test]
fn a_timer_that_nobody_looked_at_counts_what_was_missed() {
    let first = MonotonicClock.now();
    let mut timer = TimerFd::new(first, Span::ms(1)).unwrap();
    thread::sleep(std::time::Duration::from_millis(10));
    let tick = timer.take().unwrap();
    assert!(tick.missed >= 9, "{tick:?}");
    assert_eq!(tick.due, first.after(Span::ms(1).times(tick.missed)));
    assert!(tick.due <= MonotonicClock.now());
    let mut once = TimerFd::new(Instant::ZERO, Span::ZERO).unwrap();
    assert_eq!(once.take().map(|tick| tick.missed), Some(0));
    assert_eq!(once.take(), None);
}

#[test]
fn a_periodic_interrupt_of_1_khz_keeps_its_count() {
    let platform = LinuxPlatform::new(4);
    let handled = AtomicU64::new(0);
    let handler = |activation: &Activation| {
        handled.fetch_add(u64::from(activation.coalesced) + 1, Ordering::SeqCst);
    };
    let mut irq = Controller::<_, 4>::new(&platform);
    irq.register(Line(0), LineConfig::new(Level(3), Span::us(500)), &handler).unwrap();
    let (irq, dispatch) = (&irq, |level| irq.dispatch(level));
    let start = MonotonicClock.now();
    let mut elapsed = Span::ZERO;
    let mut seen = 0;
    thread::scope(|scope| {
        let levels = serve(scope, &platform, &dispatch, LevelConfig::default()).unwrap();
        let mut wake_ups: rt_irq::Histogram = rt_irq::Histogram::new();
        let (tell, told) = std::sync::mpsc::channel();
        let timer = Source::periodic(scope, Span::ms(1), levels.source(), move |tick| {
            irq.trigger(Line(0));
            let _ = tell.send(MonotonicClock.now().since(tick.due).as_ns());
        });
        let timer = timer.unwrap();
        thread::sleep(std::time::Duration::from_secs(1));
        let stats = timer.stats();
        (elapsed, seen) = (MonotonicClock.now().since(start), stats.ticks + stats.missed);
        println!("{}; {stats:?}", levels.real_time());
        drop(timer);
        told.try_iter().for_each(|ns| wake_ups.record(ns));
        let line = irq.stats(Line(0));
        for (what, of) in [("timer to trigger", &wake_ups), ("trigger to handler", &line.latency)] {
            let [p50, p99, max] = [of.quantile(500), of.quantile(990), of.max()].map(Span::ns);
            println!("{what}: p50 {p50}, p99 {p99}, max {max}");
        }
        println!("deadline 500 us: {} of {} missed", line.missed, line.handled);
    });
    let stats = irq.stats(Line(0));
    // Beats are exact however late the threads ran: none is invented and none is lost.
    assert!(seen.abs_diff(elapsed.as_ms()) <= 3, "{seen} beats in {elapsed}");
    assert_eq!(stats.triggered, stats.handled + stats.coalesced);
    assert_eq!(handled.load(Ordering::SeqCst), stats.triggered);
}
