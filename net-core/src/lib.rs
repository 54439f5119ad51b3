//! Framing, checksums and a reliable protocol that does no I/O.
//!
//! Messages of any size up to the receive buffer arrive whole, once and in order, over links that lose, repeat, reorder,
//! cut and damage packets: UDP, raw IP, Ethernet, a serial line. The same state machine runs on a microcontroller without
//! a heap ([`Connection`]) and on a gateway with thousands of peers ([`Endpoint`], feature `alloc`).
//!
//! ```text
//!   link ── handle ──>┌────────────┐── poll_event ───> user
//!   clock ─ handle_ ─>│ connection │<── send_message ─ user
//!          timeout    │ or endpoint│── peek_message ─> user
//!   link <─ poll_ ────└────────────┘── poll_timeout ─> when to come back
//!          transmit
//! ```
//!
//! Nothing here reads a clock, draws a random number or touches a socket: time is an argument and randomness a seed, so a
//! run repeats from its seed.
//!
//! | module | holds |
//! | --- | --- |
//! | [`wire`] | the packet format, checksums, IPv4 and UDP headers, serial framing |
//! | [`rtt`] | round-trip estimation |
//! | [`congestion`] | the congestion-control port and its controllers |
//!
//! How it works, in short: packets are numbered and never repeated, stream offsets are; acknowledgements name packet
//! numbers as ranges; packets sent a round trip and a bit before an acknowledged one are lost (RFC 8985); when nothing is
//! acknowledged a probe goes out (RFC 9002); credit bounds what a peer may send; sending is paced.
#![no_std]
#![deny(unsafe_code)]

#[cfg(any(test, feature = "alloc"))]
extern crate alloc;

mod config;
mod connection;
#[cfg(feature = "alloc")]
mod endpoint;
mod event;
mod handshake;
mod machine;
mod ranges;
mod recovery;
mod seq;
pub mod wire;

pub use config::Config;
#[cfg(feature = "alloc")]
pub use config::EndpointConfig;
pub use config::MIN_DATAGRAM;
pub use connection::Connection;
#[cfg(feature = "alloc")]
pub use endpoint::{ConnId, Endpoint, EndpointStats};
pub use event::{CloseReason, Event, SendError, Stats};
pub use recovery::{congestion, rtt};
