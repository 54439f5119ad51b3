//! Two sans-I/O protocol machines on a faulty network in virtual time.
//!
//! A [`World`] steps machines until nothing is left to do at the present instant, then jumps to the next arrival or timer.
//! Timers may be served late, as real systems do. A world in which nobody waits for anything while work remains has
//! stalled, which is what the tests look for.

use hal::fake::net::{Host, Net, Port, Random};
use hal::link::{Caps, LinkRx, LinkTx, RxMeta, TxMeta};
use hal::time::{Instant, Span};
use net_core::congestion::Congestion;
use net_core::{Connection, Endpoint};

/// What the world needs of a protocol machine.
pub trait Machine {
    /// Takes what arrived.
    fn handle(&mut self, now: Instant, meta: &RxMeta<Host>, data: &mut [u8]);
    /// Writes the next packet.
    fn poll_transmit(&mut self, now: Instant, caps: &Caps, out: &mut [u8]) -> Option<TxMeta<Host>>;
    /// When it wants to be called.
    fn poll_timeout(&self) -> Option<Instant>;
    /// Calls it.
    fn handle_timeout(&mut self, now: Instant);
}

impl<C: Congestion> Machine for Endpoint<Host, C> {
    fn handle(&mut self, now: Instant, meta: &RxMeta<Host>, data: &mut [u8]) {
        self.handle(now, meta, data);
    }
    fn poll_transmit(&mut self, now: Instant, caps: &Caps, out: &mut [u8]) -> Option<TxMeta<Host>> {
        self.poll_transmit(now, caps, out)
    }
    fn poll_timeout(&self) -> Option<Instant> {
        self.poll_timeout()
    }
    fn handle_timeout(&mut self, now: Instant) {
        self.handle_timeout(now);
    }
}

impl<const TX: usize, const RX: usize, const INFLIGHT: usize, C: Congestion> Machine
    for Connection<Host, TX, RX, INFLIGHT, C>
{
    fn handle(&mut self, now: Instant, meta: &RxMeta<Host>, data: &mut [u8]) {
        self.handle(now, meta, data);
    }
    fn poll_transmit(&mut self, now: Instant, caps: &Caps, out: &mut [u8]) -> Option<TxMeta<Host>> {
        self.poll_transmit(now, caps, out)
    }
    fn poll_timeout(&self) -> Option<Instant> {
        self.poll_timeout()
    }
    fn handle_timeout(&mut self, now: Instant) {
        self.handle_timeout(now);
    }
}

/// Moves packets between a machine and its port, and serves its timer. False: there was nothing to do.
pub fn pump(machine: &mut dyn Machine, port: &mut Port, now: Instant, wake: Instant) -> bool {
    let mut moved = false;
    while port.advance() {
        if let Some(rx) = port.current() {
            machine.handle(now, &rx.meta, rx.data);
        }
        moved = true;
    }
    if wake <= now && machine.poll_timeout().is_some_and(|at| at <= now) {
        machine.handle_timeout(now);
        moved = true;
    }
    moved | transmit(machine, port, now)
}

/// Sends what a machine has to send.
pub fn transmit(machine: &mut dyn Machine, port: &mut Port, now: Instant) -> bool {
    let caps = port.caps();
    let mut moved = false;
    while let Some(out) = port.grant(caps.mtu * caps.segments) {
        let Some(meta) = machine.poll_transmit(now, &caps, out) else { break };
        port.commit(meta);
        moved = true;
    }
    port.flush();
    moved
}

/// A network, its time, and how late timers are served.
#[derive(Debug)]
pub struct World {
    /// The network.
    pub net: Net,
    /// Random numbers of the scenario, apart from those of the network.
    pub random: Random,
    /// Timers are served up to this much late.
    pub lateness: Span,
    /// Steps without progress in time, to notice a machine that spins.
    idle_steps: u32,
}

/// Why a world cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// No packet is in flight and no timer is set.
    Stalled,
    /// Time does not move: a timer that is due stays due.
    Spinning,
}

impl World {
    /// A world on `net`.
    pub fn new(net: Net, seed: u64, lateness: Span) -> Self {
        Self { net, random: Random::new(seed ^ 0x77_6f72_6c64), lateness, idle_steps: 0 }
    }

    /// The instant now.
    pub fn now(&self) -> Instant {
        self.net.now()
    }

    /// Lets time pass until the earliest of the next arrival and `timers`, which are served late by chance. Returns the
    /// instant up to which timers may be served.
    ///
    /// # Errors
    ///
    /// [`Stuck`] when there is nothing to wait for, or when waiting does not help.
    pub fn wait(&mut self, timers: &[Option<Instant>]) -> Result<Instant, Stuck> {
        let late = Span::ns(self.random.below(self.lateness.as_ns() + 1));
        let timer = timers.iter().flatten().min().map(|at| at.after(late));
        let next = timer.into_iter().chain(self.net.next_arrival()).min().ok_or(Stuck::Stalled)?;
        if next <= self.now() {
            self.idle_steps += 1;
            if self.idle_steps > 1000 {
                return Err(Stuck::Spinning);
            }
        } else {
            self.idle_steps = 0;
        }
        self.net.set_now(next);
        Ok(self.now())
    }
}
