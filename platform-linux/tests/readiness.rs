//! The park and its bell under other threads, timers, signals and many sources.
#![allow(clippy::std_instead_of_core, clippy::std_instead_of_alloc, reason = "a test of a hosted crate")]

use std::cell::Cell;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use hal::readiness::{Interest, Key, Park, Readiness, Ready, Unpark};
use hal::time::{Clock, Instant, Span};
use platform_linux::clock::MonotonicClock;
use platform_linux::readiness::Epoll;
use platform_linux::sys::Errno;

fn nothing(_: Key, _: Ready) {}

#[test]
fn no_wake_from_another_thread_is_lost() {
    const WAKES: u32 = 20_000;
    let mut park = Epoll::new().unwrap();
    let waker = park.waker();
    let (asked, answered) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let other = thread::spawn({
        let (asked, answered) = (asked.clone(), answered.clone());
        move || {
            for turn in 1..=WAKES {
                asked.store(turn, Ordering::SeqCst);
                waker.unpark();
                while answered.load(Ordering::SeqCst) != turn {
                    thread::yield_now();
                }
            }
        }
    });
    // A wake that is lost leaves the owner asleep until this time, which fails the test instead of hanging it.
    let limit = MonotonicClock.now().after(Span::secs(60));
    let mut seen = 0;
    while seen < WAKES {
        park.park(Some(limit), &mut || asked.load(Ordering::SeqCst) == seen, &mut nothing);
        assert!(MonotonicClock.now() < limit, "wake {} was lost", seen + 1);
        let now = asked.load(Ordering::SeqCst);
        if now != seen {
            seen = now;
            answered.store(now, Ordering::SeqCst);
        }
    }
    other.join().unwrap();
}

#[test]
fn many_wakers_at_once_end_one_sleep_and_leave_nothing_behind() {
    let mut park = Epoll::new().unwrap();
    let count = Arc::new(AtomicU32::new(0));
    let others: Vec<_> = (0..4)
        .map(|_| {
            let (waker, count) = (park.waker(), count.clone());
            thread::spawn(move || {
                for _ in 0..5_000 {
                    count.fetch_add(1, Ordering::SeqCst);
                    waker.unpark();
                }
            })
        })
        .collect();
    let limit = MonotonicClock.now().after(Span::secs(60));
    while count.load(Ordering::SeqCst) < 20_000 {
        let seen = count.load(Ordering::SeqCst);
        park.park(Some(limit), &mut || count.load(Ordering::SeqCst) == seen, &mut nothing);
        assert!(MonotonicClock.now() < limit, "stuck at {seen}");
    }
    others.into_iter().for_each(|other| other.join().unwrap());
    // Sticky wakes are used up by at most one park; the next one sleeps.
    park.park(Some(Instant::ZERO), &mut || true, &mut nothing);
    let start = MonotonicClock.now();
    park.park(Some(start.after(Span::ms(5))), &mut || true, &mut nothing);
    assert!(MonotonicClock.now().since(start) >= Span::ms(5));
}

#[test]
fn a_wake_before_the_park_ends_it_at_once() {
    let mut park = Epoll::new().unwrap();
    park.waker().unpark();
    let limit = MonotonicClock.now().after(Span::secs(60));
    park.park(Some(limit), &mut || true, &mut nothing);
    assert!(MonotonicClock.now() < limit);
}

#[test]
fn a_park_that_is_not_idle_does_not_sleep_but_tells_events() {
    let mut park = Epoll::new().unwrap();
    let (near, far) = UnixDatagram::pair().unwrap();
    park.watch(near.as_fd(), Key(3), Interest::READ).unwrap();
    far.send(b"x").unwrap();
    let (asked, told) = (Cell::new(0), Cell::new(0));
    park.park(
        None,
        &mut || {
            asked.set(asked.get() + 1);
            false
        },
        &mut |key, ready| {
            assert_eq!((key, ready), (Key(3), Ready { read: true, write: false, closed: false }));
            told.set(told.get() + 1);
        },
    );
    assert_eq!((asked.get(), told.get()), (1, 1));
}

#[test]
fn a_timer_is_never_early_and_has_nanoseconds() {
    let mut park = Epoll::new().unwrap();
    for wait in [Span::ns(1), Span::us(50), Span::us(300), Span::ms(2)] {
        let start = MonotonicClock.now();
        park.park(Some(start.after(wait)), &mut || true, &mut nothing);
        let slept = MonotonicClock.now().since(start);
        assert!(slept >= wait, "{slept} < {wait}");
    }
    // The past, and the end of time with a wake.
    park.park(Some(Instant::ZERO), &mut || true, &mut nothing);
    park.waker().unpark();
    park.park(Some(Instant::FAR), &mut || true, &mut nothing);
}

#[test]
fn sources_change_their_interest_and_are_forgotten() {
    let mut park = Epoll::new().unwrap();
    let (near, far) = UnixDatagram::pair().unwrap();
    let poll = |park: &mut Epoll| {
        let mut told = Vec::new();
        park.park(Some(Instant::ZERO), &mut || true, &mut |key, ready| {
            told.push((key.0, ready.read, ready.write))
        });
        told
    };
    park.watch(near.as_fd(), Key(1), Interest::READ).unwrap();
    assert_eq!(poll(&mut park), []);
    park.watch(near.as_fd(), Key(u32::MAX), Interest::BOTH).unwrap();
    assert_eq!(poll(&mut park), [(u32::MAX, false, true)]);
    far.send(b"x").unwrap();
    assert_eq!(poll(&mut park), [(u32::MAX, true, true)]);
    assert_eq!(poll(&mut park), [(u32::MAX, true, true)], "a level is told until it is dealt with");
    park.forget(near.as_fd(), Key(u32::MAX));
    park.forget(near.as_fd(), Key(u32::MAX));
    assert_eq!(poll(&mut park), []);
}

#[test]
fn the_end_of_the_other_side_is_told() {
    let mut park = Epoll::new().unwrap();
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    park.watch(near.as_fd(), Key(1), Interest::READ).unwrap();
    drop(far);
    let mut told = None;
    park.park(None, &mut || true, &mut |key, ready| told = Some((key.0, ready.read, ready.closed)));
    assert_eq!(told, Some((1, true, true)));
}

#[test]
fn more_sources_than_a_batch_all_get_their_turn() {
    let mut park = Epoll::new().unwrap();
    let pairs: Vec<_> = (0..200).map(|_| UnixDatagram::pair().unwrap()).collect();
    for (key, (near, far)) in (0..).zip(&pairs) {
        park.watch(near.as_fd(), Key(key), Interest::READ).unwrap();
        far.send(b"x").unwrap();
    }
    let mut told = vec![false; pairs.len()];
    for _ in 0..8 {
        park.park(Some(Instant::ZERO), &mut || true, &mut |key, _| told[key.0 as usize] = true);
    }
    assert!(told.iter().all(|told| *told), "starved: {told:?}");
}

#[test]
fn a_descriptor_without_readiness_is_refused_with_its_errno() {
    let mut park = Epoll::new().unwrap();
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    assert_eq!(park.watch(file.as_fd(), Key(1), Interest::READ), Err(Errno::PERM));
}

#[test]
fn a_waker_outlives_its_park() {
    let waker = Epoll::new().unwrap().waker();
    let thread = thread::spawn(move || waker.unpark());
    thread::sleep(Duration::from_millis(1));
    thread.join().unwrap();
}
