//! The suite that every lock backend of this workspace must pass.
//!
//! Each property is a promise, stated in one line above one function of [`groups`]. A backend supplies a
//! [`Fixture`], and a test without libtest's harness that hands it to [`run`]:
//!
//! ```toml
//! [[test]]
//! name = "conformance"
//! harness = false
//! ```
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! # use lock_conformance::MemoryFixture as SetnxFixture;
//! fn main() -> ExitCode {
//!     lock_conformance::run::<SetnxFixture>()
//! }
//! ```
//!
//! Properties that a backend does not promise, by its [`Capabilities`](lock_core::Capabilities), are shown as
//! ignored, with the reason. If `LOCK_CONFORMANCE_REPORT` names a file, a line of JSON per property is appended to
//! it.
//!
//! The suite is itself tested: [`MemoryServer`] is an honest server to run it on, [`FaultyStore`] makes any store
//! fail in the ways that networks do, and a test plants bugs, each of which one property must catch.

mod fixture;
mod property;
mod report;
mod run;

pub mod groups;
mod steps;

mod agent;

mod faulty;
mod memory;

pub use faulty::{Fault, Faults, FaultyStore, Operation};
pub use fixture::{Data, Fixture};
pub use memory::{MemoryFixture, MemoryServer, MemoryStore, Subscription, Table};
pub use property::{Property, properties};
pub use run::run;
pub use steps::{assert_held_for, eventually, hold_many, within};
