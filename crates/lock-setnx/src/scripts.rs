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

/// Makes a script. One that needs the queue includes it where it does, so that what comes before does not pay for it.
fn script(text: &str) -> Script {
    Script::new(text.replace("-- include queue.lua\n", include_str!("../scripts/queue.lua")))
}
