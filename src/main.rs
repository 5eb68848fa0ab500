//! The `tuneloop` program. What its commands do is in `tuneloop::commands`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tuneloop::commands::main(std::env::args_os())
}
