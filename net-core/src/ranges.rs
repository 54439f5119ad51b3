//! A bounded set of numbers as ranges, newest first: packets received, pieces of the stream received.
//!
//! Numbers are the low 32 bits of counters; all members lie within 2^31 of each other. The owner forgets old ones.

use crate::seq::precedes;

/// Numbers from `start` up to, without, `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Range {
    pub(crate) const fn len(self) -> u32 {
        self.end.wrapping_sub(self.start)
    }
}

/// Ranges in descending order with at least one number missing between neighbours.
#[derive(Debug)]
pub(crate) struct RangeSet<B> {
    slots: B,
    len: usize,
}

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Insert {
    /// At least one number is new.
    New,
    /// All numbers were there.
    Known,
    /// It would need one more range than there is room for; nothing changed.
    Full,
}

impl<B: AsRef<[Range]> + AsMut<[Range]>> RangeSet<B> {
    pub(crate) fn new(slots: B) -> Self {
        Self { slots, len: 0 }
    }

    pub(crate) fn as_slice(&self) -> &[Range] {
        self.slots.as_ref().get(..self.len).unwrap_or(&[])
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Adds a range that is not empty, merging it with those it touches.
    pub(crate) fn insert(&mut self, new: Range) -> Insert {
        let all = self.as_slice();
        // Ranges before `first` lie wholly above `new` and do not touch it; those from `last` on lie wholly below.
        let first = all.iter().take_while(|r| precedes(new.end, r.start)).count();
        let touched = all.get(first..).unwrap_or(&[]);
        let touched = touched.iter().take_while(|r| !precedes(r.end, new.start)).count();
        let Some(slots) = self.slots.as_mut().get_mut(first..) else { return Insert::Full };
        let live = self.len - first;
        if touched == 0 {
            if slots.len() == live {
                return Insert::Full;
            }
            slots.copy_within(..live, 1);
            self.len += 1;
            if let Some(slot) = slots.first_mut() {
                *slot = new;
            }
            return Insert::New;
        }
        let (Some(&high), Some(&low)) = (slots.first(), slots.get(touched - 1)) else { return Insert::Full };
        let start = if precedes(new.start, low.start) { new.start } else { low.start };
        let end = if precedes(high.end, new.end) { new.end } else { high.end };
        if touched == 1 && start == high.start && end == high.end {
            return Insert::Known;
        }
        slots.copy_within(touched..live, 1);
        self.len -= touched - 1;
        if let Some(slot) = slots.first_mut() {
            *slot = Range { start, end };
        }
        Insert::New
    }

    /// Forgets all numbers before `floor`.
    pub(crate) fn forget_before(&mut self, floor: u32) {
        let keep = self.as_slice().iter().take_while(|r| precedes(floor, r.end)).count();
        self.len = keep;
        if let Some(last) = keep.checked_sub(1).and_then(|last| self.slots.as_mut().get_mut(last))
            && precedes(last.start, floor)
        {
            last.start = floor;
        }
    }

    /// Forgets the oldest range.
    pub(crate) fn forget_oldest(&mut self) {
        self.len = self.len.saturating_sub(1);
    }

    pub(crate) fn contains(&self, number: u32) -> bool {
        self.as_slice().iter().any(|r| !precedes(number, r.start) && precedes(number, r.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn agrees_with_a_plain_set_across_the_wrap() {
        let mut state = 7u64;
        let mut random = |below: u32| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            u32::try_from((state >> 33) % u64::from(below)).unwrap()
        };
        for _ in 0..300 {
            let base = u32::MAX - 40;
            let mut set = RangeSet::new([Range::default(); 6]);
            let mut model = BTreeSet::new();
            for _ in 0..60 {
                let (at, len) = (random(80), 1 + random(5));
                let range = Range { start: base.wrapping_add(at), end: base.wrapping_add(at + len) };
                let known = (at..at + len).all(|n| model.contains(&n));
                match set.insert(range) {
                    Insert::New => assert!(!known),
                    Insert::Known => assert!(known),
                    Insert::Full => {
                        assert_eq!(set.as_slice().len(), 6);
                        continue;
                    }
                }
                model.extend(at..at + len);
                if random(10) == 0 {
                    let floor = random(80);
                    set.forget_before(base.wrapping_add(floor));
                    model.retain(|&n| n >= floor);
                }
                for n in 0..90 {
                    assert_eq!(
                        set.contains(base.wrapping_add(n)),
                        model.contains(&n),
                        "{n} {set:?} {model:?}"
                    );
                }
                assert!(set.as_slice().windows(2).all(|w| precedes(w[1].end, w[0].start)));
            }
        }
    }
}
