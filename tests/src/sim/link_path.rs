//! Bulk transfer over a bottleneck: what a protocol makes of a path.

use hal::fake::net::{Faults, Fired, Host, Net};
use hal::time::{Instant, Span};
use net_core::congestion::Congestion;
use net_core::{Config, Endpoint, EndpointConfig, Event, Stats};

use super::link::{World, pump};

/// A path and what is sent over it.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Bits a second of the bottleneck.
    pub bits_per_second: u64,
    /// Round trip without queue.
    pub rtt: Span,
    /// Queue of the bottleneck in thousandths of the bandwidth-delay product.
    pub queue_milli_bdp: u64,
    /// Further faults in the direction of the data; delay, rate and queue are overwritten.
    pub faults: Faults,
    /// Bytes to transfer.
    pub bytes: usize,
    /// Timers are served up to this much late.
    pub lateness: Span,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Time until the last byte was read.
    pub took: Span,
    /// Payload delivered per second over the bottleneck's rate.
    pub utilisation: f64,
    /// Bytes on the wire for each byte delivered.
    pub wire: f64,
    /// The sender's counters at the end.
    pub stats: Stats,
    /// What struck.
    pub fired: Fired,
}

const SENDER: Host = 1;
const RECEIVER: Host = 2;
const MESSAGE: usize = 10_000;

/// Transfers `path.bytes` with controller `C`. `None`: not done within ten minutes of virtual time.
///
/// # Panics
///
/// When the buffers that the path calls for do not fit memory.
pub fn transfer<C: Congestion>(seed: u64, path: &Path) -> Option<Outcome> {
    let bytes_per_second = path.bits_per_second / 8;
    let bdp = bytes_per_second * path.rtt.as_us() / 1_000_000;
    let one_way = Span::ns(path.rtt.as_ns() / 2);
    let overhead = 28; // IPv4 and UDP
    let back = Faults { delay: one_way, overhead, ..Faults::default() };
    let queue = usize::try_from(bdp * path.queue_milli_bdp / 1000).expect("queues fit memory") + 3000;
    let there = Faults { delay: one_way, rate: Some(bytes_per_second), queue, overhead, ..path.faults };
    let net = Net::new(seed, back);
    net.set_path(SENDER, RECEIVER, there);
    let buffer = usize::try_from(4 * bdp).expect("buffers fit memory") + 1_000_000;
    let connection = Config { max_datagram: 1472, ..Config::default() };
    let config = EndpointConfig {
        connection,
        send_buffer: buffer,
        receive_buffer: buffer,
        max_in_flight: buffer / 1000,
        ..EndpointConfig::default()
    };
    let mut sender: Endpoint<Host, C> = Endpoint::new(config.clone(), seed ^ 5);
    let mut receiver: Endpoint<Host, C> = Endpoint::new(config, seed ^ 6);
    let (mut a, mut b) = (net.port(SENDER), net.port(RECEIVER));
    let id = sender.connect(Instant::ZERO, RECEIVER)?;
    let mut peer = None;
    let mut world = World::new(net, seed, path.lateness);
    let (mut sent, mut received) = (0, 0);
    let message = [0x5a; MESSAGE];
    let mut wake = Instant::ZERO;
    while received < path.bytes {
        let now = world.now();
        loop {
            world.net.set_now(now);
            let mut busy = pump(&mut sender, &mut a, now, wake) | pump(&mut receiver, &mut b, now, wake);
            while sent < path.bytes && sender.send_message(id, &message).is_ok() {
                sent += MESSAGE;
                busy = true;
            }
            while sender.poll_event().is_some() {}
            while let Some((id, event)) = receiver.poll_event() {
                if event == Event::Connected {
                    peer = Some(id);
                }
            }
            while let Some(id) = peer
                && receiver.consume_message(id)
            {
                received += MESSAGE;
                busy = true;
            }
            if !busy {
                break;
            }
        }
        wake = world.wait(&[sender.poll_timeout(), receiver.poll_timeout()]).ok()?;
        if now.as_ns() > 600_000_000_000 {
            return None;
        }
    }
    let took = world.now().since(Instant::ZERO);
    let fired = world.net.fired();
    #[allow(clippy::cast_precision_loss, reason = "a table of three digits")]
    let ratio = |a: u64, b: u64| a as f64 / b as f64;
    Some(Outcome {
        took,
        utilisation: ratio(received as u64 * 8 * 1_000_000, took.as_us() * path.bits_per_second),
        wire: ratio(sender.stats(id)?.bytes_sent + sender.stats(id)?.packets_sent * 28, received as u64),
        stats: sender.stats(id)?,
        fired,
    })
}
