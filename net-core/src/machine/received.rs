//! Packet numbers received, and when to acknowledge them.

use hal::time::{Instant, Span};

use crate::ranges::{Insert, Range, RangeSet};
use crate::seq::{EPOCH, expand, low};
use crate::wire::header::{Header, flags};

#[derive(Debug)]
pub(crate) struct Received<G> {
    numbers: RangeSet<G>,
    /// The number expected next: one more than the largest received.
    expected: u64,
    any: bool,
    largest_at: Instant,
    /// Eliciting packets not acknowledged yet.
    pending: u32,
    at_once: bool,
    due: Option<Instant>,
}

/// An acknowledgement is sent for every second packet (RFC 9000, 13.2.2).
const EVERY: u32 = 2;

impl<G: AsRef<[Range]> + AsMut<[Range]>> Received<G> {
    pub(crate) fn new(slots: G) -> Self {
        Self {
            numbers: RangeSet::new(slots),
            expected: EPOCH,
            any: false,
            largest_at: Instant::ZERO,
            pending: 0,
            at_once: false,
            due: None,
        }
    }

    /// Forgets everything; the peer's first number will be `first`.
    pub(crate) fn restart(&mut self, first: u32) {
        self.numbers.clear();
        self.expected = EPOCH + u64::from(first);
        (self.any, self.pending, self.at_once, self.due) = (false, 0, false, None);
    }

    /// The full number of a packet.
    pub(crate) const fn expand(&self, number: u32) -> u64 {
        expand(number, self.expected)
    }

    /// Whether `number` has been received, as far as that is remembered.
    pub(crate) fn is_known(&self, number: u64) -> bool {
        self.numbers.contains(low(number))
    }

    /// Whether a packet came before one that was sent later.
    pub(crate) const fn is_late(&self, number: u64) -> bool {
        number < self.expected
    }

    /// Remembers an eliciting packet and plans its acknowledgement: at once when it is out of order, a duplicate, the
    /// second one or marked `urgent`, else after `delay`.
    pub(crate) fn on_packet(&mut self, now: Instant, number: u64, span: u64, urgent: bool, delay: Span) {
        let one = Range { start: low(number), end: low(number).wrapping_add(1) };
        let mut insert = self.numbers.insert(one);
        if insert == Insert::Full {
            self.numbers.forget_oldest();
            insert = self.numbers.insert(one);
        }
        let in_order = number == self.expected;
        if number >= self.expected {
            self.expected = number + 1;
            self.largest_at = now;
            self.any = true;
            // The sender does not care about anything older; ranges of half the number space would be ambiguous.
            self.numbers.forget_before(low(number - span.min(1 << 30)));
        }
        self.pending += 1;
        if urgent || !in_order || insert == Insert::Known || self.pending >= EVERY {
            self.at_once = true;
        } else if self.due.is_none() {
            self.due = Some(now.after(delay));
        }
    }

    /// An acknowledgement is wanted as soon as possible.
    pub(crate) fn ask(&mut self) {
        self.at_once = true;
    }

    pub(crate) const fn is_due(&self) -> bool {
        self.at_once
    }

    pub(crate) const fn is_pending(&self) -> bool {
        self.pending > 0 || self.at_once
    }

    /// When the delayed acknowledgement becomes due.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        if self.at_once { None } else { self.due }
    }

    pub(crate) fn on_timeout(&mut self, now: Instant) {
        self.at_once |= self.due.is_some_and(|due| due <= now);
    }

    /// Fills the acknowledgement fields of `header`.
    pub(crate) fn fill(&self, now: Instant, header: &mut Header) {
        if self.any {
            header.flags |= flags::ACK;
            header.largest = low(self.expected - 1);
            let delay = now.since(self.largest_at).as_ns() >> 13;
            header.ack_delay = u16::try_from(delay).unwrap_or(u16::MAX);
        }
    }

    /// Writes up to as many ranges as fit `out` and returns their number.
    pub(crate) fn write_ranges(&self, out: &mut [u8]) -> usize {
        let mut cursor = low(self.expected.wrapping_sub(1));
        let mut count = 0;
        let mut slots = out.as_chunks_mut::<4>().0.iter_mut();
        'ranges: for range in self.numbers.as_slice() {
            let mut gap = cursor.wrapping_sub(range.end.wrapping_sub(1));
            let mut len = range.len();
            while len > 0 {
                let Some(slot) = slots.next() else { break 'ranges };
                let now_gap = u16::try_from(gap).unwrap_or(u16::MAX);
                gap -= u32::from(now_gap);
                // A gap of more than 16 bits takes a range of no packets.
                let now_len = if gap > 0 { 0 } else { u16::try_from(len).unwrap_or(u16::MAX) };
                len -= u32::from(now_len);
                let ([a, b], [c, d]) = (now_gap.to_be_bytes(), now_len.to_be_bytes());
                *slot = [a, b, c, d];
                count += 1;
            }
            cursor = range.start.wrapping_sub(1);
        }
        count
    }

    /// An acknowledgement with ranges has been sent.
    pub(crate) fn on_acknowledged(&mut self) {
        (self.pending, self.at_once, self.due) = (0, false, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_name_what_was_received_across_the_wrap() {
        let mut rx = Received::new([Range::default(); 8]);
        rx.restart(u32::MAX - 4);
        let first = EPOCH + u64::from(u32::MAX - 4);
        for n in [0, 1, 2, 5, 6, 9] {
            rx.on_packet(Instant::ZERO, first + n, 1000, false, Span::ms(5));
        }
        let mut header = Header::new(crate::wire::header::PacketType::Ack, 1);
        rx.fill(Instant::ZERO, &mut header);
        assert_eq!((header.largest, header.has_ack()), (4, true));
        let mut out = [0xaa; 16];
        assert_eq!(rx.write_ranges(&mut out), 3);
        assert_eq!(out[..12], [0, 0, 0, 1, 0, 2, 0, 2, 0, 2, 0, 3]);
        assert!(rx.is_known(first + 5) && !rx.is_known(first + 4));
    }

    #[test]
    fn the_second_packet_and_every_surprise_are_acknowledged_at_once() {
        let mut rx = Received::new([Range::default(); 8]);
        rx.restart(7);
        let first = EPOCH + 7;
        rx.on_packet(Instant::ZERO, first, 10, false, Span::ms(5));
        assert!(!rx.is_due());
        assert_eq!(rx.timeout(), Some(Instant::from_ns(5_000_000)));
        rx.on_packet(Instant::ZERO, first + 1, 10, false, Span::ms(5));
        assert!(rx.is_due());
        rx.on_acknowledged();
        rx.on_packet(Instant::ZERO, first + 3, 10, false, Span::ms(5));
        assert!(rx.is_due());
    }
}
