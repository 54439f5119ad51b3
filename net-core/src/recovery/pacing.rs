//! Pacing: spreads packets over the round trip instead of sending a window at once.

use hal::time::{Instant, Span};

/// A token bucket whose tokens are time: a packet moves `sent_until` on by what it takes at the rate.
///
/// Being late is allowed to be made up for by a burst of [`BURST`] or ten datagrams, whichever is longer, because
/// timers of real systems wake late; more would be the burst that pacing is there to prevent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pacer {
    /// When what has been sent would have left at the rate.
    sent_until: Instant,
    /// How far that may lie ahead.
    burst: Span,
}

/// Lateness that is made up for.
const BURST: Span = Span::ms(1);

impl Pacer {
    pub(crate) const fn new() -> Self {
        Self { sent_until: Instant::ZERO, burst: BURST }
    }

    /// When the next packet may go, if that is later than `now`.
    pub(crate) fn blocked_until(&self, now: Instant) -> Option<Instant> {
        let ahead = self.sent_until.since(now);
        (ahead > self.burst).then(|| now.after(Span::ns(ahead.as_ns() - self.burst.as_ns())))
    }

    /// A packet of `bytes` goes at `now`, on a path of `rate` bytes a second and datagrams of `datagram` bytes.
    pub(crate) fn on_sent(&mut self, now: Instant, bytes: usize, rate: u64, datagram: usize) {
        let time = |bytes: usize| Span::ns((bytes as u64).saturating_mul(1_000_000_000) / rate.max(1));
        self.burst = BURST.max(time(10 * datagram));
        self.sent_until = self.sent_until.max(now).after(time(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_packets_takes_a_second_after_the_first_burst() {
        let mut pacer = Pacer::new();
        let mut now = Instant::from_ns(5_000_000_000);
        let start = now;
        for _ in 0..1010 {
            now = pacer.blocked_until(now).unwrap_or(now);
            pacer.on_sent(now, 1000, 1_000_000, 1000);
        }
        let took = now.since(start).as_ms();
        assert!((995..=1005).contains(&took), "{took} ms");
    }
}
