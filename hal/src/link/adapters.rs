//! Links made of links: two halves, an Ethernet header, two media.

use super::{Addr, Caps, Counters, Link, LinkRx, LinkTx, Rx, RxMeta, TxMeta};

/// An Ethernet address, in the order of the wire.
pub type Mac = [u8; 6];

/// Bytes of an Ethernet II header: destination, source, EtherType.
const ETHERNET_HEADER: usize = 14;

/// Two halves as one link: split devices, one-way fibres, tests.
#[derive(Debug)]
pub struct Joined<R, T>(pub R, pub T);

impl<R: LinkRx, T> LinkRx for Joined<R, T> {
    type Addr = R::Addr;
    fn advance(&mut self) -> bool {
        self.0.advance()
    }
    fn current(&mut self) -> Option<Rx<'_, R::Addr>> {
        self.0.current()
    }
}

impl<R, T: LinkTx> LinkTx for Joined<R, T> {
    type Addr = T::Addr;
    fn caps(&self) -> Caps {
        self.1.caps()
    }
    fn grant(&mut self, min: usize) -> Option<&mut [u8]> {
        self.1.grant(min)
    }
    fn commit(&mut self, meta: TxMeta<T::Addr>) {
        self.1.commit(meta);
    }
    fn flush(&mut self) -> bool {
        self.1.flush()
    }
}

/// Ethernet II with one `EtherType` over a link of raw frames: writes and strips the 14 bytes in place.
///
/// Frames for other stations and of other types are skipped; broadcast and multicast frames pass.
#[derive(Debug)]
pub struct Ether<L> {
    /// The link of raw frames.
    pub inner: L,
    /// Our own address.
    pub mac: Mac,
    /// The type that passes, for example 0x88b5 (IEEE 802, local experimental 1).
    pub ethertype: u16,
}

impl<L: LinkRx<Addr = ()>> LinkRx for Ether<L> {
    type Addr = Mac;

    fn advance(&mut self) -> bool {
        while self.inner.advance() {
            let Some(frame) = self.inner.current() else { continue };
            let Some(header) = frame.data.first_chunk::<ETHERNET_HEADER>() else { continue };
            let ours = header[..6] == self.mac || header[0] & 1 == 1;
            if ours && header[12..] == self.ethertype.to_be_bytes() {
                return true;
            }
        }
        false
    }

    fn current(&mut self) -> Option<Rx<'_, Mac>> {
        let frame = self.inner.current()?;
        let (header, data) = frame.data.split_at_mut_checked(ETHERNET_HEADER)?;
        let from = [header[6], header[7], header[8], header[9], header[10], header[11]];
        let stride = match frame.meta.stride.checked_sub(ETHERNET_HEADER) {
            Some(stride) if stride > 0 => stride,
            _ => data.len(),
        };
        Some(Rx { meta: RxMeta { from, stride, ecn: frame.meta.ecn, sum: frame.meta.sum }, data })
    }
}

impl<L: LinkTx<Addr = ()>> LinkTx for Ether<L> {
    type Addr = Mac;

    fn caps(&self) -> Caps {
        let mut caps = self.inner.caps();
        caps.mtu = caps.mtu.saturating_sub(ETHERNET_HEADER);
        caps.segments = 1; // a train would need a header in each frame
        caps
    }

    fn grant(&mut self, min: usize) -> Option<&mut [u8]> {
        self.inner.grant(min.saturating_add(ETHERNET_HEADER))?.get_mut(ETHERNET_HEADER..)
    }

    fn commit(&mut self, meta: TxMeta<Mac>) {
        let len = meta.len.saturating_add(ETHERNET_HEADER);
        // Without a commit in between, the inner link grants the same memory again.
        let Some(header) = self.inner.grant(len).and_then(|slot| slot.first_chunk_mut::<ETHERNET_HEADER>())
        else {
            return;
        };
        header[..6].copy_from_slice(&meta.to);
        header[6..12].copy_from_slice(&self.mac);
        header[12..].copy_from_slice(&self.ethertype.to_be_bytes());
        self.inner.commit(TxMeta { to: (), len, stride: len, ecn: meta.ecn });
    }

    fn flush(&mut self) -> bool {
        self.inner.flush()
    }
}

impl<L: Link + LinkRx<Addr = ()> + LinkTx<Addr = ()>> Link for Ether<L> {
    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}

/// A peer on one of two media.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Either<A, B> {
    /// On the first.
    A(A),
    /// On the second.
    B(B),
}

/// Two media under one endpoint. Receiving alternates, so that a flood on one cannot starve the other.
///
/// The transmitting half needs to know the destination before the bytes are written, which the port does not say; so the
/// grant is taken from a staging buffer of `MTU` bytes and moved to the right medium at commit. One copy of a packet is
/// what a gateway with two media pays for being one endpoint.
#[derive(Debug)]
pub struct Both<L, M, const MTU: usize> {
    /// The first medium.
    pub a: L,
    /// The second medium.
    pub b: M,
    staged: [u8; MTU],
    current_is_b: bool,
    lost: u64,
}

impl<L, M, const MTU: usize> Both<L, M, MTU> {
    /// The two media `a` and `b`, for datagrams of up to `MTU` bytes.
    pub const fn new(a: L, b: M) -> Self {
        Self { a, b, staged: [0; MTU], current_is_b: false, lost: 0 }
    }
}

impl<L: LinkRx, M: LinkRx, const MTU: usize> LinkRx for Both<L, M, MTU> {
    type Addr = Either<L::Addr, M::Addr>;

    fn advance(&mut self) -> bool {
        let b_first = !self.current_is_b;
        if b_first {
            self.current_is_b = self.b.advance();
            self.current_is_b || self.a.advance()
        } else {
            let a = self.a.advance();
            self.current_is_b = !a;
            a || self.b.advance()
        }
    }

    fn current(&mut self) -> Option<Rx<'_, Self::Addr>> {
        fn wrap<A, B>(rx: Rx<'_, A>, as_either: impl FnOnce(A) -> B) -> Rx<'_, B> {
            let RxMeta { from, stride, ecn, sum } = rx.meta;
            Rx { meta: RxMeta { from: as_either(from), stride, ecn, sum }, data: rx.data }
        }
        if self.current_is_b {
            self.b.current().map(|rx| wrap(rx, Either::B))
        } else {
            self.a.current().map(|rx| wrap(rx, Either::A))
        }
    }
}

impl<L: LinkTx, M: LinkTx, const MTU: usize> LinkTx for Both<L, M, MTU> {
    type Addr = Either<L::Addr, M::Addr>;

    fn caps(&self) -> Caps {
        let (a, b) = (self.a.caps(), self.b.caps());
        let mut caps = Caps::new(MTU.min(a.mtu).min(b.mtu));
        caps.up = a.up || b.up;
        caps.ecn = a.ecn && b.ecn;
        caps.epoch = a.epoch.wrapping_add(b.epoch);
        caps
    }

    fn grant(&mut self, min: usize) -> Option<&mut [u8]> {
        // Both must have room, since either may turn out to be the destination.
        let room = self.a.grant(min).is_some() && self.b.grant(min).is_some();
        if room && min <= MTU { Some(&mut self.staged) } else { None }
    }

    fn commit(&mut self, meta: TxMeta<Self::Addr>) {
        fn hand_over<A: Addr, T: LinkTx<Addr = A>>(
            link: &mut T,
            bytes: &[u8],
            to: A,
            meta: (usize, super::Ecn),
        ) -> bool {
            let Some(slot) = link.grant(bytes.len()).and_then(|slot| slot.get_mut(..bytes.len())) else {
                return false;
            };
            slot.copy_from_slice(bytes);
            link.commit(TxMeta { to, len: bytes.len(), stride: meta.0, ecn: meta.1 });
            true
        }
        let Some(bytes) = self.staged.get(..meta.len) else {
            self.lost += 1;
            return;
        };
        let sent = match meta.to {
            Either::A(to) => hand_over(&mut self.a, bytes, to, (meta.stride, meta.ecn)),
            Either::B(to) => hand_over(&mut self.b, bytes, to, (meta.stride, meta.ecn)),
        };
        self.lost += u64::from(!sent);
    }

    fn flush(&mut self) -> bool {
        let a = self.a.flush();
        self.b.flush() && a
    }
}

impl<L: Link, M: Link, const MTU: usize> Link for Both<L, M, MTU> {
    fn counters(&self) -> Counters {
        let (a, b) = (self.a.counters(), self.b.counters());
        Counters {
            rx: a.rx + b.rx,
            rx_bad: a.rx_bad + b.rx_bad,
            rx_lost: a.rx_lost + b.rx_lost,
            tx: a.tx + b.tx,
            tx_lost: a.tx_lost + b.tx_lost + self.lost,
            stalls: a.stalls + b.stalls,
            too_big: a.too_big + b.too_big,
            calls: a.calls + b.calls,
            last_os_error: if b.last_os_error == 0 { a.last_os_error } else { b.last_os_error },
        }
    }
}
