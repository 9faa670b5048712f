//! Where things are: the clone, the cache that outlives it, the binaries; and how cargo is called
//! so that one build of the dependencies serves every command.
//!
//! The cache is `MILLRACE_CACHE`, by default `~/.cache/millrace`; builds go to its `target`, unless
//! `CARGO_TARGET_DIR` names another place.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// The clone and its surroundings.
pub(crate) struct House {
    root: PathBuf,
    cache: PathBuf,
    target: PathBuf,
    triple: String,
}

impl House {
    /// Finds the clone this very binary was built from.
    ///
    /// # Errors
    /// When there is no home for the cache, or `rustc` cannot be asked for its host.
    pub(crate) fn open() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .context("the clone is gone")?
            .to_path_buf();
        let cache = match env::var_os("MILLRACE_CACHE") {
            Some(path) => PathBuf::from(path),
            None => home_cache()?,
        };
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(path) => PathBuf::from(path),
            None => cache.join("target"),
        };
        let triple = match env::var("CARGO_BUILD_TARGET") {
            Ok(triple) => triple,
            Err(_) => host_triple()?,
        };
        let target = std::path::absolute(target)?;
        let cache = std::path::absolute(cache)?;
        Ok(Self {
            root,
            cache,
            target,
            triple,
        })
    }

    /// The clone's top directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// What survives the clone: builds, Kubernetes, images.
    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// The dev-profile binary `name`, whether it is built already or not.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.binary_of("debug", name)
    }

    /// The binary `name` of another profile, which is called as its directory is.
    pub(crate) fn binary_of(&self, profile: &str, name: &str) -> PathBuf {
        self.target.join(&self.triple).join(profile).join(name)
    }

    /// The release binary `name`, whether it is built already or not.
    pub(crate) fn release_binary(&self, name: &str) -> PathBuf {
        self.target.join(&self.triple).join("release").join(name)
    }

    /// A command in the clone, with what the suites expect in the environment.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.root)
            .env("MILLRACE_CACHE", &self.cache)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_BUILD_TARGET", &self.triple);
        command
    }

    /// Cargo in the clone, building into the shared target directory.
    pub(crate) fn cargo<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = self.command(cargo);
        command.args(arguments);
        command
    }

    /// Builds the binaries `names`, in the dev profile. All of the workspace is selected, though
    /// only what the binaries need is built: with fewer packages the dependencies would get other
    /// features and be built once more.
    ///
    /// # Errors
    /// When something does not build.
    pub(crate) fn build(&self, names: &[&str]) -> Result<()> {
        self.build_with(names, &[])
    }

    /// Builds binaries as they are shipped: only their own packages are selected, so that no other
    /// crate's wishes become features of theirs.
    ///
    /// # Errors
    /// When something does not build.
    pub(crate) fn build_release(&self, names: &[&str]) -> Result<()> {
        let mut arguments = vec!["build", "--quiet", "--release"];
        for name in names {
            arguments.extend(["--package", name, "--bin", name]);
        }
        eprintln!(
            "building {} for release (the first time takes minutes)",
            names.join(", ")
        );
        succeed(&mut self.cargo(arguments))
    }

    /// The same with features that are off by default.
    ///
    /// # Errors
    /// When something does not build.
    pub(crate) fn build_with(&self, names: &[&str], features: &[&str]) -> Result<()> {
        let mut arguments = vec!["build", "--quiet", "--workspace"];
        for feature in features {
            arguments.extend(["--features", feature]);
        }
        for name in names {
            arguments.extend(["--bin", name]);
        }
        eprintln!(
            "building {} (the first time takes minutes)",
            names.join(", ")
        );
        succeed(&mut self.cargo(arguments))
    }
}

/// The program of the integration test `name`, built.
///
/// # Errors
/// When it does not build.
pub(crate) fn test_program(house: &House, name: &str) -> Result<PathBuf> {
    let build = [
        "test",
        "--quiet",
        "--workspace",
        "--no-run",
        "--message-format=json",
    ];
    let told = output(house.cargo(build).args(["--test", name]))?;
    let named = format!("\"name\":\"{name}\"");
    let mut artifacts = told.lines().filter(|line| line.contains(&named));
    let program = artifacts.find_map(|line| {
        let value = line.split_once("\"executable\":\"")?.1;
        Some(PathBuf::from(value.split_once('"')?.0))
    });
    program.with_context(|| format!("cargo names no program for test {name}"))
}

/// Runs `command` to its end with this process's own terminal.
///
/// # Errors
/// When it cannot be started or ends with another status than success.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command
        .status()
        .with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Runs `command` and returns what it wrote to stdout.
///
/// # Errors
/// When it cannot be started, fails, or writes something that is not text.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {shown}"))?;
    if !output.status.success() {
        bail!("{shown}: {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{shown} wrote something not text"))
}

/// The command as a person would type it, without its environment.
pub(crate) fn show(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let mut words = vec![name.to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

fn home_cache() -> Result<PathBuf> {
    let home = env::var_os("HOME").context("set HOME or MILLRACE_CACHE: builds need a place")?;
    Ok(PathBuf::from(home).join(".cache/millrace"))
}

fn host_triple() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let told = output(Command::new(rustc).arg("-vV"))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}
