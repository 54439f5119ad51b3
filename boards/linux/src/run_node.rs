//! A node as a Linux process or beside a gateway: a periodic interrupt, its handler, and the session.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use alloc_core::pool::Pool;
use hal::irq::{Level, Line};
use hal::readiness::{Interest, Key, Park, Readiness};
use hal::time::{Clock, Instant, Span};
use node::app::{Identity, Keep, NodeApp, NodeEvent};
use node::message::Status;
use node::sampler::Sampler;
use node::sensor::Flags;
use node::store::{Filled, Queue, connect};
use platform_linux::clock::MonotonicClock;
use platform_linux::irq::{LevelConfig, LinuxPlatform, Source, serve};
use platform_linux::net::{UdpConfig, UdpLink};
use platform_linux::readiness::Epoll;
use platform_linux::signal::{Signal, SignalFd, SignalSet};
use rt_irq::{Activation, Controller, LineConfig, LineStats};

use crate::sensors::Bank;
use crate::{KeepArg, NodeArgs};

/// Bytes of a block: with the transport's header it fits into a datagram that passes everywhere.
const BLOCK: usize = 1024;
/// Blocks: 4 MiB, about 170 s at 1,000 samples a second of four channels.
const BLOCKS: usize = 4096;
const LINE: Line = Line(0);
/// How long a reading may wait for company in a block.
const FLUSH_AFTER: Span = Span::ms(50);
/// How long a node waits at its end for what is not acknowledged yet.
const DRAIN: Span = Span::secs(5);
/// The task looks for filled blocks this often.
const TURN: Span = Span::ms(10);

type App<'p> = NodeApp<'p, SocketAddr, Filled<'p, BLOCK>, BLOCKS, 65_536, 16_384, 256>;

/// What a node is to do.
#[derive(Debug, Clone)]
pub(crate) struct NodeConfig {
    pub gateway: SocketAddr,
    pub id: u32,
    pub name: String,
    pub rate: u32,
    pub keep: Keep,
    pub json: bool,
}

/// What a node has done.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub(crate) struct NodeSummary {
    pub node: u32,
    pub boot: u32,
    pub samples: u64,
    pub acknowledged: u64,
    pub dropped: u64,
    pub deadline_misses: u64,
    pub missed_ticks: u64,
    pub latency_p50_ns: u64,
    pub latency_p99_ns: u64,
    pub latency_max_ns: u64,
    pub scheduling: String,
}

/// Runs a node until a signal or its time is over.
pub(crate) fn run(args: &NodeArgs) -> io::Result<()> {
    let mut signals =
        SignalFd::install(SignalSet::EMPTY.with(Signal::INT).with(Signal::TERM)).map_err(io::Error::other)?;
    let config = NodeConfig {
        gateway: args.gateway,
        id: args.id,
        name: args.name.clone(),
        rate: args.rate,
        keep: match args.keep {
            KeepArg::Newest => Keep::Newest,
            KeepArg::Oldest => Keep::Oldest,
        },
        json: args.json,
    };
    let until = args.run_for.map(end_after);
    let stop = AtomicBool::new(false);
    let summary = std::thread::scope(|scope| {
        let worker = scope.spawn(|| serve_node(&config, &stop));
        while !worker.is_finished() {
            let over = until.is_some_and(|until| MonotonicClock.now() >= until);
            if signals.read().is_some() || over {
                stop.store(true, Ordering::Relaxed);
                // A second signal stops at once.
                signals.release(signals.set());
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        worker.join().unwrap_or_else(|_| Err(io::Error::other("the node has panicked")))
    })?;
    report(&summary, args.json);
    Ok(())
}

/// When a run of `time` that begins now is over.
pub(crate) fn end_after(time: std::time::Duration) -> Instant {
    MonotonicClock.now().after(Span::ns(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
}

/// Prints what a node has done.
pub(crate) fn report(summary: &NodeSummary, json: bool) {
    if json {
        println!("{}", serde_json::json!({"event": "node-summary", "summary": summary}));
        return;
    }
    println!(
        "node {}: {} samples, {} acknowledged, {} dropped, {} deadline misses",
        summary.node, summary.samples, summary.acknowledged, summary.dropped, summary.deadline_misses
    );
    println!(
        "  interrupt to handler: p50 {}, p99 {}, max {}; {}",
        Span::ns(summary.latency_p50_ns),
        Span::ns(summary.latency_p99_ns),
        Span::ns(summary.latency_max_ns),
        summary.scheduling
    );
}

/// Samples and delivers until `stop`, then waits a while for the last acknowledgements.
pub(crate) fn serve_node(config: &NodeConfig, stop: &AtomicBool) -> io::Result<NodeSummary> {
    let period = Span::ns(1_000_000_000 / u64::from(config.rate));
    let groups = [Bank::group_of(period)];
    // On the heap: the pool is larger than a thread's stack should hold.
    let mut pool = boxed_pool();
    let mut queue: Box<Queue<'_, BLOCK, { BLOCKS + 1 }>> = Box::default();
    let (handler_side, mut task_side) = connect(&mut pool, &mut queue);
    let sampler = Mutex::new((Sampler::new(handler_side, FLUSH_AFTER), Bank::new(period)));
    let lock = || sampler.lock().unwrap_or_else(PoisonError::into_inner);
    // Only the one thread of the level takes the lock while interrupts run; the task reads counters once a second.
    let on_interrupt = |activation: &Activation| {
        let (sampler, bank) = &mut *lock();
        let flags = if activation.coalesced > 0 { Flags::AFTER_MISS } else { Flags::NONE };
        let late = if activation.started > activation.deadline { Flags::LATE } else { Flags::NONE };
        sampler.on_interrupt(bank, activation.arrived, activation.started, flags.with(late));
    };
    let platform = LinuxPlatform::new(1);
    let mut irq: Controller<'_, _, 1> = Controller::new(&platform);
    irq.register(LINE, LineConfig::new(Level(0), period), &on_interrupt).map_err(io::Error::other)?;
    let (irq, dispatch) = (&irq, |level| irq.dispatch(level));

    let identity = Identity {
        node: config.id,
        name: &config.name,
        firmware: env!("CARGO_PKG_VERSION"),
        groups: &groups,
    };
    let mut epoll = Epoll::new()?;
    let mut link = UdpLink::connect(config.gateway, UdpConfig::default()).map_err(io::Error::other)?;
    epoll.watch(link.as_fd(), Key(0), Interest::READ)?;
    let clock = MonotonicClock;
    let transport = net_core::Config {
        keep_alive: Some(Span::secs(1)),
        idle_timeout: Span::secs(5),
        ..net_core::Config::default()
    };
    let mut app: Box<App<'_>> =
        Box::new(NodeApp::new(identity, config.keep, transport, random_seed()?, clock.now(), config.gateway));

    std::thread::scope(|scope| {
        let levels = serve(scope, &platform, &dispatch, LevelConfig::default())?;
        let source = Source::periodic(scope, period, levels.source(), |_| irq.trigger(LINE))?;
        let mut source = Some(source);
        let mut summary = NodeSummary {
            node: config.id,
            scheduling: levels.real_time().to_string(),
            ..NodeSummary::default()
        };
        let mut status = Status::default();
        let mut status_at = Instant::ZERO;
        let mut drain_until = None;
        loop {
            let now = clock.now();
            if source.is_some() && stop.load(Ordering::Relaxed) {
                summary.missed_ticks = source.take().map_or(0, |source| source.stats().missed);
                lock().0.flush();
                drain_until = Some(now.after(DRAIN));
            }
            if now >= status_at {
                status = status_of(&irq.stats(LINE), lock().0.counters().dropped);
                status_at = now.after(Span::secs(1));
            }
            let next = app.step(now, &mut link, &mut task_side, &status);
            while let Some(event) = app.poll_event() {
                if let NodeEvent::Up { boot, .. } = event {
                    summary.boot = boot;
                }
                tell(config, event);
            }
            if let Some(until) = drain_until {
                let made = lock().0.counters().made;
                if app.counters().acknowledged >= made || now >= until {
                    break;
                }
            }
            if !next.more {
                let latest = now.after(TURN);
                let until = next.at.map_or(latest, |at| at.min(latest));
                epoll.park(Some(until), &mut || true, &mut |_, _| {});
            }
        }
        drop(levels);
        let stats = irq.stats(LINE);
        let (sampler, app) = (lock().0.counters(), app.counters());
        summary.samples = sampler.made;
        summary.dropped = sampler.dropped + app.evicted;
        summary.acknowledged = app.acknowledged;
        summary.deadline_misses = stats.missed;
        summary.latency_p50_ns = stats.latency.quantile(500);
        summary.latency_p99_ns = stats.latency.quantile(990);
        summary.latency_max_ns = stats.latency.max();
        Ok(summary)
    })
}

fn boxed_pool() -> Box<Pool<BLOCK, BLOCKS>> {
    Box::default()
}

fn status_of(stats: &LineStats, dropped: u64) -> Status {
    Status {
        made: stats.handled,
        dropped,
        deadline_misses: stats.missed,
        coalesced: stats.coalesced,
        latency_p50: stats.latency.quantile(500),
        latency_p99: stats.latency.quantile(990),
        latency_max: stats.latency.max(),
        pool: BLOCKS as u64,
        ..Status::default()
    }
}

fn tell(config: &NodeConfig, event: NodeEvent) {
    let node = config.id;
    if config.json {
        let line = match event {
            NodeEvent::Up { boot, durable } => {
                serde_json::json!({"event": "up", "node": node, "boot": boot, "durable": durable})
            }
            NodeEvent::Acked { boot, durable } => {
                serde_json::json!({"event": "acked", "node": node, "boot": boot, "durable": durable})
            }
            NodeEvent::Down(reason) => {
                serde_json::json!({"event": "down", "node": node, "reason": reason.to_string()})
            }
            other => serde_json::json!({"event": "other", "node": node, "text": format!("{other:?}")}),
        };
        println!("{line}");
        return;
    }
    match event {
        NodeEvent::Up { boot, durable } => {
            println!("node {node}: connected, boot {boot}, from sample {durable} on")
        }
        NodeEvent::Down(reason) => println!("node {node}: disconnected: {reason}"),
        NodeEvent::Refused(reason) => println!("node {node}: refused by the gateway: {reason:?}"),
        _ => {}
    }
}

/// Eight bytes that nobody can guess.
pub(crate) fn random_seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
