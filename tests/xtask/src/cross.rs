//! A `core` and `alloc` for targets that are not installed.
//!
//! Three ways lead to a compiler for a microcontroller, and this module takes the first that is open:
//!
//! 1. the toolchain in use has the target installed (`rustup target add`): nothing to do;
//! 2. the toolchain in use has the library's sources (`rustup component add rust-src`);
//! 3. Debian's compiler (`rustc-web`) has them (`rust-web-src`).
//!
//! In cases 2 and 3, `core`, `alloc` and `compiler_builtins` are compiled once per target into a sysroot under `target/`,
//! beside a `rustc` that knows it. From then on all builds are ordinary ones by a stable compiler: `RUSTC_BOOTSTRAP` is
//! set for that first step alone, so that no crate of ours can use an unstable feature by accident.
//!
//! ```text
//! target/cross/sysroot-1.96.0/bin/rustc                                    script: the real rustc with --sysroot
//!                             lib/rustlib/<host>/lib                       link to the compiler's own std
//!                             lib/rustlib/<host>/bin/rust-lld              link to ld.lld-22, when the compiler has none
//!                             lib/rustlib/thumbv6m-none-eabi/lib/*.rlib    compiled here
//! ```

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Runner, Stop, output};
use crate::tools;
use crate::workspace::Workspace;

/// What a sysroot needs for `no_std` code with a heap.
const LIBRARIES: [&str; 3] = ["core", "alloc", "compiler_builtins"];

/// One rustc on this machine.
#[derive(Debug, Clone)]
struct Compiler {
    rustc: PathBuf,
    sysroot: PathBuf,
    release: String,
    host: String,
}

/// A compiler that can build for some targets.
#[derive(Debug)]
pub(crate) struct Toolchain {
    rustc: PathBuf,
}

impl Toolchain {
    /// Finds or makes a compiler for `targets`.
    ///
    /// # Errors
    ///
    /// [`Stop::Skipped`] when neither the targets nor the sources are here, [`Stop::Failed`] when `core` does not build.
    pub(crate) fn for_targets(workspace: &Workspace, targets: &[&str]) -> Result<Self, Stop> {
        let compilers = Compiler::all();
        if let Some(compiler) = compilers.iter().find(|it| targets.iter().all(|target| it.has(target))) {
            return Ok(Self { rustc: compiler.rustc.clone() });
        }
        let Some(compiler) = compilers.iter().find(|compiler| compiler.has_sources()) else {
            return Err(Stop::Skipped {
                why: format!("no compiler for {}", targets.join(", ")),
                install: tools::CROSS.install(),
            });
        };
        let sysroot = Sysroot::open(workspace, compiler)?;
        let missing: Vec<&str> =
            targets.iter().copied().filter(|target| !sysroot.libraries(target).is_dir()).collect();
        if !missing.is_empty() {
            sysroot.build(workspace, compiler, &missing)?;
        }
        Ok(Self { rustc: sysroot.rustc() })
    }

    /// The program to put into `RUSTC`.
    pub(crate) fn rustc(&self) -> &Path {
        &self.rustc
    }
}

/// True when some compiler here has sources, or all targets of the checks.
pub(crate) fn is_there() -> bool {
    let targets = crate::checks::TARGETS;
    Compiler::all().iter().any(|it| it.has_sources() || targets.iter().all(|target| it.has(target)))
}

impl Compiler {
    /// The compiler in use and Debian's.
    fn all() -> Vec<Self> {
        let chosen = std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
        [chosen, PathBuf::from("/usr/bin/rustc")].into_iter().filter_map(Self::ask).collect()
    }

    fn ask(rustc: PathBuf) -> Option<Self> {
        let sysroot = output(Command::new(&rustc).args(["--print", "sysroot"])).ok()?;
        let version = output(Command::new(&rustc).arg("-vV")).ok()?;
        let field = |key: &str| {
            version.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned())
        };
        Some(Self {
            rustc,
            sysroot: PathBuf::from(sysroot.trim()),
            release: field("release:")?,
            host: field("host:")?,
        })
    }

    fn has(&self, target: &str) -> bool {
        let folder = self.sysroot.join("lib/rustlib").join(target).join("lib");
        fs::read_dir(folder).is_ok_and(|files| {
            files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
        })
    }

    fn has_sources(&self) -> bool {
        self.sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
    }
}

/// The folder that we fill.
#[derive(Debug)]
struct Sysroot {
    path: PathBuf,
}

impl Sysroot {
    fn open(workspace: &Workspace, compiler: &Compiler) -> Result<Self, Stop> {
        let path = workspace.target.join("cross").join(format!("sysroot-{}", compiler.release));
        let sysroot = Self { path };
        let host = sysroot.path.join("lib/rustlib").join(&compiler.host);
        fs::create_dir_all(host.join("bin"))?;
        fs::create_dir_all(sysroot.path.join("bin"))?;
        let own = compiler.sysroot.join("lib/rustlib").join(&compiler.host);
        link(&own.join("lib"), &host.join("lib"))?;
        let linker = [own.join("bin/rust-lld")]
            .into_iter()
            .find(|file| file.is_file())
            .or_else(|| tools::in_path("ld.lld-22"))
            .or_else(|| tools::in_path("ld.lld"));
        if let Some(linker) = linker {
            link(&linker, &host.join("bin/rust-lld"))?;
        }
        let script = format!(
            "#!/bin/sh\nexec '{}' --sysroot '{}' \"$@\"\n",
            compiler.rustc.display(),
            sysroot.path.display()
        );
        // Cargo takes a rustc with a new modification time for a new compiler and builds everything again.
        let file = sysroot.rustc();
        if fs::read_to_string(&file).ok().as_deref() != Some(&script) {
            fs::write(&file, script)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        }
        Ok(sysroot)
    }

    fn rustc(&self) -> PathBuf {
        self.path.join("bin/rustc")
    }

    fn libraries(&self, target: &str) -> PathBuf {
        self.path.join("lib/rustlib").join(target).join("lib")
    }

    /// Compiles the libraries by way of an empty crate and keeps what the compiler made of them.
    fn build(&self, workspace: &Workspace, compiler: &Compiler, targets: &[&str]) -> Result<(), Stop> {
        println!("  building core and alloc for {} (once)", targets.join(", "));
        let seed = workspace.target.join("cross/seed");
        fs::create_dir_all(seed.join("src"))?;
        fs::write(
            seed.join("Cargo.toml"),
            "[package]\nname = \"seed\"\nedition = \"2024\"\n\n[workspace]\n\n[profile.release]\ndebug = 1\n",
        )?;
        fs::write(seed.join("src/lib.rs"), "#![no_std]\n")?;
        let built = workspace.target.join("cross/seed-target");
        let mut cargo = workspace.cargo();
        cargo.current_dir(&seed).args(["build", "--quiet", "--release", "--target-dir"]).arg(&built);
        for target in targets {
            cargo.args(["--target", target]);
        }
        cargo
            .env("RUSTC", &compiler.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_UNSTABLE_BUILD_STD", "core,alloc")
            // Without bitcode in the libraries, firmware could not be built with link-time optimisation.
            .env("RUSTFLAGS", "-Cembed-bitcode=yes")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        Runner::default().run(&mut cargo)?;
        for target in targets {
            // Appears under its name only when it is whole.
            let part = self.path.join(format!("{target}.part"));
            fs::create_dir_all(&part)?;
            for library in LIBRARIES {
                let from = newest_rlib(&built.join(target).join("release/deps"), library)?;
                fs::copy(&from, part.join(from.file_name().unwrap_or_default()))?;
            }
            let to = self.libraries(target);
            fs::create_dir_all(to.parent().unwrap_or(&self.path))?;
            fs::rename(&part, &to)?;
        }
        fs::remove_dir_all(&built)?;
        Ok(())
    }
}

fn newest_rlib(folder: &Path, library: &str) -> Result<PathBuf, Stop> {
    let prefix = format!("lib{library}-");
    fs::read_dir(folder)?
        .flatten()
        .filter(|file| {
            let name = file.file_name();
            let name = name.to_string_lossy();
            name.starts_with(&prefix) && name.ends_with(".rlib")
        })
        .max_by_key(|file| file.metadata().and_then(|meta| meta.modified()).ok())
        .map(|file| file.path())
        .ok_or_else(|| Stop::failed(format!("no {prefix}*.rlib in {}", folder.display())))
}

/// Makes `at` a symbolic link to `to`, whatever it was before.
fn link(to: &Path, at: &Path) -> Result<(), Stop> {
    if fs::read_link(at).ok().as_deref() == Some(to) {
        return Ok(());
    }
    match fs::remove_file(at) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    Ok(symlink(to, at)?)
}
