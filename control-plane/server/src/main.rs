//! The `tidegate` command. Everything is in the library.

fn main() -> std::process::ExitCode {
    tidegate::cli::main()
}
