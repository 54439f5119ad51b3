//! Bytes of a packet: views, representations, checksums and serial framing.
//!
//! A *view* (`Packet`, `Header`) is made from a slice by one length check and cannot panic after it; a *repr* is the
//! owned set of fields that a view parses into and that emits itself again. Nothing here allocates.

pub mod checksum;
pub mod cobs;
pub mod crc;
pub mod header;
pub mod ipv4;
pub mod udp;
#[cfg(target_arch = "x86_64")]
mod x86_64;

/// Big-endian 16 bits at the start of `bytes`; zero when there are fewer.
pub(crate) fn be16(bytes: &[u8]) -> u16 {
    bytes.first_chunk().map_or(0, |b| u16::from_be_bytes(*b))
}

/// Big-endian 32 bits at the start of `bytes`; zero when there are fewer.
pub(crate) fn be32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |b| u32::from_be_bytes(*b))
}

/// Big-endian 64 bits at the start of `bytes`; zero when there are fewer.
pub(crate) fn be64(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |b| u64::from_be_bytes(*b))
}
