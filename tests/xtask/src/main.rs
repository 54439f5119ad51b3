//! Filled by the next commits.
fn main() {}
