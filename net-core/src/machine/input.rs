//! Packets that arrive.

use hal::link::Ecn;
use hal::time::{Instant, Span};

use super::flight::Acked;
use super::receive::Piece;
use super::{FinState, Machine, Phase, Storage};
use crate::event::CloseReason;
use crate::handshake::Params;
use crate::recovery::congestion::{Ack, Congestion};
use crate::seq::{expand, low};
use crate::wire::header::{HEADER, Header, Packet, PacketType, flags, span_decode};
use crate::wire::{be64, header};

/// RFC 5681: three later packets, as long as no reordering was seen.
const PACKET_THRESHOLD: u64 = 3;
/// A reset names one of this many latest packets.
const RESET_WINDOW: u32 = 1024;

impl<S: Storage, C: Congestion> Machine<S, C> {
    /// Takes a packet that was addressed to this connection's id.
    pub(crate) fn handle(&mut self, now: Instant, packet: &Packet<'_>, ecn: Ecn) {
        self.now = self.now.max(now);
        self.stats.packets_received += 1;
        self.stats.bytes_received += (HEADER + packet.payload().len() + packet.ranges().count() * 4) as u64;
        match (packet.header().kind, self.phase) {
            (PacketType::Retry, Phase::Connecting | Phase::Open) => self.on_retry(packet),
            (PacketType::Accept, Phase::Connecting) => self.on_accept(now, packet),
            (PacketType::Accept | PacketType::Retry | PacketType::Syn | PacketType::Reset, _) => {}
            (_, Phase::Open | Phase::Lingering(_)) => self.on_packet(now, packet, ecn),
            (_, Phase::Connecting | Phase::Closed) => self.stats.bad += 1,
        }
    }

    /// Takes a reset that names the peer's connection id. True: it names a packet of ours too, and was believed.
    pub(crate) fn handle_reset(&mut self, header: &Header) -> bool {
        let age = low(self.flight.next_number()).wrapping_sub(header.number);
        let ours = self.phase == Phase::Open && header.connection == self.peer_id && age <= RESET_WINDOW;
        if ours {
            // When our close was under way, its acknowledgement got lost.
            let done = self.fin == FinState::InFlight && self.send.una() == self.send.end();
            self.finish(if done { CloseReason::Local } else { CloseReason::Reset });
        }
        ours
    }

    fn on_retry(&mut self, packet: &Packet<'_>) {
        let payload = packet.payload();
        let cookie = payload.get(8..).map_or(0, be64);
        if be64(payload) == self.nonce && payload.len() >= crate::handshake::RETRY && cookie != self.cookie {
            self.cookie = cookie;
            (self.syn_due, self.proof_due) = (true, self.phase == Phase::Open);
        }
    }

    fn on_accept(&mut self, now: Instant, packet: &Packet<'_>) {
        let Some(params) = Params::parse(packet.payload()).filter(|p| p.nonce == self.nonce) else {
            self.stats.bad += 1;
            return;
        };
        if self.tries <= 2 {
            // One `Syn` without and one with the cookie: the answer belongs to the latter.
            self.rtt.on_sample(now.since(self.last_eliciting), Span::ZERO);
        }
        self.open(&params, now);
        self.ping_due = true;
    }

    fn on_packet(&mut self, now: Instant, packet: &Packet<'_>, ecn: Ecn) {
        let header = packet.header();
        let open = self.phase == Phase::Open;
        if header.has_ack() && open && !self.on_ack(now, packet) {
            self.stats.bad += 1;
            return;
        }
        self.last_received = now;
        if open {
            let credit = expand(header.credit, self.credit);
            // Never shrinks; never more than half the number space, or it could not be told from less.
            if credit > self.credit && credit - self.send.una() < 1 << 31 {
                self.credit = credit;
            }
        }
        if !header.kind.is_eliciting() {
            return;
        }
        let number = self.received.expand(header.number);
        if self.received.is_known(number) {
            self.stats.duplicates += 1;
        } else if self.received.is_late(number) {
            self.stats.out_of_order += 1;
        }
        let offset = expand(header.offset, self.receive.next());
        match header.kind {
            PacketType::Data => match self.receive.on_piece(offset, packet.payload()) {
                Piece::New | Piece::Known => {}
                Piece::Refused => {
                    self.stats.refused += 1;
                    return;
                }
                Piece::BeyondCredit => {
                    self.stats.bad += 1;
                    return;
                }
            },
            PacketType::Fin if offset >= self.receive.next() => {
                self.peer_fin = self.peer_fin.or(Some(offset));
            }
            _ => {}
        }
        let urgent = header.kind != PacketType::Data
            || header.flags & flags::PUSH != 0
            || ecn == Ecn::Ce
            || self.receive.has_gap();
        let span = span_decode(header.span);
        self.received.on_packet(now, number, span, urgent, self.config.max_ack_delay);
        if open {
            self.after_data();
        } else {
            self.linger(CloseReason::Peer); // the peer repeats itself: our acknowledgement was lost
        }
    }

    fn after_data(&mut self) {
        match self.receive.ready() {
            Ok(Some(_)) => self.pending.message = true,
            Ok(None) => {}
            Err(_) => {
                self.finish(CloseReason::Protocol);
                return;
            }
        }
        if self.peer_fin == Some(self.receive.next()) {
            self.linger(CloseReason::Peer);
        }
    }

    /// False: it acknowledges what was never sent.
    fn on_ack(&mut self, now: Instant, packet: &Packet<'_>) -> bool {
        let header = packet.header();
        let next = self.flight.next_number();
        let largest = expand(header.largest, next);
        if largest >= next {
            return false;
        }
        let mut acked = Acked::default();
        self.flight.ack(now, largest, largest, &mut acked);
        let mut cursor = largest;
        for (gap, len) in packet.ranges() {
            let Some(high) = cursor.checked_sub(u64::from(gap)) else { return false };
            let Some(below) = high.checked_sub(u64::from(len)) else { return false };
            if len > 0 {
                self.flight.ack(now, below + 1, high, &mut acked);
            }
            cursor = below;
        }
        if acked.packets > 0 {
            self.on_acked(now, largest, header, &acked);
        }
        true
    }

    fn on_acked(&mut self, now: Instant, largest: u64, header: &header::Header, acked: &Acked) {
        let Some((number, sent)) = acked.newest else { return };
        if number == largest {
            let delay = Span::us(u64::from(header.ack_delay) * 8).min(self.peer_ack_delay);
            self.rtt.on_sample(now.since(sent), delay);
        }
        self.pto_count = 0;
        let in_flight = self.flight.in_flight() + acked.bytes;
        let limited =
            self.limited || (self.congestion.is_slow_start() && in_flight >= self.congestion.window() / 2);
        let (srtt, latest_rtt) = (self.rtt.srtt(), self.rtt.latest());
        self.congestion.on_ack(&Ack { now, sent, bytes: acked.bytes, srtt, latest_rtt, limited });
        if acked.spurious > 0 {
            self.on_spurious(acked);
        }
        if header.flags & flags::ECN_ECHO != 0 {
            self.congestion.on_congestion(now, sent);
        }
        self.detect_losses(now);
        if acked.fin {
            self.fin = FinState::Acked;
        }
        self.release(now);
    }

    /// Widens the window for reordering to what was seen, and takes the response back when none of its losses was one.
    fn on_spurious(&mut self, acked: &Acked) {
        self.stats.spurious_losses += u64::from(acked.spurious);
        let reorder = &mut self.reorder;
        reorder.seen = true;
        let late = Span::ns(acked.spurious_age.as_ns().saturating_sub(self.rtt.srtt().as_ns()));
        // RFC 8985, 6.2: bounded by a round trip.
        reorder.window = reorder.window.max(late).min(self.rtt.srtt());
        reorder.spurious += acked.spurious;
        if reorder.spurious >= reorder.lost && reorder.lost > 0 {
            (reorder.lost, reorder.spurious) = (0, 0);
            self.congestion.on_spurious();
        }
    }

    pub(super) fn detect_losses(&mut self, now: Instant) {
        let base = self.rtt.srtt().max(self.rtt.latest());
        let quarter = Span::ns(self.rtt.min().unwrap_or(base).as_ns() / 4).max(Span::us(100));
        let window = base.plus(quarter.max(self.reorder.window));
        let threshold = if self.reorder.seen { u64::MAX } else { PACKET_THRESHOLD };
        let report = self.flight.detect(now, threshold, window);
        self.loss_due = report.due;
        if let Some(sent) = report.newest {
            self.stats.losses += u64::from(report.packets);
            if self.congestion.on_congestion(now, sent) {
                (self.reorder.lost, self.reorder.spurious) = (0, 0);
            }
            self.reorder.lost += report.packets;
            if report.fin {
                self.fin = FinState::Wanted;
            }
        }
    }

    /// Gives acknowledged bytes back and ends a close that is complete.
    fn release(&mut self, now: Instant) {
        self.flight.retire(now, self.rtt.srtt().times(4));
        let una = match self.flight.lowest() {
            Some(offset) => expand(offset, self.send.una()),
            None => self.send.next(),
        };
        self.send.release(una);
        if self.pending.was_full && self.send.room() >= self.send.capacity() / 4 {
            self.pending.was_full = false;
            self.pending.writable = true;
        }
        if self.fin == FinState::Acked && self.send.una() == self.send.end() {
            self.linger(CloseReason::Local);
        }
    }
}
