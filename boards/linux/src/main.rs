//! The groundplane program: a telemetry gateway, its nodes, and the tools around the log.
//!
//! `groundplane` without a command starts a gateway with one embedded node; it needs no privilege and no set-up.
#![deny(unsafe_code)]
#![allow(
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "a hosted program: std is what it has"
)]
#![allow(clippy::print_stdout, reason = "its output is for people and pipes")]

mod export;
mod log_tool;
mod run_gateway;
mod run_node;
mod sensors;
mod web;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Telemetry that is on disk before it is acknowledged.
#[derive(Parser)]
#[command(name = "groundplane", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    gateway: GatewayArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Take samples from nodes into a log, and show them on a page.
    Gateway(GatewayArgs),
    /// Sample this host and deliver to a gateway.
    Node(NodeArgs),
    /// Look into log files.
    Log {
        #[command(subcommand)]
        command: LogCommand,
    },
}

#[derive(Args, Clone)]
struct GatewayArgs {
    /// Directory of the log.
    #[arg(long, default_value = "groundplane-log")]
    dir: PathBuf,
    /// Where nodes reach the gateway (UDP).
    #[arg(long, default_value = "127.0.0.1:7253")]
    listen: SocketAddr,
    /// Where the page is.
    #[arg(long, default_value = "127.0.0.1:8253")]
    page: SocketAddr,
    /// Start no embedded node.
    #[arg(long)]
    no_node: bool,
    /// Samples a second of the embedded node.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Budget of the log in MiB; the oldest segments make way.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(64..))]
    budget_mib: u64,
    /// End by itself after this time, for example 10s or 2m.
    #[arg(long = "for", value_parser = duration)]
    run_for: Option<Duration>,
    /// Print JSON lines; the last one is the summary.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Clone)]
struct NodeArgs {
    /// The gateway's address.
    #[arg(long)]
    gateway: SocketAddr,
    /// This node's number at the gateway.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    id: u32,
    /// Its name.
    #[arg(long, default_value = "node")]
    name: String,
    /// Samples a second.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// What to keep when memory runs out while no gateway answers.
    #[arg(long, value_enum, default_value = "newest")]
    keep: KeepArg,
    /// End by itself after this time, for example 10s or 2m.
    #[arg(long = "for", value_parser = duration)]
    run_for: Option<Duration>,
    /// Print JSON lines; the last one is the summary.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum KeepArg {
    Newest,
    Oldest,
}

#[derive(Subcommand)]
enum LogCommand {
    /// Check every frame and record; exit 1 when something is damaged.
    Verify {
        /// Segments, or directories of them.
        files: Vec<PathBuf>,
        /// Print JSON lines.
        #[arg(long)]
        json: bool,
    },
    /// Print one line for each sample.
    Cat {
        /// Segments, or directories of them.
        files: Vec<PathBuf>,
        /// Print JSON lines instead of CSV.
        #[arg(long)]
        json: bool,
    },
}

/// `10s`, `2m`, `1h`, `500ms`, or a plain number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| format!("{text} is not a time; try 10s"))?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("{unit} is not a unit of time; try ms, s, m or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => run_gateway::run(&cli.gateway),
        Some(Command::Gateway(args)) => run_gateway::run(&args),
        Some(Command::Node(args)) => run_node::run(&args),
        Some(Command::Log { command: LogCommand::Verify { files, json } }) => {
            return log_tool::verify(&files, json);
        }
        Some(Command::Log { command: LogCommand::Cat { files, json } }) => log_tool::cat(&files, json),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("groundplane: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_units() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        assert!(duration("ten").is_err() && duration("5y").is_err() && duration("-1s").is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
