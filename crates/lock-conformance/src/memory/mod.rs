//! An honest lease server in memory, the measure for what a backend must do.

mod fixture;
mod server;
mod store;

pub use fixture::MemoryFixture;
pub use server::{MemoryServer, Subscription, Table};
pub use store::MemoryStore;
