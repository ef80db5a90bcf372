#![doc = include_str!("../README.md")]

mod connection;
mod failure;
#[cfg(feature = "movable")]
mod held;
mod names;
mod target;

mod node;
mod notices;
mod reservations;

pub use redis;

#[cfg(feature = "movable")]
pub use crate::held::{all_below, held, read_held};
pub use crate::{
    connection::{Connection, INSPECT, RENEW, Script},
    failure::of_connecting,
    names::{Names, Prefix},
    node::{Answer, Handshake, Node, fields},
    notices::{LockListener, Notices},
    reservations::{HandOn, RESERVATION, Reservations},
    target::Target,
};
