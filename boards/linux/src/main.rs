//! The groundplane program.
#![deny(unsafe_code)]
fn main() {}
