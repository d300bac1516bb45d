//! The `tidegate` command. Everything is in the library.

use mimalloc::MiMalloc;

/// A compilation of many rules makes and drops many small things: with the system's allocator it takes half as long again.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> std::process::ExitCode {
    tidegate::cli::main()
}
