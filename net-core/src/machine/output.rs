//! Packets that leave.

use hal::time::{Instant, Span};

use super::flight::Kind;
use super::{FinState, Machine, Phase, Storage, wire};
use crate::recovery::congestion::Congestion;
use crate::seq::{expand, low};
use crate::wire::header::{HEADER, Header, MAX_RANGES, PacketType, flags, span_encode};

/// Ranges that ride on a data packet; the rest waits for a pure acknowledgement.
const DATA_RANGES: usize = 8;

/// What the next eliciting packet carries.
enum Content {
    Data {
        kind: Kind,
        offset: u64,
        len: usize,
    },
    Fin,
    Ping,
    /// The cookie that came from where we are not known to be.
    Proof,
}

impl<S: Storage, C: Congestion> Machine<S, C> {
    /// Writes the next packet, if one may go now, into `out`, where a datagram of up to `mtu` bytes fits.
    pub(crate) fn transmit(&mut self, now: Instant, mtu: usize, out: &mut [u8]) -> Option<usize> {
        self.now = self.now.max(now);
        let datagram = self.config.datagram(mtu);
        if datagram != self.datagram {
            self.datagram = datagram;
            self.congestion.set_datagram(u32::try_from(datagram).unwrap_or(u32::MAX));
        }
        let limit = datagram.min(out.len());
        let out = out.get_mut(..limit).filter(|out| out.len() > HEADER)?;
        let len = match self.phase {
            Phase::Closed => None,
            Phase::Connecting => self.transmit_syn(now, out),
            Phase::Lingering(_) => self.transmit_ack(now, out),
            Phase::Open => self.transmit_data(now, out).or_else(|| self.transmit_ack(now, out)),
        }?;
        self.stats.packets_sent += 1;
        self.stats.bytes_sent += len as u64;
        Some(len)
    }

    fn transmit_syn(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        if !self.syn_due {
            return None;
        }
        let len = self.params().emit(PacketType::Syn, 0, out)?;
        self.syn_due = false;
        self.tries += 1;
        self.last_eliciting = now;
        Some(len)
    }

    fn transmit_ack(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        if !self.received.is_due() {
            return None;
        }
        let mut header = self.header(now, PacketType::Ack);
        header.number = low(self.flight.next_number());
        let room = out.get_mut(HEADER..)?;
        let room = room.len().min(MAX_RANGES * 4);
        let ranges = self.received.write_ranges(out.get_mut(HEADER..HEADER + room)?);
        let len = header.emit(out, ranges, 0)?;
        self.on_told();
        Some(len)
    }

    fn transmit_data(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        let acking = self.received.is_pending();
        let ranges = if acking { DATA_RANGES.min((out.len() - HEADER) / 8) } else { 0 };
        let ranges = self.received.write_ranges(out.get_mut(HEADER..HEADER + ranges * 4)?);
        let start = HEADER + ranges * 4;
        let content = self.choose(now, out.len() - start)?;
        let cookie = self.cookie.to_be_bytes();
        let (kind, packet, offset, len) = match content {
            Content::Data { kind, offset, len } => (kind, PacketType::Data, offset, len),
            Content::Fin => (Kind::Fin, PacketType::Fin, self.send.end(), 0),
            Content::Ping => (Kind::Ping, PacketType::Ping, self.send.next(), 0),
            Content::Proof => (Kind::Ping, PacketType::Probe, self.send.next(), cookie.len()),
        };
        let payload = out.get_mut(start..start + len)?;
        if packet == PacketType::Probe {
            payload.copy_from_slice(&cookie);
            self.proof_due = false;
        } else if len > 0 && !self.send.read(offset, payload) {
            return None;
        }
        let mut header = self.header(now, packet);
        header.offset = wire(offset);
        header.number = low(self.flight.next_number());
        self.flight.push(now, kind, wire(offset), u16::try_from(len).unwrap_or(u16::MAX));
        header.span = span_encode(self.flight.span());
        match kind {
            Kind::Data => self.send.advance(len),
            Kind::Repeat => self.stats.retransmissions += 1,
            Kind::Fin => self.fin = FinState::InFlight,
            Kind::Ping => self.ping_due = false,
        }
        self.probes = self.probes.saturating_sub(1);
        if !self.may_send_more(out.len()) {
            header.flags |= flags::PUSH;
        }
        let total = header.emit(out, ranges, len)?;
        let rate = self.congestion.pacing_rate(self.rtt.srtt());
        if self.rtt.min().is_some() {
            self.pacer.on_sent(now, total, rate, self.datagram);
        }
        self.last_eliciting = now;
        if acking {
            self.on_told();
        }
        self.told_credit = self.receive.credit();
        Some(total)
    }

    /// What may go now and is most urgent: what was lost, what is new, the end, a ping.
    fn choose(&mut self, now: Instant, room: usize) -> Option<Content> {
        if self.proof_due && room >= 8 {
            return Some(Content::Proof);
        }
        let probing = self.probes > 0;
        if probing && self.flight.lost() == 0 && self.send.next() >= self.send.end().min(self.credit) {
            // Nothing else to probe with: send the oldest again.
            self.flight.probe_oldest();
        }
        let size = u32::try_from(HEADER + room).unwrap_or(u32::MAX);
        let in_flight = self.flight.in_flight();
        let in_window = in_flight == 0 || in_flight.saturating_add(size) <= self.congestion.window();
        let unsent = self.send.next() < self.send.end().min(self.credit);
        let waits = self.flight.lost() > 0 || unsent;
        self.limited = waits && (self.limited || !in_window);
        if self.flight.is_full(false) {
            self.flight.retire(now, Span::ZERO);
        }
        if self.flight.is_full(true) && (probing || self.flight.live() == 0) {
            // Unanswered probes, or lost pieces that were cut anew, fill all records: start over from the oldest byte.
            self.flight.forget();
            self.send.rewind();
            if self.fin == FinState::InFlight {
                self.fin = FinState::Wanted;
            }
        }
        if !probing && (!in_window || self.pacer.blocked_until(now).is_some()) {
            return (self.ping_due && !waits && !self.flight.is_full(true)).then_some(Content::Ping);
        }
        if !self.flight.is_full(true)
            && let Some((offset, len)) = self.flight.take_lost(room)
        {
            let offset = expand(offset, self.send.una());
            return Some(Content::Data { kind: Kind::Repeat, offset, len: usize::from(len) });
        }
        if self.flight.is_full(probing) {
            return None;
        }
        let left = self.send.end().min(self.credit).saturating_sub(self.send.next());
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(room);
        if len > 0 {
            return Some(Content::Data { kind: Kind::Data, offset: self.send.next(), len });
        }
        if self.fin == FinState::Wanted && self.send.next() == self.send.end() {
            return Some(Content::Fin);
        }
        if self.ping_due || probing { Some(Content::Ping) } else { None }
    }

    /// Whether another packet could follow at once; else the receiver should not wait with its acknowledgement.
    fn may_send_more(&self, size: usize) -> bool {
        let waits = self.flight.lost() > 0 || self.send.next() < self.send.end().min(self.credit);
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let in_window = self.flight.in_flight().saturating_add(size) <= self.congestion.window();
        waits && in_window && !self.flight.is_full(false)
    }

    fn header(&self, now: Instant, kind: PacketType) -> Header {
        let mut header = Header::new(kind, self.peer_id);
        header.credit = wire(self.receive.credit());
        header.offset = wire(self.send.next());
        self.received.fill(now, &mut header);
        header
    }

    fn on_told(&mut self) {
        self.received.on_acknowledged();
        self.told_credit = self.receive.credit();
    }
}
