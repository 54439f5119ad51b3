//! When a packet counts as lost, how much may be in flight, and how fast it leaves.

pub mod congestion;
pub(crate) mod pacing;
pub mod rtt;
