//! `millrace-operator`: parses arguments and calls what they name.

use std::process::ExitCode;

use clap::Parser;
use millrace_operator::options::{Command, Options};

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let result = match options.command {
        Command::Run(run) => millrace_operator::run(run, &options.log).await,
        Command::SelfTest(test) => millrace_operator::self_test(test).await,
        Command::Rules => {
            println!("{:#}", millrace_operator::rules::document());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("millrace-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}
