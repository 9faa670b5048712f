//! Runs cases one after the other and reports as `cargo test` does, with one addition: a case that
//! cannot run on this machine says so and is counted as ignored.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// No case takes longer unless something hangs.
const CASE_LIMIT: Duration = Duration::from_secs(300);

/// What a case does.
type Run = Pin<Box<dyn Future<Output = Result<()>>>>;

/// A named case.
pub struct Case {
    /// As it is printed and filtered by.
    pub name: &'static str,
    /// Runs it.
    pub run: fn() -> Run,
}

/// Cases of async functions, named after them.
#[macro_export]
macro_rules! cases {
    ($($module:ident :: $name:ident),* $(,)?) => {
        [$($crate::suite::Case {
            name: concat!(stringify!($module), "::", stringify!($name)),
            run: || Box::pin($module::$name()),
        }),*]
    };
}

/// The case cannot run here, and why.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skipped: {}", self.0)
    }
}

impl std::error::Error for Skip {}

/// Ends a case as one that cannot run here.
///
/// # Errors
/// Always.
pub fn skip<T>(why: impl Into<String>) -> Result<T> {
    Err(Skip(why.into()).into())
}

/// Runs the cases whose names have one of the arguments in them; all without any. Options that
/// `cargo test` passes on are ignored.
#[must_use]
pub fn run(cases: &[Case]) -> ExitCode {
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let wanted = |case: &&Case| {
        filters.is_empty()
            || filters
                .iter()
                .any(|filter| case.name.contains(filter.as_str()))
    };
    let chosen: Vec<&Case> = cases.iter().filter(wanted).collect();
    if std::env::args().any(|argument| argument == "--list") {
        chosen
            .iter()
            .for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    let start = Instant::now();
    for case in &chosen {
        match outcome(case) {
            Ok(()) => {
                passed += 1;
                println!("test {} ... ok", case.name);
            }
            Err(error) if error.is::<Skip>() => {
                ignored += 1;
                println!("test {} ... ignored, {error}", case.name);
            }
            Err(error) => {
                failed += 1;
                println!("test {} ... FAILED\n{error:#}", case.name);
            }
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    let filtered = cases.len() - chosen.len();
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; \
         {filtered} filtered out; finished in {:.2}s\n",
        start.elapsed().as_secs_f64()
    );
    ExitCode::from(u8::from(failed > 0))
}

/// A panic is a failure of this case alone.
fn outcome(case: &Case) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let limited =
        || runtime.block_on(async { tokio::time::timeout(CASE_LIMIT, (case.run)()).await });
    // The runtime ends with the case; what a panic left half done is not looked at.
    let done = catch_unwind(AssertUnwindSafe(limited));
    runtime.shutdown_background();
    match done {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => bail!("still running after {CASE_LIMIT:?}"),
        // The panic has been printed where it happened.
        Err(_) => bail!("panicked"),
    }
}
