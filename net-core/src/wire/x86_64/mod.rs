//! What x86-64 does in hardware: chosen at run time, without `std`.
#![allow(unsafe_code, reason = "vector instructions: loads, stores and calls after detection")]

pub(super) mod checksum;
pub(super) mod crc;

use core::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use core::sync::atomic::{AtomicU8, Ordering};

/// The ways of computing that this processor and its operating system allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Features(u8);

const KNOWN: u8 = 1;
const CRC: u8 = 2;
const FOLD: u8 = 4;
const WIDE_FOLD: u8 = 8;
const AVX2: u8 = 16;

impl Features {
    /// The `crc32` instruction (SSE4.2).
    pub(super) const fn has_crc(self) -> bool {
        self.0 & CRC != 0
    }
    /// Carry-less multiplication, with the `crc32` instruction.
    pub(super) const fn has_fold(self) -> bool {
        self.0 & FOLD != 0
    }
    /// Carry-less multiplication of 512 bits at once.
    pub(super) const fn has_wide_fold(self) -> bool {
        self.0 & WIDE_FOLD != 0
    }
    pub(super) const fn has_avx2(self) -> bool {
        self.0 & AVX2 != 0
    }
}

/// What the processor can do; asked once, then remembered.
#[inline]
pub(super) fn features() -> Features {
    static CACHE: AtomicU8 = AtomicU8::new(0);
    // Relaxed: the value is the same whoever computes it, and guards no other memory.
    let cached = CACHE.load(Ordering::Relaxed);
    if cached != 0 {
        return Features(cached);
    }
    let found = detect();
    CACHE.store(found, Ordering::Relaxed);
    Features(found)
}

/// Intel SDM volume 2A, CPUID; volume 1, 14.3 and 15.2: registers wider than 128 bits also need the system's consent.
#[cold]
fn detect() -> u8 {
    let bit = |word: u32, bit: u32| word >> bit & 1 == 1;
    let mut found = KNOWN;
    let highest = __cpuid(0).eax;
    let one = __cpuid(1).ecx;
    let crc = bit(one, 20);
    let fold = crc && bit(one, 1);
    found |= (u8::from(crc) * CRC) | (u8::from(fold) * FOLD);
    if !bit(one, 27) || highest < 7 {
        return found; // no XGETBV, or no leaf 7
    }
    let saved = xcr0();
    let seven = __cpuid_count(7, 0);
    if saved & 0b110 == 0b110 && bit(one, 28) && bit(seven.ebx, 5) {
        found |= AVX2;
    }
    // F, DQ and VL of AVX-512, and VPCLMULQDQ.
    let wide = bit(seven.ebx, 16) && bit(seven.ebx, 17) && bit(seven.ebx, 31) && bit(seven.ecx, 10);
    if saved & 0b1110_0110 == 0b1110_0110 && wide && fold {
        found |= WIDE_FOLD;
    }
    found
}

/// Which registers the operating system saves.
fn xcr0() -> u64 {
    #[target_feature(enable = "xsave")]
    fn read() -> u64 {
        // SAFETY: register 0 exists wherever the instruction does.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: `detect` has seen OSXSAVE (CPUID.1:ECX[27]), which means that XGETBV is there and enabled.
    unsafe { read() }
}
