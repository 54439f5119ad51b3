//! Simulators in virtual time.

pub mod link;
