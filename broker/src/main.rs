//! The broker binary.

fn main() -> std::process::ExitCode {
    millrace::main()
}
