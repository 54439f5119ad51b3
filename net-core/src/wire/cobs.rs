//! Packets on a serial line: consistent overhead byte stuffing.
//!
//! COBS (Cheshire and Baker, IEEE/ACM Transactions on Networking 7(2), 1999) removes zero bytes from a packet at a cost
//! of one byte in 254, so that a zero can mark its end. After any damage the receiver is in step again at the next zero.
//!
//! ```text
//!  packet   11 00 22 33        encoded   02 11 03 22 33 | 00
//!                                        ^ distance to the next zero of the packet
//! ```

/// Bytes that `len` bytes need at most when encoded, the closing zero included.
pub const fn max_encoded_len(len: usize) -> usize {
    len + len / 254 + 2
}

/// Encodes `packet` into `out` with a closing zero and returns the number of bytes written; `None` when `out` is too
/// small, which [`max_encoded_len`] rules out.
///
/// ```
/// use net_core::wire::cobs;
///
/// let mut line = [0; 8];
/// let len = cobs::encode(&[0x11, 0, 0x22, 0x33], &mut line).unwrap();
/// assert_eq!(line[..len], [2, 0x11, 3, 0x22, 0x33, 0]);
/// let mut packet = [0; 8];
/// assert_eq!(cobs::decode(&line[..len - 1], &mut packet), Ok(4));
/// ```
pub fn encode(packet: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut at = 0;
    // Runs between zeros; the last one is not followed by a zero, which the encoding pretends.
    for run in packet.split(|&byte| byte == 0) {
        let mut run = run;
        while run.len() >= 254 {
            let (block, rest) = run.split_at(254);
            at = put(out, at, 255, block)?;
            run = rest;
        }
        at = put(out, at, u8::try_from(run.len() + 1).ok()?, run)?;
    }
    *out.get_mut(at)? = 0;
    Some(at + 1)
}

fn put(out: &mut [u8], at: usize, code: u8, run: &[u8]) -> Option<usize> {
    let (first, rest) = out.get_mut(at..)?.split_first_mut()?;
    *first = code;
    rest.get_mut(..run.len())?.copy_from_slice(run);
    Some(at + 1 + run.len())
}

/// Why an encoded packet was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// A zero inside, or a distance that points past the end: damaged.
    Malformed,
    /// The packet is longer than the buffer.
    TooLong,
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed COBS packet",
            Self::TooLong => "packet is longer than the buffer",
        })
    }
}

impl core::error::Error for DecodeError {}

/// Decodes one packet, given without its closing zero, and returns its length.
///
/// # Errors
///
/// [`DecodeError::Malformed`] for a zero inside or a distance past the end, [`DecodeError::TooLong`] when `out` is too
/// small for what it would give.
pub fn decode(encoded: &[u8], out: &mut [u8]) -> Result<usize, DecodeError> {
    let mut rest = encoded;
    let mut at = 0;
    while let Some((&code, tail)) = rest.split_first() {
        let run = usize::from(code).checked_sub(1).ok_or(DecodeError::Malformed)?;
        let (block, tail) = tail.split_at_checked(run).ok_or(DecodeError::Malformed)?;
        if block.contains(&0) {
            return Err(DecodeError::Malformed);
        }
        out.get_mut(at..at + run).ok_or(DecodeError::TooLong)?.copy_from_slice(block);
        at += run;
        if code < 255 && !tail.is_empty() {
            *out.get_mut(at).ok_or(DecodeError::TooLong)? = 0;
            at += 1;
        }
        rest = tail;
    }
    Ok(at)
}

/// Takes bytes as a UART gives them and hands out whole packets of up to `N` bytes, decoded as they come.
///
/// Damage costs the packet it is in; [`bad`](Self::bad) counts. The empty packet (two zeros in a row, as idle lines and
/// deliberate resynchronisation give) is skipped silently.
///
/// ```
/// use net_core::wire::cobs::Decoder;
///
/// let mut decoder = Decoder::<64>::new();
/// let mut got = None;
/// for byte in [9, 0xee, 0, 2, 0x11, 3, 0x22, 0x33, 0] { // noise, then a packet
///     if let Some(packet) = decoder.push(byte) {
///         got = Some(packet.to_vec());
///     }
/// }
/// assert_eq!(got.unwrap(), [0x11, 0, 0x22, 0x33]);
/// assert_eq!(decoder.bad(), 1);
/// ```
#[derive(Debug)]
pub struct Decoder<const N: usize> {
    buffer: [u8; N],
    len: usize,
    /// Bytes of the current run that are still to come.
    run: u8,
    /// The code of the current run; 0 before the first.
    code: u8,
    /// The current packet is damaged or too long: wait for its end.
    skip: bool,
    /// `buffer[..len]` was handed out and starts anew with the next byte.
    done: bool,
    bad: u32,
}

impl<const N: usize> Default for Decoder<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Decoder<N> {
    /// A decoder at the start of a packet.
    pub const fn new() -> Self {
        Self { buffer: [0; N], len: 0, run: 0, code: 0, skip: false, done: false, bad: 0 }
    }

    /// Takes one byte; the packet that it completes, if any, is lent until the next call.
    pub fn push(&mut self, byte: u8) -> Option<&mut [u8]> {
        if self.done {
            self.done = false;
            self.len = 0;
        }
        if byte == 0 {
            let whole = !self.skip && self.run == 0 && self.code != 0;
            let started = self.skip || self.code != 0;
            self.code = 0;
            self.run = 0;
            self.skip = false;
            self.done = true;
            self.bad = self.bad.wrapping_add(u32::from(started && !whole));
            return if whole && self.len > 0 { self.buffer.get_mut(..self.len) } else { None };
        }
        if self.skip {
            return None;
        }
        if self.run == 0 {
            // A code byte. The run before it ended with a zero of the packet unless it was the first or a full one.
            if self.code != 0 && self.code != 255 {
                self.store(0);
            }
            self.code = byte;
            self.run = byte - 1;
        } else {
            self.run -= 1;
            self.store(byte);
        }
        None
    }

    /// Packets lost to damage or length since the start; wraps.
    pub const fn bad(&self) -> u32 {
        self.bad
    }

    fn store(&mut self, byte: u8) {
        match self.buffer.get_mut(self.len) {
            Some(slot) => {
                *slot = byte;
                self.len += 1;
            }
            None => self.skip = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn packets() -> Vec<Vec<u8>> {
        let mut all = vec![vec![0], vec![0, 0], vec![1], vec![0, 1], vec![1, 0]];
        for len in [253, 254, 255, 256, 507, 508, 509, 510, 600] {
            all.push(vec![7; len]);
            all.push(vec![0; len]);
            all.push((0..=255).cycle().take(len).collect());
            let mut ends_with_zero = vec![9; len];
            *ends_with_zero.last_mut().unwrap() = 0;
            all.push(ends_with_zero);
        }
        all
    }

    #[test]
    fn packets_come_back_from_slice_and_stream() {
        let mut decoder = Decoder::<600>::new();
        for packet in packets() {
            let mut line = vec![0xaa; max_encoded_len(packet.len())];
            let len = encode(&packet, &mut line).expect("fits by max_encoded_len");
            assert!(!line[..len - 1].contains(&0) && line[len - 1] == 0);
            let mut out = vec![0; 600];
            let n = decode(&line[..len - 1], &mut out).unwrap();
            assert_eq!(out[..n], packet);
            let mut streamed = None;
            for &byte in &line[..len] {
                if let Some(packet) = decoder.push(byte) {
                    streamed = Some(packet.to_vec());
                }
            }
            assert_eq!(streamed.as_ref(), Some(&packet));
        }
        assert_eq!(decoder.bad(), 0);
    }

    #[test]
    fn any_flipped_byte_costs_at_most_its_packet_and_the_next() {
        let packet = [1, 0, 2, 3, 0, 0, 4];
        let mut line = [0; 16];
        let len = encode(&packet, &mut line).unwrap();
        for at in 0..len {
            for value in 0..=255u8 {
                let mut stream = line[..len].to_vec();
                stream[at] = value;
                let mut decoder = Decoder::<16>::new();
                let mut last = None;
                for &byte in stream.iter().chain(&line[..len]).chain(&line[..len]) {
                    if let Some(packet) = decoder.push(byte) {
                        last = Some(packet.to_vec());
                    }
                }
                assert_eq!(last.as_deref(), Some(&packet[..]), "byte {at} = {value}");
                let mut out = [0; 16];
                let _ = decode(&stream, &mut out); // must not panic
            }
        }
    }

    #[test]
    fn too_long_packets_are_counted_and_skipped() {
        let mut decoder = Decoder::<4>::new();
        assert!([6, 1, 2, 3, 4, 5, 0].iter().all(|&byte| decoder.push(byte).is_none()));
        assert_eq!(decoder.bad(), 1);
        assert_eq!(decode(&[6, 1, 2, 3, 4, 5], &mut [0; 4]), Err(DecodeError::TooLong));
        assert_eq!(decode(&[6, 1], &mut [0; 9]), Err(DecodeError::Malformed));
        assert!(encode(&[1, 2, 3], &mut [0; 4]).is_none());
    }
}
