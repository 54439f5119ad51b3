//! The gateway itself: what it does with each message, and when it acknowledges.
//!
//! ```text
//!  Link ─> Endpoint ─> Hello     boot record appended ─── durable ──> Welcome
//!                      Channels  announcement, once in each segment
//!                      Samples   duplicates cut off, record appended ─ durable ──> Ack
//!                      Gap       the same
//!                      Status    shown
//! ```
//!
//! [`Gateway::step`] is called whenever something may have happened; it never waits. A message is taken from the
//! transport only when the log has taken its record, so a full log closes the nodes' credit instead of losing anything.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use hal::link::{Addr, Link, LinkRx, LinkTx};
use hal::readiness::Next;
use hal::time::{Instant, Span};
use hal::volume::Volume;
use net_core::{CloseReason, ConnId, Endpoint, EndpointConfig, Event, SendError};
use node::codec::Reader;
use node::message::{
    Ack, FromGateway, FromNode, Gap, GapCause, Hello, MAX_CONTROL, MessageError, Refuse, Welcome,
};
use node::sample::Samples;
use rt_irq::Histogram;

use crate::log::{Full, Kind, Log, LogConfig, Record, RecordNo};
use crate::node_state::NodeState;

/// Packets handled before the caller gets its turn again.
const PACKETS_A_STEP: usize = 256;
/// Time between two records of a node's clock relation.
const CLOCK_RECORD_PERIOD: Span = Span::secs(60);

/// Choices of a gateway.
#[derive(Debug, Clone, Default)]
pub struct GatewayConfig {
    /// The log.
    pub log: LogConfig,
    /// The transport.
    pub endpoint: EndpointConfig,
}

/// The wall clock beside the gateway's own, read by the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallTime {
    /// Nanoseconds since 1970-01-01 00:00 UTC.
    pub unix_ns: u64,
    /// How far that may be off, ns.
    pub error_ns: u64,
}

/// Something that a person or a test wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GatewayEvent {
    /// A start of a node has its boot number on disk.
    NodeUp {
        /// The node.
        node: u32,
        /// The boot number.
        boot: u32,
    },
    /// A node's connection is over.
    NodeDown {
        /// The node.
        node: u32,
        /// Why.
        reason: CloseReason,
    },
    /// A node holds acknowledgements for samples that the log lacks.
    Witness {
        /// The node.
        node: u32,
        /// What the log has.
        have: u64,
        /// What it had acknowledged.
        acknowledged: u64,
    },
}

/// A record that waits for the disk.
#[derive(Debug, Clone, Copy)]
struct Pending {
    record: RecordNo,
    node: u32,
    boot: u32,
    end: u64,
    arrived: Instant,
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct GatewayCounters {
    /// Samples taken into the log.
    pub samples: u64,
    /// Samples that became durable.
    pub acknowledged: u64,
    /// Samples that came again.
    pub duplicates: u64,
    /// Messages that were none, or came out of place.
    pub bad_messages: u64,
}

/// The gateway.
pub struct Gateway<A, V: Volume> {
    endpoint: Endpoint<A>,
    log: Log<V>,
    pub(crate) nodes: BTreeMap<u32, NodeState>,
    /// Which node speaks on a connection, once it has said hello.
    sessions: BTreeMap<ConnId, u32>,
    /// Connections whose next message the log could not take.
    stalled: Vec<ConnId>,
    unwritten: VecDeque<Pending>,
    unsettled: VecDeque<Pending>,
    counters: GatewayCounters,
    ack_latency: Histogram,
    commit_latency: Histogram,
    events: VecDeque<GatewayEvent>,
    started: Instant,
    scratch: Vec<u8>,
}

impl<A, V: Volume> core::fmt::Debug for Gateway<A, V> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Gateway")
            .field("nodes", &self.nodes.len())
            .field("connections", &self.endpoint_len())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl<A, V: Volume> Gateway<A, V> {
    fn endpoint_len(&self) -> usize {
        self.sessions.len()
    }
}

/// What became of a message.
enum Taken {
    Yes,
    /// The log has no room: leave the message with the transport.
    LogFull,
}

impl<A: Addr, V: Volume> Gateway<A, V> {
    /// A gateway that starts to open its log. `seed` has to differ from start to start and be hard to guess.
    pub fn new(config: GatewayConfig, seed: u64, now: Instant) -> Self {
        Self {
            endpoint: Endpoint::new(config.endpoint, seed),
            log: Log::new(config.log, seed.rotate_left(32) ^ 0x6c6f_6720_6964_0000),
            nodes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            stalled: Vec::new(),
            unwritten: VecDeque::new(),
            unsettled: VecDeque::new(),
            counters: GatewayCounters::default(),
            ack_latency: Histogram::new(),
            commit_latency: Histogram::new(),
            events: VecDeque::new(),
            started: now,
            scratch: Vec::new(),
        }
    }

    /// Does what there is to do at `now`. Come back at `Next::at`, or sooner when a port has news.
    pub fn step<L>(&mut self, now: Instant, wall: Option<WallTime>, link: &mut L, volume: &mut V) -> Next
    where
        L: Link + LinkRx<Addr = A> + LinkTx<Addr = A> + ?Sized,
    {
        let mut received = 0;
        while received < PACKETS_A_STEP && link.advance() {
            if let Some(rx) = link.current() {
                self.endpoint.handle(now, &rx.meta, rx.data);
            }
            received += 1;
        }
        if self.endpoint.poll_timeout().is_some_and(|at| at <= now) {
            self.endpoint.handle_timeout(now);
        }
        if self.log.is_open() {
            self.adopt_recovered();
            self.take_stalled(now, wall);
            self.take_events(now, wall);
        }
        let next = self.log.step(now, volume);
        for ns in self.log.take_commit_times() {
            self.commit_latency.record(ns);
        }
        self.acknowledge(now);
        let caps = link.caps();
        let mut sent = 0;
        while sent < PACKETS_A_STEP {
            let Some(out) = link.grant(caps.mtu) else { break };
            let Some(meta) = self.endpoint.poll_transmit(now, &caps, out) else { break };
            link.commit(meta);
            sent += 1;
        }
        link.flush();
        let budget = received == PACKETS_A_STEP || sent == PACKETS_A_STEP;
        next.or(Next { at: self.endpoint.poll_timeout(), more: budget })
    }

    /// The log, for reports.
    pub const fn log(&self) -> &Log<V> {
        &self.log
    }

    /// The log, to drain or rotate it.
    pub const fn log_mut(&mut self) -> &mut Log<V> {
        &mut self.log
    }

    /// Counters now.
    pub const fn counters(&self) -> GatewayCounters {
        self.counters
    }

    /// From a block's arrival to its durability.
    pub const fn ack_latency(&self) -> &Histogram {
        &self.ack_latency
    }

    /// From cutting a frame of the log to its durability.
    pub const fn commit_latency(&self) -> &Histogram {
        &self.commit_latency
    }

    /// What is known of a node.
    pub fn node(&self, node: u32) -> Option<&NodeState> {
        self.nodes.get(&node)
    }

    /// When the gateway started.
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<GatewayEvent> {
        self.events.pop_front()
    }

    /// Counters of a node's connection.
    pub fn connection_stats(&self, node: u32) -> Option<net_core::Stats> {
        self.nodes.get(&node)?.connection.and_then(|id| self.endpoint.stats(id))
    }

    /// The address of a node's connection.
    pub fn peer(&self, node: u32) -> Option<A> {
        self.nodes.get(&node)?.connection.and_then(|id| self.endpoint.peer(id))
    }

    /// Whether every record is durable and every acknowledgement has been handed to the transport.
    pub fn is_settled(&self) -> bool {
        self.unwritten.is_empty()
            && self.nodes.values().all(|node| !node.ack_owed || node.connection.is_none())
    }

    /// Takes leave of all nodes: acknowledgements that were handed over are still delivered.
    pub fn close(&mut self, now: Instant) {
        for id in self.sessions.keys() {
            self.endpoint.close(*id, now);
        }
    }

    fn tell(&mut self, event: GatewayEvent) {
        if self.events.len() >= 1024 {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Nodes that the log knows from earlier lives.
    fn adopt_recovered(&mut self) {
        if !self.nodes.is_empty() {
            return;
        }
        for entry in self.log.nodes() {
            let known = NodeState {
                boot: entry.boot,
                next: entry.next,
                durable: entry.next,
                lost: entry.lost,
                ..NodeState::default()
            };
            self.nodes.insert(entry.node, known);
        }
    }

    fn take_stalled(&mut self, now: Instant, wall: Option<WallTime>) {
        for id in core::mem::take(&mut self.stalled) {
            self.take_messages(now, wall, id);
        }
    }

    fn take_events(&mut self, now: Instant, wall: Option<WallTime>) {
        while let Some((id, event)) = self.endpoint.poll_event() {
            match event {
                Event::MessageReady => self.take_messages(now, wall, id),
                Event::Closed(reason) => {
                    self.stalled.retain(|stalled| *stalled != id);
                    let Some(node) = self.sessions.remove(&id) else { continue };
                    if let Some(state) =
                        self.nodes.get_mut(&node).filter(|state| state.connection == Some(id))
                    {
                        state.connection = None;
                        self.tell(GatewayEvent::NodeDown { node, reason });
                    }
                }
                _ => {}
            }
        }
    }

    fn take_messages(&mut self, now: Instant, wall: Option<WallTime>, id: ConnId) {
        loop {
            // Copied out, because the log and the sessions are changed while it is looked at: the one copy of a sample
            // on the gateway before the frame that goes to disk.
            let mut message = core::mem::take(&mut self.scratch);
            message.clear();
            let there =
                self.endpoint.peek_message(id).map(|bytes| message.extend_from_slice(bytes)).is_some();
            let taken = if there { self.take(now, wall, id, &message) } else { Taken::Yes };
            self.scratch = message;
            match taken {
                Taken::Yes if there => {
                    self.endpoint.consume_message(id);
                }
                Taken::Yes => return,
                Taken::LogFull => {
                    self.stalled.push(id);
                    return;
                }
            }
        }
    }

    fn take(&mut self, now: Instant, wall: Option<WallTime>, id: ConnId, bytes: &[u8]) -> Taken {
        let message = match FromNode::parse(bytes) {
            Ok(message) => message,
            Err(MessageError::Version(_)) => return self.refuse(now, id, Refuse::Version),
            Err(_) => return self.bad(),
        };
        if let FromNode::Hello(hello) = message {
            return self.hello(now, id, &hello);
        }
        let Some(node) = self.sessions.get(&id).copied() else { return self.bad() };
        let Some(state) = self.nodes.get_mut(&node).filter(|state| state.connection == Some(id)) else {
            return self.bad();
        };
        state.last_seen = Some(now);
        match message {
            FromNode::Hello(_) => Taken::Yes, // answered above
            FromNode::Channels(channels) => {
                state.announce(bytes, &channels);
                Taken::Yes
            }
            FromNode::Samples(block) => match Samples::parse(block) {
                Some(samples) => self.samples(now, node, samples, block),
                None => self.bad(),
            },
            FromNode::Gap(gap) => self.gap(now, node, &gap),
            FromNode::Status(status) => {
                let min_rtt = self.endpoint.stats(id).map_or(Span::ZERO, |stats| stats.min_rtt);
                state.clock.observe(now, Instant::from_ns(status.time), min_rtt);
                state.status = Some(status);
                self.log_clock(now, wall, node, status.time)
            }
        }
    }

    fn bad(&mut self) -> Taken {
        self.counters.bad_messages += 1;
        Taken::Yes
    }

    fn refuse(&mut self, now: Instant, id: ConnId, reason: Refuse) -> Taken {
        let _ = self.send(id, &FromGateway::Refuse(reason));
        self.endpoint.close(id, now);
        self.bad()
    }

    fn hello(&mut self, now: Instant, id: ConnId, hello: &Hello<'_>) -> Taken {
        if hello.node == 0 {
            return self.bad(); // 0 is the gateway itself in the log
        }
        let ours = hello.log == self.log.id();
        let state = self.nodes.entry(hello.node).or_default();
        let same_start = state.nonce == hello.nonce && state.nonce != 0;
        // After a restart of the gateway the node's own word tells which boot it is: only a start that was welcomed here
        // knows the log and its number.
        let resumed = ours && hello.boot != 0 && hello.boot == state.boot;
        if !(same_start || resumed) {
            if ours && hello.boot != 0 {
                // An earlier boot than the newest: two devices share a number.
                return self.refuse(now, id, Refuse::NodeInUse);
            }
            let boot = state.boot + 1;
            let payload = boot_payload(hello);
            let record = Record {
                kind: Kind::Boot,
                flags: 0,
                node: hello.node,
                boot,
                sequence: 0,
                time: now,
                payload: &payload,
            };
            match self.log.append(now, &record) {
                Ok(number) => state.begin_boot(boot, hello.nonce, number),
                Err(Full) => return Taken::LogFull,
            }
        }
        state.nonce = hello.nonce;
        state.name = hello.name.into();
        state.firmware = hello.firmware.into();
        state.last_seen = Some(now);
        state.witness = (ours && hello.boot == state.boot && hello.next > state.next).then_some(hello.next);
        let (have, witness) = (state.next, state.witness);
        if let Some(old) = state.connection.replace(id).filter(|old| *old != id) {
            self.sessions.remove(&old);
            self.endpoint.close(old, now);
        }
        self.sessions.insert(id, hello.node);
        if let Some(acknowledged) = witness {
            self.tell(GatewayEvent::Witness { node: hello.node, have, acknowledged });
        }
        self.welcome(hello.node);
        Taken::Yes
    }

    /// Welcomes a node whose boot record is durable; the others when theirs is.
    fn welcome(&mut self, node: u32) {
        let log = self.log.id();
        let durable = self.log.durable();
        let Some(state) = self.nodes.get_mut(&node) else { return };
        if state.boot_record.is_some_and(|record| record >= durable) {
            return;
        }
        state.boot_record = None;
        let (Some(id), boot) = (state.connection, state.boot) else { return };
        // What the log has taken but not made durable need not come again: its Ack will follow.
        let welcome = Welcome { log, node, boot, durable: state.next };
        state.ack_owed = true;
        if self.send(id, &FromGateway::Welcome(welcome)).is_ok() {
            self.tell(GatewayEvent::NodeUp { node, boot });
        }
    }

    fn samples(&mut self, now: Instant, node: u32, mut samples: Samples<'_>, block: &[u8]) -> Taken {
        let Some(state) = self.nodes.get_mut(&node) else { return self.bad() };
        if state.boot_record.is_some() && state.next == 0 && samples.first() > 0 && state.durable == 0 {
            // Sent before the welcome: a node that does not follow the order of messages.
            return self.bad();
        }
        if samples.end() <= state.next {
            state.duplicates += samples.len() as u64;
            self.counters.duplicates += samples.len() as u64;
            state.ack_owed = true;
            return Taken::Yes;
        }
        if samples.first() > state.next {
            // A hole that the node did not explain. It must not look like an unbroken sequence.
            let gap = Gap {
                cause: GapCause::Other(0),
                first: state.next,
                count: samples.first() - state.next,
                time: samples.base(),
            };
            if matches!(self.gap(now, node, &gap), Taken::LogFull) {
                return Taken::LogFull;
            }
        }
        if matches!(self.log_announcements(now, node), Taken::LogFull) {
            return Taken::LogFull;
        }
        let Some(state) = self.nodes.get_mut(&node) else { return self.bad() };
        let known = usize::try_from(state.next.saturating_sub(samples.first())).unwrap_or(usize::MAX);
        let mut trimmed = Vec::new();
        let mut payload = block;
        if known > 0 {
            samples.by_ref().take(known).for_each(drop);
            trimmed.resize(block.len(), 0);
            let len = samples.write_rest(&mut trimmed).unwrap_or(0);
            payload = trimmed.get(..len).unwrap_or(&[]);
        }
        let count = samples.len() as u64;
        let record = Record {
            kind: Kind::Samples,
            flags: 0,
            node,
            boot: state.boot,
            sequence: samples.first(),
            time: samples.base(),
            payload,
        };
        let Ok(number) = self.log.append(now, &record) else { return Taken::LogFull };
        state.duplicates += known as u64;
        state.next = samples.end();
        let (boot, end) = (state.boot, state.next);
        state.show(now, samples);
        self.counters.duplicates += known as u64;
        self.counters.samples += count;
        self.unwritten.push_back(Pending { record: number, node, boot, end, arrived: now });
        Taken::Yes
    }

    fn gap(&mut self, now: Instant, node: u32, gap: &Gap) -> Taken {
        let Some(state) = self.nodes.get_mut(&node) else { return self.bad() };
        if gap.end() <= state.next {
            state.ack_owed = true;
            return Taken::Yes;
        }
        let first = gap.first.max(state.next);
        let gap = Gap { first, count: gap.end() - first, ..*gap };
        let mut payload = [0; MAX_CONTROL];
        let len = gap.write(&mut payload).unwrap_or(0);
        let record = Record {
            kind: Kind::Gap,
            flags: 0,
            node,
            boot: state.boot,
            sequence: gap.first,
            time: gap.time,
            payload: payload.get(..len).unwrap_or(&[]),
        };
        let Ok(number) = self.log.append(now, &record) else { return Taken::LogFull };
        state.lost += gap.count;
        state.next = gap.end();
        let (boot, end) = (state.boot, state.next);
        self.unwritten.push_back(Pending { record: number, node, boot, end, arrived: now });
        Taken::Yes
    }

    /// Puts the node's announcements into the segment that its samples go to.
    fn log_announcements(&mut self, now: Instant, node: u32) -> Taken {
        let segment = self.log.segment();
        let Some(state) = self.nodes.get_mut(&node) else { return Taken::Yes };
        let boot = state.boot;
        for group in state.groups.values_mut().filter(|group| group.logged_in != Some(segment)) {
            let record = Record {
                kind: Kind::Channels,
                flags: 0,
                node,
                boot,
                sequence: 0,
                time: now,
                payload: &group.announcement,
            };
            if self.log.append(now, &record).is_err() {
                return Taken::LogFull;
            }
            group.logged_in = Some(segment);
        }
        Taken::Yes
    }

    /// Logs how the node's clock relates to the gateway's and to the wall clock.
    fn log_clock(&mut self, now: Instant, wall: Option<WallTime>, node: u32, node_time: u64) -> Taken {
        let Some(state) = self.nodes.get_mut(&node) else { return Taken::Yes };
        let due = state.clock_logged.is_none_or(|at| now.since(at) >= CLOCK_RECORD_PERIOD);
        let (Some(wall), Some((_, error)), true) = (wall, state.clock.offset(), due) else {
            return Taken::Yes;
        };
        let Some(at) = state.clock.to_gateway(Instant::from_ns(node_time)) else { return Taken::Yes };
        let unix = wall.unix_ns.saturating_sub(now.since(at).as_ns());
        let mut payload = [0; 32];
        let mut w = node::codec::Writer::new(&mut payload);
        w.u64(node_time);
        w.u64(at.as_ns());
        w.u64(unix);
        w.u64(wall.error_ns.saturating_add(error.as_ns()));
        let record = Record {
            kind: Kind::Time,
            flags: 0,
            node,
            boot: state.boot,
            sequence: 0,
            time: Instant::from_ns(node_time),
            payload: &payload,
        };
        match self.log.append(now, &record) {
            Ok(_) => state.clock_logged = Some(now),
            Err(Full) => return Taken::LogFull,
        }
        Taken::Yes
    }

    /// Tells nodes what has become durable.
    fn acknowledge(&mut self, now: Instant) {
        let durable = self.log.durable();
        while let Some(done) = self.unwritten.front().copied().filter(|p| p.record < durable) {
            self.unwritten.pop_front();
            self.ack_latency.record(now.since(done.arrived).as_ns());
            if let Some(state) = self.nodes.get_mut(&done.node).filter(|state| state.boot == done.boot) {
                self.counters.acknowledged += done.end.saturating_sub(state.durable);
                state.durable = state.durable.max(done.end);
                state.ack_owed = true;
            }
            match self.unsettled.back_mut().filter(|last| (last.node, last.boot) == (done.node, done.boot)) {
                Some(last) => *last = done,
                None => self.unsettled.push_back(done),
            }
        }
        let settled = self.log.settled();
        while let Some(done) = self.unsettled.front().copied().filter(|p| p.record < settled) {
            self.unsettled.pop_front();
            if let Some(state) = self.nodes.get_mut(&done.node).filter(|state| state.boot == done.boot) {
                state.settled = state.settled.max(done.end);
            }
        }
        let waiting: Vec<u32> =
            self.nodes.iter().filter(|(_, s)| s.boot_record.is_some()).map(|(id, _)| *id).collect();
        for node in waiting {
            self.welcome(node);
        }
        let log = self.log.id();
        let owed: Vec<u32> = self.nodes.iter().filter(|(_, s)| s.ack_owed).map(|(id, _)| *id).collect();
        for node in owed {
            let Some(state) = self.nodes.get(&node) else { continue };
            let (Some(id), None) = (state.connection, state.boot_record) else { continue };
            let ack = Ack { log, node, boot: state.boot, durable: state.durable, settled: state.settled };
            let sent = self.send(id, &FromGateway::Ack(ack));
            if let (Ok(()), Some(state)) = (sent, self.nodes.get_mut(&node)) {
                state.ack_owed = false;
            }
        }
    }

    fn send(&mut self, id: ConnId, message: &FromGateway) -> Result<(), SendError> {
        let mut out = [0; 64];
        let len = message.write(&mut out).unwrap_or(0);
        self.endpoint.send_message(id, out.get(..len).unwrap_or(&[]))
    }
}

/// Payload of a boot record: the nonce, then name and firmware as they came.
fn boot_payload(hello: &Hello<'_>) -> Vec<u8> {
    let mut bytes = alloc::vec![0; 8 + 2 + hello.name.len() + hello.firmware.len()];
    let mut w = node::codec::Writer::new(&mut bytes);
    w.u64(hello.nonce);
    w.text(hello.name);
    w.text(hello.firmware);
    bytes
}

/// What a boot record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootRecord<'a> {
    /// The random number of that start.
    pub nonce: u64,
    /// Name of the node.
    pub name: &'a str,
    /// Version of its program.
    pub firmware: &'a str,
}

impl<'a> BootRecord<'a> {
    /// Reads the payload of a boot record.
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let mut r = Reader::new(payload);
        Some(Self { nonce: r.u64()?, name: r.text()?, firmware: r.text()? })
    }
}
