//! The Internet checksum 128 bytes at a time.
#![allow(unsafe_code, reason = "vector instructions: loads, stores and calls after detection")]

use core::arch::x86_64::{
    __m256i, _mm256_add_epi64, _mm256_and_si256, _mm256_loadu_si256, _mm256_set1_epi64x,
    _mm256_setzero_si256, _mm256_srli_epi64, _mm256_storeu_si256,
};

use super::Features;

/// Below it the portable form is as fast.
const FROM: usize = 256;

/// The words of whole blocks of 128 bytes added up, and how many bytes that were; `None` when it does not pay.
#[inline]
pub(in crate::wire) fn sum_blocks(features: Features, data: &[u8]) -> Option<(u64, usize)> {
    if data.len() < FROM || !features.has_avx2() {
        return None;
    }
    let blocks = data.as_chunks::<128>().0;
    // SAFETY: the feature was detected.
    Some((unsafe { sum(blocks) }, blocks.len() * 128))
}

/// The same while copying the blocks to `to`, which holds at least as many bytes.
#[inline]
pub(in crate::wire) fn copy_blocks(features: Features, to: &mut [u8], data: &[u8]) -> Option<(u64, usize)> {
    if data.len() < FROM || !features.has_avx2() {
        return None;
    }
    let (from, to) = (data.as_chunks::<128>().0, to.as_chunks_mut::<128>().0);
    // SAFETY: the feature was detected.
    Some((unsafe { copy(to, from) }, from.len().min(to.len()) * 128))
}

/// Sixty-four bits are split into halves by mask and shift, so that adding cannot carry for 2^32 blocks.
#[target_feature(enable = "avx2")]
pub(super) fn sum(blocks: &[[u8; 128]]) -> u64 {
    let mut lanes = [_mm256_setzero_si256(); 8];
    for block in blocks {
        add(&mut lanes, load(block));
    }
    total(lanes)
}

#[target_feature(enable = "avx2")]
pub(super) fn copy(to: &mut [[u8; 128]], from: &[[u8; 128]]) -> u64 {
    let mut lanes = [_mm256_setzero_si256(); 8];
    for (to, from) in to.iter_mut().zip(from) {
        let words = load(from);
        for (to, word) in to.as_chunks_mut::<32>().0.iter_mut().zip(words) {
            // SAFETY: the array has the 32 bytes; the instruction needs no alignment.
            unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), word) };
        }
        add(&mut lanes, words);
    }
    total(lanes)
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(block: &[u8; 128]) -> [__m256i; 4] {
    let mut words = [_mm256_setzero_si256(); 4];
    for (word, bytes) in words.iter_mut().zip(block.as_chunks::<32>().0) {
        // SAFETY: the array has the 32 bytes; the instruction needs no alignment.
        *word = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
    }
    words
}

#[inline]
#[target_feature(enable = "avx2")]
fn add(lanes: &mut [__m256i; 8], words: [__m256i; 4]) {
    let mask = _mm256_set1_epi64x(0xffff_ffff);
    for (pair, word) in lanes.as_chunks_mut::<2>().0.iter_mut().zip(words) {
        pair[0] = _mm256_add_epi64(pair[0], _mm256_and_si256(word, mask));
        pair[1] = _mm256_add_epi64(pair[1], _mm256_srli_epi64::<32>(word));
    }
}

/// All lanes, each folded once so that their sum fits.
#[inline]
#[target_feature(enable = "avx2")]
fn total(lanes: [__m256i; 8]) -> u64 {
    let mut sum = 0;
    for lane in lanes {
        let mut words = [0u64; 4];
        // SAFETY: the array has the 32 bytes; the instruction needs no alignment.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), lane) };
        sum += words.into_iter().map(|word| (word >> 32) + (word & 0xffff_ffff)).sum::<u64>();
    }
    sum
}
