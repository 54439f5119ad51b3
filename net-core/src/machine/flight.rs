//! Packets in flight: a ring of 16-byte records indexed by packet number.
//!
//! ```text
//!            ack                          sent again, or nothing to send again
//!  InFlight ─────> Acked        InFlight ──────> Lost ──────> Settled ──ack──> (late: the loss was none)
//! ```
//!
//! Records leave at the front once they are acked or settled, so the first record is the oldest that matters. Pieces
//! that were sent once have ascending offsets; only while *repeats* are in flight is the lowest offset searched for.

use hal::time::{Instant, Span};

use crate::seq::precedes;
use crate::wire::header::HEADER;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Kind {
    #[default]
    Data,
    /// Data that had been sent before.
    Repeat,
    Fin,
    /// Ping or probe: nothing to send again.
    Ping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum State {
    #[default]
    InFlight,
    Acked,
    Lost,
    Settled,
}

/// One packet sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    offset: u32,
    /// Time in units of 1024 ns, low 32 bits: 73 minutes.
    at: u32,
    len: u16,
    kind: Kind,
    state: State,
    /// Given up as a probe, without evidence of a loss.
    probed: bool,
}

/// The sending time of a record, given the time now.
fn sent_at(record: &Sent, now: Instant) -> Instant {
    let age = u64::from(tick(now).wrapping_sub(record.at)) << 10;
    Instant::from_ns((now.as_ns() & !1023).saturating_sub(age))
}

#[allow(clippy::cast_possible_truncation, reason = "records keep the low 32 bits of the time")]
const fn tick(at: Instant) -> u32 {
    (at.as_ns() >> 10) as u32
}

/// What an acknowledgement did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acked {
    /// Bytes that left the network.
    pub(crate) bytes: u32,
    pub(crate) packets: u32,
    /// Sending time of the newest packet that is newly acknowledged, with its number.
    pub(crate) newest: Option<(u64, Instant)>,
    pub(crate) fin: bool,
    /// Packets that had been taken for lost.
    pub(crate) spurious: u32,
    /// How old the oldest of them were.
    pub(crate) spurious_age: Span,
}

/// What loss detection found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LossReport {
    pub(crate) packets: u32,
    /// Sending time of the newest lost packet.
    pub(crate) newest: Option<Instant>,
    pub(crate) fin: bool,
    /// When the next packet will count as lost, unless it is acknowledged.
    pub(crate) due: Option<Instant>,
}

#[derive(Debug)]
pub(crate) struct Flight<R> {
    records: R,
    /// Slot of the first record.
    head: usize,
    len: usize,
    /// Number of the first record.
    first: u64,
    in_flight: u32,
    live: u32,
    /// Records in state `Lost`, and a number that none of them lies before.
    lost: u32,
    lost_from: u64,
    /// Repeats that are in flight or lost.
    repeats: u32,
    largest_acked: Option<u64>,
}

impl<R: AsRef<[Sent]> + AsMut<[Sent]>> Flight<R> {
    pub(crate) fn new(records: R, first: u64) -> Self {
        Self {
            records,
            head: 0,
            len: 0,
            first,
            in_flight: 0,
            live: 0,
            lost: 0,
            lost_from: first,
            repeats: 0,
            largest_acked: None,
        }
    }

    /// Forgets everything and starts at packet number `first`.
    pub(crate) fn restart(&mut self, first: u64) {
        self.forget();
        self.first = first;
        self.lost_from = first;
        self.largest_acked = None;
    }

    /// Forgets all records; numbers go on.
    pub(crate) fn forget(&mut self) {
        self.first = self.next_number();
        self.lost_from = self.first;
        (self.head, self.len, self.in_flight, self.live, self.lost, self.repeats) = (0, 0, 0, 0, 0, 0);
    }

    /// The number that the next packet gets.
    pub(crate) const fn next_number(&self) -> u64 {
        self.first + self.len as u64
    }

    /// Numbers from the oldest that matters to the next.
    pub(crate) const fn span(&self) -> u64 {
        self.len as u64
    }

    /// Bytes in flight, headers included.
    pub(crate) const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Packets in flight.
    pub(crate) const fn live(&self) -> u32 {
        self.live
    }

    /// Packets whose data wait to be sent again.
    pub(crate) const fn lost(&self) -> u32 {
        self.lost
    }

    /// No room for another packet. A few slots are kept for repeats that are cut anew (`spare`).
    pub(crate) fn is_full(&self, spare: bool) -> bool {
        let capacity = self.records.as_ref().len();
        self.len >= if spare { capacity } else { capacity - capacity / 8 }
    }

    pub(crate) fn push(&mut self, now: Instant, kind: Kind, offset: u32, len: u16) {
        let at = self.slot(self.len);
        if let Some(record) = self.records.as_mut().get_mut(at) {
            *record = Sent { offset, at: tick(now), len, kind, state: State::InFlight, probed: false };
            self.len += 1;
            self.live += 1;
            self.in_flight += size(len);
            self.repeats += u32::from(kind == Kind::Repeat);
        }
    }

    /// Marks the numbers `low..=high` as acknowledged.
    pub(crate) fn ack(&mut self, now: Instant, low: u64, high: u64, acked: &mut Acked) {
        let low = low.max(self.first);
        let end = (high + 1).min(self.next_number());
        self.largest_acked = self.largest_acked.max(Some(high));
        for number in low..end {
            let Some(record) = self.get_mut(number) else { break };
            let before = core::mem::replace(&mut record.state, State::Acked);
            let record = *record;
            match before {
                State::Acked => continue,
                State::InFlight => {
                    self.in_flight -= size(record.len);
                    self.live -= 1;
                    acked.bytes += size(record.len);
                }
                State::Lost => self.lost -= 1,
                State::Settled => {}
            }
            if matches!(before, State::Lost | State::Settled) && !record.probed {
                acked.spurious += 1;
                acked.spurious_age = acked.spurious_age.max(now.since(sent_at(&record, now)));
            }
            if record.kind == Kind::Repeat && before != State::Settled {
                self.repeats -= 1;
            }
            acked.packets += 1;
            acked.fin |= record.kind == Kind::Fin;
            if acked.newest.is_none_or(|(newest, _)| newest < number) {
                acked.newest = Some((number, sent_at(&record, now)));
            }
        }
    }

    /// Takes packets for lost that were sent `threshold` numbers or `window` of time before the newest acknowledged.
    pub(crate) fn detect(&mut self, now: Instant, threshold: u64, window: Span) -> LossReport {
        let mut report = LossReport::default();
        let Some(largest) = self.largest_acked else { return report };
        for number in self.first..largest.min(self.next_number()) {
            let Some(record) = self.get_mut(number) else { break };
            if record.state != State::InFlight {
                continue;
            }
            let at = sent_at(record, now);
            if largest - number < threshold && at.after(window) > now {
                report.due = Some(at.after(window));
                break; // later packets were sent later
            }
            report.packets += 1;
            report.newest = Some(at);
            report.fin |= record.kind == Kind::Fin;
            self.give_up(number, false);
        }
        report
    }

    /// Takes the oldest data in flight for lost without evidence, to be sent again as a probe. False: there is none.
    pub(crate) fn probe_oldest(&mut self) -> bool {
        for number in self.first..self.next_number() {
            match self.get_mut(number) {
                Some(Sent { state: State::InFlight, kind: Kind::Data | Kind::Repeat, .. }) => {
                    self.give_up(number, true);
                    return true;
                }
                Some(_) => {}
                None => break,
            }
        }
        false
    }

    fn give_up(&mut self, number: u64, probed: bool) {
        let Some(record) = self.get_mut(number) else { return };
        let again = matches!(record.kind, Kind::Data | Kind::Repeat);
        record.state = if again { State::Lost } else { State::Settled };
        record.probed = probed;
        let len = record.len;
        self.live -= 1;
        self.in_flight -= size(len);
        if again {
            self.lost_from = if self.lost == 0 { number } else { self.lost_from.min(number) };
            self.lost += 1;
        }
    }

    /// The next lost piece to send again, cut to `room` bytes: offset and length. It counts as sent again.
    pub(crate) fn take_lost(&mut self, room: usize) -> Option<(u32, u16)> {
        let room = u16::try_from(room).unwrap_or(u16::MAX);
        if self.lost == 0 || room == 0 {
            return None;
        }
        for number in self.lost_from.max(self.first)..self.next_number() {
            let record = self.get_mut(number)?;
            if record.state != State::Lost {
                continue;
            }
            let (offset, len) = (record.offset, record.len.min(room));
            if len == record.len {
                record.state = State::Settled;
                let repeat = record.kind == Kind::Repeat;
                self.repeats -= u32::from(repeat);
                self.lost -= 1;
                self.lost_from = number + 1;
            } else {
                record.offset = offset.wrapping_add(u32::from(len));
                record.len -= len;
                self.lost_from = number;
            }
            return Some((offset, len));
        }
        None
    }

    /// Lets go of records at the front: acked ones, and settled ones that are older than `keep` or in the way.
    pub(crate) fn retire(&mut self, now: Instant, keep: Span) {
        let crowded = self.records.as_ref().len() / 2;
        while self.len > 0 {
            let record = self.records.as_ref().get(self.head).copied().unwrap_or_default();
            let gone = match record.state {
                State::Acked => true,
                State::Settled => self.len > crowded || now.since(sent_at(&record, now)) > keep,
                State::InFlight | State::Lost => false,
            };
            if !gone {
                break;
            }
            self.head = self.slot(1);
            self.len -= 1;
            self.first += 1;
        }
    }

    /// The lowest stream offset that may still have to be sent again.
    pub(crate) fn lowest(&self) -> Option<u32> {
        let mut lowest: Option<u32> = None;
        for index in 0..self.len {
            let record = self.records.as_ref().get(self.slot(index))?;
            let needed = matches!(record.state, State::InFlight | State::Lost)
                && matches!(record.kind, Kind::Data | Kind::Repeat);
            if needed {
                if self.repeats == 0 {
                    return Some(record.offset);
                }
                if lowest.is_none_or(|lowest| precedes(record.offset, lowest)) {
                    lowest = Some(record.offset);
                }
            }
        }
        lowest
    }

    fn slot(&self, index: usize) -> usize {
        let at = self.head + index;
        let capacity = self.records.as_ref().len();
        if at >= capacity { at - capacity } else { at }
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Sent> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        if index >= self.len {
            return None;
        }
        let slot = self.slot(index);
        self.records.as_mut().get_mut(slot)
    }
}

/// Bytes that a packet with `len` bytes of payload counts as.
#[allow(clippy::cast_possible_truncation, reason = "32")]
const fn size(len: u16) -> u32 {
    HEADER as u32 + len as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Instant {
        Instant::from_ns(ms * 1_000_000)
    }

    fn flight() -> Flight<[Sent; 8]> {
        let mut flight = Flight::new([Sent::default(); 8], 100);
        for n in 0..6 {
            flight.push(at(u64::from(n)), Kind::Data, n * 10, 10);
        }
        flight
    }

    #[test]
    fn three_later_packets_or_enough_time_make_a_loss() {
        let mut f = flight();
        let mut acked = Acked::default();
        f.ack(at(10), 103, 103, &mut acked);
        assert_eq!(acked.packets, 1);
        let report = f.detect(at(10), 3, Span::ms(20));
        assert_eq!((report.packets, f.lost()), (1, 1)); // 100 alone is three before
        let due = report.due.unwrap();
        assert!(due.since(at(20)) < Span::ms(2), "{due:?}");
        assert_eq!(f.detect(at(30), 3, Span::ms(20)).packets, 2);
        assert_eq!(f.take_lost(6), Some((0, 6)));
        assert_eq!(f.take_lost(6), Some((6, 4)));
        assert_eq!(f.take_lost(100), Some((10, 10)));
        assert_eq!(f.lowest(), Some(20)); // still lost
        assert_eq!(f.live(), 2);
    }

    #[test]
    fn a_late_acknowledgement_shows_that_the_loss_was_none() {
        let mut f = flight();
        f.ack(at(10), 105, 105, &mut Acked::default());
        assert_eq!(f.detect(at(10), 3, Span::ms(50)).packets, 3);
        assert_eq!(f.take_lost(10), Some((0, 10)));
        f.push(at(10), Kind::Repeat, 0, 10);
        let mut acked = Acked::default();
        f.ack(at(12), 100, 102, &mut acked);
        assert_eq!((acked.spurious, acked.bytes, f.lost()), (3, 0, 0));
        assert_eq!(f.lowest(), Some(0)); // the repeat is in flight
        f.ack(at(13), 103, 106, &mut acked);
        assert_eq!((f.lowest(), f.live(), f.in_flight()), (None, 0, 0));
        f.retire(at(13), Span::secs(1));
        assert_eq!((f.span(), f.next_number()), (0, 107));
    }
}
