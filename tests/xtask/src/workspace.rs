//! What Cargo and git know about the workspace.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::run::{Stop, output};

/// Prefix of every package of the family; names are shown without it.
const PREFIX: &str = "groundplane-";

/// The root workspace, as `cargo metadata` shows it.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) members: Vec<Package>,
    cargo: PathBuf,
}

/// One member.
#[derive(Debug)]
pub(crate) struct Package {
    /// Package name as published.
    pub(crate) package: String,
    /// The same without the family's prefix: what the documents call it.
    pub(crate) name: String,
    pub(crate) features: Vec<String>,
    pub(crate) dependencies: Vec<Dependency>,
    /// Files that are crate roots of libraries and programs.
    pub(crate) roots: Vec<PathBuf>,
    pub(crate) rust_version: Option<String>,
}

/// One line of a member's manifest.
#[derive(Debug)]
pub(crate) struct Dependency {
    /// Without the family's prefix when it is ours.
    pub(crate) name: String,
    pub(crate) ours: bool,
    pub(crate) optional: bool,
    pub(crate) dev: bool,
}

impl Workspace {
    /// Asks Cargo.
    ///
    /// # Errors
    ///
    /// [`Stop::Failed`] when Cargo refuses the manifests.
    pub(crate) fn load() -> Result<Self, Stop> {
        let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
        let text = output(Command::new(&cargo).args(["metadata", "--format-version=1", "--no-deps"]))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| Stop::failed(error.to_string()))?;
        let path = |key: &str| PathBuf::from(value[key].as_str().unwrap_or_default());
        let members = list(&value["packages"]).map(Package::read).collect();
        Ok(Self { root: path("workspace_root"), target: path("target_directory"), members, cargo })
    }

    /// A Cargo command in the workspace's root.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        command.current_dir(&self.root);
        command
    }

    /// The member of that short name.
    pub(crate) fn member(&self, name: &str) -> Option<&Package> {
        self.members.iter().find(|package| package.name == name)
    }

    /// Files under version control whose names end in one of `endings`, relative to the root. New files count as soon as
    /// they are not ignored.
    ///
    /// # Errors
    ///
    /// [`Stop::Failed`] outside a git checkout.
    pub(crate) fn files(&self, endings: &[&str]) -> Result<Vec<PathBuf>, Stop> {
        let listed = output(Command::new("git").current_dir(&self.root).args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
        ]))?;
        let mut files: Vec<PathBuf> = listed
            .lines()
            .filter(|line| endings.iter().any(|ending| line.ends_with(ending)))
            .map(PathBuf::from)
            .filter(|file| self.root.join(file).is_file())
            .collect();
        files.sort();
        files.dedup();
        Ok(files)
    }

    /// Text of a file that [`files`](Self::files) returned.
    pub(crate) fn read(&self, file: &Path) -> Result<String, Stop> {
        std::fs::read_to_string(self.root.join(file))
            .map_err(|error| Stop::failed(format!("{}: {error}", file.display())))
    }
}

impl Package {
    fn read(value: &Value) -> Self {
        let package = text(&value["name"]);
        let targets = || list(&value["targets"]);
        let kinds = |target: &Value, wanted: &[&str]| {
            list(&target["kind"]).any(|kind| wanted.contains(&kind.as_str().unwrap_or_default()))
        };
        Self {
            name: short(&package),
            features: value["features"]
                .as_object()
                .into_iter()
                .flat_map(|features| features.keys().cloned())
                .collect(),
            dependencies: list(&value["dependencies"]).map(Dependency::read).collect(),
            roots: targets()
                .filter(|target| kinds(target, &["lib", "bin", "cdylib"]))
                .map(|target| PathBuf::from(text(&target["src_path"])))
                .collect(),
            rust_version: value["rust_version"].as_str().map(str::to_owned),
            package,
        }
    }
}

impl Dependency {
    fn read(value: &Value) -> Self {
        let package = text(&value["name"]);
        Self {
            name: short(&package),
            ours: package.starts_with(PREFIX),
            optional: value["optional"].as_bool().unwrap_or_default(),
            dev: value["kind"].as_str() == Some("dev"),
        }
    }
}

fn short(package: &str) -> String {
    package.strip_prefix(PREFIX).unwrap_or(package).to_owned()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
