//! The telemetry gateway: sessions of many nodes, the record log, and when a record may be acknowledged.
//!
//! The crate is pure: `no_std` with `alloc`; time is an argument, randomness a seed, packets and blocks go through the
//! ports of `hal`. The same code runs as a Linux process and in the simulator.
//!
//! - [`gateway`]: sessions and acknowledgements. [`log`]: the records on disk. [`node_state`]: what is known of a node.
//! - [`history`]: what a channel did, in bounded memory. [`clock_map`]: node clocks on the gateway's.
//! - [`view`]: snapshots for the page, the API and the terminal.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

pub mod clock_map;
pub mod gateway;
pub mod history;
pub mod log;
pub mod node_state;
pub mod snapshot;
pub mod view;

pub use self::gateway::{BootRecord, Gateway, GatewayConfig, GatewayCounters, GatewayEvent, WallTime};
