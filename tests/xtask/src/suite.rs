//! The table of checks, the order they run in, the summary.

use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant};

use crate::run::{Counts, Runner, Stop};
use crate::tools::{self, Tool};
use crate::workspace::Workspace;
use crate::{arrows, checks, markers, unsafe_code};

/// One named check.
struct Check {
    name: &'static str,
    what: &'static str,
    needs: &'static [&'static Tool],
    run: fn(&Workspace, &mut Runner) -> Result<(), Stop>,
}

/// In the order they run: what fails fast comes first, what counts tests comes last.
const CHECKS: &[Check] = &[
    Check { name: "fmt", what: "formatting", needs: &[&tools::RUSTFMT], run: checks::fmt },
    Check {
        name: "todo",
        what: "no unfinished work in the source",
        needs: &[],
        run: |it, _| markers::check(it),
    },
    Check {
        name: "unsafe-proofs",
        what: "each unsafe block has its proof, each file its reason",
        needs: &[],
        run: |workspace, _| unsafe_code::report(workspace),
    },
    Check {
        name: "arrows",
        what: "dependencies point one way only",
        needs: &[],
        run: |workspace, _| arrows::check(workspace),
    },
    Check {
        name: "clippy",
        what: "lints, all crates, all features",
        needs: &[&tools::CLIPPY],
        run: checks::clippy,
    },
    Check { name: "msrv", what: "the promised Rust version builds", needs: &[], run: checks::msrv },
    Check {
        name: "features",
        what: "each feature alone and in pairs; core tests without any",
        needs: &[&tools::CLIPPY],
        run: checks::features,
    },
    Check {
        name: "nostd",
        what: "the cores for six targets without std",
        needs: &[&tools::CROSS],
        run: checks::nostd,
    },
    Check { name: "docs", what: "documentation builds without a warning", needs: &[], run: checks::docs },
    Check { name: "doc", what: "examples in the documentation", needs: &[], run: checks::doc },
    Check { name: "sim", what: "simulators and cross-crate tests", needs: &[], run: checks::sim },
    Check { name: "unit", what: "unit and integration tests", needs: &[], run: checks::unit },
];

/// How a check ended.
#[derive(Debug)]
enum End {
    Passed,
    Failed(String),
    Skipped(String),
}

/// One line of the summary.
#[derive(Debug)]
struct Line {
    name: &'static str,
    end: End,
    took: Duration,
    counts: Counts,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.end {
            End::Passed => "ok",
            End::Failed(_) => "FAILED",
            End::Skipped(_) => "skipped",
        };
        write!(f, "{:<14} {word:<8} {:>7.1} s", self.name, self.took.as_secs_f64())?;
        if !self.counts.is_empty() {
            write!(f, "   {}", self.counts)?;
        }
        match &self.end {
            End::Passed => Ok(()),
            End::Failed(why) | End::Skipped(why) => {
                write!(f, "   {}", why.lines().next().unwrap_or_default())
            }
        }
    }
}

/// Runs the checks that `args` name, or all.
///
/// # Errors
///
/// [`Stop::Failed`] with the names of the checks that failed; a check that this machine cannot run is one of them when
/// `--strict` is given.
pub(crate) fn main(args: &[&str]) -> Result<(), Stop> {
    let mut strict = false;
    let mut chosen: Vec<&Check> = Vec::new();
    for arg in args {
        match *arg {
            "--strict" => strict = true,
            "--list" => {
                for check in CHECKS {
                    println!("{:<14} {}", check.name, check.what);
                }
                return Ok(());
            }
            name => chosen.push(CHECKS.iter().find(|check| check.name == name).ok_or_else(|| {
                Stop::failed(format!("no check named `{name}`; see cargo xtask test --list"))
            })?),
        }
    }
    if chosen.is_empty() {
        chosen = CHECKS.iter().collect();
    }
    if strict {
        let tools: Vec<&Tool> = chosen.iter().flat_map(|check| check.needs).copied().collect();
        tools::install_missing(&tools)?;
    }
    let workspace = Workspace::load()?;
    let lines: Vec<Line> = chosen.iter().map(|check| run(check, &workspace, strict)).collect();
    summary(&lines)
}

fn run(check: &Check, workspace: &Workspace, strict: bool) -> Line {
    println!("\n== {}: {}", check.name, check.what);
    let start = Instant::now();
    let mut runner = Runner::default();
    let missing = check.needs.iter().find(|tool| !tool.is_there());
    let result = match missing {
        Some(tool) => Err(Stop::Skipped { why: format!("no {} here", tool.name), install: tool.install() }),
        None => (check.run)(workspace, &mut runner),
    };
    let end = match result {
        Ok(()) => End::Passed,
        Err(Stop::Failed(why)) => End::Failed(why),
        Err(skipped @ Stop::Skipped { .. }) if strict => End::Failed(skipped.to_string()),
        Err(skipped @ Stop::Skipped { .. }) => End::Skipped(skipped.to_string()),
    };
    if let End::Failed(why) | End::Skipped(why) = &end {
        println!("{why}");
    }
    let line = Line { name: check.name, end, took: start.elapsed(), counts: runner.counts };
    println!("== {line}");
    line
}

/// Prints the table and, alone on the last line, the sum of what the test runners counted.
fn summary(lines: &[Line]) -> Result<(), Stop> {
    let mut total = Counts::default();
    println!("\nsummary");
    for line in lines {
        println!("  {line}");
        total.add(line.counts);
    }
    let failed: Vec<&str> =
        lines.iter().filter(|line| matches!(line.end, End::Failed(_))).map(|line| line.name).collect();
    if !failed.is_empty() {
        println!("checks that failed: {}", failed.join(" "));
    }
    if !total.is_empty() {
        println!("{total}");
    }
    std::io::stdout().flush()?;
    if failed.is_empty() { Ok(()) } else { Err(Stop::failed(format!("failed: {}", failed.join(" ")))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &'static str, end: End, passed: u64) -> Line {
        Line { name, end, took: Duration::ZERO, counts: Counts { passed, failed: 0, skipped: 0 } }
    }

    #[test]
    fn names_of_checks_are_unique() {
        let mut names: Vec<&str> = CHECKS.iter().map(|check| check.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CHECKS.len());
    }

    #[test]
    fn an_unknown_name_is_refused_before_anything_runs() {
        assert!(matches!(main(&["fmt", "no-such-check"]), Err(Stop::Failed(_))));
    }

    #[test]
    fn one_failed_check_fails_the_run_and_a_skipped_one_does_not() {
        assert!(summary(&[line("a", End::Passed, 1), line("b", End::Skipped("no tool".into()), 0)]).is_ok());
        assert!(summary(&[line("a", End::Passed, 1), line("b", End::Failed("broken".into()), 0)]).is_err());
    }
}
