//! The ports without hardware, for tests and simulations.

mod clock;
mod disk;
pub mod net;

pub use clock::ManualClock;
pub use disk::{DiskFaults, FakeBuf, FakeDisk, FakeFile, FakeVolume};
