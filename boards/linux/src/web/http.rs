//! A small HTTP/1.1 server over readiness: GET and HEAD, keep-alive, pipelining, streams with back-pressure.
//!
//! One thread serves all connections and never blocks on any: a body that is long (a log file, an export) is produced in
//! pieces, only as fast as its reader takes them, so that a slow reader costs a buffer and not the page. Requests are
//! parsed by `httparse`. Limits that keep a stranger from holding a connection for nothing: [`MAX_HEAD`] bytes of
//! header, [`HEAD_TIME`] to send it, [`IDLE_TIME`] between requests, [`MAX_CONNECTIONS`] at once (then the listener
//! rests until one ends).

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use hal::readiness::{Interest, Key, Readiness};
use hal::time::{Clock, Instant, Span};

/// Longest request head in bytes (RFC 9110, section 5.4 leaves it to the server).
pub(crate) const MAX_HEAD: usize = 8 * 1024;
/// From the first byte of a head to its last.
pub(crate) const HEAD_TIME: Span = Span::secs(10);
/// Without a request, or without progress of an answer.
pub(crate) const IDLE_TIME: Span = Span::secs(60);
/// Connections at once.
pub(crate) const MAX_CONNECTIONS: usize = 256;
/// What a stream is asked to produce at a time.
const PIECE: usize = 32 * 1024;
/// Pieces written for one connection before the next gets its turn.
const PIECES_A_TURN: usize = 8;

const LISTENER: Key = Key(u32::MAX);

/// A request, as the routes see it. The body of a GET has no meaning and is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// Path without the query, percent-decoded.
    pub path: String,
    query: String,
    /// `If-None-Match`, if sent.
    pub if_none_match: Option<String>,
}

impl Request {
    /// The value of a query parameter, percent-decoded; the first if it is there twice.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        self.query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then(|| percent_decoded(&value.replace('+', " "))).flatten()
        })
    }
}

/// Produces the next piece of a body at the end of the buffer; false after the last.
pub(crate) type Stream = Box<dyn FnMut(&mut Vec<u8>) -> io::Result<bool> + Send>;

/// What an answer carries.
pub(crate) enum Body {
    /// All of it.
    Bytes(Cow<'static, [u8]>),
    /// Pieces whose total is known.
    Sized(u64, Stream),
    /// Pieces until the stream ends (sent chunked).
    Stream(Stream),
}

/// An answer.
pub(crate) struct Response {
    /// Status code with its phrase.
    pub status: &'static str,
    /// Media type.
    pub content_type: &'static str,
    /// More header lines, each ended by CRLF.
    pub headers: String,
    /// The body; left out for HEAD.
    pub body: Body,
}

impl Response {
    /// 200 with all of the body.
    pub(crate) fn ok(content_type: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        Self { status: "200 OK", content_type, headers: String::new(), body: Body::Bytes(body.into()) }
    }

    /// An error in words.
    pub(crate) fn error(status: &'static str, text: &str) -> Self {
        let body = format!("{status}\n{text}\n").into_bytes();
        Self { status, ..Self::ok("text/plain; charset=utf-8", body) }
    }
}

/// The routes: what answers a request.
pub(crate) type Routes = Box<dyn FnMut(&Request) -> Response + Send>;

/// The server; [`turn`](Self::turn) does what there is to do and sleeps when that is nothing.
pub(crate) struct Server<R> {
    listener: TcpListener,
    readiness: R,
    connections: Vec<Slot>,
    live: usize,
    resting: bool,
    routes: Routes,
}

#[derive(Default)]
struct Slot {
    generation: u16,
    connection: Option<Connection>,
}

struct Connection {
    socket: TcpStream,
    input: Vec<u8>,
    /// Since when an incomplete head has been coming.
    head_since: Option<Instant>,
    progress: Instant,
    output: Vec<u8>,
    sent: usize,
    stream: Option<(Stream, Framing)>,
    close_after: bool,
    read_closed: bool,
    wants_write: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Plain,
    Chunked,
}

enum Fate {
    Keep,
    Close,
}

impl<R: for<'a> Readiness<Source<'a> = BorrowedFd<'a>>> Server<R>
where
    R::Error: std::fmt::Debug,
{
    /// Listens at `address`.
    pub(crate) fn bind(address: SocketAddr, mut readiness: R, routes: Routes) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        readiness
            .watch(listener.as_fd(), LISTENER, Interest::READ)
            .map_err(|error| io::Error::other(format!("cannot watch the listener: {error:?}")))?;
        Ok(Self { listener, readiness, connections: Vec::new(), live: 0, resting: false, routes })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until an event, at most for `at_most`.
    pub(crate) fn turn(&mut self, clock: &impl Clock, at_most: Span) {
        let now = clock.now();
        let mut events = Vec::new();
        let busy = self.connections.iter().flatten_connections().any(Connection::has_turn_left);
        let until = now.after(if busy { Span::ZERO } else { at_most });
        self.readiness.park(Some(until), &mut || true, &mut |key, _ready| events.push(key));
        let now = clock.now();
        for key in events {
            if key == LISTENER {
                self.accept(now);
            } else {
                self.serve(key, now);
            }
        }
        for index in 0..self.connections.len() {
            let Some(slot) = self.connections.get(index) else { break };
            let Some(connection) = &slot.connection else { continue };
            let key = key_of(index, slot.generation);
            if connection.expired(now) {
                self.close(key);
            } else if connection.has_turn_left() {
                self.serve(key, now);
            }
        }
        if self.resting && self.live < MAX_CONNECTIONS {
            self.resting = false;
            let _ = self.readiness.watch(self.listener.as_fd(), LISTENER, Interest::READ);
            self.accept(now);
        }
    }

    fn accept(&mut self, now: Instant) {
        loop {
            if self.live >= MAX_CONNECTIONS {
                // A level-triggered listener that nobody accepts from would spin: stop watching it instead.
                self.resting = true;
                self.readiness.forget(self.listener.as_fd(), LISTENER);
                return;
            }
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(_) => {
                    // Descriptors or memory are short: rest until a connection has ended.
                    self.resting = self.live > 0;
                    if self.resting {
                        self.readiness.forget(self.listener.as_fd(), LISTENER);
                    }
                    return;
                }
            };
            if socket.set_nonblocking(true).is_err() {
                continue;
            }
            let _ = socket.set_nodelay(true);
            let index = match self.connections.iter().position(|slot| slot.connection.is_none()) {
                Some(index) => index,
                None => {
                    self.connections.push(Slot::default());
                    self.connections.len() - 1
                }
            };
            let Some(slot) = self.connections.get_mut(index) else { return };
            slot.generation = slot.generation.wrapping_add(1);
            let key = key_of(index, slot.generation);
            if self.readiness.watch(socket.as_fd(), key, Interest::READ).is_ok() {
                slot.connection = Some(Connection::new(socket, now));
                self.live += 1;
            }
        }
    }

    fn serve(&mut self, key: Key, now: Instant) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        match connection.serve(now, &mut self.routes) {
            Fate::Close => self.close(key),
            Fate::Keep => {
                let wants_write = connection.sent < connection.output.len() || connection.stream.is_some();
                if wants_write != connection.wants_write {
                    connection.wants_write = wants_write;
                    // While an answer waits for room, requests behind it wait too: that is the back-pressure.
                    let interest = if wants_write { Interest::WRITE } else { Interest::READ };
                    let _ = self.readiness.watch(connection.socket.as_fd(), key, interest);
                }
            }
        }
    }

    fn close(&mut self, key: Key) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        self.readiness.forget(connection.socket.as_fd(), key);
        if let Some(slot) = self.connections.get_mut((key.0 & 0xffff) as usize) {
            slot.connection = None;
            self.live -= 1;
        }
    }
}

trait FlattenConnections<'a> {
    fn flatten_connections(self) -> impl Iterator<Item = &'a Connection>;
}
impl<'a, I: Iterator<Item = &'a Slot>> FlattenConnections<'a> for I {
    fn flatten_connections(self) -> impl Iterator<Item = &'a Connection> {
        self.filter_map(|slot| slot.connection.as_ref())
    }
}

/// Slot number below, generation above: an event of a connection that has ended finds nobody.
fn key_of(index: usize, generation: u16) -> Key {
    Key(u32::from(generation) << 16 | u32::try_from(index & 0xffff).unwrap_or(0))
}

fn find(connections: &mut [Slot], key: Key) -> Option<&mut Connection> {
    let slot = connections.get_mut((key.0 & 0xffff) as usize)?;
    if u32::from(slot.generation) == key.0 >> 16 { slot.connection.as_mut() } else { None }
}

impl Connection {
    fn new(socket: TcpStream, now: Instant) -> Self {
        Self {
            socket,
            input: Vec::new(),
            head_since: None,
            progress: now,
            output: Vec::new(),
            sent: 0,
            stream: None,
            close_after: false,
            read_closed: false,
            wants_write: false,
        }
    }

    fn expired(&self, now: Instant) -> bool {
        self.head_since.is_some_and(|since| now.since(since) > HEAD_TIME)
            || now.since(self.progress) > IDLE_TIME
    }

    /// The last turn ended by its budget, not because the socket was full.
    fn has_turn_left(&self) -> bool {
        self.stream.is_some() && self.sent == self.output.len()
    }

    fn serve(&mut self, now: Instant, routes: &mut Routes) -> Fate {
        for _ in 0..PIECES_A_TURN {
            match self.write_out(now) {
                Ok(true) => {}
                Ok(false) => return Fate::Keep,
                Err(_) => return Fate::Close,
            }
            if self.stream.is_some() {
                if self.next_piece().is_err() {
                    return Fate::Close; // the length or the last chunk is missing: the reader sees that it is cut
                }
                continue;
            }
            if self.close_after {
                return Fate::Close;
            }
            if !self.next_request(routes) {
                match self.read_in(now) {
                    Ok(true) => {}
                    Ok(false) => return Fate::Keep,
                    Err(_) => return Fate::Close,
                }
            }
        }
        Fate::Keep
    }

    /// True when nothing is left to send.
    fn write_out(&mut self, now: Instant) -> io::Result<bool> {
        while let Some(rest) = self.output.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.socket.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.sent += n;
                    self.progress = now;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.sent = 0;
        Ok(true)
    }

    fn next_piece(&mut self) -> io::Result<()> {
        let Some((mut stream, framing)) = self.stream.take() else { return Ok(()) };
        let more = match framing {
            Framing::Plain => stream(&mut self.output)?,
            Framing::Chunked => {
                let mut piece = Vec::with_capacity(PIECE);
                let more = stream(&mut piece)?;
                if !piece.is_empty() {
                    write!(self.output, "{:x}\r\n", piece.len())?;
                    self.output.extend_from_slice(&piece);
                    self.output.extend_from_slice(b"\r\n");
                }
                if !more {
                    self.output.extend_from_slice(b"0\r\n\r\n");
                }
                more
            }
        };
        if more {
            self.stream = Some((stream, framing));
        }
        Ok(())
    }

    /// True when something was read.
    fn read_in(&mut self, now: Instant) -> io::Result<bool> {
        if self.read_closed {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut chunk = [0; 4096];
        loop {
            match self.socket.read(&mut chunk) {
                Ok(0) => {
                    self.read_closed = true;
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(n) => {
                    self.input.extend_from_slice(chunk.get(..n).unwrap_or(&[]));
                    self.head_since.get_or_insert(now);
                    self.progress = now;
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Answers the request at the front of the input; false when it is not whole yet.
    fn next_request(&mut self, routes: &mut Routes) -> bool {
        let (head, used) = match parse(&self.input) {
            Parsed::Partial if self.input.len() < MAX_HEAD => return false,
            Parsed::Partial => {
                self.refuse("431 Request Header Fields Too Large", "The request head is longer than 8 KiB.");
                return true;
            }
            Parsed::Bad(status, text) => {
                self.refuse(status, text);
                return true;
            }
            Parsed::Head(head, used) => (head, used),
        };
        self.input.drain(..used);
        self.head_since = None;
        self.close_after |= head.close;
        let response = match &head.request {
            Some(request) => routes(request),
            None => Response::error("400 Bad Request", "The path is not valid."),
        };
        self.answer(response, head.head_only);
        true
    }

    fn refuse(&mut self, status: &'static str, text: &str) {
        self.input.clear();
        self.close_after = true;
        self.answer(Response::error(status, text), false);
    }

    fn answer(&mut self, response: Response, head_only: bool) {
        let connection = if self.close_after { "close" } else { "keep-alive" };
        let length = match &response.body {
            Body::Bytes(bytes) => format!("Content-Length: {}\r\n", bytes.len()),
            Body::Sized(len, _) => format!("Content-Length: {len}\r\n"),
            Body::Stream(_) => "Transfer-Encoding: chunked\r\n".to_owned(),
        };
        let head = format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\n{length}Connection: {connection}\r\n\
             Content-Security-Policy: default-src 'self'\r\nX-Content-Type-Options: nosniff\r\n{}\r\n",
            response.status, response.content_type, response.headers
        );
        self.output.extend_from_slice(head.as_bytes());
        if head_only {
            return;
        }
        match response.body {
            Body::Bytes(bytes) => self.output.extend_from_slice(&bytes),
            Body::Sized(_, stream) => self.stream = Some((stream, Framing::Plain)),
            Body::Stream(stream) => self.stream = Some((stream, Framing::Chunked)),
        }
    }
}

struct Head {
    request: Option<Request>,
    head_only: bool,
    close: bool,
}

enum Parsed {
    Partial,
    Bad(&'static str, &'static str),
    Head(Head, usize),
}

fn parse(input: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let used = match request.parse(input) {
        Ok(httparse::Status::Complete(used)) if used <= MAX_HEAD => used,
        Ok(_) => return Parsed::Partial,
        Err(httparse::Error::TooManyHeaders) => {
            return Parsed::Bad("431 Request Header Fields Too Large", "More than 64 header lines.");
        }
        Err(_) => return Parsed::Bad("400 Bad Request", "This is not HTTP/1.1."),
    };
    let value = |name: &str| {
        let header = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        header.and_then(|header| core::str::from_utf8(header.value).ok()).map(str::trim)
    };
    // A body would have to be skipped exactly, or the next request could be smuggled in it (RFC 9112, section 11.2).
    if value("transfer-encoding").is_some() || value("content-length").is_some_and(|length| length != "0") {
        return Parsed::Bad("413 Content Too Large", "Requests with a body are not taken.");
    }
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Parsed::Bad("405 Method Not Allowed", "Only GET and HEAD."),
    };
    let (path, query) = {
        let target = request.path.unwrap_or("/");
        target.split_once('?').unwrap_or((target, ""))
    };
    let wish = value("connection").unwrap_or("");
    let close = if request.version == Some(0) {
        !wish.eq_ignore_ascii_case("keep-alive")
    } else {
        wish.eq_ignore_ascii_case("close")
    };
    let request = percent_decoded(path).filter(|path| path.starts_with('/')).map(|path| Request {
        path,
        query: query.to_owned(),
        if_none_match: value("if-none-match").map(str::to_owned),
    });
    Parsed::Head(Head { request, head_only, close }, used)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter();
    while let Some(byte) = rest.next() {
        if *byte == b'%' {
            let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(*byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(input: &str) -> Head {
        match parse(input.as_bytes()) {
            Parsed::Head(head, used) => {
                assert_eq!(used, input.len());
                head
            }
            Parsed::Partial => panic!("partial"),
            Parsed::Bad(status, _) => panic!("{status}"),
        }
    }

    fn refused(input: &str) -> &'static str {
        match parse(input.as_bytes()) {
            Parsed::Bad(status, _) => &status[..3],
            Parsed::Partial => "partial",
            Parsed::Head(..) => "taken",
        }
    }

    #[test]
    fn path_and_query_are_decoded() {
        let request =
            whole("GET /log/a%20b?from=1&name=x+y%21&from=2 HTTP/1.1\r\nHost: a\r\n\r\n").request.unwrap();
        assert_eq!(request.path, "/log/a b");
        assert_eq!(request.query("from").as_deref(), Some("1"));
        assert_eq!(request.query("name").as_deref(), Some("x y!"));
        assert_eq!(request.query("absent"), None);
    }

    #[test]
    fn a_request_split_at_any_byte_is_partial_until_its_end() {
        let request = "GET /api/state HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n";
        for end in 0..request.len() {
            assert_eq!(refused(&request[..end]), "partial", "{:?}", &request[..end]);
        }
        assert!(!whole(request).close);
    }

    #[test]
    fn bodies_and_other_methods_are_refused() {
        assert_eq!(refused("POST / HTTP/1.1\r\n\r\n"), "405");
        assert_eq!(refused("GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"), "413");
        assert_eq!(refused("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), "413");
        assert_eq!(refused("nonsense\r\n\r\n"), "400");
    }

    #[test]
    fn old_clients_close_unless_they_ask_to_stay() {
        assert!(whole("GET / HTTP/1.0\r\n\r\n").close);
        assert!(!whole("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").close);
        assert!(whole("GET / HTTP/1.1\r\nConnection: close\r\n\r\n").close);
    }

    #[test]
    fn broken_escapes_are_no_path() {
        assert!(whole("GET /%zz HTTP/1.1\r\n\r\n").request.is_none());
        assert!(whole("GET /%f HTTP/1.1\r\n\r\n").request.is_none());
        assert!(whole("GET /%ff HTTP/1.1\r\n\r\n").request.is_none(), "not UTF-8");
    }
}
