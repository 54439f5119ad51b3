//! CRC-32C (Castagnoli, RFC 3385 and RFC 9260 appendix A): the check of our own packets.
//!
//! Polynomial 0x1edc6f41, reflected, initial value and final xor all ones. It finds every error of up to five flipped
//! bits in a packet of Ethernet size, every burst of up to 32 bits, and what the Internet checksum cannot see: swapped
//! words and moved blocks.
//!
//! [`crc32c`] uses what the processor has, found out at run time: carry-less multiplication of 512 or 128 bits, the `crc32`
//! instruction (x86-64), else eight bytes at a time looked up in 8 KiB of tables. [`small`] needs a table of 64 bytes and is
//! what a small flash wants (feature `small-crc` makes the protocol use it).

/// CRC-32C of `data`.
///
/// ```
/// assert_eq!(net_core::wire::crc::crc32c(b"123456789"), 0xe306_9283);
/// ```
pub fn crc32c(data: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(data);
    crc.finish()
}

/// A CRC-32C in progress over pieces.
///
/// ```
/// use net_core::wire::crc::{Crc32c, crc32c};
///
/// let mut crc = Crc32c::new();
/// crc.update(b"1234");
/// crc.update(b"56789");
/// assert_eq!(crc.finish(), crc32c(b"123456789"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crc32c(u32);

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

impl Crc32c {
    /// Nothing added yet.
    pub const fn new() -> Self {
        Self(!0)
    }

    /// Adds a piece.
    pub fn update(&mut self, data: &[u8]) {
        self.0 = advance(self.0, data);
    }

    /// The CRC of all pieces.
    pub const fn finish(self) -> u32 {
        !self.0
    }
}

/// CRC-32C by half-bytes with a table of 64 bytes: about 30 times slower and 8 KiB smaller.
///
/// ```
/// use net_core::wire::crc::{crc32c, small};
/// assert_eq!(small(b"ground plane"), crc32c(b"ground plane"));
/// ```
pub fn small(data: &[u8]) -> u32 {
    !advance_small(!0, data)
}

fn advance(state: u32, data: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if let Some(state) = super::x86_64::crc::advance(super::x86_64::features(), state, data) {
        return state;
    }
    if cfg!(feature = "small-crc") { advance_small(state, data) } else { tables::advance(state, data) }
}

fn advance_small(mut state: u32, data: &[u8]) -> u32 {
    for &byte in data {
        state ^= u32::from(byte);
        state = (state >> 4) ^ NIBBLES[(state & 15) as usize];
        state = (state >> 4) ^ NIBBLES[(state & 15) as usize];
    }
    state
}

mod tables {
    /// `TABLES[k][b]`: byte `b` followed by `k` zero bytes.
    static TABLES: [[u32; 256]; 8] = {
        let mut tables = [[0; 256]; 8];
        let mut byte = 0;
        while byte < 256 {
            #[allow(clippy::cast_possible_truncation, reason = "below 256")]
            let mut crc = byte as u32;
            let mut k = 0;
            while k < 8 {
                crc = super::shift(super::shift(crc, 4), 4);
                tables[k][byte] = crc;
                k += 1;
            }
            byte += 1;
        }
        tables
    };

    /// Slicing by eight: the lookups of one step do not wait for each other.
    pub(super) fn advance(mut state: u32, data: &[u8]) -> u32 {
        let (blocks, rest) = data.as_chunks::<8>();
        for &[a, b, c, d, e, f, g, h] in blocks {
            let [s, t, u, v] = (state ^ u32::from_le_bytes([a, b, c, d])).to_le_bytes();
            let at = |k: usize, byte: u8| TABLES[k][usize::from(byte)];
            state = at(7, s) ^ at(6, t) ^ at(5, u) ^ at(4, v) ^ at(3, e) ^ at(2, f) ^ at(1, g) ^ at(0, h);
        }
        for &byte in rest {
            state = (state >> 8) ^ TABLES[0][usize::from(state.to_le_bytes()[0] ^ byte)];
        }
        state
    }
}

/// `bits` zero bits through the reflected polynomial.
pub(super) const fn shift(mut crc: u32, bits: u32) -> u32 {
    let mut bit = 0;
    while bit < bits {
        crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        bit += 1;
    }
    crc
}

const NIBBLES: [u32; 16] = {
    let mut table = [0; 16];
    let mut nibble = 0;
    while nibble < 16 {
        #[allow(clippy::cast_possible_truncation, reason = "below 16")]
        let bits = nibble as u32;
        table[nibble] = shift(bits, 4);
        nibble += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// Bit by bit, as the standard writes it.
    fn plain(data: &[u8]) -> u32 {
        !data.iter().fold(!0, |crc, &byte| shift(crc ^ u32::from(byte), 8))
    }

    #[test]
    fn vectors_of_rfc_3720_appendix_b_4() {
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        for (data, want) in [
            (&[0; 32][..], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
            (&descending, 0x113f_db5c),
        ] {
            assert_eq!(crc32c(data), want);
            assert_eq!(small(data), want);
        }
    }

    #[test]
    fn every_length_and_split_agrees_bit_by_bit() {
        let data: Vec<u8> = (0..1400u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for len in 0..data.len() {
            let data = &data[len % 5 % data.len().max(1)..len.max(len % 5)];
            let want = plain(data);
            assert_eq!(crc32c(data), want, "{len}");
            assert_eq!(!tables::advance(!0, data), want, "{len}");
            assert_eq!(small(data), want, "{len}");
            #[cfg(target_arch = "x86_64")]
            crate::wire::x86_64::crc::check_every_path(data, want);
            let mut pieces = Crc32c::new();
            let (a, b) = data.split_at(data.len() / 3);
            pieces.update(a);
            pieces.update(b);
            assert_eq!(pieces.finish(), want, "{len}");
        }
    }
}
