//! HyStart++ (RFC 9406): leaves slow start when the round trip grows, before the queue overflows.

use hal::time::{Instant, Span};

use super::Ack;

/// RFC 9406, 4.3: bounds of the growth that counts.
const MIN_THRESHOLD: Span = Span::ms(4);
const MAX_THRESHOLD: Span = Span::ms(16);
/// Samples of a round before it is judged.
const SAMPLES: u32 = 8;
/// Growth of conservative slow start: a quarter.
const DIVISOR: u32 = 4;
/// Rounds of conservative slow start before congestion avoidance.
const ROUNDS: u32 = 5;

/// What slow start should do with an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    /// Grow by this many bytes.
    By(u32),
    /// Slow start is over.
    Stop,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct HyStart {
    round_start: Instant,
    last_min: Span,
    current_min: Span,
    samples: u32,
    /// In conservative slow start: the smallest round trip at its start.
    baseline: Option<Span>,
    rounds: u32,
}

impl HyStart {
    pub(super) const fn new() -> Self {
        Self {
            round_start: Instant::ZERO,
            last_min: Span::MAX,
            current_min: Span::MAX,
            samples: 0,
            baseline: None,
            rounds: 0,
        }
    }

    pub(super) fn on_ack(&mut self, ack: &Ack) -> Growth {
        if ack.sent >= self.round_start {
            self.round_start = ack.now;
            self.last_min = self.current_min;
            self.current_min = Span::MAX;
            self.samples = 0;
            if self.baseline.is_some() {
                self.rounds += 1;
                if self.rounds >= ROUNDS {
                    return Growth::Stop;
                }
            }
        }
        self.current_min = self.current_min.min(ack.latest_rtt);
        self.samples += 1;
        if self.samples >= SAMPLES && self.last_min != Span::MAX {
            let eighth = Span::ns(self.last_min.as_ns() / 8);
            let threshold = eighth.clamp(MIN_THRESHOLD, MAX_THRESHOLD);
            match self.baseline {
                None if self.current_min >= self.last_min.plus(threshold) => {
                    self.baseline = Some(self.current_min);
                    self.rounds = 0;
                }
                // The growth was a jitter: back to full slow start.
                Some(baseline) if self.current_min < baseline => self.baseline = None,
                _ => {}
            }
        }
        Growth::By(if self.baseline.is_some() { ack.bytes / DIVISOR } else { ack.bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten acknowledgements in each round, whose round trips are given.
    fn run(rounds: &[u64]) -> (u32, bool) {
        let mut hystart = HyStart::new();
        let (mut grown, mut now) = (0, Instant::from_ns(1_000_000_000));
        for &ms in rounds {
            let sent = now;
            now = now.after(Span::ms(ms));
            for _ in 0..10 {
                match hystart.on_ack(&Ack::new(now, sent, 1000)) {
                    Growth::By(bytes) => grown += bytes,
                    Growth::Stop => return (grown, true),
                }
            }
        }
        (grown, false)
    }

    #[test]
    fn a_steady_round_trip_doubles_and_a_growing_one_stops() {
        assert_eq!(run(&[40; 6]), (60_000, false));
        // 4 ms more than 40 is not yet an eighth; 5 ms is.
        assert_eq!(run(&[40, 44, 44]), (30_000, false));
        let (grown, stopped) = run(&[40, 46, 47, 48, 49, 50, 51, 52]);
        assert!(stopped && grown < 40_000, "{grown}");
    }

    #[test]
    fn a_passing_jitter_does_not_end_slow_start() {
        let (grown, stopped) = run(&[40, 46, 40, 40, 40, 40, 40, 40, 40, 40]);
        assert!(!stopped && grown > 80_000, "{grown}");
    }
}
