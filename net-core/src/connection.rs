//! One connection of a client, with its memory inside.

use hal::link::{Addr, Caps, Ecn, RxMeta, TxMeta};
use hal::time::Instant;

use crate::config::Config;
use crate::event::{Event, SendError, Stats};
use crate::handshake::Secret;
use crate::machine::flight::Sent;
use crate::machine::{Machine, Memory, Storage};
use crate::ranges::Range;
use crate::recovery::congestion::{Congestion, Cubic};
use crate::wire::header::{Packet, PacketType};

/// Gaps between packets, and between pieces of the stream, that an inline connection remembers.
const RANGES: usize = 16;

#[derive(Debug)]
struct Inline<const TX: usize, const RX: usize, const INFLIGHT: usize>;

impl<const TX: usize, const RX: usize, const INFLIGHT: usize> Storage for Inline<TX, RX, INFLIGHT> {
    type Tx = [u8; TX];
    type Rx = [u8; RX];
    type Sent = [Sent; INFLIGHT];
    type Numbers = [Range; RANGES];
    type Gaps = [Range; RANGES];
}

/// A client's connection to one peer, for firmware: no allocation, all memory inside.
///
/// `TX` and `RX` are the bytes of the send and receive buffer; a message takes its length and two bytes (four from 32 KiB
/// on), and `RX` bounds the messages that the peer may send. `INFLIGHT` is how many packets may be unacknowledged, at 16
/// bytes each; at least 8. One connection of `<2048, 1024, 16>` takes about 4 KiB.
///
/// It does no I/O and reads no clock. Its user passes what arrives to [`handle`](Self::handle), and after *anything* that
/// was called writes packets with [`poll_transmit`](Self::poll_transmit) until there is none, then reads
/// [`poll_event`](Self::poll_event), then sleeps until [`poll_timeout`](Self::poll_timeout), then calls
/// [`handle_timeout`](Self::handle_timeout).
///
/// The memory can be handed to a new attempt in place with [`reconnect`](Self::reconnect): what had not been acknowledged
/// is forgotten, because only the application knows whether it still matters.
///
/// # Examples
///
/// ```
/// use hal::link::Caps;
/// use hal::time::Instant;
/// use net_core::{Config, Connection, SendError};
///
/// let now = Instant::ZERO;
/// let mut node: Connection<(), 2048, 1024, 16> = Connection::connect(Config::default(), 0x5eed, now, ());
/// assert_eq!(node.send_message(b"too early"), Err(SendError::Connecting));
/// let mut packet = [0; 1500];
/// let syn = node.poll_transmit(now, &Caps::new(1500), &mut packet).unwrap();
/// assert_eq!(syn.len, 76);
/// assert!(node.poll_transmit(now, &Caps::new(1500), &mut packet).is_none());
/// assert!(node.poll_timeout() > Some(now)); // sent again, should nobody answer
/// ```
#[derive(Debug)]
pub struct Connection<A, const TX: usize, const RX: usize, const INFLIGHT: usize, C = Cubic> {
    peer: A,
    secret: Secret,
    machine: Machine<Inline<TX, RX, INFLIGHT>, C>,
    /// Packets that were not ours or damaged.
    strangers: u64,
}

impl<A: Addr, const TX: usize, const RX: usize, const INFLIGHT: usize, C: Congestion>
    Connection<A, TX, RX, INFLIGHT, C>
{
    const SANE: () =
        assert!(TX >= 64 && RX >= 64 && INFLIGHT >= 8, "buffers of 64 bytes, 8 packets in flight at least");

    /// Starts to connect to `peer`. `seed` has to differ from start to start and be hard to guess: connection ids, which
    /// keep forged packets out, are drawn from it.
    pub fn connect(config: Config, seed: u64, now: Instant, peer: A) -> Self {
        let () = Self::SANE;
        let mut secret = Secret::new(seed);
        let own_id = secret.draw_id();
        let memory = Memory {
            tx: [0; TX],
            rx: [0; RX],
            sent: [Sent::default(); INFLIGHT],
            numbers: [Range::default(); RANGES],
            gaps: [Range::default(); RANGES],
        };
        let machine = Machine::connect(config, memory, &mut secret, own_id, now);
        Self { peer, secret, machine, strangers: 0 }
    }

    /// Forgets the connection and starts a new one to the same peer in the same memory. Unsent and unread messages are
    /// dropped; counters go on.
    pub fn reconnect(&mut self, now: Instant) {
        let own_id = self.secret.draw_id();
        self.machine.begin(&mut self.secret, own_id, now);
    }

    /// Like [`reconnect`](Self::reconnect), to another address.
    pub fn reconnect_to(&mut self, now: Instant, peer: A) {
        self.peer = peer;
        self.reconnect(now);
    }

    /// Takes what arrived: one datagram, or several of `meta.stride` bytes each. Anything may be in it.
    pub fn handle(&mut self, now: Instant, meta: &RxMeta<A>, data: &mut [u8]) {
        for datagram in data.chunks(meta.stride.max(1)) {
            match Packet::parse(datagram) {
                Ok(packet) if meta.from == self.peer => self.handle_packet(now, &packet, meta.ecn),
                _ => self.strangers += 1,
            }
        }
    }

    fn handle_packet(&mut self, now: Instant, packet: &Packet<'_>, ecn: Ecn) {
        let header = packet.header();
        if header.kind == PacketType::Reset {
            self.strangers += u64::from(!self.machine.handle_reset(header));
        } else if header.connection == self.machine.own_id {
            self.machine.handle(now, packet, ecn);
        } else {
            self.strangers += 1;
        }
    }

    /// Writes the next packet, or a train of them if the link segments, into `out` of at least `caps.mtu` bytes. Call it
    /// until it gives `None`.
    pub fn poll_transmit(&mut self, now: Instant, caps: &Caps, out: &mut [u8]) -> Option<TxMeta<A>> {
        if !caps.up {
            return None;
        }
        let (len, stride) = train(&mut self.machine, now, caps, out)?;
        Some(TxMeta::new(self.peer, len).stride(stride))
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due. An instant that has passed means now.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.machine.timeout()
    }

    /// Does what is due at `now`. Too early or too often does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.machine.handle_timeout(now);
    }

    /// The next event, oldest kind first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.machine.poll_event()
    }

    /// Takes a message for the peer: delivered once, whole, and in the order of sending.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] without room for all of it, [`SendError::TooLong`] when the peer does not accept it or it can
    /// never fit, [`SendError::Connecting`] and [`SendError::Closed`] outside an open connection. Nothing was taken.
    pub fn send_message(&mut self, message: &[u8]) -> Result<(), SendError> {
        self.machine.send_message(message)
    }

    /// The oldest message that has not been consumed, lent from the receive buffer.
    pub fn peek_message(&mut self) -> Option<&[u8]> {
        self.machine.peek_message()
    }

    /// Gives the memory of the oldest message back. False: there was none.
    pub fn consume_message(&mut self) -> bool {
        self.machine.consume_message()
    }

    /// Closes in order: what was sent is delivered first, then [`Event::Closed`] comes. What the peer still sends is
    /// delivered until then.
    pub fn close(&mut self, now: Instant) {
        self.machine.close(now);
    }

    /// Whether messages can be sent.
    pub fn is_open(&self) -> bool {
        self.machine.is_open()
    }

    /// The peer's address.
    pub fn peer(&self) -> A {
        self.peer
    }

    /// Counters and estimates now. Packets of others and damaged ones are counted as bad.
    pub fn stats(&self) -> Stats {
        let stats = self.machine.stats();
        Stats { bad: stats.bad + self.strangers, ..stats }
    }
}

/// One packet, or several of the same length but the last, as the link allows: length in all and of each.
pub(crate) fn train<S: Storage, C: Congestion>(
    machine: &mut Machine<S, C>,
    now: Instant,
    caps: &Caps,
    out: &mut [u8],
) -> Option<(usize, usize)> {
    let stride = machine.transmit(now, caps.mtu, out)?;
    let mut len = stride;
    for _ in 1..caps.segments {
        // A packet that turns out shorter ends the train; one that would be longer is cut to the stride.
        let Some(rest) = out.get_mut(len..len + stride) else { break };
        let Some(next) = machine.transmit(now, caps.mtu, rest) else { break };
        len += next;
        if next < stride {
            break;
        }
    }
    Some((len, stride))
}
