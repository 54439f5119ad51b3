//! What a user chooses for a connection or an endpoint.

use hal::time::Span;

use crate::wire::header::HEADER;

/// Smallest datagram that the protocol works with: a handshake packet fits.
pub const MIN_DATAGRAM: usize = 128;

/// Choices for one connection. The defaults suit a local network; a serial line or a long path changes
/// [`max_ack_delay`](Self::max_ack_delay) and [`initial_rtt`](Self::initial_rtt).
///
/// ```
/// use hal::time::Span;
/// let config = net_core::Config { keep_alive: Some(Span::secs(1)), ..net_core::Config::default() };
/// assert_eq!(config.max_datagram, 1200);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Largest datagram sent, in bytes, header included; the link's own limit counts too. 1200 passes every path of
    /// the Internet (RFC 9000, section 14).
    pub max_datagram: usize,
    /// Largest message accepted, in bytes; cut down to what the receive buffer holds.
    pub max_message: usize,
    /// Silence after which the peer counts as gone. The smaller of both sides' values holds. At least three probe
    /// timeouts are waited in any case.
    pub idle_timeout: Span,
    /// Silence after which a ping is sent, so that idle connections stay and vanished peers are noticed.
    pub keep_alive: Option<Span>,
    /// How long a handshake is tried.
    pub connect_timeout: Span,
    /// Round trip assumed before the first sample. RFC 9002, 6.2.2: 333 ms.
    pub initial_rtt: Span,
    /// Shortest probe timeout.
    pub min_pto: Span,
    /// Longest probe timeout: how soon after an outage the connection moves again.
    pub max_pto: Span,
    /// How long an acknowledgement may wait for company. The peer is told.
    pub max_ack_delay: Span,
    /// First packet number and stream offset; `None` draws them from the seed. Tests start just below the wrap.
    pub first_numbers: Option<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_datagram: 1200,
            max_message: 64 * 1024,
            idle_timeout: Span::secs(30),
            keep_alive: None,
            connect_timeout: Span::secs(10),
            initial_rtt: Span::ms(333),
            min_pto: Span::ms(10),
            max_pto: Span::secs(4),
            max_ack_delay: Span::ms(5),
            first_numbers: None,
        }
    }
}

impl Config {
    /// The datagram size that a link of `mtu` allows, never below [`MIN_DATAGRAM`].
    pub(crate) fn datagram(&self, mtu: usize) -> usize {
        self.max_datagram.min(mtu).clamp(MIN_DATAGRAM, usize::from(u16::MAX) + HEADER)
    }
}

/// Choices for an [`Endpoint`](crate::Endpoint).
#[cfg(feature = "alloc")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Choices for each connection.
    pub connection: Config,
    /// Whether strangers may connect.
    pub listen: bool,
    /// Connections held at once; further ones are not answered.
    pub max_connections: usize,
    /// Accepted connections that the peer has not confirmed yet; the oldest makes way. 64 bytes each.
    pub max_half_open: usize,
    /// Bytes of the send buffer of each connection: what is unacknowledged and what waits.
    pub send_buffer: usize,
    /// Bytes of the receive buffer of each connection.
    pub receive_buffer: usize,
    /// Packets in flight of each connection; 16 bytes each.
    pub max_in_flight: usize,
}

#[cfg(feature = "alloc")]
impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            connection: Config::default(),
            listen: true,
            max_connections: 4096,
            max_half_open: 256,
            send_buffer: 64 * 1024,
            receive_buffer: 256 * 1024,
            max_in_flight: 512,
        }
    }
}
