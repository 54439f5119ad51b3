//! Filled by the next commits.
#![no_std]
#![deny(unsafe_code)]
