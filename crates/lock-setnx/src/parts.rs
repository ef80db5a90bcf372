//! What lock-redlock is built of too. No part of the interface: it may change in any version.

pub use crate::{
    connection::{Connection, INSPECT, RELEASE, RENEW, Source},
    failure::of_connecting,
    names::{Names, Prefix},
    node::{Answer, Greeting, Node, fields},
    notices::{ChannelBell, Notices},
    turns::{Turn, Turns},
};
