//! The protocol against an adversary, and through restarts and moves of either side.

use hal::fake::net::{Faults, Host, Net, Port, Random};
use hal::time::{Instant, Span};
use net_core::wire::header::{HEADER, Header, Packet, PacketType};
use net_core::{CloseReason, Config, ConnId, Connection, Endpoint, EndpointConfig, Event, SendError};
use tests::sim::link::{Machine, World, pump};

const CLIENT: Host = 1;
const SERVER: Host = 2;
const STRANGER: Host = 9;

type Node = Connection<Host, 4096, 4096, 16>;

/// A node that sends numbered messages and a server that echoes them.
struct Echo {
    seed: u64,
    world: World,
    node: Node,
    node_port: Port,
    server: Endpoint<Host>,
    server_port: Port,
    sent: u32,
    echoed: u32,
    at_server: Vec<u32>,
    node_events: Vec<Event>,
    server_events: Vec<(ConnId, Event)>,
    /// Messages need not arrive in full sequence: a restart lost some.
    with_gaps: bool,
}

fn config() -> Config {
    Config {
        idle_timeout: Span::secs(30),
        keep_alive: Some(Span::ms(500)),
        initial_rtt: Span::ms(50),
        ..Config::default()
    }
}

fn endpoint(seed: u64) -> Endpoint<Host> {
    let config = EndpointConfig { connection: config(), receive_buffer: 8192, ..EndpointConfig::default() };
    Endpoint::new(config, seed)
}

impl Echo {
    fn new(seed: u64, faults: Faults) -> Self {
        let net = Net::new(seed, faults);
        Self {
            seed,
            node: Node::connect(config(), seed ^ 11, Instant::ZERO, SERVER),
            node_port: net.port(CLIENT),
            server: endpoint(seed ^ 22),
            server_port: net.port(SERVER),
            world: World::new(net, seed, Span::ms(2)),
            sent: 0,
            echoed: 0,
            at_server: Vec::new(),
            node_events: Vec::new(),
            server_events: Vec::new(),
            with_gaps: false,
        }
    }

    fn applications(&mut self, most: u32) {
        self.node_events.extend(core::iter::from_fn(|| self.node.poll_event()));
        while let Some((id, event)) = self.server.poll_event() {
            self.server_events.push((id, event));
        }
        while self.sent < most {
            match self.node.send_message(&self.sent.to_le_bytes()) {
                Ok(()) => self.sent += 1,
                Err(SendError::Full | SendError::Connecting | SendError::Closed) => break,
                Err(error) => panic!("seed {}: {error}", self.seed),
            }
        }
        let ids: Vec<ConnId> = self.server.connections().collect();
        for id in ids {
            while let Some(message) = self.server.peek_message(id).map(<[u8]>::to_vec) {
                if self.server.send_message(id, &message) == Err(SendError::Full) {
                    break;
                }
                self.server.consume_message(id);
                self.at_server.push(u32::from_le_bytes(message.try_into().expect("four bytes were sent")));
            }
        }
        while let Some(message) = self.node.peek_message() {
            let got = u32::from_le_bytes(message.try_into().expect("four bytes were echoed"));
            if self.with_gaps {
                assert!(got >= self.echoed, "seed {}: {got} came again", self.seed);
            } else {
                assert_eq!(got, self.echoed, "seed {}", self.seed);
            }
            self.echoed = got + 1;
            self.node.consume_message();
        }
    }

    /// Runs until `until`, the node sending up to `most` messages in all, `interfere` being called at each instant.
    fn run(&mut self, most: u32, mut interfere: impl FnMut(&Net, Instant), until: impl Fn(&Self) -> bool) {
        let deadline = self.world.now().after(Span::secs(120));
        let mut wake = self.world.now();
        while !until(self) {
            let now = self.world.now();
            interfere(&self.world.net, now);
            let mut busy = true;
            let mut rounds = 0;
            while busy {
                self.world.net.set_now(now);
                busy = pump(&mut self.node, &mut self.node_port, now, wake);
                busy |= pump(&mut self.server, &mut self.server_port, now, wake);
                self.applications(most);
                rounds += 1;
                assert!(rounds < 10_000, "seed {}: busy without end", self.seed);
            }
            let timers = [Machine::poll_timeout(&self.node), Machine::poll_timeout(&self.server)];
            // With something in the air for the application only, time passes by itself.
            let tick = now.after(Span::ms(10));
            wake = self
                .world
                .wait(&[timers[0], timers[1], Some(tick)])
                .unwrap_or_else(|stuck| panic!("seed {}: {stuck:?} at {now:?}", self.seed));
            assert!(
                now < deadline,
                "seed {}: not done at {now:?}: {} of {most}\n{:?}\n{:?}\n{:?}",
                self.seed,
                self.echoed,
                self.node.stats(),
                self.server.endpoint_stats(),
                self.node_events,
            );
        }
    }

    fn node_was_closed(&self) -> Option<CloseReason> {
        self.node_events.iter().find_map(|event| match event {
            Event::Closed(reason) => Some(*reason),
            _ => None,
        })
    }
}

fn mild() -> Faults {
    Faults {
        delay: Span::ms(5),
        jitter: Span::ms(2),
        loss: 20_000,
        duplicate: 20_000,
        reorder: 20_000,
        reorder_by: Span::ms(5),
        ..Faults::default()
    }
}

fn random_header(r: &mut Random) -> Header {
    let kinds = [
        PacketType::Data,
        PacketType::Ack,
        PacketType::Syn,
        PacketType::Fin,
        PacketType::Ping,
        PacketType::Retry,
        PacketType::Accept,
        PacketType::Reset,
        PacketType::Probe,
        PacketType::Datagram,
    ];
    let mut word = || u32::try_from(r.bits() >> 32).unwrap();
    let (connection, number, offset, credit, largest, flags) =
        (word(), word(), word(), word(), word(), word());
    let kind = kinds[r.index(kinds.len())];
    let connection = if kind == PacketType::Syn { 0 } else { connection };
    let mut header = Header::new(kind, connection);
    (header.number, header.offset, header.credit, header.largest) = (number, offset, credit, largest);
    header.flags = flags.to_le_bytes()[0];
    header.span = flags.to_le_bytes()[1];
    header
}

fn emit(r: &mut Random, header: &Header) -> Vec<u8> {
    let (ranges, payload) = (r.index(5), r.index(80));
    let mut bytes: Vec<u8> = (0..HEADER + ranges * 4 + payload).map(|_| r.bits().to_le_bytes()[0]).collect();
    let len = header.emit(&mut bytes, ranges, payload).expect("the buffer was made to fit");
    bytes.truncate(len);
    bytes
}

#[test]
fn whoever_does_not_see_the_traffic_or_only_repeats_it_breaks_nothing() {
    let mut done = [0u32; 6];
    for seed in 0..300 {
        let mut echo = Echo::new(seed, mild());
        let mut r = Random::new(seed ^ 0xbad);
        let mut seen = Vec::new();
        echo.world.net.tap();
        let interfere = |net: &Net, _now: Instant| {
            seen.extend(net.tap());
            for _ in 0..r.index(20) {
                let what = r.index(6);
                done[what] += 1;
                let (from, to) = if r.below(2) == 0 { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
                if what == 0 {
                    // Forged with a valid CRC and source address, the connection id guessed.
                    let header = random_header(&mut r);
                    net.inject(from, to, &emit(&mut r, &header));
                    continue;
                }
                if seen.is_empty() {
                    continue;
                }
                let at = r.index(seen.len());
                let (from, to, mut bytes) = seen[at].clone();
                match what {
                    1 => bytes.truncate(r.index(bytes.len())),
                    2 => {
                        let bit = r.index(bytes.len() * 8);
                        bytes[bit / 8] ^= 1 << (bit % 8);
                    }
                    3 => {}                                       // replayed
                    4 => return net.inject(STRANGER, to, &bytes), // replayed from elsewhere
                    _ => bytes.extend_from_slice(&[0xaa; 9]),     // padded
                }
                net.inject(from, to, &bytes);
            }
        };
        echo.run(60, interfere, |echo| echo.echoed == 60);
        assert_eq!(echo.node_was_closed(), None, "seed {seed}");
        let closed = echo.server_events.iter().any(|(_, event)| matches!(event, Event::Closed(_)));
        assert!(!closed, "seed {seed}: {:?}", echo.server_events);
        assert_eq!(echo.server.len(), 1, "seed {seed}");
        assert!((0..60).eq(echo.at_server.iter().copied()), "seed {seed}: {:?}", echo.at_server);
    }
    assert!(done.iter().all(|&n| n > 1000), "{done:?}");
}

#[test]
fn whoever_changes_traffic_at_will_causes_neither_panic_nor_endless_work() {
    let mut closed = 0;
    for seed in 0..600 {
        let mut echo = Echo::new(seed, Faults { delay: Span::ms(3), ..Faults::default() });
        let mut r = Random::new(seed ^ 0xe71);
        let mut victims = 0;
        echo.world.net.tap();
        // Content is the adversary's here, so the applications do not check it.
        let deadline = Instant::ZERO.after(Span::secs(3));
        while echo.world.now() < deadline {
            let now = echo.world.now();
            for (from, to, bytes) in echo.world.net.tap() {
                if r.below(4) > 0 {
                    continue;
                }
                let Ok(packet) = Packet::parse(&bytes) else { continue };
                let genuine = *packet.header();
                let mut forged = random_header(&mut r);
                forged.connection = genuine.connection;
                // Plausible values reach deeper than random ones.
                if r.below(2) == 0 {
                    forged.number = genuine.number.wrapping_add(u32::try_from(r.below(20)).unwrap());
                    forged.offset = genuine.offset.wrapping_add(u32::try_from(r.below(5000)).unwrap());
                    forged.largest = genuine.largest.wrapping_sub(u32::try_from(r.below(4)).unwrap());
                }
                echo.world.net.inject(from, to, &emit(&mut r, &forged));
                victims += 1;
            }
            let mut rounds = 0;
            let mut busy = true;
            while busy {
                echo.world.net.set_now(now);
                busy = pump(&mut echo.node, &mut echo.node_port, now, now);
                busy |= pump(&mut echo.server, &mut echo.server_port, now, now);
                let _ = echo.node.send_message(&[7; 100]);
                while echo.node.peek_message().is_some() {
                    echo.node.consume_message();
                }
                while let Some((id, event)) = echo.server.poll_event() {
                    closed += u32::from(matches!(event, Event::Closed(_)));
                    let _ = echo.server.send_message(id, &[9; 300]);
                }
                let ids: Vec<ConnId> = echo.server.connections().collect();
                for id in ids {
                    while echo.server.peek_message(id).is_some() {
                        echo.server.consume_message(id);
                    }
                }
                rounds += 1;
                assert!(rounds < 2000, "seed {seed}: busy without end at {now:?}");
            }
            let tick = Some(now.after(Span::ms(20)));
            let timers = [Machine::poll_timeout(&echo.node), Machine::poll_timeout(&echo.server), tick];
            echo.world.wait(&timers).unwrap_or_else(|stuck| panic!("seed {seed}: {stuck:?}"));
        }
        assert!(victims > 3, "seed {seed}");
    }
    assert!(closed > 10, "{closed}: forgeries reached the state machine");
}

#[test]
fn a_server_that_restarted_is_noticed_at_once_and_found_again() {
    for seed in 0..100 {
        let mut echo = Echo::new(seed, mild());
        echo.run(20, |_, _| {}, |echo| echo.echoed == 20);
        echo.server = endpoint(seed ^ 0x5555);
        echo.with_gaps = true;
        let restarted = echo.world.now();
        echo.node_events.clear();
        echo.run(100, |_, _| {}, |echo| echo.node_was_closed().is_some());
        assert_eq!(echo.node_was_closed(), Some(CloseReason::Reset), "seed {seed}");
        let noticed = echo.world.now().since(restarted);
        assert!(noticed < Span::secs(2), "seed {seed}: {noticed}");
        echo.node.reconnect(echo.world.now());
        let next = echo.sent;
        echo.run(next + 20, |_, _| {}, |echo| echo.echoed == next + 20);
    }
}

#[test]
fn a_node_that_restarted_connects_beside_its_old_connection_which_ends_by_itself() {
    for seed in 0..50 {
        let mut echo = Echo::new(seed, mild());
        echo.run(20, |_, _| {}, |echo| echo.echoed == 20);
        echo.node = Node::connect(config(), seed ^ 0x7777, echo.world.now(), SERVER);
        let restarted = echo.world.now();
        echo.with_gaps = true;
        echo.run(40, |_, _| {}, |echo| echo.echoed == 40);
        assert!(echo.world.now().since(restarted) < Span::secs(3), "seed {seed}");
        echo.run(40, |_, _| {}, |echo| echo.server.len() == 1);
        let reasons: Vec<_> =
            echo.server_events.iter().filter(|(_, e)| matches!(e, Event::Closed(_))).collect();
        assert!(
            matches!(reasons[..], [(_, Event::Closed(CloseReason::IdleTimeout))]),
            "seed {seed}: {reasons:?}"
        );
    }
}

#[test]
fn a_node_that_moved_proves_its_new_address_and_keeps_its_connection() {
    for seed in 0..100 {
        let mut echo = Echo::new(seed, mild());
        echo.run(20, |_, _| {}, |echo| echo.echoed == 20);
        echo.node_port = echo.world.net.port(77);
        let moved = echo.world.now();
        echo.run(60, |_, _| {}, |echo| echo.echoed == 60);
        assert!(echo.world.now().since(moved) < Span::secs(3), "seed {seed}");
        assert_eq!(echo.node_was_closed(), None, "seed {seed}");
        assert_eq!((echo.server.len(), echo.server.endpoint_stats().moved), (1, 1), "seed {seed}");
    }
}

#[test]
fn an_outage_is_survived_and_a_dead_peer_is_noticed() {
    for seed in 0..30 {
        let mut echo = Echo::new(seed, mild());
        echo.run(20, |_, _| {}, |echo| echo.echoed == 20);
        echo.world.net.set_up(SERVER, false);
        let cut = echo.world.now();
        echo.run(60, |_, _| {}, |echo| echo.world.now().since(cut) > Span::secs(20));
        echo.world.net.set_up(SERVER, true);
        let back = echo.world.now();
        echo.run(60, |_, _| {}, |echo| echo.echoed == 60);
        // The longest probe timeout, and what was lost again by chance.
        assert!(echo.world.now().since(back) < Span::secs(15), "seed {seed}");

        echo.world.net.set_up(SERVER, false);
        echo.run(99, |_, _| {}, |echo| echo.node_was_closed().is_some() && echo.server.is_empty());
        assert_eq!(echo.node_was_closed(), Some(CloseReason::IdleTimeout), "seed {seed}");
    }
}

#[test]
fn a_flood_of_requests_costs_bounded_memory_and_no_connection() {
    let mut echo = Echo::new(1, Faults { delay: Span::ms(5), ..Faults::default() });
    let mut r = Random::new(3);
    let flood = |net: &Net, _: Instant| {
        for _ in 0..200 {
            let mut syn = random_header(&mut r);
            syn.kind = PacketType::Syn;
            syn.connection = 0;
            let mut bytes = vec![0x5a; HEADER + 44];
            let len = syn.emit(&mut bytes, 0, 44).expect("fits");
            let spoofed = 1000 + u32::try_from(r.below(1 << 20)).unwrap();
            net.inject(spoofed, SERVER, &bytes[..len]);
        }
    };
    echo.run(50, flood, |echo| echo.echoed == 50);
    let stats = echo.server.endpoint_stats();
    assert_eq!((echo.server.len(), stats.accepted), (1, 1));
    assert!(stats.retries > 1000 && stats.unanswered > 100, "{stats:?}");
}
