//! Heaps, pools and the page-source port, without an operating system.
//!
//! - [`port`]: where pages come from ([`PageSource`](port::PageSource)); implemented on `mmap` by the Linux crate and on a
//!   fixed bank of memory by firmware.
//! - [`pool`]: blocks of one size, lent as guards that give themselves back, and a queue that carries filled blocks from
//!   an interrupt handler to a task.
//!
//! The crate depends on nothing, allocates nothing for itself and works on targets without compare-and-swap.
#![no_std]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod pool;
pub mod port;
