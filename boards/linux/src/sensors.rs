//! What a Linux node measures: a simulated bank of sensors, and the latency of its own interrupt.

use hal::time::{Instant, Span};
use node::sensor::{Channel, Flags, Group, MAX_CHANNELS, Sensors};

const CHANNELS: [Channel<'static>; 4] = [
    Channel { name: "wake-up", unit: "s", exponent: -9, min: 0, max: i32::MAX },
    Channel { name: "sine", unit: "V", exponent: -3, min: -1000, max: 1000 },
    Channel { name: "ramp", unit: "", exponent: 0, min: 0, max: 999 },
    Channel { name: "noise", unit: "", exponent: 0, min: 0, max: 255 },
];

/// A quarter of a sine in 16 steps, thousandths.
const QUARTER: [i32; 17] =
    [0, 98, 195, 290, 383, 471, 556, 634, 707, 773, 831, 882, 924, 957, 981, 995, 1000];

/// Channels whose course is known, beside one that is really measured: the time from the interrupt to its handler.
#[derive(Debug)]
pub(crate) struct Bank {
    period: Span,
    count: u64,
    noise: u32,
}

impl Bank {
    /// A bank that is read every `period`.
    pub(crate) const fn new(period: Span) -> Self {
        Self { period, count: 0, noise: 0x2545_f491 }
    }

    /// The group as it is announced.
    pub(crate) const fn group_of(period: Span) -> Group<'static> {
        Group { id: 0, period, deadline: period, channels: &CHANNELS }
    }
}

impl Sensors for Bank {
    fn group(&self) -> Group<'_> {
        Self::group_of(self.period)
    }

    fn read(&mut self, arrived: Instant, now: Instant, values: &mut [i32; MAX_CHANNELS]) -> Flags {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 17;
        self.noise ^= self.noise << 5;
        let [wake_up, sine, ramp, noise, ..] = values;
        *wake_up = i32::try_from(now.since(arrived).as_ns()).unwrap_or(i32::MAX);
        *sine = sine_of(self.count / 16);
        *ramp = i32::try_from(self.count % 1000).unwrap_or(0);
        *noise = (self.noise & 0xff).cast_signed();
        self.count += 1;
        Flags::NONE
    }
}

/// The sine of `step` sixty-fourths of a turn, thousandths.
fn sine_of(step: u64) -> i32 {
    let step = usize::try_from(step % 64).unwrap_or(0);
    let quarter = |at: usize| QUARTER.get(at).copied().unwrap_or(0);
    match step {
        0..16 => quarter(step),
        16..32 => quarter(32 - step),
        32..48 => -quarter(step - 32),
        _ => -quarter(64 - step),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sine_goes_up_down_and_round() {
        assert_eq!([0, 16, 32, 48, 64].map(sine_of), [0, 1000, 0, -1000, 0]);
        assert_eq!(sine_of(20), sine_of(12));
    }
}
