//! The handshake's payloads, and the cookie that makes it stateless.
//!
//! ```text
//!  client                                    server
//!   Syn{params}                ───────────>   no state kept, no more bytes back than came
//!   <───────────  Retry{nonce, cookie}        cookie = SipHash(key; address, client's id, nonce, time slot)
//!   Syn{params, cookie}        ───────────>   the address is real: remembers 64 bytes
//!   <───────────────────  Accept{params}
//!   Ping                       ───────────>   knows the server's id: the connection exists
//! ```
//!
//! The last step matters as much as the cookie: a replayed `Syn` with a cookie that is still good makes a half-open
//! entry that nobody can confirm, because the server's connection id is drawn anew.

use core::hash::{Hash, Hasher};

#[cfg(feature = "alloc")]
use hal::time::Instant;
use siphasher::sip::SipHasher24;

use crate::wire::header::{Header, PacketType};
use crate::wire::{be32, be64};

/// What each side tells the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Params {
    /// Connection id for packets to the sender of this.
    pub(crate) connection: u32,
    pub(crate) first_number: u32,
    pub(crate) first_offset: u32,
    /// Credit to begin with.
    pub(crate) receive_buffer: u32,
    pub(crate) max_message: u32,
    pub(crate) idle_timeout_ms: u32,
    pub(crate) max_ack_delay_us: u32,
    /// Drawn by the client; everything the server sends during the handshake repeats it.
    pub(crate) nonce: u64,
    /// 0: none yet, and in an `Accept`.
    pub(crate) cookie: u64,
}

/// Bytes of [`Params`] on the wire.
pub(crate) const PARAMS: usize = 44;
/// Bytes of a `Retry`'s payload.
pub(crate) const RETRY: usize = 16;

impl Params {
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let p = payload.first_chunk::<PARAMS>()?;
        Some(Self {
            connection: be32(p),
            first_number: be32(&p[4..]),
            first_offset: be32(&p[8..]),
            receive_buffer: be32(&p[12..]),
            max_message: be32(&p[16..]),
            idle_timeout_ms: be32(&p[20..]),
            max_ack_delay_us: be32(&p[24..]),
            nonce: be64(&p[28..]),
            cookie: be64(&p[36..]),
        })
        .filter(|params| params.connection != 0)
    }

    /// The whole packet of type `kind` to `connection`; `None` when `out` is too short.
    pub(crate) fn emit(&self, kind: PacketType, connection: u32, out: &mut [u8]) -> Option<usize> {
        let words = [
            self.connection,
            self.first_number,
            self.first_offset,
            self.receive_buffer,
            self.max_message,
            self.idle_timeout_ms,
            self.max_ack_delay_us,
        ];
        let body = out.get_mut(crate::wire::header::HEADER..)?.first_chunk_mut::<PARAMS>()?;
        let (fields, cookies) = body.split_at_mut(28);
        for (to, word) in fields.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *to = word.to_be_bytes();
        }
        for (to, value) in cookies.as_chunks_mut::<8>().0.iter_mut().zip([self.nonce, self.cookie]) {
            *to = value.to_be_bytes();
        }
        Header::new(kind, connection).emit(out, 0, PARAMS)
    }
}

/// Random numbers and cookies out of one secret seed: a keyed hash of a counter.
#[derive(Clone, Debug)]
pub(crate) struct Secret {
    key: (u64, u64),
    drawn: u64,
}

/// Bits of the nanosecond clock that one cookie slot spans: 2^33 ns are 8.6 s.
#[cfg(feature = "alloc")]
const SLOT_BITS: u32 = 33;

impl Secret {
    pub(crate) const fn new(seed: u64) -> Self {
        // The second half of the key only has to differ from the first; the secret is the seed.
        Self { key: (seed, seed.rotate_left(32) ^ 0x6772_6f75_6e64_706c), drawn: 0 }
    }

    /// The next random number.
    pub(crate) fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.hash(&(0u8, self.drawn))
    }

    /// Random and not zero.
    #[allow(clippy::cast_possible_truncation, reason = "any 32 of the random bits serve")]
    pub(crate) fn draw_id(&mut self) -> u32 {
        (self.draw() as u32).max(1)
    }

    #[cfg(feature = "alloc")]
    pub(crate) fn cookie<A: Hash>(&self, now: Instant, from: &A, connection: u32, nonce: u64) -> u64 {
        self.cookie_of_slot(now.as_ns() >> SLOT_BITS, from, connection, nonce)
    }

    /// Cookies of this slot and the one before are good.
    #[cfg(feature = "alloc")]
    pub(crate) fn is_valid<A: Hash>(
        &self,
        cookie: u64,
        now: Instant,
        from: &A,
        connection: u32,
        nonce: u64,
    ) -> bool {
        let slot = now.as_ns() >> SLOT_BITS;
        [slot, slot.wrapping_sub(1)]
            .into_iter()
            .any(|slot| self.cookie_of_slot(slot, from, connection, nonce) == cookie)
    }

    #[cfg(feature = "alloc")]
    fn cookie_of_slot<A: Hash>(&self, slot: u64, from: &A, connection: u32, nonce: u64) -> u64 {
        self.hash(&(1u8, slot, from, connection, nonce)).max(1)
    }

    fn hash<T: Hash>(&self, what: &T) -> u64 {
        let mut hasher = SipHasher24::new_with_keys(self.key.0, self.key.1);
        what.hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::*;
    use hal::time::Span;

    #[test]
    fn cookies_hold_for_their_address_and_a_while() {
        let secret = Secret::new(7);
        let now = Instant::from_ns(1 << 40);
        let cookie = secret.cookie(now, &[10u8, 0, 0, 1], 5, 6);
        let valid = |at, from: [u8; 4], id, nonce| secret.is_valid(cookie, at, &from, id, nonce);
        assert!(valid(now, [10, 0, 0, 1], 5, 6));
        assert!(valid(now.after(Span::secs(8)), [10, 0, 0, 1], 5, 6));
        assert!(!valid(now.after(Span::secs(20)), [10, 0, 0, 1], 5, 6));
        assert!(!valid(now, [10, 0, 0, 2], 5, 6));
        assert!(!valid(now, [10, 0, 0, 1], 4, 6));
        assert!(!valid(now, [10, 0, 0, 1], 5, 7));
        assert!(!Secret::new(8).is_valid(cookie, now, &[10u8, 0, 0, 1], 5, 6));
    }

    #[test]
    fn parameters_come_back_and_short_ones_are_refused() {
        let params = Params {
            connection: 1,
            first_number: 2,
            first_offset: 3,
            receive_buffer: 4,
            max_message: 5,
            idle_timeout_ms: 6,
            max_ack_delay_us: 7,
            nonce: 8,
            cookie: 9,
        };
        let mut bytes = [0; 128];
        let len = params.emit(PacketType::Syn, 0, &mut bytes).unwrap();
        let packet = crate::wire::header::Packet::parse(&bytes[..len]).unwrap();
        assert_eq!(Params::parse(packet.payload()), Some(params));
        assert_eq!(Params::parse(&packet.payload()[1..]), None);
        assert!(len <= crate::config::MIN_DATAGRAM);
    }
}
