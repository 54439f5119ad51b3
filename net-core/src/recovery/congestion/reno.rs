//! The controller `NewReno`.

use hal::time::Instant;

use super::{Ack, Congestion};

/// `NewReno` as RFC 9002, section 7 and appendix B define it: halve once a round trip, grow by a packet a round trip.
#[derive(Clone, Copy, Debug)]
pub struct NewReno {
    datagram: u32,
    cwnd: u32,
    ssthresh: u32,
    /// Bytes acknowledged since the window last grew, in congestion avoidance.
    acked: u32,
    /// Losses of packets sent before belong to a response already made.
    recovery_start: Option<Instant>,
    /// Window and threshold before the latest response, for its undoing.
    before: Option<(u32, u32)>,
}

impl NewReno {
    /// RFC 9002, 7.2: the window never falls below two datagrams.
    const fn minimum(&self) -> u32 {
        2 * self.datagram
    }
}

impl Congestion for NewReno {
    fn new(datagram: u32) -> Self {
        // RFC 6928: ten segments to begin with.
        let cwnd = 10 * datagram;
        Self { datagram, cwnd, ssthresh: u32::MAX, acked: 0, recovery_start: None, before: None }
    }

    fn set_datagram(&mut self, datagram: u32) {
        self.datagram = datagram;
        self.cwnd = self.cwnd.max(self.minimum());
    }

    fn window(&self) -> u32 {
        self.cwnd
    }

    fn is_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    fn on_ack(&mut self, ack: &Ack) {
        // RFC 9002, 7.8: no growth for what the window did not limit; 7.3.2: none during recovery.
        if !ack.limited || self.recovery_start.is_some_and(|start| ack.sent <= start) {
            return;
        }
        if self.is_slow_start() {
            self.cwnd = self.cwnd.saturating_add(ack.bytes);
            return;
        }
        self.acked = self.acked.saturating_add(ack.bytes);
        if self.acked >= self.cwnd {
            self.acked -= self.cwnd;
            self.cwnd = self.cwnd.saturating_add(self.datagram);
        }
    }

    fn on_congestion(&mut self, now: Instant, sent: Instant) -> bool {
        if self.recovery_start.is_some_and(|start| sent <= start) {
            return false;
        }
        self.recovery_start = Some(now);
        self.before = Some((self.cwnd, self.ssthresh));
        self.cwnd = (self.cwnd / 2).max(self.minimum());
        self.ssthresh = self.cwnd;
        self.acked = 0;
        true
    }

    fn on_spurious(&mut self) {
        if let Some((cwnd, ssthresh)) = self.before.take() {
            self.cwnd = self.cwnd.max(cwnd);
            self.ssthresh = ssthresh;
            self.recovery_start = None;
        }
    }

    fn on_persistent(&mut self, now: Instant) {
        self.ssthresh = (self.cwnd / 2).max(self.minimum());
        self.cwnd = self.minimum();
        self.recovery_start = Some(now);
        self.before = None;
        self.acked = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Instant {
        Instant::from_ns(ms * 1_000_000)
    }

    #[test]
    fn one_response_a_round_trip_and_growth_by_a_datagram() {
        let mut reno = NewReno::new(1000);
        assert_eq!(reno.window(), 10_000);
        reno.on_ack(&Ack::new(at(10), at(0), 10_000));
        assert_eq!(reno.window(), 20_000);
        reno.on_congestion(at(20), at(11));
        reno.on_congestion(at(21), at(12));
        assert_eq!(reno.window(), 10_000);
        reno.on_ack(&Ack::new(at(25), at(15), 5_000)); // sent before the response
        assert_eq!(reno.window(), 10_000);
        reno.on_ack(&Ack::new(at(35), at(25), 10_000));
        assert_eq!(reno.window(), 11_000);
        reno.on_ack(&Ack { limited: false, ..Ack::new(at(36), at(26), 50_000) });
        assert_eq!(reno.window(), 11_000);
    }

    #[test]
    fn a_spurious_loss_gives_the_window_back() {
        let mut reno = NewReno::new(1000);
        reno.on_congestion(at(20), at(11));
        assert_eq!(reno.window(), 5_000);
        reno.on_spurious();
        assert_eq!(reno.window(), 10_000);
        assert!(reno.is_slow_start());
    }

    #[test]
    fn the_window_keeps_two_datagrams() {
        let mut reno = NewReno::new(1000);
        for n in 0..20 {
            reno.on_congestion(at(20 * n), at(20 * n));
        }
        assert_eq!(reno.window(), 2000);
        reno.on_persistent(at(1000));
        assert_eq!(reno.window(), 2000);
    }
}
