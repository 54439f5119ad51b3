//! Numbers that are 64 bits inside and 32 bits on the wire.

/// Counters start here plus a random 32-bit value, so that expanding a forged number cannot go below zero.
pub(crate) const EPOCH: u64 = 1 << 32;

/// The low half, as it goes on the wire.
#[allow(clippy::cast_possible_truncation, reason = "the wire carries the low 32 bits")]
pub(crate) const fn low(value: u64) -> u32 {
    value as u32
}

/// The 64-bit value nearest to `near` whose low half is `low`.
pub(crate) const fn expand(low32: u32, near: u64) -> u64 {
    near.wrapping_add_signed(low32.wrapping_sub(low(near)).cast_signed() as i64)
}

/// Whether `a` comes before `b`, for numbers less than 2^31 apart.
pub(crate) const fn precedes(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion_finds_the_nearest_value_across_the_wrap() {
        let near = EPOCH + 0xffff_fffb;
        for delta in [-1000i64, -5, 0, 4, 5, 6, 1 << 30] {
            let value = near.wrapping_add_signed(delta);
            assert_eq!(expand(low(value), near), value);
        }
        assert!(precedes(u32::MAX, 0) && !precedes(0, u32::MAX) && !precedes(3, 3));
    }
}
