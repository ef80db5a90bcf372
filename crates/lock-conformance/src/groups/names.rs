//! Names: different keys are different locks, whatever they look like, and bad ones are refused before any I/O.

use lock_core::{AnyLocker, ErrorKind, Key, Waiting, backend::Effect};

use crate::{
    Fixture,
    steps::{
        SOON, assert_fails, assert_held, assert_no_traces, client, fresh_key, release, take, take_within,
        within,
    },
};

properties! {
    different_names_are_different_locks,
    a_name_may_have_one_byte_or_four_thousand,
    bad_names_are_refused,
    bad_names_are_refused_without_asking_the_servers [Servers, StoppedServers],
}

/// Names that an encoding might confuse: each of them, behind one prefix, is a lock of its own.
const SIMILAR: &[&str] = &[
    "a",
    "A",
    "ab",
    "a/b",
    "a/b/",
    "a//b",
    "/a",
    "//a",
    "a/",
    "/",
    "//",
    ".",
    "..",
    "a/.",
    "a/..",
    "a/../b",
    "./a",
    "../a",
    "a%2Fb",
    "a%2fb",
    "%",
    "%%",
    "%25",
    "a b",
    " a",
    "a ",
    "a\0",
    "a\0b",
    "\0",
    "a\r\n",
    "a\n",
    "a\r",
    "\r\nDEL x\r\n",
    "*",
    "?",
    "[a]",
    "{}",
    "{",
    "}",
    "{a}",
    "{a}b",
    "{ab}",
    "}{",
    ":",
    "a:b",
    "a_b",
    "a-b",
    "a.b",
    "a,b",
    "a;b",
    "a=b",
    "'",
    "\"",
    "\\",
    "$",
    "`",
    "#",
    "~",
    "+",
    "@",
    "!",
    "lock",
    "zookeeper",
    // A precomposed and a combined letter, a ligature and its parts, letters that fold to one.
    "\u{e9}",
    "e\u{301}",
    "\u{fb01}",
    "fi",
    "\u{df}",
    "ss",
    "\u{130}",
    "i",
    "I",
    "\u{131}",
    "\u{212a}",
    "k",
    "K",
    // From right to left, with and without marks; no width; a noncharacter; beyond the first plane.
    "\u{5d0}\u{5d1}",
    "\u{202e}ab",
    "ab\u{202c}",
    "a\u{200b}b",
    "\u{feff}a",
    "\u{ffff}",
    "\u{1f512}",
    "\u{fffd}",
];

/// All names of a list made to be confused can be held at one time, and each refuses only itself.
pub async fn different_names_are_different_locks(fx: &impl Fixture) {
    let (prefix, holder, other) = (fresh_key(), client(fx).await, client(fx).await);
    let key = |name: &str| Key::new(&format!("{}{name}", prefix.as_str())).expect("a short name");
    let mut guards = Vec::new();
    for name in SIMILAR {
        guards.push(take(&holder, &key(name)).await);
    }
    for guard in &guards {
        assert_held(&other, guard.key()).await;
    }
    for (guard, name) in guards.into_iter().zip(SIMILAR) {
        assert_eq!(guard.key(), &key(name), "a guard must know the key that it was asked for");
        release(guard).await;
        // The names that follow are still held, so this one was not one of them.
        release(take(&other, &key(name)).await).await;
    }
    for name in SIMILAR {
        assert_no_traces(fx, &key(name), SOON).await;
    }
}

/// The shortest and the longest name are locks like any other.
pub async fn a_name_may_have_one_byte_or_four_thousand(fx: &impl Fixture) {
    let (holder, other) = (client(fx).await, client(fx).await);
    let long = fresh_key().as_str().repeat(Key::MAX_LEN)[..Key::MAX_LEN].to_owned();
    let almost = format!("{}x", &long[..Key::MAX_LEN - 1]);
    let names = ["x", "/", "\0", "*", &long, &almost];
    let mut guards = Vec::new();
    for name in names {
        let key = Key::new(name).expect("at most as long as allowed");
        // Another run of the suite on the same servers may use so short a name.
        guards.push(take_within(SOON, &holder, &key).await);
        assert_held(&other, &key).await;
    }
    for guard in guards {
        release(guard).await;
    }
}

/// No name and too long a name are refused as invalid input, and nothing is done.
pub async fn bad_names_are_refused(fx: &impl Fixture) {
    refuse_bad_names(&client(fx).await).await;
}

/// Bad names are refused even if the servers answer nothing.
pub async fn bad_names_are_refused_without_asking_the_servers(fx: &impl Fixture) {
    let locker = client(fx).await;
    fx.pause().await.expect("the fixture pauses its servers");
    refuse_bad_names(&locker).await;
    fx.resume().await.expect("the fixture resumes its servers");
}

async fn refuse_bad_names(locker: &AnyLocker) {
    for name in [String::new(), "x".repeat(Key::MAX_LEN + 1), "\u{e9}".repeat(1 << 20)] {
        let what = format!("a try for a name of {} bytes", name.len());
        let tried = within(&what, SOON, locker.try_lock(&name)).await;
        let error = assert_fails(&what, tried, ErrorKind::InvalidInput);
        assert_eq!(error.effect(), Effect::None, "{what} does nothing, and the error must say so: {error:?}");
        assert!(error.to_string().len() < 500, "the message must not repeat a name of {} bytes", name.len());
        if locker.capabilities().waiting != Waiting::Never {
            let waited = within(&what, SOON, locker.lock(&name)).await;
            assert_fails(&what, waited, ErrorKind::InvalidInput);
            let waited = within(&what, SOON, locker.try_lock_for(&name, SOON)).await;
            assert_fails(&what, waited, ErrorKind::InvalidInput);
        }
    }
}
