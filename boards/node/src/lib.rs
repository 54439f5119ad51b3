//! The telemetry node, written once: as firmware, as a Linux process, in the simulator.
//!
//! A node reads groups of sensor channels at interrupts and delivers every reading to a gateway's log, once and in order,
//! however often the network, the gateway or the node's own link fails in between. What it could not keep it says.
//!
//! ```text
//!  interrupt handler                             task
//!  ┌─────────────────────────────┐   filled     ┌──────────────────────────────────────────┐
//!  │ Sampler::on_interrupt       │   blocks     │ NodeApp::step(now, link)                 │
//!  │   Sensors::read ─> block ───┼─────────────>│   held blocks ─> net-core ─> Link        │
//!  │   (alloc-core pool)         │<─────────────┤   Ack{durable} gives blocks back         │
//!  └─────────────────────────────┘  free blocks └──────────────────────────────────────────┘
//! ```
//!
//! - [`sensor`]: channels, groups and the trait that reads them.
//! - [`sample`]: how readings lie in a block. [`message`]: what node and gateway say to each other.
//! - [`sampler`]: the handler's half. [`app`]: the task's half.
//!
//! The crate is pure: time is an argument, randomness a seed, packets and sensors come through traits. Nothing is
//! allocated; all sizes are const generics.
#![no_std]
#![deny(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::indexing_slicing))]

#[cfg(test)]
extern crate alloc;

pub mod app;
pub mod codec;
pub mod message;
pub mod sample;
pub mod sampler;
pub mod sensor;
pub mod store;
