//! Linux behind the traits of the family: io_uring, epoll, signalfd, mmap and sockets.
//!
//! This crate is an edge. It owns every raw system call ([`sys`]) and implements the ports of `hal` and of the cores;
//! an algorithm that a core could hold is not here.
//!
//! | module | holds |
//! | --- | --- |
//! | [`clock`] | monotonic time, and the wall clock with its error |
//! | [`irq`] | interrupt levels as real-time threads, timers that trigger lines |
//! | [`net`] | links: UDP |
//! | [`readiness`] | sleeping on descriptors and waking from other threads: epoll |
//! | [`signal`] | signals as data: signalfd, and what a blocked mask must not leak to |
//! | [`sys`] | the system calls, one function each, and [`Errno`](sys::Errno) |
#![cfg(target_os = "linux")]
#![deny(unsafe_code)]

extern crate alloc;

pub mod clock;
pub mod directory;
pub mod irq;
pub mod net;
pub mod readiness;
pub mod signal;
pub mod sys;
