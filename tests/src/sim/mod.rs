//! Simulators in virtual time.

pub mod link;
pub mod link_path;
