//! The task's half of a node: blocks that wait for acknowledgement, and the session with the gateway.
//!
//! [`NodeApp::step`] is called whenever something may have happened: a packet, a filled block, the time it asked for. It
//! never waits and never fails.
//!
//! ```text
//!            connected, Hello sent      Welcome
//! Connecting ─────────────────────> Greeting ──────> Up ── blocks, gaps, status ──>
//!     ^                                 │             │  <── Ack gives blocks back
//!     └──── backoff with jitter ────────┴─── Closed ──┘
//! ```
//!
//! A block stays held until the gateway says that it is *durable*: what the transport acknowledges has only been
//! received. After any interruption the gateway's Welcome names the next sample that its log lacks, and the node goes on
//! from there, so that nothing is logged twice and nothing is skipped silently. When memory runs out, the oldest or the
//! newest samples are given up by choice ([`Keep`]); the missing range is sent as a gap.

use core::fmt;

use hal::link::{Addr, Link, LinkRx, LinkTx};
use hal::readiness::Next;
use hal::time::{Instant, Span};
use heapless::Deque;
use net_core::{CloseReason, Connection, Event, SendError};

use crate::message::{
    Ack, Channels, FromGateway, Gap, GapCause, Hello, MAX_CONTROL, Refuse, Status, Welcome,
};
use crate::sample::Samples;
use crate::sensor::Group;

/// How long the gateway may take to welcome: it has to make the boot number durable first.
const GREETING_TIME: Span = Span::secs(10);
/// Time between status messages.
const STATUS_PERIOD: Span = Span::secs(1);
/// First wait after a connection was lost; doubles up to [`BACKOFF_MAX`], with a random half on top.
const BACKOFF_MIN: Span = Span::ms(100);
const BACKOFF_MAX: Span = Span::secs(5);
/// Packets handled before the caller gets its turn again.
const PACKETS_A_STEP: usize = 64;

/// What to give up when nothing is left to store samples in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Give up the oldest: what matters is now.
    Newest,
    /// Give up the newest: what matters is how it began.
    Oldest,
}

impl Keep {
    const fn gap_cause(self) -> GapCause {
        match self {
            Self::Newest => GapCause::DroppedOldest,
            Self::Oldest => GapCause::DroppedNewest,
        }
    }
}

/// Who the node is.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// Its number, unique at the gateway.
    pub node: u32,
    /// For people.
    pub name: &'a str,
    /// Version of the program.
    pub firmware: &'a str,
    /// What it measures.
    pub groups: &'a [Group<'a>],
}

/// Where filled blocks come from: the queue behind the interrupt handlers.
///
/// A block's bytes are those of [`crate::sample`]; dropping it gives its memory back.
pub trait Blocks {
    /// A block, owned.
    type Block: AsRef<[u8]>;
    /// The oldest filled block.
    fn take(&mut self) -> Option<Self::Block>;
    /// Blocks that the handlers can still fill.
    fn free(&self) -> usize;
}

/// Something that a person or a test wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeEvent {
    /// The gateway has welcomed this boot; its log lacks `durable` and all that follows.
    Up {
        /// The boot number that the gateway gave.
        boot: u32,
        /// The next sample that its log lacks.
        durable: u64,
    },
    /// All samples below `durable` are on the gateway's disk. Consecutive ones are told as one.
    Acked {
        /// The boot number.
        boot: u32,
        /// One more than the highest durable sample.
        durable: u64,
    },
    /// The connection is over.
    Down(CloseReason),
    /// The gateway does not want this node.
    Refused(Refuse),
}

/// Counters of the task's half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct NodeCounters {
    /// One more than the highest acknowledged sample.
    pub acknowledged: u64,
    /// Samples given up while they waited here.
    pub evicted: u64,
    /// Blocks that wait for acknowledgement.
    pub held: u64,
    /// Connections made.
    pub connects: u64,
    /// Messages of the gateway that were none.
    pub bad_messages: u64,
}

enum Session {
    /// Not before this time.
    Waiting(Instant),
    Connecting,
    Greeting {
        until: Instant,
        hello_sent: bool,
    },
    Up {
        /// The next sample to send.
        next: u64,
        /// Groups announced so far.
        announced: usize,
        status_at: Instant,
    },
}

/// A block with what its header says, so that it is parsed once.
struct Held<B> {
    block: B,
    first: u64,
    end: u64,
    time: Instant,
}

/// The task's half. `HELD` blocks wait at most; `TX`, `RX` and `INFLIGHT` size the connection.
pub struct NodeApp<'a, A, B, const HELD: usize, const TX: usize, const RX: usize, const INFLIGHT: usize> {
    identity: Identity<'a>,
    keep: Keep,
    nonce: u64,
    connection: Connection<A, TX, RX, INFLIGHT>,
    session: Session,
    backoff: Span,
    random: u64,
    held: Deque<Held<B>, HELD>,
    /// Held blocks, from the front, that this session's connection has taken.
    handed: usize,
    log: u128,
    boot: u32,
    acked: u64,
    evicted: u64,
    connects: u64,
    bad_messages: u64,
    events: Deque<NodeEvent, 8>,
    stopped: bool,
}

impl<A, B, const HELD: usize, const TX: usize, const RX: usize, const INFLIGHT: usize> fmt::Debug
    for NodeApp<'_, A, B, HELD, TX, RX, INFLIGHT>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.session {
            Session::Waiting(_) => "waiting",
            Session::Connecting => "connecting",
            Session::Greeting { .. } => "greeting",
            Session::Up { .. } => "up",
        };
        f.debug_struct("NodeApp")
            .field("node", &self.identity.node)
            .field("session", &state)
            .field("held", &self.held.len())
            .field("acked", &self.acked)
            .finish_non_exhaustive()
    }
}

impl<'a, A: Addr, B: AsRef<[u8]>, const HELD: usize, const TX: usize, const RX: usize, const INFLIGHT: usize>
    NodeApp<'a, A, B, HELD, TX, RX, INFLIGHT>
{
    /// A node that starts to connect to `gateway`. `seed` has to differ from start to start and be hard to guess: the
    /// gateway tells boots apart by it.
    pub fn new(
        identity: Identity<'a>,
        keep: Keep,
        config: net_core::Config,
        seed: u64,
        now: Instant,
        gateway: A,
    ) -> Self {
        let mut random = seed;
        let nonce = next_random(&mut random);
        let connection = Connection::connect(config, next_random(&mut random), now, gateway);
        Self {
            identity,
            keep,
            nonce,
            connection,
            session: Session::Connecting,
            backoff: BACKOFF_MIN,
            random,
            held: Deque::new(),
            handed: 0,
            log: 0,
            boot: 0,
            acked: 0,
            evicted: 0,
            connects: 0,
            bad_messages: 0,
            events: Deque::new(),
            stopped: false,
        }
    }

    /// Does what there is to do at `now`: packets in, blocks taken over, packets out. `status` is what the next status
    /// message says; the fields that this half knows are filled in. Come back at `Next::at`, or sooner when `link` or
    /// `blocks` have news.
    pub fn step<L, S>(&mut self, now: Instant, link: &mut L, blocks: &mut S, status: &Status) -> Next
    where
        L: Link + LinkRx<Addr = A> + LinkTx<Addr = A> + ?Sized,
        S: Blocks<Block = B> + ?Sized,
    {
        let mut received = 0;
        while received < PACKETS_A_STEP && link.advance() {
            if let Some(rx) = link.current() {
                self.connection.handle(now, &rx.meta, rx.data);
            }
            received += 1;
        }
        if self.connection.poll_timeout().is_some_and(|at| at <= now) {
            self.connection.handle_timeout(now);
        }
        self.take_events(now);
        self.take_messages();
        self.take_blocks(blocks);
        self.drive_session(now, status);

        let caps = link.caps();
        let mut sent = 0;
        while sent < PACKETS_A_STEP {
            let Some(out) = link.grant(caps.mtu) else { break };
            let Some(meta) = self.connection.poll_transmit(now, &caps, out) else { break };
            link.commit(meta);
            sent += 1;
        }
        link.flush();
        Next { at: self.wake_at(), more: received == PACKETS_A_STEP || sent == PACKETS_A_STEP }
    }

    /// Takes leave of the gateway: what was sent is still delivered, no new connection is made.
    pub fn stop(&mut self, now: Instant) {
        self.stopped = true;
        self.connection.close(now);
    }

    /// Whether everything that was taken over is acknowledged.
    pub fn is_settled(&self) -> bool {
        self.held.is_empty()
    }

    /// The next event. The oldest are forgotten when nobody asks.
    pub fn poll_event(&mut self) -> Option<NodeEvent> {
        self.events.pop_front()
    }

    /// Counters now.
    pub fn counters(&self) -> NodeCounters {
        NodeCounters {
            acknowledged: self.acked,
            evicted: self.evicted,
            held: self.held.len() as u64,
            connects: self.connects,
            bad_messages: self.bad_messages,
        }
    }

    /// Counters of the connection.
    pub fn connection_stats(&self) -> net_core::Stats {
        self.connection.stats()
    }

    fn tell(&mut self, event: NodeEvent) {
        if let (NodeEvent::Acked { .. }, Some(NodeEvent::Acked { .. })) = (event, self.events.back()) {
            self.events.pop_back();
        }
        if self.events.is_full() {
            self.events.pop_front();
        }
        // Cannot be full: one was taken off.
        let _ = self.events.push_back(event);
    }

    fn take_events(&mut self, now: Instant) {
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Connected => {
                    self.connects = self.connects.saturating_add(1);
                    self.handed = 0;
                    self.session = Session::Greeting { until: now.after(GREETING_TIME), hello_sent: false };
                }
                Event::Closed(reason) => {
                    self.tell(NodeEvent::Down(reason));
                    self.retry(now);
                }
                _ => {}
            }
        }
    }

    /// Waits before the next connection: longer each time, with a random part, so that a thousand nodes whose gateway
    /// comes back do not arrive in one instant.
    fn retry(&mut self, now: Instant) {
        self.handed = 0;
        let jitter = Span::ns(next_random(&mut self.random) % self.backoff.as_ns().max(1) / 2);
        self.session = Session::Waiting(now.after(self.backoff.plus(jitter)));
        self.backoff = self.backoff.times(2).min(BACKOFF_MAX);
    }

    fn take_messages(&mut self) {
        while let Some(bytes) = self.connection.peek_message() {
            let message = FromGateway::parse(bytes);
            self.connection.consume_message();
            match message {
                Ok(FromGateway::Welcome(welcome)) => self.welcomed(&welcome),
                Ok(FromGateway::Ack(ack)) => self.acknowledged(&ack),
                Ok(FromGateway::Refuse(reason)) => self.tell(NodeEvent::Refused(reason)),
                Err(_) => self.bad_messages = self.bad_messages.saturating_add(1),
            }
        }
    }

    fn welcomed(&mut self, welcome: &Welcome) {
        if welcome.node != self.identity.node || !matches!(self.session, Session::Greeting { .. }) {
            self.bad_messages = self.bad_messages.saturating_add(1);
            return;
        }
        self.log = welcome.log;
        self.boot = welcome.boot;
        self.backoff = BACKOFF_MIN;
        self.session = Session::Up { next: welcome.durable, announced: 0, status_at: Instant::ZERO };
        self.tell(NodeEvent::Up { boot: welcome.boot, durable: welcome.durable });
        self.release(welcome.durable);
    }

    fn acknowledged(&mut self, ack: &Ack) {
        // An acknowledgement of another log or boot says nothing about what is held here.
        if (ack.log, ack.node, ack.boot) != (self.log, self.identity.node, self.boot)
            || ack.durable <= self.acked
        {
            return;
        }
        self.release(ack.durable);
        self.tell(NodeEvent::Acked { boot: ack.boot, durable: ack.durable });
    }

    fn release(&mut self, durable: u64) {
        self.acked = self.acked.max(durable);
        while self.held.front().is_some_and(|held| held.end <= durable) {
            self.held.pop_front();
            self.handed = self.handed.saturating_sub(1);
        }
    }

    fn take_blocks<S: Blocks<Block = B> + ?Sized>(&mut self, blocks: &mut S) {
        loop {
            // With `Keep::Newest` the handlers always find a free block, because the oldest one makes way in time.
            let short = self.held.is_full() || (self.keep == Keep::Newest && blocks.free() == 0);
            if short && self.keep == Keep::Newest {
                let Some(oldest) = self.held.pop_front() else { break };
                self.evicted = self.evicted.saturating_add(oldest.end.saturating_sub(oldest.first));
                self.handed = self.handed.saturating_sub(1);
            }
            if self.held.is_full() {
                break;
            }
            let Some(block) = blocks.take() else { break };
            let Some((first, end, time)) = Samples::parse(block.as_ref())
                .map(|samples| (samples.first(), samples.end(), samples.base()))
            else {
                continue;
            };
            let _ = self.held.push_back(Held { block, first, end, time }); // not full: looked above
        }
    }

    fn drive_session(&mut self, now: Instant, status: &Status) {
        match self.session {
            Session::Waiting(until) if now >= until && !self.stopped => {
                self.connection.reconnect(now);
                self.session = Session::Connecting;
            }
            Session::Waiting(_) | Session::Connecting => {}
            Session::Greeting { until, .. } if now >= until => {
                self.connection.close(now);
                self.retry(now);
            }
            Session::Greeting { hello_sent: true, .. } => {}
            Session::Greeting { until, .. } => {
                if self.send_hello().is_ok() {
                    self.session = Session::Greeting { until, hello_sent: true };
                }
            }
            Session::Up { next, announced, status_at } => {
                let (next, announced, status_at) = self.send_all(now, next, announced, status_at, status);
                self.session = Session::Up { next, announced, status_at };
            }
        }
    }

    fn send_hello(&mut self) -> Result<(), SendError> {
        let hello = Hello {
            node: self.identity.node,
            nonce: self.nonce,
            log: self.log,
            boot: self.boot,
            next: self.acked,
            name: self.identity.name,
            firmware: self.identity.firmware,
        };
        self.send(|out| hello.write(out))
    }

    fn send(&mut self, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Result<(), SendError> {
        let mut out = [0; MAX_CONTROL];
        let message =
            write(&mut out).and_then(|len| out.get(..len)).ok_or(SendError::TooLong(MAX_CONTROL))?;
        self.connection.send_message(message)
    }

    /// Sends announcements, then blocks and gaps in order, then the status, as far as there is room.
    fn send_all(
        &mut self,
        now: Instant,
        mut next: u64,
        mut announced: usize,
        mut status_at: Instant,
        status: &Status,
    ) -> (u64, usize, Instant) {
        while let Some(group) = self.identity.groups.get(announced) {
            match self.send(|out| Channels::write(group, out)) {
                Err(SendError::Full) => return (next, announced, status_at),
                // A group whose texts do not fit is left out; its samples are still raw numbers.
                _ => announced = announced.saturating_add(1),
            }
        }
        while let Some(held) = self.held.iter().nth(self.handed) {
            let (first, end, time) = (held.first, held.end, held.time);
            if end <= next {
                self.handed = self.handed.saturating_add(1); // the gateway has it; its Ack is on the way
                continue;
            }
            if first > next {
                // What was acknowledged once and is wanted again is not here any more: the gateway's log has lost it.
                let lost_there = next < self.acked;
                let gap_end = if lost_there { first.min(self.acked) } else { first };
                let cause = if lost_there { GapCause::LostByGateway } else { self.keep.gap_cause() };
                let gap = Gap { cause, first: next, count: gap_end.saturating_sub(next), time };
                if self.send(|out| gap.write(out)).is_err() {
                    break;
                }
                next = gap_end;
                continue;
            }
            if self.connection.send_message(held.block.as_ref()).is_err() {
                break;
            }
            next = end;
            self.handed = self.handed.saturating_add(1);
        }
        if now >= status_at {
            let counters = self.counters();
            let status = Status {
                time: now.as_ns(),
                acknowledged: counters.acknowledged,
                dropped: status.dropped.saturating_add(counters.evicted),
                held: counters.held,
                connects: counters.connects,
                ..*status
            };
            if self.send(|out| status.to_message(out)).is_ok() {
                status_at = now.after(STATUS_PERIOD);
            }
        }
        (next, announced, status_at)
    }

    fn wake_at(&self) -> Option<Instant> {
        let session = match self.session {
            Session::Waiting(_) if self.stopped => None,
            Session::Waiting(until) | Session::Greeting { until, .. } => Some(until),
            Session::Connecting => None,
            Session::Up { status_at, .. } => Some(status_at),
        };
        match (session, self.connection.poll_timeout()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
