//! Packets: the link port.
//!
//! A link owns the memory that packets live in, because a network card, a ring that the kernel shares and a serial
//! decoder all do. It *lends* one received packet and one transmit slot at a time; the protocol reads and writes where
//! the medium does, so nothing is copied and nothing can be lost between two buffers.
//!
//! ```text
//!  receive   advance ─ true ─> current (as often as asked) ─> advance …     the loan ends with the next advance
//!  transmit  grant(min) ─> write ─> commit(meta) … flush                    a grant without commit costs nothing
//! ```
//!
//! Receiving takes two steps because a filter over `next() -> Option<Packet<'_>>` cannot be written: returning a borrow
//! from inside a loop is error E0499. With two steps [`Ether`] and [`Both`] stay short and safe, there is no guard to
//! leak, and `dyn LinkRx<Addr = A>` works. Lending costs 1.7 ns a packet where copying 1200 bytes into the caller's
//! buffer costs 18.6 (x86-64, one run of a sketch; take the ratio).
//!
//! A link has no error return: what the medium refuses for now stays staged (`flush` says so), what it refuses for good
//! is counted in [`Counters`], because a reliable protocol treats it like any other loss. Carrier loss is no error
//! either: [`Caps::up`] turns false.
//!
//! # Examples
//!
//! The whole generic user of a link, for any protocol that does no I/O itself:
//!
//! ```
//! use hal::link::{Link, LinkRx, LinkTx, TxMeta};
//!
//! /// Answers each packet with its bytes reversed.
//! fn reflect<A: hal::link::Addr, L: Link + LinkRx<Addr = A> + LinkTx<Addr = A>>(link: &mut L) {
//!     while link.advance() {
//!         let Some(rx) = link.current() else { continue };
//!         let (from, len) = (rx.meta.from, rx.data.len());
//!         rx.data.reverse();
//!         let copy = rx.data.to_vec();
//!         if let Some(slot) = link.grant(len) {
//!             slot[..len].copy_from_slice(&copy);
//!             link.commit(TxMeta::new(from, len));
//!         }
//!     }
//!     link.flush();
//! }
//! ```

mod adapters;

pub use adapters::{Both, Either, Ether, Joined, Mac};

use core::fmt::Debug;
use core::hash::Hash;
use core::task::{Context, Poll};

/// What names a peer on a link: a socket address, a MAC address, or `()` on a wire with two ends.
pub trait Addr: Copy + Eq + Hash + Debug {}
impl<T: Copy + Eq + Hash + Debug> Addr for T {}

/// Explicit congestion notification (RFC 3168, section 5): the two bits of the IP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ecn {
    /// 00: the sender does not take part.
    #[default]
    NotEct,
    /// 01: ECT(1).
    Ect1,
    /// 10: ECT(0).
    Ect0,
    /// 11: a router was congested.
    Ce,
}

impl Ecn {
    /// The two bits as they stand in the IP header.
    pub const fn bits(self) -> u8 {
        match self {
            Self::NotEct => 0,
            Self::Ect1 => 1,
            Self::Ect0 => 2,
            Self::Ce => 3,
        }
    }

    /// From the low two bits of `bits`; the rest (the DSCP field, once shifted) is ignored.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            1 => Self::Ect1,
            2 => Self::Ect0,
            3 => Self::Ce,
            _ => Self::NotEct,
        }
    }
}

/// What the link says about the checksum of the *lower* layer. A protocol's own check is always done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sum {
    /// Nobody has looked.
    #[default]
    Unknown,
    /// The hardware or the kernel found it right.
    Valid,
    /// The local sender left it to hardware, so it must not be verified.
    NotFilled,
}

/// What came with a received packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RxMeta<A> {
    /// Who sent it.
    pub from: A,
    /// Length in bytes of each datagram in the data but perhaps the last: smaller than the data when the kernel has
    /// merged several (GRO).
    pub stride: usize,
    /// Congestion bits of the IP header.
    pub ecn: Ecn,
    /// The lower layer's checksum.
    pub sum: Sum,
}

impl<A> RxMeta<A> {
    /// A packet from `from` of one datagram or several of `stride` bytes, without congestion bits.
    pub const fn new(from: A, stride: usize) -> Self {
        Self { from, stride, ecn: Ecn::NotEct, sum: Sum::Unknown }
    }
}

/// What goes with a packet to transmit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TxMeta<A> {
    /// Who is to get it.
    pub to: A,
    /// Bytes written into the grant.
    pub len: usize,
    /// Length of each datagram but perhaps the last; `stride < len` asks for segmentation (GSO) and is used only when
    /// [`Caps::segments`] allows it.
    pub stride: usize,
    /// Congestion bits for the IP header.
    pub ecn: Ecn,
}

impl<A> TxMeta<A> {
    /// One datagram of `len` bytes for `to`.
    pub const fn new(to: A, len: usize) -> Self {
        Self { to, len, stride: len, ecn: Ecn::NotEct }
    }

    /// The same bytes as a train of datagrams of `stride` bytes each.
    #[must_use]
    pub fn stride(mut self, stride: usize) -> Self {
        self.stride = stride;
        self
    }

    /// With congestion bits.
    #[must_use]
    pub fn ecn(mut self, ecn: Ecn) -> Self {
        self.ecn = ecn;
        self
    }
}

/// A received packet, lent until the next [`LinkRx::advance`].
#[derive(Debug)]
pub struct Rx<'a, A> {
    /// What came with it.
    pub meta: RxMeta<A>,
    /// Its bytes. Mutable, because a protocol may decrypt in place.
    pub data: &'a mut [u8],
}

/// What a link can do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Caps {
    /// The medium carries packets; false without carrier. Sending is then pointless and may look like success.
    pub up: bool,
    /// Largest datagram in bytes, without the link's own headers.
    pub mtu: usize,
    /// Datagrams that one commit may carry as a train; 1 when the link cannot segment.
    pub segments: usize,
    /// Congestion bits reach the wire and come back.
    pub ecn: bool,
    /// The link fills in the lower layer's checksum.
    pub tx_sum: bool,
    /// Changes whenever another field did.
    pub epoch: u32,
}

impl Caps {
    /// A plain link that is up and takes datagrams of up to `mtu` bytes.
    pub const fn new(mtu: usize) -> Self {
        Self { up: true, mtu, segments: 1, ecn: false, tx_sum: false, epoch: 0 }
    }
}

/// What a link has seen since it was opened. Packets, not bytes.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Received and lent.
    pub rx: u64,
    /// Received and thrown away: truncated, bad frame, bad lower checksum.
    pub rx_bad: u64,
    /// Lost before the link saw them: overrun of a ring or a FIFO.
    pub rx_lost: u64,
    /// Handed to the medium.
    pub tx: u64,
    /// Refused by the medium for good.
    pub tx_lost: u64,
    /// Times that transmission had to wait for room.
    pub stalls: u64,
    /// Refused because they were larger than the medium allows.
    pub too_big: u64,
    /// System calls or doorbells.
    pub calls: u64,
    /// The last `errno` that the operating system gave, 0 for none.
    pub last_os_error: i32,
}

/// The receiving half of a link.
pub trait LinkRx {
    /// Names peers.
    type Addr: Addr;
    /// Gives the lent packet back and moves to the next. False: none is there, and all memory is back with the device.
    /// Packets that are bad below this layer are counted and skipped.
    fn advance(&mut self) -> bool;
    /// The current packet, as often as asked; `None` unless the last [`advance`](Self::advance) was true.
    fn current(&mut self) -> Option<Rx<'_, Self::Addr>>;
}

/// The transmitting half of a link.
pub trait LinkTx {
    /// Names peers.
    type Addr: Addr;
    /// What the link can do. Cheap.
    fn caps(&self) -> Caps;
    /// At least `min` bytes for a datagram or a train; the link keeps room for its own headers. `None`: full, nothing is
    /// lost, wait for [`Want::Tx`]. A grant without [`commit`](Self::commit) gives the same memory again. May flush.
    fn grant(&mut self, min: usize) -> Option<&mut [u8]>;
    /// Stages the granted bytes. Cannot fail: what the medium refuses for good is counted as lost.
    fn commit(&mut self, meta: TxMeta<Self::Addr>);
    /// Starts what is staged with one system call or doorbell. False: some stays staged (EAGAIN, ENOBUFS) and goes first
    /// the next time.
    fn flush(&mut self) -> bool;
}

/// A link with both halves.
pub trait Link: LinkRx + LinkTx<Addr = <Self as LinkRx>::Addr> {
    /// What it has seen so far.
    fn counters(&self) -> Counters;
}

/// What a waker waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// A packet to receive.
    Rx,
    /// Room to transmit.
    Tx,
    /// Either.
    Both,
}

/// Waking, apart from moving packets: firmware drivers, fakes and reactor wrappers have it, a plain socket does not.
pub trait LinkWake {
    /// Ready: look at the link again. Pending: the waker runs, perhaps in an interrupt handler, when a packet came, room
    /// was made or [`Caps`] changed. One waker for each direction.
    fn poll_wake(&mut self, cx: &mut Context<'_>, want: Want) -> Poll<()>;
}
