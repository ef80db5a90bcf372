//! The properties, in groups. Each is a promise, which the first line above it states.

use crate::{Fixture, Property};

/// Lists the properties of a group, each with what it needs.
macro_rules! properties {
    ($($name:ident $([$($need:ident),+])?),+ $(,)?) => {
        pub(super) fn properties<F: $crate::Fixture>() -> Vec<$crate::Property<F>> {
            vec![$($crate::Property::new(
                module_path!(),
                stringify!($name),
                &[$($($crate::property::Need::$need),+)?],
                |fixture| Box::pin(async move { $name(&*fixture).await }),
            )),+]
        }
    };
}

pub mod exclusion;

pub mod busy;
pub mod release;
pub mod timeouts;

pub mod cancellation;
pub mod crash;
pub mod lease;

pub mod run;
pub mod tokens;
pub mod verify;

pub mod fifo;
pub mod handover;

pub mod many;
pub mod names;
pub mod options;

pub mod capabilities;
pub mod leaks;

pub(crate) fn all<F: Fixture>() -> Vec<Property<F>> {
    let groups = [
        exclusion::properties(),
        busy::properties(),
        release::properties(),
        timeouts::properties(),
        cancellation::properties(),
        crash::properties(),
        lease::properties(),
        run::properties(),
        verify::properties(),
        tokens::properties(),
        fifo::properties(),
        handover::properties(),
        names::properties(),
        options::properties(),
        many::properties(),
        leaks::properties(),
        capabilities::properties(),
    ];
    groups.into_iter().flatten().collect()
}
