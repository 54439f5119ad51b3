//! Congestion control: how many bytes may be in flight.
//!
//! A controller is told what happens and answers with a window. Everything is integer arithmetic, because small
//! microcontrollers have no floating point.
//!
//! | controller | for |
//! | --- | --- |
//! | [`Cubic`] | the default: fills paths with a large bandwidth-delay product, fair to TCP |
//! | [`NewReno`] | the smallest |

use hal::time::{Instant, Span};

mod cubic;
mod hystart;
mod reno;

pub use cubic::Cubic;
pub use reno::NewReno;

/// What an acknowledgement tells a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ack {
    /// When it arrived.
    pub now: Instant,
    /// When the newest of the packets that it acknowledges for the first time was sent.
    pub sent: Instant,
    /// Bytes that it acknowledges for the first time and that were in flight.
    pub bytes: u32,
    /// Smoothed round trip.
    pub srtt: Span,
    /// The latest sample.
    pub latest_rtt: Span,
    /// Whether the window was what held the sender back.
    pub limited: bool,
}

impl Ack {
    /// `bytes` sent at `sent` acknowledged at `now` to a sender that the window held back.
    pub const fn new(now: Instant, sent: Instant, bytes: u32) -> Self {
        let rtt = now.since(sent);
        Self { now, sent, bytes, srtt: rtt, latest_rtt: rtt, limited: true }
    }
}

/// A congestion controller. All sizes are bytes of payload and header together.
pub trait Congestion {
    /// Starts on a path that carries datagrams of `datagram` bytes.
    fn new(datagram: u32) -> Self;
    /// The path now carries datagrams of another size.
    fn set_datagram(&mut self, datagram: u32);
    /// How much may be in flight.
    fn window(&self) -> u32;
    /// Below it the window grows exponentially.
    fn is_slow_start(&self) -> bool;
    /// Packets have been acknowledged.
    fn on_ack(&mut self, ack: &Ack);
    /// A packet sent at `sent` was lost or marked. True: the window was cut; false: that belongs to an earlier cut.
    fn on_congestion(&mut self, now: Instant, sent: Instant) -> bool;
    /// The losses of the latest response were none: packets were late.
    fn on_spurious(&mut self);
    /// Nothing came through for several probe timeouts (RFC 9002, 7.6).
    fn on_persistent(&mut self, now: Instant);
    /// Bytes a second to pace at: somewhat more than the window in a round trip, so that pacing never is the limit.
    fn pacing_rate(&self, srtt: Span) -> u64 {
        let gain = if self.is_slow_start() { 8 } else { 5 };
        let per_second = u64::from(self.window()) * gain / 4;
        per_second.saturating_mul(1_000_000) / srtt.as_us().max(1)
    }
}
