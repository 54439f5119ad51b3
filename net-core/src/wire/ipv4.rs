//! IPv4 headers (RFC 791), for links that carry bare IP.

use super::{be16, checksum};

/// Bytes of a header without options.
pub const HEADER: usize = 20;

/// The fields that a sender chooses. Options are never sent; don't-fragment is always set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Where it comes from.
    pub source: [u8; 4],
    /// Where it goes.
    pub destination: [u8; 4],
    /// What it carries (IANA protocol numbers; 253 is for experiments, RFC 3692).
    pub protocol: u8,
    /// Differentiated services and congestion bits.
    pub tos: u8,
    /// Hops left.
    pub ttl: u8,
}

impl Repr {
    /// Writes header and checksum in front of `payload` bytes; `None` when `packet` has no room or the total passes
    /// 65535 bytes.
    pub fn emit(&self, packet: &mut [u8], payload: usize) -> Option<()> {
        let total = u16::try_from(HEADER + payload).ok()?;
        let head = packet.first_chunk_mut::<HEADER>()?;
        *head = [0; HEADER];
        head[0] = 0x45;
        head[1] = self.tos;
        head[2..4].copy_from_slice(&total.to_be_bytes());
        head[6] = 0x40; // do not fragment
        head[8] = self.ttl;
        head[9] = self.protocol;
        head[12..16].copy_from_slice(&self.source);
        head[16..20].copy_from_slice(&self.destination);
        let sum = checksum::checksum(head);
        head[10..12].copy_from_slice(&sum.to_be_bytes());
        Some(())
    }
}

/// A whole, unfragmented packet whose lengths have been checked.
///
/// ```
/// use net_core::wire::ipv4;
///
/// let repr = ipv4::Repr { source: [10, 0, 0, 1], destination: [10, 0, 0, 2], protocol: 253, tos: 0, ttl: 64 };
/// let mut bytes = [0; 24];
/// repr.emit(&mut bytes, 4).unwrap();
/// let packet = ipv4::Packet::parse(&bytes).unwrap();
/// assert!(packet.is_valid());
/// assert_eq!((packet.repr(), packet.payload().len()), (repr, 4));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    header: &'a [u8],
    fixed: &'a [u8; HEADER],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// `None` for what is not a whole unfragmented IPv4 packet. Bytes behind the total length are ignored; the checksum
    /// is left to [`is_valid`](Self::is_valid), because hardware may have checked it.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let fixed = bytes.first_chunk::<HEADER>()?;
        let header_len = usize::from(fixed[0] & 15) * 4;
        let whole = fixed[0] >> 4 == 4 && header_len >= HEADER && be16(&fixed[6..]) & 0x3fff == 0;
        let packet = bytes.get(..usize::from(be16(&fixed[2..])))?;
        let (header, payload) = packet.split_at_checked(header_len)?;
        whole.then_some(Self { header, fixed, payload })
    }

    /// Whether the header checksum is right.
    pub fn is_valid(&self) -> bool {
        checksum::checksum(self.header) == 0
    }

    /// The fields.
    pub const fn repr(&self) -> Repr {
        let h = self.fixed;
        Repr {
            source: [h[12], h[13], h[14], h[15]],
            destination: [h[16], h[17], h[18], h[19]],
            protocol: h[9],
            tos: h[1],
            ttl: h[8],
        }
    }

    /// What follows the header and its options.
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncated_fragmented_and_damaged_packets_are_seen() {
        let repr = Repr { source: [1; 4], destination: [2; 4], protocol: 17, tos: 2, ttl: 3 };
        let mut bytes = [0; 30];
        repr.emit(&mut bytes, 10).unwrap();
        assert!((0..30).all(|cut| Packet::parse(&bytes[..cut]).is_none()));
        for bit in 0..HEADER * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Packet::parse(&damaged).is_none_or(|p| !p.is_valid()), "bit {bit}");
        }
        let mut fragment = bytes;
        fragment[6] = 0x20;
        assert!(Packet::parse(&fragment).is_none());
        assert!(repr.emit(&mut bytes, 65_520).is_none());
    }
}
