//! Registers, time and the traits that devices implement.
//!
//! This crate is the ground that the groundplane family stands on. It holds the *ports*: small traits that a driver, a
//! chip or an operating system implements, and that the cores (`alloc-core`, `net-core`, `rt-irq`) and applications are
//! written against. A trait lives here when somebody could implement it without knowing any core.
//!
//! | module | holds |
//! | --- | --- |
//! | [`time`] | [`Instant`](time::Instant) and [`Span`](time::Span) in nanoseconds, the [`Clock`](time::Clock) port |
//! | [`link`] | packets: the [`Link`](link::Link) port, which lends packet memory instead of copying it |
//! | [`storage`] | blocks: the [`Storage`](storage::Storage) port, whose operations own their buffers |
//! | [`volume`] | names of files: the [`Volume`](volume::Volume) port beside it |
//! | [`readiness`] | sleeping and waking: the [`Park`](readiness::Park), [`Unpark`](readiness::Unpark) and [`Readiness`](readiness::Readiness) ports |
//! | [`irq`] | interrupt lines: the [`IrqController`](irq::IrqController) port |
//! | [`fake`] | (feature `fake`) the same ports without hardware: manual clock, faulty links and disks |
//!
//! What it refuses to do: it names no operating system, makes no reference to device memory, never sleeps outside
//! [`Park`](readiness::Park), and never allocates with default features.
#![no_std]
#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(test, feature = "alloc"))]
extern crate alloc;

#[cfg(feature = "fake")]
pub mod fake;
pub mod irq;
pub mod link;
pub mod readiness;
pub mod storage;
pub mod time;
pub mod volume;
