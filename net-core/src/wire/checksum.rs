//! The Internet checksum (RFC 1071), its incremental form (RFC 1624), and pseudo-headers.
//!
//! The sum of 16-bit words modulo 65535 does not care in which width or byte order the words are added, as long as
//! carries come round (RFC 1071, section 2B). So eight bytes are added at a time in the machine's own order, and the
//! result is swapped once at the end. Any length, alignment and number of pieces is right, odd pieces included.
//!
//! It finds single flipped bits and is blind to swapped words; packets of our own protocol carry a [CRC](super::crc).

/// A checksum in progress over pieces of any length.
///
/// ```
/// use net_core::wire::checksum::Sum;
///
/// let mut sum = Sum::new();
/// sum.add(&[0x45, 0, 0x12]); // an odd piece
/// sum.add(&[0x34, 0x56, 0x78]);
/// assert_eq!(sum.finish(), net_core::wire::checksum::checksum(&[0x45, 0, 0x12, 0x34, 0x56, 0x78]));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Folded to 17 bits after each piece, so that it cannot overflow.
    total: u32,
    /// The next byte is the second half of a word.
    odd: bool,
}

impl Sum {
    /// An empty sum.
    pub const fn new() -> Self {
        Self { total: 0, odd: false }
    }

    /// The IPv4 pseudo-header of UDP and TCP (RFC 768): addresses, protocol, length of header and payload.
    pub fn ipv4_pseudo(source: [u8; 4], destination: [u8; 4], protocol: u8, len: u16) -> Self {
        let mut sum = Self::new();
        sum.add(&source);
        sum.add(&destination);
        sum.add(&[0, protocol]);
        sum.add(&len.to_be_bytes());
        sum
    }

    /// The IPv6 pseudo-header (RFC 8200, section 8.1).
    pub fn ipv6_pseudo(source: [u8; 16], destination: [u8; 16], next_header: u8, len: u32) -> Self {
        let mut sum = Self::new();
        sum.add(&source);
        sum.add(&destination);
        sum.add(&len.to_be_bytes());
        sum.add(&[0, 0, 0, next_header]);
        sum
    }

    /// Adds a piece; a piece of odd length may be followed by others.
    pub fn add(&mut self, piece: &[u8]) {
        let sum = u32::from(native_sum(piece).to_be());
        // A piece that starts in the middle of a word has its bytes in the other half: swap (RFC 1071, section 2B).
        let sum = if self.odd { (sum >> 8 | sum << 8) & 0xffff } else { sum };
        self.total = fold32(self.total + sum);
        self.odd ^= piece.len() % 2 == 1;
    }

    /// The complemented sum, as it stands in a header field.
    pub const fn finish(self) -> u16 {
        !low16(fold32(fold32(self.total)))
    }

    /// Whether the pieces, with their checksum field among them, sum up to a valid packet.
    pub const fn is_valid(self) -> bool {
        self.finish() == 0
    }
}

/// The complemented checksum of `data` with its checksum field zero, as it stands in the header.
///
/// The empty slice has the checksum `0xffff`. Work is linear in the length; no length overflows.
///
/// ```
/// // The example of RFC 1071, section 3: sum ddf2, complemented 220d.
/// assert_eq!(net_core::wire::checksum::checksum(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]), 0x220d);
/// ```
pub fn checksum(data: &[u8]) -> u16 {
    !native_sum(data).to_be()
}

/// Copies `from` to the start of `to` and returns the [`checksum`] of the bytes, touching them once; `None` when `to` is
/// shorter.
///
/// ```
/// use net_core::wire::checksum::{checksum, copy};
/// let mut to = [0; 8];
/// assert_eq!(copy(&mut to, b"packet"), Some(checksum(b"packet")));
/// assert_eq!(&to[..6], b"packet");
/// assert_eq!(copy(&mut to[..5], b"packet"), None);
/// ```
pub fn copy(to: &mut [u8], from: &[u8]) -> Option<u16> {
    let to = to.get_mut(..from.len())?;
    #[cfg(target_arch = "x86_64")]
    if let Some((sum, done)) = super::x86_64::checksum::copy_blocks(super::x86_64::features(), to, from) {
        let (to, from) = (to.get_mut(done..)?, from.get(done..)?);
        to.copy_from_slice(from);
        return Some(!fold64(sum + portable_sum(from)).to_be());
    }
    // In pieces that are still in the nearest cache when they are added up.
    let mut sum = 0;
    for (to, from) in to.chunks_mut(1024).zip(from.chunks(1024)) {
        to.copy_from_slice(from);
        sum += u64::from(fold64(portable_sum(from)));
    }
    Some(!fold64(sum).to_be())
}

/// The checksum after a 16-bit field of the packet changed from `old` to `new`.
///
/// Source: RFC 1624, equation 3, which is right also where the shorter form of RFC 1141 gives the other zero.
///
/// ```
/// use net_core::wire::checksum::{checksum, update};
/// let before = checksum(&[0x12, 0x34, 0x56, 0x78]);
/// assert_eq!(update(before, 0x5678, 0x9abc), checksum(&[0x12, 0x34, 0x9a, 0xbc]));
/// ```
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = !checksum as u32 + !old as u32 + new as u32;
    !low16(fold32(fold32(sum)))
}

/// Sum of the words in the machine's byte order, folded to 16 bits.
fn native_sum(data: &[u8]) -> u16 {
    #[cfg(target_arch = "x86_64")]
    if let Some((sum, done)) = super::x86_64::checksum::sum_blocks(super::x86_64::features(), data) {
        return fold64(sum + portable_sum(data.get(done..).unwrap_or(&[])));
    }
    fold64(portable_sum(data))
}

/// Sum of the words in the machine's byte order, as up to 48 bits.
fn portable_sum(data: &[u8]) -> u64 {
    let mut lanes = [0u64; 4];
    let (blocks, rest) = data.as_chunks::<32>();
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
            let (sum, carry) = lane.overflowing_add(u64::from_ne_bytes(*word));
            *lane = sum + u64::from(carry); // cannot overflow again: a sum that carried is below u64::MAX
        }
    }
    let mut total: u64 = lanes.iter().map(|&lane| halves(lane)).sum();
    let (words, rest) = rest.as_chunks::<4>();
    total += words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum::<u64>();
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    total + u64::from(u32::from_ne_bytes(last))
}

/// Both halves of a lane, so that some billions of them can be added without a carry.
const fn halves(lane: u64) -> u64 {
    (lane >> 32) + (lane & 0xffff_ffff)
}

const fn fold64(sum: u64) -> u16 {
    let sum = halves(halves(sum));
    #[allow(clippy::cast_possible_truncation, reason = "`halves` twice leaves at most 32 bits")]
    let sum = sum as u32;
    low16(fold32(fold32(sum)))
}

const fn fold32(sum: u32) -> u32 {
    (sum >> 16) + (sum & 0xffff)
}

#[allow(clippy::cast_possible_truncation, reason = "callers have folded the sum to 16 bits")]
const fn low16(sum: u32) -> u16 {
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    /// RFC 1071 as it reads: 16-bit words, wide enough never to overflow.
    fn plain(data: &[u8]) -> u16 {
        let mut sum: u64 =
            data.chunks(2).map(|w| u64::from(w[0]) << 8 | u64::from(w.get(1).copied().unwrap_or(0))).sum();
        while sum >> 16 != 0 {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        !u16::try_from(sum).unwrap()
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x1234_5678_9abc_def1u64;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                state.to_be_bytes()[0]
            })
            .collect()
    }

    #[test]
    fn every_length_and_offset_agrees_with_the_plain_sum() {
        for bytes in [noise(200_008), vec![0xff; 200_008], vec![0; 200_008]] {
            for len in (0..300).chain([1500, 9000, 65_535, 131_078, 200_000]) {
                for offset in [0, 1, 3] {
                    let data = &bytes[offset..offset + len];
                    assert_eq!(checksum(data), plain(data), "{len} bytes at {offset}");
                    assert_eq!(!fold64(portable_sum(data)).to_be(), plain(data), "{len} bytes at {offset}");
                    if len <= 9000 {
                        let mut to = vec![0xaa; len + 1];
                        assert_eq!(copy(&mut to, data), Some(plain(data)), "{len} bytes at {offset}");
                        assert!(to[..len] == *data && to[len] == 0xaa);
                    }
                }
            }
        }
    }

    #[test]
    fn every_split_into_three_pieces_gives_the_same_sum() {
        let data = noise(67);
        for a in 0..=data.len() {
            for b in a..=data.len() {
                let mut sum = Sum::new();
                for piece in [&data[..a], &data[a..b], &data[b..]] {
                    sum.add(piece);
                }
                assert_eq!(sum.finish(), plain(&data), "{a} {b}");
            }
        }
    }

    #[test]
    fn incremental_update_equals_summing_again_for_all_corners() {
        let corners = [0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff, 0x1234];
        for rest in corners {
            for old in corners {
                for new in corners {
                    let sum = |field: u16| {
                        let [a, b, c, d] = [u16::to_be_bytes(rest), field.to_be_bytes()].concat()[..] else {
                            unreachable!()
                        };
                        // A third word keeps the sum from being zero in all words, where both zeros are right.
                        plain(&[a, b, c, d, 0x40, 0])
                    };
                    assert_eq!(update(sum(old), old, new), sum(new), "{rest:x} {old:x} {new:x}");
                }
            }
        }
    }

    #[test]
    fn pseudo_headers_protect_addresses_and_protocol() {
        let of = |s, p| Sum::ipv4_pseudo(s, [10, 0, 0, 2], p, 8).finish();
        assert_ne!(of([10, 0, 0, 1], 17), of([10, 0, 0, 3], 17));
        assert_ne!(of([10, 0, 0, 1], 17), of([10, 0, 0, 1], 253));
        let six = Sum::ipv6_pseudo([1; 16], [2; 16], 17, 0x0001_0008);
        assert_eq!(six.finish(), plain(&[vec![1; 16], vec![2; 16], vec![0, 1, 0, 8, 0, 0, 0, 17]].concat()));
    }
}
