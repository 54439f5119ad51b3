//! Sending in batches: datagrams are written one behind the other and leave in few calls.
//!
//! ```text
//!   arena   ┆ sent ┆ staged A  A  A │ staged B │ granted …            ┆
//!           0     head                         tail
//!   queue            └ train of 3 ┘   └ single
//! ```
//!
//! Datagrams of equal length for one peer that follow each other become a *train*, which the kernel takes as one message
//! and the network card or the receiving socket cuts (`UDP_SEGMENT`): that is where the CPU time of small packets goes.
//! Merging needs no copy, since a grant lies directly behind the datagram before it.

use alloc::collections::VecDeque;
use std::os::fd::BorrowedFd;

use hal::link::{Counters, Ecn};

use crate::sys::Errno;
use crate::sys::socket::{BATCH, Name, Outgoing, sendmmsg};

/// Datagrams of a train at most: `UDP_MAX_SEGMENTS` of the kernel (`include/linux/udp.h`) before Linux 6.9.
pub(crate) const SEGMENTS: usize = 64;
/// Bytes of a datagram or train at most: 65,535 less the headers of IPv4 and UDP.
pub(crate) const LONGEST: usize = 65_507;
/// Messages that wait at most.
const QUEUE: usize = 256;
/// Times that one datagram is sent again after an error that belongs to an earlier one.
const STALE_ERRORS: u32 = 3;

/// Datagrams and trains on their way to the kernel. Nothing is allocated after [`Outbox::new`].
#[derive(Debug)]
pub(crate) struct Outbox {
    arena: Box<[u8]>,
    head: usize,
    tail: usize,
    granted: usize,
    queue: VecDeque<Staged>,
    /// The kernel takes trains.
    trains: bool,
    /// The train in front was refused and goes in pieces. The first piece that gets through shows that the train was what
    /// the kernel did not like, and not the destination.
    cutting: bool,
    /// A socket of IPv6: the traffic class is set by another option.
    v6: bool,
}

/// A datagram, or several of `stride` bytes for one peer.
#[derive(Clone, Copy, Debug)]
struct Staged {
    to: Name,
    start: usize,
    len: usize,
    stride: usize,
    ecn: Ecn,
}

impl Staged {
    fn datagrams(&self) -> usize {
        if self.stride == 0 { 1 } else { self.len.div_ceil(self.stride).max(1) }
    }
}

/// What a flush met that its link has to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flushed {
    /// Everything is with the kernel.
    pub(crate) all: bool,
    /// A train was refused; from now on datagrams go one by one.
    pub(crate) trains_refused: bool,
}

/// What to do with a datagram that the kernel did not take.
enum Verdict {
    /// No room: keep it, try later.
    Wait,
    /// The error was about an earlier one: again.
    Again,
    /// Trains do not work here.
    InPieces,
    /// Never.
    Lost { too_big: bool },
}

impl Outbox {
    /// Room for `bytes` of datagrams; `trains` when the socket has UDP_SEGMENT, `v6` for a socket of IPv6.
    pub(crate) fn new(bytes: usize, trains: bool, v6: bool) -> Self {
        Self {
            arena: vec![0; bytes.max(LONGEST)].into_boxed_slice(),
            head: 0,
            tail: 0,
            granted: 0,
            queue: VecDeque::with_capacity(QUEUE),
            trains,
            cutting: false,
            v6,
        }
    }

    /// Memory behind the last datagram; `None` when `min` bytes do not fit there.
    pub(crate) fn grant(&mut self, min: usize) -> Option<&mut [u8]> {
        self.granted = 0;
        if self.queue.len() == QUEUE {
            return None;
        }
        if self.arena.len() - self.tail < min && self.head > 0 {
            self.compact();
        }
        let len = (self.arena.len() - self.tail).min(LONGEST);
        if len < min {
            return None;
        }
        self.granted = len;
        self.arena.get_mut(self.tail..self.tail + len)
    }

    /// Stages what was written into the grant. False: it was longer than the grant, or nothing was granted.
    pub(crate) fn commit(&mut self, to: Name, len: usize, stride: usize, ecn: Ecn) -> bool {
        if core::mem::take(&mut self.granted) < len.max(1) || self.queue.len() == QUEUE {
            return false;
        }
        let stride = if stride == 0 { len } else { stride.min(len) };
        let new = Staged { to, start: self.tail, len, stride, ecn };
        self.tail += len;
        match self.queue.back_mut() {
            Some(last) if self.trains && joins(last, &new) => last.len += len,
            _ => self.queue.push_back(new),
        }
        true
    }

    /// Hands over what is staged, in order, in as few calls as it takes.
    pub(crate) fn flush(&mut self, fd: BorrowedFd<'_>, connected: bool, counters: &mut Counters) -> Flushed {
        let mut flushed = Flushed { all: true, trains_refused: false };
        let mut stale = 0;
        while !self.queue.is_empty() {
            let (mut batch, mut count) = ([Outgoing::EMPTY; BATCH], 0);
            for (place, message) in batch.iter_mut().zip(self.messages(connected)) {
                *place = message;
                count += 1;
            }
            counters.calls += 1;
            let errno = match sendmmsg(fd, batch.get(..count).unwrap_or(&[])) {
                Ok(taken) => {
                    stale = 0;
                    if self.cutting {
                        self.trains = false;
                        flushed.trains_refused = true;
                    }
                    for _ in 0..taken.max(1) {
                        counters.tx += self.done();
                    }
                    continue;
                }
                Err(errno) => errno,
            };
            counters.last_os_error = errno.raw();
            let train = self.whole() && self.queue.front().is_some_and(|front| front.stride < front.len);
            match judge(errno, train) {
                Verdict::Again if stale < STALE_ERRORS => stale += 1,
                Verdict::Wait => {
                    counters.stalls += 1;
                    flushed.all = false;
                    return flushed;
                }
                Verdict::InPieces => self.cutting = true,
                Verdict::Lost { too_big } => {
                    let lost = self.abandon();
                    counters.tx_lost += lost;
                    counters.too_big += if too_big { lost } else { 0 };
                }
                Verdict::Again => {
                    stale = 0;
                    counters.tx_lost += self.abandon();
                }
            }
        }
        (self.head, self.tail) = (0, 0);
        flushed
    }

    /// Messages go whole, trains included.
    fn whole(&self) -> bool {
        self.trains && !self.cutting
    }

    /// What the kernel is given next: whole trains, or their datagrams one by one.
    fn messages(&self, connected: bool) -> impl Iterator<Item = Outgoing<'_>> {
        let staged = if self.cutting && self.trains { 1 } else { self.queue.len() };
        self.queue.iter().take(staged).flat_map(move |staged| {
            let bytes = self.arena.get(staged.start..staged.start + staged.len).unwrap_or(&[]);
            let whole = self.whole() || staged.datagrams() == 1;
            let piece = if whole { staged.len } else { staged.stride }.max(1);
            // `chunks` of an empty slice is nothing, but an empty datagram is one.
            let empty = bytes.is_empty().then_some(bytes);
            bytes.chunks(piece).chain(empty).map(move |bytes| Outgoing {
                bytes,
                to: if connected { None } else { Some(&staged.to) },
                segment: if staged.stride < bytes.len() {
                    u16::try_from(staged.stride).unwrap_or(0)
                } else {
                    0
                },
                tos: staged.ecn.bits(),
                v6: self.v6 && staged.to.address().is_some_and(|to| to.is_ipv6()),
            })
        })
    }

    /// Takes the first message of [`messages`](Self::messages) off; answers how many datagrams that were.
    fn done(&mut self) -> u64 {
        let Some(front) = self.queue.front_mut() else { return 0 };
        if (self.trains && !self.cutting) || front.datagrams() == 1 {
            return self.abandon();
        }
        front.start += front.stride;
        front.len -= front.stride;
        front.stride = front.stride.min(front.len);
        self.head = front.start;
        1
    }

    /// Takes the message in front off, whole; answers how many datagrams that were.
    fn abandon(&mut self) -> u64 {
        let Some(front) = self.queue.pop_front() else { return 0 };
        self.head = front.start + front.len;
        self.cutting = false;
        front.datagrams() as u64
    }

    /// Moves what is staged to the front of the arena.
    fn compact(&mut self) {
        self.arena.copy_within(self.head..self.tail, 0);
        for staged in &mut self.queue {
            staged.start -= self.head;
        }
        self.tail -= self.head;
        self.head = 0;
    }
}

/// Whether `new`, which lies behind `last`, makes one train with it: the same peer and congestion bits, only full
/// datagrams before it, none longer than them.
fn joins(last: &Staged, new: &Staged) -> bool {
    let full = last.stride > 0 && last.len.is_multiple_of(last.stride);
    let fits = new.len > 0
        && new.stride <= last.stride
        && (new.datagrams() == 1 || new.stride == last.stride)
        && last.len + new.len <= LONGEST
        && last.datagrams() + new.datagrams() <= SEGMENTS;
    full && fits && last.to == new.to && last.ecn == new.ecn
}

fn judge(errno: Errno, train: bool) -> Verdict {
    match errno {
        Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM => Verdict::Wait,
        Errno::CONNREFUSED => Verdict::Again,
        // udp(7): the device cannot cut (EIO), the stride exceeds the path MTU (EINVAL, EMSGSIZE since Linux 6.14), or
        // there are too many of them.
        Errno::INVAL | Errno::IO | Errno::MSGSIZE | Errno::OPNOTSUPP if train => Verdict::InPieces,
        Errno::MSGSIZE => Verdict::Lost { too_big: true },
        // No route, a firewall, a destination that cannot be: a loss like any other.
        _ => Verdict::Lost { too_big: false },
    }
}
