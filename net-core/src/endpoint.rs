//! Many connections over one link.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec;
use alloc::vec::Vec;

use hal::link::{Addr, Caps, Ecn, RxMeta, TxMeta};
use hal::time::Instant;

use crate::config::EndpointConfig;
use crate::connection::train;
use crate::event::{Event, SendError, Stats};
use crate::handshake::{PARAMS, Params, RETRY, Secret};
use crate::machine::flight::Sent;
use crate::machine::{Machine, Memory, Storage, own_params};
use crate::ranges::Range;
use crate::recovery::congestion::{Congestion, Cubic};
use crate::wire::be64;
use crate::wire::header::{HEADER, Header, Packet, PacketType};

/// Names one connection of an [`Endpoint`]; never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    slot: u32,
    generation: u32,
}

/// What an endpoint has seen apart from its connections. Packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointStats {
    /// Damaged, or no packets of ours.
    pub bad: u64,
    /// For connections that do not exist.
    pub unknown: u64,
    /// For a connection, from another address than its peer's.
    pub misdirected: u64,
    /// Connections whose peer has proved a new address.
    pub moved: u64,
    /// Connections made by strangers.
    pub accepted: u64,
    /// Cookies handed out.
    pub retries: u64,
    /// Requests to connect turned down: not listening, or no room.
    pub refused: u64,
    /// Resets sent.
    pub resets: u64,
    /// Answers to strangers that were dropped, because too many waited.
    pub unanswered: u64,
}

/// Many connections over one link, as server, client or both.
///
/// Strangers are answered without keeping state: a `Syn` gets a cookie, a packet of an unknown connection a reset, and
/// neither answer is longer than what it answers. A gateway that restarted therefore tells its nodes at once that their
/// connections are gone. A peer that turns up at another address gets a cookie of 48 bytes there, and keeps its connection
/// once it has sent that back. Memory is bounded by [`EndpointConfig`] whatever arrives.
///
/// It is used like a [`Connection`](crate::Connection): pass in what arrives, then transmit until `None`, then read
/// events, then sleep until the timeout. Work for each packet is logarithmic in the number of connections.
///
/// # Examples
///
/// A node and a gateway in one program, joined by a loop that carries their packets:
///
/// ```
/// use hal::link::{Caps, RxMeta};
/// use hal::time::Instant;
/// use net_core::{Config, Connection, Endpoint, EndpointConfig, Event};
///
/// let now = Instant::ZERO;
/// let mut gateway: Endpoint<&str> = Endpoint::new(EndpointConfig::default(), 1);
/// let mut node: Connection<&str, 2048, 2048, 16> = Connection::connect(Config::default(), 2, now, "gateway");
///
/// let mut buffer = [0; 1500];
/// let mut carry = |node: &mut Connection<&'static str, 2048, 2048, 16>, gateway: &mut Endpoint<&'static str>| loop {
///     if let Some(tx) = node.poll_transmit(now, &Caps::new(1500), &mut buffer) {
///         gateway.handle(now, &RxMeta::new("node", tx.stride), &mut buffer[..tx.len]);
///     } else if let Some(tx) = gateway.poll_transmit(now, &Caps::new(1500), &mut buffer) {
///         node.handle(now, &RxMeta::new("gateway", tx.stride), &mut buffer[..tx.len]);
///     } else {
///         break;
///     }
/// };
/// carry(&mut node, &mut gateway);
/// assert_eq!(node.poll_event(), Some(Event::Connected));
/// let (id, event) = gateway.poll_event().unwrap();
/// assert_eq!(event, Event::Connected);
///
/// node.send_message(b"21.5 degrees").unwrap();
/// carry(&mut node, &mut gateway);
/// assert_eq!(gateway.peek_message(id), Some(&b"21.5 degrees"[..]));
/// gateway.consume_message(id);
/// gateway.send_message(id, b"thank you").unwrap();
/// carry(&mut node, &mut gateway);
/// assert_eq!(node.peek_message(), Some(&b"thank you"[..]));
/// ```
#[derive(Debug)]
pub struct Endpoint<A, C = Cubic> {
    config: EndpointConfig,
    secret: Secret,
    slots: Vec<Slot<A, C>>,
    free: Vec<u32>,
    /// Connection ids in packets to us.
    ids: BTreeMap<u32, u32>,
    half_open: VecDeque<HalfOpen<A>>,
    timers: BTreeSet<(Instant, u32)>,
    /// Connections that may have something to send, and to tell.
    ready: VecDeque<u32>,
    telling: VecDeque<u32>,
    answers: VecDeque<Answer<A>>,
    stats: EndpointStats,
}

#[derive(Debug)]
struct Slot<A, C> {
    generation: u32,
    entry: Option<Box<Entry<A, C>>>,
}

#[derive(Debug)]
struct Entry<A, C> {
    peer: A,
    machine: Machine<Heap, C>,
    timer: Option<Instant>,
    is_ready: bool,
    is_telling: bool,
}

/// Accepted, with the peer's confirmation outstanding.
#[derive(Debug)]
struct HalfOpen<A> {
    from: A,
    own: Params,
    peer: Params,
}

/// A packet to somebody without a connection.
#[derive(Debug)]
struct Answer<A> {
    to: A,
    len: usize,
    bytes: [u8; HEADER + PARAMS],
}

/// Answers to strangers that wait at most.
const MAX_ANSWERS: usize = 64;
/// Gaps between packets that a connection remembers: what an acknowledgement carries.
const RANGES: usize = 64;
/// Gaps in the stream. The burst of losses that ends a slow start leaves hundreds.
const GAPS: usize = 512;

#[derive(Debug)]
struct Heap;

impl Storage for Heap {
    type Tx = Box<[u8]>;
    type Rx = Box<[u8]>;
    type Sent = Box<[Sent]>;
    type Numbers = [Range; RANGES];
    type Gaps = Box<[Range]>;
}

impl<A: Addr, C: Congestion> Endpoint<A, C> {
    /// An endpoint without connections. `seed` has to differ from start to start and be hard to guess: cookies and
    /// connection ids come from it.
    pub fn new(config: EndpointConfig, seed: u64) -> Self {
        Self {
            config,
            secret: Secret::new(seed),
            slots: Vec::new(),
            free: Vec::new(),
            ids: BTreeMap::new(),
            half_open: VecDeque::new(),
            timers: BTreeSet::new(),
            ready: VecDeque::new(),
            telling: VecDeque::new(),
            answers: VecDeque::new(),
            stats: EndpointStats::default(),
        }
    }

    /// Starts to connect to `peer`; [`Event::Connected`] tells when it is done. `None`: there are
    /// [`max_connections`](EndpointConfig::max_connections) already.
    pub fn connect(&mut self, now: Instant, peer: A) -> Option<ConnId> {
        let own_id = self.fresh_id();
        let (config, memory) = (self.config.connection.clone(), self.memory());
        if self.len() >= self.config.max_connections {
            return None;
        }
        let machine = Machine::connect(config, memory, &mut self.secret, own_id, now);
        Some(self.add(peer, machine))
    }

    /// Takes what arrived: one datagram, or several of `meta.stride` bytes each. Anything may be in it.
    pub fn handle(&mut self, now: Instant, meta: &RxMeta<A>, data: &mut [u8]) {
        for datagram in data.chunks(meta.stride.max(1)) {
            match Packet::parse(datagram) {
                Ok(packet) => self.handle_packet(now, meta.from, &packet, meta.ecn),
                Err(_) => self.stats.bad += 1,
            }
        }
    }

    fn handle_packet(&mut self, now: Instant, from: A, packet: &Packet<'_>, ecn: Ecn) {
        let header = packet.header();
        match header.kind {
            PacketType::Syn => return self.handle_syn(now, from, packet),
            PacketType::Reset => return self.handle_reset(from, header),
            _ => {}
        }
        if let Some(&slot) = self.ids.get(&header.connection) {
            if self.is_at(slot, now, from, packet)
                && let Some(entry) = self.entry(slot)
            {
                entry.machine.handle(now, packet, ecn);
                self.touch(slot);
            }
        } else if let Some(slot) = self.confirm(now, from, header.connection) {
            if let Some(entry) = self.entry(slot) {
                entry.machine.handle(now, packet, ecn);
            }
            self.touch(slot);
        } else {
            self.stats.unknown += 1;
            if header.kind != PacketType::Retry && header.kind != PacketType::Accept {
                self.answer_with_reset(from, header);
            }
        }
    }

    /// Whether the peer of a connection may send from `from`. When that is a new address (the peer moved, or a NAT forgot
    /// it), it gets a cookie to prove with a `Probe` that it is really there; then the connection moves.
    fn is_at(&mut self, slot: u32, now: Instant, from: A, packet: &Packet<'_>) -> bool {
        let Some(entry) = self.slots.get_mut(slot as usize).and_then(|slot| slot.entry.as_deref_mut()) else {
            return false;
        };
        if entry.peer == from {
            return true;
        }
        let own_id = packet.header().connection;
        let (peer_id, nonce) = entry.machine.challenge();
        let proof = if packet.header().kind == PacketType::Probe { be64(packet.payload()) } else { 0 };
        if self.secret.is_valid(proof, now, &from, own_id, nonce) {
            entry.peer = from;
            entry.machine.on_new_path();
            self.stats.moved += 1;
            return true;
        }
        self.stats.misdirected += 1;
        if entry.machine.is_open() && packet.header().kind.is_eliciting() {
            let cookie = self.secret.cookie(now, &from, own_id, nonce);
            self.answer_with_cookie(from, peer_id, nonce, cookie);
        }
        false
    }

    fn handle_syn(&mut self, now: Instant, from: A, packet: &Packet<'_>) {
        let params = Params::parse(packet.payload()).filter(|_| self.config.listen);
        let Some(peer) = params else {
            self.stats.refused += 1;
            return;
        };
        // An old cookie gets a new one: the handshake may have taken longer than a cookie is good.
        if !self.secret.is_valid(peer.cookie, now, &from, peer.connection, peer.nonce) {
            let cookie = self.secret.cookie(now, &from, peer.connection, peer.nonce);
            self.stats.retries += 1;
            self.answer_with_cookie(from, peer.connection, peer.nonce, cookie);
            return;
        }
        if self.len() >= self.config.max_connections {
            self.stats.refused += 1;
            return;
        }
        let known = self.half_open.iter().find(|half| half.from == from && half.peer == peer);
        let own = match known {
            Some(half) => half.own,
            None => self.remember(from, peer),
        };
        self.answer(from, |bytes| own.emit(PacketType::Accept, peer.connection, bytes));
    }

    fn remember(&mut self, from: A, peer: Params) -> Params {
        let id = self.fresh_id();
        let config = &self.config.connection;
        let first = config.first_numbers;
        let first =
            (first.unwrap_or_else(|| self.secret.draw_id()), first.unwrap_or_else(|| self.secret.draw_id()));
        let own = own_params(config, id, first, self.config.receive_buffer, peer.nonce, 0);
        while self.half_open.len() >= self.config.max_half_open.max(1) {
            self.half_open.pop_front();
        }
        self.half_open.push_back(HalfOpen { from, own, peer });
        own
    }

    /// The peer of a half-open connection has shown that it knows our id.
    fn confirm(&mut self, now: Instant, from: A, id: u32) -> Option<u32> {
        let at = self.half_open.iter().position(|half| half.own.connection == id && half.from == from)?;
        if self.len() >= self.config.max_connections {
            return None;
        }
        let half = self.half_open.remove(at)?;
        let machine =
            Machine::accept(self.config.connection.clone(), self.memory(), &half.own, &half.peer, now);
        self.stats.accepted += 1;
        Some(self.add(from, machine).slot)
    }

    fn handle_reset(&mut self, from: A, header: &Header) {
        // The id is the peer's, which no index knows; resets are rare, and each costs one look at every connection.
        for slot in 0..self.slots.len() {
            let Ok(slot) = u32::try_from(slot) else { return };
            let Some(entry) = self.entry(slot).filter(|entry| entry.peer == from) else { continue };
            if entry.machine.handle_reset(header) {
                return self.touch(slot);
            }
        }
        self.stats.unknown += 1;
    }

    fn answer_with_cookie(&mut self, to: A, connection: u32, nonce: u64, cookie: u64) {
        self.answer(to, |bytes| {
            let payload = bytes.get_mut(HEADER..)?.first_chunk_mut::<RETRY>()?;
            payload[..8].copy_from_slice(&nonce.to_be_bytes());
            payload[8..].copy_from_slice(&cookie.to_be_bytes());
            Header::new(PacketType::Retry, connection).emit(bytes, 0, RETRY)
        });
    }

    fn answer_with_reset(&mut self, to: A, header: &Header) {
        self.stats.resets += 1;
        let mut reset = Header::new(PacketType::Reset, header.connection);
        reset.number = header.number;
        self.answer(to, |bytes| reset.emit(bytes, 0, 0));
    }

    fn answer(&mut self, to: A, emit: impl FnOnce(&mut [u8]) -> Option<usize>) {
        let mut bytes = [0; HEADER + PARAMS];
        if self.answers.len() >= MAX_ANSWERS {
            self.stats.unanswered += 1;
        } else if let Some(len) = emit(&mut bytes) {
            self.answers.push_back(Answer { to, len, bytes });
        }
    }

    /// Writes the next packet, or a train of them if the link segments, into `out` of at least `caps.mtu` bytes. Call it
    /// until it gives `None`. Connections take turns.
    pub fn poll_transmit(&mut self, now: Instant, caps: &Caps, out: &mut [u8]) -> Option<TxMeta<A>> {
        if !caps.up {
            return None;
        }
        if let Some(answer) = self.answers.front()
            && let (Some(to), Some(from)) = (out.get_mut(..answer.len), answer.bytes.get(..answer.len))
        {
            to.copy_from_slice(from);
            let meta = TxMeta::new(answer.to, answer.len);
            self.answers.pop_front();
            return Some(meta);
        }
        while let Some(slot) = self.ready.pop_front() {
            let Some(entry) = self.entry(slot) else { continue };
            entry.is_ready = false;
            let sent = train(&mut entry.machine, now, caps, out);
            let meta = sent.map(|(len, stride)| TxMeta::new(entry.peer, len).stride(stride));
            if meta.is_some() {
                self.touch(slot);
                return meta;
            }
            self.update_timer(slot);
        }
        None
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due. An instant that has passed means now.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// Does what is due at `now`. Too early or too often does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        // A machine whose timer stays due (it waits for the link) is looked at once.
        let due: Vec<u32> =
            self.timers.iter().take_while(|&&(at, _)| at <= now).map(|&(_, slot)| slot).collect();
        for slot in due {
            if let Some(entry) = self.entry(slot) {
                entry.machine.handle_timeout(now);
                self.touch(slot);
            }
        }
    }

    /// The next event of any connection. After [`Event::Closed`] the id is unknown.
    pub fn poll_event(&mut self) -> Option<(ConnId, Event)> {
        while let Some(&slot) = self.telling.front() {
            let generation = self.generation(slot);
            if let Some(entry) = self.entry(slot) {
                if let Some(event) = entry.machine.poll_event() {
                    return Some((ConnId { slot, generation }, event));
                }
                entry.is_telling = false;
                self.remove_if_finished(slot);
            }
            self.telling.pop_front();
        }
        None
    }

    /// Takes a message for the peer: delivered once, whole, and in the order of sending.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] without room for all of it, [`SendError::TooLong`] when the peer does not accept it or it can
    /// never fit, [`SendError::Connecting`] and [`SendError::Closed`] outside an open connection. Nothing was taken.
    pub fn send_message(&mut self, id: ConnId, message: &[u8]) -> Result<(), SendError> {
        let entry = self.get_mut(id).ok_or(SendError::Closed)?;
        entry.machine.send_message(message)?;
        self.touch(id.slot);
        Ok(())
    }

    /// The oldest message that has not been consumed, lent from the receive buffer.
    pub fn peek_message(&mut self, id: ConnId) -> Option<&[u8]> {
        self.get_mut(id)?.machine.peek_message()
    }

    /// Gives the memory of the oldest message back. False: there was none.
    pub fn consume_message(&mut self, id: ConnId) -> bool {
        let consumed = self.get_mut(id).is_some_and(|entry| entry.machine.consume_message());
        if consumed {
            self.touch(id.slot);
        }
        consumed
    }

    /// Closes in order: what was sent is delivered first, then [`Event::Closed`] comes. What the peer still sends is
    /// delivered until then.
    pub fn close(&mut self, id: ConnId, now: Instant) {
        if let Some(entry) = self.get_mut(id) {
            entry.machine.close(now);
            self.touch(id.slot);
        }
    }

    /// Whether messages can be sent.
    pub fn is_open(&self, id: ConnId) -> bool {
        self.get(id).is_some_and(|entry| entry.machine.is_open())
    }

    /// The peer's address.
    pub fn peer(&self, id: ConnId) -> Option<A> {
        self.get(id).map(|entry| entry.peer)
    }

    /// Counters and estimates of one connection.
    pub fn stats(&self, id: ConnId) -> Option<Stats> {
        self.get(id).map(|entry| entry.machine.stats())
    }

    /// What was seen apart from the connections.
    pub fn endpoint_stats(&self) -> EndpointStats {
        self.stats
    }

    /// All connections, in no particular order.
    pub fn connections(&self) -> impl Iterator<Item = ConnId> + '_ {
        (0u32..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.entry.is_some())
            .map(|(at, slot)| ConnId { slot: at, generation: slot.generation })
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is no connection.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// After anything that may change what a connection wants.
    fn touch(&mut self, slot: u32) {
        self.update_timer(slot);
        let Some(entry) = self.entry(slot) else { return };
        let ready = !core::mem::replace(&mut entry.is_ready, true);
        let telling = !core::mem::replace(&mut entry.is_telling, true);
        if ready {
            self.ready.push_back(slot);
        }
        if telling {
            self.telling.push_back(slot);
        }
    }

    fn update_timer(&mut self, slot: u32) {
        let Some(entry) = self.entry(slot) else { return };
        let timer = entry.machine.timeout();
        let before = core::mem::replace(&mut entry.timer, timer);
        if before != timer {
            self.timers.extend(timer.map(|at| (at, slot)));
            if let Some(at) = before {
                self.timers.remove(&(at, slot));
            }
        }
    }

    fn add(&mut self, peer: A, machine: Machine<Heap, C>) -> ConnId {
        let id = machine.own_id;
        let entry = Box::new(Entry { peer, machine, timer: None, is_ready: false, is_telling: false });
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, entry: None });
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(place) = self.slots.get_mut(slot as usize) {
            place.entry = Some(entry);
        }
        self.ids.insert(id, slot);
        self.touch(slot);
        ConnId { slot, generation: self.generation(slot) }
    }

    fn remove_if_finished(&mut self, slot: u32) {
        let Some(place) = self.slots.get_mut(slot as usize) else { return };
        let Some(entry) = place.entry.take_if(|entry| entry.machine.is_finished()) else { return };
        place.generation = place.generation.wrapping_add(1);
        self.free.push(slot);
        self.ids.remove(&entry.machine.own_id);
        if let Some(at) = entry.timer {
            self.timers.remove(&(at, slot));
        }
        if entry.is_ready {
            self.ready.retain(|&other| other != slot);
        }
    }

    fn memory(&self) -> Memory<Heap> {
        Memory {
            tx: vec![0; self.config.send_buffer.max(64)].into(),
            rx: vec![0; self.config.receive_buffer.max(64)].into(),
            sent: vec![Sent::default(); self.config.max_in_flight.max(8)].into(),
            numbers: [Range::default(); RANGES],
            gaps: vec![Range::default(); GAPS].into(),
        }
    }

    /// An id that no connection has.
    fn fresh_id(&mut self) -> u32 {
        loop {
            let id = self.secret.draw_id();
            if !self.ids.contains_key(&id) && self.half_open.iter().all(|half| half.own.connection != id) {
                return id;
            }
        }
    }

    fn generation(&self, slot: u32) -> u32 {
        self.slots.get(slot as usize).map_or(0, |slot| slot.generation)
    }

    fn entry(&mut self, slot: u32) -> Option<&mut Entry<A, C>> {
        self.slots.get_mut(slot as usize)?.entry.as_deref_mut()
    }

    fn get_mut(&mut self, id: ConnId) -> Option<&mut Entry<A, C>> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation == id.generation { slot.entry.as_deref_mut() } else { None }
    }

    fn get(&self, id: ConnId) -> Option<&Entry<A, C>> {
        let slot = self.slots.get(id.slot as usize)?;
        if slot.generation == id.generation { slot.entry.as_deref() } else { None }
    }
}
