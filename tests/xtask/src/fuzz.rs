//! Coverage-guided fuzzing of the targets of `tests/fuzz`, with libFuzzer on stable Rust.
//!
//! LLVM's coverage pass comes with every rustc; libFuzzer itself is C++ and is compiled from the
//! sources that `libfuzzer-sys` carries, so a C++ compiler has to be there. What a run finds is
//! kept in the cache; what reaches something that no committed input reaches is added to the
//! committed corpus as long as that stays small; an input that breaks a promise is minimised and
//! added in any case.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::house::{House, output, succeed};
use crate::needs;

/// What LLVM puts into the code for libFuzzer, as `cargo fuzz` has it, but for the sanitizers that
/// stable Rust does not have: the code under test is safe Rust.
const COVERAGE: [&str; 6] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];
/// One input that takes longer is a finding: no input is larger than a few KiB.
const TIMEOUT_SECONDS: u32 = 10;
/// libFuzzer's own limit; the targets check their own, smaller ones.
const MEMORY_MIB: u32 = 2048;
/// Committed inputs of one target, in bytes: together a few hundred KiB.
const CORPUS_BYTES_MAX: u64 = 24 << 10;
/// And in files: what a person still looks through.
const CORPUS_FILES_MAX: usize = 64;
/// How long a breaking input is made smaller.
const MINIMIZE_SECONDS: u32 = 20;
/// Names of inputs that once broke a promise begin with this.
const CRASH: &str = "crash-";

/// What to fuzz and for how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// One target; see `tests/fuzz/src/target.rs` for what each promises.
    #[arg(long, required_unless_present = "all", conflicts_with = "all")]
    target: Option<String>,
    /// Every target, one after the other.
    #[arg(long)]
    all: bool,
    /// For each target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// One target's files.
struct Place {
    target: String,
    /// Bytes of an input at most.
    bytes_max: String,
    /// All that was ever found, in the cache.
    found: PathBuf,
    /// In the clone.
    committed: PathBuf,
    /// Inputs that broke something, before they are minimised.
    broken: PathBuf,
}

/// Fuzzes.
///
/// # Errors
/// When there is no C++ compiler, something does not build, or a target's promise was broken.
pub(crate) fn run(house: &House, options: &Options) -> Result<()> {
    needs::cxx()?;
    let program = build(house)?;
    let mut broken = Vec::new();
    for (target, bytes_max) in targets(&program)? {
        if options.target.as_ref().is_some_and(|one| *one != target) {
            continue;
        }
        let place = Place::new(house, target, bytes_max)?;
        println!("== {}", place.target);
        broken.extend(fuzz(house, &program, &place, options.seconds)?);
        keep(house, &program, &place)?;
    }
    for path in &broken {
        println!("BROKEN by {}", path.display());
    }
    if broken.is_empty() {
        Ok(())
    } else {
        bail!("{} inputs break what is promised", broken.len())
    }
}

fn build(house: &House) -> Result<PathBuf> {
    let arguments = [
        "build",
        "--quiet",
        "--profile=fuzz",
        "--package=millrace-fuzz",
        "--features=libfuzzer",
        "--bin=millrace-fuzz",
    ];
    eprintln!("building the fuzz targets (the first time takes minutes)");
    succeed(house.cargo(arguments).env("RUSTFLAGS", COVERAGE.join(" ")))?;
    Ok(house.binary_of("fuzz", "millrace-fuzz"))
}

/// Names, and the longest input of each.
fn targets(program: &Path) -> Result<Vec<(String, String)>> {
    let told = output(Command::new(program).env("MILLRACE_FUZZ_TARGET", "list"))?;
    let lines = told.lines().filter_map(|line| line.split_once(' '));
    Ok(lines
        .map(|(name, bytes)| (name.to_owned(), bytes.to_owned()))
        .collect())
}

impl Place {
    fn new(house: &House, target: String, bytes_max: String) -> Result<Self> {
        let cache = house.cache().join("fuzz");
        let place = Self {
            found: cache.join(&target),
            committed: house.root().join("tests/fuzz/corpus").join(&target),
            broken: cache.join("broken").join(&target),
            target,
            bytes_max,
        };
        for directory in [&place.found, &place.committed, &place.broken] {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        Ok(place)
    }

    /// The program with what every use of it needs. Its own output tells how it goes.
    fn program(&self, house: &House, program: &Path) -> Command {
        let mut command = house.command(program);
        command.env("MILLRACE_FUZZ_TARGET", &self.target);
        command.arg(format!("-max_len={}", self.bytes_max));
        command.arg(format!("-timeout={TIMEOUT_SECONDS}"));
        command.arg(format!("-rss_limit_mb={MEMORY_MIB}"));
        command.arg(format!("-artifact_prefix={}/", self.broken.display()));
        command
    }
}

/// Runs libFuzzer; returns the inputs that broke something, minimised, in the committed corpus.
fn fuzz(house: &House, program: &Path, place: &Place, seconds: u32) -> Result<Vec<PathBuf>> {
    let mut command = place.program(house, program);
    command.env("MILLRACE_FUZZ_SEEDS", &place.found);
    command.arg(format!("-max_total_time={seconds}"));
    command.args(["-print_final_stats=1", "-verbosity=1"]);
    command.arg(&place.found).arg(&place.committed);
    let status = command.status().context("cannot start the fuzz targets")?;
    if status.success() {
        return Ok(Vec::new());
    }
    let mut kept = Vec::new();
    for (path, _) in files(&place.broken)? {
        kept.push(minimized(house, program, place, &path)?);
    }
    if kept.is_empty() {
        bail!("{}: {status}, and no input is to blame", place.target);
    }
    Ok(kept)
}

fn minimized(house: &House, program: &Path, place: &Place, path: &Path) -> Result<PathBuf> {
    let name = path.file_name().context("a file has a name")?;
    let name = name.to_string_lossy();
    let hash = name.rsplit('-').next().unwrap_or(&name);
    let target = place.committed.join(format!("{CRASH}{hash}"));
    let mut command = place.program(house, program);
    command.arg("-minimize_crash=1");
    command.arg(format!("-max_total_time={MINIMIZE_SECONDS}"));
    command.arg(format!("-exact_artifact_path={}", target.display()));
    // Its status only says that the input still breaks something.
    command.arg(path).status().context("cannot minimise")?;
    if !target.exists() {
        // It was as small as it gets.
        fs::copy(path, &target)?;
    }
    fs::remove_file(path)?;
    Ok(target)
}

/// Adds to the committed corpus what reaches something new, smallest first, as far as there is
/// room.
fn keep(house: &House, program: &Path, place: &Place) -> Result<()> {
    let merged = place.found.with_extension("merged");
    // What another run left there counts for nothing.
    drop(fs::remove_dir_all(&merged));
    fs::create_dir_all(&merged)?;
    let committed = files(&place.committed)?;
    for (path, _) in &committed {
        fs::copy(
            path,
            merged.join(path.file_name().context("a file has a name")?),
        )?;
    }
    let mut command = place.program(house, program);
    command.args(["-merge=1", "-verbosity=0"]);
    command.arg(&merged).arg(&place.found);
    succeed(&mut command)?;
    let mut room = CORPUS_BYTES_MAX.saturating_sub(committed.iter().map(|(_, bytes)| bytes).sum());
    let mut places = CORPUS_FILES_MAX.saturating_sub(committed.len());
    for (path, bytes) in files(&merged)? {
        let name = path.file_name().context("a file has a name")?;
        let target = place.committed.join(name);
        if bytes <= room && places > 0 && !target.exists() {
            fs::copy(&path, &target)?;
            (room, places) = (room - bytes, places - 1);
        }
    }
    fs::remove_dir_all(&merged)?;
    Ok(())
}

/// Files of a directory with their sizes, smallest first.
fn files(directory: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        files.push((entry.path(), entry.metadata()?.len()));
    }
    files.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
    Ok(files)
}
