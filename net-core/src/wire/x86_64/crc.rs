//! CRC-32C by the `crc32` instruction, and by folding with carry-less multiplication.
//!
//! A register holds 128 bits of the message, to be multiplied by x^D when D more bits follow. Modulo the polynomial that
//! is a multiplication of each half by a constant of 32 bits and fits 128 bits again, so a register can be moved over the
//! next block and added to it. In reflected order the product of halves is one bit short, and a constant stands in the
//! lower half of its 64 bits; hence the exponents D + 31 and D - 33.
//!
//! Source: Gopal, Ozturk et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel 2009.
#![allow(unsafe_code, reason = "vector instructions: loads, stores and calls after detection")]

use core::arch::x86_64::{
    __m128i, __m512i, _mm_clmulepi64_si128, _mm_crc32_u8, _mm_crc32_u64, _mm_cvtsi32_si128,
    _mm_cvtsi128_si64, _mm_extract_epi64, _mm_loadu_si128, _mm_set_epi64x, _mm_xor_si128,
    _mm512_castsi512_si128, _mm512_clmulepi64_epi128, _mm512_extracti32x4_epi32, _mm512_inserti32x4,
    _mm512_loadu_si512, _mm512_set_epi64, _mm512_setzero_si512, _mm512_ternarylogic_epi64, _mm512_xor_si512,
};

use super::Features;
use crate::wire::crc::shift;

/// Below it folding does not pay.
const FOLD_FROM: usize = 128;
/// Below it the 512-bit form does not pay.
const WIDE_FROM: usize = 256;

/// The state after `data`, or `None` when the processor has no instruction for it.
#[inline]
pub(in crate::wire) fn advance(features: Features, state: u32, data: &[u8]) -> Option<u32> {
    if data.len() >= WIDE_FROM && features.has_wide_fold() {
        // SAFETY: the features were detected.
        return Some(unsafe { fold_wide(state, data) });
    }
    if data.len() >= FOLD_FROM && features.has_fold() {
        // SAFETY: the features were detected.
        return Some(unsafe { fold(state, data) });
    }
    if features.has_crc() {
        // SAFETY: the feature was detected.
        return Some(unsafe { step(state, data) });
    }
    None
}

/// Eight bytes at a time, one instruction after the other.
#[target_feature(enable = "sse4.2")]
pub(super) fn step(state: u32, data: &[u8]) -> u32 {
    let (words, rest) = data.as_chunks::<8>();
    let mut wide = u64::from(state);
    for word in words {
        wide = _mm_crc32_u64(wide, u64::from_le_bytes(*word));
    }
    #[allow(clippy::cast_possible_truncation, reason = "the instruction clears the upper half")]
    let mut state = wide as u32;
    for &byte in rest {
        state = _mm_crc32_u8(state, byte);
    }
    state
}

/// Four registers of 16 bytes.
#[target_feature(enable = "sse4.2,pclmulqdq")]
pub(super) fn fold(state: u32, data: &[u8]) -> u32 {
    let (blocks, rest) = data.as_chunks::<64>();
    let Some((first, blocks)) = blocks.split_first() else { return step(state, data) };
    let mut lanes = load4(first);
    lanes[0] = _mm_xor_si128(lanes[0], _mm_cvtsi32_si128(state.cast_signed()));
    let by_64 = constants(512);
    for block in blocks {
        for (lane, next) in lanes.iter_mut().zip(load4(block)) {
            *lane = _mm_xor_si128(move_over(*lane, by_64), next);
        }
    }
    let by_16 = constants(128);
    let [a, b, c, d] = lanes;
    let mut last = _mm_xor_si128(move_over(a, by_16), b);
    last = _mm_xor_si128(move_over(last, by_16), c);
    last = _mm_xor_si128(move_over(last, by_16), d);
    let (sixteens, rest) = rest.as_chunks::<16>();
    for next in sixteens {
        last = _mm_xor_si128(move_over(last, by_16), load(next));
    }
    step(reduce(last), rest)
}

/// Four registers of 64 bytes.
#[target_feature(enable = "sse4.2,pclmulqdq,avx512f,avx512dq,avx512vl,vpclmulqdq")]
pub(super) fn fold_wide(state: u32, data: &[u8]) -> u32 {
    let (blocks, rest) = data.as_chunks::<256>();
    let Some((first, blocks)) = blocks.split_first() else { return fold(state, data) };
    let mut lanes = load4_wide(first);
    let start = _mm512_inserti32x4::<0>(_mm512_setzero_si512(), _mm_cvtsi32_si128(state.cast_signed()));
    lanes[0] = _mm512_xor_si512(lanes[0], start);
    let by_256 = constants_wide(2048);
    for block in blocks {
        for (lane, next) in lanes.iter_mut().zip(load4_wide(block)) {
            *lane = move_over_wide(*lane, by_256, next);
        }
    }
    let by_64 = constants_wide(512);
    let [a, b, c, d] = lanes;
    let mut wide = move_over_wide(a, by_64, b);
    wide = move_over_wide(wide, by_64, c);
    wide = move_over_wide(wide, by_64, d);
    let (sixty_fours, rest) = rest.as_chunks::<64>();
    for next in sixty_fours {
        wide = move_over_wide(wide, by_64, load_wide(next));
    }
    let a = move_over(_mm512_castsi512_si128(wide), constants(384));
    let b = move_over(_mm512_extracti32x4_epi32::<1>(wide), constants(256));
    let c = move_over(_mm512_extracti32x4_epi32::<2>(wide), constants(128));
    let d = _mm512_extracti32x4_epi32::<3>(wide);
    let mut last = _mm_xor_si128(_mm_xor_si128(a, b), _mm_xor_si128(c, d));
    let (sixteens, rest) = rest.as_chunks::<16>();
    for next in sixteens {
        last = _mm_xor_si128(move_over(last, constants(128)), load(next));
    }
    step(reduce(last), rest)
}

/// x^n modulo the polynomial, reflected.
const fn power(n: u32) -> i64 {
    shift(0x8000_0000, n) as i64
}

/// The two constants that move a register over `bits` bits.
#[inline]
#[target_feature(enable = "sse2")]
fn constants(bits: u32) -> __m128i {
    let (low, high) = match bits {
        128 => const { (power(128 + 31), power(128 - 33)) },
        256 => const { (power(256 + 31), power(256 - 33)) },
        384 => const { (power(384 + 31), power(384 - 33)) },
        _ => const { (power(512 + 31), power(512 - 33)) },
    };
    _mm_set_epi64x(high, low)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn constants_wide(bits: u32) -> __m512i {
    let (l, h) = match bits {
        512 => const { (power(512 + 31), power(512 - 33)) },
        _ => const { (power(2048 + 31), power(2048 - 33)) },
    };
    _mm512_set_epi64(h, l, h, l, h, l, h, l)
}

#[inline]
#[target_feature(enable = "pclmulqdq")]
fn move_over(lane: __m128i, by: __m128i) -> __m128i {
    _mm_xor_si128(_mm_clmulepi64_si128::<0x00>(lane, by), _mm_clmulepi64_si128::<0x11>(lane, by))
}

/// Moves `lane` and adds `next`, three terms in one instruction.
#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq")]
fn move_over_wide(lane: __m512i, by: __m512i, next: __m512i) -> __m512i {
    let low = _mm512_clmulepi64_epi128::<0x00>(lane, by);
    let high = _mm512_clmulepi64_epi128::<0x11>(lane, by);
    _mm512_ternarylogic_epi64::<0x96>(low, high, next)
}

/// 128 bits to the 32 of the state: the instruction does what is left.
#[inline]
#[target_feature(enable = "sse4.2")]
fn reduce(lane: __m128i) -> u32 {
    let low = _mm_crc32_u64(0, _mm_cvtsi128_si64(lane).cast_unsigned());
    let both = _mm_crc32_u64(low, _mm_extract_epi64::<1>(lane).cast_unsigned());
    #[allow(clippy::cast_possible_truncation, reason = "the instruction clears the upper half")]
    let state = both as u32;
    state
}

#[inline]
#[target_feature(enable = "sse2")]
fn load(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: the array has the 16 bytes; the instruction needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn load4(bytes: &[u8; 64]) -> [__m128i; 4] {
    let [a, b, c, d] = bytes.as_chunks::<16>().0 else { unreachable!("64 bytes are four times 16") };
    [load(a), load(b), load(c), load(d)]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_wide(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the array has the 64 bytes; the instruction needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load4_wide(bytes: &[u8; 256]) -> [__m512i; 4] {
    let [a, b, c, d] = bytes.as_chunks::<64>().0 else { unreachable!("256 bytes are four times 64") };
    [load_wide(a), load_wide(b), load_wide(c), load_wide(d)]
}

/// Every path that this processor has gives `want`, whatever length it is meant for.
#[cfg(test)]
pub(in crate::wire) fn check_every_path(data: &[u8], want: u32) {
    let features = super::features();
    if features.has_crc() {
        // SAFETY: the feature was detected.
        assert_eq!(!unsafe { step(!0, data) }, want, "step, {} bytes", data.len());
    }
    if features.has_fold() {
        // SAFETY: the features were detected.
        assert_eq!(!unsafe { fold(!0, data) }, want, "fold, {} bytes", data.len());
    }
    if features.has_wide_fold() {
        // SAFETY: the features were detected.
        assert_eq!(!unsafe { fold_wide(!0, data) }, want, "fold_wide, {} bytes", data.len());
    }
}
