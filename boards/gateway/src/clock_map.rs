//! Maps a node's clock to the gateway's, without synchronising either.
//!
//! A message that the node stamped with its clock arrives after the true offset plus the time that it travelled. The
//! smallest difference seen is therefore the best estimate from above, and half of the smallest round trip bounds its
//! error when both directions take alike. Two windows of 30 s follow a drifting clock; a clock that steps back shows as
//! a smaller difference at once, one that steps forward after a window.

use hal::time::{Instant, Span};

const WINDOW: Span = Span::secs(30);

/// The estimated relation of one node's clock to the gateway's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockMap {
    current: Option<i128>,
    previous: Option<i128>,
    window_start: Instant,
    error: Span,
}

impl ClockMap {
    /// A message stamped `node_time` arrived at `arrived` over a path whose least round trip is `min_rtt`.
    pub fn observe(&mut self, arrived: Instant, node_time: Instant, min_rtt: Span) {
        let difference = i128::from(arrived.as_ns()) - i128::from(node_time.as_ns());
        if self.current.is_none() || arrived.since(self.window_start) >= WINDOW {
            self.previous = self.current.replace(difference);
            self.window_start = arrived;
        } else {
            self.current = self.current.map(|least| least.min(difference));
        }
        self.error = Span::ns(min_rtt.as_ns() / 2);
    }

    /// Gateway time minus node time in ns, and how far it may be off; `None` before the first message.
    pub fn offset(&self) -> Option<(i128, Span)> {
        let least = match (self.current, self.previous) {
            (Some(current), Some(previous)) => current.min(previous),
            (one, other) => one.or(other)?,
        };
        Some((least - i128::from(self.error.as_ns()), self.error))
    }

    /// `node_time` on the gateway's clock; `None` before the first message, or when it lies before the gateway's start.
    pub fn to_gateway(&self, node_time: Instant) -> Option<Instant> {
        let (offset, _) = self.offset()?;
        u64::try_from(i128::from(node_time.as_ns()) + offset).ok().map(Instant::from_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Instant {
        Instant::ZERO.after(Span::ms(n))
    }

    #[test]
    fn the_quickest_message_decides_and_half_the_round_trip_is_taken_off() {
        let mut map = ClockMap::default();
        for (sent, delay) in [(0, 30), (100, 10), (200, 90)] {
            map.observe(ms(5_000 + sent + delay), ms(sent), Span::ms(20));
        }
        assert_eq!(map.offset(), Some((5_000_000_000, Span::ms(10))));
        assert_eq!(map.to_gateway(ms(300)), Some(ms(5_300)));
    }

    #[test]
    fn a_drifting_clock_is_followed() {
        let mut map = ClockMap::default();
        // 200 ppm slow for ten minutes: the difference grows by 120 ms.
        for second in 0..600u64 {
            let node = Instant::from_ns(second * 1_000_000_000 - second * 200_000);
            map.observe(ms(second * 1_000), node, Span::ZERO);
        }
        let (offset, _) = map.offset().unwrap();
        let truth = 599 * 200_000;
        assert!((truth - offset).abs() < 60 * 200_000, "off by {} ns", truth - offset);
    }

    #[test]
    fn a_step_of_an_hour_is_found_again() {
        let mut map = ClockMap::default();
        map.observe(ms(0), ms(0), Span::ZERO);
        for second in 1..100u64 {
            map.observe(ms(second * 1_000), ms(second * 1_000 - 1_000), Span::ZERO); // one second back
        }
        assert_eq!(map.offset().map(|(offset, _)| offset), Some(1_000_000_000));
        map.observe(ms(100_000), ms(3_700_000), Span::ZERO); // an hour forward
        assert_eq!(map.to_gateway(ms(3_700_000)), Some(ms(100_000)));
    }

    #[test]
    fn a_time_before_the_gateways_start_has_no_place() {
        let mut map = ClockMap::default();
        map.observe(ms(10), ms(5_000), Span::ZERO);
        assert_eq!(map.to_gateway(ms(4_000)), None);
    }
}
