//! Interrupt lines: the controller port.
//!
//! Chips disagree on which way priority numbers run (lower is more urgent on NVIC, higher on PLIC), so [`Level`] fixes
//! one meaning, 0 the least urgent, and implements no `Ord`: ask [`Level::preempts`]. What a chip cannot do is an error
//! value, [`IrqError::Fixed`], for example a software trigger on a PLIC.

use core::fmt;

/// An interrupt line of a controller, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Line(pub u16);

/// How urgent a line is: 0 is the least urgent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Level(pub u8);

impl Level {
    /// Whether a line of this level interrupts a handler of level `other`.
    ///
    /// ```
    /// use hal::irq::Level;
    /// assert!(Level(3).preempts(Level(2)));
    /// assert!(!Level(2).preempts(Level(2)));
    /// ```
    pub const fn preempts(self, other: Self) -> bool {
        self.0 > other.0
    }
}

/// Why a controller refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum IrqError {
    /// The chip does not have this line.
    NoSuchLine,
    /// The chip does not have this level.
    NoSuchLevel,
    /// The chip cannot do this: the level or the trigger of the line is wired.
    Fixed,
}

impl fmt::Display for IrqError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuchLine => "the controller has no such interrupt line",
            Self::NoSuchLevel => "the controller has no such priority level",
            Self::Fixed => "the controller cannot change this in software",
        })
    }
}

impl core::error::Error for IrqError {}

/// The interrupt controller port: NVIC, PLIC, GIC, or a fake.
pub trait IrqController {
    /// How many levels the chip has, at least 1.
    fn levels(&self) -> u8;
    /// Gives a line a level.
    ///
    /// # Errors
    ///
    /// [`IrqError::NoSuchLine`], [`IrqError::NoSuchLevel`], or [`IrqError::Fixed`] where levels are wired.
    fn set_level(&mut self, line: Line, level: Level) -> Result<(), IrqError>;
    /// Lets a line interrupt.
    ///
    /// # Errors
    ///
    /// [`IrqError::NoSuchLine`].
    fn unmask(&mut self, line: Line) -> Result<(), IrqError>;
    /// Keeps a line from interrupting; an edge that comes meanwhile stays pending.
    ///
    /// # Errors
    ///
    /// [`IrqError::NoSuchLine`].
    fn mask(&mut self, line: Line) -> Result<(), IrqError>;
    /// Triggers a line from software.
    ///
    /// # Errors
    ///
    /// [`IrqError::NoSuchLine`], or [`IrqError::Fixed`] where the chip has no software trigger (PLIC).
    fn pend(&self, line: Line) -> Result<(), IrqError>;
    /// The line to handle now: PLIC claim, GIC IAR, NVIC active vector.
    fn claim(&self) -> Option<Line>;
    /// The claimed line has been handled. Nothing on NVIC.
    fn complete(&self, line: Line);
}
