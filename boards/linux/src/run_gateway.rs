//! The gateway as a Linux process: one thread for packets, log and acknowledgements, one for the page, and an embedded
//! node beside them.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gateway::log::{LogConfig, LogState};
use gateway::snapshot::HostFacts;
use gateway::{Gateway, GatewayConfig, GatewayEvent, WallTime};
use hal::link::Link;
use hal::readiness::{Interest, Key, Park, Readiness};
use hal::time::{Clock, Instant, Span};
use net_core::EndpointConfig;
use node::app::Keep;
use platform_linux::clock::{MonotonicClock, wall_clock};
use platform_linux::directory::{Directory, DirectoryFile};
use platform_linux::net::{UdpConfig, UdpLink};
use platform_linux::readiness::Epoll;
use platform_linux::signal::{Signal, SignalFd, SignalSet};

use crate::GatewayArgs;
use crate::run_node::{self, NodeConfig, NodeSummary};
use crate::web::http::Server;
use crate::web::routes::routes;
use crate::web::{Board, HistoryChannel, HistoryPoint, HistoryQuestion, HistoryView};

type Running = Gateway<std::net::SocketAddr, Directory>;

const UDP: Key = Key(0);
const SIGNALS: Key = Key(1);
/// Time between two snapshots for the page.
const PUBLISH: Span = Span::ms(500);
/// How long the log may take to close.
const DRAIN: Span = Span::secs(5);
const BACKEND: &str = "pwrite and fdatasync";

/// Runs a gateway until a signal or its time is over.
pub(crate) fn run(args: &GatewayArgs) -> io::Result<()> {
    let set = SignalSet::EMPTY.with(Signal::INT).with(Signal::TERM).with(Signal::HUP).with(Signal::USR1);
    let signals = SignalFd::install(set).map_err(io::Error::other)?;
    let explain =
        |what: String| move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    let volume =
        Directory::open(&args.dir).map_err(explain(format!("log directory {}", args.dir.display())))?;
    let link = UdpLink::bind(args.listen, UdpConfig::default())
        .map_err(|error| io::Error::other(format!("cannot listen for nodes at {}: {error}", args.listen)))?;
    let board = Arc::new(Board::default());
    let server = Server::bind(args.page, Epoll::new()?, routes(Arc::clone(&board), args.dir.clone()))
        .map_err(explain(format!("cannot serve the page at {} (try --page 127.0.0.1:0)", args.page)))?;
    let (page, nodes_at) = (server.address()?, link.local_addr());
    if args.json {
        println!(
            "{}",
            serde_json::json!({"event": "started", "page": format!("http://{page}/"), "listen": nodes_at.to_string()})
        );
    } else {
        println!("page      http://{page}/");
        println!("nodes     groundplane node --gateway {nodes_at}   (UDP)");
        println!("log       {} ({BACKEND})", args.dir.display());
        if io::stdout().is_terminal() {
            println!("Ctrl-C drains and stops, a second one stops at once.");
        }
    }

    let (stop_node, stop_page) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let mut server = server;
        let stopping = &stop_page;
        scope.spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                server.turn(&MonotonicClock, Span::ms(100));
            }
        });
        let node = (!args.no_node).then(|| {
            let config = NodeConfig {
                gateway: nodes_at,
                id: 1,
                name: "embedded".to_owned(),
                rate: args.rate,
                keep: Keep::Newest,
                json: args.json,
            };
            let stop_node = &stop_node;
            scope.spawn(move || run_node::serve_node(&config, stop_node))
        });
        let result = Host::new(args, volume, link, signals, &board).and_then(|mut host| {
            host.serve(&stop_node, || node.as_ref().is_none_or(std::thread::ScopedJoinHandle::is_finished))?;
            Ok(host)
        });
        // Whatever happened, the other threads are told, or the scope would wait for ever.
        stop_node.store(true, Ordering::Relaxed);
        let node =
            node.map(|node| node.join().unwrap_or_else(|_| Err(io::Error::other("the node has panicked"))));
        stop_page.store(true, Ordering::Relaxed);
        let host = result?;
        host.report(node.transpose()?);
        Ok(())
    })
}

/// The gateway's thread.
struct Host<'a> {
    args: &'a GatewayArgs,
    gateway: Running,
    volume: Directory,
    link: UdpLink,
    signals: SignalFd,
    epoll: Epoll,
    board: &'a Board,
}

impl<'a> Host<'a> {
    fn new(
        args: &'a GatewayArgs,
        volume: Directory,
        link: UdpLink,
        signals: SignalFd,
        board: &'a Board,
    ) -> io::Result<Self> {
        let log = LogConfig { retention_bytes: args.budget_mib * 1024 * 1024, ..LogConfig::default() };
        let config = GatewayConfig { log, endpoint: EndpointConfig::default() };
        let gateway = Gateway::new(config, run_node::random_seed()?, MonotonicClock.now());
        let mut epoll = Epoll::new()?;
        epoll.watch(link.as_fd(), UDP, Interest::READ)?;
        epoll.watch(signals.as_fd(), SIGNALS, Interest::READ)?;
        Ok(Self { args, gateway, volume, link, signals, epoll, board })
    }

    /// Until a signal or the end of the time; then until the node is through and the log is closed.
    fn serve(&mut self, stop_node: &AtomicBool, node_is_through: impl Fn() -> bool) -> io::Result<()> {
        let clock = MonotonicClock;
        let until = self.args.run_for.map(run_node::end_after);
        let mut publish_at = Instant::ZERO;
        let mut wall = None;
        let mut close_until = None;
        let mut stopping = false;
        loop {
            let now = clock.now();
            if now >= publish_at {
                wall = Some(read_wall());
                self.publish(now, wall);
                publish_at = now.after(PUBLISH);
            }
            let next = self.gateway.step(now, wall, &mut self.link, &mut self.volume);
            self.tell_events();
            if let LogState::Failed(error) = self.gateway.log().state() {
                return Err(io::Error::other(error));
            }
            if self.take_signals() || until.is_some_and(|until| now >= until) {
                stopping = true;
                stop_node.store(true, Ordering::Relaxed);
            }
            if stopping && close_until.is_none() && node_is_through() {
                self.gateway.log_mut().close();
                close_until = Some(now.after(DRAIN));
            }
            if let Some(until) = close_until {
                if self.gateway.log().state() == LogState::Closed {
                    return Ok(());
                }
                if now >= until {
                    return Err(io::Error::other(
                        "the log did not close in time; what was acknowledged is on disk",
                    ));
                }
            }
            if !next.more {
                let latest = if stopping { now.after(Span::ms(5)) } else { publish_at };
                let until = next.at.map_or(latest, |at| at.min(latest));
                self.epoll.park(Some(until), &mut || true, &mut |_, _| {});
            }
        }
    }

    /// True when the program is to stop.
    fn take_signals(&mut self) -> bool {
        let mut stop = false;
        while let Some(info) = self.signals.read() {
            match Signal::new(info.signal) {
                Ok(Signal::HUP) => self.gateway.log_mut().rotate(),
                Ok(Signal::USR1) => self.statistics(),
                _ => {
                    stop = true;
                    // The second one takes its default action: it stops at once.
                    self.signals.release(SignalSet::EMPTY.with(Signal::INT).with(Signal::TERM));
                }
            }
        }
        stop
    }

    fn statistics(&self) {
        let snapshot = self.gateway.snapshot(MonotonicClock.now(), &self.facts(None));
        if let Ok(text) = serde_json::to_string(&snapshot) {
            println!("{text}");
        }
    }

    fn tell_events(&mut self) {
        while let Some(event) = self.gateway.poll_event() {
            if self.args.json {
                println!("{}", serde_json::json!({"event": "gateway", "text": format!("{event:?}")}));
                continue;
            }
            match event {
                GatewayEvent::NodeUp { node, boot } => println!("gateway: node {node} is here, boot {boot}"),
                GatewayEvent::NodeDown { node, reason } => println!("gateway: node {node} is gone: {reason}"),
                GatewayEvent::Witness { node, have, acknowledged } => println!(
                    "gateway: node {node} holds acknowledgements up to {acknowledged}, the log has only {have}: a disk has lied"
                ),
                other => println!("gateway: {other:?}"),
            }
        }
    }

    fn facts(&self, wall: Option<WallTime>) -> HostFacts<'static> {
        HostFacts {
            version: env!("CARGO_PKG_VERSION"),
            wall,
            link: self.link.counters(),
            backend: BACKEND,
            retention_bytes: self.args.budget_mib * 1024 * 1024,
            room: hal::volume::Volume::room(&self.volume),
        }
    }

    fn publish(&self, now: Instant, wall: Option<WallTime>) {
        let snapshot = self.gateway.snapshot(now, &self.facts(wall));
        self.board.publish(snapshot, |question| history(&self.gateway, now, question));
    }

    fn report(&self, node: Option<NodeSummary>) {
        let snapshot = self.gateway.snapshot(MonotonicClock.now(), &self.facts(None));
        if self.args.json {
            let summary = serde_json::json!({
                "event": "summary",
                "samples_taken": node.as_ref().map(|node| node.samples),
                "acknowledged": snapshot.acknowledged,
                "in_log": snapshot.samples,
                "deadline_misses": node.as_ref().map(|node| node.deadline_misses),
                "latency_p50_ns": node.as_ref().map(|node| node.latency_p50_ns),
                "latency_p99_ns": node.as_ref().map(|node| node.latency_p99_ns),
                "latency_max_ns": node.as_ref().map(|node| node.latency_max_ns),
                "ack_p50_ns": snapshot.ack.p50,
                "ack_p99_ns": snapshot.ack.p99,
                "ack_max_ns": snapshot.ack.max,
                "node": node,
            });
            println!("{summary}");
            return;
        }
        if let Some(node) = &node {
            run_node::report(node, false);
        }
        println!(
            "gateway: {} samples in the log, {} acknowledged; ack p50 {}, p99 {}, max {}",
            snapshot.samples,
            snapshot.acknowledged,
            Span::ns(snapshot.ack.p50),
            Span::ns(snapshot.ack.p99),
            Span::ns(snapshot.ack.max)
        );
        println!(
            "  log: {} frames, {} bytes written, closed in order",
            snapshot.log.frames, snapshot.log.written
        );
    }
}

fn read_wall() -> WallTime {
    let wall = wall_clock();
    // Nobody keeps the clock: say that it may be off by a day.
    let error_ns = wall.error.unwrap_or(Span::secs(86_400)).as_ns();
    WallTime { unix_ns: wall.realtime_ns, error_ns }
}

fn history(gateway: &Running, now: Instant, question: HistoryQuestion) -> Option<HistoryView> {
    let group = gateway.node(question.node)?.groups.get(&question.group)?;
    let channels = group.channels.iter().map(|channel| HistoryChannel {
        name: channel.name.clone(),
        unit: channel.unit.clone(),
        points: channel
            .history
            .buckets(question.range, now)
            .map(|bucket| {
                let bucket = bucket?;
                let scale = channel.scaled(1);
                let (min, max) = (channel.scaled(bucket.min), channel.scaled(bucket.max));
                Some(HistoryPoint { min, max, mean: bucket.mean() * scale, late: bucket.late })
            })
            .collect(),
    });
    Some(HistoryView { step_ns: question.range.step().as_ns(), channels: channels.collect() })
}

// What the loop relies on: the log's buffers are the directory's.
const _: fn() = || {
    fn is_storage<S: hal::storage::Storage<Buf = &'static mut [u8]>>() {}
    is_storage::<DirectoryFile>();
};
