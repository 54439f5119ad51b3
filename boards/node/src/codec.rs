//! Little-endian fields read from and written to byte slices, without a panic on any input.
//!
//! ```
//! use node::codec::{Reader, Writer};
//!
//! let mut bytes = [0; 16];
//! let mut w = Writer::new(&mut bytes);
//! w.u16(0x1234);
//! w.text("volt");
//! let len = w.finish().unwrap();
//! let mut r = Reader::new(&bytes[..len]);
//! assert_eq!((r.u16(), r.text(), r.u8()), (Some(0x1234), Some("volt"), None));
//! ```
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

/// Takes fields from the front of a slice; `None` once it is too short.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads from the front of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*chunk)
    }

    /// One byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.chunk::<1>().map(|[b]| b)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Option<u16> {
        self.chunk().map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_le_bytes)
    }

    /// Four bytes, signed.
    pub fn i32(&mut self) -> Option<i32> {
        self.chunk().map(i32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_le_bytes)
    }

    /// Sixteen bytes.
    pub fn u128(&mut self) -> Option<u128> {
        self.chunk().map(u128::from_le_bytes)
    }

    /// `len` bytes as they are.
    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    /// A length byte and as many bytes of UTF-8.
    pub fn text(&mut self) -> Option<&'a str> {
        let len = self.u8()?;
        core::str::from_utf8(self.bytes(usize::from(len))?).ok()
    }

    /// What has not been taken yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// Puts fields one behind the other into a slice; remembers whether all fitted.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut [u8],
    len: usize,
    overflow: bool,
}

impl<'a> Writer<'a> {
    /// Writes from the front of `bytes`.
    pub const fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, len: 0, overflow: false }
    }

    /// Some bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        match self.bytes.get_mut(self.len..end) {
            Some(to) if !self.overflow => {
                to.copy_from_slice(bytes);
                self.len = end;
            }
            _ => self.overflow = true,
        }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// Four bytes, signed.
    pub fn i32(&mut self, value: i32) {
        self.bytes(&value.to_le_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// Sixteen bytes.
    pub fn u128(&mut self, value: u128) {
        self.bytes(&value.to_le_bytes());
    }

    /// A length byte and the text, cut at a character boundary to at most 255 bytes.
    pub fn text(&mut self, text: &str) {
        let text = clipped(text);
        self.u8(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.bytes(text.as_bytes());
    }

    /// How many bytes were written, or `None` when something did not fit.
    pub const fn finish(self) -> Option<usize> {
        if self.overflow { None } else { Some(self.len) }
    }
}

fn clipped(text: &str) -> &str {
    let mut end = text.len().min(255);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_does_not_fit_stops_all_that_follow() {
        let mut bytes = [0; 4];
        let mut w = Writer::new(&mut bytes);
        w.u64(1);
        w.u8(7); // would fit, but must not land where the u64 should be
        assert_eq!(w.finish(), None);
        assert_eq!(bytes, [0; 4]);
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        let mut bytes = [0; 400];
        let text = alloc::string::String::from_iter(core::iter::repeat_n('ä', 200));
        let mut w = Writer::new(&mut bytes);
        w.text(&text);
        let len = w.finish().unwrap();
        assert_eq!(Reader::new(&bytes[..len]).text().map(str::len), Some(254));
    }
}
