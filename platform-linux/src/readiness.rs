//! Sleeping on Linux: one epoll descriptor, and an eventfd that wakes it.
//!
//! ```text
//!   other thread, signal handler                     owner
//!   ready.store(true)                                park ─ ask idle() ─ sleep ─ read the bell ─ return
//!   unpark ─ rung: false -> true ─ write the bell ──────────────────┘ rung: true -> false
//! ```
//!
//! The bell is a level: a write that comes between the question `idle` and the sleep ends the sleep at once, so no wake
//! is lost whenever it comes. It is written only by the first of several wakers (`rung`), since one write already ends
//! the sleep.
//!
//! Why that loses nothing: `rung` is true only while the bell holds a count or while the owner is between reading the bell
//! and clearing `rung`, on its way out of `park`. A waker that finds `rung` true has therefore either a level that ends
//! the next sleep, or an owner that is about to return and look; its release in the failed exchange pairs with the
//! acquire of the owner's swap, so the owner sees what the waker wrote before.
//!
//! Events are levels too. An event that is not dealt with is told again by the next park, and an error or hang-up of a
//! source is told whatever it is watched for: forget a source whose end was seen, or the loop spins.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hal::readiness::{Interest, Key, Park, Readiness, Ready, Unpark};
use hal::time::{Clock, Instant};

use crate::clock::MonotonicClock;
use crate::sys::Errno;
use crate::sys::epoll::{epoll_create, epoll_ctl, epoll_pwait2};
use crate::sys::eventfd::{eventfd, eventfd_write, read_count};

/// Events fetched by one park; the rest comes with the next one, in turn.
const BATCH: usize = 64;

/// The user data of the bell: no [`Key`] has a bit above 31.
const BELL: u64 = 1 << 63;

/// The park of one thread: descriptors by epoll, time by the monotonic clock, other threads by [`Waker`].
///
/// `until` is a time of [`MonotonicClock`]. A sleep ends up to 50 us late by the kernel's timer slack, unless the thread
/// is real-time (prctl(2), `PR_SET_TIMERSLACK`), and never early unless something happened.
///
/// # Examples
///
/// ```
/// use hal::readiness::{Interest, Key, Park, Readiness, Unpark};
/// use platform_linux::readiness::Epoll;
/// use std::os::fd::AsFd;
///
/// let mut park = Epoll::new()?;
/// let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
/// park.watch(socket.as_fd(), Key(7), Interest::READ)?;
///
/// socket.send_to(b"wake up", socket.local_addr().unwrap()).unwrap();
/// let mut woken = Vec::new();
/// park.park(None, &mut || true, &mut |key, ready| woken.push((key, ready.read)));
/// assert_eq!(woken, [(Key(7), true)]);
///
/// park.forget(socket.as_fd(), Key(7));
/// let waker = park.waker();
/// std::thread::spawn(move || waker.unpark());
/// park.park(None, &mut || true, &mut |_, _| unreachable!("only the bell rang"));
/// # Ok::<(), platform_linux::sys::Errno>(())
/// ```
#[derive(Debug)]
pub struct Epoll {
    epoll: OwnedFd,
    bell: Waker,
    parks: u64,
}

impl Epoll {
    /// A park without sources.
    ///
    /// # Errors
    ///
    /// EMFILE or ENFILE without descriptors left, ENOMEM.
    pub fn new() -> Result<Self, Errno> {
        let epoll = epoll_create()?;
        let bell = Waker(Arc::new(Bell { fd: eventfd()?, rung: AtomicBool::new(false) }));
        epoll_ctl(
            epoll.as_fd(),
            libc::EPOLL_CTL_ADD,
            bell.0.fd.as_fd(),
            libc::EPOLLIN.cast_unsigned(),
            BELL,
        )?;
        Ok(Self { epoll, bell, parks: 0 })
    }

    /// A handle that wakes this park from other threads and from signal handlers. Clones are cheap.
    pub fn waker(&self) -> Waker {
        self.bell.clone()
    }

    /// How often [`park`](Park::park) has asked the kernel.
    pub fn parks(&self) -> u64 {
        self.parks
    }
}

impl Park for Epoll {
    fn park(
        &mut self,
        until: Option<Instant>,
        idle: &mut dyn FnMut() -> bool,
        event: &mut dyn FnMut(Key, Ready),
    ) {
        // From here on no wake is lost: the bell is a level and is always watched.
        let timeout = match until {
            _ if !idle() => Some(0),
            Some(Instant::FAR) | None => None,
            Some(until) => Some(until.since(MonotonicClock.now()).as_ns()),
        };
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; BATCH];
        self.parks += 1;
        // EINTR is an early return, which the port allows: a signal handler may have made something ready.
        let found = epoll_pwait2(self.epoll.as_fd(), &mut events, timeout).unwrap_or(0);
        for got in events.iter().take(found) {
            let (flags, data) = (got.events, got.u64);
            if data == BELL {
                self.bell.0.answer();
            } else if let Ok(key) = u32::try_from(data) {
                event(Key(key), ready(flags));
            }
        }
    }
}

impl Readiness for Epoll {
    type Source<'a> = BorrowedFd<'a>;
    type Error = Errno;

    /// Watches a descriptor, or changes key and interest of one that is watched.
    ///
    /// # Errors
    ///
    /// EPERM for a descriptor that has no readiness (a regular file), ENOSPC when the user watches too many
    /// (`fs.epoll.max_user_watches`), ENOMEM.
    fn watch(&mut self, source: BorrowedFd<'_>, key: Key, interest: Interest) -> Result<(), Errno> {
        let mut events = libc::EPOLLRDHUP;
        if interest.read {
            events |= libc::EPOLLIN;
        }
        if interest.write {
            events |= libc::EPOLLOUT;
        }
        let (epoll, events, data) = (self.epoll.as_fd(), events.cast_unsigned(), u64::from(key.0));
        match epoll_ctl(epoll, libc::EPOLL_CTL_ADD, source, events, data) {
            Err(Errno::EXIST) => epoll_ctl(epoll, libc::EPOLL_CTL_MOD, source, events, data),
            other => other,
        }
    }

    /// Ends watching; nothing happens when the descriptor was not watched.
    ///
    /// Closing a descriptor forgets it only when no duplicate of it is open (epoll(7)), so forget before closing.
    fn forget(&mut self, source: BorrowedFd<'_>, _key: Key) {
        // The only answer for open descriptors is ENOENT: not watched, which is what was asked for.
        let _not_watched = epoll_ctl(self.epoll.as_fd(), libc::EPOLL_CTL_DEL, source, 0, 0);
    }
}

impl AsFd for Epoll {
    /// Readable when a source is ready or the bell was rung, so that parks can be nested.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// Wakes an [`Epoll`] park. [`unpark`](Unpark::unpark) is async-signal-safe and costs one system call at most.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Bell>);

impl Unpark for Waker {
    fn unpark(&self) {
        // AcqRel: the release publishes the caller's work also when the bell was rung already (module documentation);
        // the acquire keeps the write of the bell behind the owner's reading of it.
        if !self.0.rung.swap(true, Ordering::AcqRel) {
            // EAGAIN would mean a full counter, which is a rung bell.
            let _already_rung = eventfd_write(self.0.fd.as_fd());
        }
    }
}

#[derive(Debug)]
struct Bell {
    fd: OwnedFd,
    rung: AtomicBool,
}

impl Bell {
    /// Takes the count away, then lets the next waker write again. The order matters: cleared first, a waker could write
    /// a count that this read takes away while `rung` stays true.
    fn answer(&self) {
        let _ = read_count(self.fd.as_fd());
        // AcqRel: the acquire pairs with the release of wakers that found `rung` true.
        self.rung.swap(false, Ordering::AcqRel);
    }
}

fn ready(flags: u32) -> Ready {
    let flags = flags.cast_signed();
    let failed = flags & (libc::EPOLLERR | libc::EPOLLHUP) != 0;
    let closed = flags & (libc::EPOLLRDHUP | libc::EPOLLHUP) != 0;
    Ready {
        read: failed || closed || flags & libc::EPOLLIN != 0,
        write: failed || flags & libc::EPOLLOUT != 0,
        closed,
    }
}
