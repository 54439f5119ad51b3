//! Bytes of the ordered stream that are unacknowledged or wait to be sent: a ring.

/// Bytes of the longest message prefix.
pub(crate) const MAX_PREFIX: usize = 4;

/// Messages lie in the stream one behind the other, each behind its length: two bytes below 32 KiB, else four with the
/// top bit set.
pub(crate) fn prefix(len: usize) -> ([u8; MAX_PREFIX], usize) {
    match u16::try_from(len) {
        Ok(short) if short < 0x8000 => {
            let [a, b] = short.to_be_bytes();
            ([a, b, 0, 0], 2)
        }
        _ => ((u32::try_from(len).unwrap_or(u32::MAX) | 0x8000_0000).to_be_bytes(), 4),
    }
}

#[derive(Debug)]
pub(crate) struct SendBuffer<T> {
    bytes: T,
    /// Index of the byte at offset `una`.
    head: usize,
    /// Oldest unacknowledged offset.
    una: u64,
    /// Where what has never been sent starts.
    next: u64,
    /// Where the application writes on.
    end: u64,
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> SendBuffer<T> {
    pub(crate) const fn new(bytes: T, start: u64) -> Self {
        Self { bytes, head: 0, una: start, next: start, end: start }
    }

    /// Empties the buffer and starts at offset `start`.
    pub(crate) fn restart(&mut self, start: u64) {
        (self.head, self.una, self.next, self.end) = (0, start, start, start);
    }

    pub(crate) fn capacity(&self) -> usize {
        self.bytes.as_ref().len()
    }

    pub(crate) fn room(&self) -> usize {
        self.capacity() - self.held()
    }

    pub(crate) const fn una(&self) -> u64 {
        self.una
    }

    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    /// Appends `piece`, for which the caller has seen that there is room.
    pub(crate) fn write(&mut self, piece: &[u8]) {
        let at = self.index(self.held());
        let bytes = self.bytes.as_mut();
        let (left, right) = bytes.split_at_mut(at);
        let first = piece.len().min(right.len());
        let (a, b) = piece.split_at(first);
        if let (Some(to_a), Some(to_b)) = (right.get_mut(..a.len()), left.get_mut(..b.len())) {
            to_a.copy_from_slice(a);
            to_b.copy_from_slice(b);
            self.end += piece.len() as u64;
        }
    }

    /// Copies the bytes from `offset` on into `out`. False: they are not held.
    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) -> bool {
        let Some(skip) = offset.checked_sub(self.una).and_then(|skip| usize::try_from(skip).ok()) else {
            return false;
        };
        if skip + out.len() > self.held() {
            return false;
        }
        let (left, right) = self.bytes.as_ref().split_at(self.index(skip));
        let first = out.len().min(right.len());
        let (a, b) = out.split_at_mut(first);
        match (right.get(..a.len()), left.get(..b.len())) {
            (Some(from_a), Some(from_b)) => {
                a.copy_from_slice(from_a);
                b.copy_from_slice(from_b);
                true
            }
            _ => false,
        }
    }

    /// `len` bytes have been sent for the first time.
    pub(crate) fn advance(&mut self, len: usize) {
        self.next += len as u64;
    }

    /// Everything before `una` is acknowledged.
    pub(crate) fn release(&mut self, una: u64) {
        if una > self.una && una <= self.next {
            let by = usize::try_from(una - self.una).unwrap_or(0);
            self.head = self.index(by);
            self.una = una;
        }
    }

    /// What has been sent and not acknowledged counts as never sent.
    pub(crate) fn rewind(&mut self) {
        self.next = self.una;
    }

    fn held(&self) -> usize {
        usize::try_from(self.end - self.una).unwrap_or(0)
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

    #[test]
    fn bytes_come_back_across_the_end_of_the_ring() {
        let mut send = SendBuffer::new([0u8; 8], (1 << 32) - 3);
        for round in 0..40u8 {
            let piece = [round, round + 1, round + 2, round + 3, round + 4];
            send.write(&piece);
            let start = send.una();
            let mut out = [0; 5];
            assert!(send.read(start, &mut out));
            assert_eq!(out, piece);
            assert!(!send.read(start + 1, &mut out) && !send.read(start - 1, &mut out));
            send.advance(5);
            send.release(start + 5);
            assert_eq!(send.room(), 8);
        }
    }

    #[test]
    fn acknowledgements_beyond_what_was_sent_release_nothing() {
        let mut send = SendBuffer::new([0u8; 8], 10);
        send.write(&[1, 2, 3]);
        send.release(13);
        assert_eq!((send.una(), send.room()), (10, 5));
    }
}
