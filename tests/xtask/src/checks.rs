//! What each check does.

use std::process::Command;

use crate::arrows::CORES;
use crate::cross::Toolchain;
use crate::run::{Runner, Stop, output};
use crate::workspace::{Package, Workspace};

/// Targets that the cores are built for: a Cortex-M0 without compare-and-swap, Cortex-M3 and M4F, a 32-bit RISC-V, a
/// 64-bit Arm without an operating system, and a 32-bit Linux.
pub(crate) const TARGETS: [&str; 6] = [
    "thumbv6m-none-eabi",
    "thumbv7m-none-eabi",
    "thumbv7em-none-eabihf",
    "riscv32imac-unknown-none-elf",
    "aarch64-unknown-none",
    "i686-unknown-linux-gnu",
];

pub(crate) fn fmt(workspace: &Workspace, runner: &mut Runner) -> Result<(), Stop> {
    runner.run(workspace.cargo().args(["fmt", "--all", "--check"]))
}

pub(crate) fn clippy(workspace: &Workspace, runner: &mut Runner) -> Result<(), Stop> {
    runner.run(workspace.cargo().args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "--deny=warnings",
    ]))
}

/// Unit and integration tests of all crates but `tests`, which has checks of its own.
pub(crate) fn unit(workspace: &Workspace, runner: &mut Runner) -> Result<(), Stop> {
    runner.run(workspace.cargo().args([
        "test",
        "--workspace",
        "--all-features",
        "--exclude=groundplane-tests",
        "--no-fail-fast",
        "--lib",
        "--bins",
        "--tests",
    ]))
}

/// The crate `tests`: simulations in virtual time and what needs several crates at once.
pub(crate) fn sim(workspace: &Workspace, runner: &mut Runner) -> Result<(), Stop> {
    runner.run(workspace.cargo().args([
        "test",
        "--package=groundplane-tests",
        "--all-features",
        "--no-fail-fast",
        "--lib",
        "--tests",
    ]))
}

pub(crate) fn doc(workspace: &Workspace, runner: &mut Runner) -> Result<(), Stop> {
    runner.run(workspace.cargo().args(["test", "--workspace", "--all-features", "--no-fail-fast", "--doc"]))
}

/// Every crate with no feature, with each alone and with each pair; the cores' tests with none.
pub(crate) fn features(workspace: &Workspace, runner: &mut Runner) -> Result<(), Stop> {
    for package in &workspace.members {
        for features in combinations(&package.features) {
            let mut cargo = workspace.cargo();
            cargo.args(["clippy", "--quiet", "--package", &package.package, "--no-default-features"]);
            if !features.is_empty() {
                cargo.args(["--features", &features]);
            }
            runner.run(cargo.args(["--", "--deny=warnings"]))?;
        }
    }
    for core in CORES {
        let package = format!("groundplane-{core}");
        let mut cargo = workspace.cargo();
        runner.run(cargo.args([
            "test",
            "--quiet",
            "--lib",
            "--no-default-features",
            "--package",
            &package,
        ]))?;
    }
    Ok(())
}

/// No feature, each alone, each pair: `["", "a", "b", "a,b"]`.
fn combinations(features: &[String]) -> Vec<String> {
    let features: Vec<&String> = features.iter().filter(|name| *name != "default").collect();
    let mut combinations = vec![String::new()];
    for (index, first) in features.iter().enumerate() {
        combinations.push((*first).clone());
        combinations.extend(features[index + 1..].iter().map(|second| format!("{first},{second}")));
    }
    combinations
}

/// Every core for every target with default features off, and again with a heap.
pub(crate) fn nostd(workspace: &Workspace, runner: &mut Runner) -> Result<(), Stop> {
    let toolchain = Toolchain::for_targets(workspace, &TARGETS)?;
    for core in CORES {
        let package =
            workspace.member(core).ok_or_else(|| Stop::failed(format!("{core}: no such member")))?;
        runner.run(&mut cross(workspace, &toolchain, package, &[]))?;
        if package.features.iter().any(|name| name == "alloc") {
            runner.run(&mut cross(workspace, &toolchain, package, &["--features", "alloc"]))?;
        }
    }
    Ok(())
}

fn cross(workspace: &Workspace, toolchain: &Toolchain, package: &Package, features: &[&str]) -> Command {
    let mut cargo = workspace.cargo();
    cargo
        .env("RUSTC", toolchain.rustc())
        .args(["build", "--quiet", "--lib", "--no-default-features", "--package", &package.package])
        .args(features)
        .arg("--target-dir")
        .arg(workspace.target.join("cross/build"));
    for target in TARGETS {
        cargo.args(["--target", target]);
    }
    cargo
}

pub(crate) fn docs(workspace: &Workspace, runner: &mut Runner) -> Result<(), Stop> {
    runner.run(workspace.cargo().env("RUSTDOCFLAGS", "--deny=warnings").args([
        "doc",
        "--quiet",
        "--workspace",
        "--all-features",
        "--no-deps",
        "--document-private-items",
    ]))
}

/// The version of Rust that the manifests promise is one that is really built.
pub(crate) fn msrv(workspace: &Workspace, runner: &mut Runner) -> Result<(), Stop> {
    let promised = workspace.members.iter().find_map(|package| package.rust_version.as_deref());
    let promised = promised.ok_or_else(|| Stop::failed("no rust-version in the manifests"))?;
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = output(Command::new(rustc).arg("--version"))?;
    let mut cargo = if is_release(&version, promised) {
        workspace.cargo()
    } else if output(Command::new("rustc").arg(format!("+{promised}")).arg("--version")).is_ok() {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(&workspace.root).arg(format!("+{promised}"));
        cargo
    } else {
        return Err(Stop::Skipped {
            why: format!("no Rust {promised}, only {}", version.trim()),
            install: format!("rustup toolchain install {promised}"),
        });
    };
    runner.run(cargo.args(["check", "--quiet", "--workspace", "--all-features"]))
}

/// `rustc 1.95.0 (…)` is a release of `1.95`.
fn is_release(version: &str, promised: &str) -> bool {
    let number = version.split_whitespace().nth(1).unwrap_or_default();
    number == promised || number.strip_prefix(promised).is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_tried_alone_and_in_pairs() {
        let features = ["alloc", "default", "std"].map(str::to_owned);
        assert_eq!(combinations(&features), ["", "alloc", "alloc,std", "std"]);
        assert_eq!(combinations(&[]), [""]);
    }

    #[test]
    fn a_patch_release_is_the_promised_version_and_a_longer_number_is_not() {
        assert!(is_release("rustc 1.95.0 (59807616e 2026-04-14)", "1.95"));
        assert!(is_release("rustc 1.95.0", "1.95.0"));
        assert!(!is_release("rustc 1.950.0", "1.95"));
        assert!(!is_release("rustc 1.96.0", "1.95"));
    }
}
