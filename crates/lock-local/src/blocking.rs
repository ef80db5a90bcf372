//! Waiting on a thread that has no async runtime.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use crate::sync::thread::{self, Thread};

/// Runs `future` on this thread until it is ready, or for at most `timeout`, however often it is woken.
pub(crate) fn block_on<F: Future>(future: F, timeout: Option<Duration>) -> Option<F::Output> {
    let mut future = pin!(future);
    // A free key needs no waker, and so no allocation for one.
    if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        return Some(output);
    }
    // A deadline too far to be represented is none.
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        // The clock is read before the future is polled, so that what was ready in time is not taken for late.
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        match left {
            None => thread::park(),
            Some(Duration::ZERO) => return None,
            Some(left) => thread::park_timeout(left),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(all(test, not(lock_local_loom)))]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn wake_ups_do_not_start_the_time_anew() {
        let never_ready = poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert!(block_on(never_ready, Some(Duration::from_millis(5))).is_none());
    }

    #[test]
    fn what_is_ready_when_the_time_is_up_is_not_lost() {
        let mut polls = 0;
        let ready_late = poll_fn(|_| {
            polls += 1;
            if polls == 2 { Poll::Ready(()) } else { Poll::Pending }
        });
        assert!(block_on(ready_late, Some(Duration::ZERO)).is_some());
    }

    #[test]
    fn a_wake_up_from_another_thread_ends_the_wait() {
        let mut woken = false;
        let ready_once_woken = poll_fn(|context| {
            if std::mem::replace(&mut woken, !context.waker().will_wake(Waker::noop())) {
                return Poll::Ready(());
            }
            let waker = context.waker().clone();
            std::thread::spawn(move || waker.wake());
            Poll::Pending
        });
        assert!(block_on(ready_once_woken, None).is_some());
    }
}
