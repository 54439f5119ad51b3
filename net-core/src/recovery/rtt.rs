//! Round-trip estimation (RFC 6298, with the acknowledgement delay of RFC 9002).

use hal::time::Span;

/// Smoothed round trip, its variation and its minimum.
///
/// ```
/// use hal::time::Span;
/// use net_core::rtt::RttEstimator;
///
/// let mut rtt = RttEstimator::new(Span::ms(333));
/// rtt.on_sample(Span::ms(40), Span::ZERO);
/// assert_eq!((rtt.srtt(), rtt.rttvar()), (Span::ms(40), Span::ms(20)));
/// assert_eq!(rtt.rto(Span::ms(1)), Span::ms(120));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RttEstimator {
    srtt: Span,
    rttvar: Span,
    latest: Span,
    min: Option<Span>,
}

impl RttEstimator {
    /// An estimator that assumes `initial` until the first sample.
    pub const fn new(initial: Span) -> Self {
        Self { srtt: initial, rttvar: Span::ns(initial.as_ns() / 2), latest: initial, min: None }
    }

    /// Takes the time between sending a packet and receiving its acknowledgement, of which the peer says that it held
    /// it back for `ack_delay`. Packet numbers are not reused, so samples of repeated data are as good as others.
    ///
    /// Source: RFC 6298 (2.2, 2.3); RFC 9002 (5.3): the delay is taken off unless that goes below the minimum.
    pub fn on_sample(&mut self, sample: Span, ack_delay: Span) {
        self.latest = sample;
        let Some(min) = self.min else {
            self.min = Some(sample);
            self.srtt = sample;
            self.rttvar = Span::ns(sample.as_ns() / 2);
            return;
        };
        let min = min.min(sample);
        self.min = Some(min);
        let adjusted = sample.as_ns().saturating_sub(ack_delay.as_ns());
        let sample = if adjusted >= min.as_ns() { adjusted } else { sample.as_ns() };
        let (srtt, rttvar) = (self.srtt.as_ns(), self.rttvar.as_ns());
        self.rttvar = Span::ns(rttvar - rttvar / 4 + srtt.abs_diff(sample) / 4);
        self.srtt = Span::ns(srtt - srtt / 8 + sample / 8);
    }

    /// Smoothed round trip.
    pub const fn srtt(&self) -> Span {
        self.srtt
    }

    /// Mean deviation of the samples.
    pub const fn rttvar(&self) -> Span {
        self.rttvar
    }

    /// The latest sample.
    pub const fn latest(&self) -> Span {
        self.latest
    }

    /// The smallest sample; `None` before the first.
    pub const fn min(&self) -> Option<Span> {
        self.min
    }

    /// `srtt + max(4 · rttvar, granularity)`: RFC 6298 (2.3) without its floor of a second, which the caller applies.
    pub fn rto(&self, granularity: Span) -> Span {
        self.srtt.plus(self.rttvar.times(4).max(granularity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_follows_and_settles() {
        let mut rtt = RttEstimator::new(Span::ms(333));
        for _ in 0..100 {
            rtt.on_sample(Span::ms(25), Span::ms(5));
        }
        // The minimum was measured with the delay inside, so the delay cannot be taken off below it.
        assert_eq!(rtt.srtt().as_ms(), 24 + u64::from(rtt.srtt() >= Span::ms(25)));
        assert!(rtt.rto(Span::ms(1)) < Span::ms(30));
        rtt.on_sample(Span::MAX, Span::ZERO);
        assert!(rtt.rto(Span::ms(1)) > Span::secs(1));
    }
}
