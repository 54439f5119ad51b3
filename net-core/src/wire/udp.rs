//! UDP headers (RFC 768), for links that carry bare IP.

use super::{be16, checksum::Sum};

/// Bytes of a header.
pub const HEADER: usize = 8;
/// Protocol number of UDP in IP.
pub const PROTOCOL: u8 = 17;

/// Writes header and checksum in front of the payload that already fills `packet[HEADER..]`; `None` when `packet` is
/// shorter than a header or longer than 65535 bytes.
///
/// ```
/// use net_core::wire::udp;
///
/// let mut bytes = *b"--------ping";
/// udp::emit(&mut bytes, 1000, 2000, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
/// let packet = udp::Packet::parse(&bytes).unwrap();
/// assert_eq!((packet.source(), packet.destination(), packet.payload()), (1000, 2000, &b"ping"[..]));
/// assert!(packet.is_valid([10, 0, 0, 1], [10, 0, 0, 2]));
/// ```
pub fn emit(packet: &mut [u8], from_port: u16, to_port: u16, from: [u8; 4], to: [u8; 4]) -> Option<()> {
    let len = u16::try_from(packet.len()).ok()?;
    let head = packet.first_chunk_mut::<HEADER>()?;
    head[..2].copy_from_slice(&from_port.to_be_bytes());
    head[2..4].copy_from_slice(&to_port.to_be_bytes());
    head[4..6].copy_from_slice(&len.to_be_bytes());
    head[6..8].fill(0);
    let mut sum = Sum::ipv4_pseudo(from, to, PROTOCOL, len);
    sum.add(packet);
    // Zero means "no checksum", so a sum of zero is sent as its other form (RFC 768).
    let sum = if sum.finish() == 0 { 0xffff } else { sum.finish() };
    packet.get_mut(6..8)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// A datagram whose lengths have been checked.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    head: &'a [u8; HEADER],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// `None` when `bytes` are shorter than the header or than its length field says. Bytes behind are ignored.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let head = bytes.first_chunk::<HEADER>()?;
        let bytes = bytes.get(..usize::from(be16(&head[4..])))?;
        Some(Self { bytes, head, payload: bytes.get(HEADER..)? })
    }

    /// Port of the sender.
    pub fn source(&self) -> u16 {
        be16(self.head)
    }

    /// Port of the receiver.
    pub fn destination(&self) -> u16 {
        be16(&self.head[2..])
    }

    /// What it carries.
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Whether the checksum over pseudo-header and datagram is right, or absent.
    pub fn is_valid(&self, from: [u8; 4], to: [u8; 4]) -> bool {
        let mut sum = Sum::ipv4_pseudo(from, to, PROTOCOL, be16(&self.head[4..]));
        sum.add(self.bytes);
        be16(&self.head[6..]) == 0 || sum.is_valid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flipped_bits_and_wrong_hosts_are_seen() {
        let (from, to) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let mut bytes = [7u8; 21];
        emit(&mut bytes, 5, 6, from, to).unwrap();
        assert!(Packet::parse(&bytes).unwrap().is_valid(from, to));
        assert!(!Packet::parse(&bytes).unwrap().is_valid(from, [10, 0, 0, 3]));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Packet::parse(&damaged).is_none_or(|p| !p.is_valid(from, to)), "bit {bit}");
        }
        assert!((0..21).all(|cut| Packet::parse(&bytes[..cut]).is_none()));
    }
}
