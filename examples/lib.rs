//! The numbered tutorial: one short program per lock.
