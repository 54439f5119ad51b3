//! The packet of our protocol: 32 bytes, then acknowledgement ranges, then payload. Big-endian.
//!
//! ```text
//!       0               1               2               3
//!    0 ┌───────┬───────┬───────────────┬───────────────┬───────────────┐
//!      │version│ type  │     flags     │ header words  │     span      │
//!    4 ├───────┴───────┴───────────────┴───────────────┴───────────────┤
//!      │            connection id, chosen by the receiver              │
//!    8 ├───────────────────────────────────────────────────────────────┤
//!      │              packet number, low 32 bits of 64                 │
//!   12 ├───────────────────────────────────────────────────────────────┤
//!      │              stream offset, low 32 bits of 64                 │
//!   16 ├───────────────────────────────────────────────────────────────┤
//!      │           credit: stream offset that may be sent to           │
//!   20 ├───────────────────────────────────────────────────────────────┤
//!      │           largest packet number received (ACK)                │
//!   24 ├───────────────────────────────┬───────────────────────────────┤
//!      │   ack delay in 8 us units     │        payload length         │
//!   28 ├───────────────────────────────┴───────────────────────────────┤
//!      │            CRC-32C of the packet, this field zero             │
//!   32 ├───────────────────────────────┬───────────────────────────────┤
//!      │    gap: packets missing       │    length: packets received   │  × (header words − 8)
//!      └───────────────────────────────┴───────────────────────────────┘
//! ```
//!
//! * All fields lie on their natural alignment, so a microcontroller reads them without faults.
//! * Packet numbers are never used twice: an acknowledgement names one transmission, so round trips and losses are known
//!   without guessing (what Karn's algorithm works around in TCP). Types that need no acknowledgement carry the number
//!   that comes next and do not use it up.
//! * Ranges go down from the largest number: skip `gap` numbers, then `length` numbers have been received, and so on.
//!   Without ranges the largest number alone is acknowledged.
//! * *Span* tells how many numbers before this one the sender still wants to hear about, as a small float
//!   ([`span_decode`]), so that the receiver can forget older ranges without a round of acknowledged acknowledgements.
//! * The payload length is checked against what the lower layer delivered: Ethernet pads short frames.

use core::fmt;

use super::{be16, be32, crc};

/// Bytes of the fixed part.
pub const HEADER: usize = 32;
/// The only version so far.
pub const VERSION: u8 = 1;
/// Acknowledgement ranges that fit the header-length field, and more than anybody sends.
pub const MAX_RANGES: usize = 64;

/// What a packet is.
///
/// The numbers 0 to 5 are those of the specification; 5 (pong) is not used, because a ping is answered by an
/// acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PacketType {
    /// A piece of the ordered stream.
    Data,
    /// Acknowledgement and credit alone.
    Ack,
    /// Asks for a connection; repeated with the cookie that [`Retry`](Self::Retry) brought.
    Syn,
    /// The stream ends at its offset.
    Fin,
    /// Asks for an acknowledgement.
    Ping,
    /// Brings a cookie to whoever really is at the source address of a `Syn`, without any state.
    Retry,
    /// Accepts a connection.
    Accept,
    /// "I know no such connection": repeats connection id and packet number of what it answers.
    Reset,
    /// Padded, to find out what the path carries, or with a cookie to prove a new address.
    Probe,
    /// A datagram: neither repeated nor ordered.
    Datagram,
}

impl PacketType {
    /// The number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Ack => 1,
            Self::Syn => 2,
            Self::Fin => 3,
            Self::Ping => 4,
            Self::Retry => 6,
            Self::Accept => 7,
            Self::Reset => 8,
            Self::Probe => 9,
            Self::Datagram => 10,
        }
    }

    /// From the low four bits of the first byte.
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Data,
            1 => Self::Ack,
            2 => Self::Syn,
            3 => Self::Fin,
            4 => Self::Ping,
            6 => Self::Retry,
            7 => Self::Accept,
            8 => Self::Reset,
            9 => Self::Probe,
            10 => Self::Datagram,
            _ => return None,
        })
    }

    /// Whether the receiver has to acknowledge it, which also means that it uses up a packet number.
    pub const fn is_eliciting(self) -> bool {
        matches!(self, Self::Data | Self::Fin | Self::Ping | Self::Probe | Self::Datagram)
    }
}

/// Flag bits.
pub mod flags {
    /// Largest number, ack delay and ranges are meant.
    pub const ACK: u8 = 1;
    /// Please acknowledge at once: the sender has nothing more to send.
    pub const PUSH: u8 = 2;
    /// A congestion mark (CE) was received since the last acknowledgement.
    pub const ECN_ECHO: u8 = 4;
}

/// The fixed fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the packet is.
    pub kind: PacketType,
    /// See [`flags`].
    pub flags: u8,
    /// See [`span_encode`].
    pub span: u8,
    /// Chosen by the receiver of the packet; 0 in a `Syn`.
    pub connection: u32,
    /// Low 32 bits of the packet number.
    pub number: u32,
    /// Low 32 bits of the stream offset of the payload.
    pub offset: u32,
    /// Low 32 bits of the stream offset that the receiver of this packet may send to.
    pub credit: u32,
    /// Low 32 bits of the largest packet number received.
    pub largest: u32,
    /// Time from receiving `largest` to sending this, in units of 8 us; saturates.
    pub ack_delay: u16,
}

impl Header {
    /// A header of type `kind` for `connection`, everything else zero.
    pub const fn new(kind: PacketType, connection: u32) -> Self {
        Self {
            kind,
            flags: 0,
            span: 0,
            connection,
            number: 0,
            offset: 0,
            credit: 0,
            largest: 0,
            ack_delay: 0,
        }
    }

    /// Whether acknowledgement fields are meant.
    pub const fn has_ack(&self) -> bool {
        self.flags & flags::ACK != 0
    }

    /// Finishes the packet in `packet`: writes the fixed part in front of `ranges` ranges and `payload` bytes that are
    /// already in place, and the CRC. Returns the length of the packet, `None` when the slice is shorter than that or
    /// `payload` does not fit 16 bits.
    ///
    /// ```
    /// use net_core::wire::header::{HEADER, Header, Packet, PacketType};
    ///
    /// let mut bytes = [0; 64];
    /// bytes[HEADER..HEADER + 5].copy_from_slice(b"hello");
    /// let len = Header::new(PacketType::Data, 7).emit(&mut bytes, 0, 5).unwrap();
    /// let packet = Packet::parse(&bytes[..len]).unwrap();
    /// assert_eq!((packet.header().connection, packet.payload()), (7, &b"hello"[..]));
    /// ```
    pub fn emit(&self, packet: &mut [u8], ranges: usize, payload: usize) -> Option<usize> {
        let words = u8::try_from(HEADER / 4 + ranges).ok()?;
        let len = HEADER + ranges * 4 + payload;
        let packet = packet.get_mut(..len)?;
        let payload = u16::try_from(payload).ok()?.to_be_bytes();
        let head = packet.first_chunk_mut::<HEADER>()?;
        let (number, offset) = (self.number.to_be_bytes(), self.offset.to_be_bytes());
        let (credit, largest) = (self.credit.to_be_bytes(), self.largest.to_be_bytes());
        head[0] = VERSION << 4 | self.kind.code();
        head[1] = self.flags;
        head[2] = words;
        head[3] = self.span;
        head[4..8].copy_from_slice(&self.connection.to_be_bytes());
        head[8..12].copy_from_slice(&number);
        head[12..16].copy_from_slice(&offset);
        head[16..20].copy_from_slice(&credit);
        head[20..24].copy_from_slice(&largest);
        head[24..26].copy_from_slice(&self.ack_delay.to_be_bytes());
        head[26..28].copy_from_slice(&payload);
        head[28..32].fill(0);
        let crc = crc::crc32c(packet);
        packet.get_mut(28..32)?.copy_from_slice(&crc.to_be_bytes());
        Some(len)
    }
}

/// Why bytes are not a packet of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseError {
    /// Shorter than its header or its payload length says.
    Truncated,
    /// A version that we do not speak.
    Version(u8),
    /// A type that we do not know.
    Type(u8),
    /// The header length is impossible.
    HeaderLength(u8),
    /// The CRC does not match: damaged on the way.
    Crc,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("truncated packet"),
            Self::Version(version) => write!(f, "unknown version {version}"),
            Self::Type(code) => write!(f, "unknown packet type {code}"),
            Self::HeaderLength(words) => write!(f, "impossible header length of {words} words"),
            Self::Crc => f.write_str("CRC mismatch"),
        }
    }
}

impl core::error::Error for ParseError {}

/// A packet whose length, version, type and CRC have been checked.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    header: Header,
    ranges: &'a [[u8; 4]],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Checks `bytes`, which may be longer than the packet (padding of the lower layer).
    ///
    /// # Errors
    ///
    /// One [`ParseError`] for each way of not being a packet of ours; the CRC is looked at last.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let head = bytes.first_chunk::<HEADER>().ok_or(ParseError::Truncated)?;
        if head[0] >> 4 != VERSION {
            return Err(ParseError::Version(head[0] >> 4));
        }
        let kind = PacketType::from_code(head[0] & 15).ok_or(ParseError::Type(head[0] & 15))?;
        let ranges = usize::from(head[2])
            .checked_sub(HEADER / 4)
            .filter(|&ranges| ranges <= MAX_RANGES)
            .ok_or(ParseError::HeaderLength(head[2]))?;
        let header_len = HEADER + ranges * 4;
        let len = header_len + usize::from(be16(&head[26..]));
        let bytes = bytes.get(..len).ok_or(ParseError::Truncated)?;
        let mut crc = crc::Crc32c::new();
        crc.update(&head[..28]);
        crc.update(&[0; 4]);
        crc.update(bytes.get(HEADER..).ok_or(ParseError::Truncated)?);
        if crc.finish() != be32(&head[28..]) {
            return Err(ParseError::Crc);
        }
        let header = Header {
            kind,
            flags: head[1],
            span: head[3],
            connection: be32(&head[4..]),
            number: be32(&head[8..]),
            offset: be32(&head[12..]),
            credit: be32(&head[16..]),
            largest: be32(&head[20..]),
            ack_delay: be16(&head[24..]),
        };
        let (ranges, payload) = bytes
            .get(HEADER..)
            .and_then(|rest| rest.split_at_checked(ranges * 4))
            .ok_or(ParseError::Truncated)?;
        Ok(Self { header, ranges: ranges.as_chunks().0, payload })
    }

    /// The fixed fields.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// What follows the header and the ranges.
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The acknowledgement ranges as (gap, length), from the largest number down.
    pub fn ranges(&self) -> impl Iterator<Item = (u16, u16)> + 'a {
        self.ranges.iter().map(|r| (be16(r), be16(&r[2..])))
    }
}

/// The smallest span code that stands for at least `packets` numbers; exact below 16, then within an eighth.
///
/// ```
/// use net_core::wire::header::{span_decode, span_encode};
/// assert_eq!(span_decode(span_encode(7)), 7);
/// assert!((1000..=1125).contains(&span_decode(span_encode(1000))));
/// ```
pub fn span_encode(packets: u64) -> u8 {
    // Codes are few and ordered by value: their position is found by its bits, then rounded up.
    let mut exponent = 0u8;
    let mut mantissa = packets;
    let mut inexact = false;
    while mantissa >= 16 {
        inexact |= mantissa & 1 == 1;
        mantissa >>= 1;
        exponent += 1;
    }
    mantissa += u64::from(inexact);
    if mantissa == 16 {
        mantissa = 8;
        exponent += 1;
    }
    let low = u8::try_from(mantissa).unwrap_or(15);
    if exponent == 0 && low < 8 { low } else { (exponent + 1).min(31) << 3 | (low & 7) }
}

/// How many numbers a span code stands for.
pub const fn span_decode(code: u8) -> u64 {
    let exponent = code >> 3;
    if exponent == 0 { code as u64 } else { (8 | (code & 7) as u64) << (exponent - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> ([u8; 64], usize) {
        let mut bytes = [0u8; 64];
        bytes[32..40].copy_from_slice(&[0, 0, 0, 3, 0, 2, 0, 1]);
        bytes[40..45].copy_from_slice(b"hello");
        let header = Header {
            kind: PacketType::Data,
            flags: flags::ACK | flags::PUSH,
            span: 9,
            connection: 0x0102_0304,
            number: 0xffff_fffb,
            offset: 0x1122_3344,
            credit: 0x5566_7788,
            largest: 0x99aa_bbcc,
            ack_delay: 0xddee,
        };
        let len = header.emit(&mut bytes, 2, 5).unwrap();
        (bytes, len)
    }

    #[test]
    fn layout_is_the_documented_one() {
        let (bytes, len) = example();
        assert_eq!(len, 45);
        let want = [
            0x10, 3, 10, 9, 1, 2, 3, 4, 0xff, 0xff, 0xff, 0xfb, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
            0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0, 5,
        ];
        assert_eq!(bytes[..28], want);
        let packet = Packet::parse(&bytes).unwrap();
        assert!(packet.ranges().eq([(0, 3), (2, 1)]));
        assert_eq!(packet.payload(), b"hello");
        assert_eq!(packet.header().credit, 0x5566_7788);
        let mut again = bytes;
        assert_eq!(packet.header().emit(&mut again, 2, 5), Some(45));
        assert_eq!(again, bytes);
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_refused() {
        let (bytes, len) = example();
        for cut in 0..len {
            assert_eq!(Packet::parse(&bytes[..cut]).unwrap_err(), ParseError::Truncated, "{cut}");
        }
        for bit in 0..len * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Packet::parse(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn padding_behind_the_packet_is_ignored() {
        let (bytes, len) = example();
        assert!(len < bytes.len() && Packet::parse(&bytes).is_ok());
    }

    #[test]
    fn spans_round_up_and_never_down() {
        for packets in (0..5000).chain([1 << 20, (1 << 31) - 1, 1 << 32]) {
            let span = span_decode(span_encode(packets));
            assert!(span >= packets && span <= packets + packets / 8, "{packets} became {span}");
        }
        assert!(span_decode(span_encode(u64::MAX)) >= 1 << 32);
    }
}
