//! The interrupt controller: lines, levels, deadlines.
//!
//! ```text
//! trigger(line) ── pending + time of arrival ── kick(level) ──> platform ──> dispatch(level)
//!                                                                              │ pending line of the level with
//!                                                                              │ the earliest deadline, until none
//!                                                                              v
//!                                                                        Handler::run(activation)
//! ```
//!
//! - A line *coalesces*: triggered again while it is pending, it keeps its first time of arrival and counts the rest, so
//!   that a late handler cannot look punctual.
//! - Inside a level handlers run to completion, earliest deadline first; between levels the platform preempts.
//! - A deadline is checked when the handler starts (a hopeless activation can be skipped, [`OnMiss`]) and when it ends.
//!
//! The state of the lines is touched only inside the platform's critical section, for one line or for one scan over all
//! lines; a handler runs outside it. At every moment
//! *triggered = handled + coalesced + refused + skipped + pending* holds for each line.
//!
//! # Examples
//!
//! ```
//! use core::cell::Cell;
//! use hal::irq::{Level, Line};
//! use hal::time::{Instant, Span};
//! use rt_irq::port::Platform;
//! use rt_irq::{Activation, Controller, LineConfig};
//! # use core::sync::atomic::{AtomicU64, AtomicU32, Ordering::Relaxed};
//! # struct Virtual(AtomicU64);
//! # impl Platform for Virtual {
//! #     type Saved = ();
//! #     fn now(&self) -> Instant { Instant::from_ns(self.0.load(Relaxed)) }
//! #     fn levels(&self) -> u8 { 4 }
//! #     fn kick(&self, _: Level) {}
//! #     fn enter(&self) {}
//! #     fn exit(&self, (): ()) {}
//! #     fn ceiling(&self, _: Option<Level>) -> Option<Level> { None }
//! #     fn arm_budget(&self, _: Level, _: Option<Instant>) {}
//! # }
//! let ticks = AtomicU32::new(0);
//! let handler = |_: &Activation| { ticks.fetch_add(1, Relaxed); };
//! let mut irq: Controller<'_, Virtual, 4> = Controller::new(Virtual(AtomicU64::new(0)));
//! irq.register(Line(2), LineConfig::new(Level(3), Span::ms(1)), &handler).unwrap();
//! irq.trigger(Line(2)); // from anywhere, for example an interrupt handler
//! irq.dispatch(Level(3)); // the platform does this
//! assert_eq!((ticks.load(Relaxed), irq.stats(Line(2)).handled), (1, 1));
//! ```
#![allow(unsafe_code, reason = "line state is shared between contexts under the platform's critical section")]

use core::cell::UnsafeCell;
use core::fmt;

use hal::irq::{Level, Line};
use hal::time::{Instant, Span};

use crate::histogram::Histogram;
use crate::port::Platform;

/// What a handler is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Activation {
    /// Which line.
    pub line: Line,
    /// When it was triggered first.
    pub arrived: Instant,
    /// When its handler started.
    pub started: Instant,
    /// When it has to be finished.
    pub deadline: Instant,
    /// Triggers that were merged into this one, itself not counted.
    pub coalesced: u32,
}

/// Runs when a line was triggered. One activation of a line runs at a time.
pub trait Handler: Sync {
    /// Handles the activation; bounded time, no waiting.
    fn run(&self, activation: &Activation);
}

impl<F: Fn(&Activation) + Sync> Handler for F {
    fn run(&self, activation: &Activation) {
        self(activation);
    }
}

/// What to do with an activation whose deadline has passed before its handler starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnMiss {
    /// Run it all the same.
    #[default]
    RunLate,
    /// Count it and leave it out.
    Skip,
}

/// Choices for a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LineConfig {
    /// How urgent it is.
    pub level: Level,
    /// From arrival to the end of the handler.
    pub deadline: Span,
    /// For a deadline that has passed before the handler starts.
    pub on_miss: OnMiss,
}

impl LineConfig {
    /// A line of `level` that has to be handled within `deadline`, late rather than never.
    pub const fn new(level: Level, deadline: Span) -> Self {
        Self { level, deadline, on_miss: OnMiss::RunLate }
    }

    /// What to do when it is late before it starts.
    #[must_use]
    pub const fn on_miss(mut self, on_miss: OnMiss) -> Self {
        self.on_miss = on_miss;
        self
    }
}

/// Why a line was not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterError {
    /// The controller has fewer lines.
    NoSuchLine,
    /// The platform has fewer levels.
    NoSuchLevel,
    /// A deadline of no time cannot be met.
    NoDeadline,
    /// The line has a handler already.
    Taken,
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuchLine => "the controller has no such line",
            Self::NoSuchLevel => "the platform has no such level",
            Self::NoDeadline => "a deadline of no time cannot be met",
            Self::Taken => "the line has a handler already",
        })
    }
}

impl core::error::Error for RegisterError {}

/// Counters and latencies of a line. Times in ns.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LineStats {
    /// Calls of `trigger`.
    pub triggered: u64,
    /// Activations whose handler has run.
    pub handled: u64,
    /// Triggers that found the line pending.
    pub coalesced: u64,
    /// Triggers of a masked line or of one without a handler.
    pub refused: u64,
    /// Activations that were left out because they were late.
    pub skipped: u64,
    /// Deadlines that had passed when the handler started; part of `missed`.
    pub late_start: u64,
    /// Deadlines that were missed, skipped activations included.
    pub missed: u64,
    /// From arrival to the start of the handler.
    pub latency: Histogram,
    /// From the start of the handler to its end.
    pub execution: Histogram,
}

struct LineState<'h> {
    config: LineConfig,
    handler: Option<&'h dyn Handler>,
    masked: bool,
    pending: bool,
    arrived: Instant,
    coalesced: u32,
    stats: LineStats,
}

struct LineCell<'h>(UnsafeCell<LineState<'h>>);

// SAFETY: the state is reached only through `Controller::with`, that is inside the platform's critical section, or
// through a `&mut Controller`; `LineState` holds plain data and a reference to a `Sync` handler, which may be used from
// any context.
unsafe impl Sync for LineCell<'_> {}

/// The controller of `LINES` lines. Lives in a `static` or on the stack of the program's main function.
pub struct Controller<'h, P, const LINES: usize = 256> {
    platform: P,
    lines: [LineCell<'h>; LINES],
}

impl<P, const LINES: usize> fmt::Debug for Controller<'_, P, LINES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller").field("lines", &LINES).finish_non_exhaustive()
    }
}

impl<'h, P: Platform, const LINES: usize> Controller<'h, P, LINES> {
    /// A controller without handlers.
    pub const fn new(platform: P) -> Self {
        Self {
            platform,
            lines: [const {
                LineCell(UnsafeCell::new(LineState {
                    config: LineConfig::new(Level(0), Span::MAX),
                    handler: None,
                    masked: false,
                    pending: false,
                    arrived: Instant::ZERO,
                    coalesced: 0,
                    stats: LineStats {
                        triggered: 0,
                        handled: 0,
                        coalesced: 0,
                        refused: 0,
                        skipped: 0,
                        late_start: 0,
                        missed: 0,
                        latency: Histogram::new(),
                        execution: Histogram::new(),
                    },
                }))
            }; LINES],
        }
    }

    /// The platform.
    pub const fn platform(&self) -> &P {
        &self.platform
    }

    /// Gives a line its handler.
    ///
    /// # Errors
    ///
    /// [`RegisterError`] for a line or level that is not there, a deadline of no time, or a line that has a handler.
    pub fn register(
        &mut self,
        line: Line,
        config: LineConfig,
        handler: &'h dyn Handler,
    ) -> Result<(), RegisterError> {
        if config.level.0 >= self.platform.levels() {
            return Err(RegisterError::NoSuchLevel);
        }
        if config.deadline == Span::ZERO {
            return Err(RegisterError::NoDeadline);
        }
        let cell = self.lines.get_mut(usize::from(line.0)).ok_or(RegisterError::NoSuchLine)?;
        let state = cell.0.get_mut();
        if state.handler.is_some() {
            return Err(RegisterError::Taken);
        }
        state.handler = Some(handler);
        state.config = config;
        Ok(())
    }

    /// Triggers a line, from any context, interrupt handlers included. A line that is not there changes nothing; one
    /// without a handler or masked counts the trigger as refused.
    pub fn trigger(&self, line: Line) {
        let now = self.platform.now();
        let kick = self.with(line, |state| {
            state.stats.triggered += 1;
            if state.handler.is_none() || state.masked {
                state.stats.refused += 1;
                return None;
            }
            if state.pending {
                state.stats.coalesced += 1;
                state.coalesced = state.coalesced.saturating_add(1);
                return None;
            }
            state.pending = true;
            state.arrived = now;
            state.coalesced = 0;
            Some(state.config.level)
        });
        if let Some(level) = kick.flatten() {
            self.platform.kick(level);
        }
    }

    /// Runs the pending handlers of `level`, earliest deadline first, until none is pending. Called by the platform, one
    /// activation of a level at a time.
    pub fn dispatch(&self, level: Level) {
        while let Some((activation, handler, config)) = self.claim(level) {
            let late = activation.started > activation.deadline;
            let latency = activation.started.since(activation.arrived).as_ns();
            let skip = late && config.on_miss == OnMiss::Skip;
            if !skip {
                handler.run(&activation);
            }
            let finished = self.platform.now();
            self.with(activation.line, |state| {
                let stats = &mut state.stats;
                stats.late_start += u64::from(late);
                stats.missed += u64::from(finished > activation.deadline);
                if skip {
                    stats.skipped += 1;
                } else {
                    stats.handled += 1;
                    stats.latency.record(latency);
                    stats.execution.record(finished.since(activation.started).as_ns());
                }
            });
        }
    }

    /// Whether a line of `level` is pending.
    pub fn is_pending(&self, level: Level) -> bool {
        self.earliest(level).is_some()
    }

    /// Keeps triggers of a line away; a pending activation still runs. False: no such line.
    pub fn mask(&self, line: Line) -> bool {
        self.with(line, |state| state.masked = true).is_some()
    }

    /// Lets triggers of a line through again. False: no such line.
    pub fn unmask(&self, line: Line) -> bool {
        self.with(line, |state| state.masked = false).is_some()
    }

    /// Counters of a line now; all 0 for a line that is not there.
    pub fn stats(&self, line: Line) -> LineStats {
        self.with(line, |state| state.stats.clone()).unwrap_or_default()
    }

    /// Takes the pending line of `level` that is due first.
    fn claim(&self, level: Level) -> Option<(Activation, &'h dyn Handler, LineConfig)> {
        let line = self.earliest(level)?;
        self.with(line, |state| {
            let handler = state.handler?;
            state.pending = false;
            let started = self.platform.now();
            let (arrived, coalesced) = (state.arrived, state.coalesced);
            let deadline = arrived.after(state.config.deadline);
            Some((Activation { line, arrived, started, deadline, coalesced }, handler, state.config))
        })
        .flatten()
    }

    /// Only the dispatch of a level takes lines of it off, so what this finds is still pending when it is claimed.
    fn earliest(&self, level: Level) -> Option<Line> {
        let mut best: Option<(Instant, Line)> = None;
        for index in 0..u16::try_from(LINES).unwrap_or(u16::MAX) {
            let due = self.with(Line(index), |state| {
                let due = state.arrived.after(state.config.deadline);
                (state.pending && state.config.level == level).then_some(due)
            });
            if let Some(due) = due.flatten()
                && best.is_none_or(|(earliest, _)| due < earliest)
            {
                best = Some((due, Line(index)));
            }
        }
        best.map(|(_, line)| line)
    }

    /// The only way to the state of a line.
    fn with<R>(&self, line: Line, look: impl FnOnce(&mut LineState<'h>) -> R) -> Option<R> {
        let cell = self.lines.get(usize::from(line.0))?;
        let saved = self.platform.enter();
        // SAFETY: a mutable reference needs that nobody else reaches the state while it lives.
        // - other contexts: excluded by the platform's critical section until `exit` below (`Platform::enter`).
        // - this context: the closures of this module call neither `with` nor a handler, so none is nested.
        // - `&mut self` methods reach the state without the section, but then no `&self` exists.
        let result = look(unsafe { &mut *cell.0.get() });
        self.platform.exit(saved);
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use core::cell::RefCell;
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

    #[derive(Default)]
    struct Virtual(AtomicU64);
    impl Virtual {
        fn advance(&self, us: u64) {
            self.0.fetch_add(us * 1000, Relaxed);
        }
    }
    impl Platform for Virtual {
        type Saved = ();
        fn now(&self) -> Instant {
            Instant::from_ns(self.0.load(Relaxed))
        }
        fn levels(&self) -> u8 {
            2
        }
        fn kick(&self, _level: Level) {}
        fn enter(&self) {}
        fn exit(&self, (): ()) {}
        fn ceiling(&self, _to: Option<Level>) -> Option<Level> {
            None
        }
        fn arm_budget(&self, _level: Level, _at: Option<Instant>) {}
    }

    struct Trace<'a>(&'a RefCell<Vec<u16>>, &'a Virtual, u64);
    // SAFETY: the tests run on one thread.
    unsafe impl Sync for Trace<'_> {}
    impl Handler for Trace<'_> {
        fn run(&self, activation: &Activation) {
            self.0.borrow_mut().push(activation.line.0);
            self.1.advance(self.2);
        }
    }

    fn balanced(stats: &LineStats, pending: u64) -> bool {
        stats.triggered == stats.handled + stats.coalesced + stats.refused + stats.skipped + pending
    }

    #[test]
    fn inside_a_level_the_earliest_deadline_runs_first() {
        let (clock, order) = (Virtual::default(), RefCell::default());
        let handler = Trace(&order, &clock, 1);
        let mut irq: Controller<'_, &Virtual, 4> = Controller::new(&clock);
        for (line, deadline) in [(0, 900), (1, 300), (2, 600)] {
            irq.register(Line(line), LineConfig::new(Level(1), Span::us(deadline)), &handler).unwrap();
        }
        irq.register(Line(3), LineConfig::new(Level(0), Span::us(1)), &handler).unwrap();
        (0..4).for_each(|line| irq.trigger(Line(line)));
        irq.dispatch(Level(1));
        assert_eq!(*order.borrow(), [1, 2, 0]);
        assert!(irq.is_pending(Level(0)), "another level is not touched");
    }

    #[test]
    fn a_second_trigger_keeps_the_first_arrival() {
        let (clock, order) = (Virtual::default(), RefCell::default());
        let handler = Trace(&order, &clock, 0);
        let mut irq: Controller<'_, &Virtual, 1> = Controller::new(&clock);
        irq.register(Line(0), LineConfig::new(Level(0), Span::us(50)), &handler).unwrap();
        irq.trigger(Line(0));
        clock.advance(40);
        irq.trigger(Line(0));
        clock.advance(20);
        irq.dispatch(Level(0));
        let stats = irq.stats(Line(0));
        assert_eq!((stats.handled, stats.coalesced, stats.missed), (1, 1, 1));
        assert_eq!(stats.latency.max(), 60_000);
        assert!(balanced(&stats, 0));
    }

    #[test]
    fn a_deadline_is_met_at_its_very_end_and_missed_after() {
        for (takes, missed) in [(50, 0), (51, 1)] {
            let (clock, order) = (Virtual::default(), RefCell::default());
            let handler = Trace(&order, &clock, takes);
            let mut irq: Controller<'_, &Virtual, 1> = Controller::new(&clock);
            irq.register(Line(0), LineConfig::new(Level(0), Span::us(50)), &handler).unwrap();
            irq.trigger(Line(0));
            irq.dispatch(Level(0));
            let stats = irq.stats(Line(0));
            assert_eq!((stats.missed, stats.late_start), (missed, 0), "takes {takes} us");
        }
    }

    #[test]
    fn a_hopeless_activation_is_skipped_when_told_so() {
        let (clock, order) = (Virtual::default(), RefCell::default());
        let handler = Trace(&order, &clock, 0);
        let mut irq: Controller<'_, &Virtual, 1> = Controller::new(&clock);
        let config = LineConfig::new(Level(0), Span::us(50)).on_miss(OnMiss::Skip);
        irq.register(Line(0), config, &handler).unwrap();
        irq.trigger(Line(0));
        clock.advance(51);
        irq.dispatch(Level(0));
        let stats = irq.stats(Line(0));
        assert_eq!((stats.handled, stats.skipped, stats.missed, stats.late_start), (0, 1, 1, 1));
        assert!(order.borrow().is_empty() && balanced(&stats, 0));
    }

    #[test]
    fn a_masked_line_refuses_and_a_missing_one_changes_nothing() {
        let (clock, order) = (Virtual::default(), RefCell::default());
        let handler = Trace(&order, &clock, 0);
        let mut irq: Controller<'_, &Virtual, 1> = Controller::new(&clock);
        irq.register(Line(0), LineConfig::new(Level(0), Span::us(50)), &handler).unwrap();
        assert!(irq.mask(Line(0)) && !irq.mask(Line(9)));
        irq.trigger(Line(0));
        irq.trigger(Line(9));
        irq.dispatch(Level(0));
        assert!(irq.unmask(Line(0)));
        irq.trigger(Line(0));
        let stats = irq.stats(Line(0));
        assert_eq!((stats.triggered, stats.refused), (2, 1));
        assert!(balanced(&stats, 1));
    }

    #[test]
    fn what_cannot_work_is_refused_at_registration() {
        let clock = Virtual::default();
        let handler = |_: &Activation| {};
        let mut irq: Controller<'_, &Virtual, 1> = Controller::new(&clock);
        let config = LineConfig::new(Level(1), Span::us(1));
        assert_eq!(irq.register(Line(1), config, &handler), Err(RegisterError::NoSuchLine));
        let no_level = LineConfig::new(Level(2), Span::us(1));
        assert_eq!(irq.register(Line(0), no_level, &handler), Err(RegisterError::NoSuchLevel));
        let no_time = LineConfig::new(Level(1), Span::ZERO);
        assert_eq!(irq.register(Line(0), no_time, &handler), Err(RegisterError::NoDeadline));
        assert_eq!(irq.register(Line(0), config, &handler), Ok(()));
        assert_eq!(irq.register(Line(0), config, &handler), Err(RegisterError::Taken));
    }
}
