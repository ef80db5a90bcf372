//! The scripts that only this lock has.

use std::sync::LazyLock;

use lock_redis::Script;

pub(crate) static ACQUIRE: LazyLock<Script> =
    LazyLock::new(|| script(include_str!("../scripts/acquire.lua")).knowing_dialing());
pub(crate) static RELEASE: LazyLock<Script> =
    LazyLock::new(|| script(include_str!("../scripts/release.lua")));
pub(crate) static UNDO: LazyLock<Script> = LazyLock::new(|| script(include_str!("../scripts/undo.lua")));
pub(crate) static HAND_ON: LazyLock<Script> =
    LazyLock::new(|| script(include_str!("../scripts/hand_on.lua")));

/// What a script returns that freed a key and reserved it for a waiter.
pub(crate) const HANDED_ON: i64 = 2;

/// Scripts for markers and copies; see `movable.rs`.
#[cfg(feature = "movable")]
pub(crate) mod of_slots {
    use super::*;

    macro_rules! scripts {
        ($($name:ident = $file:literal;)*) => {
            $(pub(crate) static $name: LazyLock<Script> =
                LazyLock::new(|| script(include_str!(concat!("../scripts/", $file))));)*
        };
    }

    scripts! {
        READ = "read.lua";
        CHANGE_MARKER = "change_marker.lua";
        RECOGNISE = "recognise.lua";
        IDENTIFY = "identify.lua";
        HOLDS = "holds.lua";
        PUT_COPIES = "put_copies.lua";
        ADOPT = "adopt.lua";
        DROP_COPY = "drop_copy.lua";
    }
}

/// Makes a script. One that needs the queue includes it where it does, so that what comes before does not pay for it.
fn script(text: &str) -> Script {
    Script::new(text.replace("-- include queue.lua\n", include_str!("../scripts/queue.lua")))
}
