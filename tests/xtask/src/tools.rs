//! Outside programs: how to find them and what installs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::run::Stop;

/// A program or a part of the toolchain that some check needs.
#[derive(Debug)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    found: fn() -> bool,
    /// Debian packages that bring it; empty when none does.
    packages: &'static [&'static str],
    /// What to type where Debian's packages are of no use.
    otherwise: &'static str,
}

pub(crate) const RUSTFMT: Tool = Tool {
    name: "rustfmt",
    found: || answers("cargo", &["fmt", "--version"]),
    packages: &[],
    otherwise: "rustup component add rustfmt",
};

pub(crate) const CLIPPY: Tool = Tool {
    name: "clippy",
    found: || answers("cargo", &["clippy", "--version"]),
    packages: &[],
    otherwise: "rustup component add clippy",
};

/// A compiler with the library's sources, for targets that are not installed.
pub(crate) const CROSS: Tool = Tool {
    name: "cross toolchain",
    found: crate::cross::is_there,
    packages: &["rustc-web", "rust-web-src", "lld-22"],
    otherwise: "rustup target add thumbv6m-none-eabi thumbv7m-none-eabi thumbv7em-none-eabihf \
                riscv32imac-unknown-none-elf aarch64-unknown-none i686-unknown-linux-gnu",
};

impl Tool {
    /// True when this machine has it.
    pub(crate) fn is_there(&self) -> bool {
        (self.found)()
    }

    /// The command that brings it to this machine.
    pub(crate) fn install(&self) -> String {
        if self.packages.is_empty() || in_path("apt-get").is_none() {
            return self.otherwise.to_owned();
        }
        format!("apt-get install --no-install-recommends {}", self.packages.join(" "))
    }
}

/// Installs what is missing of `tools` with apt, where this is Debian and we are root. What stays missing shows when its
/// check runs.
///
/// # Errors
///
/// [`Stop::Failed`] when apt-get cannot be started.
pub(crate) fn install_missing(tools: &[&Tool]) -> Result<(), Stop> {
    let mut packages: Vec<&str> =
        tools.iter().filter(|tool| !tool.is_there()).flat_map(|tool| tool.packages).copied().collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() || in_path("apt-get").is_none() || !is_root() {
        return Ok(());
    }
    println!("installing {}", packages.join(" "));
    apt(&["update", "-qq"])?;
    if !apt(&[&["install", "-y", "-qq", "--no-install-recommends"], packages.as_slice()].concat())? {
        // One package that is not to be had must not take the others with it.
        for package in packages {
            apt(&["install", "-y", "-qq", "--no-install-recommends", package])?;
        }
    }
    Ok(())
}

fn apt(args: &[&str]) -> Result<bool, Stop> {
    let status = Command::new("apt-get")
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|error| Stop::failed(format!("cannot start apt-get: {error}")))?;
    Ok(status.success())
}

/// True for the superuser.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    // The owner of /proc/self is the effective user of this process (proc(5)).
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// Where a program lies, looked for in `PATH` and in the places that a user's `PATH` leaves out.
pub(crate) fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| Path::is_file(file))
}

fn answers(program: &str, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
