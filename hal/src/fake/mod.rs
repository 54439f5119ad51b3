//! The ports without hardware, for tests and simulations.

mod clock;

pub use clock::ManualClock;
