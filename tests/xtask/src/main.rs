//! The project's one tool: checks, benches and reports.
//!
//! `cargo xtask test` is what a contributor runs and all that continuous integration runs. Each check has a name and can
//! be run alone; what this machine lacks is skipped with the command that would install it, and `--strict` makes that a
//! failure (as root on Debian it installs what it can first).
//!
//! | module | holds |
//! | --- | --- |
//! | [`suite`] | the table of checks, the order they run in, the summary |
//! | [`checks`] | what each check does |
//! | [`arrows`] | who may depend on whom |
//! | [`cross`] | a `core` and `alloc` for targets that are not installed |
//! | [`unsafe_code`] | which files hold `unsafe`, how much, and whether each has its proof |
//! | [`markers`] | unfinished work left in the source |
//! | [`run`] | commands whose output is streamed and whose closing counts are added up |
//! | [`tools`] | outside programs: how to find them and what installs them |
#![forbid(unsafe_code)]
#![allow(
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "a hosted tool: std is what it has"
)]

mod arrows;
mod checks;
mod cross;
mod markers;
mod run;
mod suite;
mod tools;
mod unsafe_code;
mod workspace;

use std::process::ExitCode;

use run::Stop;
use workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask <command>

  test [name…] [--strict] [--list]   run the checks (all of them, or those named)
  unsafe                             files that allow unsafe code, blocks and proofs
  arrows                             dependency trees, checked against ARCHITECTURE.md
  rustc TRIPLE…                      path of a rustc that can build for these targets
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            eprintln!("xtask: {stop}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[&str]) -> Result<(), Stop> {
    let Some((&command, rest)) = args.split_first() else {
        print!("{USAGE}");
        return Err(Stop::failed("no command given"));
    };
    match command {
        "test" => suite::main(rest),
        "unsafe" => unsafe_code::report(&Workspace::load()?),
        "arrows" => arrows::check(&Workspace::load()?),
        "rustc" => {
            let rustc = cross::Toolchain::for_targets(&Workspace::load()?, rest)?;
            println!("{}", rustc.rustc().display());
            Ok(())
        }
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        other => {
            print!("{USAGE}");
            Err(Stop::failed(format!("no command named `{other}`")))
        }
    }
}
