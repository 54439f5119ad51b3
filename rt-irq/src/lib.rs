//! Priority interrupts with deadlines, one core for firmware and Linux.
//!
//! - [`port`]: what a platform gives ([`Platform`](port::Platform)): time, a kick, a short critical section.
//! - [`controller`]: lines with levels, handlers and deadlines; trigger from any context, dispatch to completion, earliest
//!   deadline first inside a level.
//! - [`histogram`]: latencies as percentiles, without floating point or allocation.
//!
//! The crate allocates nothing, needs no compare-and-swap, and never blocks.
#![no_std]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate alloc;

pub mod controller;
pub mod histogram;
pub mod port;

pub use controller::{Activation, Controller, LineConfig, LineStats, RegisterError};
pub use histogram::Histogram;
