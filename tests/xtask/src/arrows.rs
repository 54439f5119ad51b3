//! Who may depend on whom.
//!
//! [`ALLOWED`] is the picture of `ARCHITECTURE.md` as a table. An arrow that is not in it is an error, also as an optional
//! or a build dependency; tests of a crate (`[dev-dependencies]`) may in addition use `hal`, whose fakes they drive.

use crate::run::{Stop, output};
use crate::workspace::{Dependency, Package, Workspace};

/// Each member, and the members that it may use.
const ALLOWED: [(&str, &[&str]); 10] = [
    ("hal", &[]),
    ("alloc-core", &[]),
    ("net-core", &["hal"]),
    ("rt-irq", &["hal"]),
    ("platform-linux", &["alloc-core", "hal", "net-core", "rt-irq"]),
    ("node", &["alloc-core", "hal", "net-core", "rt-irq"]),
    ("gateway", &["alloc-core", "hal", "net-core", "node", "rt-irq"]),
    ("linux", &["alloc-core", "gateway", "hal", "net-core", "node", "platform-linux", "rt-irq"]),
    ("tests", &["alloc-core", "gateway", "hal", "linux", "net-core", "node", "platform-linux", "rt-irq"]),
    ("xtask", &[]),
];

/// Members whose trees firmware takes in.
pub(crate) const CORES: [&str; 5] = ["hal", "alloc-core", "net-core", "rt-irq", "node"];

/// A core's dependencies fit on one line of this many characters.
const LINE: usize = 100;

/// Checks every arrow and prints the cores' trees.
///
/// # Errors
///
/// [`Stop::Failed`] with each arrow that is not allowed.
pub(crate) fn check(workspace: &Workspace) -> Result<(), Stop> {
    let mut faults = Vec::new();
    for package in &workspace.members {
        faults.extend(wrong_arrows(package));
    }
    for name in CORES {
        let Some(core) = workspace.member(name) else {
            faults.push(format!("{name}: no such member"));
            continue;
        };
        let line = one_line(core);
        println!("  {name} uses {line}");
        if line.len() > LINE {
            faults.push(format!("{name}: its dependencies do not fit on one line of {LINE} characters"));
        }
        let tree = tree(workspace, core)?;
        for line in tree.lines() {
            println!("    {line}");
            if line.contains("(proc-macro)") {
                faults.push(format!("{name}: a procedural macro with default features off: {line}"));
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Stop::failed(faults.join("\n"))) }
}

fn wrong_arrows(package: &Package) -> Vec<String> {
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package.name) else {
        return vec![format!("{}: not in the table of arrows (tests/xtask/src/arrows.rs)", package.name)];
    };
    package
        .dependencies
        .iter()
        .filter(|to| to.ours && !allowed.contains(&to.name.as_str()))
        .filter(|to| !(to.dev && to.name == "hal"))
        .map(|to| format!("{} -> {}: this arrow is not in ARCHITECTURE.md", package.name, to.name))
        .collect()
}

/// `hal, heapless?`: what the manifest names outside tests, with a question mark after what a feature switches on.
fn one_line(package: &Package) -> String {
    let name = |it: &Dependency| if it.optional { format!("{}?", it.name) } else { it.name.clone() };
    let mut names: Vec<String> = package.dependencies.iter().filter(|it| !it.dev).map(name).collect();
    names.dedup();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

fn tree(workspace: &Workspace, core: &Package) -> Result<String, Stop> {
    output(workspace.cargo().args(["tree", "--package", &core.package, "--edges", "normal"]).args([
        "--no-default-features",
        "--format",
        "{p}",
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, to: &[(&str, bool)]) -> Package {
        Package {
            package: format!("groundplane-{name}"),
            name: name.to_owned(),
            features: Vec::new(),
            dependencies: to
                .iter()
                .map(|(name, dev)| Dependency {
                    name: (*name).to_owned(),
                    ours: true,
                    optional: false,
                    dev: *dev,
                })
                .collect(),
            roots: Vec::new(),
            rust_version: None,
        }
    }

    #[test]
    fn cores_never_see_each_other_but_their_tests_may_use_hal() {
        assert!(wrong_arrows(&package("net-core", &[("hal", false)])).is_empty());
        assert!(wrong_arrows(&package("alloc-core", &[("hal", true)])).is_empty());
        assert_eq!(wrong_arrows(&package("alloc-core", &[("hal", false)])).len(), 1);
        assert_eq!(wrong_arrows(&package("net-core", &[("alloc-core", false)])).len(), 1);
        assert_eq!(wrong_arrows(&package("net-core", &[("rt-irq", true)])).len(), 1);
    }

    #[test]
    fn a_member_that_is_not_in_the_table_is_refused() {
        assert_eq!(wrong_arrows(&package("newcomer", &[])).len(), 1);
    }

    #[test]
    fn the_table_of_arrows_has_no_circle() {
        let mut done: Vec<&str> = Vec::new();
        while let Some((name, _)) =
            ALLOWED.iter().find(|(name, to)| !done.contains(name) && to.iter().all(|to| done.contains(to)))
        {
            done.push(name);
        }
        assert_eq!(done.len(), ALLOWED.len());
    }
}
