//! The `dwell` binary: shows what the library does, and looks after its stores.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
