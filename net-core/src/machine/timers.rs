//! When something happens by itself.

use hal::time::{Instant, Span};

use super::{FinState, Machine, Phase, Storage};
use crate::event::CloseReason;
use crate::recovery::congestion::Congestion;

/// RFC 9002, 6.1.2: finer than a millisecond no timer is trusted.
const GRANULARITY: Span = Span::ms(1);
/// Probe timeouts in a row that mean persistent congestion (RFC 9002, 7.6: three times the timeout).
const PERSISTENT: u32 = 3;

impl<S: Storage, C: Congestion> Machine<S, C> {
    /// The next instant at which [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Closed => None,
            Phase::Lingering(until) => earliest([Some(until), self.received.timeout()]),
            Phase::Connecting => {
                let again = if self.syn_due { None } else { Some(self.syn_timeout()) };
                earliest([Some(self.started.after(self.config.connect_timeout)), again])
            }
            Phase::Open => earliest([
                Some(self.idle_deadline()),
                self.keep_alive_due(),
                self.received.timeout(),
                self.loss_due,
                self.probe_due(),
                self.pacing_due(),
            ]),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.now = self.now.max(now);
        let passed = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        match self.phase {
            Phase::Closed => {}
            Phase::Lingering(until) => {
                self.received.on_timeout(now);
                if until <= now {
                    self.phase = Phase::Closed;
                }
            }
            Phase::Connecting => {
                if self.started.after(self.config.connect_timeout) <= now {
                    self.finish(CloseReason::ConnectTimeout);
                } else if !self.syn_due && self.syn_timeout() <= now {
                    self.syn_due = true;
                }
            }
            Phase::Open => {
                if self.idle_deadline() <= now {
                    self.finish(CloseReason::IdleTimeout);
                    return;
                }
                self.received.on_timeout(now);
                if passed(self.keep_alive_due()) {
                    self.ping_due = true;
                }
                if passed(self.loss_due) {
                    self.detect_losses(now);
                } else if passed(self.probe_due()) {
                    self.on_probe_timeout(now);
                }
            }
        }
    }

    fn on_probe_timeout(&mut self, now: Instant) {
        self.stats.probe_timeouts += 1;
        self.pto_count += 1;
        self.probes = if self.pto_count > 1 { 2 } else { 1 };
        self.last_eliciting = now;
        if self.pto_count == PERSISTENT {
            self.congestion.on_persistent(now);
        }
    }

    /// The probe timeout: how long after the latest packet without an answer the peer is asked again.
    pub(crate) fn pto(&self) -> Span {
        let pto = self.rtt.rto(GRANULARITY).plus(self.peer_ack_delay).max(self.config.min_pto);
        pto.times(1 << self.pto_count.min(10)).min(self.config.max_pto.max(self.config.min_pto))
    }

    fn probe_due(&self) -> Option<Instant> {
        // Blocked by credit with nothing in flight: the packet that gave credit may have been lost.
        let blocked = self.send.next() < self.send.end() && self.send.next() >= self.credit;
        let waits = self.flight.live() > 0 || (blocked && self.flight.lost() == 0);
        waits.then(|| self.last_eliciting.after(self.pto()))
    }

    fn keep_alive_due(&self) -> Option<Instant> {
        let every = self.config.keep_alive?;
        let quiet = self.last_received.max(self.last_eliciting);
        (!self.ping_due && self.flight.live() == 0).then(|| quiet.after(every))
    }

    fn pacing_due(&self) -> Option<Instant> {
        let waiting = self.flight.lost() > 0 || self.send.next() < self.send.end().min(self.credit);
        if waiting || self.fin == FinState::Wanted { self.pacer.blocked_until(self.now) } else { None }
    }

    fn idle_deadline(&self) -> Instant {
        self.last_received.after(self.idle_timeout.max(self.rtt.rto(GRANULARITY).times(3)))
    }

    fn syn_timeout(&self) -> Instant {
        let first = self.config.initial_rtt.times(3);
        let wait = first.times(1 << self.tries.saturating_sub(1).min(6)).min(self.config.max_pto);
        self.last_eliciting.after(wait)
    }
}

fn earliest<const N: usize>(times: [Option<Instant>; N]) -> Option<Instant> {
    times.into_iter().flatten().min()
}
