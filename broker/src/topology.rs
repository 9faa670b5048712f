//! `millrace topology check`: the verdict of a cluster on topology files, without a cluster.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use millrace_crds::Report;
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::{output, tell};

/// Verbs on topology files.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Check files as a cluster would: same verdict, same fields named, same defaults
    #[command(after_help = EXIT_CODES)]
    Check(Args),
}

const EXIT_CODES: &str = "\
Exit codes:
  0  every document is valid; there may be warnings
  1  a document is invalid, or a file cannot be read
  2  wrong usage";

/// How to print what the cluster would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// What is wrong, one a line
    Text,
    /// The verdict, and the resources with their defaults
    Json,
}

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// YAML files with BrokerClusters, Queues and Topics; - is stdin
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Of resources that do not say it
    #[arg(short, long, env = "MILLRACE_NAMESPACE", default_value = "default")]
    namespace: String,
    /// How to print
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// Runs the verb.
pub(crate) fn run(verb: Verb) -> Result<(), Failure> {
    let Verb::Check(args) = verb;
    let mut is_accepted = true;
    let mut verdicts = Vec::new();
    for file in &args.files {
        let name = file.display().to_string();
        let text = read(file).map_err(|error| Failure::local(&name, &error))?;
        let report = millrace_crds::check(&text, &args.namespace);
        is_accepted &= report.is_accepted();
        match args.output {
            Output::Text => print(&name, &report)?,
            Output::Json => verdicts.push(value(&name, &report)),
        }
    }
    if args.output == Output::Json {
        output::text(&format!("{:#}", Value::Array(verdicts)))?;
    }
    if is_accepted {
        Ok(())
    } else {
        Err(Failure::refused())
    }
}

fn read(file: &Path) -> io::Result<String> {
    if file.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(file)
}

/// Problems to stderr, as compilers write them; the good news to stdout.
fn print(name: &str, report: &Report) -> Result<(), Failure> {
    for (kind, problems) in [("error", &report.errors), ("warning", &report.warnings)] {
        for problem in problems {
            let (line, object) = (problem.line, &problem.object);
            let place = match (object.as_str(), problem.field.as_str()) {
                ("", field) => field.to_owned(),
                (object, "") => object.to_owned(),
                (object, field) => format!("{object}: {field}"),
            };
            let place = if place.is_empty() {
                place
            } else {
                format!("{place}: ")
            };
            tell::line(format_args!(
                "{name}:{line}: {kind}: {place}{}",
                problem.message
            ));
        }
    }
    if report.is_accepted() {
        output::text(&format!(
            "{name}: {} resources, all valid",
            report.objects.len()
        ))?;
    }
    Ok(())
}

fn value(name: &str, report: &Report) -> Value {
    let problems = |problems: &[millrace_crds::Problem]| -> Value {
        let value = |problem: &millrace_crds::Problem| {
            json!({
                "line": problem.line,
                "object": problem.object,
                "field": problem.field,
                "message": problem.message,
            })
        };
        problems.iter().map(value).collect()
    };
    json!({
        "file": name,
        "accepted": report.is_accepted(),
        "errors": problems(&report.errors),
        "warnings": problems(&report.warnings),
        "resources": report.objects,
    })
}
