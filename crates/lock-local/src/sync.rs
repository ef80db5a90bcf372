//! The primitives that loom replaces when it explores the interleavings.

#[cfg(not(lock_local_loom))]
pub(crate) use parking_lot::Mutex;
#[cfg(not(lock_local_loom))]
pub(crate) use std::thread;

#[cfg(lock_local_loom)]
pub(crate) use self::modelled::{Mutex, thread};

#[cfg(lock_local_loom)]
mod modelled {
    use loom::sync::{self, MutexGuard};

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("nothing panics while a shard is locked")
        }
    }

    pub(crate) mod thread {
        use std::time::Duration;

        pub(crate) use loom::thread::{Thread, current, park, yield_now};

        /// A model has no clock: the time may be up at once.
        pub(crate) fn park_timeout(_: Duration) {
            yield_now();
        }
    }
}
