//! The numbered tutorial: one short program per lock, beside this file. Here, the README's own program is tested.
#![doc = include_str!("../README.md")]
