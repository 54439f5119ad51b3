//! Commands whose output is streamed and whose closing counts are added up.
//!
//! The counts that `xtask` prints are never its own: they are read off the lines with which the runners close
//! (`test result: ok. 3 passed; …` of cargo test, or a plain `3 passed, 0 failed`), while those lines go through to the
//! terminal unchanged.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Longest that one command may take, builds included. A hung test is a failure, not an endless run.
const COMMAND_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Why a check did not pass.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It ran and found something, or could not run at all.
    Failed(String),
    /// This machine lacks something.
    Skipped {
        /// What is missing.
        why: String,
        /// The command that brings it.
        install: String,
    },
}

impl Stop {
    pub(crate) fn failed(why: impl Into<String>) -> Self {
        Self::Failed(why.into())
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) => f.write_str(why),
            Self::Skipped { why, install } => write!(f, "{why} (install: {install})"),
        }
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Tests as their runners counted them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    /// Reads one line of output; anything but a runner's closing line counts nothing.
    pub(crate) fn read(line: &str) -> Self {
        let line = line.trim();
        let body = match line.strip_prefix("test result: ") {
            Some(rest) => rest.split_once(". ").map_or("", |(_, counts)| counts),
            None if is_plain_closing(line) => line,
            None => "",
        };
        let mut counts = Self::default();
        for part in body.split([';', ',']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(word)) = (words.next(), words.next()) else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match word {
                "passed" => counts.passed += number,
                "failed" => counts.failed += number,
                "ignored" | "skipped" => counts.skipped += number,
                _ => {}
            }
        }
        counts
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// `N passed, N failed` with nothing else on the line but perhaps `, N skipped`.
fn is_plain_closing(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |word: &str| word.parse::<u64>().is_ok();
    matches!(words.as_slice(), [n, "passed,", m, "failed"] if number(n) && number(m))
        || matches!(words.as_slice(), [n, "passed,", m, "failed,", k, "skipped"]
            if number(n) && number(m) && number(k))
}

/// Runs commands for one check and keeps what their runners counted.
#[derive(Debug, Default)]
pub(crate) struct Runner {
    pub(crate) counts: Counts,
}

impl Runner {
    /// Runs `command`, streaming its output.
    ///
    /// # Errors
    ///
    /// [`Stop::Failed`] when it cannot start, exits with another status than 0, or takes longer than half an hour.
    pub(crate) fn run(&mut self, command: &mut Command) -> Result<(), Stop> {
        let shown = shown(command);
        println!("  $ {shown}");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child =
            command.spawn().map_err(|error| Stop::failed(format!("cannot start `{shown}`: {error}")))?;
        let timed_out = self.stream(&mut child)?;
        let status = child.wait()?;
        if timed_out {
            return Err(Stop::failed(format!("stopped after {COMMAND_LIMIT:?}: {shown}")));
        }
        if status.success() { Ok(()) } else { Err(Stop::failed(format!("{status}: {shown}"))) }
    }

    /// Passes the child's output on until it ends; true when its time ran out and it was killed.
    fn stream(&mut self, child: &mut Child) -> Result<bool, Stop> {
        let output = child.stdout.take().ok_or_else(|| Stop::failed("no output pipe"))?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while matches!(output.read_until(b'\n', &mut line), Ok(1..)) {
                if sender.send(core::mem::take(&mut line)).is_err() {
                    break;
                }
            }
        });
        let end = Instant::now() + COMMAND_LIMIT;
        loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    std::io::stdout().write_all(&line)?;
                    self.counts.add(Counts::read(&String::from_utf8_lossy(&line)));
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
                Err(RecvTimeoutError::Timeout) => {
                    for pid in family(child.id()) {
                        // Gone already is as good as killed.
                        let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
                    }
                    return Ok(true);
                }
            }
        }
    }
}

/// Runs `command` quietly and returns what it printed.
///
/// # Errors
///
/// [`Stop::Failed`] with its standard error when it cannot start or exits with another status than 0.
pub(crate) fn output(command: &mut Command) -> Result<String, Stop> {
    let shown = shown(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Stop::failed(format!("cannot start `{shown}`: {error}")))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(Stop::failed(format!("{}: {shown}\n{errors}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as one could type it, without its environment.
fn shown(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let mut shown = program.file_name().unwrap_or(command.get_program()).to_string_lossy().into_owned();
    for argument in command.get_args() {
        shown.push(' ');
        shown.push_str(&argument.to_string_lossy());
    }
    shown
}

/// A process and all its descendants, parents first.
fn family(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // proc(5): the parent is the second field after the name, which stands in parentheses.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| pid));
        next += 1;
    }
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_runners_are_counted() {
        let cases = [
            (
                "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.1s",
                12,
                0,
                1,
            ),
            ("test result: FAILED. 7 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out", 7, 2, 0),
            ("3 passed, 1 failed", 3, 1, 0),
            ("3 passed, 0 failed, 2 skipped", 3, 0, 2),
            ("test wire::twelve_passed ... ok", 0, 0, 0),
            ("I saw 3 passed, 1 failed", 0, 0, 0),
            ("", 0, 0, 0),
        ];
        for (line, passed, failed, skipped) in cases {
            assert_eq!(Counts::read(line), Counts { passed, failed, skipped }, "{line}");
        }
    }

    /// Without a closing line: what is streamed here would be counted by whoever runs these tests.
    #[test]
    fn a_failing_command_is_a_failure() {
        let result = Runner::default().run(Command::new("sh").args(["-c", "exit 3"]));
        assert!(matches!(result, Err(Stop::Failed(why)) if why.contains('3')));
    }

    #[test]
    fn a_process_belongs_to_its_own_family() {
        assert_eq!(family(std::process::id()).first(), Some(&std::process::id()));
    }
}
