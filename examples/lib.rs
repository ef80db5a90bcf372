//! The numbered tutorial: one short program per lock, beside this file. Here, the README's own program is tested.

/// Returns a prefix for the names of one run, so that nothing else that uses the servers is in the way.
#[must_use]
pub fn prefix(program: &str) -> String {
    format!("{program}-{:08x}", rand::random::<u32>())
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(doctest)]
#[doc = include_str!("../README.zh-CN.md")]
mod readme_zh {}
