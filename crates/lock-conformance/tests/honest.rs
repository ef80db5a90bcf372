//! The suite on the honest server in memory.

use std::process::ExitCode;

use lock_conformance::MemoryFixture;

fn main() -> ExitCode {
    lock_conformance::run::<MemoryFixture>()
}
