#![doc = include_str!("../README.md")]

mod connection;
mod failure;
mod names;
mod target;

mod node;
mod notices;

pub use redis;

pub use crate::{
    connection::{Connection, INSPECT, RELEASE, RENEW, Script},
    failure::of_connecting,
    names::{Names, Prefix},
    node::{Answer, Handshake, Node, fields},
    notices::{LockListener, Notices},
    target::Target,
};
