//! What a connection tells its user.

use core::fmt;

use hal::time::Span;

/// Something happened on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The handshake is complete; messages can be sent.
    Connected,
    /// At least one message can be read that could not before. Read until there is none: messages that stay are not
    /// announced again.
    MessageReady,
    /// There is room again after [`SendError::Full`].
    Writable,
    /// The connection is over. This is its last event; it comes once the messages that arrived before have been
    /// consumed.
    Closed(CloseReason),
}

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// We closed it, and the peer has everything that was sent.
    Local,
    /// The peer closed it, and everything that it sent is here.
    Peer,
    /// The peer does not know the connection: it has restarted, or gave us up. While a close was under way it may also have
    /// received everything and its last acknowledgements were lost.
    Reset,
    /// Nothing was heard for the idle timeout.
    IdleTimeout,
    /// Nobody answered the handshake in time.
    ConnectTimeout,
    /// The peer broke the protocol: a message longer than agreed.
    Protocol,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "closed by us",
            Self::Peer => "closed by the peer",
            Self::Reset => "unknown to the peer",
            Self::IdleTimeout => "peer is silent",
            Self::ConnectTimeout => "nobody answers",
            Self::Protocol => "peer broke the protocol",
        })
    }
}

/// Why a message was not taken. Nothing of it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// No room now; [`Event::Writable`] will come.
    Full,
    /// Longer than the peer accepts or the send buffer holds; carries the limit in bytes.
    TooLong(usize),
    /// The handshake is not complete yet.
    Connecting,
    /// The connection is closed or closing, or was never there.
    Closed,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("send buffer is full"),
            Self::TooLong(limit) => write!(f, "message is longer than {limit} bytes"),
            Self::Connecting => f.write_str("not connected yet"),
            Self::Closed => f.write_str("connection is closed"),
        }
    }
}

impl core::error::Error for SendError {}

/// A snapshot of a connection's counters and estimates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Packets written for the link.
    pub packets_sent: u64,
    /// Packets of this connection received, duplicates included.
    pub packets_received: u64,
    /// Bytes of those packets.
    pub bytes_sent: u64,
    /// Bytes of those packets.
    pub bytes_received: u64,
    /// Messages taken from the user.
    pub messages_sent: u64,
    /// Messages consumed by the user.
    pub messages_received: u64,
    /// Packets with data that had been sent before.
    pub retransmissions: u64,
    /// Packets taken for lost.
    pub losses: u64,
    /// … that turned out to be late only.
    pub spurious_losses: u64,
    /// Probe timeouts.
    pub probe_timeouts: u64,
    /// Received after packets that were sent later.
    pub out_of_order: u64,
    /// Received twice.
    pub duplicates: u64,
    /// Packets that made no sense in this connection: acknowledged what was never sent, went beyond the credit.
    pub bad: u64,
    /// Pieces not taken for want of room to remember another gap.
    pub refused: u64,
    /// Smoothed round trip.
    pub srtt: Span,
    /// Its mean deviation.
    pub rttvar: Span,
    /// The smallest round trip; zero before the first sample.
    pub min_rtt: Span,
    /// Congestion window in bytes.
    pub cwnd: u32,
    /// Bytes in flight, headers included.
    pub in_flight: u32,
    /// Bytes of messages that are unacknowledged or wait.
    pub queued: u64,
}
