//! Filled by the next commits.
#![no_std]
