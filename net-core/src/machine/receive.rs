//! Reassembly: a ring that pieces of the stream are written into at their place, and messages are lent from.
//!
//! A message that runs over the end of the ring is made contiguous by rotating the ring, which happens at most once a
//! round through it: about two copies of each byte at worst, none for most.

use crate::ranges::{Insert, Range, RangeSet};
use crate::seq::low;

#[derive(Debug)]
pub(crate) struct ReceiveBuffer<T, G> {
    bytes: T,
    /// Index of the byte at offset `read`.
    head: usize,
    /// Where the next message starts: everything before has been consumed.
    read: u64,
    /// Everything before has been received.
    next: u64,
    /// Pieces received beyond `next`.
    pieces: RangeSet<G>,
    max_message: usize,
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Something new, in order or not.
    New,
    /// All of it was there.
    Known,
    /// Not taken: it would need one more gap than are kept. The sender will repeat it.
    Refused,
    /// Beyond the credit that was given.
    BeyondCredit,
}

/// The peer announces a message longer than was agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl<T, G> ReceiveBuffer<T, G>
where
    T: AsRef<[u8]> + AsMut<[u8]>,
    G: AsRef<[Range]> + AsMut<[Range]>,
{
    pub(crate) fn new(bytes: T, gaps: G, max_message: usize) -> Self {
        let max_message = max_message.min(bytes.as_ref().len().saturating_sub(super::send::MAX_PREFIX));
        Self { bytes, head: 0, read: 0, next: 0, pieces: RangeSet::new(gaps), max_message }
    }

    /// Empties the buffer for a stream that starts at `start`.
    pub(crate) fn restart(&mut self, start: u64) {
        (self.head, self.read, self.next) = (0, start, start);
        self.pieces.clear();
    }

    pub(crate) fn capacity(&self) -> usize {
        self.bytes.as_ref().len()
    }

    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    /// The offset that the peer may send up to.
    pub(crate) fn credit(&self) -> u64 {
        self.read + self.capacity() as u64
    }

    /// Pieces wait behind a gap.
    pub(crate) fn has_gap(&self) -> bool {
        !self.pieces.as_slice().is_empty()
    }

    pub(crate) fn on_piece(&mut self, offset: u64, piece: &[u8]) -> Piece {
        let end = offset.saturating_add(piece.len() as u64);
        if end > self.credit() {
            return Piece::BeyondCredit;
        }
        if end <= self.next {
            return Piece::Known;
        }
        if offset > self.next {
            match self.pieces.insert(Range { start: low(offset), end: low(end) }) {
                Insert::New => {}
                Insert::Known => return Piece::Known,
                Insert::Full => return Piece::Refused,
            }
        }
        let skip = usize::try_from(self.next.saturating_sub(offset)).unwrap_or(piece.len());
        if let Some(fresh) = piece.get(skip..) {
            self.write(offset + skip as u64, fresh);
        }
        if offset <= self.next {
            self.next = end;
            // What waited behind the gap that is now filled.
            while let Some(last) = self.pieces.as_slice().last().copied() {
                let start = crate::seq::expand(last.start, self.next);
                if start > self.next {
                    break;
                }
                self.next = self.next.max(start + u64::from(last.len()));
                self.pieces.forget_oldest();
            }
        }
        Piece::New
    }

    /// The next message, whole and contiguous.
    pub(crate) fn message(&mut self) -> Result<Option<&[u8]>, TooLong> {
        let Some((prefix, len)) = self.ready()? else { return Ok(None) };
        let start = self.index(prefix);
        let start = if start + len > self.capacity() {
            self.bytes.as_mut().rotate_left(self.head);
            self.head = 0;
            prefix
        } else {
            start
        };
        Ok(self.bytes.as_ref().get(start..start + len))
    }

    /// Prefix and length of the next message, once it is whole.
    pub(crate) fn ready(&self) -> Result<Option<(usize, usize)>, TooLong> {
        let have = usize::try_from(self.next - self.read).unwrap_or(0);
        if have < 2 {
            return Ok(None);
        }
        let byte = |at: usize| self.bytes.as_ref().get(self.index(at)).copied().unwrap_or(0);
        let short = [byte(0), byte(1)];
        let (prefix, len) = if short[0] & 0x80 == 0 {
            (2, usize::from(u16::from_be_bytes(short)))
        } else if have < 4 {
            return Ok(None);
        } else {
            let long = u32::from_be_bytes([short[0] & 0x7f, short[1], byte(2), byte(3)]);
            (4, usize::try_from(long).unwrap_or(usize::MAX))
        };
        if len > self.max_message {
            return Err(TooLong);
        }
        Ok((have >= prefix + len).then_some((prefix, len)))
    }

    /// Consumes the next message, if it is whole.
    pub(crate) fn consume(&mut self) -> bool {
        let Ok(Some((prefix, len))) = self.ready() else { return false };
        self.head = self.index(prefix + len);
        self.read += (prefix + len) as u64;
        true
    }

    fn write(&mut self, offset: u64, piece: &[u8]) {
        let at = self.index(usize::try_from(offset - self.read).unwrap_or(0));
        let (left, right) = self.bytes.as_mut().split_at_mut(at);
        let (a, b) = piece.split_at(piece.len().min(right.len()));
        if let (Some(to_a), Some(to_b)) = (right.get_mut(..a.len()), left.get_mut(..b.len())) {
            to_a.copy_from_slice(a);
            to_b.copy_from_slice(b);
        }
    }

    fn index(&self, by: usize) -> usize {
        let at = self.head + by;
        let capacity = self.capacity();
        if at >= capacity { at - capacity } else { at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::send::prefix;
    use alloc::vec::Vec;

    const START: u64 = (2 << 32) - 5;

    fn buffer(bytes: usize) -> ReceiveBuffer<Vec<u8>, [Range; 4]> {
        let mut buffer = ReceiveBuffer::new(alloc::vec![0; bytes], [Range::default(); 4], 64);
        buffer.restart(START);
        buffer
    }

    #[test]
    fn messages_come_whole_whatever_the_cut_and_order() {
        let mut stream = Vec::new();
        let messages: Vec<Vec<u8>> = (0..60u8).map(|n| alloc::vec![n; usize::from(n) % 40]).collect();
        for message in &messages {
            let (bytes, len) = prefix(message.len());
            stream.extend_from_slice(&bytes[..len]);
            stream.extend_from_slice(message);
        }
        for cut in 1..38 {
            let mut rx = buffer(120);
            let mut got = Vec::new();
            let mut pieces: Vec<(usize, &[u8])> = Vec::new();
            for (n, piece) in stream.chunks(cut).enumerate() {
                pieces.push((n * cut, piece));
                // The second of each pair first; the last alone.
                if pieces.len() == 2 || (n + 1) * cut >= stream.len() {
                    for (at, piece) in pieces.drain(..).rev() {
                        assert_eq!(rx.on_piece(START + at as u64, piece), Piece::New);
                    }
                    while let Some(message) = rx.message().unwrap() {
                        got.push(message.to_vec());
                        assert!(rx.consume());
                    }
                }
            }
            assert_eq!(got, messages, "cut every {cut}");
        }
    }

    #[test]
    fn credit_and_gaps_are_bounds() {
        let mut rx = buffer(100);
        assert_eq!(rx.on_piece(START + 91, &[0; 10]), Piece::BeyondCredit);
        for n in [8u64, 6, 4, 2] {
            assert_eq!(rx.on_piece(START + n, &[1]), Piece::New);
        }
        assert_eq!(rx.on_piece(START + 10, &[1]), Piece::Refused);
        assert_eq!(rx.on_piece(START + 4, &[1]), Piece::Known);
        assert_eq!(rx.on_piece(START, &[0, 0, 0, 0]), Piece::New); // always taken: it is the next
        assert_eq!(rx.next(), START + 5);
        assert_eq!(rx.on_piece(START + 10, &[1]), Piece::New);
    }

    #[test]
    fn a_message_beyond_the_agreed_length_is_an_error() {
        let mut rx = buffer(100);
        assert_eq!(rx.on_piece(START, &[0, 65]), Piece::New);
        assert_eq!(rx.message(), Err(TooLong));
        let mut rx = buffer(100);
        assert_eq!(rx.on_piece(START, &[0xff; 4]), Piece::New);
        assert_eq!(rx.message(), Err(TooLong));
    }
}
