//! The ports without hardware, for tests and simulations.

mod clock;
pub mod net;

pub use clock::ManualClock;
