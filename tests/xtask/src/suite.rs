//! Every test there is, in one run: checks, crates, processes, Kubernetes. A failing part does not
//! stop the others; the last line of output adds all of them up.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use crate::house::House;
use crate::tally::Tally;
use crate::{kube, processes, sim, verify};

/// Which parts to leave out.
#[derive(clap::Args)]
// Its one group would else be called like the group of the options it holds.
#[group(skip)]
pub(crate) struct Options {
    #[command(flatten)]
    kube: kube::Options,
}

/// Runs all parts; failure when any check in any of them failed.
pub(crate) fn run(house: &House, options: &Options) -> ExitCode {
    let mut parts = Parts::default();
    parts.run("verify", || {
        Ok(verify::checks(house, verify::Scope::WithoutTidy))
    });
    parts.run("crates", || {
        Tally::count(&mut house.cargo(["test", "--workspace", "--no-fail-fast"]))
    });
    parts.run("simulation", || sim::run(house, &sim::Options::for_test()));
    parts.run("processes", || {
        processes::run(house, &processes::Options::for_test())
    });
    parts.run("kubernetes", || kube::run(house, &options.kube));
    parts.finish()
}

/// What each part came to.
#[derive(Default)]
struct Parts {
    done: Vec<(&'static str, Tally, u64)>,
}

impl Parts {
    fn run(&mut self, name: &'static str, part: impl FnOnce() -> Result<Tally>) {
        println!("== {name}");
        let start = Instant::now();
        let tally = part().unwrap_or_else(|error| {
            println!("FAILED {name}: {error:#}");
            Tally::of(false)
        });
        self.done.push((name, tally, start.elapsed().as_secs()));
    }

    fn finish(self) -> ExitCode {
        let mut sum = Tally::default();
        println!("== summary");
        for (name, tally, seconds) in self.done {
            println!("{name}: {tally} in {seconds} s");
            sum += tally;
        }
        println!("{sum}");
        sum.exit_code()
    }
}
