//! Sockets: options, names, and batches of messages with their control data.
//!
//! Names and control messages are built and read as bytes, with the layout of the kernel's headers, so that only the calls
//! themselves are unsafe. The tests hold the layout against `libc`.
#![allow(unsafe_code, reason = "raw system calls on sockets")]

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use core::ptr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{Errno, check, owned_fd};

/// Messages that one call receives or sends at most.
pub(crate) const BATCH: usize = 16;

/// `int socket(int domain, int type, int protocol)`: non-blocking, closed on exec.
///
/// # Errors
///
/// The errno of the call: EPERM or EACCES for raw sockets without privilege, EAFNOSUPPORT, EMFILE.
pub(crate) fn socket(domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes integers only.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, protocol) };
    // SAFETY: the kernel has just made this descriptor and nobody else knows it.
    unsafe { owned_fd(fd) }
}

/// `int bind(int sockfd, const struct sockaddr *addr, socklen_t addrlen)`.
///
/// # Errors
///
/// The errno of the call: EADDRINUSE, EADDRNOTAVAIL, EACCES.
pub(crate) fn bind(fd: BorrowedFd<'_>, name: &Name) -> Result<(), Errno> {
    // SAFETY: the first `len` bytes of the name are readable during the call.
    let answer = unsafe { libc::bind(fd.as_raw_fd(), ptr::from_ref(&name.bytes).cast(), name.len) };
    check(answer).map(drop)
}

/// `int connect(int sockfd, const struct sockaddr *addr, socklen_t addrlen)`; for datagrams it does not wait.
///
/// # Errors
///
/// The errno of the call: ENETUNREACH, EACCES, EINPROGRESS for streams.
pub(crate) fn connect(fd: BorrowedFd<'_>, name: &Name) -> Result<(), Errno> {
    // SAFETY: the first `len` bytes of the name are readable during the call.
    let answer = unsafe { libc::connect(fd.as_raw_fd(), ptr::from_ref(&name.bytes).cast(), name.len) };
    check(answer).map(drop)
}

/// `int getsockname(int sockfd, struct sockaddr *addr, socklen_t *addrlen)`.
///
/// # Errors
///
/// The errno of the call: ENOBUFS only, for an open socket.
pub(crate) fn getsockname(fd: BorrowedFd<'_>) -> Result<Name, Errno> {
    let mut name = Name::EMPTY;
    let mut len = NAME_ROOM;
    // SAFETY: the name is writable for `len` bytes and the kernel writes no more.
    let answer =
        unsafe { libc::getsockname(fd.as_raw_fd(), ptr::from_mut(&mut name.bytes).cast(), &raw mut len) };
    check(answer)?;
    name.len = len.min(NAME_ROOM);
    Ok(name)
}

/// `int setsockopt(int sockfd, int level, int optname, const void *optval, socklen_t optlen)` for an integer.
///
/// # Errors
///
/// The errno of the call: ENOPROTOOPT for an option that the kernel does not know, EPERM.
#[doc(alias = "setsockopt")]
pub(crate) fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> Result<(), Errno> {
    let value = value.to_ne_bytes();
    // SAFETY: the value is readable for its length during the call.
    let answer = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), 4) };
    check(answer).map(drop)
}

/// `int getsockopt(int sockfd, int level, int optname, void *optval, socklen_t *optlen)` for an integer.
///
/// # Errors
///
/// The errno of the call: ENOPROTOOPT for an option that the kernel does not know.
#[doc(alias = "getsockopt")]
pub(crate) fn option(fd: BorrowedFd<'_>, level: i32, name: i32) -> Result<i32, Errno> {
    let mut value = 0_i32;
    let mut len: libc::socklen_t = 4;
    // SAFETY: the value is writable for `len` bytes.
    let answer =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len) };
    check(answer).map(|_| value)
}

/// What came with a received message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    /// Bytes in the slot.
    pub(crate) len: usize,
    /// Who sent it.
    pub(crate) from: Name,
    /// Length of the datagrams that the kernel merged (UDP_GRO); 0 for a single one.
    pub(crate) segment: usize,
    /// The TOS or traffic class byte; 0 when it was not asked for.
    pub(crate) tos: u8,
    /// It was longer than the slot, and its end is lost.
    pub(crate) truncated: bool,
    /// Messages that this socket has lost for want of buffer, modulo 2^32 (SO_RXQ_OVFL).
    pub(crate) overruns: Option<u32>,
}

impl Received {
    pub(crate) const EMPTY: Self =
        Self { len: 0, from: Name::EMPTY, segment: 0, tos: 0, truncated: false, overruns: None };

    /// How many datagrams the kernel has merged into this message.
    pub(crate) fn datagrams(&self) -> u64 {
        if self.segment == 0 { 1 } else { self.len.div_ceil(self.segment).max(1) as u64 }
    }
}

/// `int recvmmsg(int sockfd, struct mmsghdr *msgvec, unsigned int vlen, int flags, struct timespec *timeout)`: receives
/// into slots of `slot` bytes at the front of `memory`, as many as there are slots or places in `out`. Never waits.
///
/// # Errors
///
/// The errno of the call: EAGAIN when nothing is there, ECONNREFUSED for an ICMP error that came earlier.
pub(crate) fn recvmmsg(
    fd: BorrowedFd<'_>,
    memory: &mut [u8],
    slot: usize,
    out: &mut [Received; BATCH],
) -> Result<usize, Errno> {
    let mut names = [Name::EMPTY; BATCH];
    let mut controls = [Control::EMPTY; BATCH];
    let mut vectors = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
    let mut headers = no_headers();
    let slots = memory.chunks_exact_mut(slot.max(1));
    let mut count = 0_u32;
    let parts = names.iter_mut().zip(&mut controls).zip(vectors.iter_mut().zip(slots));
    for (header, ((name, control), (vector, slot))) in headers.iter_mut().zip(parts) {
        *vector = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
        header.msg_hdr.msg_name = ptr::from_mut(&mut name.bytes).cast();
        header.msg_hdr.msg_namelen = NAME_ROOM;
        header.msg_hdr.msg_iov = ptr::from_mut(vector);
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = ptr::from_mut(&mut control.bytes).cast();
        header.msg_hdr.msg_controllen = CONTROL_ROOM;
        count += 1;
    }
    // SAFETY: the first `count` headers point at names, controls and vectors above and at disjoint slots of `memory`, all
    // writable for the lengths given and alive until the call is over. The timeout is null.
    let found = unsafe {
        libc::recvmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT, ptr::null_mut())
    };
    let found = usize::try_from(check(found)?).unwrap_or(0);
    let parts = headers.iter().zip(names.iter().zip(&controls));
    for (out, (header, (name, control))) in out.iter_mut().zip(parts).take(found) {
        *out = Received {
            len: header.msg_len as usize,
            from: Name { bytes: name.bytes, len: header.msg_hdr.msg_namelen.min(NAME_ROOM) },
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            ..Received::EMPTY
        };
        #[allow(clippy::unnecessary_cast, reason = "the type differs between C libraries")]
        control.read(header.msg_hdr.msg_controllen as usize, out);
    }
    Ok(found.min(BATCH))
}

/// A message to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) bytes: &'a [u8],
    /// The destination; `None` for the peer of a connected socket.
    pub(crate) to: Option<&'a Name>,
    /// The kernel cuts the bytes into datagrams of this length (UDP_SEGMENT); 0 leaves them whole.
    pub(crate) segment: u16,
    /// The TOS or traffic class byte; 0 leaves the socket's.
    pub(crate) tos: u8,
    /// The traffic class is that of IPv6.
    pub(crate) v6: bool,
}

impl Outgoing<'_> {
    pub(crate) const EMPTY: Self = Self { bytes: &[], to: None, segment: 0, tos: 0, v6: false };
}

/// `int sendmmsg(int sockfd, struct mmsghdr *msgvec, unsigned int vlen, int flags)`: sends the first [`BATCH`] messages and
/// answers how many the kernel took. Never waits, raises no SIGPIPE.
///
/// # Errors
///
/// What the kernel says of the *first* message; when a later one is refused the count says so, and the next call has its
/// errno.
pub(crate) fn sendmmsg(fd: BorrowedFd<'_>, messages: &[Outgoing<'_>]) -> Result<usize, Errno> {
    let mut controls = [Control::EMPTY; BATCH];
    let mut vectors = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
    let mut headers = no_headers();
    let mut count = 0_u32;
    let parts = controls.iter_mut().zip(&mut vectors);
    for (header, ((control, vector), message)) in headers.iter_mut().zip(parts.zip(messages)) {
        *vector =
            libc::iovec { iov_base: message.bytes.as_ptr().cast_mut().cast(), iov_len: message.bytes.len() };
        if let Some(name) = message.to {
            header.msg_hdr.msg_name = ptr::from_ref(&name.bytes).cast_mut().cast();
            header.msg_hdr.msg_namelen = name.len;
        }
        header.msg_hdr.msg_iov = ptr::from_mut(vector);
        header.msg_hdr.msg_iovlen = 1;
        let used = control.write(message);
        if used > 0 {
            header.msg_hdr.msg_control = ptr::from_mut(&mut control.bytes).cast();
            header.msg_hdr.msg_controllen = used;
        }
        count += 1;
    }
    // SAFETY: the first `count` headers point at the messages' names and bytes, which are borrowed, and at controls and
    // vectors above; the kernel only reads them, and writes `msg_len` of the headers, during the call.
    let taken = unsafe {
        libc::sendmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    check(taken).map(|taken| usize::try_from(taken).unwrap_or(0))
}

fn no_headers() -> [libc::mmsghdr; BATCH] {
    // SAFETY: the structure is made of integers and raw pointers, for which all bits zero is a value.
    unsafe { core::mem::zeroed() }
}

/// A socket's name as the kernel writes it (`struct sockaddr_in`, `sockaddr_in6`, `sockaddr_ll`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(align(8))]
pub(crate) struct Name {
    bytes: [u8; NAME_ROOM as usize],
    len: libc::socklen_t,
}

/// The longest name that we use: `sizeof(struct sockaddr_in6)`.
const NAME_ROOM: libc::socklen_t = 28;

impl Name {
    pub(crate) const EMPTY: Self = Self { bytes: [0; 28], len: 0 };

    /// The name of `address`: family, port, then for IPv4 the address, for IPv6 flow, address and scope.
    pub(crate) fn new(address: SocketAddr) -> Self {
        let mut name = Self::EMPTY;
        let port = address.port().to_be_bytes();
        match address {
            SocketAddr::V4(v4) => {
                name.put(0, &family(libc::AF_INET));
                name.put(2, &port);
                name.put(4, &v4.ip().octets());
                name.len = 16;
            }
            SocketAddr::V6(v6) => {
                name.put(0, &family(libc::AF_INET6));
                name.put(2, &port);
                name.put(4, &v6.flowinfo().to_be_bytes());
                name.put(8, &v6.ip().octets());
                name.put(24, &v6.scope_id().to_ne_bytes());
                name.len = 28;
            }
        }
        name
    }

    /// The same for a socket of the other family: IPv4 as an IPv4-mapped address (RFC 4291, section 2.5.5.2).
    pub(crate) fn mapped(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => Self::new(SocketAddr::new(IpAddr::V6(v4.ip().to_ipv6_mapped()), v4.port())),
            SocketAddr::V6(_) => Self::new(address),
        }
    }

    /// The address, IPv4-mapped ones as IPv4; `None` for another family.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        let port = u16::from_be_bytes(self.take(2)?);
        if self.take(0)? == family(libc::AF_INET) && self.len >= 16 {
            let ip = Ipv4Addr::from(self.take::<4>(4)?);
            return Some(SocketAddr::V4(SocketAddrV4::new(ip, port)));
        }
        if self.take(0)? == family(libc::AF_INET6) && self.len >= 28 {
            let ip = Ipv6Addr::from(self.take::<16>(8)?);
            if let Some(v4) = ip.to_ipv4_mapped() {
                return Some(SocketAddr::V4(SocketAddrV4::new(v4, port)));
            }
            let (flow, scope) = (u32::from_be_bytes(self.take(4)?), u32::from_ne_bytes(self.take(24)?));
            return Some(SocketAddr::V6(SocketAddrV6::new(ip, port, flow, scope)));
        }
        None
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    fn take<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..)?.first_chunk().copied()
    }
}

fn family(family: i32) -> [u8; 2] {
    u16::try_from(family).unwrap_or(0).to_ne_bytes()
}

/// Room for four control messages of up to a word; more than we ask for.
const CONTROL_ROOM: usize = 4 * (HEADER + WORD);
/// `sizeof(struct cmsghdr)`: length as a word, level, type.
const HEADER: usize = WORD + 8;
/// What control messages are aligned to (`CMSG_ALIGN`).
const WORD: usize = size_of::<usize>();

/// Control messages, written and read as bytes: length (with the header), level, type, data, padding to a word.
#[derive(Clone, Copy)]
#[repr(align(8))]
struct Control {
    bytes: [u8; CONTROL_ROOM],
}

impl Control {
    const EMPTY: Self = Self { bytes: [0; CONTROL_ROOM] };

    /// Writes what `message` asks for and answers the bytes used.
    fn write(&mut self, message: &Outgoing<'_>) -> usize {
        let mut used = 0;
        if message.segment != 0 {
            used = self.push(used, libc::SOL_UDP, libc::UDP_SEGMENT, &message.segment.to_ne_bytes());
        }
        if message.tos != 0 {
            let class = i32::from(message.tos).to_ne_bytes();
            used = if message.v6 {
                self.push(used, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &class)
            } else {
                self.push(used, libc::IPPROTO_IP, libc::IP_TOS, &class)
            };
        }
        used
    }

    fn push(&mut self, at: usize, level: i32, kind: i32, data: &[u8]) -> usize {
        let len = HEADER + data.len();
        let end = at + len.next_multiple_of(WORD);
        let Some(place) = self.bytes.get_mut(at..end) else { return at };
        let parts = [&len.to_ne_bytes()[..], &level.to_ne_bytes(), &kind.to_ne_bytes(), data];
        for (to, from) in place.iter_mut().zip(parts.iter().copied().flatten()) {
            *to = *from;
        }
        end
    }

    /// Reads the first `len` bytes into `out`; what is not known is skipped.
    fn read(&self, len: usize, out: &mut Received) {
        let mut rest = self.bytes.get(..len).unwrap_or(&self.bytes);
        while let Some((header, _)) = rest.split_first_chunk::<HEADER>() {
            let (size, kind) = header.split_at(WORD);
            let size = size.first_chunk().map_or(0, |bytes| usize::from_ne_bytes(*bytes));
            let Some(data) = rest.get(HEADER..size) else { return };
            let level = kind.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
            let kind = kind.last_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
            let int = data.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
            match (level, kind) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    out.segment = int.and_then(|int| usize::try_from(int).ok()).unwrap_or(0);
                }
                // ip(7): IP_TOS arrives as one byte.
                (libc::IPPROTO_IP, libc::IP_TOS) => out.tos = data.first().copied().unwrap_or(0),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    out.tos = int.and_then(|int| u8::try_from(int).ok()).unwrap_or(0);
                }
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => out.overruns = int.map(i32::cast_unsigned),
                _ => {}
            }
            let next = size.next_multiple_of(WORD);
            rest = rest.get(next..).unwrap_or(&[]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_those_of_the_headers() {
        assert_eq!(HEADER, size_of::<libc::cmsghdr>());
        assert_eq!(NAME_ROOM as usize, size_of::<libc::sockaddr_in6>());
        for len in [1, 2, 4, 8] {
            // SAFETY: pure arithmetic on a length.
            let space = unsafe { libc::CMSG_SPACE(len) };
            assert_eq!(HEADER + (len as usize).next_multiple_of(WORD), space as usize, "{len}");
        }
    }

    #[test]
    fn names_survive_the_way_through_the_kernels_layout() {
        for text in ["192.0.2.7:4711", "[2001:db8::1]:9", "[fe80::1%3]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Name::new(address).address(), Some(address));
            assert_eq!(Name::mapped(address).address(), Some(address));
        }
        assert_eq!(Name::EMPTY.address(), None);
    }

    #[test]
    fn control_messages_that_lie_about_their_length_are_skipped() {
        let mut control = Control::EMPTY;
        let sent = Outgoing { segment: 1200, tos: 2, ..Outgoing::EMPTY };
        assert_eq!(control.write(&sent), 2 * (HEADER + WORD));
        for len in [0, 1, HEADER - 1, HEADER + 1, usize::MAX / 2, usize::MAX] {
            let mut broken = control;
            for (to, from) in broken.bytes.iter_mut().zip(len.to_ne_bytes()) {
                *to = from;
            }
            let mut out = Received::EMPTY;
            broken.read(CONTROL_ROOM, &mut out);
            broken.read(usize::MAX, &mut out);
        }
    }
}
