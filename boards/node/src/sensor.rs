//! Channels, groups of channels, and the trait that reads them.

use hal::time::{Instant, Span};

/// Most channels that one group can have.
pub const MAX_CHANNELS: usize = 16;

/// What one number in a sample means. The physical value is `raw * 10^exponent` in `unit`.
///
/// ```
/// use node::sensor::Channel;
///
/// let supply = Channel { name: "supply", unit: "V", exponent: -3, min: 0, max: 5_500 };
/// assert_eq!(supply.scaled(3_300), "3.3".parse::<f64>().unwrap());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel<'a> {
    /// Short name, unique in the node.
    pub name: &'a str,
    /// Unit symbol of the scaled value: `V`, `°C`, `%`, `s`; empty for a plain number.
    pub unit: &'a str,
    /// Power of ten that a raw value is multiplied by, -18 to 18.
    pub exponent: i8,
    /// Least raw value that the sensor can give.
    pub min: i32,
    /// Greatest raw value that the sensor can give.
    pub max: i32,
}

impl Channel<'_> {
    /// The physical value of a raw one, in the channel's unit. Floating point: for hosts that show values.
    pub fn scaled(&self, raw: i32) -> f64 {
        let mut power = 1f64;
        for _ in 0..self.exponent.unsigned_abs() {
            power *= 10.0;
        }
        // Division by an exact power of ten rounds once; multiplication by 0.001 would round twice.
        if self.exponent < 0 { f64::from(raw) / power } else { f64::from(raw) * power }
    }
}

/// Channels that one interrupt reads together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group<'a> {
    /// Number of the group in the node.
    pub id: u8,
    /// Time between two interrupts.
    pub period: Span,
    /// How long after its interrupt a reading may finish.
    pub deadline: Span,
    /// At most [`MAX_CHANNELS`].
    pub channels: &'a [Channel<'a>],
}

/// Why a reading is not what it seems, one bit each; stored with the sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// A clean sample.
    pub const NONE: Self = Self(0);
    /// The handler finished after its deadline.
    pub const LATE: Self = Self(1);
    /// The sensor reported an error; the values are the last good ones.
    pub const SENSOR_FAULT: Self = Self(2);
    /// At least one interrupt before this one was not served.
    pub const AFTER_MISS: Self = Self(4);

    /// Both sets of bits.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all bits of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Reads one group of channels. Runs in the interrupt handler: bounded time, no waiting for other tasks.
pub trait Sensors {
    /// What is read.
    fn group(&self) -> Group<'_>;
    /// Reads all channels of the group into the front of `values` (as many as the group has channels) for the interrupt
    /// that arrived at `arrived`, at the time `now`.
    fn read(&mut self, arrived: Instant, now: Instant, values: &mut [i32; MAX_CHANNELS]) -> Flags;
}
