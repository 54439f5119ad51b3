//! Datagrams over UDP, in trains.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hal::link::{Caps, Counters, Ecn, Link, LinkRx, LinkTx, Rx, RxMeta, TxMeta};

use super::OpenError;
use super::inbox::Inbox;
use super::outbox::{LONGEST, Outbox, SEGMENTS};
use crate::sys::socket::{Name, bind, connect, getsockname, option, set_option, socket};

/// How a [`UdpLink`] is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpConfig {
    /// Largest datagram in bytes, [`Caps::mtu`]. Default 1452: what Ethernet carries behind the headers of IPv6 and UDP.
    pub mtu: usize,
    /// Receive buffer of the kernel to ask for, in bytes. Default 4 MiB; the kernel gives less without CAP_NET_ADMIN when
    /// `net.core.rmem_max` is lower ([`UdpLink::receive_buffer`] says what it gave).
    pub receive_buffer: usize,
    /// Messages fetched by one call, 1 to 16, of 64 KiB each. Default 8.
    pub receive_slots: usize,
    /// Bytes that may wait to be sent. Default 256 KiB.
    pub send_buffer: usize,
    /// Send and receive trains (UDP_SEGMENT, UDP_GRO). Default true.
    pub trains: bool,
}

impl Default for UdpConfig {
    fn default() -> Self {
        Self { mtu: 1452, receive_buffer: 4 << 20, receive_slots: 8, send_buffer: 256 << 10, trains: true }
    }
}

/// A UDP socket as a [`Link`]: non-blocking, batched, with trains and congestion bits.
///
/// Bound, it talks to anybody; connected, to one peer, and the kernel drops what others send. Its descriptor is watched by
/// a reactor through [`AsFd`]. A socket of IPv6 serves IPv4 too, whose addresses appear as IPv4.
///
/// Sending: datagrams of equal length that are committed one after the other for one peer travel as one train of up to 64;
/// when the path refuses trains they go one by one, [`Caps::segments`] falls to 1 and the epoch changes. What the kernel
/// has no room for stays staged. What it refuses for good (no route, a firewall, EMSGSIZE) counts as lost.
///
/// Receiving: a packet may be a train ([`RxMeta::stride`]). Datagrams that the kernel had to drop because this process was
/// too slow are counted in [`Counters::rx_lost`].
///
/// Cost: one call a batch; no allocation after opening. Datagrams of 1200 bytes over loopback, sent and received by one
/// thread: 110 ns each in trains, 950 without (x86-64 VM, `cargo test --release -p groundplane-platform-linux --test links
/// -- --ignored --nocapture`; take the ratio).
///
/// # Examples
///
/// ```
/// use hal::link::{LinkRx, LinkTx, TxMeta};
/// use platform_linux::net::{UdpConfig, UdpLink};
///
/// let mut server = UdpLink::bind("127.0.0.1:0".parse().unwrap(), UdpConfig::default())?;
/// let mut client = UdpLink::connect(server.local_addr(), UdpConfig::default())?;
///
/// client.grant(5).unwrap()[..5].copy_from_slice(b"hello");
/// client.commit(TxMeta::new(server.local_addr(), 5));
/// assert!(client.flush());
///
/// assert!(server.advance()); // on loopback it is there at once; elsewhere wait with `Epoll`
/// let got = server.current().unwrap();
/// assert_eq!((&*got.data, got.meta.from), (&b"hello"[..], client.local_addr()));
/// # Ok::<(), platform_linux::net::OpenError>(())
/// ```
#[derive(Debug)]
pub struct UdpLink {
    socket: OwnedFd,
    local: SocketAddr,
    peer: Option<SocketAddr>,
    inbox: Inbox,
    outbox: Outbox,
    caps: Caps,
    counters: Counters,
}

impl UdpLink {
    /// A link that listens on `address`; port 0 lets the kernel choose.
    ///
    /// # Errors
    ///
    /// [`OpenError::AddressInUse`], [`OpenError::NoSuchAddress`], [`OpenError::NotPermitted`] for a port below 1024, or
    /// what else the kernel refuses.
    pub fn bind(address: SocketAddr, config: UdpConfig) -> Result<Self, OpenError> {
        Self::open(address, None, config)
    }

    /// A link to `peer` only, from a port that the kernel chooses.
    ///
    /// # Errors
    ///
    /// [`OpenError::Os`] without a route to the peer, or what else the kernel refuses.
    pub fn connect(peer: SocketAddr, config: UdpConfig) -> Result<Self, OpenError> {
        let any: IpAddr =
            if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        Self::open(SocketAddr::new(any, 0), Some(peer), config)
    }

    fn open(address: SocketAddr, peer: Option<SocketAddr>, config: UdpConfig) -> Result<Self, OpenError> {
        let v6 = address.is_ipv6();
        let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
        let socket = socket(family, libc::SOCK_DGRAM, 0).map_err(OpenError::of("socket"))?;
        let fd = socket.as_fd();
        grow_receive_buffer(fd, config.receive_buffer);
        // Counting overruns is worth no failure.
        let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
        let ecn = ask_for_ecn(fd, v6);
        let trains = config.trains && set_option(fd, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok();
        if config.trains {
            // Without it the kernel cuts the trains before it hands them over.
            let _ = set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1);
        }
        bind(fd, &Name::new(address)).map_err(OpenError::of("bind"))?;
        if let Some(peer) = peer {
            connect(fd, &Name::new(peer)).map_err(OpenError::of("connect"))?;
        }
        let local = getsockname(fd).map_err(OpenError::of("getsockname"))?;
        let mut caps = Caps::new(config.mtu.clamp(1, LONGEST));
        caps.segments = if trains { SEGMENTS } else { 1 };
        caps.ecn = ecn;
        caps.tx_sum = true;
        Ok(Self {
            local: local.address().unwrap_or(address),
            peer,
            inbox: Inbox::new(config.receive_slots, LONGEST + 1),
            outbox: Outbox::new(config.send_buffer, trains, v6),
            caps,
            counters: Counters::default(),
            socket,
        })
    }

    /// Our own address, with the port that the kernel chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The receive buffer that the kernel gave, in bytes of its own accounting (a small datagram costs several times its
    /// length).
    pub fn receive_buffer(&self) -> usize {
        let bytes = option(self.socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF);
        usize::try_from(bytes.unwrap_or(0)).unwrap_or(0)
    }

    /// The socket's name for a peer: a socket of IPv6 wants IPv4 addresses in their mapped form.
    fn name(&self, to: SocketAddr) -> Name {
        if self.local.is_ipv6() { Name::mapped(to) } else { Name::new(to) }
    }
}

impl LinkRx for UdpLink {
    type Addr = SocketAddr;

    fn advance(&mut self) -> bool {
        let more = self.inbox.advance(self.socket.as_fd(), &mut self.counters);
        if more && let Some((got, _)) = self.inbox.current() {
            self.counters.rx += got.datagrams();
        }
        more
    }

    fn current(&mut self) -> Option<Rx<'_, SocketAddr>> {
        let (got, data) = self.inbox.current()?;
        let stride = if got.segment == 0 { data.len() } else { got.segment };
        let mut meta = RxMeta::new(got.from.address()?, stride);
        meta.ecn = Ecn::from_bits(got.tos);
        Some(Rx { meta, data })
    }
}

impl LinkTx for UdpLink {
    type Addr = SocketAddr;

    fn caps(&self) -> Caps {
        self.caps
    }

    fn grant(&mut self, min: usize) -> Option<&mut [u8]> {
        if self.outbox.grant(min).is_none() && min <= LONGEST {
            self.flush();
        }
        self.outbox.grant(min)
    }

    fn commit(&mut self, meta: TxMeta<SocketAddr>) {
        // Port 0 is EINVAL, which a train gets for other reasons.
        let stranger = self.peer.is_some_and(|peer| peer != meta.to) || meta.to.port() == 0;
        let (to, ecn) = (self.name(meta.to), if self.caps.ecn { meta.ecn } else { Ecn::NotEct });
        if stranger || !self.outbox.commit(to, meta.len, meta.stride, ecn) {
            self.counters.tx_lost += 1;
        }
    }

    fn flush(&mut self) -> bool {
        let flushed = self.outbox.flush(self.socket.as_fd(), self.peer.is_some(), &mut self.counters);
        if flushed.trains_refused {
            self.caps.segments = 1;
            self.caps.epoch = self.caps.epoch.wrapping_add(1);
        }
        flushed.all
    }
}

impl Link for UdpLink {
    fn counters(&self) -> Counters {
        self.counters
    }
}

impl AsFd for UdpLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Asks for `bytes`, past the limit of the machine when that is permitted. What the kernel gives is enough either way.
pub(super) fn grow_receive_buffer(fd: BorrowedFd<'_>, bytes: usize) {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    if set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).is_err() {
        let _smaller = set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes);
    }
}

/// Has the congestion bits of received packets delivered; false when the kernel does not do so.
pub(super) fn ask_for_ecn(fd: BorrowedFd<'_>, v6: bool) -> bool {
    // A socket of IPv6 receives IPv4 too, and tells its bits by the option of IPv4.
    let v4_bits = set_option(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1).is_ok();
    v4_bits && (!v6 || set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1).is_ok())
}
