//! Simulators, harness and cross-crate tests of the family. Never published.
#![deny(unsafe_code)]

pub mod sim;
