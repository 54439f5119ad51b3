//! CUBIC (RFC 9438) in integers.
//!
//! Time is in milliseconds and the window in bytes, so that with C = 0.4 segments per second cubed
//! `W(t) = W_max + 0.4 · datagram · (t − K)³ / 10⁹`; the cube of up to 100 s fits 64 bits.

use hal::time::Instant;

use super::hystart::{Growth, HyStart};
use super::{Ack, Congestion};

/// RFC 9438, 4.6: the window falls to seven tenths.
const BETA_TENTHS: u64 = 7;
/// Longest distance from the plateau that is told apart.
const FAR_MS: i64 = 100_000;

/// CUBIC with HyStart++: the default.
#[derive(Clone, Copy, Debug)]
pub struct Cubic {
    datagram: u32,
    cwnd: u32,
    ssthresh: u32,
    hystart: HyStart,
    recovery_start: Option<Instant>,
    /// Of the growth function since the latest reduction; `None` until congestion avoidance starts.
    epoch: Option<Epoch>,
    w_max: u32,
    /// Growth of less than a byte that is left over, in units of 1 / cwnd.
    carry: u64,
    before: Option<Before>,
}

#[derive(Clone, Copy, Debug)]
struct Epoch {
    start: Instant,
    /// Milliseconds from the start to the plateau.
    k_ms: i64,
    /// Window at the start.
    cwnd: u32,
    /// What Reno would have by now, and its left-over growth.
    reno: u32,
    reno_carry: u64,
}

/// What a response is undone to.
#[derive(Clone, Copy, Debug)]
struct Before {
    cwnd: u32,
    ssthresh: u32,
    w_max: u32,
    epoch: Option<Epoch>,
}

impl Cubic {
    const fn minimum(&self) -> u32 {
        2 * self.datagram
    }

    fn avoid(&mut self, ack: &Ack) {
        let (cwnd, datagram) = (u64::from(self.cwnd), u64::from(self.datagram));
        if self.epoch.is_none() {
            self.w_max = self.w_max.max(self.cwnd);
        }
        let w_max = self.w_max;
        let epoch = self.epoch.get_or_insert_with(|| {
            // RFC 9438, 4.2: K = cbrt((W_max - cwnd) / C), here in ms: (bytes / datagram) · 10⁹ / 0.4.
            let below = u64::from(w_max - self.cwnd) * 2_500_000_000 / datagram;
            let k_ms = i64::from(cbrt(below));
            Epoch { start: ack.now, k_ms, cwnd: self.cwnd, reno: self.cwnd, reno_carry: 0 }
        });
        let at = ack.now.since(epoch.start).plus(ack.srtt).as_ms();
        let t = (i64::try_from(at).unwrap_or(FAR_MS) - epoch.k_ms).clamp(-FAR_MS, FAR_MS);
        let growth = t * t * t / 1_000_000 * i64::from(self.datagram) / 2_500;
        let target = (i64::from(w_max) + growth).clamp(i64::from(self.cwnd), i64::from(self.cwnd) * 3 / 2);
        // RFC 9438, 4.4: (target - cwnd) / cwnd for each acknowledged byte.
        let ahead = u64::try_from(target).unwrap_or(cwnd) - cwnd;
        self.carry += ahead * u64::from(ack.bytes);
        let grow = u32::try_from(self.carry / cwnd).unwrap_or(u32::MAX);
        self.carry %= cwnd;
        // RFC 9438, 4.3: Reno with the same reduction grows by 3 · (1 - 0.7) / (1 + 0.7) = 9 / 17 of a datagram a round
        // trip, and by a whole one once it is where the window was before.
        let (share, of) = if epoch.reno < w_max { (9, 17) } else { (1, 1) };
        epoch.reno_carry += datagram * u64::from(ack.bytes) * share / of;
        epoch.reno = epoch.reno.saturating_add(u32::try_from(epoch.reno_carry / cwnd).unwrap_or(u32::MAX));
        epoch.reno_carry %= cwnd;
        self.cwnd = self.cwnd.saturating_add(grow).max(epoch.reno.max(epoch.cwnd));
    }
}

impl Congestion for Cubic {
    fn new(datagram: u32) -> Self {
        Self {
            datagram,
            cwnd: 10 * datagram, // RFC 6928
            ssthresh: u32::MAX,
            hystart: HyStart::new(),
            recovery_start: None,
            epoch: None,
            w_max: 0,
            carry: 0,
            before: None,
        }
    }

    fn set_datagram(&mut self, datagram: u32) {
        self.datagram = datagram.max(1);
        self.cwnd = self.cwnd.max(self.minimum());
        self.epoch = None;
    }

    fn window(&self) -> u32 {
        self.cwnd
    }

    fn is_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    fn on_ack(&mut self, ack: &Ack) {
        if self.recovery_start.is_some_and(|start| ack.sent <= start) {
            return;
        }
        if !ack.limited {
            // RFC 9438, 4.2: time without demand is no time of growth.
            self.epoch = None;
            return;
        }
        if !self.is_slow_start() {
            return self.avoid(ack);
        }
        match self.hystart.on_ack(ack) {
            // Once lost packets have set a threshold, plain slow start leads up to it (RFC 9406, 4.3).
            Growth::Stop if self.ssthresh == u32::MAX => self.ssthresh = self.cwnd,
            Growth::By(bytes) if self.ssthresh == u32::MAX => self.cwnd = self.cwnd.saturating_add(bytes),
            _ => self.cwnd = self.cwnd.saturating_add(ack.bytes),
        }
    }

    fn on_congestion(&mut self, now: Instant, sent: Instant) -> bool {
        if self.recovery_start.is_some_and(|start| sent <= start) {
            return false;
        }
        let Self { cwnd, ssthresh, w_max, epoch, .. } = *self;
        self.before = Some(Before { cwnd, ssthresh, w_max, epoch });
        self.recovery_start = Some(now);
        let times = |tenths: u64, over: u64| u32::try_from(u64::from(cwnd) * tenths / over).unwrap_or(cwnd);
        // RFC 9438, 4.7: below the last maximum, give way to newcomers.
        self.w_max = if cwnd < w_max { times(10 + BETA_TENTHS, 20) } else { cwnd };
        self.cwnd = times(BETA_TENTHS, 10).max(self.minimum());
        self.ssthresh = self.cwnd;
        self.epoch = None;
        self.carry = 0;
        true
    }

    fn on_spurious(&mut self) {
        if let Some(before) = self.before.take() {
            self.cwnd = self.cwnd.max(before.cwnd);
            self.ssthresh = before.ssthresh;
            self.w_max = before.w_max;
            self.epoch = before.epoch;
            self.recovery_start = None;
        }
    }

    fn on_persistent(&mut self, now: Instant) {
        self.on_congestion(now, now);
        self.before = None;
        self.cwnd = self.minimum();
    }
}

/// The integer cube root.
fn cbrt(value: u64) -> u32 {
    let mut root = 0u64;
    for bit in (0..22).rev() {
        let next = root | 1 << bit;
        if next * next * next <= value {
            root = next;
        }
    }
    u32::try_from(root).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hal::time::Span;

    #[test]
    fn cube_roots_are_exact() {
        for n in [0u64, 1, 2, 7, 8, 9, 26, 27, 1000, 999, 1001, 1 << 60] {
            let root = u64::from(cbrt(n));
            assert!(root.pow(3) <= n && (root + 1).pow(3) > n, "{n}: {root}");
        }
    }

    /// Acknowledges a window each 50 ms and returns the window after `rounds`.
    fn rounds(cubic: &mut Cubic, now: &mut Instant, rounds: u64) -> u32 {
        for _ in 0..rounds {
            let sent = *now;
            *now = now.after(Span::ms(50));
            let bytes = cubic.window() / 10;
            for _ in 0..10 {
                cubic.on_ack(&Ack::new(*now, sent, bytes));
            }
        }
        cubic.window()
    }

    /// RFC 9438, 4.2: from 0.7 `W_max` the window is back at `W_max` after K seconds, flat there, and grows beyond.
    #[test]
    fn the_window_follows_the_cubic_function() {
        let mut cubic = Cubic::new(1000);
        cubic.cwnd = 400_000;
        cubic.ssthresh = 1;
        let mut now = Instant::ZERO.after(Span::secs(1));
        cubic.on_congestion(now, now);
        assert_eq!(cubic.window(), 280_000);
        // K = cbrt(120 / 0.4) = 6.69 s = 134 rounds of 50 ms.
        let early = rounds(&mut cubic, &mut now, 40);
        assert!((350_000..375_000).contains(&early), "{early}");
        let plateau = rounds(&mut cubic, &mut now, 94);
        assert!((398_000..404_000).contains(&plateau), "{plateau}");
        let late = rounds(&mut cubic, &mut now, 100);
        assert!((440_000..470_000).contains(&late), "{late}");
    }

    /// RFC 9438, 4.3: on short paths CUBIC grows no slower than Reno.
    #[test]
    fn small_windows_grow_as_reno_does() {
        let mut cubic = Cubic::new(1000);
        (cubic.cwnd, cubic.ssthresh) = (20_000, 1);
        let mut now = Instant::ZERO.after(Span::secs(1));
        cubic.on_congestion(now, now);
        let after = rounds(&mut cubic, &mut now, 40);
        assert!(after >= 14_000 + 40 * 1000 / 2, "{after}");
    }

    #[test]
    fn extreme_inputs_neither_overflow_nor_shrink() {
        let mut cubic = Cubic::new(65_535);
        (cubic.cwnd, cubic.ssthresh) = (u32::MAX, 1);
        cubic.on_congestion(Instant::ZERO, Instant::ZERO);
        let sent = Instant::from_ns(1);
        for now in [Instant::from_ns(2), Instant::ZERO.after(Span::secs(1 << 30)), Instant::FAR] {
            let before = cubic.window();
            cubic.on_ack(&Ack::new(now, sent, u32::MAX));
            assert!(cubic.window() >= before);
        }
    }

    #[test]
    fn a_spurious_loss_gives_everything_back() {
        let mut cubic = Cubic::new(1000);
        (cubic.cwnd, cubic.w_max) = (50_000, 60_000);
        cubic.on_congestion(Instant::from_ns(9), Instant::from_ns(5));
        assert_eq!((cubic.window(), cubic.w_max), (35_000, 42_500));
        cubic.on_spurious();
        assert_eq!((cubic.window(), cubic.w_max, cubic.is_slow_start()), (50_000, 60_000, true));
    }
}
