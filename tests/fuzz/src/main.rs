//! The targets under libFuzzer: its own command line, and the target's name in
//! `MILLRACE_FUZZ_TARGET`. Built and started by `cargo xtask fuzz`.
//!
//! The name `list` lists the targets, each with the longest input it takes. With
//! `MILLRACE_FUZZ_SEEDS` it writes the target's seeds to that directory first, for libFuzzer to
//! begin with.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use millrace_fuzz::{TARGETS, Target, target};

/// Which target.
const TARGET_ENV: &str = "MILLRACE_FUZZ_TARGET";
/// Where the seeds go.
const SEEDS_ENV: &str = "MILLRACE_FUZZ_SEEDS";

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        choose();
    },
    |bytes: &[u8]| {
        choose().check(bytes);
    }
);

fn choose() -> &'static Target {
    CHOSEN.get_or_init(|| {
        let name = std::env::var(TARGET_ENV).unwrap_or_default();
        if name == "list" {
            for target in &TARGETS {
                println!("{} {}", target.name, target.bytes_max);
            }
            std::process::exit(0);
        }
        let Some(target) = target(&name) else {
            eprintln!("{TARGET_ENV}={name} is none of the targets");
            std::process::exit(2);
        };
        if let Some(directory) = std::env::var_os(SEEDS_ENV) {
            for (n, seed) in (target.seeds)().into_iter().enumerate() {
                let path = Path::new(&directory).join(format!("seed-{n}"));
                if let Err(error) = std::fs::write(&path, seed) {
                    eprintln!("cannot write {}: {error}", path.display());
                    std::process::exit(2);
                }
            }
        }
        target
    })
}
