//! Models of the protocols of this workspace, for a checker that tries every order of events.
//!
//! A model is a small program that says what may happen next: a request is executed now or later or never, a clock
//! goes on, a process stops, a server forgets. The checker follows every possibility up to the stated bounds, so
//! "holds" means: in none of these states is the property false. What a model refutes, it refutes with a trace, which
//! is kept, and replayed by the tests. `docs/models.md` tells what each model shows.

mod catalogue;
mod check;
mod graph;
mod late;
mod lease;
mod places;
mod protocol;
mod queue;
mod redlock;
mod reservation;
mod slots;
mod table;
mod terms;
mod traces;
mod votes;

pub use self::{
    catalogue::{Entry, Tier, catalogue},
    check::{Progress, Report, Threads},
    protocol::{Goal, Protocol},
    table::table,
    traces::{Trace, kept},
};
