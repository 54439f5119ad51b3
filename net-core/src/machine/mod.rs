//! One connection without addresses and without a memory of its own: what [`Connection`](crate::Connection) and
//! [`Endpoint`](crate::Endpoint) share.
//!
//! ```text
//!              Accept           Fin acked, or peer's Fin complete
//!  Connecting ────────> Open ───────────────────────────────────> Lingering ──3 PTO──> Closed
//!      └────────────────┴── timeout, reset, violation ──────────────────────────────────^
//! ```
//!
//! Invariant: data in flight, or data blocked by credit, implies a timer ([`Machine::timeout`]).

pub(crate) mod flight;
mod input;
mod output;
pub(crate) mod receive;
pub(crate) mod received;
pub(crate) mod send;
mod timers;

use hal::time::{Instant, Span};

use crate::config::Config;
use crate::event::{CloseReason, Event, SendError, Stats};
use crate::handshake::{Params, Secret};
use crate::ranges::Range;
use crate::recovery::congestion::Congestion;
use crate::recovery::pacing::Pacer;
use crate::recovery::rtt::RttEstimator;
use crate::seq::{EPOCH, low};
use flight::{Flight, Sent};
use receive::ReceiveBuffer;
use received::Received;
use send::SendBuffer;

/// Where a connection's bytes and records live.
pub(crate) trait Storage {
    type Tx: AsRef<[u8]> + AsMut<[u8]>;
    type Rx: AsRef<[u8]> + AsMut<[u8]>;
    type Sent: AsRef<[Sent]> + AsMut<[Sent]>;
    type Numbers: AsRef<[Range]> + AsMut<[Range]>;
    type Gaps: AsRef<[Range]> + AsMut<[Range]>;
}

/// The memory of one connection.
pub(crate) struct Memory<S: Storage> {
    pub(crate) tx: S::Tx,
    pub(crate) rx: S::Rx,
    pub(crate) sent: S::Sent,
    pub(crate) numbers: S::Numbers,
    pub(crate) gaps: S::Gaps,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Open,
    /// Over, but the peer may still need an acknowledgement.
    Lingering(Instant),
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FinState {
    None,
    /// To be sent once all data has been.
    Wanted,
    InFlight,
    Acked,
}

pub(crate) struct Machine<S: Storage, C> {
    config: Config,
    /// The latest time that was passed in.
    now: Instant,
    phase: Phase,
    reason: Option<CloseReason>,
    /// Id in packets to us, and in packets to the peer.
    pub(crate) own_id: u32,
    peer_id: u32,
    nonce: u64,
    /// While connecting: from the latest `Retry`. Later: proves a new address of ours.
    cookie: u64,
    /// The cookie has to go out in a `Probe`.
    proof_due: bool,
    /// Handshake packets sent without an answer.
    tries: u32,
    started: Instant,
    /// A `Syn` has to go out.
    syn_due: bool,
    first: (u32, u32),

    send: SendBuffer<S::Tx>,
    flight: Flight<S::Sent>,
    /// The offset that the peer lets us send up to.
    credit: u64,
    peer_max_message: usize,
    peer_ack_delay: Span,
    fin: FinState,
    rtt: RttEstimator,
    pub(crate) congestion: C,
    pacer: Pacer,
    /// Largest datagram of the latest transmission.
    datagram: usize,
    /// The window was what stopped the latest transmission.
    limited: bool,
    loss_due: Option<Instant>,
    reorder: Reorder,
    pto_count: u32,
    /// Packets to send whatever the window says.
    probes: u32,
    ping_due: bool,
    last_eliciting: Instant,

    receive: ReceiveBuffer<S::Rx, S::Gaps>,
    received: Received<S::Numbers>,
    /// Credit in the latest packet that carried it.
    told_credit: u64,
    peer_fin: Option<u64>,
    idle_timeout: Span,
    last_received: Instant,

    pending: Pending,
    stats: Stats,
}

impl<S: Storage, C> core::fmt::Debug for Machine<S, C> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Machine")
            .field("phase", &self.phase)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// Events that have not been polled yet.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    connected: bool,
    message: bool,
    writable: bool,
    /// A message was refused for want of room.
    was_full: bool,
    /// `Closed` has been handed out.
    closed_told: bool,
}

/// How late packets may be before they count as lost (RFC 8985, with a window that grows to what was seen).
#[derive(Clone, Copy, Debug, Default)]
struct Reorder {
    seen: bool,
    window: Span,
    /// Losses and spurious losses since the latest congestion response.
    lost: u32,
    spurious: u32,
}

impl<S: Storage, C: Congestion> Machine<S, C> {
    /// A client's side, which will send a `Syn`.
    pub(crate) fn connect(
        config: Config,
        memory: Memory<S>,
        secret: &mut Secret,
        own_id: u32,
        now: Instant,
    ) -> Self {
        let mut machine = Self::new(config, memory, now);
        machine.begin(secret, own_id, now);
        machine
    }

    /// A server's side, whose handshake is complete.
    #[cfg(feature = "alloc")]
    pub(crate) fn accept(
        config: Config,
        memory: Memory<S>,
        own: &Params,
        peer: &Params,
        now: Instant,
    ) -> Self {
        let mut machine = Self::new(config, memory, now);
        machine.own_id = own.connection;
        machine.nonce = peer.nonce;
        machine.set_first(own.first_number, own.first_offset);
        machine.open(peer, now);
        machine
    }

    fn new(config: Config, memory: Memory<S>, now: Instant) -> Self {
        let receive = ReceiveBuffer::new(memory.rx, memory.gaps, config.max_message);
        let datagram = config.datagram(usize::MAX);
        Self {
            now,
            phase: Phase::Closed,
            reason: None,
            own_id: 0,
            peer_id: 0,
            nonce: 0,
            cookie: 0,
            proof_due: false,
            tries: 0,
            started: now,
            syn_due: false,
            first: (0, 0),
            send: SendBuffer::new(memory.tx, EPOCH),
            flight: Flight::new(memory.sent, EPOCH),
            credit: EPOCH,
            peer_max_message: 0,
            peer_ack_delay: Span::ZERO,
            fin: FinState::None,
            rtt: RttEstimator::new(config.initial_rtt),
            congestion: C::new(u32::try_from(datagram).unwrap_or(u32::MAX)),
            pacer: Pacer::new(),
            datagram,
            limited: false,
            loss_due: None,
            reorder: Reorder::default(),
            pto_count: 0,
            probes: 0,
            ping_due: false,
            last_eliciting: now,
            receive,
            received: Received::new(memory.numbers),
            told_credit: EPOCH,
            peer_fin: None,
            idle_timeout: config.idle_timeout,
            last_received: now,
            pending: Pending::default(),
            stats: Stats::default(),
            config,
        }
    }

    /// Starts the handshake anew, with a new identity and empty buffers; counters go on.
    pub(crate) fn begin(&mut self, secret: &mut Secret, own_id: u32, now: Instant) {
        let datagram = u32::try_from(self.datagram).unwrap_or(u32::MAX);
        let first = || self.config.first_numbers;
        let (number, offset) =
            (first().unwrap_or_else(|| secret.draw_id()), first().unwrap_or_else(|| secret.draw_id()));
        self.own_id = own_id;
        self.nonce = secret.draw();
        self.set_first(number, offset);
        self.phase = Phase::Connecting;
        self.reason = None;
        (self.cookie, self.tries, self.started, self.syn_due) = (0, 0, now, true);
        self.proof_due = false;
        (self.now, self.last_eliciting, self.last_received) = (now, now, now);
        self.fin = FinState::None;
        self.peer_fin = None;
        self.rtt = RttEstimator::new(self.config.initial_rtt);
        self.congestion = C::new(datagram);
        self.pacer = Pacer::new();
        self.loss_due = None;
        self.reorder = Reorder::default();
        (self.pto_count, self.probes, self.ping_due, self.limited) = (0, 0, false, false);
        self.idle_timeout = self.config.idle_timeout;
        self.pending = Pending::default();
    }

    fn set_first(&mut self, number: u32, offset: u32) {
        self.first = (number, offset);
        self.flight.restart(EPOCH + u64::from(number));
        self.send.restart(EPOCH + u64::from(offset));
    }

    /// The peer's parameters are known.
    fn open(&mut self, peer: &Params, now: Instant) {
        self.phase = Phase::Open;
        self.peer_id = peer.connection;
        self.received.restart(peer.first_number);
        self.receive.restart(EPOCH + u64::from(peer.first_offset));
        self.told_credit = self.receive.credit();
        self.credit = self.send.una() + u64::from(peer.receive_buffer);
        self.peer_max_message = usize::try_from(peer.max_message).unwrap_or(usize::MAX);
        self.peer_ack_delay = Span::us(u64::from(peer.max_ack_delay_us)).min(Span::secs(1));
        self.idle_timeout = self.config.idle_timeout.min(Span::ms(u64::from(peer.idle_timeout_ms)));
        self.last_received = now;
        self.last_eliciting = now;
        self.pending.connected = true;
    }

    /// What we tell the peer in the handshake.
    fn params(&self) -> Params {
        own_params(&self.config, self.own_id, self.first, self.receive.capacity(), self.nonce, self.cookie)
    }

    pub(crate) fn send_message(&mut self, message: &[u8]) -> Result<(), SendError> {
        match self.phase {
            Phase::Open if self.fin == FinState::None => {}
            Phase::Connecting => return Err(SendError::Connecting),
            _ => return Err(SendError::Closed),
        }
        let limit = self.peer_max_message.min(self.send.capacity().saturating_sub(send::MAX_PREFIX));
        if message.len() > limit {
            return Err(SendError::TooLong(limit));
        }
        let (prefix, len) = send::prefix(message.len());
        if self.send.room() < len + message.len() {
            self.pending.was_full = true;
            return Err(SendError::Full);
        }
        self.send.write(prefix.get(..len).unwrap_or(&prefix));
        self.send.write(message);
        self.stats.messages_sent += 1;
        Ok(())
    }

    pub(crate) fn peek_message(&mut self) -> Option<&[u8]> {
        self.receive.message().ok().flatten()
    }

    pub(crate) fn consume_message(&mut self) -> bool {
        let consumed = self.receive.consume();
        if consumed {
            self.stats.messages_received += 1;
            // A quarter of the buffer more than the peer knows of is worth a packet, and so is anything when it nears
            // the end of what it knows of.
            let quarter = self.receive.capacity() as u64 / 4;
            let news = self.receive.credit() - self.told_credit;
            let left = self.told_credit.saturating_sub(self.receive.next());
            if (news >= quarter || left < quarter) && self.phase == Phase::Open {
                self.received.ask();
            }
        }
        consumed
    }

    pub(crate) fn close(&mut self, now: Instant) {
        self.now = self.now.max(now);
        match self.phase {
            Phase::Connecting => self.finish(CloseReason::Local),
            Phase::Open if self.fin == FinState::None => self.fin = FinState::Wanted,
            _ => {}
        }
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        let take = core::mem::take::<bool>;
        if take(&mut self.pending.connected) {
            return Some(Event::Connected);
        }
        if take(&mut self.pending.message) {
            return Some(Event::MessageReady);
        }
        if take(&mut self.pending.writable) {
            return Some(Event::Writable);
        }
        let reason = self.reason.filter(|_| !self.pending.closed_told)?;
        if matches!(self.receive.ready(), Ok(Some(_))) {
            return None;
        }
        self.pending.closed_told = true;
        Some(Event::Closed(reason))
    }

    /// Everything has been told, and nobody waits for an answer.
    #[cfg(feature = "alloc")]
    pub(crate) fn is_finished(&self) -> bool {
        self.phase == Phase::Closed && self.pending.closed_told
    }

    /// The peer has proved that it is at another address now: nothing is known of the path there.
    #[cfg(feature = "alloc")]
    pub(crate) fn on_new_path(&mut self) {
        self.rtt = RttEstimator::new(self.config.initial_rtt);
        self.congestion = C::new(u32::try_from(self.datagram).unwrap_or(u32::MAX));
        self.pacer = Pacer::new();
        self.pto_count = 0;
        self.probes = 1;
    }

    /// What a `Retry` to this connection's peer is addressed to and proves: its id, and the nonce of the handshake.
    #[cfg(feature = "alloc")]
    pub(crate) const fn challenge(&self) -> (u32, u64) {
        (self.peer_id, self.nonce)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            srtt: self.rtt.srtt(),
            rttvar: self.rtt.rttvar(),
            min_rtt: self.rtt.min().unwrap_or_default(),
            cwnd: self.congestion.window(),
            in_flight: self.flight.in_flight(),
            queued: self.send.end() - self.send.una(),
            ..self.stats
        }
    }

    /// The connection is over at once.
    fn finish(&mut self, reason: CloseReason) {
        self.phase = Phase::Closed;
        self.reason = self.reason.or(Some(reason));
        self.flight.forget();
    }

    /// The connection is over, but late packets of the peer are still answered.
    fn linger(&mut self, reason: CloseReason) {
        self.reason = self.reason.or(Some(reason));
        self.phase = Phase::Lingering(self.now.after(self.pto().times(3)));
        self.received.ask();
        self.flight.forget();
    }
}

/// The parameters of a connection's own side.
pub(crate) fn own_params(
    config: &Config,
    id: u32,
    first: (u32, u32),
    receive_buffer: usize,
    nonce: u64,
    cookie: u64,
) -> Params {
    let clamp = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let longest = receive_buffer.saturating_sub(send::MAX_PREFIX);
    Params {
        connection: id,
        first_number: first.0,
        first_offset: first.1,
        receive_buffer: clamp(receive_buffer as u64),
        max_message: clamp(config.max_message.min(longest) as u64),
        idle_timeout_ms: clamp(config.idle_timeout.as_ms()),
        max_ack_delay_us: clamp(config.max_ack_delay.as_us()),
        nonce,
        cookie,
    }
}

/// The low half of a stream offset, for the wire.
const fn wire(offset: u64) -> u32 {
    low(offset)
}
